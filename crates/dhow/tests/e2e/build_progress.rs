//! `build`: how it is shown while it runs.

use crate::{SOON, dhow};
use serde_json::Value;

/// Everything that may leave the program as an escape sequence in the live view.
const OURS: [&str; 8] = ["\x1b[?25l", "\x1b[?25h", "\x1b[K", "\x1b[J", "\x1b[m", "\x1b[34m", "\x1b[31m", "\x1b[2m"];

/// The text without sequences of the view itself: what is left of control characters came from elsewhere.
fn without_ours(text: &str) -> String {
    let mut rest = OURS.iter().fold(text.to_owned(), |text, code| text.replace(code, ""));
    for rows in 1..40 {
        rest = rest.replace(&format!("\x1b[{rows}A"), "");
    }
    rest
}

const HOSTILE: &str =
    "FROM busybox\nRUN printf '\\033]0;title\\007\\033[2J\\033[10;10H\\033[31mred\\n'; sleep 0.3; echo quiet\\ line\n";

#[test]
fn a_terminal_shows_a_live_picture() {
    let d = dhow();
    d.file("ctx/Dockerfile", HOSTILE);
    let mut pty = d.terminal(&["build", "--no-cache", "-t", "x", &d.path("ctx")], 12, 50);
    pty.expect("=> => # red", SOON);
    // A terminal that becomes small while the build runs is no trouble.
    pty.resize(4, 20);
    let (code, text) = pty.finish(SOON);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("[+] Building ") && text.contains("(1/2)"), "{text}");
    assert!(text.contains("Successfully built") && text.contains("Successfully tagged x:latest"), "{text}");
    // The time goes on while a command says nothing.
    assert!(text.matches("\x1b[?25l").count() >= 4, "{text:?}");
    assert_eq!(text.matches("\x1b[?25l").count(), text.matches("\x1b[?25h").count());
    let rest = without_ours(&text);
    assert!(!rest.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r')), "{rest:?}");
}

#[test]
fn a_failure_on_a_terminal_shows_its_output_and_the_line() {
    let d = dhow();
    d.file("ctx/Dockerfile", "FROM busybox\nRUN printf 'why\\033]0;t\\007\\n'; exit 7\n");
    let (code, text) = d.terminal(&["build", &d.path("ctx")], 24, 80).finish(SOON);
    assert_eq!(code, 1, "{text}");
    for word in ["ERROR [2/2] RUN", " > [2/2] RUN", "why", ">>> RUN", "non-zero code: 7"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!without_ours(&text).contains('\x1b'), "{text:?}");
}

#[test]
fn a_killed_build_leaves_the_cursor() {
    let d = dhow();
    d.file("ctx/Dockerfile", "FROM busybox\nRUN echo begun; sleep 100\n");
    let mut pty = d.terminal(&["build", "--no-cache", &d.path("ctx")], 24, 80);
    pty.expect("=> => # begun", SOON);
    pty.send("\x03");
    let (code, text) = pty.finish(SOON);
    assert_ne!(code, 0, "{text}");
    let shown = text.rfind("\x1b[?25h");
    assert!(shown > text.rfind("\x1b[?25l"), "{text:?}");
}

#[test]
fn plain_lines_for_files() {
    let d = dhow();
    d.file(
        "ctx/Dockerfile",
        "FROM busybox AS a\nRUN echo one; printf no-end\nFROM busybox\nCOPY --from=a /bin/true /t\nRUN echo two >&2\n",
    );
    let out = d.run(&["build", "--no-cache", "-t", "x", &d.path("ctx")]);
    assert_eq!(out.code, 0, "{out:?}");
    let lines: Vec<&str> = out.stderr.lines().collect();
    for word in ["#1 [a 1/5] FROM busybox AS a", "#2 [a 2/5] RUN echo one; printf no-end"] {
        assert!(lines.contains(&word), "{word}: {}", out.stderr);
    }
    for (step, end) in [("#2 ", " one"), ("#2 ", " no-end"), ("#2 DONE ", "s"), ("#5 ", " two")] {
        assert!(lines.iter().any(|l| l.starts_with(step) && l.ends_with(end)), "{step}{end}: {}", out.stderr);
    }
    // Once more, from the cache. Results are on standard output.
    let out = d.run(&["build", "--progress=plain", "-t", "x", &d.path("ctx")]);
    assert!(out.stderr.contains("#2 CACHED\n") && out.stderr.contains("#5 CACHED\n"), "{out:?}");
    assert!(out.stdout.contains("Successfully tagged x:latest"), "{out:?}");
    // Nothing on a terminal's terms.
    assert!(!out.stderr.contains('\x1b'), "{out:?}");
}

#[test]
fn status_for_programs() {
    let d = dhow();
    d.file("ctx/Dockerfile", "FROM busybox\nRUN echo hello\n");
    let out = d.run(&["build", "--no-cache", "--progress", "rawjson", &d.path("ctx")]);
    assert_eq!((out.code, out.stdout.as_str()), (0, ""), "{out:?}");
    let lines: Vec<Value> = out.stderr.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let vertexes: Vec<&Value> = lines.iter().filter_map(|l| l["vertexes"].as_array()).flatten().collect();
    let run = vertexes.iter().find(|v| v["name"] == "[2/2] RUN echo hello").unwrap();
    assert!(vertexes.iter().any(|v| v["digest"] == run["digest"] && v["completed"].is_string()), "{}", out.stderr);
    let logs = lines.iter().filter_map(|l| l["logs"].as_array()).flatten();
    let data: Vec<&str> = logs.filter(|l| l["vertex"] == run["digest"]).filter_map(|l| l["data"].as_str()).collect();
    // "hello" and a line end.
    assert_eq!(data, ["aGVsbG8K"]);
}

#[test]
fn quiet_builds_speak_when_they_fail() {
    let d = dhow();
    d.file("ctx/Dockerfile", "FROM busybox\nRUN echo hello\n");
    let quiet = d.run(&["build", "-q", &d.path("ctx")]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""), "{quiet:?}");
    assert!(quiet.stdout.starts_with("sha256:") && quiet.stdout.trim().len() == 71, "{quiet:?}");
    let none = d.run(&["build", "--progress=none", &d.path("ctx")]);
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.as_str()), (0, "", ""));
    d.file("ctx/Dockerfile", "FROM busybox\nRUN echo reason; exit 3\n");
    let failed = d.run(&["build", "-q", &d.path("ctx")]);
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""), "{failed:?}");
    assert!(failed.stderr.contains("reason") && failed.stderr.contains(">>> RUN"), "{failed:?}");
}

#[test]
fn modes_that_do_not_fit() {
    let d = dhow();
    d.file("ctx/Dockerfile", "FROM busybox\n");
    let ctx = d.path("ctx");
    d.fails(&["build", "-q", "--progress=plain", &ctx], 1, &["cannot be used together"]);
    d.fails(&["build", "--progress=tty", &ctx], 1, &["needs a terminal"]);
    d.fails(&["build", "--progress=fancy", &ctx], 125, &["invalid progress mode"]);
    d.fails(&["buildx", "--builder", "other", "build", &ctx], 1, &["no builder", "default"]);
    d.ok(&["buildx", "--builder", "default", "build", "-q", &ctx]);
    d.fails(&["buildx", "bake"], 1, &["'buildx bake' is not supported"]);
    assert!(d.ok(&["buildx", "ls"]).contains("default*"));
    assert!(d.ok(&["buildx", "inspect"]).contains("Name:   default"));
}
