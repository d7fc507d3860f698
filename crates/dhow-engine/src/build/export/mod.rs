//! What becomes of a build: images of the store, pushed images, layouts, archives, files.
//!
//! Several outputs may be asked for at once. An image of several platforms is an index in registries and OCI layouts; the
//! local store has no indexes, so there every platform's image is kept and the names go to the one for this machine (or
//! the first, when none is).

mod annotation;
mod attributes;
pub(super) mod blobs;
pub(super) mod image;
pub(super) mod layout;
mod local;
mod metadata;
pub(super) mod push;
mod spec;

pub use annotation::{Annotation, AnnotationTarget};
pub(super) use attributes::Attributes;
pub(super) use blobs::LayerOptions;
pub use spec::ExportSpec;

use crate::image::Progress;
use crate::image::pull::say;
use crate::{Engine, EngineError};
use blobs::Encoder;
use dhow_oci::image::{Descriptor, MAX_DOCUMENT};
use dhow_types::{Digest, Platform, Reference};
use image::{Look, Package, assemble};
use layout::{CREATED, FULL_NAME, REF_NAME};
use push::Upload;
use serde::Serialize;
use spec::{Destination, Kind};
use std::fs::File;
use std::path::Path;

/// Everything that a build is to become.
#[derive(Debug)]
pub struct Exports {
    /// The outputs, one after another.
    pub specs: Vec<ExportSpec>,
    /// Annotations of all of them.
    pub annotations: Vec<Annotation>,
    /// Standard output, for what goes there.
    pub stdout: Option<File>,
}

impl Default for Exports {
    fn default() -> Self {
        Self { specs: vec![ExportSpec::load()], annotations: Vec::new(), stdout: None }
    }
}

/// What an export made.
#[derive(Debug)]
pub struct Exported {
    /// Digest of the manifest or index, if one was made; otherwise the image's id.
    pub digest: Digest,
    /// Id of the image for this machine.
    pub image: Digest,
    /// Things worth knowing that were no errors.
    pub warnings: Vec<String>,
    names: Vec<Reference>,
    descriptor: Option<Descriptor>,
}

impl Exports {
    /// Reads values of `--output` and `--annotation`. Without outputs the image goes into the local store.
    pub fn parse(outputs: &[String], annotations: &[String], stdout: Option<&File>) -> Result<Self, EngineError> {
        let mut specs = Vec::with_capacity(outputs.len());
        for output in outputs {
            specs.push(ExportSpec::parse(output)?);
        }
        if specs.is_empty() {
            specs.push(ExportSpec::load());
        }
        let mut list = Vec::new();
        for annotation in annotations {
            list.extend(Annotation::parse(annotation)?);
        }
        let stdout = stdout.map(File::try_clone).transpose();
        let stdout = stdout.map_err(EngineError::state("duplicate", Path::new("standard output")))?;
        Ok(Self { specs, annotations: list, stdout })
    }

    /// Whether the images stay in the local store, listed.
    pub fn keeps_image(&self) -> bool {
        self.specs.iter().any(|s| matches!(s.kind, Kind::Image { store: true, .. }))
    }

    /// Whether something goes to standard output.
    pub fn uses_stdout(&self) -> bool {
        self.specs.iter().any(|s| s.dest == Some(Destination::Stdout))
    }

    /// Refuses before the build what could only fail after it.
    pub fn check(&self, tags: &[Reference], platforms: usize) -> Result<(), EngineError> {
        if self.specs.iter().filter(|s| s.dest == Some(Destination::Stdout)).count() > 1 {
            return Err(EngineError::Invalid("only one output can go to standard output".to_owned()));
        }
        for spec in &self.specs {
            let names = if spec.names.is_empty() { tags } else { &spec.names };
            if let Kind::Image { push: true, by_digest, .. } = spec.kind {
                if names.is_empty() {
                    let text = "tag is needed when pushing to registry: give one with -t, or name= in --output";
                    return Err(EngineError::Invalid(text.to_owned()));
                }
                if by_digest && names.iter().any(|n| n.tag().is_some_and(|t| t != "latest")) {
                    let text = "push-by-digest pushes without a tag: give a name without one";
                    return Err(EngineError::Invalid(text.to_owned()));
                }
            }
            if spec.kind == Kind::Docker && platforms > 1 {
                return Err(EngineError::Unsupported {
                    feature: "an archive of several platforms for docker load (use type=oci)".to_owned(),
                });
            }
            let of_index = |a: &&Annotation| a.is_of_index();
            if platforms < 2 && self.annotations.iter().chain(&spec.annotations).any(|a| of_index(&a)) {
                let text = "index annotations need a build for several platforms: nothing else makes an index";
                return Err(EngineError::Invalid(text.to_owned()));
            }
            if let (Some(Destination::Path(path)), false) = (&spec.dest, spec.kind == Kind::Local || !spec.tar) {
                check_file(path)?;
            }
        }
        Ok(())
    }
}

