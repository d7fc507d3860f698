//! Running tests in network namespaces of their own, two at a time, with a limit of time for each.
//!
//! Unit tests run as whole programs. End-to-end tests run one process each, so that one that hangs or dies takes
//! no other with it. Both get a fresh network namespace: the host's network is never touched.

use super::Tally;
use super::artefacts::Program;
use crate::sh::{self, Context, Result};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Tests at the same time.
const JOBS: usize = 2;
/// Limit for one unit test program.
const PROGRAM_LIMIT: Duration = Duration::from_secs(600);
/// Limit for one end-to-end test.
const TEST_LIMIT: Duration = Duration::from_secs(240);

/// Runs each program with all its tests.
pub fn unit(programs: &[Program], filter: Option<&str>) -> Result<Tally> {
    let total = Mutex::new(Tally::default());
    parallel(programs, |program| {
        let mut command = in_own_network(&program.path);
        command.current_dir(&program.directory).env("CARGO_MANIFEST_DIR", &program.directory);
        command.args(["--test-threads=2"]).args(filter);
        let done = finish(&mut command, PROGRAM_LIMIT);
        let tally = done.map(|done| read_results(program, &done));
        let mut total = total.lock().unwrap_or_else(|e| e.into_inner());
        match tally {
            Ok(tally) => total.add(tally),
            Err(failure) => total.check(&program.name, Err(failure)),
        }
    });
    Ok(total.into_inner().unwrap_or_else(|e| e.into_inner()))
}

/// Runs every test of a program in a process of its own, with `DHOW_BIN` set.
pub fn isolated(program: &Program, binary: &Path, filter: Option<&str>) -> Result<Tally> {
    let list = sh::read(Command::new(&program.path).args(["--list", "--format=terse"]).args(filter))?;
    let tests: Vec<&str> = list.lines().filter_map(|l| l.strip_suffix(": test")).collect();
    let scratch = sh::target().join("e2e");
    sh::remove(&scratch)?;
    let total = Mutex::new(Tally::default());
    parallel(&tests, |test| {
        let place = scratch.join(test.replace("::", "-"));
        let outcome = sh::make_dir(&place).and_then(|()| {
            let mut command = in_own_network(&program.path);
            command.current_dir(&program.directory).env("DHOW_BIN", binary).env("TMPDIR", &place);
            command.args(["--exact", "--nocapture", test]);
            finish(&mut command, TEST_LIMIT)
        });
        let mut total = total.lock().unwrap_or_else(|e| e.into_inner());
        match outcome {
            Ok(done) if done.success => {
                println!("ok     {test} ({:.1} s)", done.seconds);
                total.passed += 1;
            }
            Ok(done) => {
                println!("FAILED {test} ({:.1} s{})\n{}", done.seconds, done.why, indented(&done.text));
                total.failed.push(test.to_string());
                end_leftovers(&place);
            }
            Err(failure) => total.check(test, Err(failure)),
        }
        drop(total);
        if let Err(failure) = sh::remove(&place) {
            println!("cannot clean up after {test}: {failure}");
        }
    });
    Ok(total.into_inner().unwrap_or_else(|e| e.into_inner()))
}

/// Calls `work` on each item from `JOBS` threads.
fn parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// `program` in a new network namespace whose loopback is up.
fn in_own_network(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(program);
    command
}

/// How a program ended.
struct Done {
    success: bool,
    why: String,
    text: String,
    seconds: f64,
}

/// Runs to the end or to the limit; at the limit the whole process group is killed.
fn finish(command: &mut Command, limit: Duration) -> Result<Done> {
    let start = Instant::now();
    // A file, not a pipe: a container that outlives the test and holds the pipe would block us.
    let path = std::env::temp_dir().join(format!("dhow-test-{}-{:?}", std::process::id(), std::thread::current().id()));
    let log = std::fs::File::create(&path).context(path.display())?;
    let errors = log.try_clone().context(path.display())?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    let mut child = command.spawn().context(sh::shown(command))?;
    let status: Option<ExitStatus> = loop {
        match child.try_wait().context("wait")? {
            Some(status) => break Some(status),
            None if start.elapsed() > limit => break None,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let why = match status {
        Some(status) if status.success() => String::new(),
        Some(status) => format!(", {status}"),
        None => {
            if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
            }
            child.wait().context("wait")?;
            format!(", killed after {} s", limit.as_secs())
        }
    };
    let text = String::from_utf8_lossy(&std::fs::read(&path).context(path.display())?).into_owned();
    sh::remove(&path)?;
    Ok(Done { success: status.is_some_and(|s| s.success()), why, text, seconds: start.elapsed().as_secs_f64() })
}

/// Reads libtest's result lines; a program that ended without one failed as a whole.
fn read_results(program: &Program, done: &Done) -> Tally {
    let mut tally = Tally::default();
    let number = |line: &str, word: &str| -> usize {
        let before = line.split(word).next().unwrap_or("");
        before.trim_end().rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let results: Vec<&str> = done.text.lines().filter(|l| l.starts_with("test result:")).collect();
    for line in &results {
        tally.passed += number(line, " passed");
        if number(line, " ignored") > 0 {
            tally.failed.push(format!("{}: ignored tests", program.name));
        }
    }
    if done.success && !results.is_empty() {
        println!("ok     {} ({} tests, {:.1} s)", program.name, tally.passed, done.seconds);
        return tally;
    }
    println!("FAILED {} ({:.1} s{})\n{}", program.name, done.seconds, done.why, indented(&done.text));
    let names = done.text.lines().filter_map(|l| l.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let before = tally.failed.len();
    tally.failed.extend(names.map(|n| format!("{}: {n}", program.name)));
    if tally.failed.len() == before {
        tally.failed.push(program.name.clone());
    }
    tally
}

fn indented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.ends_with(" ... ok")).collect();
    let tail = &lines[lines.len().saturating_sub(120)..];
    tail.iter().map(|l| format!("       {l}\n")).collect()
}

/// Ends processes that a failed test left: those whose command line or mounts name its directory.
fn end_leftovers(place: &Path) {
    let place = format!("{}/", place.display());
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for entry in processes.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let names = |file: &str| {
            std::fs::read(entry.path().join(file)).is_ok_and(|b| String::from_utf8_lossy(&b).contains(&place))
        };
        let Some(process) = rustix::process::Pid::from_raw(pid) else { continue };
        if names("cmdline") || names("mountinfo") {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).ok();
        }
    }
}
