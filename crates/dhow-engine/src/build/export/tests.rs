//! Exports by the engine's own API. What needs a mounted root is tested end to end.

use super::*;
use crate::EngineConfig;
use crate::image::ProgressEvent;
use dhow_oci::image::{Document, ImageConfig, Index, Manifest, media};
use dhow_registry::{NoCredentials, RegistryConfig};
use dhow_testkit::registry::FakeRegistry;
use std::path::PathBuf;
use std::sync::Arc;

/// Nobody listens.
pub(crate) struct Quiet;

impl Progress for Quiet {
    fn event(&self, _event: &ProgressEvent) {}
}

/// An engine of its own.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) engine: Engine,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(EngineConfig {
            root: dir.path().join("root"),
            run_root: dir.path().join("run"),
            registry: RegistryConfig::default(),
            credentials: Arc::new(NoCredentials),
        });
        Self { dir, engine: engine.unwrap() }
    }

    /// Another process's view of the same engine.
    pub(crate) fn again(&self) -> Engine {
        Engine::open(EngineConfig {
            root: self.path("root"),
            run_root: self.path("run"),
            registry: RegistryConfig::default(),
            credentials: Arc::new(NoCredentials),
        })
        .unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A layer with one file.
    pub(crate) fn layer(&self, name: &str, content: &str) -> Digest {
        let upper = self.path(&format!("upper-{name}"));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::write(upper.join(name), content).unwrap();
        let staged = self.engine.store().stage_upper(&upper, true).unwrap();
        let diff = *staged.diff_id();
        self.engine.store().publish(vec![staged]).unwrap();
        diff
    }

    /// The config of an image of two layers, as a blob.
    pub(crate) fn image(&self, platform: &str) -> (Platform, Digest) {
        let platform: Platform = platform.parse().unwrap();
        let mut config = ImageConfig::scratch(&platform);
        config.created = Some("2024-01-02T03:04:05Z".to_owned());
        config.rootfs.diff_ids = vec![self.layer("base", "base"), self.layer("own", &platform.to_string())];
        let id = self.engine.store().put_blob(&serde_json::to_vec(&config).unwrap()).unwrap();
        (platform, id)
    }

    fn export(&self, outputs: &[&str], images: &[(Platform, Digest)], tags: &[&str]) -> Result<Exported, EngineError> {
        let outputs: Vec<String> =
            outputs.iter().map(|o| o.replace("DIR", self.dir.path().to_str().unwrap())).collect();
        let exports = Exports::parse(&outputs, &[], None)?;
        let tags: Vec<Reference> = tags.iter().map(|t| t.parse().unwrap()).collect();
        exports.check(&tags, images.len())?;
        self.engine.export_build(&exports, images, &tags, &Quiet)
    }

    fn load(&self, archive: &Path) -> Vec<String> {
        let mut file = File::open(archive).unwrap();
        self.engine.load(&mut file, &mut |_| ()).unwrap().iter().map(ToString::to_string).collect()
    }
}

fn host() -> String {
    Platform::host().to_string()
}

#[test]
fn root_archives_load_elsewhere_and_leave_no_image_here() {
    let here = Place::new();
    let image = here.image(&host());
    for output in ["type=oci,dest=DIR/a.tar", "type=docker,dest=DIR/a.tar", "type=oci,dest=DIR/a.tar,compression=zstd"]
    {
        let done = here.export(&[output], std::slice::from_ref(&image), &["app:1", "app:2"]).unwrap();
        assert_eq!(done.image, image.1);
        assert!(here.engine.images().unwrap().is_empty(), "{output}");
        let there = Place::new();
        assert_eq!(there.load(&here.path("a.tar")), ["Loaded image: app:1", "Loaded image: app:2"], "{output}");
        assert_eq!(there.engine.image("app:1").unwrap().id, image.1);
        let metadata: serde_json::Value = serde_json::from_str(&done.metadata()).unwrap();
        assert_eq!(metadata["containerimage.digest"], done.digest.to_string());
        assert_eq!(metadata["containerimage.config.digest"], image.1.to_string());
        assert_eq!(metadata["image.name"], "docker.io/library/app:1,docker.io/library/app:2");
        assert_eq!(metadata["containerimage.descriptor"]["digest"], done.digest.to_string());
    }
    // The same again is the same file.
    let bytes = |name: &str| {
        let output = format!("type=oci,dest=DIR/{name}");
        here.export(&[&output], std::slice::from_ref(&image), &["app"]).unwrap();
        std::fs::read(here.path(name)).unwrap()
    };
    assert!(bytes("x") == bytes("y"));
}