/// A file can be written there.
fn check_file(path: &Path) -> Result<(), EngineError> {
    if path.is_dir() {
        let text = format!("the destination {} is a directory, a file is expected", path.display());
        return Err(EngineError::Invalid(text));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let text = format!("cannot write {}: {} is not a directory", path.display(), parent.display());
        return Err(EngineError::Invalid(text));
    }
    Ok(())
}

impl Engine {
    /// Carries out the outputs of a build. `images` are its results: their configs are blobs of the store, their layers
    /// are there. Names are those of `--tag`.
    pub fn export_build(
        &self,
        exports: &Exports,
        images: &[(Platform, Digest)],
        tags: &[Reference],
        progress: &dyn Progress,
    ) -> Result<Exported, EngineError> {
        let host = Platform::host();
        let local = images.iter().find(|(p, _)| host.accepts(p)).or(images.first());
        let (_, local) = local.ok_or_else(|| EngineError::Invalid("nothing was built".to_owned()))?;
        let tags: Vec<Reference> = tags.iter().map(|t| t.clone().with_default_tag()).collect();
        let mut done =
            Exported { digest: *local, image: *local, warnings: Vec::new(), names: tags.clone(), descriptor: None };
        let job = Job { engine: self, encoder: Encoder::new(self.store()), images, local, progress };
        for spec in &exports.specs {
            let names = if spec.names.is_empty() { &tags } else { &spec.names };
            let annotations = [exports.annotations.as_slice(), &spec.annotations].concat();
            let look = Look { layers: spec.layers, oci: spec.oci, annotations: &annotations };
            job.one(spec, names, &look, exports.stdout.as_ref(), &mut done)?;
            if !spec.names.is_empty() {
                done.names.clone_from(&spec.names);
            }
        }
        Ok(done)
    }
}

