//! What was found: on the terminal, and as `docs/compat/build.md`.

use super::diff::Difference;
use super::history::RULES;
use super::known;
use super::peers::Peer;
use crate::sh::{self, Failure, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One context beside one peer.
#[derive(Debug)]
pub struct Outcome {
    /// The peer.
    pub peer: Peer,
    /// Differences that the list explains, with the reason.
    pub known: Vec<(Difference, String)>,
    /// The others.
    pub unknown: Vec<Difference>,
}

impl Outcome {
    /// An outcome without differences.
    pub fn equal(peer: Peer) -> Self {
        Self { peer, known: Vec::new(), unknown: Vec::new() }
    }

    fn cell(&self) -> String {
        match (self.known.len(), self.unknown.len()) {
            (0, 0) => "equal".to_owned(),
            (known, 0) => format!("{known} known"),
            (known, unknown) => format!("**{unknown} unknown**, {known} known"),
        }
    }
}

/// Differences of one peer with one reason.
#[derive(Debug, Default)]
struct Group<'a> {
    contexts: Vec<&'a str>,
    examples: Vec<String>,
    count: usize,
}

/// Everything that was compared.
pub struct Report {
    versions: Vec<(Peer, String)>,
    rows: Vec<(String, Vec<Outcome>)>,
}

impl Report {
    /// Nothing yet.
    pub fn new(versions: &[(Peer, String)]) -> Self {
        Self { versions: versions.to_vec(), rows: Vec::new() }
    }

    /// Adds a context and shows it.
    pub fn add(&mut self, context: &str, outcomes: Vec<Outcome>) {
        let cells: Vec<String> = outcomes.iter().map(|o| format!("{} {}", o.peer.name(), o.cell())).collect();
        println!("{context:24} {}", cells.join(" | "));
        for outcome in &outcomes {
            for difference in &outcome.unknown {
                println!("  {}", known::proposal(context, outcome.peer, difference));
            }
        }
        self.rows.push((context.to_owned(), outcomes));
    }

    /// Writes the document after a whole run with all peers, and judges.
    pub fn finish(&self, stale: &[String], whole: bool) -> Result {
        stale.iter().for_each(|line| println!("listed, but it does not occur any more: {line}"));
        let unknown: usize = self.rows.iter().flat_map(|(_, o)| o).map(|o| o.unknown.len()).sum();
        let all = [Peer::Dhow, Peer::Classic, Peer::BuildKit, Peer::Buildah];
        let missing = all.iter().filter(|p| !self.versions.iter().any(|(v, _)| v == *p)).map(|p| p.name());
        let missing: Vec<&str> = missing.collect();
        if !missing.is_empty() {
            println!("not compared, because it is not installed or does not work here: {}", missing.join(", "));
        }
        if whole && missing.is_empty() && unknown == 0 && stale.is_empty() {
            sh::write(&sh::root().join("docs/compat/build.md"), self.markdown())?;
            println!("written: docs/compat/build.md");
        }
        if unknown > 0 || !stale.is_empty() {
            let stale = stale.len();
            return Err(Failure::new(format!("{unknown} unknown differences, {stale} listed ones that do not occur")));
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut out = String::from(HEAD);
        for (peer, version) in self.versions.iter().filter(|(p, _)| *p != Peer::Dhow) {
            writeln!(out, "- {}: {version}", peer.name()).ok();
        }
        out.push_str("\n| context |");
        let names: Vec<&str> = self.versions.iter().filter(|(p, _)| *p != Peer::Dhow).map(|(p, _)| p.name()).collect();
        writeln!(out, " {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len())).ok();
        for (context, outcomes) in &self.rows {
            let cells: Vec<String> = outcomes.iter().map(Outcome::cell).collect();
            writeln!(out, "| {context} | {} |", cells.join(" | ")).ok();
        }
        out.push_str(
            "\n## Known differences\n\n| builder | why | contexts | where (dhow's; the other's) |\n|---|---|---|---|\n",
        );
        for ((peer, reason), Group { contexts, examples, count }) in self.by_reason() {
            let more = if count > examples.len() { format!("; {count} in all") } else { String::new() };
            let contexts = match contexts.len() {
                0..9 => contexts.join(", "),
                many => format!("{many} contexts"),
            };
            writeln!(out, "| {} | {reason} | {contexts} | {}{more} |", peer.name(), examples.join("; ")).ok();
        }
        out.push_str("\n## What is evened out in histories\n\n| what | why |\n|---|---|\n");
        for (what, why) in RULES {
            writeln!(out, "| {what} | {why} |").ok();
        }
        out
    }

    /// Contexts, up to three examples and the number of differences for each peer and reason.
    fn by_reason(&self) -> BTreeMap<(Peer, &str), Group<'_>> {
        let mut out: BTreeMap<(Peer, &str), Group<'_>> = BTreeMap::new();
        for (context, outcomes) in &self.rows {
            for outcome in outcomes {
                for (difference, reason) in &outcome.known {
                    let group = out.entry((outcome.peer, reason)).or_default();
                    if group.contexts.last() != Some(&context.as_str()) {
                        group.contexts.push(context);
                    }
                    group.count += 1;
                    if group.examples.len() < 3 {
                        let Difference { what, dhow, peer } = difference;
                        let text = format!("`{what}` ({}; {})", short(dhow), short(peer));
                        group.examples.push(text.replace('|', "\\|"));
                    }
                }
            }
        }
        out
    }
}

/// The beginning of a value.
fn short(value: &str) -> String {
    let line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect();
    if value.chars().count() > 60 { format!("{line}…") } else { line }
}

const HEAD: &str = "# `dhow build` beside other builders

Made by `cargo xtask compare`, which anyone can repeat. Every context of `xtask/compare/contexts` is built by all builders, and
the images are compared: the config's Env, Cmd, Entrypoint, User, WorkingDir, Labels, ExposedPorts, Volumes, OnBuild, Healthcheck,
StopSignal and Shell, author and platform; number, text and `empty_layer` of history entries; and of every path of the merged
file system type, mode, owner, size and content, link target, device numbers, extended attributes and hard links, but not
times. `xtask/compare/known.tsv` lists every difference that is meant; an unlisted one fails, and so does a listed one that no
longer occurs.

";
