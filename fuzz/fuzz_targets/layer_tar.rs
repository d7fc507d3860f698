//! A layer of any bytes, in any compression: never a panic, nothing outside the store, nothing visible on failure, and what
//! is accepted can be walked and written again.
#![no_main]

use dhow_oci::image::Compression;
use dhow_types::Digest;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

struct Arena {
    store: dhow_store::Store,
    outside: std::path::PathBuf,
}

static ARENA: LazyLock<Arena> = LazyLock::new(|| {
    let outside = std::env::temp_dir().join(format!("dhow-fuzz-layer-{}", std::process::id()));
    std::fs::create_dir_all(&outside).expect("the fuzzer needs a temporary directory");
    std::fs::write(outside.join("victim"), b"precious").expect("the fuzzer needs a temporary directory");
    let store = dhow_store::Store::open(&outside.join("root")).expect("a new store opens");
    Arena { store, outside }
});

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else { return };
    let compression = match first % 3 {
        0 => Compression::None,
        1 => Compression::Gzip,
        _ => Compression::Zstd,
    };
    let arena = &*ARENA;
    // The right digest for plain input, so that acceptance is reached too.
    if let Ok(staged) = arena.store.unpack(bytes, compression, &Digest::of(bytes)) {
        let again = arena.store.stage_upper(&staged.dir(), true);
        drop((again, staged));
    }
    assert_eq!(std::fs::read(arena.outside.join("victim")).ok().as_deref(), Some(&b"precious"[..]));
    let tmp = std::fs::read_dir(arena.outside.join("root/tmp")).map(Iterator::count);
    assert_eq!(tmp.ok(), Some(0), "staging was left behind");
});
