//! Pull and push against a scripted registry and Debian's, with a real store. Unpacking needs root.

use super::super::push::push;
use super::*;
use dhow_registry::{Clock, Credentials, NoCredentials, Options, RegistryConfig};
use dhow_testkit::registry::{Action, DebianRegistry, FakeRegistry, Fault, Times};
use dhow_testkit::{Entry, ImageBuilder, Tar};
use std::sync::Arc;
use std::time::SystemTime;

#[derive(Default)]
struct Events(Mutex<Vec<ProgressEvent>>);

impl Progress for Events {
    fn event(&self, event: &ProgressEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Events {
    fn messages(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let text = |e: &ProgressEvent| match e {
            ProgressEvent::Message(text) => Some(text.clone()),
            ProgressEvent::Layer { .. } => None,
        };
        all.iter().filter_map(text).collect()
    }

    /// The states of one layer, repetitions dropped.
    fn states(&self, id: &str) -> Vec<&'static str> {
        let mut states: Vec<&'static str> = Vec::new();
        for event in self.0.lock().unwrap().iter() {
            match event {
                ProgressEvent::Layer { id: of, status, .. } if of == id && states.last() != Some(status) => {
                    states.push(status);
                }
                _ => {}
            }
        }
        states
    }
}

/// Waits for nothing.
struct Impatient;

impl Clock for Impatient {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, _: Duration, _: &str) {}
}

fn client() -> Client {
    let options = Options { clock: Arc::new(Impatient), ..Options::default() };
    let nobody: Arc<dyn Credentials + Send + Sync> = Arc::new(NoCredentials);
    Client::with_options(RegistryConfig::default(), nobody, options)
}

struct Place {
    _dir: tempfile::TempDir,
    store: Store,
    client: Client,
    events: Events,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("root")).unwrap();
    Place { _dir: dir, store, client: client(), events: Events::default() }
}

impl Place {
    fn pull(&self, reference: &Reference) -> Result<Pulled, EngineError> {
        self.events.0.lock().unwrap().clear();
        pull(&self.store, &self.client, reference, None, &self.events)
    }

    fn push(&self, reference: &Reference) -> Result<super::super::Pushed, EngineError> {
        self.events.0.lock().unwrap().clear();
        push(&self.store, &self.client, reference, &self.events)
    }

    #[track_caller]
    fn refuses(&self, reference: &Reference, expected: &str) {
        let error = self.pull(reference).unwrap_err();
        let text = dhow_types::report(&error);
        assert!(text.contains(expected), "{text}");
        assert!(self.store.images().unwrap().is_empty(), "an image is visible");
        let layers = std::fs::read_dir(self.store.root().join("layers")).map_or(0, Iterator::count);
        assert_eq!(layers, 0, "a layer is visible");
    }

    fn file(&self, image: &Digest, path: &str) -> Option<Vec<u8>> {
        let diff_ids = self.store.image(image).unwrap().config.rootfs.diff_ids;
        diff_ids.iter().rev().find_map(|d| std::fs::read(self.store.layer_dir(d).join(path)).ok())
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.push((state >> 33) as u8);
    }
    bytes
}

/// Five layers with a file each, the last one over all.
fn image() -> ImageBuilder {
    (0..5).fold(ImageBuilder::new("x:v1"), |image, n| {
        let bytes = noise(n, 200_000);
        image.layer(&Tar::of([Entry::file(&format!("f{n}"), 0o644, &bytes), Entry::file("last", 0o644, [n as u8])]))
    })
}

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

fn layer_ids(image: &ImageBuilder) -> Vec<String> {
    image.blobs().iter().take(5).map(|(hex, _)| hex[..12].to_owned()).collect()
}

#[test]
fn root_pull_unpacks_names_and_tells() {
    let registry = FakeRegistry::start();
    let digest = registry.put_image("team/x", "v1", &image());
    let here = place();
    let r = reference(&registry.host(), "team/x:v1");
    let pulled = here.pull(&r).unwrap();
    assert_eq!(pulled.digest, digest);
    assert_eq!(pulled.image, Digest::of(&image().config_bytes()));
    assert_eq!(here.file(&pulled.image, "f3").unwrap(), noise(3, 200_000));
    assert_eq!(here.file(&pulled.image, "last").unwrap(), [4]);
    let name = r.familiar();
    assert_eq!(
        here.events.messages(),
        [
            "v1: Pulling from team/x".to_owned(),
            format!("Digest: {digest}"),
            format!("Status: Downloaded newer image for {name}")
        ]
    );
    let ids = layer_ids(&image());
    let states = here.events.states(&ids[4]);
    assert_eq!(states[..2], ["Pulling fs layer", "Waiting"]);
    assert_eq!(states.last(), Some(&"Pull complete"));
    assert!(states.contains(&"Verifying Checksum") && states.contains(&"Download complete"), "{states:?}");
    // Again: one HEAD request tells that there is nothing to do.
    registry.forget_requests();
    let again = here.pull(&r).unwrap();
    assert_eq!((again.image, again.digest), (pulled.image, pulled.digest));
    assert_eq!(again.status, format!("Status: Image is up to date for {name}"));
    assert_eq!(registry.requests().iter().map(|r| r.method.as_str()).collect::<Vec<_>>(), ["HEAD"]);
    // Another image with the same layers: none is fetched.
    registry.put_image("team/x", "v1", &image().set("Env", serde_json::json!(["NEW=1"])));
    registry.forget_requests();
    assert_eq!(here.pull(&r).unwrap().status, format!("Status: Downloaded newer image for {name}"));
    assert_eq!(here.events.states(&ids[0]), ["Already exists"]);
    assert!(!registry.requests().iter().any(|r| ids.iter().any(|id| r.target.contains(id.as_str()))));
    // By digest, without a tag.
    let by_digest = r.with_digest(digest);
    let again = place();
    assert_eq!(again.pull(&by_digest).unwrap().image, pulled.image);
    assert_eq!(again.store.resolve(&by_digest.familiar()).unwrap().id, pulled.image);
}

