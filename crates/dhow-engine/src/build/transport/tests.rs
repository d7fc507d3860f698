//! Caches between two engines.

use super::super::export::tests::{Place, Quiet};
use super::*;
use dhow_build::CachedStep;
use dhow_oci::image::{Document, ImageConfig};
use dhow_testkit::registry::{Action, FakeRegistry, Fault, Times};
use dhow_types::{Digest, Platform, Reference, Timestamp};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn created() -> Timestamp {
    "2024-01-02T03:04:05.000000006Z".parse().unwrap()
}

fn key(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Three steps: one of the final image, one of another stage, one without a layer.
fn steps(place: &Place) -> Vec<UsedStep> {
    let step = |name: &str, layer, in_final| UsedStep {
        key: key(name),
        step: CachedStep { layer, created: created() },
        in_final,
    };
    vec![
        step("final", Some(place.layer("final", "f")), true),
        step("other", Some(place.layer("other", "o")), false),
        step("nothing", None, true),
    ]
}

fn send(place: &Place, to: &str, steps: &[UsedStep], mounts: &[&str]) -> Vec<String> {
    let mounts: Vec<String> = mounts.iter().map(|m| (*m).to_owned()).collect();
    place.engine.export_cache(&CacheTo::parse(to).unwrap(), steps, &mounts, &Quiet).unwrap()
}

fn open(place: &Place, from: &str) -> Imports {
    Imports::open(&place.engine, &[CacheFrom::parse(from).unwrap()], &Quiet)
}

#[test]
fn root_a_directory_carries_steps_and_layers() {
    let here = Place::new();
    let steps = steps(&here);
    let dir = here.path("cache");
    for compression in ["gzip", "zstd", "uncompressed"] {
        let to = format!("type=local,dest={},mode=max,compression={compression}", dir.display());
        assert!(send(&here, &to, &steps, &[]).is_empty());
        let there = Place::new();
        let imports = open(&there, &format!("type=local,src={}", dir.display()));
        assert!(imports.warnings.is_empty(), "{:?}", imports.warnings);
        for step in &steps {
            assert_eq!(imports.lookup(&step.key).unwrap().step, step.step);
        }
        assert!(imports.lookup(&key("unknown")).is_none());
        let layers: Vec<Digest> = steps.iter().filter_map(|s| s.step.layer).collect();
        assert!(layers.iter().all(|l| imports.knows(l)));
        imports.fetch(&there.engine, &layers, &Quiet).unwrap();
        let store = there.engine.store();
        for layer in &layers {
            assert!(store.has_layer(layer).unwrap());
            // It can be sent on.
            assert_eq!(store.encode_layer(layer, plain(), std::io::sink()).unwrap().0, *layer, "{compression}");
        }
    }
}

fn plain() -> dhow_store::Encoding {
    dhow_store::Encoding { compression: dhow_oci::image::Compression::None, level: None }
}

#[test]
fn root_a_registry_carries_the_final_image_only_unless_asked() {
    let here = Place::new();
    let registry = FakeRegistry::start();
    let steps = steps(&here);
    let name = format!("{}/cache", registry.host());
    for (mode, other) in [("min", false), ("max", true)] {
        send(&here, &format!("type=registry,ref={name},mode={mode}"), &steps, &[]);
        let there = Place::new();
        registry.forget_requests();
        let imports = open(&there, &name);
        assert_eq!(imports.lookup(&key("other")).is_some(), other, "{mode}");
        let layer = steps[0].step.layer.unwrap();
        let blobs = || registry.requests().iter().filter(|r| r.target.contains("/blobs/")).count();
        assert_eq!(blobs(), 1, "only the config, no layer, before it is needed");
        imports.fetch(&there.engine, &[layer], &Quiet).unwrap();
        assert_eq!(blobs(), 2);
        imports.fetch(&there.engine, &[layer], &Quiet).unwrap();
        assert_eq!(blobs(), 2, "what is here is not fetched");
        assert!(there.engine.store().has_layer(&layer).unwrap());
    }
}

#[test]
fn root_an_image_carries_its_own_steps() {
    let here = Place::new();
    let registry = FakeRegistry::start();
    let steps = steps(&here);
    let mut config = ImageConfig::scratch(&Platform::host());
    config.rootfs.diff_ids = vec![steps[0].step.layer.unwrap()];
    let bytes = inline(&serde_json::to_vec(&config).unwrap(), &steps).unwrap();
    assert_eq!(inline(&bytes, &steps).unwrap(), bytes, "the same again");
    let id = here.engine.store().put_image(&bytes, None).unwrap();
    let name: Reference = format!("{}/app:1", registry.host()).parse().unwrap();
    here.engine.store().set_ref(&name, &id).unwrap();
    here.engine.push(&name, &Quiet).unwrap();
    let there = Place::new();
    let imports = open(&there, &name.familiar());
    assert_eq!(imports.lookup(&key("final")).unwrap().step, steps[0].step);
    assert!(imports.lookup(&key("nothing")).is_some() && imports.lookup(&key("other")).is_none());
    imports.fetch(&there.engine, &config.rootfs.diff_ids, &Quiet).unwrap();
    // An image without a cache is no error.
    let plain = here.engine.store().put_image(&serde_json::to_vec(&config).unwrap(), None).unwrap();
    let name: Reference = format!("{}/plain:1", registry.host()).parse().unwrap();
    here.engine.store().set_ref(&name, &plain).unwrap();
    here.engine.push(&name, &Quiet).unwrap();
    let imports = open(&there, &name.familiar());
    assert!(imports.is_empty() && imports.warnings.is_empty());
}

fn mount(place: &Place, id: &str) -> std::path::PathBuf {
    place.path("root/cache/mounts").join(Digest::of(id.as_bytes()).hex())
}

#[test]
fn root_cache_mounts_travel() {
    let here = Place::new();
    let id = "/root/.cache";
    fs::create_dir_all(mount(&here, id).join("deep")).unwrap();
    fs::write(mount(&here, id).join("deep/file"), "content").unwrap();
    fs::set_permissions(mount(&here, id), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(mount(&here, id), Some(7), Some(8)).unwrap();
    let dir = here.path("cache");
    let to = format!("type=local,dest={},mounts=true", dir.display());
    assert!(send(&here, &to, &steps(&here), &[id, "/never/used", id]).is_empty());

    let there = Place::new();
    let imports = open(&there, &format!("type=local,src={}", dir.display()));
    let target = mount(&there, id);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    assert!(!imports.restore_mount(&there.engine, "/other", &mount(&there, "/other")).unwrap());
    assert!(imports.restore_mount(&there.engine, id, &target).unwrap());
    let meta = fs::metadata(&target).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o1777, 7, 8));
    assert_eq!(fs::read_to_string(target.join("deep/file")).unwrap(), "content");
    // What is there is not touched.
    fs::write(target.join("deep/file"), "newer").unwrap();
    assert!(!imports.restore_mount(&there.engine, id, &target).unwrap());
    assert_eq!(fs::read_to_string(target.join("deep/file")).unwrap(), "newer");
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "nothing is left over");
}

