//! The ten-layer image of the pull benchmark: about 62,000 files, 1.6 GB, 510 MB compressed.

use super::engines::{Engines, Kind, REGISTRY};
use super::timing;
use crate::sh::{self, Context, Result};
use dhow_testkit::image::{Blob, ImageBuilder};
use std::io::Write;
use std::path::Path;

const LAYERS: usize = 10;
const FILES_PER_LAYER: usize = 6_200;
const MEAN_SIZE: u64 = 26_000;

/// splitmix64: the same bytes on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A file's content: three parts in ten do not compress, the rest is text.
    fn content(&mut self, size: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size + 64);
        while out.len() < size {
            for _ in 0..38 {
                out.extend_from_slice(&self.next().to_le_bytes());
            }
            for _ in 0..8 {
                out.extend_from_slice(
                    b"static int do_something(struct thing *t, unsigned long flags) { return -EINVAL; }\n",
                );
            }
        }
        out.truncate(size);
        out
    }

    /// Sizes spread around the mean: many small files, few large ones.
    fn size(&mut self) -> usize {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (-(1.0 - unit).ln() * MEAN_SIZE as f64) as usize
    }
}

/// Name of the image in the registry.
pub fn name(shrink: usize) -> String {
    format!("{REGISTRY}/bench/ten-layers:{shrink}")
}

/// Makes the image and pushes it with dhow, unless the registry has it from an earlier run.
pub fn publish(engines: &Engines, shrink: usize) -> Result<String> {
    let name = name(shrink);
    let marker = engines.work.join("registry").join(format!(".ten-layers-{shrink}"));
    if marker.is_file() {
        return Ok(name);
    }
    println!("   making the ten-layer image (once)");
    let place = engines.work.join("layers");
    sh::make_dir(&place)?;
    let mut image = ImageBuilder::new(&name);
    for layer in 0..LAYERS {
        let (blob, diff_id) = layer_blob(&place.join(format!("{layer}.tar.gz")), layer, shrink)?;
        image = image.stored_layer(blob, "application/vnd.oci.image.layer.v1.tar+gzip", diff_id);
    }
    let archive = place.join("image.tar");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&archive).context(archive.display())?);
    image.write_archive(&mut file).and_then(|()| file.flush()).context(archive.display())?;
    let dhow = |args: &[&str]| timing::quiet(engines.command_in(Kind::Dhow, "-push").args(args));
    dhow(&["load", "-q", "-i", &archive.to_string_lossy()])?;
    dhow(&["push", "-q", &name])?;
    sh::remove(&place)?;
    sh::remove(&engines.work.join("dhow/root-push"))?;
    sh::write(&marker, "")?;
    Ok(name)
}

fn layer_blob(path: &Path, layer: usize, shrink: usize) -> Result<(Blob, String)> {
    let mut random = Random(layer as u64 + 1);
    let fill = |out: &mut dyn Write| {
        let mut tar = tar::Builder::new(out);
        for n in 0..FILES_PER_LAYER / shrink {
            let content = { random.size() };
            let content = random.content(content);
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000);
            tar.append_data(&mut header, format!("usr/layer{layer}/dir{}/file{n}", n / 64), content.as_slice())?;
        }
        tar.finish()
    };
    Blob::gzip_file(path.to_path_buf(), fill).context("cannot make a layer")
}