#[test]
fn root_layers_that_lie_leave_nothing_behind() {
    let registry = FakeRegistry::start();
    let r = |tag: &str| reference(&registry.host(), &format!("x:{tag}"));
    // The control is the test above: the same image without a lie is pulled.
    registry.put_image(
        "x",
        "diff",
        &image().edit_config(|c| c["rootfs"]["diff_ids"][3] = Digest::of(b"no").to_string().into()),
    );
    place().refuses(&r("diff"), "corrupt");
    registry.put_image(
        "x",
        "fewer",
        &image().edit_config(|c| drop(c["rootfs"]["diff_ids"].as_array_mut().unwrap().pop())),
    );
    place().refuses(&r("fewer"), "diff IDs");
    registry.put_image("x", "none", &image().edit_config(|c| drop(c.as_object_mut().unwrap().remove("rootfs"))));
    place().refuses(&r("none"), "invalid image config");
    for (tag, change) in [("smaller", -1i64), ("larger", 1)] {
        let lie = move |m: &mut serde_json::Value| {
            let size = m["layers"][1]["size"].as_i64().unwrap();
            m["layers"][1]["size"] = (size + change).into();
        };
        registry.put_image("x", tag, &image().edit_manifest(lie));
        place().refuses(&r(tag), "wrong size");
    }
    registry.put_image("x", "both", &image().edit_manifest(|m| m["manifests"] = serde_json::json!([])));
    place().refuses(&r("both"), "both");
    registry.put_image("x", "kind", &image().edit_manifest(|m| m["layers"][0]["mediaType"] = "application/zip".into()));
    place().refuses(&r("kind"), "application/zip");
    registry.put_image("x", "artifact", &image().edit_manifest(|m| m["config"]["mediaType"] = "application/x".into()));
    place().refuses(&r("artifact"), "not a container image");
}

#[test]
fn root_damaged_layers_are_refused_and_momentary_damage_is_repaired() {
    let registry = FakeRegistry::start();
    let r = reference(&registry.host(), "x:v1");
    let mut bytes = image().stored_bytes(2);
    bytes[1000] ^= 1;
    registry.put_image("x", "v1", &image().damage_layer(2, bytes));
    let here = place();
    here.refuses(&r, "corrupt");
    registry.put_image("x", "v1", &image());
    assert!(here.pull(&r).is_ok(), "the damaged bytes are not kept");
    let here = place();
    registry.fault(Fault::get(&layer_ids(&image())[1], Times::First(1), Action::Corrupt));
    assert!(here.pull(&r).is_ok());
}

#[test]
fn root_pulls_survive_a_shaky_registry_and_do_not_fetch_twice() {
    let registry = FakeRegistry::start();
    registry.put_image("x", "v1", &image());
    for action in [Action::Reset(70_000), Action::Truncate(70_000), Action::Hangup] {
        registry.fault(Fault::get("/blobs/", Times::First(4), action));
    }
    let r = reference(&registry.host(), "x:v1");
    assert!(place().pull(&r).is_ok());
    // A killed pull's bytes are used by the next.
    let here = place();
    let (hex, bytes) = image().blobs().swap_remove(0);
    let digest = Digest::from_hex(&hex).unwrap();
    let mut ingest = here.store.ingest(&digest, bytes.len() as u64).unwrap();
    ingest.write(&bytes[..150_000]).unwrap();
    drop(ingest);
    registry.forget_requests();
    here.pull(&r).unwrap();
    let asked: Vec<_> = registry.requests().into_iter().filter(|r| r.target.contains(&hex)).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("range"), Some("bytes=150000-"));
}

