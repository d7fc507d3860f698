//! `cargo xtask bench`: dhow beside the peers that are installed, on one machine, in one run, with spaced starts.
//!
//! Everything happens below `target/bench` in a private network and mount namespace; a `dockerd` of our own is started
//! there when the program is installed. The result is `docs/benchmarks.md`, with the goals that are met and those missed.

mod engines;
mod footprint;
mod image;
mod report;
mod rows;
mod timing;

use crate::binary;
use crate::setup::{self, Purpose};
use crate::sh::{self, Args, Failure, Result};
use engines::Engines;
use report::Report;
use std::process::Command;
use timing::Plan;

/// Set in the process that runs inside the private namespaces.
const INSIDE: &str = "DHOW_BENCH_INSIDE";

/// Debian packages of the peers.
const PEERS: &[&str] =
    &["docker.io", "podman", "netavark", "aardvark-dns", "crun", "runc", "iptables", "golang-github-containers-common"];

/// Runs the task.
pub fn main(args: &[String]) -> Result {
    let options = Args::parse(args, &["--only"], &["--quick", "--install-peers", "--list"])?;
    if options.flag("--list") {
        rows::ROWS.iter().for_each(|row| println!("{:16} {}", row.name, row.title));
        return Ok(());
    }
    if let Some(name) = options.value("--only").filter(|name| !rows::ROWS.iter().any(|r| r.name == *name)) {
        return Err(Failure::new(format!("no row '{name}'; --list shows them")));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("the benchmarks start containers: run them as root"));
    }
    if std::env::var_os(INSIDE).is_some() {
        return measure(&options);
    }
    setup::ensure(Purpose::Bench)?;
    if options.flag("--install-peers") {
        setup::install(PEERS)?;
        return Ok(());
    }
    let dhow = binary::release()?;
    let own = std::env::current_exe().map_err(|e| Failure::new(e.to_string()))?;
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--mount", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(own);
    sh::run(inside.arg("bench").args(args).env(INSIDE, "1").env("DHOW_BIN", dhow))
}

fn measure(options: &Args) -> Result {
    let plan = if options.flag("--quick") { Plan::quick() } else { Plan::full() };
    let engines = Engines::start()?;
    let mut report = Report::new(&engines, &plan)?;
    for row in rows::ROWS.iter().filter(|r| options.value("--only").is_none_or(|o| o == r.name)) {
        println!("── {}", row.title);
        match (row.run)(&engines, &plan) {
            Ok(cells) => {
                for cell in &cells {
                    println!("   {:24} {}", cell.who, cell.value);
                }
                report.add(row, cells);
            }
            Err(failure) => {
                println!("   failed: {failure}");
                report.fail(row, &failure);
            }
        }
    }
    drop(engines);
    let text = report.markdown();
    match options.value("--only") {
        Some(_) => print!("\n{text}"),
        None => {
            sh::write(&sh::root().join("docs/benchmarks.md"), &text)?;
            println!("written: docs/benchmarks.md");
        }
    }
    Ok(())
}