#[test]
fn root_what_is_not_there_is_a_warning() {
    let place = Place::new();
    let registry = FakeRegistry::start();
    let name = format!("{}/none", registry.host());
    for from in ["type=local,src=/none/such", "type=local,src=/", &name] {
        let imports = open(&place, from);
        assert!(imports.is_empty());
        assert_eq!(imports.warnings.len(), 1, "{from}");
        assert!(imports.warnings[0].contains("is not used"), "{:?}", imports.warnings);
    }
    let to = "type=local,dest=/proc/none,ignore-error=true";
    assert_eq!(send(&place, to, &steps(&place), &[]).len(), 1);
    let strict = CacheTo::parse("type=local,dest=/proc/none").unwrap();
    assert!(place.engine.export_cache(&strict, &[], &[], &Quiet).is_err());
}

/// The blob of a step's layer in the cache directory.
fn blob_of(dir: &Path, index: usize) -> std::path::PathBuf {
    let blob = |digest: &Digest| dir.join("blobs/sha256").join(digest.hex());
    let Document::Index(list) = Document::parse(&fs::read(dir.join("index.json")).unwrap(), None).unwrap() else {
        panic!("no index")
    };
    let bytes = fs::read(blob(&list.manifests[0].digest)).unwrap();
    let Document::Manifest(manifest) = Document::parse(&bytes, None).unwrap() else { panic!("no manifest") };
    blob(&manifest.layers[index].digest)
}

