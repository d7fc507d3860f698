//! What people see: exit code, standard output and standard error of the program, as snapshots.
//!
//! One fixture ([`Cli`]) and one list of what varies ([`FILTERS`]). Tests that start containers need root and are named
//! `root_`; the others touch nothing.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// What starts it, which characters it has, how many at least, and what is shown instead.
type Filter = (&'static str, fn(char) -> bool, usize, &'static str);

/// What differs from run to run, in the order in which it is replaced.
const FILTERS: [Filter; 3] = [
    ("", is_hex, 64, "<ID>"),
    ("", is_hex, 12, "<SHORT>"),
    ("dhow version ", |c| c != '\n', 1, "dhow version <VERSION>"),
];

fn is_hex(c: char) -> bool {
    c.is_ascii_digit() || ('a'..='f').contains(&c)
}

fn filtered(text: &str) -> String {
    let mut text = text.to_owned();
    for (prefix, member, least, replacement) in FILTERS {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(prefix).filter(|_| !rest.is_empty()) {
            let (before, found) = rest.split_at(at);
            let run: String = found[prefix.len()..].chars().take_while(|c| member(*c)).collect();
            out.push_str(before);
            if run.chars().count() >= least {
                out.push_str(replacement);
                rest = &found[prefix.len() + run.len()..];
            } else {
                let step = (prefix.len() + run.len()).max(found.chars().next().map_or(0, char::len_utf8));
                out.push_str(&found[..step]);
                rest = &found[step..];
            }
        }
        out.push_str(rest);
        text = out;
    }
    text
}

fn shown(code: i32, stdout: &str, stderr: &str) -> String {
    let mut text = format!("exit: {code}\n");
    for (name, part) in [("stdout", stdout), ("stderr", stderr)] {
        if !part.is_empty() {
            write!(text, "---- {name}\n{}", filtered(part)).unwrap();
        }
    }
    text
}

/// Runs the program on roots that are never made: nothing here may need them.
fn cli(args: &[&str]) -> String {
    let nowhere = Path::new("/nonexistent");
    let out = Command::new(env!("CARGO_BIN_EXE_dhow"))
        .args(args)
        .env_clear()
        .env("DHOW_ROOT", nowhere)
        .env("DHOW_RUN", nowhere)
        .env("DOCKER_CONFIG", nowhere)
        .output()
        .unwrap();
    shown(out.status.code().unwrap_or(-1), &String::from_utf8_lossy(&out.stdout), &String::from_utf8_lossy(&out.stderr))
}