#[test]
fn root_platforms_become_an_index() {
    let here = Place::new();
    let images = [here.image("linux/s390x"), here.image(&host())];
    let done = here.export(&["type=oci,dest=DIR/a.tar"], &images, &["app"]).unwrap();
    assert_eq!(done.image, images[1].1, "the image for this machine");
    let there = Place::new();
    there.load(&here.path("a.tar"));
    assert_eq!(there.engine.image("app").unwrap().id, images[1].1);
    // In the store every image is kept, and the name is that of this machine's.
    here.export(&[], &images, &["app"]).unwrap();
    assert_eq!(here.engine.image("app").unwrap().id, images[1].1);
    assert_eq!(here.engine.images().unwrap().len(), 2);
    let error = here.export(&["type=docker,dest=DIR/b"], &images, &[]).unwrap_err();
    assert!(error.to_string().contains("type=oci"), "{error}");
}

#[test]
fn root_layouts_are_directories_too() {
    let here = Place::new();
    let image = here.image(&host());
    for tag in ["app:1", "app:2"] {
        here.export(&["type=oci,dest=DIR/layout,tar=false"], std::slice::from_ref(&image), &[tag]).unwrap();
    }
    let bytes = std::fs::read(here.path("layout/index.json")).unwrap();
    let Document::Index(index) = Document::parse(&bytes, None).unwrap() else { panic!("no index") };
    assert_eq!(index.manifests.len(), 2);
    for descriptor in &index.manifests {
        let blob = std::fs::read(here.path("layout/blobs/sha256").join(descriptor.digest.hex())).unwrap();
        let Document::Manifest(manifest) = Document::parse(&blob, None).unwrap() else { panic!("no manifest") };
        assert_eq!(manifest.layers.len(), 2);
        assert!(manifest.layers.iter().all(|l| l.media_type == media::OCI_LAYER_GZIP));
    }
}

fn manifest(registry: &FakeRegistry, repository: &str, name: &str) -> Manifest {
    let bytes = registry.manifest(repository, name).unwrap();
    match Document::parse(&bytes, None).unwrap() {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) => panic!("an index"),
    }
}

#[test]
fn root_pushes_are_those_of_dhow_push() {
    let here = Place::new();
    let registry = FakeRegistry::start();
    let image = here.image(&host());
    let name = format!("{}/app:1", registry.host());
    let done = here.export(&["type=registry"], std::slice::from_ref(&image), &[&name]).unwrap();
    let record = here.engine.image(&name).unwrap();
    assert_eq!((record.id, record.repo_digests.len()), (image.1, 1));
    let reference: Reference = name.parse().unwrap();
    assert_eq!(here.engine.push(&reference, &Quiet).unwrap().digest, done.digest);

    // Another compression, and annotations; nothing of it shows in what is pushed later.
    let special = format!("{}/app:2", registry.host());
    let output = format!(
        "type=image,name={special},push=true,store=false,compression=zstd,annotation.k=v,annotation-manifest[linux/none].x=y"
    );
    here.export(&[&output], std::slice::from_ref(&image), &[]).unwrap();
    let pushed = manifest(&registry, "app", "2");
    assert_eq!(pushed.annotations.len(), 1);
    assert!(pushed.layers.iter().all(|l| l.media_type == media::OCI_LAYER_ZSTD));
    assert!(here.engine.image(&special).is_err(), "store=false");
    let again = format!("{}/other:1", registry.host());
    assert_eq!(here.export(&["type=registry"], std::slice::from_ref(&image), &[&again]).unwrap().digest, done.digest);

    // Docker's vocabulary, and no name.
    let output =
        format!("type=image,name={}/nameless,push=true,push-by-digest=true,oci-mediatypes=false", registry.host());
    let done = here.export(&[&output], std::slice::from_ref(&image), &[]).unwrap();
    assert!(registry.manifest("nameless", "latest").is_none());
    let pushed = manifest(&registry, "nameless", &done.digest.to_string());
    assert_eq!(pushed.config.media_type, media::DOCKER_CONFIG);
    assert!(pushed.layers.iter().all(|l| l.media_type == media::DOCKER_LAYER_GZIP));
}

