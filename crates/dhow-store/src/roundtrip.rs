//! Trees to tars and back, and archives of images.

use crate::layer::upper::tar_of;
use crate::tar::Kind;
use crate::testing::{Tar, Temp, config};
use crate::{LoadEvent, Loaded, StageOptions, StoreError, write_tree_tar};
use dhow_oci::image::{Compression, Descriptor, Manifest, media};
use dhow_types::{Digest, Reference};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut reader = crate::tar::read::TarReader::new(tar, "test");
    let mut names = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        names.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    names
}

/// Fills a directory with one of everything that needs no rights.
fn sample(dir: &Path) {
    std::fs::create_dir_all(dir.join("b/sub")).unwrap();
    std::fs::write(dir.join("b/file"), vec![7u8; 300_000]).unwrap();
    std::fs::write(dir.join("b-first"), b"sorts after b").unwrap();
    std::fs::hard_link(dir.join("b/file"), dir.join("z-link")).unwrap();
    symlink("../x", dir.join("b/symlink")).unwrap();
    std::fs::write(dir.join("su"), b"x").unwrap();
    std::fs::set_permissions(dir.join("su"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let whiteout = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("b/gone"), whiteout, rustix::fs::Mode::empty(), 0).unwrap();
    let attribute = std::fs::File::open(dir.join("su")).unwrap();
    dhow_sys::xattr::set(&attribute, b"user.note", b"1").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let holes = std::fs::File::create(dir.join("holes")).unwrap();
    holes.set_len(5 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&holes, b"end", (5 << 20) - 3).unwrap();
}

#[test]
fn an_upper_directory_becomes_a_layer() {
    let t = Temp::new();
    let scratch = t.store.new_upper().unwrap();
    sample(&scratch.upper());
    let copy = t.store.stage_upper(&scratch.upper(), true).unwrap();
    assert!(scratch.upper().join("b/file").exists(), "copying leaves it alone");
    let moved = t.store.stage_upper(&scratch.upper(), false).unwrap();
    assert!(!scratch.upper().exists());
    assert_eq!(copy.diff_id(), moved.diff_id());
    let diff = *moved.diff_id();
    let expected = ["b/", "b/file", "b/.wh.gone", "b/sub/", "b/symlink", "b-first", "fifo", "holes", "su", "z-link"];
    for staged in [copy, moved] {
        let fs = staged.dir();
        assert!(fs.join("b/gone").symlink_metadata().unwrap().file_type().is_char_device());
        assert_eq!(fs.join("b/file").metadata().unwrap().nlink(), 2);
        assert_eq!(fs.join("su").metadata().unwrap().mode() & 0o7777, 0o4711);
        assert!(fs.join("holes").metadata().unwrap().blocks() < 200, "holes stay holes");
        t.store.publish(vec![staged]).unwrap();
    }
    let tar = tar_of(&t.store, &diff);
    assert_eq!(names(&tar), expected);
    assert_eq!((Digest::of(&tar), tar.len() as u64), (diff, t.store.layer_tar_size(&diff).unwrap()));
}

#[test]
fn paths_can_be_left_out_and_times_clamped() {
    let t = Temp::new();
    for copy in [true, false] {
        let scratch = t.store.new_upper().unwrap();
        sample(&scratch.upper());
        std::fs::write(scratch.upper().join("b/sub/f"), b"").unwrap();
        let skip = [Path::new("/b/sub"), Path::new("su"), Path::new("/none/such")];
        let options = StageOptions { copy, skip: &skip, clamp: Some(1000), ..StageOptions::default() };
        let staged = t.store.stage_upper_with(&scratch.upper(), &options).unwrap();
        let diff = *staged.diff_id();
        assert!(!staged.dir().join("b/sub").exists() && !staged.dir().join("su").exists());
        t.store.publish(vec![staged]).unwrap();
        let tar = tar_of(&t.store, &diff);
        assert!(!names(&tar).iter().any(|n| n.contains("sub") || n == "su"));
        let mut reader = crate::tar::read::TarReader::new(tar.as_slice(), "test");
        while let Some(entry) = reader.next().unwrap() {
            let whiteout = entry.path.ends_with(b"/.wh.gone");
            assert_eq!(entry.mtime, (if whiteout { 0 } else { 1000 }, 0));
        }
    }
}

#[test]
fn the_root_is_part_of_a_layer_only_when_it_changed() {
    let t = Temp::new();
    let stage = |change: &dyn Fn(&Path)| {
        let scratch = t.store.new_upper().unwrap();
        let baseline = crate::RootAttributes::of_path(&scratch.upper());
        change(&scratch.upper());
        let options = StageOptions { root: Some(baseline), ..StageOptions::default() };
        let staged = t.store.stage_upper_with(&scratch.upper(), &options).unwrap();
        let diff = *staged.diff_id();
        t.store.publish(vec![staged]).unwrap();
        names(&tar_of(&t.store, &diff))
    };
    assert!(stage(&|_| {}).is_empty());
    assert_eq!(stage(&|upper| std::fs::write(upper.join("f"), b"").unwrap()), ["f"]);
    let chmod = |upper: &Path| std::fs::set_permissions(upper, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(stage(&chmod), ["./"]);
}

#[test]
fn root_opaque_directories_survive() {
    let t = Temp::new();
    let diff = t.layer(&Tar::new().dir("d", 0o755).file("d/.wh..wh..opq", b"").file("d/f", b"x").finish());
    for copy in [true, false] {
        let upper = t.outside().join("upper");
        let status = std::process::Command::new("cp").arg("-a").arg(t.store.layer_dir(&diff)).arg(&upper).status();
        assert!(status.unwrap().success());
        let fd = std::fs::File::open(upper.join("d")).unwrap();
        dhow_sys::xattr::set(&fd, b"trusted.overlay.opaque", b"y").unwrap();
        dhow_sys::xattr::set(&fd, b"trusted.overlay.origin", b"whatever").unwrap();
        let moved = t.store.new_upper().unwrap();
        std::fs::remove_dir(moved.upper()).unwrap();
        std::fs::rename(&upper, moved.upper()).unwrap();
        let staged = t.store.stage_upper(&moved.upper(), copy).unwrap();
        let fd = std::fs::File::open(staged.dir().join("d")).unwrap();
        assert_eq!(dhow_sys::xattr::list(&fd).unwrap(), [b"trusted.overlay.opaque".to_vec()]);
        let diff = *staged.diff_id();
        t.store.publish(vec![staged]).unwrap();
        assert_eq!(names(&tar_of(&t.store, &diff)), ["d/", "d/.wh..wh..opq", "d/f"]);
    }
    // A tree that is not whole cannot become a layer.
    let scratch = t.store.new_upper().unwrap();
    std::fs::create_dir(scratch.upper().join("d")).unwrap();
    let fd = std::fs::File::open(scratch.upper().join("d")).unwrap();
    dhow_sys::xattr::set(&fd, b"trusted.overlay.redirect", b"/elsewhere").unwrap();
    assert!(t.store.stage_upper(&scratch.upper(), false).is_err());
}

#[test]
fn a_pulled_layer_gives_back_the_bytes_it_was_pulled_as() {
    let t = Temp::new();
    // Not canonical: unsorted, with garbage after the end.
    let mut tar = Tar::new().file("z", b"1").file("a", b"2").finish();
    tar.extend_from_slice(&[0; 4096]);
    let (blob, diff) = (gzip(&tar), Digest::of(&tar));
    let digest = t.store.put_blob(&blob).unwrap();
    t.layer(&tar);
    assert!(matches!(t.store.write_layer_tar(&diff, std::io::sink()), Err(StoreError::Mismatch { .. })), "no source");
    let text = config(&[diff], "");
    let manifest = Manifest {
        schema_version: 2,
        media_type: None,
        config: Descriptor::new(media::OCI_CONFIG, Digest::of(&text), text.len() as u64),
        layers: vec![Descriptor::new(media::OCI_LAYER_GZIP, digest, blob.len() as u64)],
        annotations: BTreeMap::new(),
        extra: Default::default(),
    };
    let manifest = t.store.put_blob(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    let id = t.store.put_image(&text, Some((&manifest, media::OCI_MANIFEST))).unwrap();
    assert_eq!(tar_of(&t.store, &diff), tar);
    assert_eq!(t.store.compressed_layer(&diff).unwrap().digest, digest);
    // Saved and loaded elsewhere it is the same image with the same manifest.
    t.store.set_ref(&reference("app:1"), &id).unwrap();
    let mut archive = Vec::new();
    t.store.save(&["app:1".to_owned()], &mut archive).unwrap();
    let other = Temp::new();
    let loaded = other.store.load(archive.as_slice(), &mut |_| {}).unwrap();
    assert_eq!(loaded, [Loaded { id, reference: Some(reference("app:1")) }]);
    assert_eq!(other.store.image(&id).unwrap().manifest.unwrap().digest, manifest);
    assert_eq!(tar_of(&other.store, &diff), tar);
    // Everything that it brought goes with it.
    drop(other.reopen());
    other.store.remove("app:1", false, &|_| Vec::new()).unwrap();
}

#[test]
fn a_damaged_layer_is_noticed() {
    let t = Temp::new();
    let scratch = t.store.new_upper().unwrap();
    std::fs::write(scratch.upper().join("f"), b"1").unwrap();
    let staged = t.store.stage_upper(&scratch.upper(), false).unwrap();
    let diff = *staged.diff_id();
    t.store.publish(vec![staged]).unwrap();
    std::fs::write(t.store.layer_dir(&diff).join("f"), b"2").unwrap();
    assert!(matches!(t.store.write_layer_tar(&diff, std::io::sink()), Err(StoreError::Mismatch { .. })));
}

#[test]
fn compressing_is_repeatable_and_remembered() {
    let (a, b) = (Temp::new(), Temp::new());
    let tar = Tar::new().file("f", &vec![3; 2_000_000]).finish();
    let mut descriptors = Vec::new();
    for t in [&a, &b] {
        let scratch = t.store.new_upper().unwrap();
        std::fs::write(scratch.upper().join("f"), vec![3; 2_000_000]).unwrap();
        let options = StageOptions { clamp: Some(5), ..StageOptions::default() };
        let staged = t.store.stage_upper_with(&scratch.upper(), &options).unwrap();
        let diff = *staged.diff_id();
        t.store.publish(vec![staged]).unwrap();
        let made = t.store.compressed_layer(&diff).unwrap();
        let again = t.store.compressed_layer(&diff).unwrap();
        assert_eq!(made, again);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(t.store.open_blob(&made.digest).unwrap()).read_to_end(&mut back).unwrap();
        assert_eq!(Digest::of(&back), diff);
        assert!(made.size < tar.len() as u64 / 10);
        descriptors.push(made);
    }
    assert_eq!(descriptors[0], descriptors[1]);
}

#[test]
fn save_and_load_keep_images_and_names() {
    let t = Temp::new();
    let scratch = t.store.new_upper().unwrap();
    sample(&scratch.upper());
    let staged = t.store.stage_upper(&scratch.upper(), false).unwrap();
    let built = *staged.diff_id();
    t.store.publish(vec![staged]).unwrap();
    let foreign = t.layer(&Tar::new().file("z", b"1").file("a", b"2").finish());
    let id = t.image(&[built], "one");
    t.store.set_ref(&reference("app:1"), &id).unwrap();
    t.store.set_ref(&reference("app:2"), &id).unwrap();
    let nameless = t.image(&[built, built], "two");
    let mut archive = Vec::new();
    let wanted = ["app:1", "app:2", &nameless.short()].map(str::to_owned);
    t.store.save(&wanted, &mut archive).unwrap();
    let mut again = Vec::new();
    t.store.save(&wanted, &mut again).unwrap();
    assert!(archive == again, "the same every time");
    assert!(matches!(t.store.save(&["nope".to_owned()], std::io::sink()), Err(StoreError::NoSuchImage(_))));
    for input in [archive.clone(), gzip(&archive), zstd::encode_all(archive.as_slice(), 1).unwrap()] {
        let other = Temp::new();
        let mut events = Vec::new();
        let loaded = other.store.load(input.as_slice(), &mut |e| events.push(e)).unwrap();
        assert_eq!(
            loaded.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "Loaded image: app:1".to_owned(),
                "Loaded image: app:2".to_owned(),
                format!("Loaded image ID: {nameless}")
            ]
        );
        assert!(matches!(events.as_slice(), [LoadEvent::Layer { diff_id, .. }] if *diff_id == built));
        assert_eq!(other.store.resolve("app:2").unwrap().id, id);
        assert_eq!(Digest::of(&tar_of(&other.store, &built)), built);
        // A canonical layer is kept once: no blob beside its files.
        assert_eq!(std::fs::read_dir(other.root().join("blobs/sha256")).unwrap().count(), 2);
        assert_eq!(std::fs::read_dir(other.root().join("tmp")).unwrap().count(), 0);
    }
    let _ = foreign;
}

/// An archive as Docker wrote it before 25: directories per layer, repeated layers as symlinks.
fn old_docker(layers: &[(&str, &[u8])], config_text: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Tar {
    let mut tar = Tar::new().file("abc.json", config_text);
    for (name, data) in layers {
        tar = tar.file(name, data);
    }
    let mut manifest = serde_json::json!([{
        "Config": "abc.json",
        "RepoTags": ["old:1"],
        "Layers": layers.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
    }]);
    change(&mut manifest[0]);
    tar.file("manifest.json", manifest.to_string().as_bytes())
}

#[test]
fn old_docker_archives_load() {
    let layer = Tar::new().file("z", b"1").file("a", b"2").finish();
    let text = config(&[Digest::of(&layer), Digest::of(&layer)], "old");
    let archive = old_docker(&[("1/layer.tar", &layer)], &text, |m| {
        m["Layers"] = serde_json::json!(["1/layer.tar", "2/layer.tar"]);
    })
    .symlink("2/layer.tar", "../1/layer.tar")
    .file("repositories", b"{}")
    .finish();
    let t = Temp::new();
    let loaded = t.store.load(archive.as_slice(), &mut |_| {}).unwrap();
    assert_eq!(loaded[0].reference, Some(reference("old:1")));
    assert_eq!(tar_of(&t.store, &Digest::of(&layer)), layer, "kept, because it is not canonical");
    t.store.end_lease_for_test();
    t.store.remove("old:1", false, &|_| Vec::new()).unwrap();
    for dir in ["blobs/sha256", "layers", "images", "refs", "l", "tmp", "leases"] {
        assert_eq!(std::fs::read_dir(t.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn m13_hostile_archives_are_refused() {
    let layer = Tar::new().file("f", b"1").finish();
    let text = config(&[Digest::of(&layer)], "x");
    let layers = [("1/layer.tar", layer.as_slice())];
    let load = |tar: &[u8]| {
        let t = Temp::new();
        std::fs::write(t.outside().join("secret"), &text).unwrap();
        std::fs::write(t.outside().join("layer.tar"), &layer).unwrap();
        let result = t.store.load(tar, &mut |_| {});
        let left = ["tmp", "images", "refs"].map(|d| std::fs::read_dir(t.root().join(d)).unwrap().count());
        if result.is_err() {
            assert_eq!(left, [0; 3]);
        }
        result.map(drop).map_err(|e| dhow_types::report(&e))
    };
    let refused = |tar: Vec<u8>, why: &str| {
        let error = load(&tar).expect_err(why);
        assert!(error.contains(why), "{error:?} does not say {why:?}");
    };
    // Baseline.
    load(&old_docker(&layers, &text, |_| {}).finish()).unwrap();
    for path in ["../secret", "../../../../secret", "/etc/passwd", "1/../../secret", "a\0b"] {
        refused(old_docker(&layers, &text, |m| m["Config"] = path.into()).finish(), "leads outside");
        refused(old_docker(&layers, &text, |m| m["Layers"] = serde_json::json!([path])).finish(), "leads outside");
    }
    for target in ["../../layer.tar", "/etc/hostname", "../../../etc/hostname"] {
        let archive = old_docker(&[], &text, |m| m["Layers"] = serde_json::json!(["1/layer.tar"]));
        refused(archive.symlink("1/layer.tar", target).finish(), "outside the archive");
    }
    // A loop that nobody asks for is no harm.
    load(&old_docker(&layers, &text, |_| {}).symlink("loop", "loop").finish()).unwrap();
    let looping = old_docker(&[], &text, |m| m["Layers"] = serde_json::json!(["l"])).symlink("l", "l").finish();
    refused(looping, "not in the archive");
    refused(old_docker(&layers, &text, |m| m["Layers"] = serde_json::json!([])).finish(), "diff IDs");
    refused(old_docker(&layers, b"{}", |_| {}).finish(), "image config");
    refused(old_docker(&layers, &text, |m| m["RepoTags"] = serde_json::json!(["../evil"])).finish(), "reference");
    refused(old_docker(&[("1/layer.tar", b"garbage")], &text, |_| {}).finish(), "");
    refused(old_docker(&[("1/layer.tar", &layer[..700])], &text, |_| {}).finish(), "");
    let other = Tar::new().file("f", b"2").finish();
    refused(old_docker(&[("1/layer.tar", &other)], &text, |_| {}).finish(), "layer is corrupt");
    refused(Tar::new().file("../escape", b"x").finish(), "leads outside");
    refused(Tar::new().link(Kind::Fifo, "manifest.json", "").finish(), "not a plain file");
    refused(Tar::new().file("manifest.json", &vec![b' '; 5 << 20]).finish(), "larger than 4 MiB");
    refused(Tar::new().file("x", b"").finish(), "no image to load");
    refused(b"this is no archive at all, but long enough to look like one".repeat(30), "checksum");
    refused(Vec::new(), "no image to load");
}

#[test]
fn lying_oci_layouts_are_refused() {
    let t = Temp::new();
    let layer = Tar::new().file("f", b"1").finish();
    let text = config(&[Digest::of(&layer)], "x");
    let build = |size_off: i64, wrong_name: bool, both: bool, layer: &[u8]| {
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": media::OCI_CONFIG, "digest": Digest::of(&text).to_string(), "size": text.len()},
            "layers": [{"mediaType": media::OCI_LAYER, "digest": Digest::of(layer).to_string(),
                "size": layer.len() as i64 + size_off}],
        });
        let mut manifest = manifest;
        if both {
            manifest["manifests"] = serde_json::json!([]);
        }
        let manifest = manifest.to_string().into_bytes();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": media::OCI_MANIFEST, "digest": Digest::of(&manifest).to_string(), "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/x:1"}}]});
        let blob = |d: &[u8]| format!("blobs/sha256/{}", Digest::of(d).hex());
        let name = if wrong_name { blob(b"?") } else { blob(layer) };
        Tar::new()
            .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", index.to_string().as_bytes())
            .file(&blob(&manifest), &manifest)
            .file(&blob(&text), &text)
            .file(&name, layer)
            .finish()
    };
    let loaded = t.store.load(build(0, false, false, &layer).as_slice(), &mut |_| {}).unwrap();
    assert_eq!(loaded[0].to_string(), "Loaded image: x:1");
    let other = Temp::new();
    let fails = |tar: Vec<u8>| other.store.load(tar.as_slice(), &mut |_| {}).unwrap_err();
    assert!(matches!(fails(build(1, false, false, &layer)), StoreError::Size { .. }));
    assert!(matches!(fails(build(-1, false, false, &layer)), StoreError::Size { .. }));
    assert!(matches!(fails(build(0, true, false, &layer)), StoreError::Archive { .. }));
    assert!(matches!(fails(build(0, false, true, &layer)), StoreError::Document(_)));
    let lie = Tar::new().file("f", b"2").finish();
    assert!(matches!(fails(build(0, false, false, &lie)), StoreError::Mismatch { what: "layer", .. }));
    // A blob whose name lies.
    let honest = build(0, false, false, &layer);
    let at = honest.windows(3).position(|w| w == b"f\0\0").unwrap();
    let mut flipped = honest.clone();
    flipped[at + 512] ^= 1;
    assert!(matches!(fails(flipped), StoreError::Mismatch { .. }));
}

#[test]
fn import_makes_an_image_of_a_tree() {
    let t = Temp::new();
    let tar = Tar::new().file("bin/sh", b"x").dir("bin", 0o711).finish();
    let id = t
        .store
        .import(
            gzip(&tar).as_slice(),
            &mut |config| {
                config.config.cmd = Some(vec!["/bin/sh".to_owned()]);
                Ok(())
            },
            "Imported from -",
        )
        .unwrap();
    let image = t.store.image(&id).unwrap();
    assert_eq!(image.config.config.cmd, Some(vec!["/bin/sh".to_owned()]));
    assert_eq!(image.config.history[0].comment.as_deref(), Some("Imported from -"));
    assert!(t.store.layer_dir(&image.config.rootfs.diff_ids[0]).join("bin/sh").exists());
    let refused = t.store.import(tar.as_slice(), &mut |_| Err("unknown instruction".to_owned()), "");
    assert_eq!(refused.unwrap_err().to_string(), "unknown instruction");
    assert!(t.store.import(&b"garbage"[..], &mut |_| Ok(()), "").is_err());
    assert_eq!(std::fs::read_dir(t.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn an_export_holds_everything_plainly() {
    let t = Temp::new();
    sample(t.outside());
    let tree = t.outside().join("b");
    let fd = std::fs::File::open(&tree).unwrap();
    let mut tar = Vec::new();
    write_tree_tar(fd.as_fd(), &mut tar).unwrap();
    // Device 0:0 is a device here, and no name is special.
    assert_eq!(names(&tar), ["file", "gone", "sub/", "symlink"]);
}

/// One object of a random tree.
#[derive(Debug, Clone)]
enum Thing {
    File(Vec<u8>, u32),
    Dir(u32),
    Symlink(String),
    Whiteout,
    Fifo,
    LinkTo(prop::sample::Index),
}

fn trees() -> impl Strategy<Value = BTreeMap<String, Thing>> {
    let thing = prop_oneof![
        4 => (proptest::collection::vec(any::<u8>(), 0..2000), 0o400u32..0o10000).prop_map(|(d, m)| Thing::File(d, m)),
        3 => (0o700u32..0o10000).prop_map(|m| Thing::Dir(m | 0o700)),
        1 => "[a-z./é]{1,120}".prop_map(Thing::Symlink),
        1 => Just(Thing::Whiteout),
        1 => Just(Thing::Fifo),
        1 => any::<prop::sample::Index>().prop_map(Thing::LinkTo),
    ];
    proptest::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,3}|[a-zé -]{1,120}", thing, 0..25)
}

fn build(root: &Path, tree: &BTreeMap<String, Thing>) {
    let mut files: Vec<std::path::PathBuf> = Vec::new();
    for (name, thing) in tree {
        let path = root.join(name);
        let parent = path.parent().unwrap();
        // A name below something that is no directory cannot be; leave it out.
        if std::fs::create_dir_all(parent).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        let mode = |m: u32| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(m)).unwrap();
        match thing {
            Thing::File(data, m) => {
                std::fs::write(&path, data).unwrap();
                mode(*m);
                files.push(path.clone());
            }
            Thing::Dir(m) => {
                std::fs::create_dir(&path).unwrap();
                mode(*m);
            }
            Thing::Symlink(target) => symlink(target, &path).unwrap(),
            Thing::Whiteout => {
                let kind = rustix::fs::FileType::CharacterDevice;
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::empty(), 0).unwrap();
            }
            Thing::Fifo => {
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
            }
            Thing::LinkTo(index) if !files.is_empty() => {
                std::fs::hard_link(index.get(&files), &path).unwrap();
            }
            Thing::LinkTo(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Tree to tar to tree to tar: the same bytes, by copy and by move, and through a save and a load.
    #[test]
    fn writing_and_unpacking_are_inverse(tree in trees()) {
        let t = Temp::new();
        let scratch = t.store.new_upper().unwrap();
        build(&scratch.upper(), &tree);
        let copied = *t.store.stage_upper(&scratch.upper(), true).unwrap().diff_id();
        let staged = t.store.stage_upper(&scratch.upper(), false).unwrap();
        prop_assert_eq!(&copied, staged.diff_id());
        t.store.publish(vec![staged]).unwrap();
        let tar = tar_of(&t.store, &copied);
        prop_assert_eq!(Digest::of(&tar), copied);
        let other = Temp::new();
        let mut unpacked = other.store.unpack(tar.as_slice(), Compression::None, &copied).unwrap();
        prop_assert!(other.store.probe_canonical(&mut unpacked).unwrap());
        other.store.publish(vec![unpacked]).unwrap();
        prop_assert!(tar_of(&other.store, &copied) == tar);
    }
}