#[test]
fn root_indexes_offer_platforms() {
    let registry = FakeRegistry::start();
    let manifest = image().manifest_bytes();
    let digest = registry.put_image("x", "single", &image());
    let host = Platform::host();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_INDEX,
        "manifests": [
            {"mediaType": media::OCI_MANIFEST, "digest": Digest::of(b"?").to_string(), "size": 1,
             "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": media::OCI_MANIFEST, "digest": digest.to_string(), "size": manifest.len(),
             "platform": {"os": host.os, "architecture": host.architecture}},
            {"mediaType": media::OCI_MANIFEST, "digest": Digest::of(b"!").to_string(), "size": 1,
             "platform": {"os": "unknown", "architecture": "unknown"}},
        ],
    });
    let index_digest = registry.put_manifest("x", Some("v1"), media::OCI_INDEX, index.to_string().as_bytes());
    let r = reference(&registry.host(), "x:v1");
    let here = place();
    let pulled = here.pull(&r).unwrap();
    assert_eq!(pulled.digest, index_digest, "the digest is that of what the name means");
    assert_eq!(here.store.image(&pulled.image).unwrap().manifest.unwrap().digest, digest);
    let other: Platform = "linux/mips64".parse().unwrap();
    let error = pull(&here.store, &here.client, &r, Some(&other), &here.events).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no matching manifest for linux/mips64 in the manifest list entries: the image is offered for linux/s390x, {host}"
        )
    );
    let single = reference(&registry.host(), "x:single");
    assert!(pull(&here.store, &here.client, &single, Some(&other), &here.events).is_err());
    let looped = serde_json::json!({"schemaVersion": 2, "manifests": [
        {"mediaType": media::OCI_INDEX, "digest": index_digest.to_string(), "size": index.to_string().len()}]});
    registry.put_manifest("x", Some("nested"), media::OCI_INDEX, looped.to_string().as_bytes());
    assert!(here.pull(&reference(&registry.host(), "x:nested")).is_ok(), "an index of an index is followed");
}

#[test]
fn root_what_is_pulled_is_pushed_under_the_same_digest() {
    let (from, to) = (FakeRegistry::start(), DebianRegistry::start());
    let digest = from.put_image("x", "v1", &image());
    let here = place();
    let source = reference(&from.host(), "x:v1");
    let id = here.pull(&source).unwrap().image;
    let target = reference(&to.localhost(), "team/y:v2");
    assert!(here.push(&target).unwrap_err().to_string().contains("does not exist locally"));
    here.store.set_ref(&target, &id).unwrap();
    let pushed = here.push(&target).unwrap();
    assert_eq!((pushed.digest, pushed.size), (digest, image().manifest_bytes().len() as u64));
    let messages = here.events.messages();
    assert_eq!(messages[0], format!("The push refers to repository [{}/team/y]", to.localhost()));
    assert_eq!(messages[1], format!("v2: digest: {digest} size: {}", pushed.size));
    let diff = here.store.image(&id).unwrap().config.rootfs.diff_ids[0];
    assert_eq!(here.events.states(&diff.short()).last(), Some(&"Pushed"));
    here.push(&target).unwrap();
    assert_eq!(here.events.states(&diff.short()), ["Preparing", "Layer already exists"]);
    // To a second repository there: taken over, not sent.
    let third = reference(&to.localhost(), "other");
    here.store.set_ref(&third.clone().with_default_tag(), &id).unwrap();
    assert_eq!(here.push(&third).unwrap().digest, digest);
    assert_eq!(here.events.states(&diff.short()), ["Preparing", "Mounted from"]);
    // And back again on another machine.
    let there = place();
    assert_eq!(there.pull(&target).unwrap().image, id);
    let digests = here.store.image(&id).unwrap().repo_digests;
    assert!(digests.contains(&target.with_digest(digest)), "{digests:?}");
}

#[test]
fn root_images_without_a_manifest_get_one_that_stays() {
    let registry = DebianRegistry::start();
    let here = place();
    // As built: layers and a config, no manifest, no compressed blob.
    let built = image();
    let config = ImageConfig::parse(&built.config_bytes()).unwrap();
    let mut staged = Vec::new();
    for (index, diff) in config.rootfs.diff_ids.iter().enumerate() {
        let blob = built.stored_bytes(index);
        staged.push(here.store.unpack(blob.as_slice(), Compression::Gzip, diff).unwrap());
    }
    here.store.publish(staged).unwrap();
    let id = here.store.put_image(&built.config_bytes(), None).unwrap();
    let target = reference(&registry.localhost(), "built:v1");
    here.store.set_ref(&target, &id).unwrap();
    let first = here.push(&target).unwrap();
    assert_eq!(here.push(&target).unwrap(), first);
    assert_eq!(here.store.image(&id).unwrap().manifest.unwrap().digest, first.digest);
    let there = place();
    let pulled = there.pull(&target).unwrap();
    assert_eq!((pulled.image, pulled.digest), (id, first.digest));
    assert_eq!(there.file(&id, "f2").unwrap(), noise(2, 200_000));
}
