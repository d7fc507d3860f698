//! An image archive of any bytes: never a panic, nothing outside the store, and what loads can be saved again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

struct Arena {
    store: dhow_store::Store,
    outside: std::path::PathBuf,
}

static ARENA: LazyLock<Arena> = LazyLock::new(|| {
    let outside = std::env::temp_dir().join(format!("dhow-fuzz-load-{}", std::process::id()));
    std::fs::create_dir_all(&outside).expect("the fuzzer needs a temporary directory");
    std::fs::write(outside.join("victim"), b"precious").expect("the fuzzer needs a temporary directory");
    let store = dhow_store::Store::open(&outside.join("root")).expect("a new store opens");
    Arena { store, outside }
});

fuzz_target!(|data: &[u8]| {
    let arena = &*ARENA;
    if let Ok(loaded) = arena.store.load(data, &mut |_| {}) {
        for image in loaded {
            let id = image.id.hex();
            arena.store.save(std::slice::from_ref(&id), std::io::sink()).expect("what was loaded can be saved");
            arena.store.remove(&id, true, &|_| Vec::new()).expect("what was loaded can be removed");
        }
    }
    assert_eq!(std::fs::read(arena.outside.join("victim")).ok().as_deref(), Some(&b"precious"[..]));
    let tmp = std::fs::read_dir(arena.outside.join("root/tmp")).map(Iterator::count);
    assert_eq!(tmp.ok(), Some(0), "staging was left behind");
});