#[test]
fn version_and_unknown_words() {
    insta::assert_snapshot!(cli(&["--version"]), @r"
    exit: 0
    ---- stdout
    dhow version <VERSION>
    ");
    insta::assert_snapshot!(cli(&["rnu"]), @r"
    exit: 1
    ---- stderr
    dhow: 'rnu' is not a dhow command.

    Did you mean 'dhow run'?
    See 'dhow --help'
    ");
    insta::assert_snapshot!(cli(&["network", "ls"]), @r"
    exit: 1
    ---- stderr
    dhow: 'network' is not supported yet

    Run 'dhow --help' for what is
    ");
    insta::assert_snapshot!(cli(&["image", "lss"]), @r"
    exit: 1
    ---- stderr
    dhow: unknown command: dhow image lss

    Did you mean 'dhow image ls'?

    Usage:  dhow image COMMAND

    Run 'dhow image --help' for more information
    ");
}

#[test]
fn wrong_flags_and_arguments() {
    insta::assert_snapshot!(cli(&["ps", "--al"]), @r"
    exit: 125
    ---- stderr
    unknown flag: --al; did you mean --all?

    Usage:  dhow ps [OPTIONS]

    Run 'dhow ps --help' for more information
    ");
    insta::assert_snapshot!(cli(&["run", "--gpus", "all", "busybox"]), @r"
    exit: 125
    ---- stderr
    --gpus is not supported yet

    Usage:  dhow run [OPTIONS] IMAGE [COMMAND] [ARG...]

    Run 'dhow run --help' for more information
    ");
    insta::assert_snapshot!(cli(&["run", "-p", "80:x", "busybox"]), @r#"
    exit: 125
    ---- stderr
    invalid argument "80:x" for "-p, --publish" flag: invalid containerPort: x

    Usage:  dhow run [OPTIONS] IMAGE [COMMAND] [ARG...]

    Run 'dhow run --help' for more information
    "#);
    insta::assert_snapshot!(cli(&["run"]), @r"
    exit: 1
    ---- stderr
    dhow: 'dhow run' requires at least 1 argument

    Usage:  dhow run [OPTIONS] IMAGE [COMMAND] [ARG...]

    Run 'dhow run --help' for more information
    ");
    insta::assert_snapshot!(cli(&["stop"]), @r"
    exit: 1
    ---- stderr
    dhow: 'dhow stop' requires at least 1 argument

    Usage:  dhow stop [OPTIONS] CONTAINER [CONTAINER...]

    Run 'dhow stop --help' for more information
    ");
}

#[test]
fn there_is_no_daemon_to_talk_to() {
    insta::assert_snapshot!(cli(&["-H", "tcp://prod:2375", "ps"]), @r#"
    exit: 1
    ---- stderr
    Error: -H asks for the daemon at "tcp://prod:2375", but dhow works here and talks to no daemon
    Hint: leave -H out to work on this machine
    "#);
    assert!(cli(&["-H", "unix:///var/run/docker.sock", "ps", "--help"]).starts_with("exit: 0"));
}

#[test]
fn bad_templates_have_a_code_of_their_own() {
    insta::assert_snapshot!(cli(&["inspect", "--format", "{{.X", "a"]), @r"
    exit: 64
    ---- stderr
    template parsing error: template: 1:5: unclosed action
    ");
}

#[test]
fn every_help_has_an_example() {
    for args in [&["run", "--help"][..], &["help", "ns", "enter"], &["container", "ls", "--help"]] {
        let text = cli(args);
        assert!(text.starts_with("exit: 0") && text.contains("Example:"), "{text}");
    }
    insta::assert_snapshot!(cli(&["ns"]), @r"
    exit: 0
    ---- stdout
    Usage:  dhow ns COMMAND

    See and enter namespaces

    Commands:
      enter   Run a program in namespaces that are given by their files
      ls      List the namespaces that containers live in, and who shares them
      show    Show the namespaces of a container beside the host's

    Run 'dhow ns COMMAND --help' for more information on a command.
    ");
}

mod engine {
    use super::shown;
    use dhow_testkit::Dhow;

    fn dhow() -> Dhow {
        Dhow::with_busybox(Some(env!("CARGO_BIN_EXE_dhow")))
    }

    fn run(d: &Dhow, args: &[&str]) -> String {
        let out = d.run(args);
        shown(out.code, &out.stdout, &out.stderr)
    }

    #[test]
    fn root_lists() {
        let d = dhow();
        d.ok(&["create", "--name", "web", "--label", "tier=db", "-p", "80", "busybox", "sh", "-c", "echo \"a b\""]);
        insta::assert_snapshot!(run(&d, &["ps"]), @r"
        exit: 0
        ---- stdout
        CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES
        ");
        insta::assert_snapshot!(run(&d, &["ps", "-aq"]), @r"
        exit: 0
        ---- stdout
        <SHORT>
        ");
        insta::assert_snapshot!(
            run(&d, &["ps", "-a", "--format", "table {{.Names}}\\t{{.Status}}\\t{{.Label \"tier\"}}\\t{{.Command}}"]), @r#"
        exit: 0
        ---- stdout
        NAMES     STATUS    tier      COMMAND
        web       Created   db        "sh -c echo \"a b\""
        "#
        );
        insta::assert_snapshot!(run(&d, &["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]), @r"
        exit: 0
        ---- stdout
        busybox:latest <SHORT>
        ");
        insta::assert_snapshot!(run(&d, &["images", "-q", "nothing"]), @r"
        exit: 0
        ");
        insta::assert_snapshot!(run(&d, &["ps", "--filter", "colour=red"]), @r"
        exit: 1
        ---- stderr
        Error: invalid filter 'colour'
        ");
    }

    #[test]
    fn root_objects_that_are_missing() {
        let d = dhow();
        insta::assert_snapshot!(run(&d, &["inspect", "nobody"]), @r"
        exit: 1
        ---- stdout
        []
        ---- stderr
        Error: No such object: nobody
        ");
        insta::assert_snapshot!(run(&d, &["inspect", "--format", "{{.Id}}", "nobody"]), @r"
        exit: 1
        ---- stdout

        ---- stderr
        Error: No such object: nobody
        ");
        insta::assert_snapshot!(run(&d, &["rm", "-f", "nobody"]), @r"
        exit: 0
        ---- stderr
        Error: No such container: nobody
        ");
        insta::assert_snapshot!(run(&d, &["rm", "nobody"]), @r"
        exit: 1
        ---- stderr
        Error: No such container: nobody
        ");
        insta::assert_snapshot!(run(&d, &["logs", "nobody"]), @r"
        exit: 1
        ---- stderr
        Error: No such container: nobody
        ");
        insta::assert_snapshot!(run(&d, &["run", "--pull", "never", "nothing"]), @r"
        exit: 125
        ---- stderr
        dhow: No such image: nothing

        Run 'dhow run --help' for more information
        ");
        insta::assert_snapshot!(run(&d, &["exec", "nobody", "true"]), @r"
        exit: 1
        ---- stderr
        Error: No such container: nobody
        ");
    }

    #[test]
    fn root_run_fails_as_docker_does() {
        let d = dhow();
        insta::assert_snapshot!(run(&d, &["run", "--rm", "busybox", "nothing"]), @r#"
        exit: 127
        ---- stderr
        dhow: exec: "nothing": executable file not found in $PATH

        Run 'dhow run --help' for more information
        "#);
        insta::assert_snapshot!(run(&d, &["run", "--rm", "busybox", "/etc"]), @r#"
        exit: 126
        ---- stderr
        dhow: exec: "/etc": is a directory

        Run 'dhow run --help' for more information
        "#);
        insta::assert_snapshot!(run(&d, &["run", "-it", "--rm", "busybox"]), @r"
        exit: 1
        ---- stderr
        the input device is not a TTY
        Hint: leave out -t to give input from a pipe or file
        ");
        insta::assert_snapshot!(run(&d, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]), @r"
        exit: 3
        ---- stdout
        out
        ---- stderr
        err
        ");
    }

    #[test]
    fn root_the_id_file() {
        let d = dhow();
        let path = d.path("id");
        let id = d.ok(&["create", "--cidfile", &path, "busybox"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), id);
        d.fails(&["run", "--cidfile", &path, "busybox"], 125, &["container ID file found"]);
        let other = d.path("other");
        d.fails(&["create", "--cidfile", &other, "no/such/image:1"], 125, &[]);
        assert!(!std::path::Path::new(&other).exists());
    }

    #[test]
    fn root_terminal_escapes_in_labels_stay_harmless() {
        let d = dhow();
        d.ok(&["create", "--name", "evil", "--label", "x=\x1b]0;owned\x07", "busybox"]);
        let mut terminal = d.terminal(&["ps", "-a", "--format", "{{.Labels}}"], 24, 80);
        terminal.expect("\\u{1b}]0;owned\\u{7}", std::time::Duration::from_secs(10));
        assert_eq!(d.ok(&["ps", "-a", "--format", "{{.Labels}}"]), "x=\x1b]0;owned\x07");
    }
}
