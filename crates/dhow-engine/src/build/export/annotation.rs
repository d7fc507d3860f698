//! Annotations of manifests and indexes.

use crate::EngineError;
use dhow_oci::image::Descriptor;
use dhow_types::Platform;
use std::collections::BTreeMap;

/// What an annotation is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationTarget {
    /// The manifest of an image.
    Manifest,
    /// The index over several platforms.
    Index,
    /// The descriptor of a manifest, in the index or layout that lists it.
    ManifestDescriptor,
    /// The descriptor of the index, in the layout that lists it.
    IndexDescriptor,
}

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it is attached to.
    pub target: AnnotationTarget,
    /// The platform whose manifest is meant; all of them when absent.
    pub platform: Option<Platform>,
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

impl Annotation {
    /// Reads `[TYPE[PLATFORM],…:]KEY=VALUE`, a value of `--annotation`: one annotation for each type. Without a type it is
    /// the manifest's.
    pub fn parse(text: &str) -> Result<Vec<Self>, EngineError> {
        let bad = || EngineError::Invalid(format!("invalid annotation {text:?}, expected [TYPE:]KEY=VALUE"));
        let (left, value) = text.split_once('=').ok_or_else(bad)?;
        let (types, key) = left.split_once(':').unwrap_or(("manifest", left));
        if key.is_empty() {
            return Err(bad());
        }
        types.split(',').map(|t| Self::of(t.trim(), key, value)).collect()
    }

    /// Reads an attribute of `--output`: `annotation[-TYPE][[PLATFORM]].KEY`.
    pub(super) fn attribute(name: &str, value: &str) -> Result<Self, EngineError> {
        let bad = || EngineError::Invalid(format!("invalid attribute {name:?}: expected annotation[-TYPE].KEY"));
        let rest = name.strip_prefix("annotation").ok_or_else(bad)?;
        let (kind, key) = match rest.find(']') {
            // A platform may contain a dot.
            Some(end) => {
                let (kind, key) = rest.split_at_checked(end + 1).ok_or_else(bad)?;
                (kind, key.strip_prefix('.').ok_or_else(bad)?)
            }
            None => rest.split_once('.').ok_or_else(bad)?,
        };
        if key.is_empty() {
            return Err(bad());
        }
        let kind = match kind.strip_prefix('-') {
            Some(kind) => kind.to_owned(),
            None => format!("manifest{kind}"),
        };
        Self::of(&kind, key, value)
    }

    fn of(kind: &str, key: &str, value: &str) -> Result<Self, EngineError> {
        let (word, platform) = match kind.split_once('[') {
            None => (kind, None),
            Some((word, rest)) => {
                let text = rest.strip_suffix(']').unwrap_or_default();
                let platform = text.parse::<Platform>().map_err(|e| EngineError::Invalid(e.to_string()))?;
                (word, Some(platform))
            }
        };
        let target = match word {
            "manifest" => AnnotationTarget::Manifest,
            "index" => AnnotationTarget::Index,
            "manifest-descriptor" => AnnotationTarget::ManifestDescriptor,
            "index-descriptor" => AnnotationTarget::IndexDescriptor,
            other => return Err(EngineError::Invalid(format!("unknown annotation type {other:?}"))),
        };
        let of_index = matches!(target, AnnotationTarget::Index | AnnotationTarget::IndexDescriptor);
        if of_index && platform.is_some() {
            return Err(EngineError::Invalid(format!("an annotation of type {word:?} has no platform")));
        }
        Ok(Self { target, platform, key: key.to_owned(), value: value.to_owned() })
    }

    pub(super) fn is_of_index(&self) -> bool {
        matches!(self.target, AnnotationTarget::Index | AnnotationTarget::IndexDescriptor)
    }
}

/// The annotations for one thing.
pub(super) fn select(
    all: &[Annotation],
    target: AnnotationTarget,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let fits = |a: &&Annotation| {
        let here = a.platform.as_ref().is_none_or(|wanted| platform.is_some_and(|p| wanted.accepts(p)));
        a.target == target && here
    };
    all.iter().filter(fits).map(|a| (a.key.clone(), a.value.clone())).collect()
}

/// Adds the annotations for a descriptor.
pub(super) fn describe(descriptor: &mut Descriptor, all: &[Annotation], platform: Option<&Platform>) {
    let target =
        if platform.is_some() { AnnotationTarget::ManifestDescriptor } else { AnnotationTarget::IndexDescriptor };
    descriptor.annotations.extend(select(all, target, platform));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let one = |text: &str| Annotation::parse(text).unwrap().remove(0);
        assert_eq!(one("a.b=c=d").value, "c=d");
        assert_eq!(one("a=b").target, AnnotationTarget::Manifest);
        assert_eq!(one("index:a=b").target, AnnotationTarget::Index);
        let two = Annotation::parse("index,manifest-descriptor[linux/arm64]:k=v").unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(two[1].platform.as_ref().unwrap().to_string(), "linux/arm64");
        for bad in ["a", "=v", "index:=v", "indx:a=b", "index[linux/amd64]:a=b", "manifest[:a=b", "manifest[x:a=b"] {
            assert!(Annotation::parse(bad).is_err(), "{bad}");
        }
        let attribute = |name: &str| Annotation::attribute(name, "v");
        assert_eq!(attribute("annotation.org.x").unwrap().key, "org.x");
        assert_eq!(attribute("annotation-index.org.x").unwrap().target, AnnotationTarget::Index);
        assert_eq!(attribute("annotation[linux/amd64].org.x").unwrap().key, "org.x");
        let other = attribute("annotation-manifest-descriptor[linux/amd64].k").unwrap();
        assert_eq!(other.target, AnnotationTarget::ManifestDescriptor);
        for bad in ["annotation", "annotation.", "annotations.k", "annotation-x.k", "annotation[linux/amd64]k"] {
            assert!(attribute(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn selection_by_platform() {
        let list = [
            Annotation::parse("manifest[linux/arm64]:only=arm").unwrap(),
            Annotation::parse("all=yes").unwrap(),
            Annotation::parse("index:top=1").unwrap(),
        ]
        .concat();
        let amd: Platform = "linux/amd64".parse().unwrap();
        let arm: Platform = "linux/arm64".parse().unwrap();
        assert_eq!(select(&list, AnnotationTarget::Manifest, Some(&amd)).len(), 1);
        assert_eq!(select(&list, AnnotationTarget::Manifest, Some(&arm)).len(), 2);
        assert_eq!(select(&list, AnnotationTarget::Index, None).len(), 1);
    }
}
