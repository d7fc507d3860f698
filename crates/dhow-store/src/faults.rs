//! Full disks, dying processes, and many processes at once.
//!
//! Tests that need a file system of their own mount a tmpfs in a mount namespace of their own thread; the host's mount
//! table does not change.

use crate::testing::{Tar, Temp, config};
use crate::{ImageUse, Store, StoreError};
use dhow_oci::image::Compression;
use dhow_types::{Categorized, Digest, ErrorKind, Reference};
use std::path::Path;

fn no_uses(_: &Digest) -> Vec<ImageUse> {
    Vec::new()
}

fn count(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// Runs a test on a tmpfs of this size and number of inodes, which only the thread of the test sees.
fn on_small_disk(options: &str, test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let options = std::ffi::CString::new(options).unwrap();
    std::thread::scope(|scope| {
        let result = scope
            .spawn(|| {
                // A mount namespace of one thread also needs a working directory of its own, which CLONE_NEWNS implies.
                dhow_sys::process::unshare(dhow_sys::process::CLONE_NEWNS).expect("this test needs root");
                let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
                rustix::mount::mount_change("/", private).expect("this test needs root");
                let flags = rustix::mount::MountFlags::empty();
                rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(options.as_c_str())).unwrap();
                test(dir.path());
            })
            .join();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

fn free(path: &Path) -> u64 {
    let fs = rustix::fs::statvfs(path).unwrap();
    fs.f_bavail * fs.f_frsize
}

#[test]
fn root_a_full_disk_is_a_clean_error_and_its_space_comes_back() {
    on_small_disk("size=8m", |disk| {
        let store = Store::open(&disk.join("root")).unwrap();
        let small = Tar::new().file("f", &[1; 1000]).finish();
        let large = Tar::new().file("f", &vec![1; 12 << 20]).finish();
        // Baseline.
        let diff = Digest::of(&small);
        store.publish(vec![store.unpack(small.as_slice(), Compression::None, &diff).unwrap()]).unwrap();
        let id = store.put_image(&config(&[diff], "old"), None).unwrap();
        let before = free(disk);
        let full = |error: StoreError| {
            assert_eq!(error.kind(), ErrorKind::Exhausted, "{}", dhow_types::report(&error));
            assert!(error.hint().is_some());
            assert!(free(disk) + 65536 > before, "space was not returned");
            assert_eq!(count(&disk.join("root/tmp")), 0);
        };
        full(store.unpack(large.as_slice(), Compression::None, &Digest::of(&large)).unwrap_err());
        full(store.load(large.as_slice(), &mut |_| {}).unwrap_err());
        full(store.import(large.as_slice(), &mut |_| Ok(()), "").unwrap_err());
        full(store.put_blob(&large).unwrap_err());
        let mut ingest = store.ingest(&Digest::of(&large), large.len() as u64).unwrap();
        let failed = large.chunks(1 << 20).find_map(|piece| ingest.write(piece).err()).unwrap();
        assert_eq!(failed.kind(), ErrorKind::Exhausted);
        drop(ingest);
        // With nothing free at all, what is here can still be used and removed.
        let filler = disk.join("filler");
        let _ = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(&filler).unwrap());
        let other = Store::open(&disk.join("root")).unwrap();
        assert_eq!(other.images().unwrap().len(), 1);
        assert!(other.image(&id).is_ok());
        std::fs::remove_file(filler).unwrap();
        assert!(store.discard_partials().unwrap() > 1 << 20);
        assert!(store.has_layer(&diff).unwrap());
    });
}

#[test]
fn root_images_can_be_removed_when_the_disk_is_full() {
    on_small_disk("size=8m", |disk| {
        let root = disk.join("root");
        let store = Store::open(&root).unwrap();
        let tar = Tar::new().file("f", &vec![1; 3 << 20]).finish();
        let diff = Digest::of(&tar);
        store.publish(vec![store.unpack(tar.as_slice(), Compression::None, &diff).unwrap()]).unwrap();
        let id = store.put_image(&config(&[diff], ""), None).unwrap();
        drop(store);
        let filler = disk.join("filler");
        let _ = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(&filler).unwrap());
        assert_eq!(free(disk), 0);
        let store = Store::open(&root).unwrap();
        store.remove(&id.hex(), false, &no_uses).unwrap();
        assert!(free(disk) > 2 << 20);
        assert_eq!((count(&root.join("layers")), count(&root.join("leases")), count(&root.join("tmp"))), (0, 0, 0));
    });
}

#[test]
fn root_t20_a_bomb_stops_at_the_reserve() {
    on_small_disk("size=160m", |disk| {
        let store = Store::open(&disk.join("root")).unwrap();
        let mut entry = Tar::entry(crate::tar::Kind::File, "bomb", 0o644);
        entry.size = (8 << 30) - 1;
        let head = Tar::new().put(&entry).finish();
        let zeros = std::io::repeat(0);
        let bomb = std::io::Read::chain(&head[..512], zeros);
        let error = store.unpack(bomb, Compression::None, &Digest::of(b"")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert!(free(disk) > 150 << 20, "space was not returned");
    });
}

#[test]
fn root_t21_running_out_of_inodes_is_a_full_disk() {
    on_small_disk("size=64m,nr_inodes=500", |disk| {
        let store = Store::open(&disk.join("root")).unwrap();
        let tar = (0..1000).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), b"")).finish();
        let error = store.unpack(tar.as_slice(), Compression::None, &Digest::of(&tar)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert_eq!(count(&disk.join("root/tmp")), 0);
        let few = (0..100).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), b"")).finish();
        store.unpack(few.as_slice(), Compression::None, &Digest::of(&few)).unwrap();
    });
}

