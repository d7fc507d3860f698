//! Tests of blobs, downloads, layers, images and references together.

use crate::testing::{Tar, Temp, config};
use crate::{ImageUse, Removal, Store, StoreError};
use dhow_oci::image::{Compression, Descriptor, Manifest, media};
use dhow_types::{Categorized, Digest, ErrorKind, Reference};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn count(path: &std::path::Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

fn no_uses(_: &Digest) -> Vec<ImageUse> {
    Vec::new()
}

#[test]
fn blobs() {
    let t = Temp::new();
    let digest = t.store.put_blob(b"hello").unwrap();
    assert_eq!(digest, t.store.put_blob(b"hello").unwrap());
    assert_eq!(t.store.has_blob(&digest).unwrap(), Some(5));
    assert_eq!(t.store.read_blob(&digest, 5).unwrap(), b"hello");
    assert!(t.store.read_blob(&digest, 4).is_err(), "the limit holds");
    let path = t.root().join("blobs/sha256").join(digest.hex());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o444);
    // Damage is found, and repaired by putting the blob again.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"hullo").unwrap();
    assert_eq!(t.store.read_blob(&digest, 5).unwrap_err().kind(), ErrorKind::Corrupt);
    t.store.put_blob(b"hello").unwrap();
    assert_eq!(t.store.read_blob(&digest, 5).unwrap(), b"hello");
    let missing = Digest::of(b"other");
    assert_eq!(t.store.has_blob(&missing).unwrap(), None);
    assert_eq!(t.store.read_blob(&missing, 5).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(count(&t.root().join("tmp")), 0);
}

#[test]
fn a_download_is_resumed_by_another_process_and_verified() {
    let t = Temp::new();
    let data: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    let digest = Digest::of(&data);
    let mut first = t.store.ingest(&digest, data.len() as u64).unwrap();
    first.write(&data[..50_000]).unwrap();
    drop(first);
    let other = t.reopen();
    let mut second = other.ingest(&digest, data.len() as u64).unwrap();
    assert_eq!(second.offset(), 50_000);
    second.write(&data[50_000..]).unwrap();
    second.finish().unwrap();
    assert_eq!(other.read_blob(&digest, 1 << 20).unwrap(), data);
    let third = other.ingest(&digest, data.len() as u64).unwrap();
    assert!(third.is_complete() && third.offset() == data.len() as u64);
    assert_eq!(count(&t.root().join("ingest")), 0);
}

#[test]
fn after_a_reboot_only_what_the_journal_knows_is_kept() {
    let t = Temp::new();
    let digest = Digest::of(b"abcdef");
    let mut ingest = t.store.ingest(&digest, 6).unwrap();
    ingest.write(b"abc").unwrap();
    drop(ingest);
    let journal = t.root().join("ingest").join(format!("{}.journal", digest.hex()));
    std::fs::write(&journal, r#"{"version":1,"boot":"another","durable":2}"#).unwrap();
    assert_eq!(t.store.ingest(&digest, 6).unwrap().offset(), 2);
    std::fs::write(&journal, "torn").unwrap();
    assert_eq!(t.store.ingest(&digest, 6).unwrap().offset(), 0);
}

#[test]
fn wrong_bytes_and_lying_sizes_leave_nothing() {
    let t = Temp::new();
    let digest = Digest::of(b"right");
    let mut ingest = t.store.ingest(&digest, 5).unwrap();
    ingest.write(b"wrong").unwrap();
    assert_eq!(ingest.finish().unwrap_err().kind(), ErrorKind::Corrupt);
    drop(ingest);
    assert_eq!((count(&t.root().join("ingest")), count(&t.root().join("blobs/sha256"))), (0, 0));
    // M05: more than described is never written; less is not complete.
    let mut ingest = t.store.ingest(&digest, 4).unwrap();
    assert!(matches!(ingest.write(b"right"), Err(StoreError::Size { expected: 4, found: 5, .. })));
    drop(ingest);
    assert_eq!(count(&t.root().join("ingest")), 0);
    let mut ingest = t.store.ingest(&digest, 6).unwrap();
    ingest.write(b"right").unwrap();
    assert!(matches!(ingest.finish(), Err(StoreError::Size { expected: 6, found: 5, .. })));
}

#[test]
fn a_server_that_cannot_resume_starts_over() {
    let t = Temp::new();
    let digest = Digest::of(b"abcdef");
    let mut ingest = t.store.ingest(&digest, 6).unwrap();
    ingest.write(b"abXX").unwrap();
    let mut follower = ingest.follow().unwrap();
    ingest.restart().unwrap();
    assert_eq!(ingest.offset(), 0);
    ingest.write(b"abc").unwrap();
    ingest.write(b"def").unwrap();
    ingest.finish().unwrap();
    let mut seen = String::new();
    follower.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "abcdef");
}

#[test]
fn a_layer_unpacks_while_it_downloads() {
    let t = Temp::new();
    let tar = Tar::new().dir("d", 0o755).file("d/f", &[7; 100_000]).finish();
    let blob = gzip(&tar);
    let (digest, diff) = (Digest::of(&blob), Digest::of(&tar));
    let mut ingest = t.store.ingest(&digest, blob.len() as u64).unwrap();
    let follower = ingest.follow().unwrap();
    let staged = std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| t.store.unpack(follower, Compression::Gzip, &diff));
        for piece in blob.chunks(blob.len() / 5 + 1) {
            ingest.write(piece).unwrap();
        }
        ingest.finish().unwrap();
        unpacking.join().unwrap().unwrap()
    });
    assert!(!t.store.has_layer(&diff).unwrap(), "staged is not visible");
    t.store.publish(vec![staged]).unwrap();
    assert!(t.store.has_layer(&diff).unwrap());
    assert_eq!(std::fs::read(t.store.layer_dir(&diff).join("d/f")).unwrap(), [7; 100_000]);
}