#[test]
fn root_hostile_directories_give_nothing() {
    let here = Place::new();
    let steps = steps(&here);
    let layer = steps[0].step.layer.unwrap();
    let spoil = |what: &dyn Fn(&Path)| {
        let dir = here.path("hostile");
        let _ = fs::remove_dir_all(&dir);
        send(&here, &format!("type=local,dest={}", dir.display()), &steps, &[]);
        what(&dir);
        let there = Place::new();
        let imports = open(&there, &format!("type=local,src={}", dir.display()));
        let fetched = imports.fetch(&there.engine, &[layer], &Quiet);
        let here = there.engine.store().has_layer(&layer).unwrap();
        assert_eq!(fetched.is_ok(), here);
        (here, imports.warnings.len())
    };
    // The baseline works.
    assert_eq!(spoil(&|_| ()), (true, 0));
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let last = bytes.len() / 2;
        bytes[last] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    assert_eq!(spoil(&|dir| flip(&blob_of(dir, 0))), (false, 0), "a flipped bit");
    assert_eq!(spoil(&|dir| fs::write(blob_of(dir, 0), "short").unwrap()), (false, 0), "another size");
    let replace = |dir: &Path, with: &dyn Fn(&Path)| {
        let path = blob_of(dir, 0);
        let kept = fs::read(&path).unwrap();
        fs::write(dir.join("elsewhere"), kept).unwrap();
        fs::remove_file(&path).unwrap();
        with(&path);
    };
    // The right content behind a link: followed, a link could name any file of the machine.
    assert_eq!(spoil(&|dir| replace(dir, &|p| symlink(dir.join("elsewhere"), p).unwrap())), (false, 0));
    let fifo = |p: &Path| {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, p, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    assert_eq!(spoil(&|dir| replace(dir, &fifo)), (false, 0), "a pipe does not make it wait");
    assert_eq!(spoil(&|dir| fs::write(dir.join("index.json"), "{}").unwrap()), (false, 1));
    let config = |dir: &Path, edit: &dyn Fn(String) -> String| {
        // Rewrites the config and everything that names it, as somebody who may write there could.
        let index = fs::read_to_string(dir.join("index.json")).unwrap();
        let Document::Index(list) = Document::parse(index.as_bytes(), None).unwrap() else { panic!("no index") };
        let old = list.manifests[0].digest;
        let path = |digest: &Digest| dir.join("blobs/sha256").join(digest.hex());
        let manifest = fs::read_to_string(path(&old)).unwrap();
        let Document::Manifest(parsed) = Document::parse(manifest.as_bytes(), None).unwrap() else { panic!() };
        let text = edit(fs::read_to_string(path(&parsed.config.digest)).unwrap());
        let new = Digest::of(text.as_bytes());
        fs::write(path(&new), &text).unwrap();
        let size = |n: u64| format!("\"size\":{n}");
        let manifest = manifest
            .replace(&parsed.config.digest.to_string(), &new.to_string())
            .replace(&size(parsed.config.size), &size(text.len() as u64));
        let top = Digest::of(manifest.as_bytes());
        fs::write(path(&top), &manifest).unwrap();
        let index = index
            .replace(&old.to_string(), &top.to_string())
            .replace(&size(list.manifests[0].size), &size(manifest.len() as u64));
        fs::write(dir.join("index.json"), index).unwrap();
    };
    assert_eq!(spoil(&|dir| config(dir, &|text| text)), (true, 0), "the control");
    let other = steps[1].step.layer.unwrap().to_string();
    let lie = |text: String| text.replace(&other, &layer.to_string()).replace("\"blob\":0", "\"blob\":1");
    assert_eq!(spoil(&|dir| config(dir, &|t| lie(t))), (false, 1), "a place that is not there");
    let swapped = |text: String| text.replace(&layer.to_string(), &Digest::of(b"another").to_string());
    assert_eq!(spoil(&|dir| config(dir, &|t| swapped(t))), (false, 0), "a layer that nobody has");
}

#[test]
fn root_hostile_registries_give_nothing() {
    let here = Place::new();
    let registry = FakeRegistry::start();
    let steps = steps(&here);
    let layer = steps[0].step.layer.unwrap();
    let name = format!("{}/cache", registry.host());
    send(&here, &format!("type=registry,ref={name}"), &steps, &[]);
    let bytes = registry.manifest("cache", "latest").unwrap();
    let Document::Manifest(manifest) = Document::parse(&bytes, None).unwrap() else { panic!("no manifest") };
    let blob = manifest.layers[0].digest;
    let good = registry.blob("cache", &blob).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    registry.put_blob_as("cache", &blob, bad);
    let there = Place::new();
    let imports = open(&there, &name);
    assert!(imports.fetch(&there.engine, &[layer], &Quiet).is_err());
    assert!(!there.engine.store().has_layer(&layer).unwrap());
    registry.put_blob_as("cache", &blob, good);
    imports.fetch(&there.engine, &[layer], &Quiet).unwrap();
    // A config that is not the one that the manifest names.
    registry.put_blob_as("cache", &manifest.config.digest, vec![b'x'; usize::try_from(manifest.config.size).unwrap()]);
    let imports = open(&there, &name);
    assert!(imports.is_empty() && imports.warnings.len() == 1);
    registry.fault(Fault::get(
        "/v2/cache/manifests/latest",
        Times::Always,
        Action::Status(404, Vec::new(), String::new()),
    ));
    assert_eq!(open(&there, &name).warnings.len(), 1);
}

#[test]
fn root_a_session_takes_what_a_build_needs() {
    let here = Place::new();
    let dir = here.path("cache");
    let (to, from) =
        (format!("type=local,dest={},mode=max", dir.display()), format!("type=local,src={}", dir.display()));
    let steps = steps(&here);
    let (_, image) = here.image(&Platform::host().to_string());
    let session = Session::open(&here.engine, &[], &[to, "type=inline".to_owned()], &Quiet).unwrap();
    for step in &steps {
        assert_eq!(session.get(&step.key, Some(step.step)), Some(step.step));
    }
    assert_eq!(session.get(&key("unknown"), None), None);
    let config = here.engine.store().read_blob(&image, 1 << 20).unwrap();
    let inside = String::from_utf8(session.config(&config).unwrap()).unwrap();
    assert!(inside.contains(&key("nothing").to_string()) && !inside.contains(&key("final").to_string()));
    session.export(&[image]).unwrap();

    let there = Place::new();
    let session = Session::open(&there.engine, &[from, "type=local,src=/none".to_owned()], &[], &Quiet).unwrap();
    assert_eq!(session.take_warnings().len(), 1);
    let found = session.get(&key("other"), None).unwrap();
    assert_eq!(found, steps[1].step);
    assert!(session.fetch(&found.layer.unwrap()) && !session.fetch(&key("no layer")));
    // What this machine remembers comes first.
    let own = CachedStep { layer: None, created: created() };
    assert_eq!(session.get(&key("other"), Some(own)), Some(own));
    fs::remove_dir_all(dir.join("blobs")).unwrap();
    assert!(!session.fetch(&steps[0].step.layer.unwrap()) && !session.fetch(&steps[0].step.layer.unwrap()));
    assert_eq!(session.take_warnings().len(), 1, "told once");
}
