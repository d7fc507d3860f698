//! What the tour needs before it starts: Debian's Python as `python:2.7-slim`, Flask's wheels, and busybox.
//!
//! Made once from Debian packages and PyPI, then kept in `target/demo`.

use super::copy_files;
use super::place::{ACCOUNT, Place};
use crate::sh::{self, Context, Result};
use dhow_testkit::image::{Blob, ImageBuilder};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the base image in the notes.
pub const BASE: &str = "python:2.7-slim";

/// Makes what is missing; returns the base image's archive.
pub fn prepare(place: &Place) -> Result<PathBuf> {
    let app = place.work.join("app");
    sh::remove(&app)?;
    copy_files(&sh::root().join("demo/app"), &app)?;
    let wheels = wheels(&place.work.join("wheels"))?;
    copy_files(&wheels, &app.join("wheels"))?;
    let archive = place.work.join("base.oci.tar");
    if !archive.is_file() {
        make_base(&place.work, &archive)?;
    }
    Ok(archive)
}

/// Flask and what it depends on, as wheels for the base image's Python.
fn wheels(dir: &Path) -> Result<PathBuf> {
    let done = dir.join(".complete");
    if !done.is_file() {
        println!("Fetching Flask's wheels from PyPI.");
        let requirements = sh::root().join("demo/app/requirements.txt");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", "3.11"]);
        pip.args(["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64", "--dest"]);
        sh::quiet(pip.arg(dir).arg("-r").arg(requirements))?;
        sh::write(&done, "")?;
        // The context is what the image gets: only wheels belong in there.
        sh::remove(&dir.join("requirements.txt"))?;
    }
    Ok(dir.to_path_buf())
}

/// Debian 12 with python3 and pip, `python` as the notes call it, and pip told to look for wheels in the app.
fn make_base(work: &Path, archive: &Path) -> Result {
    println!("Making the base image from Debian packages (mmdebstrap; once, about a minute).");
    let tar = work.join("base.tar");
    let mut debian = Command::new("mmdebstrap");
    debian.env("SOURCE_DATE_EPOCH", "1700000000").args([
        "--quiet",
        "--variant=minbase",
        "--include=python3,python3-pip",
    ]);
    for place in ["doc", "man", "locale", "info"] {
        debian.arg(format!("--dpkgopt=path-exclude=/usr/share/{place}/*"));
    }
    for hook in [
        // pip may install into the system: in an image there is nobody else to disturb (PEP 668 guards hosts).
        "rm -f \"$1\"/usr/lib/python3*/EXTERNALLY-MANAGED",
        "ln -sf python3 \"$1\"/usr/bin/python",
        "rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/*.bin \"$1\"/var/log/*.log",
    ] {
        debian.arg(format!("--customize-hook={hook}"));
    }
    sh::quiet(debian.arg("bookworm").arg(&tar))?;
    let (blob, diff_id) = Blob::gzip_file(work.join("base.layer"), |out| {
        let mut file = std::fs::File::open(&tar)?;
        std::io::copy(&mut file, out).map(drop)
    })
    .context("cannot compress the base layer")?;
    let image = ImageBuilder::new(BASE)
        .stored_layer(blob, "application/vnd.oci.image.layer.v1.tar+gzip", diff_id)
        .set("Cmd", serde_json::json!(["python"]))
        .set(
            "Env",
            serde_json::json!([
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "PIP_FIND_LINKS=/app/wheels",
                "PIP_NO_INDEX=1",
                "PIP_NO_CACHE_DIR=1",
                "PIP_ROOT_USER_ACTION=ignore",
                "PYTHONUNBUFFERED=1",
            ]),
        );
    let temporary = work.join("base.oci.tar.new");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&temporary).context(temporary.display())?);
    image.write_archive(&mut file).and_then(|()| file.flush()).context(temporary.display())?;
    std::fs::rename(&temporary, archive).context(archive.display())?;
    sh::remove(&tar)?;
    sh::remove(&work.join("base.layer"))
}

/// Puts the base image into the registry (once) and busybox into the local store, then forgets the login.
pub fn publish(place: &Place, archive: &Path) -> Result {
    let dhow = |args: &[&str]| sh::quiet(place.command("dhow").args(args));
    let busybox = dhow_testkit::busybox_image();
    dhow(&["load", "-q", "-i", &busybox.to_string_lossy()])?;
    let marker = place.work.join("registry/.published");
    if marker.is_file() {
        return Ok(());
    }
    println!("Pushing the base image to the local registry (once).");
    let server = format!("localhost:{}", place.registry_port);
    let name = format!("{server}/{BASE}");
    dhow(&["load", "-q", "-i", &archive.to_string_lossy()])?;
    dhow(&["tag", BASE, &name])?;
    dhow(&["login", "-u", ACCOUNT.0, "-p", ACCOUNT.1, &server])?;
    dhow(&["push", "-q", &name])?;
    dhow(&["logout", &server])?;
    dhow(&["rmi", &name, BASE])?;
    sh::write(&marker, "")
}