#[test]
fn an_interrupted_download_fails_its_follower() {
    let t = Temp::new();
    let tar = Tar::new().file("f", b"x").finish();
    let (digest, diff) = (Digest::of(&tar), Digest::of(&tar));
    let mut ingest = t.store.ingest(&digest, tar.len() as u64).unwrap();
    let follower = ingest.follow().unwrap();
    let error = std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| t.store.unpack(follower, Compression::None, &diff));
        ingest.write(&tar[..700]).unwrap();
        drop(ingest);
        unpacking.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, StoreError::Interrupted(d) if d == digest), "{error:?}");
    assert_eq!(count(&t.root().join("tmp")), 0);
}

#[test]
fn m03_a_wrong_diff_id_leaves_nothing_visible() {
    let t = Temp::new();
    let tar = Tar::new().file("f", b"x").finish();
    // Control: the right one is accepted.
    drop(t.store.unpack(tar.as_slice(), Compression::None, &Digest::of(&tar)).unwrap());
    let error = t.store.unpack(tar.as_slice(), Compression::None, &Digest::of(b"lie")).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { what: "layer", .. }));
    assert_eq!((count(&t.root().join("tmp")), count(&t.root().join("layers"))), (0, 0));
}

#[test]
fn publishing_twice_is_fine() {
    let t = Temp::new();
    let tar = Tar::new().file("f", b"x").finish();
    let diff = Digest::of(&tar);
    let stage = || t.store.unpack(tar.as_slice(), Compression::None, &diff).unwrap();
    let (a, b, c) = (stage(), stage(), stage());
    std::thread::scope(|scope| {
        scope.spawn(|| t.store.publish(vec![a]).unwrap());
        scope.spawn(|| t.reopen().publish(vec![b]).unwrap());
    });
    t.store.publish(vec![c]).unwrap();
    assert_eq!((count(&t.root().join("layers")), count(&t.root().join("tmp"))), (1, 0));
    let link = std::fs::read_dir(t.root().join("l")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read(link.join("f")).unwrap(), b"x");
}