/// The steps of making an image, each of which the process may not survive.
fn steps(store: &Store, tar: &[u8], until: usize) {
    let diff = Digest::of(tar);
    let mut step = 0;
    let mut go = || {
        step += 1;
        step <= until
    };
    if !go() {
        return;
    }
    let mut ingest = store.ingest(&diff, tar.len() as u64).unwrap();
    ingest.write(tar.get(ingest.offset() as usize..tar.len() / 2).unwrap_or_default()).unwrap();
    if !go() {
        return;
    }
    ingest.write(&tar[ingest.offset() as usize..]).unwrap();
    ingest.finish().unwrap();
    if !go() {
        return;
    }
    let staged = store.unpack(tar, Compression::None, &diff).unwrap();
    if !go() {
        std::mem::forget(staged);
        return;
    }
    store.publish(vec![staged]).unwrap();
    if !go() {
        return;
    }
    let id = store.put_image(&config(&[diff], "new"), None).unwrap();
    if !go() {
        return;
    }
    store.set_ref(&"new".parse::<Reference>().unwrap(), &id).unwrap();
}

#[test]
fn death_after_any_step_leaves_the_old_state_or_the_new_one() {
    let tar = Tar::new().file("f", &vec![1; 200_000]).finish();
    for until in 0..=6 {
        let t = Temp::new();
        let old = t.layer(&Tar::new().file("old", b"x").finish());
        let id = t.image(&[old], "old");
        let killed = t.reopen();
        steps(&killed, &tar, until);
        killed.die_for_test();
        // Staging that was forgotten is still locked by this process; a killed one would hold nothing.
        let healed = t.reopen().heal().unwrap();
        assert!(healed.staging <= 1, "step {until}: {healed:?}");
        let images = t.store.images().unwrap().len();
        assert_eq!(images, if until >= 5 { 2 } else { 1 }, "step {until}");
        assert!(t.store.image(&id).is_ok() && t.store.damaged_images().unwrap().is_empty());
        let layers = count(&t.root().join("layers"));
        assert_eq!(layers, images, "step {until}: layers that nothing needs");
        // Again, and it works; what was fetched is not fetched again.
        let again = t.reopen();
        if until >= 2 {
            assert_eq!(again.ingest(&Digest::of(&tar), tar.len() as u64).unwrap().offset(), tar.len() as u64);
        }
        steps(&again, &tar, usize::MAX);
        assert_eq!(t.store.resolve("new").unwrap().size, 200_000);
    }
}

