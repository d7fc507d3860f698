//! `cargo xtask setup`: installs what is missing on a fresh Debian 12, and nothing when all is there.

use crate::sh::{self, Args, Failure, Result};
use std::process::Command;

/// What something is installed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building the binary.
    Build,
    /// The tour.
    Demo,
    /// The tests.
    Test,
    /// The differential test of the builder.
    Compare,
    /// The benchmarks.
    Bench,
}

/// A Debian package, the program that shows it is there, and what needs it.
struct Package {
    name: &'static str,
    program: &'static str,
    needed: &'static [Purpose],
}

const fn package(name: &'static str, program: &'static str, needed: &'static [Purpose]) -> Package {
    Package { name, program, needed }
}

use Purpose::{Bench, Build, Compare, Demo, Test};

const PACKAGES: &[Package] = &[
    package("gcc", "cc", &[Build, Demo, Test, Bench]),
    package("musl-tools", "musl-gcc", &[Build, Demo, Test, Bench]),
    package("busybox-static", "busybox", &[Demo, Test, Compare, Bench]),
    package("docker-registry", "docker-registry", &[Demo, Test, Bench]),
    package("apache2-utils", "htpasswd", &[Demo, Test]),
    package("nftables", "nft", &[Demo, Test]),
    package("iproute2", "ip", &[Demo, Test, Compare, Bench]),
    package("util-linux", "unshare", &[Demo, Test, Compare, Bench]),
    package("git", "git", &[Test]),
    package("attr", "setfattr", &[Compare]),
    package("bzip2", "bzip2", &[Compare]),
    package("xz-utils", "xz", &[Compare]),
    package("zstd", "zstd", &[Compare]),
    package("mmdebstrap", "mmdebstrap", &[Demo]),
    package("curl", "curl", &[Demo]),
    package("python3-pip", "pip3", &[Demo]),
    package("ca-certificates", "update-ca-certificates", &[Demo]),
    package("crun", "crun", &[Bench]),
    package("runc", "runc", &[Bench]),
];

/// The target whose binaries are static by nature.
pub const MUSL: &str = "x86_64-unknown-linux-musl";

/// Runs the task.
pub fn main(args: &[String]) -> Result {
    let args = Args::parse(args, &["--for"], &[])?;
    let purposes = match args.value("--for") {
        None => vec![Build, Demo, Test],
        Some("demo") => vec![Demo],
        Some("test") => vec![Test],
        Some("compare") => vec![Compare],
        Some("bench") => vec![Bench],
        Some(other) => return Err(Failure::new(format!("--for {other}: it is demo, test, compare or bench"))),
    };
    for purpose in purposes {
        ensure(purpose)?;
    }
    println!("setup: everything is installed");
    Ok(())
}

/// Installs what `purpose` needs and is missing.
pub fn ensure(purpose: Purpose) -> Result {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|p| p.needed.contains(&purpose) && sh::find(p.program).is_none())
        .map(|p| p.name)
        .collect();
    install(&missing)?;
    if !has_musl() {
        add_musl();
    }
    Ok(())
}

/// Installs Debian packages, in silence unless something goes wrong.
pub fn install(packages: &[&str]) -> Result {
    if packages.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(format!(
            "missing packages: {0}\ninstall them as root: apt-get install {0}",
            packages.join(" ")
        )));
    }
    println!("setup: installing {}", packages.join(" "));
    // A registry or an engine that a package would start at once must not occupy its port: answer "not now".
    let policy = std::path::Path::new("/usr/sbin/policy-rc.d");
    let made_policy = !policy.exists();
    if made_policy {
        sh::write(policy, "#!/bin/sh\nexit 101\n")?;
        sh::quiet(Command::new("chmod").args(["755", "/usr/sbin/policy-rc.d"]))?;
    }
    let outcome = install_now(packages);
    if made_policy {
        sh::remove(policy)?;
    }
    outcome
}

fn install_now(packages: &[&str]) -> Result {
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "DPkg::Lock::Timeout=120"]).args(args);
        command
    };
    // Lists may be missing or old; one update serves every later call of this task.
    static UPDATED: std::sync::Once = std::sync::Once::new();
    let mut updated = Ok(());
    UPDATED.call_once(|| updated = sh::quiet(&mut apt(&["update"])).map(drop));
    if let Err(failure) = updated {
        println!("setup: apt-get update failed, going on with the lists that are there ({failure})");
    }
    sh::quiet(apt(&["install", "-y", "--no-install-recommends"]).args(packages)).map(drop)
}

/// Whether the musl target of the tool chain in use is installed.
pub fn has_musl() -> bool {
    let Ok(sysroot) = sh::read(sh::cargo_tool("rustc").args(["--print", "sysroot"])) else { return false };
    std::path::Path::new(&sysroot).join("lib/rustlib").join(MUSL).join("lib").is_dir() && sh::find("musl-gcc").is_some()
}

/// Adds the musl target. Where that is impossible the gnu target with `+crt-static` serves instead.
fn add_musl() {
    println!("setup: adding the target {MUSL}");
    let added = sh::find("rustup").is_some()
        && sh::quiet(Command::new("rustup").args(["target", "add", MUSL]).current_dir(sh::root())).is_ok();
    if !added {
        println!("setup: {MUSL} cannot be had here; the static binary is built from the gnu target with +crt-static");
    }
}
