//! Platforms: `os/arch[/variant]` (OCI image-spec, image-index.md, "platform").

use std::fmt;
use std::str::FromStr;

/// A platform in Go's vocabulary, normalised (`x86_64` is `amd64`, `aarch64` is `arm64`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// Operating system, for instance `linux`.
    pub os: String,
    /// CPU architecture, for instance `amd64`.
    pub architecture: String,
    /// CPU variant, for instance `v8`; absent where the architecture has one only.
    pub variant: Option<String>,
}

/// The text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: expected os/arch[/variant], for instance linux/amd64")]
pub struct PlatformError(pub String);

impl Platform {
    /// The platform this binary was built for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// Builds and normalises a platform.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (arch, implied) = match architecture {
            "x86_64" | "x86-64" | "amd64" => ("amd64", None),
            "aarch64" | "arm64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i686" | "x86" => ("386", None),
            other => (other, None),
        };
        let variant = match (arch, variant.filter(|v| !v.is_empty()).or(implied)) {
            ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) => None,
            (_, v) => v.map(str::to_owned),
        };
        Self { os: os.to_owned(), architecture: arch.to_owned(), variant }
    }

    /// Whether an image for `offered` can be chosen when this platform is wanted.
    pub fn accepts(&self, offered: &Platform) -> bool {
        self.os == offered.os
            && self.architecture == offered.architecture
            && (self.variant == offered.variant || self.variant.is_none())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let ok =
            |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c));
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|p| ok(p)) {
            return Err(PlatformError(text.chars().take(80).collect()));
        }
        let lower: Vec<String> = parts.iter().map(|p| p.to_ascii_lowercase()).collect();
        match lower.as_slice() {
            // A lone word is an operating system when it is one, otherwise an architecture, as containerd reads it.
            [os] if os == "linux" => Ok(Self { os: os.clone(), ..Self::host() }),
            [arch] => Ok(Self::new("linux", arch, None)),
            [os, arch] => Ok(Self::new(os, arch, None)),
            [os, arch, variant] => Ok(Self::new(os, arch, Some(variant))),
            _ => Err(PlatformError(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_print() {
        let show = |t: &str| t.parse::<Platform>().map(|p| p.to_string());
        assert_eq!(show("linux/x86_64").unwrap(), "linux/amd64");
        assert_eq!(show("linux/arm64/v8").unwrap(), "linux/arm64");
        assert_eq!(show("linux/arm/v7").unwrap(), "linux/arm/v7");
        assert_eq!(show("arm64").unwrap(), "linux/arm64");
        assert!(show("linux//").is_err());
        assert!(show("a/b/c/d").is_err());
    }
}