struct Job<'a> {
    engine: &'a Engine,
    encoder: Encoder<'a>,
    images: &'a [(Platform, Digest)],
    /// Id of the image that names mean here.
    local: &'a Digest,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn one(
        &self,
        spec: &ExportSpec,
        names: &[Reference],
        look: &Look<'_>,
        stdout: Option<&File>,
        done: &mut Exported,
    ) -> Result<(), EngineError> {
        let split = spec.split.unwrap_or(self.images.len() > 1);
        match (spec.kind, &spec.dest) {
            (Kind::CacheOnly, _) => Ok(()),
            (Kind::Image { push, by_digest, store }, _) => {
                if store {
                    self.keep(names)?;
                }
                if push {
                    return self.push(names, look, by_digest, store, done);
                }
                if spec.is_special() || !look.annotations.is_empty() {
                    let text = "compression and annotations are properties of a manifest, which an image of the local \
                                store gets when it is pushed: add push=true, or use type=oci";
                    done.warnings.push(text.to_owned());
                }
                Ok(())
            }
            (Kind::Local, Some(dest)) => {
                done.warnings.extend(local::files(self.engine, self.images, split, dest)?);
                Ok(())
            }
            (Kind::Tar, Some(dest)) => {
                self.write(dest, stdout, &mut |out| local::tar(self.engine, self.images, split, out))
            }
            (Kind::Oci | Kind::Docker, Some(dest)) => self.layout(spec, dest, names, look, stdout, done),
            (Kind::Local | Kind::Tar | Kind::Oci | Kind::Docker, None) => {
                Err(EngineError::Invalid("dest is required for this --output".to_owned()))
            }
        }
    }

    /// Puts the images into the list of images, and the names to the one for this machine.
    fn keep(&self, names: &[Reference]) -> Result<(), EngineError> {
        let store = self.engine.store();
        for (_, id) in self.images {
            store.put_image(&store.read_blob(id, MAX_DOCUMENT)?, None)?;
        }
        for name in names {
            store.set_ref(name, self.local)?;
        }
        Ok(())
    }

    fn assemble(&self, look: &Look<'_>, done: &mut Exported) -> Result<Package, EngineError> {
        let package = assemble(self.engine.store(), &self.encoder, self.images, look)?;
        done.digest = package.top.digest;
        done.descriptor = Some(package.top.clone());
        Ok(package)
    }

    fn push(
        &self,
        names: &[Reference],
        look: &Look<'_>,
        by_digest: bool,
        store: bool,
        done: &mut Exported,
    ) -> Result<(), EngineError> {
        let package = self.assemble(look, done)?;
        let mut documents: Vec<Digest> = package.parts.iter().map(|p| p.manifest.digest).collect();
        documents.push(package.top.digest);
        let client = self.engine.registry();
        let mut sent: Vec<String> = Vec::new();
        for name in names {
            let upload = Upload::new(self.engine.store(), client, name, self.progress)?;
            if !sent.contains(&name.repository()) {
                say(self.progress, format!("The push refers to repository [{}]", name.repository()));
                upload.blobs(&package.blobs, &documents)?;
                if package.is_index() {
                    for part in &package.parts {
                        upload.document(&package.blobs, &part.manifest, None)?;
                    }
                }
                sent.push(name.repository());
            }
            let tag = if by_digest { None } else { name.tag() };
            upload.document(&package.blobs, &package.top, tag)?;
            let shown = tag.unwrap_or("digest");
            say(self.progress, format!("{shown}: digest: {} size: {}", package.top.digest, package.top.size));
            if store {
                self.remember(&package, name)?;
            }
        }
        Ok(())
    }

    /// A pushed image has a manifest of its own, and is known to be there.
    fn remember(&self, package: &Package, name: &Reference) -> Result<(), EngineError> {
        let store = self.engine.store();
        for part in &package.parts {
            let Some(blob) = package.blobs.0.get(&part.manifest.digest) else { continue };
            let mut bytes = Vec::new();
            blob.write_to(store, &part.manifest.digest, &mut bytes)?;
            store.put_blob(&bytes)?;
            let config = store.read_blob(&part.config.digest, MAX_DOCUMENT)?;
            store.put_image(&config, Some((&part.manifest.digest, &part.manifest.media_type)))?;
        }
        Ok(store.add_repo_digest(&name.with_digest(package.top.digest), self.local)?)
    }

    fn layout(
        &self,
        spec: &ExportSpec,
        dest: &Destination,
        names: &[Reference],
        look: &Look<'_>,
        stdout: Option<&File>,
        done: &mut Exported,
    ) -> Result<(), EngineError> {
        let store = self.engine.store();
        let package = self.assemble(look, done)?;
        let entries = entries(&package, names);
        match (dest, spec.tar) {
            (Destination::Path(path), false) => {
                let directory = layout::Directory::create(path)?;
                for (digest, blob) in &package.blobs.0 {
                    directory.put(store, digest, blob)?;
                }
                directory.list(entries)
            }
            _ => {
                let docker = match spec.kind {
                    Kind::Docker => Some(docker_manifest(&package, names)?),
                    _ => None,
                };
                self.write(dest, stdout, &mut |out| {
                    let out = std::io::BufWriter::with_capacity(256 << 10, out);
                    layout::write_archive(store, &package.blobs, entries.clone(), docker.clone(), out)
                })
            }
        }
    }

    fn write(
        &self,
        dest: &Destination,
        stdout: Option<&File>,
        fill: &mut dyn FnMut(&File) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        match dest {
            Destination::Path(path) => layout::replace(path, &mut |file| fill(file)),
            Destination::Stdout => {
                let none = || EngineError::Invalid("there is no standard output to write to".to_owned());
                fill(stdout.ok_or_else(none)?)
            }
        }
    }
}

/// What the layout lists: the image under each of its names.
fn entries(package: &Package, names: &[Reference]) -> Vec<Descriptor> {
    let mut top = package.top.clone();
    if let (Some(part), false) = (package.parts.first(), package.is_index())
        && let Some(created) = &part.created
    {
        top.annotations.entry(CREATED.to_owned()).or_insert_with(|| created.clone());
    }
    let named = |name: &Reference| {
        let mut entry = top.clone();
        entry.annotations.insert(FULL_NAME.to_owned(), name.to_string());
        entry.annotations.insert(REF_NAME.to_owned(), name.tag().unwrap_or("latest").to_owned());
        entry
    };
    if names.is_empty() { vec![top.clone()] } else { names.iter().map(named).collect() }
}

/// Docker's `manifest.json`.
fn docker_manifest(package: &Package, names: &[Reference]) -> Result<Vec<u8>, EngineError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Item {
        config: String,
        repo_tags: Option<Vec<String>>,
        layers: Vec<String>,
    }
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let items: Vec<Item> = package
        .parts
        .iter()
        .map(|part| Item {
            config: path(&part.config.digest),
            repo_tags: (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect()),
            layers: part.layers.iter().map(|l| path(&l.digest)).collect(),
        })
        .collect();
    image::json(&items)
}

#[cfg(test)]
pub(crate) mod tests;