#[test]
fn death_between_the_steps_of_a_removal_is_healed() {
    let t = Temp::new();
    let layer = t.layer(&Tar::new().file("f", b"x").finish());
    let id = t.image(&[layer], "");
    t.store.end_lease_for_test();
    // The list is written, the record is gone, the layer not yet.
    let doom = t.root().join("leases/doom-0000000000000000");
    std::fs::write(&doom, format!("layer {layer}\nblob {id}\nlayer sha256:torn")).unwrap();
    std::fs::rename(t.root().join("images").join(id.hex()), t.root().join("tmp/trash-1")).unwrap();
    let healed = t.reopen().heal().unwrap();
    assert_eq!((healed.objects, healed.lists, healed.staging), (2, 1, 1));
    for dir in ["layers", "l", "blobs/sha256", "leases", "tmp", "images"] {
        assert_eq!(count(&t.root().join(dir)), 0, "{dir}");
    }
    // The list alone, before anything went: nothing may be deleted.
    let layer = t.layer(&Tar::new().file("f", b"x").finish());
    t.image(&[layer], "");
    t.store.end_lease_for_test();
    std::fs::write(&doom, format!("layer {layer}\n")).unwrap();
    assert_eq!(t.reopen().heal().unwrap().objects, 0);
    assert!(t.store.layer_dir(&layer).exists());
}

#[test]
fn a_damaged_record_hides_only_itself_and_stops_deletion() {
    let t = Temp::new();
    let layer = t.layer(&Tar::new().file("f", b"x").finish());
    let (a, b) = (t.image(&[layer], "a"), t.image(&[layer], "b"));
    t.store.end_lease_for_test();
    std::fs::write(t.root().join("images").join(a.hex()).join("record.json"), b"").unwrap();
    std::fs::write(t.root().join("refs").join(format!("{}.json", a.hex())), b"torn").unwrap();
    assert_eq!(t.store.images().unwrap().iter().map(|i| i.id).collect::<Vec<_>>(), [b]);
    assert_eq!(t.store.damaged_images().unwrap().len(), 1);
    let error = t.store.remove(&b.hex(), false, &no_uses).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(t.store.layer_dir(&layer).exists());
}

#[test]
fn pulls_and_removals_at_once() {
    let t = Temp::new();
    let tars: Vec<Vec<u8>> = (0..4).map(|i| Tar::new().file("f", &[i; 100]).finish()).collect();
    let pull = |seed: usize| {
        // Each its own process, as far as locks are concerned.
        let store = t.reopen();
        let mut diff_ids = Vec::new();
        for tar in [&tars[seed % 4], &tars[(seed + 1) % 4]] {
            let diff = Digest::of(tar);
            if !store.has_layer(&diff).unwrap() {
                let staged = store.unpack(tar.as_slice(), Compression::None, &diff).unwrap();
                store.publish(vec![staged]).unwrap();
            }
            diff_ids.push(diff);
        }
        let id = store.put_image(&config(&diff_ids, "image"), None).unwrap();
        store.set_ref(&format!("app:{}", seed % 4).parse().unwrap(), &id).unwrap_or_else(|e| {
            // Removed between the two calls: nothing is broken by that.
            assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
        });
        for dir in store.lower_dirs(&diff_ids).unwrap_or_default() {
            // While the lease lives, so do the layers.
            assert!(dir.join("f").exists());
        }
    };
    let remove = |seed: usize| match t.reopen().remove(&format!("app:{}", seed % 4), true, &no_uses) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{}", dhow_types::report(&e)),
    };
    std::thread::scope(|scope| {
        for worker in 0..3 {
            scope.spawn(move || (0..6).for_each(|i| pull(worker + i)));
        }
        scope.spawn(|| (0..12).for_each(&remove));
        scope.spawn(|| {
            (0..12).for_each(|_| {
                t.reopen().heal().unwrap();
            })
        });
    });
    t.reopen().heal().unwrap();
    assert!(t.store.damaged_images().unwrap().is_empty());
    for image in t.store.images().unwrap() {
        for diff in &image.config.rootfs.diff_ids {
            assert!(t.store.layer_dir(diff).join("f").exists(), "an image lost a layer");
        }
        t.store.remove(&image.id.hex(), true, &no_uses).unwrap();
    }
    assert_eq!((count(&t.root().join("layers")), count(&t.root().join("tmp"))), (0, 0));
}