#[test]
fn root_an_index_is_pushed_with_its_manifests() {
    let here = Place::new();
    let registry = FakeRegistry::start();
    let images = [here.image("linux/arm64"), here.image("linux/amd64")];
    let name = format!("{}/multi", registry.host());
    let exports = Exports::parse(
        &["type=registry".to_owned()],
        &["index:a=b".to_owned(), "manifest-descriptor[linux/arm64]:c=d".to_owned()],
        None,
    )
    .unwrap();
    let tags = [name.parse::<Reference>().unwrap()];
    exports.check(&tags, 2).unwrap();
    let done = here.engine.export_build(&exports, &images, &tags, &Quiet).unwrap();
    let bytes = registry.manifest("multi", "latest").unwrap();
    assert_eq!(Digest::of(&bytes), done.digest);
    let index: Index = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(index.annotations.len(), 1);
    assert_eq!(index.manifests[0].annotations.len(), 1);
    assert_eq!(index.manifests[1].platform.as_ref().unwrap().architecture, "amd64");
    // Another machine finds its own.
    let there = Place::new();
    let arm: Platform = "linux/arm64".parse().unwrap();
    let pulled = there.engine.pull(&tags[0], Some(&arm), &Quiet).unwrap();
    assert_eq!((pulled.image, pulled.digest), (images[0].1, done.digest));
}

#[test]
fn refused_before_the_build() {
    let check = |outputs: &[&str], annotations: &[&str], tags: &[&str], platforms: usize| {
        let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let tags: Vec<Reference> = tags.iter().map(|t| t.parse().unwrap()).collect();
        Exports::parse(&list(outputs), &list(annotations), None)
            .and_then(|e| e.check(&tags, platforms))
            .map_err(|e| e.to_string())
    };
    assert!(check(&[], &[], &[], 1).is_ok());
    assert!(check(&["type=registry"], &[], &[], 1).unwrap_err().contains("tag is needed"));
    assert!(check(&["type=oci", "type=tar"], &[], &[], 1).unwrap_err().contains("standard output"));
    assert!(check(&["type=tar,dest=/"], &[], &[], 1).unwrap_err().contains("is a directory"));
    assert!(check(&["type=tar,dest=/none/such"], &[], &[], 1).unwrap_err().contains("not a directory"));
    assert!(check(&["type=oci"], &["index:a=b"], &[], 1).unwrap_err().contains("several platforms"));
    assert!(check(&["type=oci"], &["index:a=b"], &[], 2).is_ok());
    assert!(check(&["type=image,push-by-digest=true,push=true"], &[], &["x:1"], 1).is_err());
    let exports = |outputs: &[&str]| {
        let outputs: Vec<String> = outputs.iter().map(|s| (*s).to_owned()).collect();
        Exports::parse(&outputs, &[], None).unwrap()
    };
    assert!(exports(&[]).keeps_image() && exports(&["type=docker"]).keeps_image());
    assert!(!exports(&["out"]).keeps_image() && !exports(&["type=registry,store=false"]).keeps_image());
    assert!(exports(&["-"]).uses_stdout() && !exports(&["out"]).uses_stdout());
}
