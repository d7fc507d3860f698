//! `docs/benchmarks.md`.

use super::engines::Engines;
use super::rows::{Cell, Row, Value};
use super::timing::Plan;
use crate::sh::{self, Failure, Result};
use std::fmt::Write as _;
use std::process::Command;

/// What is collected for the document.
pub struct Report {
    head: String,
    rows: Vec<(&'static Row, Vec<Cell>)>,
    failed: Vec<String>,
}

/// A goal: a row, whom it is compared with, and the bound.
struct Goal {
    row: &'static str,
    text: &'static str,
    bound: Bound,
}

/// How a goal is judged.
enum Bound {
    /// dhow's own figure is below this (ms, or kB).
    Below(f64),
    /// dhow's figure divided by a peer's is at most this.
    Ratio(&'static str, f64),
}

const GOALS: &[Goal] = &[
    Goal { row: "run-bridge", text: "run with bridge below 15 ms", bound: Bound::Below(15.0) },
    Goal {
        row: "run-bridge",
        text: "run with bridge ≥ 30 times faster than docker",
        bound: Bound::Ratio("docker", 1.0 / 30.0),
    },
    Goal {
        row: "run-bridge",
        text: "run with bridge ≤ 0.6 of `crun run` on a ready bundle",
        bound: Bound::Ratio("crun run, ready bundle", 0.6),
    },
    Goal {
        row: "run-none",
        text: "run without network ≤ 0.45 of `crun run` on a ready bundle",
        bound: Bound::Ratio("crun run, ready bundle", 0.45),
    },
    Goal { row: "exec", text: "exec below 6 ms", bound: Bound::Below(6.0) },
    Goal { row: "memory", text: "less than 1 MB per idle container", bound: Bound::Below(1000.0) },
    Goal { row: "pull", text: "pull ≥ 4 times faster than docker", bound: Bound::Ratio("docker", 0.25) },
    Goal { row: "pull", text: "pull ≥ 4 times faster than podman", bound: Bound::Ratio("podman", 0.25) },
    Goal { row: "build-cold", text: "cold build ≥ 10 times faster than docker", bound: Bound::Ratio("docker", 0.1) },
    Goal { row: "build-warm", text: "build with nothing changed below 50 ms", bound: Bound::Below(50.0) },
    Goal { row: "size", text: "one file below 20 MB", bound: Bound::Below(20_000.0) },
];

impl Report {
    /// Notes machine and versions.
    pub fn new(engines: &Engines, plan: &Plan) -> Result<Self> {
        let mut head = String::from(
            "# Benchmarks\n\nMade by `cargo xtask bench`, which anyone can repeat. Times are wall times of whole commands, ",
        );
        let pause = plan.pause.as_millis();
        write!(
            head,
            "started {pause} ms apart as people and CI start them: median (mean, minimum) of up to {} runs. ",
            plan.runs
        )
        .ok();
        head.push_str("Ratios hold on one machine in one run; do not compare figures across machines.\n\n");
        if plan.shrink > 1 {
            writeln!(
                head,
                "**A quick look (`--quick`): few runs, {} containers for `ps`, a tenth of the image for `pull`.**\n",
                plan.crowd
            )
            .ok();
        }
        machine(&mut head);
        for kind in engines.kinds() {
            writeln!(head, "- {}", engines.version(kind)).ok();
        }
        for runtime in ["crun", "runc"].into_iter().filter(|r| sh::find(r).is_some()) {
            let version = sh::read(Command::new(runtime).arg("--version"))?;
            writeln!(head, "- {}", version.lines().next().unwrap_or(runtime)).ok();
        }
        head.push_str("- docker builds with its classic builder; podman's `rm -f` is given `-t 0`\n");
        Ok(Self { head, rows: Vec::new(), failed: Vec::new() })
    }

    /// Adds a row.
    pub fn add(&mut self, row: &'static Row, cells: Vec<Cell>) {
        self.rows.push((row, cells));
    }

    /// Notes a row that could not be measured at all.
    pub fn fail(&mut self, row: &Row, failure: &Failure) {
        self.failed.push(format!("{}: {failure}", row.title));
    }

