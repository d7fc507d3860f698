//! The static binary: how it is built, and the proof that it is static.

use crate::setup::{self, MUSL, Purpose};
use crate::sh::{self, Args, Context, Failure, Result};
use std::path::{Path, PathBuf};

/// The fall-back target.
const GNU: &str = "x86_64-unknown-linux-gnu";

/// Which of the two ways to a static binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The musl target.
    Musl,
    /// The gnu target with `+crt-static`.
    GnuStatic,
}

/// How much the compiler works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As shipped.
    Release,
    /// Quick to build.
    Dev,
}

/// Runs the task `build`.
pub fn main(args: &[String]) -> Result {
    let args = Args::parse(args, &[], &["--gnu"])?;
    setup::ensure(Purpose::Build)?;
    let binary = if args.flag("--gnu") { build(Flavour::GnuStatic, Profile::Release)? } else { release()? };
    println!("{}", binary.display());
    Ok(())
}

/// The release binary, static, by the best way this machine has; or the one that `DHOW_BIN` names.
pub fn release() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DHOW_BIN") {
        return Ok(path.into());
    }
    build(if setup::has_musl() { Flavour::Musl } else { Flavour::GnuStatic }, Profile::Release)
}

/// Builds `dhow` and checks that what came out is static.
pub fn build(flavour: Flavour, profile: Profile) -> Result<PathBuf> {
    let mut command = sh::cargo();
    command.args(["build", "--quiet", "--locked", "--package", "dhow", "--target"]);
    let target = match flavour {
        Flavour::Musl => MUSL,
        Flavour::GnuStatic => {
            // Only for this target, so that build scripts and proc macros of the host stay dynamic.
            command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
            GNU
        }
    };
    command.arg(target);
    let folder = match profile {
        Profile::Release => {
            command.arg("--release");
            "release"
        }
        Profile::Dev => "debug",
    };
    sh::run(&mut command)?;
    let binary = sh::target().join(target).join(folder).join("dhow");
    check_static(&binary)?;
    Ok(binary)
}

/// Fails unless the file is a 64-bit ELF program that needs no interpreter and no library.
pub fn check_static(path: &Path) -> Result {
    let bytes = std::fs::read(path).context(path.display())?;
    match linkage(&bytes) {
        Some(Linkage { interpreter: false, libraries: 0 }) => Ok(()),
        Some(found) => Err(Failure::new(format!("{} is not static: {found:?}", path.display()))),
        None => Err(Failure::new(format!("{} is not a 64-bit little-endian ELF program", path.display()))),
    }
}

/// What a program wants from the dynamic linker.
#[derive(Debug, PartialEq, Eq)]
struct Linkage {
    interpreter: bool,
    libraries: usize,
}

/// Reads the program headers (elf(5)): `PT_INTERP`, and `DT_NEEDED` entries in `PT_DYNAMIC`.
fn linkage(bytes: &[u8]) -> Option<Linkage> {
    const PT_DYNAMIC: u64 = 2;
    const PT_INTERP: u64 = 3;
    const DT_NEEDED: u64 = 1;
    let number = |at: u64, len: usize| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let mut value = [0; 8];
        value[..len].copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
        Some(u64::from_le_bytes(value))
    };
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (headers, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut found = Linkage { interpreter: false, libraries: 0 };
    for index in 0..count {
        let header = headers.checked_add(index.checked_mul(size)?)?;
        match number(header, 4)? {
            PT_INTERP => found.interpreter = true,
            PT_DYNAMIC => {
                let (start, len) = (number(header + 8, 8)?, number(header + 32, 8)?);
                for entry in 0..len / 16 {
                    let tag = number(start.checked_add(entry * 16)?, 8)?;
                    found.libraries += usize::from(tag == DT_NEEDED);
                    if tag == 0 {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_recognised() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = linkage(&own).unwrap();
        assert!(found.interpreter && found.libraries > 0, "{found:?}");
    }

    #[test]
    fn rubbish_is_not_a_program() {
        assert_eq!(linkage(b""), None);
        assert_eq!(linkage(b"#!/bin/sh\n"), None);
        assert_eq!(linkage(&[&b"\x7fELF\x02\x01"[..], &[0xff; 60]].concat()), None);
    }
}
