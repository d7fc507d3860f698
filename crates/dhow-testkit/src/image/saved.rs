//! Reading back what `save` writes, in Docker's old form and in the OCI layout.

use serde_json::Value;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

/// An image as an archive holds it.
#[derive(Debug)]
pub struct SavedImage {
    /// The config document.
    pub config: Value,
    /// The uncompressed tar of each layer, lowest first.
    pub layers: Vec<Vec<u8>>,
}

impl SavedImage {
    /// Reads the first image of an archive.
    pub fn read(archive: &Path) -> io::Result<Self> {
        let members = Members::read(archive)?;
        let manifest: Value = serde_json::from_slice(members.get("manifest.json")?)?;
        let image = &manifest[0];
        let config = serde_json::from_slice(members.get(image["Config"].as_str().unwrap_or_default())?)?;
        let names = image["Layers"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let layers = names.map(|name| inflate(members.get(name)?)).collect::<io::Result<_>>()?;
        Ok(Self { config, layers })
    }
}

/// Entries of a layer, one line each: type, mode, owner, path, and content, target or device numbers.
///
/// Whiteouts are shown as such. Content of up to 80 bytes is shown, of more its size and digest.
pub fn layer_listing(layer: &[u8]) -> io::Result<Vec<String>> {
    tar::Archive::new(layer).entries()?.map(|entry| listed(entry?)).collect()
}

fn listed(mut entry: tar::Entry<'_, &[u8]>) -> io::Result<String> {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    let path = String::from_utf8_lossy(&entry.path_bytes()).escape_debug().to_string();
    let target = String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).escape_debug().to_string();
    let mut attributes = String::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        if let Some(name) = record.key().ok().and_then(|k| k.strip_prefix("SCHILY.xattr.")) {
            attributes += &format!(" {name}={}", super::hex(record.value_bytes()));
        }
    }
    let header = entry.header();
    let head = format!("{:o} {}:{} {path}", header.mode()? & 0o7777, header.uid()?, header.gid()?);
    let device = || io::Result::Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)));
    let line = match header.entry_type() {
        Directory => format!("directory {head}"),
        Symlink => format!("symlink {path} -> {target}"),
        Link => format!("link {path} = {target}"),
        Fifo => format!("fifo {head}"),
        Char => format!("character {head} {:?}", device()?),
        Block => format!("block {head} {:?}", device()?),
        _ if path.rsplit('/').next().is_some_and(|name| name.starts_with(".wh.")) => format!("whiteout {path}"),
        _ => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            let text = match std::str::from_utf8(&content) {
                Ok(text) if text.len() <= 80 => format!("\"{}\"", text.escape_debug()),
                _ => format!("{} bytes, {}", content.len(), &super::sha256_hex(&content)[..12]),
            };
            format!("file {head} {text}")
        }
    };
    Ok(line + &attributes)
}

/// Files of an archive by name, links resolved.
struct Members {
    files: HashMap<String, Vec<u8>>,
    links: HashMap<String, String>,
}

impl Members {
    fn read(archive: &Path) -> io::Result<Self> {
        let mut out = Self { files: HashMap::new(), links: HashMap::new() };
        let mut reader = tar::Archive::new(io::BufReader::new(std::fs::File::open(archive)?));
        for entry in reader.entries()? {
            let mut entry = entry?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_start_matches("./").to_owned();
            let name = text(&entry.path_bytes());
            if let Some(target) = entry.link_name_bytes() {
                // Equal layers are stored once; the others are links beside their own directory (`../ID/layer.tar`).
                out.links.insert(name, text(&target).trim_start_matches("../").to_owned());
                continue;
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            out.files.insert(name, content);
        }
        Ok(out)
    }

    fn get(&self, name: &str) -> io::Result<&[u8]> {
        let target = self.links.get(name).map_or(name, String::as_str);
        let file = self.files.get(target).map(Vec::as_slice);
        file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the archive has no file {name}")))
    }
}

/// The tar inside a layer, which may be compressed with gzip.
fn inflate(layer: &[u8]) -> io::Result<Vec<u8>> {
    if !layer.starts_with(&[0x1f, 0x8b]) {
        return Ok(layer.to_vec());
    }
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(layer).read_to_end(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Entry, ImageBuilder, Tar};

    #[test]
    fn a_layer_is_listed() {
        let layer = Tar::of([
            Entry::dir("d/", 0o1755),
            Entry::file("d/f", 0o644, "one\n").owned(1, 2).pax("SCHILY.xattr.user.a", b"\x01"),
            Entry::file("d/.wh.g", 0, ""),
            Entry::symlink("s", "d"),
        ]);
        let lines = layer_listing(&layer).unwrap();
        let expected =
            ["directory 1755 0:0 d/", "file 644 1:2 d/f \"one\\n\" user.a=01", "whiteout d/.wh.g", "symlink s -> d"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn both_forms_are_read() {
        let layer = Tar::of([Entry::file("f", 0o644, "x")]);
        let image = ImageBuilder::new("x").layer(&layer).plain_layer(&layer);
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("new", image.archive()), ("old", image.old_archive())] {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            let saved = SavedImage::read(&dir.path().join(name)).unwrap();
            assert_eq!(saved.layers, [layer.clone(), layer.clone()], "{name}");
            assert_eq!(saved.config["os"], "linux");
        }
    }
}