#[test]
fn root_overlay_shows_what_the_layers_mean() {
    use std::os::unix::fs::MetadataExt;
    on_small_disk("size=32m", |disk| {
        let store = Store::open(&disk.join("root")).unwrap();
        let put = |tar: Tar| {
            let tar = tar.finish();
            let diff = Digest::of(&tar);
            store.publish(vec![store.unpack(tar.as_slice(), Compression::None, &diff).unwrap()]).unwrap();
            diff
        };
        let mut owned = Tar::entry(crate::tar::Kind::Directory, "srv/data", 0o2750);
        (owned.uid, owned.gid) = (7, 8);
        owned.xattrs.push((b"user.mark".to_vec(), b"1".to_vec()));
        let base = put(Tar::new()
            .dir("./", 0o711)
            .dir("srv", 0o701)
            .put(&owned)
            .file("srv/data/old", b"1")
            .file("gone", b"1"));
        // Implies srv and srv/data, hides two things, and starts a directory afresh.
        let top = put(Tar::new()
            .file("srv/data/new", b"2")
            .file(".wh.gone", b"")
            .file("srv/data/.wh.old", b"")
            .dir("fresh", 0o755)
            .file("fresh/.wh..wh..opq", b""));
        let diff_ids = [base, top];
        let lower = store.lower_dirs(&diff_ids).unwrap();
        assert_eq!(lower.len(), 3);
        let scratch = store.new_upper().unwrap();
        store.prepare_upper(&scratch.upper(), &diff_ids).unwrap();
        let merged = disk.join("merged");
        std::fs::create_dir(&merged).unwrap();
        let list: Vec<String> = lower.iter().map(|p| p.to_str().unwrap().to_owned()).collect();
        let (upper, work) = (scratch.upper(), scratch.work());
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
            list.join(":"),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", &merged, "overlay", flags, Some(options.as_c_str())).unwrap();
        let look = |path: &str| {
            let m = merged.join(path).metadata().unwrap();
            (m.mode() & 0o7777, m.uid(), m.gid())
        };
        assert_eq!(look(""), (0o711, 0, 0));
        assert_eq!(look("srv"), (0o701, 0, 0));
        assert_eq!(look("srv/data"), (0o2750, 7, 8));
        let data = std::fs::File::open(merged.join("srv/data")).unwrap();
        assert_eq!(dhow_sys::xattr::get(&data, b"user.mark").unwrap().as_deref(), Some(&b"1"[..]));
        drop(data);
        assert!(merged.join("srv/data/new").exists() && !merged.join("srv/data/old").exists());
        assert!(!merged.join("gone").exists() && merged.join("fresh").is_dir());
        // What is done in the overlay becomes the next layer: the copied-up directory, a removal, a new file.
        std::fs::remove_file(merged.join("srv/data/new")).unwrap();
        std::fs::write(merged.join("srv/data/third"), b"3").unwrap();
        rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::empty()).unwrap();
        let root = Some(store.root_attributes(&diff_ids).unwrap());
        let options = crate::StageOptions { root, ..crate::StageOptions::default() };
        let staged = store.stage_scratch(scratch, &options).unwrap();
        let third = *staged.diff_id();
        store.publish(vec![staged]).unwrap();
        let tar = crate::layer::upper::tar_of(&store, &third);
        let mut reader = crate::tar::read::TarReader::new(tar.as_slice(), "test");
        let mut seen = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            seen.push((String::from_utf8(entry.path).unwrap(), entry.mode, entry.uid));
        }
        let expected =
            [("srv/", 0o701, 0), ("srv/data/", 0o2750, 7), ("srv/data/.wh.new", 0, 0), ("srv/data/third", 0o644, 0)];
        assert_eq!(seen, expected.map(|(path, mode, uid)| (path.to_owned(), mode, uid)));
    });
}
