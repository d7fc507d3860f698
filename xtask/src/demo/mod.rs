//! `cargo xtask demo`: the tour. From a Dockerfile to a running, entered, committed and pushed container, each command
//! as a person types it, with its output and one line that says what it shows. Every result is checked.
//!
//! Everything lives below `target/demo`; other engines and other roots of dhow on this machine are not touched.

mod base;
mod host;
mod place;
mod tour;
mod walk;

use crate::binary;
use crate::setup::{self, Purpose};
use crate::sh::{self, Args, Failure, Result};
use place::Place;
use std::time::Instant;
use tour::Tour;

/// Runs the task.
pub fn main(args: &[String]) -> Result {
    let args = Args::parse(args, &[], &["--keep"])?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("the tour starts containers: run it as root"));
    }
    let start = Instant::now();
    println!("Preparing: packages, the static binary, a Debian base image with Python, a local registry.");
    setup::ensure(Purpose::Demo)?;
    let dhow = binary::release()?;
    let place = Place::new(dhow)?;
    let outcome = tour(&place, args.flag("--keep"));
    if args.flag("--keep") && outcome.is_ok() {
        println!(
            "\nKept, as asked: the container, the registry on port {}, and {}.",
            place.registry_port,
            place.work.display()
        );
        println!("Use it:   {}", place.as_shell());
        println!("End it:   cargo xtask demo   (a new tour starts by clearing the old one)");
    } else {
        place.clear()?;
    }
    let checks = outcome?;
    println!("\n{checks} checks hold; {:.0} s in all.", start.elapsed().as_secs_f64());
    Ok(())
}

fn tour(place: &Place, keep: bool) -> Result<usize> {
    let base = base::prepare(place)?;
    let registry = place.start_registry()?;
    let walked = base::publish(place, &base).and_then(|()| {
        let mut tour = Tour::new(place);
        walk::everything(&mut tour).map(|()| tour.checks())
    });
    if keep && walked.is_ok() {
        registry.keep();
    } else {
        registry.stop();
    }
    walked
}

/// Copies the files of a directory, not its subdirectories.
fn copy_files(from: &std::path::Path, to: &std::path::Path) -> Result {
    use sh::Context as _;
    sh::make_dir(to)?;
    for entry in std::fs::read_dir(from).context(from.display())? {
        let path = entry.context(from.display())?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            std::fs::copy(&path, to.join(name)).context(path.display())?;
        }
    }
    Ok(())
}
