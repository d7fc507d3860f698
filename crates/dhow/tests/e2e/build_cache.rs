//! What builds remember: its bounds, its removal, and builds that run at the same time.

use crate::{SOON, dhow, lines};
use dhow_testkit::process::{finish, kill};
use dhow_testkit::{Census, Dhow};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);

/// A context with this Dockerfile.
fn context(d: &Dhow, name: &str, dockerfile: &str) -> String {
    d.file(&format!("{name}/Dockerfile"), dockerfile);
    d.path(name)
}

fn builds(d: &Dhow, context: &str, options: &[&str]) -> String {
    let out = d.run(&[&["build", "--progress=plain"], options, &[context]].concat());
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    out.stdout + &out.stderr
}

/// How many files are below a directory of the engine's root or runtime root.
fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| 1 + count(&e.path())).sum()
}

fn layers(d: &Dhow) -> BTreeSet<String> {
    let dir = std::fs::read_dir(d.root().join("layers")).unwrap();
    dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Nothing is left but the base image and what images have.
fn nothing_is_left(d: &Dhow, before: &BTreeSet<String>) {
    assert_eq!(&layers(d), before, "layers");
    for name in ["kept", "pins", "leases", "tmp"] {
        assert_eq!(count(&d.root().join(name)), 0, "{name}");
    }
    assert_eq!(count(&d.run_root().join("build/claim")), 0, "claims");
}

#[test]
fn pruning_frees_everything_and_the_next_build_is_right() {
    let d = dhow();
    let before = layers(&d);
    let ctx = context(
        &d,
        "ctx",
        "FROM busybox AS a\nRUN head -c 1000000 /dev/zero > /big\nFROM busybox\nCOPY --from=a /big /copy\n\
         RUN --mount=type=cache,target=/c echo 1 > /c/f && echo done > /done\n",
    );
    builds(&d, &ctx, &["-t", "x"]);
    let du = d.ok(&["buildx", "du"]);
    assert!(du.contains("Total:"), "{du}");
    let verbose = d.ok(&["buildx", "du", "--verbose"]);
    for text in ["RUN head -c 1000000", "COPY --from=a /big /copy", "exec.cachemount", "cache mount /c"] {
        assert!(verbose.contains(text), "{text}: {verbose}");
    }
    // What the image has is shared, and stays unless all is to go.
    d.ok(&["builder", "prune", "-f"]);
    let again = builds(&d, &ctx, &["-t", "x"]);
    assert!(again.contains("CACHED"), "{again}");
    d.ok(&["rmi", "x"]);
    assert!(builds(&d, &ctx, &["-t", "x"]).contains("CACHED"), "a cache outlives its image");
    d.ok(&["rmi", "x"]);
    // The build after the first prune gave another image its name.
    d.ok(&["image", "prune", "-f"]);
    let text = d.ok(&["builder", "prune", "-a", "-f"]);
    assert!(text.contains("Total reclaimed space: 1.0") || text.contains("Total reclaimed space: 2.0"), "{text}");
    nothing_is_left(&d, &before);
    for name in ["steps", "mounts", "files", "explain"] {
        let left = std::fs::read_dir(d.root().join("cache").join(name)).into_iter().flatten().flatten();
        let files: usize = left.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum();
        assert_eq!(files, 0, "{name}");
    }
    assert!(!builds(&d, &ctx, &["-t", "x"]).contains("CACHED"));
    assert_eq!(d.ok(&["run", "--rm", "x", "sh", "-c", "wc -c < /copy; cat /done"]), "1000000\ndone");
}

#[test]
fn a_limit_keeps_what_was_used_last() {
    let d = dhow();
    for name in ["old", "new"] {
        let text = format!("FROM busybox\nRUN head -c 3000000 /dev/urandom > /{name}\n");
        builds(&d, &context(&d, name, &text), &["-t", name]);
        d.ok(&["rmi", name]);
        std::thread::sleep(Duration::from_millis(1100));
    }
    d.ok(&["builder", "prune", "-f", "--max-used-space", "4mb"]);
    let verbose = d.ok(&["buildx", "du", "--verbose"]);
    assert!(verbose.contains("> /new") && !verbose.contains("> /old"), "{verbose}");
    d.ok(&["builder", "prune", "-f", "--reserved-space", "4mb"]);
    assert!(d.ok(&["buildx", "du", "--verbose"]).contains("> /new"));
    d.ok(&["builder", "prune", "-f", "--filter", "description=nosuch"]);
    assert!(d.ok(&["buildx", "du", "--verbose"]).contains("> /new"));
    d.ok(&["builder", "prune", "-f", "--filter", "description=/new"]);
    assert!(!d.ok(&["buildx", "du", "--verbose"]).contains("> /new"));
}

#[test]
fn a_failed_build_keeps_its_first_steps() {
    let d = dhow();
    let text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /uuid\nRUN cat /uuid && exit 3\n";
    let ctx = context(&d, "ctx", text);
    let uuid = || {
        let out = d.run(&["build", "--progress=plain", &ctx]);
        assert_ne!(out.code, 0);
        let all = out.stdout + &out.stderr;
        let line = all.split_whitespace().find(|w| w.len() == 36 && w.matches('-').count() == 4);
        line.unwrap_or_else(|| panic!("{all}")).to_owned()
    };
    assert_eq!(uuid(), uuid());
    d.assert_clean();
}

/// A RUN that adds a line to a cache mount, and then takes its time.
fn counted(name: &str, seconds: &str) -> String {
    format!(
        "RUN --mount=type=cache,id=count,target=/c,sharing=locked echo {name} >> /c/log; sleep {seconds}; echo {name} > /{name}\n"
    )
}

fn log(d: &Dhow) -> Vec<String> {
    let ctx = context(d, "show", "FROM busybox\nRUN --mount=type=cache,id=count,target=/c cat /c/log > /log\n");
    builds(d, &ctx, &["--no-cache", "-t", "show"]);
    lines(&d.ok(&["run", "--rm", "show", "cat", "/log"])).into_iter().map(str::to_owned).collect()
}

#[test]
fn eight_builds_do_the_same_step_once() {
    let d = dhow();
    let text = format!("FROM busybox\n{}{}", counted("one", "0.3"), counted("two", "0.3"));
    let ctx = context(&d, "ctx", &text);
    let children: Vec<Child> = (0..8).map(|_| d.spawn(&["build", "-q", &ctx])).collect();
    let mut ids = BTreeSet::new();
    for child in children {
        let out = finish(child, "build", b"", LONG);
        assert_eq!(out.code, 0, "{}", out.stderr);
        ids.insert(out.stdout);
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(log(&d), ["one", "two"]);
    assert_eq!(count(&d.run_root().join("build/claim")), 0);
    d.assert_clean();
}

#[test]
fn steps_in_opposite_order_do_not_block_each_other() {
    let d = dhow();
    let stages = |first: &str, second: &str| {
        let (one, two) = (counted(first, "0.2"), counted(second, "0.2"));
        format!(
            "FROM busybox AS {first}\n{one}FROM busybox AS mid\nCOPY --from={first} /{first} /m-{first}\nRUN sleep 0.3\n\
             FROM busybox AS {second}\nCOPY --from=mid /m-{first} /tmp/\nRUN rm -rf /tmp/*\n\
             FROM busybox AS again\n{two}FROM busybox\nCOPY --from={first} /{first} /\nCOPY --from=again /{second} /\n\
             COPY --from={second} /etc/passwd /p\n"
        )
    };
    let (ab, ba) = (context(&d, "ab", &stages("aa", "bb")), context(&d, "ba", &stages("bb", "aa")));
    let begun = Instant::now();
    let children: Vec<Child> = [&ab, &ba, &ab, &ba].iter().map(|ctx| d.spawn(&["build", "-q", ctx.as_str()])).collect();
    for child in children {
        let out = finish(child, "build", b"", LONG);
        assert_eq!(out.code, 0, "{}", out.stderr);
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let mut done = log(&d);
    done.sort();
    assert_eq!(done, ["aa", "bb"]);
    d.assert_clean();
}

#[test]
fn a_build_that_waits_goes_on_when_the_other_is_killed_or_fails() {
    let d = dhow();
    let ctx = context(&d, "ctx", &format!("FROM busybox\n{}", counted("one", "2")));
    let mut first = d.spawn(&["build", "-q", &ctx]);
    let claims = d.run_root().join("build/claim");
    let begun = Instant::now();
    while count(&claims) == 0 {
        assert!(begun.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = d.spawn(&["build", "-q", "-t", "x", &ctx]);
    std::thread::sleep(Duration::from_millis(300));
    kill(i32::try_from(first.id()).unwrap(), Signal::KILL);
    first.wait().unwrap();
    let out = finish(second, "build", b"", LONG);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(d.ok(&["run", "--rm", "x", "cat", "/one"]), "one");
    assert_eq!(count(&claims), 0);
    d.ok(&["info"]);
    d.assert_clean();
}

/// Kills a command after some time. Whether it was at work still.
fn cut(d: &Dhow, args: &[&str], after: Duration) {
    let mut child = d.spawn(args);
    std::thread::sleep(after);
    child.kill().ok();
    child.wait().ok();
    d.learn_ids();
}

#[test]
fn killed_builds_and_prunes_leave_nothing() {
    let d = dhow();
    let before = layers(&d);
    let text =
        "FROM busybox AS a\nRUN echo 1 > /1\nRUN echo 2 > /2\nFROM busybox\nCOPY --from=a /1 /2 /\nRUN echo 3 > /3\n";
    let ctx = context(&d, "ctx", text);
    d.ok(&["run", "--rm", "busybox", "true"]);
    let census = Census::take(&d);
    for round in 0..12_u64 {
        cut(&d, &["build", "-q", "-t", "x", &ctx], Duration::from_millis(round * 12));
        builds(&d, &ctx, &["-t", "x"]);
        assert_eq!(d.ok(&["run", "--rm", "x", "cat", "/1", "/2", "/3"]), "1\n2\n3", "{round}");
        d.ok(&["rmi", "x"]);
        cut(&d, &["builder", "prune", "-a", "-f"], Duration::from_millis(round));
        builds(&d, &ctx, &["-t", "x"]);
        assert_eq!(d.ok(&["run", "--rm", "x", "cat", "/1", "/2", "/3"]), "1\n2\n3", "{round}");
        d.ok(&["rmi", "x"]);
        d.ok(&["builder", "prune", "-a", "-f"]);
        nothing_is_left(&d, &before);
        Census::settle(&d, &census, SOON);
    }
}

#[test]
fn pruning_while_builds_run_breaks_none() {
    let d = dhow();
    let text = "FROM busybox AS a\nRUN echo 1 > /1\nRUN --mount=type=cache,target=/c touch /c/x && sleep 0.1 && ls /c/x > /2\n\
                FROM busybox\nCOPY --from=a /1 /2 /\nRUN echo 3 > /3\n";
    let ctx = context(&d, "ctx", text);
    for round in 0..5 {
        let builds: Vec<Child> = (0..3).map(|_| d.spawn(&["build", "-q", "-t", "x", &ctx])).collect();
        let prunes: Vec<Child> = (0..4).map(|_| d.spawn(&["builder", "prune", "-a", "-f"])).collect();
        for child in builds.into_iter().chain(prunes) {
            let out = finish(child, "build or prune", b"", LONG);
            assert_eq!(out.code, 0, "{round}: {}", out.stderr);
        }
        assert_eq!(d.ok(&["run", "--rm", "x", "cat", "/1", "/2", "/3"]), "1\n/c/x\n3");
    }
    d.assert_clean();
}

#[test]
fn locked_caches_in_any_order_and_twice() {
    let d = dhow();
    let mount = |id: &str, target: &str| format!("--mount=type=cache,id={id},sharing=locked,target={target}");
    let (ab, ba) = ([mount("a", "/a"), mount("b", "/b")].join(" "), [mount("b", "/b"), mount("a", "/a")].join(" "));
    let twice = [mount("a", "/a"), mount("a", "/again")].join(" ");
    let text = format!(
        "FROM busybox AS one\nRUN {ab} sleep 0.1; echo 1 >> /a/log; cp /a/log /one\n\
         FROM busybox AS two\nRUN {ba} sleep 0.1; echo 2 >> /a/log; cp /a/log /two\n\
         FROM busybox AS three\nRUN {twice} test -f /again/log -o ! -f /a/log && echo same > /three\n\
         FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\nCOPY --from=three /three /\n"
    );
    builds(&d, &context(&d, "ctx", &text), &["-t", "x"]);
    let logs =
        d.ok(&["run", "--rm", "x", "sh", "-c", "cat /one /two | sort | uniq -c | awk '{print $1 $2}'; cat /three"]);
    // Whoever came second saw the line of the first.
    assert!(logs == "21\n12\nsame" || logs == "11\n22\nsame", "{logs}");
}
