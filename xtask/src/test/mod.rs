//! `cargo xtask test`: everything that CI runs, phase by phase, with one summary line at the end.
//!
//! A phase that fails does not stop the others. Nothing is skipped: a test that lacks rights or a tool fails.

mod artefacts;
mod runner;

use crate::binary::{self, Flavour, Profile};
use crate::setup::{self, Purpose};
use crate::sh::{self, Args, Failure, Result};
use crate::tidy;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// What a phase found.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: Vec<String>,
}

impl Tally {
    fn check(&mut self, name: &str, outcome: Result) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(failure) => {
                println!("FAILED {name}: {failure}");
                self.failed.push(name.to_owned());
            }
        }
    }

    fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
    }
}

/// What the phases share.
struct Run {
    filter: Option<String>,
    binary: Option<PathBuf>,
}

type Phase = (&'static str, fn(&mut Run) -> Result<Tally>);

const PHASES: &[Phase] = &[
    ("fmt", |_| one("cargo fmt --check", sh::run(sh::cargo().args(["fmt", "--all", "--check"])))),
    ("tidy", |_| one("tidy", tidy::main(&[]))),
    ("clippy", |_| {
        let mut clippy = sh::cargo();
        clippy.args(["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        one("cargo clippy", sh::run(&mut clippy))
    }),
    ("binary", binaries),
    ("unit", unit),
    ("e2e", end_to_end),
    ("docs", docs),
    ("deny", deny),
];

/// Runs the task.
pub fn main(args: &[String]) -> Result {
    let args = Args::parse(args, &["--only"], &[])?;
    let only = args.value("--only");
    if let Some(name) = only.filter(|name| !PHASES.iter().any(|(n, _)| n == name)) {
        return Err(Failure::new(format!("no phase '{name}'")));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("the tests start containers: run them as root"));
    }
    setup::ensure(Purpose::Test)?;
    let mut run = Run { filter: args.words.first().cloned(), binary: None };
    let mut total = Tally::default();
    let start = Instant::now();
    for (name, phase) in PHASES.iter().filter(|(name, _)| only.is_none_or(|o| o == *name)) {
        let begun = Instant::now();
        println!("── {name}");
        match phase(&mut run) {
            Ok(tally) => total.add(tally),
            Err(failure) => total.check(name, Err(failure)),
        }
        println!("── {name}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    for name in &total.failed {
        println!("failed: {name}");
    }
    println!("{} passed, {} failed in {:.0} s", total.passed, total.failed.len(), start.elapsed().as_secs_f64());
    if total.failed.is_empty() { Ok(()) } else { Err(Failure::new("some tests failed")) }
}

fn one(name: &str, outcome: Result) -> Result<Tally> {
    let mut tally = Tally::default();
    tally.check(name, outcome);
    Ok(tally)
}

/// The binary to test, built once a run.
fn binary_under_test(run: &mut Run) -> Result<PathBuf> {
    if run.binary.is_none() {
        run.binary = Some(binary::release()?);
    }
    Ok(run.binary.clone().unwrap_or_default())
}

/// Both ways to a static binary must give one that starts; the second one is built without optimisation.
fn binaries(run: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    let shipped = binary_under_test(run);
    tally.check("static release binary", shipped.and_then(|b| starts(&b)));
    let gnu = binary::build(Flavour::GnuStatic, Profile::Dev);
    tally.check("static binary from the gnu target", gnu.and_then(|b| starts(&b)));
    Ok(tally)
}

fn starts(binary: &Path) -> Result {
    binary::check_static(binary)?;
    let text = sh::read(Command::new(binary).arg("--version"))?;
    println!("{}: {} kB, {text}", binary.display(), std::fs::metadata(binary).map_or(0, |m| m.len() / 1000));
    if text.contains(char::is_numeric) { Ok(()) } else { Err(Failure::new(format!("--version says '{text}'"))) }
}

fn unit(run: &mut Run) -> Result<Tally> {
    let programs = artefacts::test_programs(&["--workspace", "--exclude", "dhow"])?;
    runner::unit(&programs, run.filter.as_deref())
}

fn end_to_end(run: &mut Run) -> Result<Tally> {
    let binary = binary_under_test(run)?;
    let programs = artefacts::test_programs(&["--package", "dhow"])?;
    let (e2e, units): (Vec<_>, Vec<_>) = programs.into_iter().partition(|p| p.name == "e2e");
    let mut tally = runner::unit(&units, run.filter.as_deref())?;
    for program in &e2e {
        tally.add(runner::isolated(program, &binary, run.filter.as_deref())?);
    }
    Ok(tally)
}

fn docs(_: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut doc = sh::cargo();
    doc.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--quiet", "--locked", "--workspace", "--no-deps"]);
    tally.check("cargo doc", sh::run(&mut doc));
    Ok(tally)
}

fn deny(_: &mut Run) -> Result<Tally> {
    if sh::find("cargo-deny").is_none() {
        println!("cargo-deny is not installed; tidy has checked licences and banned crates from the same lists");
        return Ok(Tally::default());
    }
    one("cargo deny", sh::run(sh::cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"])))
}