    /// The document.
    pub fn markdown(&self) -> String {
        let mut out = self.head.clone();
        for (row, cells) in &self.rows {
            let own = cells.iter().find(|c| c.who == "dhow").and_then(|c| c.value.figure());
            write!(out, "\n## {}\n\n| | | relative to dhow |\n|---|---|---|\n", row.title).ok();
            for cell in cells {
                let relative = match (own, cell.value.figure()) {
                    (Some(own), Some(figure)) if own > 0.0 => format!("{:.2}", figure / own),
                    _ => "–".to_owned(),
                };
                let value = match &cell.value {
                    Value::Failed(why) => format!("failed: {}", why.lines().next().unwrap_or("")),
                    value => value.to_string(),
                };
                writeln!(out, "| {} | {value} | {relative} |", cell.who).ok();
            }
        }
        for failure in &self.failed {
            write!(out, "\nNot measured: {failure}\n").ok();
        }
        out.push_str("\n## Goals\n\n| goal | measured | |\n|---|---|---|\n");
        for goal in GOALS {
            if let Some((measured, met)) = self.judge(goal) {
                writeln!(out, "| {} | {measured} | {} |", goal.text, if met { "met" } else { "**missed**" }).ok();
            }
        }
        out
    }

    /// What was measured for a goal and whether that meets it; `None` when its row or peer is absent.
    fn judge(&self, goal: &Goal) -> Option<(String, bool)> {
        let (_, cells) = self.rows.iter().find(|(row, _)| row.name == goal.row)?;
        let figure = |who: &str| cells.iter().find(|c| c.who == who)?.value.figure();
        let Some(own) = figure("dhow") else { return Some(("failed".to_owned(), false)) };
        match goal.bound {
            Bound::Below(limit) => {
                let unit = if matches!(goal.row, "memory" | "size") { "kB" } else { "ms" };
                Some((format!("{own:.1} {unit}"), own < limit))
            }
            Bound::Ratio(peer, limit) => {
                let ratio = own / figure(peer)?;
                let text =
                    if limit < 0.45 { format!("{:.1} times faster", 1.0 / ratio) } else { format!("{ratio:.2}") };
                Some((text, ratio <= limit))
            }
        }
    }
}

/// Facts of the machine.
fn machine(out: &mut String) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        text.lines()
            .find_map(|l| Some(l.strip_prefix(key)?.trim_start_matches([':', '\t', ' ']).to_owned()))
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory: u64 =
        field(&read("/proc/meminfo"), "MemTotal").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let v1 = std::path::Path::new("/sys/fs/cgroup/memory").is_dir();
    let hybrid = std::path::Path::new("/sys/fs/cgroup/unified").is_dir();
    let cgroups = if !v1 {
        "v2"
    } else if hybrid {
        "v1 with a v2 hierarchy beside it"
    } else {
        "v1"
    };
    let filesystem = sh::read(Command::new("stat").args(["-f", "-c", "%T"]).arg(sh::target())).unwrap_or_default();
    writeln!(
        out,
        "- {cores} cores, {}, {} GB of memory",
        field(&read("/proc/cpuinfo"), "model name"),
        memory / 1_000_000
    )
    .ok();
    let system = read("/etc/os-release");
    let system = field(&system, "PRETTY_NAME=").trim_matches('"').to_owned();
    writeln!(out, "- {system}, Linux {}, cgroup {cgroups}, {filesystem}", read("/proc/sys/kernel/osrelease").trim())
        .ok();
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::super::timing::Times;
    use super::*;

    #[test]
    fn goals_are_judged_by_medians() {
        let cell = |who: &str, ms: f64| Cell { who: who.to_owned(), value: Value::Times(Times::new(vec![ms])) };
        let cells = vec![cell("dhow", 14.0), cell("docker", 400.0), cell("crun run, ready bundle", 28.0)];
        let report = Report { head: String::new(), rows: vec![(&ROWS[0], cells)], failed: Vec::new() };
        let text = report.markdown();
        assert!(text.contains("| run with bridge below 15 ms | 14.0 ms | met |"), "{text}");
        assert!(text.contains("28.6 times faster | **missed** |"), "{text}");
        assert!(text.contains("| 0.50 | met |"), "{text}");
    }

    #[test]
    fn every_goal_names_a_row() {
        assert!(GOALS.iter().all(|g| ROWS.iter().any(|r| r.name == g.row)));
    }
}
