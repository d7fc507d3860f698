//! `cargo xtask compare`: builds the same contexts with dhow and with the builders that are installed, and compares the
//! images: config, history, and every path of the merged file system.
//!
//! A difference that `xtask/compare/known.tsv` does not list fails the task, and so does a line of it that explains
//! nothing any more. Everything happens below `target/compare` in a private network and mount namespace.

mod context;
mod diff;
mod history;
mod image;
mod known;
mod peers;
mod report;

use crate::setup::{self, Purpose};
use crate::sh::{self, Args, Failure, Result};
use context::Context;
use image::Image;
use known::Known;
use peers::{Peer, Peers};
use report::{Outcome, Report};
use std::process::Command;

/// Set in the process that runs inside the private namespaces.
const INSIDE: &str = "DHOW_COMPARE_INSIDE";

/// Debian packages of the peers.
const PEERS: &[&str] = &["docker.io", "buildah", "crun", "runc", "iptables", "golang-github-containers-common"];

/// Runs the task.
pub fn main(args: &[String]) -> Result {
    let options = Args::parse(args, &["--only"], &["--install-peers", "--list"])?;
    let names = context::names(options.value("--only"))?;
    if names.is_empty() {
        return Err(Failure::new("there is no such context; --list shows them"));
    }
    if options.flag("--list") {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("the comparison builds images: run it as root"));
    }
    if std::env::var_os(INSIDE).is_some() {
        return compare(&names, options.value("--only"));
    }
    setup::ensure(Purpose::Compare)?;
    if options.flag("--install-peers") {
        setup::install(PEERS)?;
    }
    let mut inside = Command::new("unshare");
    if std::env::var_os("DHOW_BIN").is_none() {
        sh::run(sh::cargo().args(["build", "--quiet", "--package", "dhow"]))?;
        inside.env("DHOW_BIN", sh::target().join("debug/dhow"));
    }
    let own = std::env::current_exe().map_err(|e| Failure::new(e.to_string()))?;
    inside.args(["--net", "--mount", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(own);
    sh::run(inside.arg("compare").args(args).env(INSIDE, "1"))
}

fn compare(names: &[String], only: Option<&str>) -> Result {
    let work = sh::target().join("compare");
    let dhow = std::env::var_os("DHOW_BIN").ok_or_else(|| Failure::new("DHOW_BIN is not set"))?;
    let known = Known::read()?;
    let peers = Peers::start(&work, dhow.into())?;
    let contexts: Vec<Context> = names.iter().map(|name| context::prepare(&work, name)).collect::<Result<_>>()?;
    let here: Vec<Peer> = peers.present().iter().map(|(peer, _)| *peer).collect();
    let mut report = Report::new(peers.present());
    for context in &contexts {
        let images = build_everywhere(&peers, &here, context);
        let Some((_, own)) = images.first() else { continue };
        let mut outcomes = Vec::new();
        for (peer, other) in images.iter().skip(1) {
            let mut outcome = Outcome::equal(*peer);
            for difference in diff::compare(own, other, *peer) {
                match known.explain(&context.name, *peer, &difference) {
                    Some(line) => outcome.known.push((difference, line.reason.clone())),
                    None => outcome.unknown.push(difference),
                }
            }
            for (who, result) in [(Peer::Dhow, own), (*peer, other)] {
                if let (false, Err(text)) = (outcome.unknown.is_empty(), result) {
                    let last = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or(text);
                    println!("{}: {} says: {last}", context.name, who.name());
                }
            }
            outcomes.push(outcome);
        }
        report.add(&context.name, outcomes);
    }
    drop(peers);
    let stale = known.stale(&here, only);
    report.finish(&stale, only.is_none())
}

/// One result for each builder. The two builders of one dockerd take turns, because the images' names are the same.
fn build_everywhere(
    peers: &Peers,
    here: &[Peer],
    context: &Context,
) -> Vec<(Peer, std::result::Result<Image, String>)> {
    let (docker, others): (Vec<Peer>, Vec<Peer>) =
        here.iter().partition(|p| matches!(p, Peer::Classic | Peer::BuildKit));
    let groups: Vec<Vec<Peer>> = others.into_iter().map(|p| vec![p]).chain([docker]).collect();
    let work = |group: &Vec<Peer>| -> Vec<_> {
        group.iter().map(|peer| (*peer, build(peers, *peer, context).map_err(|e| e.to_string()))).collect()
    };
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = groups.iter().map(|group| scope.spawn(move || work(group))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    results.sort_by_key(|(peer, _)| *peer);
    results
}

fn build(peers: &Peers, peer: Peer, context: &Context) -> Result<Image> {
    if let Some(base) = &context.base {
        peers.build(peer, base, "base", &[])?;
    }
    let tag = format!("compared-{}", context.name);
    peers.build(peer, &context.directory, &tag, &context.options)?;
    Image::take(&peers.export(peer, &tag)?)
}