#[test]
fn images_and_names() {
    let t = Temp::new();
    let layer = t.layer(&Tar::new().file("f", b"four").finish());
    let id = t.image(&[layer], "one");
    assert_eq!(id, t.image(&[layer], "one"));
    let other = t.image(&[layer], "two");
    t.store.set_ref(&reference("app"), &id).unwrap();
    t.store.set_ref(&reference("host:5000/x/y:1"), &id).unwrap();
    let digest = Digest::of(b"manifest");
    t.store.add_repo_digest(&reference("app").with_digest(digest), &id).unwrap();
    let image = t.store.resolve("app").unwrap();
    assert_eq!((image.id, image.size), (id, 4));
    assert_eq!(image.references, [reference("app:latest"), reference("host:5000/x/y:1")]);
    assert_eq!(image.repo_digests, [reference("app").with_digest(digest)]);
    for text in [
        "app:latest",
        "docker.io/library/app",
        "host:5000/x/y:1",
        &format!("app@{digest}"),
        &format!("app:whatever@{digest}"),
        &id.to_string(),
        &id.hex(),
        &id.hex()[..12],
        &format!("sha256:{}", &id.hex()[..8]),
    ] {
        assert_eq!(t.store.resolve(text).unwrap().id, id, "{text}");
    }
    for text in ["nope", "app:2", "host:5000/x/y", "sha256:", "", "../x", &Digest::of(b"?").to_string()] {
        let error = t.store.resolve(text).unwrap_err();
        assert_eq!(error.to_string(), format!("No such image: {text}"));
    }
    // A tag moves; both stay images.
    t.store.set_ref(&reference("app"), &other).unwrap();
    assert_eq!(t.store.resolve("app").unwrap().id, other);
    assert_eq!(t.store.image(&id).unwrap().references, [reference("host:5000/x/y:1")]);
    assert_eq!(t.store.images().unwrap().len(), 2);
    assert!(t.store.set_ref(&reference("app").with_digest(digest), &id).is_err());
    assert!(t.store.set_ref(&reference("b"), &Digest::of(b"none")).is_err());
}

#[test]
fn a_name_wins_over_an_id_and_short_ids_must_be_unique() {
    let t = Temp::new();
    let ids: Vec<Digest> = (0..40).map(|i| t.image(&[], &i.to_string())).collect();
    let first = ids[0].hex();
    let twin = ids[1..].iter().find(|d| d.hex()[..1] == first[..1]).expect("40 images share 16 first digits");
    assert!(matches!(t.store.resolve(&first[..1]), Err(StoreError::AmbiguousId(_))));
    t.store.set_ref(&reference(&first[..12]), twin).unwrap();
    assert_eq!(t.store.resolve(&first[..12]).unwrap().id, *twin);
    assert_eq!(t.store.resolve(&first[..13]).unwrap().id, ids[0]);
}

