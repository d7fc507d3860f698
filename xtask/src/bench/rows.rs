//! What is measured.

use super::engines::{Engines, Kind, without_unified_cgroup};
use super::timing::{self, Plan, Times, spaced};
use super::{footprint, image};
use crate::sh::{self, Context, Result};
use std::process::{Command, Stdio};

/// One line of the table.
pub struct Row {
    /// Name for `--only`.
    pub name: &'static str,
    /// What is done.
    pub title: &'static str,
    /// Does it with every engine.
    pub run: fn(&Engines, &Plan) -> Result<Vec<Cell>>,
}

/// What one contestant achieved.
#[derive(Debug)]
pub struct Cell {
    /// Who.
    pub who: String,
    /// The figure that ratios are made of, or why there is none.
    pub value: Value,
}

/// A figure.
#[derive(Debug)]
pub enum Value {
    /// Times of a command.
    Times(Times),
    /// Kilobytes.
    Size(f64),
    /// It did not work.
    Failed(String),
}

impl Value {
    /// Median in milliseconds, or kilobytes.
    pub fn figure(&self) -> Option<f64> {
        match self {
            Self::Times(times) => Some(times.median()),
            Self::Size(kilobytes) => Some(*kilobytes),
            Self::Failed(_) => None,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Times(t) if t.median() >= 2000.0 => {
                write!(f, "{:.2} s (mean {:.2}, min {:.2})", t.median() / 1e3, t.mean() / 1e3, t.min() / 1e3)
            }
            Self::Times(t) => write!(f, "{:.1} ms (mean {:.1}, min {:.1})", t.median(), t.mean(), t.min()),
            Self::Size(kilobytes) if *kilobytes >= 2000.0 => write!(f, "{:.1} MB", kilobytes / 1e3),
            Self::Size(kilobytes) => write!(f, "{kilobytes:.0} kB"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row { name: "run-bridge", title: "`run --rm busybox true`, bridge network", run: run_bridge },
    Row { name: "run-none", title: "`run --rm --network none busybox true`", run: run_none },
    Row { name: "run-rm", title: "`run -d` and `rm -f`", run: run_and_remove },
    Row { name: "exec", title: "`exec` of `true`", run: exec },
    Row { name: "commit", title: "`commit` of a container with 100 new files", run: commit },
    Row { name: "build-cold", title: "ten-step build with five RUN, nothing cached", run: build_cold },
    Row { name: "build-warm", title: "the same build, nothing changed", run: build_warm },
    Row { name: "pull", title: "pull of the ten-layer image until the command returns", run: pull },
    Row { name: "pull-durable", title: "the same and `sync`: until the image is on disk", run: pull_durable },
    Row { name: "parallel", title: "20 × `run --rm busybox true` at once, all done", run: parallel },
    Row {
        name: "concurrent",
        title: "1,000 × `run --rm busybox true`, at most 64 at a time; all must succeed",
        run: concurrent,
    },
    Row { name: "ps", title: "`ps` with many running containers", run: ps },
    Row { name: "memory", title: "memory (PSS) per idle container beside its own processes", run: memory },
    Row { name: "size", title: "size of the programs", run: size },
];

/// One cell for each engine; an engine that fails gets a cell that says so.
fn each(engines: &Engines, measure: impl Fn(Kind) -> Result<Value>) -> Result<Vec<Cell>> {
    let cell = |kind: Kind| {
        let value = measure(kind).unwrap_or_else(|failure| Value::Failed(failure.to_string()));
        Cell { who: engines.name(kind).to_owned(), value }
    };
    Ok(engines.kinds().into_iter().map(cell).collect())
}

/// `run` with these arguments.
fn simple(engines: &Engines, plan: &Plan, args: &[&str]) -> Result<Vec<Cell>> {
    each(engines, |kind| {
        let work = || timing::quiet(engines.run(kind).args(args));
        Ok(Value::Times(spaced(plan.runs, plan.pause, || Ok(()), work)?))
    })
}

/// The bare runtimes on a ready bundle, and the floor: namespaces and an exec.
fn runtimes(engines: &Engines, plan: &Plan) -> Vec<Cell> {
    let time = |command: &(dyn Fn() -> Command + Sync)| {
        without_unified_cgroup(|| spaced(plan.runs, plan.pause, || Ok(()), || timing::quiet(&mut command())))
    };
    let mut cells = Vec::new();
    for runtime in ["crun", "runc"].into_iter().filter(|r| sh::find(r).is_some()) {
        let value = engines.bundle(runtime, &["true"]).and_then(|bundle| {
            let root = engines.work.join("runtime-state");
            time(&move || {
                let mut command = Command::new(runtime);
                command.arg("--root").arg(&root).args(["run", "--bundle"]).arg(&bundle).arg("bench");
                command
            })
        });
        let value = value.and_then(|times| times).map_or_else(|f| Value::Failed(f.to_string()), Value::Times);
        cells.push(Cell { who: format!("{runtime} run, ready bundle"), value });
    }
    let floor = time(&|| {
        let mut command = Command::new("unshare");
        command.args(["-mpnuiC", "--fork", "--mount-proc", "true"]);
        command
    });
    let value = floor.and_then(|times| times).map_or_else(|f| Value::Failed(f.to_string()), Value::Times);
    cells.push(Cell { who: "unshare + exec (floor)".to_owned(), value });
    cells
}

fn run_bridge(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    let mut cells = simple(engines, plan, &["--rm", "busybox", "true"])?;
    cells.extend(runtimes(engines, plan));
    Ok(cells)
}

fn run_none(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    let mut cells = simple(engines, plan, &["--rm", "--network", "none", "busybox", "true"])?;
    cells.extend(runtimes(engines, plan));
    Ok(cells)
}

/// `rm -f` without waiting for a program that ignores SIGTERM; only podman waits unless told.
fn remove(engines: &Engines, kind: Kind, name: &str) -> Result {
    let mut command = engines.command(kind);
    command.args(["rm", "-f"]);
    if kind == Kind::Podman {
        command.args(["-t", "0"]);
    }
    timing::quiet(command.arg(name))
}

fn start(engines: &Engines, kind: Kind, name: &str) -> Result {
    timing::quiet(engines.run(kind).args(["-d", "--name", name, "busybox", "sleep", "1000"]))
}

fn run_and_remove(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    each(engines, |kind| {
        let work = || start(engines, kind, "bench").and_then(|()| remove(engines, kind, "bench"));
        Ok(Value::Times(spaced(plan.runs, plan.pause, || Ok(()), work)?))
    })
}

/// Measures `work` while a container named `bench` runs.
fn with_container(engines: &Engines, kind: Kind, work: impl FnOnce() -> Result<Times>) -> Result<Value> {
    start(engines, kind, "bench")?;
    let times = work();
    remove(engines, kind, "bench")?;
    Ok(Value::Times(times?))
}

fn exec(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    let mut cells = each(engines, |kind| {
        with_container(engines, kind, || {
            let work = || timing::quiet(engines.command(kind).args(["exec", "bench", "true"]));
            spaced(plan.runs, plan.pause, || Ok(()), work)
        })
    })?;
    if sh::find("crun").is_some() {
        let value = crun_exec(engines, plan).map_or_else(|f| Value::Failed(f.to_string()), Value::Times);
        cells.push(Cell { who: "crun exec".to_owned(), value });
    }
    Ok(cells)
}

fn crun_exec(engines: &Engines, plan: &Plan) -> Result<Times> {
    let bundle = engines.bundle("crun", &["sleep", "1000"])?;
    let root = engines.work.join("runtime-state");
    without_unified_cgroup(|| {
        let crun = |args: &[&str]| {
            let mut command = Command::new("crun");
            command.arg("--root").arg(&root).args(args);
            command
        };
        timing::quiet(crun(&["run", "--detach", "--bundle"]).arg(&bundle).arg("bench"))?;
        let times = spaced(plan.runs, plan.pause, || Ok(()), || timing::quiet(&mut crun(&["exec", "bench", "true"])));
        timing::quiet(&mut crun(&["delete", "--force", "bench"]))?;
        times
    })?
}

fn commit(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    each(engines, |kind| {
        with_container(engines, kind, || {
            let script = "for i in $(seq 100); do head -c 10000 /dev/urandom > /file$i; done";
            timing::quiet(engines.command(kind).args(["exec", "bench", "sh", "-c", script]))?;
            let work = || timing::quiet(engines.command(kind).args(["commit", "bench", "committed"]));
            spaced(plan.runs.min(10), plan.pause, || Ok(()), work)
        })
    })
}

const TEN_STEPS: &str = "FROM busybox\nLABEL step=two\nENV A=1\nWORKDIR /app\nCOPY file /app/file\nRUN echo 1 > /1\nRUN echo 2 > /2\n\
                         RUN echo 3 > /3\nRUN echo 4 > /4\nRUN echo 5 > /5\n";

fn build(engines: &Engines, kind: Kind, options: &[&str]) -> Result {
    let context = engines.work.join("context");
    sh::write(&context.join("Dockerfile"), TEN_STEPS)?;
    sh::write(&context.join("file"), "content\n")?;
    timing::quiet(
        engines
            .command(kind)
            .args(["build", "-q", "-t", "built"])
            .args(Engines::limits(kind))
            .args(options)
            .arg(&context),
    )
}

fn build_cold(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    each(engines, |kind| {
        let work = || build(engines, kind, &["--no-cache"]);
        Ok(Value::Times(spaced(plan.runs.min(5), plan.pause, || Ok(()), work)?))
    })
}

fn build_warm(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    each(engines, |kind| {
        let options: &[&str] = if kind == Kind::Podman { &["--layers"] } else { &[] };
        let work = || build(engines, kind, options);
        Ok(Value::Times(spaced(plan.runs.min(10), plan.pause, || Ok(()), work)?))
    })
}

fn pull(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    pull_and(engines, plan, || Ok(()))
}

fn pull_durable(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    pull_and(engines, plan, || timing::quiet(&mut Command::new("sync")))
}

fn pull_and(engines: &Engines, plan: &Plan, then: impl Fn() -> Result) -> Result<Vec<Cell>> {
    let name = image::publish(engines, plan.shrink)?;
    each(engines, |kind| {
        let options: &[&str] = if kind == Kind::Podman { &["--tls-verify=false"] } else { &[] };
        let command = || engines.command_in(kind, if kind == Kind::Docker { "" } else { "-pull" });
        let forget = || {
            // Every pull is into an empty root; nothing of the one before is still being written.
            timing::quiet(command().args(["rmi", "-f", &name])).or(Ok::<(), crate::sh::Failure>(()))?;
            timing::quiet(&mut Command::new("sync"))
        };
        let work = || {
            timing::quiet(command().args(["pull", "-q"]).args(options).arg(&name))?;
            then()
        };
        let times = spaced(plan.long_runs, plan.pause, forget, work);
        forget()?;
        Ok(Value::Times(times?))
    })
}

fn parallel(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    each(engines, |kind| {
        let work = || {
            let start = |_| {
                let mut command = engines.run(kind);
                command.args(["--rm", "busybox", "true"]);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("run")
            };
            let children: Vec<_> = (0..20).map(start).collect::<Result<_>>()?;
            let mut failed = 0;
            for mut child in children {
                failed += usize::from(!child.wait().context("run")?.success());
            }
            if failed == 0 { Ok(()) } else { Err(sh::Failure::new(format!("{failed} of 20 runs failed"))) }
        };
        Ok(Value::Times(spaced(plan.runs.min(5), plan.pause, || Ok(()), work)?))
    })
}

/// Only dhow: what the others make of this load is theirs.
fn concurrent(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    const AT_ONCE: usize = 64;
    let total = 1000 / plan.shrink;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    let worker = || {
        while next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < total {
            let run = timing::quiet(engines.run(Kind::Dhow).args(["--rm", "busybox", "true"]));
            if let (Err(failure), Ok(mut list)) = (run, failed.lock()) {
                list.push(failure.to_string());
            }
        }
    };
    let time = timing::once(|| {
        std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(worker))));
        Ok(())
    })?;
    let failed = failed.into_inner().unwrap_or_else(|e| e.into_inner());
    let left = sh::read(engines.command(Kind::Dhow).args(["ps", "-aq"]))?;
    let value = match failed.first() {
        None if left.is_empty() => Value::Times(Times::new(vec![time])),
        None => Value::Failed(format!("{} containers are left", left.lines().count())),
        Some(first) => Value::Failed(format!("{} of {total} failed, the first: {first}", failed.len())),
    };
    Ok(vec![Cell { who: "dhow".to_owned(), value }])
}

fn ps(engines: &Engines, plan: &Plan) -> Result<Vec<Cell>> {
    each(engines, |kind| {
        let names: Vec<String> = (0..plan.crowd).map(|n| format!("crowd{n}")).collect();
        names.iter().try_for_each(|name| start(engines, kind, name))?;
        let times = spaced(plan.runs, plan.pause, || Ok(()), || timing::quiet(engines.command(kind).arg("ps")));
        names.iter().try_for_each(|name| remove(engines, kind, name))?;
        Ok(Value::Times(times?))
    })
}

fn memory(engines: &Engines, _: &Plan) -> Result<Vec<Cell>> {
    each(engines, |kind| Ok(Value::Size(footprint::memory_per_container(engines, kind)?)))
}

fn size(engines: &Engines, _: &Plan) -> Result<Vec<Cell>> {
    each(engines, |kind| Ok(Value::Size(footprint::program_size(engines, kind))))
}