#[test]
fn an_image_needs_its_layers_and_an_honest_manifest() {
    let t = Temp::new();
    let missing = Digest::of(b"layer");
    assert!(
        matches!(t.store.put_image(&config(&[missing], ""), None), Err(StoreError::NoSuchLayer(d)) if d == missing)
    );
    let layer = t.layer(&Tar::new().file("f", b"x").finish());
    let text = config(&[layer], "");
    let manifest = |config: Digest, layers: usize| {
        let layer = Descriptor::new(media::OCI_LAYER_GZIP, Digest::of(b"blob"), 4);
        let m = Manifest {
            schema_version: 2,
            media_type: None,
            config: Descriptor::new(media::OCI_CONFIG, config, 1),
            layers: vec![layer; layers],
            annotations: Default::default(),
            extra: Default::default(),
        };
        t.store.put_blob(&serde_json::to_vec(&m).unwrap()).unwrap()
    };
    let id = Digest::of(&text);
    let put = |manifest: Digest| t.store.put_image(&text, Some((&manifest, media::OCI_MANIFEST)));
    // M07: as many diff IDs as layers, and of this config.
    assert_eq!(put(manifest(id, 2)).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(put(manifest(missing, 1)).unwrap_err().kind(), ErrorKind::Corrupt);
    let good = manifest(id, 1);
    assert_eq!(put(good).unwrap(), id);
    assert_eq!(t.store.image(&id).unwrap().manifest.unwrap().digest, good);
    // M08.
    assert!(t.store.put_image(br#"{"architecture":"amd64","os":"linux"}"#, None).is_err());
}

#[test]
fn removing_deletes_what_nobody_else_needs() {
    let t = Temp::new();
    let base = t.layer(&Tar::new().file("base", b"x").finish());
    let top = t.layer(&Tar::new().file("top", b"x").finish());
    let (small, large) = (t.image(&[base], "small"), t.image(&[base, top], "large"));
    t.store.set_ref(&reference("small"), &small).unwrap();
    t.store.set_ref(&reference("large"), &large).unwrap();
    assert_eq!(t.store.lower_dirs(&[base, top]).unwrap().len(), 2);
    let out = remove_in_fresh_process(&t, "large", false).unwrap();
    let chain = dhow_oci::image::chain_id(&[base, top]).unwrap();
    let expected = [Removal::Untagged("large:latest".to_owned()), Removal::Deleted(large), Removal::Deleted(chain)];
    assert_eq!(out, expected);
    assert!(t.store.has_layer(&base).unwrap() && !t.store.has_layer(&top).unwrap());
    assert_eq!(count(&t.root().join("chains")), 0);
    assert_eq!(count(&t.root().join("l")), 1);
    assert_eq!(count(&t.root().join("tmp")), 0);
}

/// Removes as another process would while the stores of this test hold no lease.
fn remove_in_fresh_process(t: &Temp, text: &str, force: bool) -> Result<Vec<Removal>, StoreError> {
    t.store.end_lease_for_test();
    t.reopen().remove(text, force, &no_uses)
}

#[test]
fn removal_follows_docker() {
    let t = Temp::new();
    let layer = t.layer(&Tar::new().file("f", b"x").finish());
    let id = t.image(&[layer], "");
    let repo_digest = reference("app").with_digest(Digest::of(b"m"));
    let tag = |names: &[&str]| {
        for name in names {
            t.store.set_ref(&reference(name), &id).unwrap();
        }
    };
    tag(&["app:1", "app:2"]);
    t.store.add_repo_digest(&repo_digest, &id).unwrap();
    let container =
        |running| move |_: &Digest| vec![ImageUse { container: "c0ffee".to_owned(), name: "web".to_owned(), running }];
    let short = id.short();
    let fails = |text: &str, force, running, expected: String| {
        let error = t.store.remove(text, force, &container(running)).unwrap_err();
        assert_eq!((error.to_string(), error.kind()), (expected, ErrorKind::Conflict));
    };
    // Two tags: one may always go.
    let out = t.store.remove("app:1", false, &container(true)).unwrap();
    assert_eq!(out, [Removal::Untagged("app:1".to_owned())]);
    let using = format!(
        "conflict: unable to delete app:2 (must be forced) - container c0ffee is using its referenced image {short}"
    );
    fails("app:2", false, true, using.clone());
    fails("app:2", false, false, using);
    let stopped = "image is being used by stopped container c0ffee";
    fails(&short, false, false, format!("conflict: unable to delete {short} (must be forced) - {stopped}"));
    let running = "image is being used by running container c0ffee";
    fails(&short, true, true, format!("conflict: unable to delete {short} (cannot be forced) - {running}"));
    tag(&["other:1"]);
    let several = "image is referenced in multiple repositories";
    let error = t.store.remove(&short, false, &no_uses).unwrap_err().to_string();
    assert_eq!(error, format!("conflict: unable to delete {short} (must be forced) - {several}"));
    t.store.remove("other:1", false, &no_uses).unwrap();
    // By force the name goes, with its digest; a running container keeps the image, dangling.
    let out = t.store.remove("app:2", true, &container(true)).unwrap();
    assert_eq!(out, [Removal::Untagged("app:2".to_owned()), Removal::Untagged(repo_digest.familiar())]);
    assert!(t.store.image(&id).unwrap().references.is_empty());
    // A stopped container keeps the layers of an image that is gone, until it is gone too.
    t.store.end_lease_for_test();
    let out = t.store.remove(&short, true, &container(false)).unwrap();
    assert_eq!(out, [Removal::Deleted(id)]);
    assert!(t.store.image(&id).is_err() && t.store.layer_dir(&layer).exists());
    t.store.sweep_unused(&container(false)).unwrap();
    assert!(t.store.layer_dir(&layer).exists());
    t.store.sweep_unused(&no_uses).unwrap();
    assert!(!t.store.layer_dir(&layer).exists());
    assert_eq!(count(&t.root().join("blobs/sha256")), 0);
    assert_eq!(t.store.remove("app:2", false, &no_uses).unwrap_err().to_string(), "No such image: app:2");
}

#[test]
fn what_another_process_is_about_to_use_is_not_deleted() {
    let t = Temp::new();
    let layer = t.layer(&Tar::new().file("f", b"x").finish());
    let id = t.image(&[layer], "old");
    t.store.end_lease_for_test();
    // A pull finds the layer and relies on it …
    let pull = t.reopen();
    assert!(pull.has_layer(&layer).unwrap());
    // … while the only image that has it is removed …
    assert_eq!(t.reopen().remove(&id.hex(), false, &no_uses).unwrap(), [Removal::Deleted(id)]);
    assert_eq!(t.reopen().heal().unwrap().objects, 0);
    // … and ends with an image that works.
    let new = pull.put_image(&config(&[layer], "new"), None).unwrap();
    drop(pull);
    assert!(t.store.layer_dir(&layer).join("f").exists());
    t.reopen().remove(&new.hex(), false, &no_uses).unwrap();
    assert!(!t.store.layer_dir(&layer).exists());
}

#[test]
fn what_came_to_nothing_is_removed_and_downloads_are_kept() {
    let t = Temp::new();
    let tar = Tar::new().file("f", &vec![1; 100_000]).finish();
    let work = |store: &Store| {
        let mut ingest = store.ingest(&Digest::of(&tar), tar.len() as u64).unwrap();
        ingest.write(&tar[ingest.offset() as usize..]).unwrap();
        ingest.finish().unwrap();
        let diff = Digest::of(&tar);
        store.publish(vec![store.unpack(tar.as_slice(), Compression::None, &diff).unwrap()]).unwrap();
        store.put_blob(b"manifest").unwrap();
    };
    let clean = || {
        for dir in ["layers", "l", "blobs/sha256", "leases", "tmp", "images"] {
            assert_eq!(count(&t.root().join(dir)), 0, "{dir}");
        }
        assert_eq!(t.store.ingest(&Digest::of(&tar), tar.len() as u64).unwrap().offset(), tar.len() as u64);
    };
    let failed = t.reopen();
    work(&failed);
    drop(failed);
    clean();
    // Killed: nothing runs at the end, the next command heals.
    let killed = t.reopen();
    work(&killed);
    killed.die_for_test();
    assert_eq!(count(&t.root().join("layers")), 1);
    let healed = t.store.heal().unwrap();
    assert_eq!((healed.lists, healed.objects), (1, 2), "layer and manifest; the download is kept");
    clean();
    assert_eq!(t.store.heal().unwrap(), crate::Healed::default());
    assert!(t.store.discard_partials().unwrap() >= tar.len() as u64);
    assert_eq!(count(&t.root().join("ingest")), 0);
}

#[test]
fn pins_keep_layers() {
    let t = Temp::new();
    let layer = t.layer(&Tar::new().file("f", b"x").finish());
    t.store.pin("cache-1", &[layer], &[]).unwrap();
    t.store.end_lease_for_test();
    let id = t.reopen().put_image(&config(&[layer], ""), None).unwrap();
    t.reopen().remove(&id.hex(), false, &no_uses).unwrap();
    assert!(t.store.layer_dir(&layer).exists());
    assert_eq!(t.store.pins().unwrap(), ["cache-1"]);
    t.store.unpin("cache-1").unwrap();
    assert!(!t.store.layer_dir(&layer).exists());
    for bad in ["", "../x", "a/b", ".x", "a b"] {
        assert!(t.store.pin(bad, &[], &[]).is_err(), "{bad:?}");
    }
}

#[test]
fn caches_keep_layers_until_they_give_them_up() {
    let t = Temp::new();
    let stage = |store: &crate::Store, name: &str| {
        let tar = Tar::new().file(name, b"x").finish();
        store.unpack(tar.as_slice(), Compression::None, &Digest::of(&tar)).unwrap()
    };
    std::fs::remove_dir(t.root().join("kept")).unwrap();
    let (one, two) = (stage(&t.store, "one"), stage(&t.store, "two"));
    let (a, b) = (*one.diff_id(), *two.diff_id());
    t.store.publish_kept(vec![one, two]).unwrap();
    assert_eq!(t.reopen().unkeep(&[a, b]).unwrap(), [], "a living process relies on them");
    t.store.end_lease_for_test();
    let id = t.reopen().put_image(&config(&[a], ""), None).unwrap();
    let sorted = |mut list: Vec<crate::KeptLayer>| {
        list.sort_by_key(|k| k.layer != a);
        list.iter().map(|k| (k.layer, k.size, k.named, k.leased)).collect::<Vec<_>>()
    };
    assert_eq!(sorted(t.reopen().kept().unwrap()), [(a, 1, true, false), (b, 1, false, false)]);
    t.reopen().remove(&id.hex(), false, &no_uses).unwrap();
    assert!(t.store.layer_dir(&a).exists());
    let mut gone = t.reopen().unkeep(&[a, b]).unwrap();
    gone.sort_by_key(|d| *d != a);
    assert_eq!(gone, [a, b]);
    assert!(!t.store.layer_dir(&a).exists() && !t.store.layer_dir(&b).exists());
    // A mark whose layer never came.
    t.reopen().keep(&[a]).unwrap();
    assert_eq!(count(&t.root().join("kept")), 1);
    assert_eq!(t.reopen().kept().unwrap(), []);
    assert_eq!(count(&t.root().join("kept")), 0);
}

#[test]
fn dead_staging_is_removed_and_living_is_not() {
    let t = Temp::new();
    let living = t.store.new_upper().unwrap();
    let tmp = t.root().join("tmp");
    std::fs::create_dir_all(tmp.join("layer-dead/fs/a/b")).unwrap();
    std::fs::write(tmp.join("layer-dead/fs/a/f"), b"").unwrap();
    std::fs::write(tmp.join("blob-dead"), b"").unwrap();
    assert_eq!(t.reopen().heal().unwrap().staging, 2);
    assert!(living.upper().is_dir() && living.work().is_dir());
    drop(living);
    assert_eq!(count(&tmp), 0);
}

#[test]
fn implied_directories_look_like_the_layer_below() {
    let t = Temp::new();
    let base = t.layer(&Tar::new().dir("a", 0o1777).dir("a/b", 0o700).dir("same", 0o755).dir("gone", 0o700).finish());
    let top = t.layer(&Tar::new().file("a/b/c/f", b"x").file("same/f", b"x").finish());
    let whiteout = t.layer(&Tar::new().file(".wh.gone", b"").finish());
    let last = t.layer(&Tar::new().file("gone/f", b"x").finish());
    let lower = t.store.lower_dirs(&[base, top]).unwrap();
    assert_eq!(lower.len(), 3, "a fix-up between");
    let mode = |dir: &std::path::Path| dir.metadata().unwrap().mode() & 0o7777;
    let fixup = &lower[0];
    assert_eq!((mode(&fixup.join("a")), mode(&fixup.join("a/b"))), (0o1777, 0o700));
    assert!(!fixup.join("same").exists() && !fixup.join("a/b/c").exists(), "no more than needed");
    assert_eq!(mode(&lower[1].join("a/b")), 0o755);
    assert_eq!(lower, t.reopen().lower_dirs(&[base, top]).unwrap(), "written down");
    assert!(lower.iter().all(|p| p.file_name().unwrap().len() <= 23));
    // A directory that was removed in between is not a model.
    assert_eq!(t.store.lower_dirs(&[base, whiteout, last]).unwrap().len(), 3);
    assert_eq!(t.store.lower_dirs(&[base, top, whiteout, last]).unwrap().len(), 5);
    assert_eq!(t.store.lower_dirs(&[top]).unwrap().len(), 1);
    assert!(t.store.lower_dirs(&[]).unwrap().is_empty());
    assert!(t.store.lower_dirs(&[base, Digest::of(b"none")]).is_err());
}

#[test]
fn the_root_directory_has_attributes_too() {
    let t = Temp::new();
    let base = t.layer(&Tar::new().dir("./", 0o1770).finish());
    let top = t.layer(&Tar::new().file("f", b"").finish());
    assert_eq!(t.store.root_attributes(&[top]).unwrap(), crate::RootAttributes::default());
    let upper = t.store.new_upper().unwrap();
    let attributes = t.store.prepare_upper(&upper.upper(), &[base, top]).unwrap();
    assert_eq!(attributes.mode, 0o1770);
    assert_eq!(upper.upper().metadata().unwrap().mode() & 0o7777, 0o1770);
}
