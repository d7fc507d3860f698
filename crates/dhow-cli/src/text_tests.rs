//! What is printed without an engine: help and complaints.

use crate::command;
use crate::flags;

fn help(name: &str) -> String {
    let words: Vec<String> = name.split(' ').map(str::to_owned).collect();
    command::find(&words).map(|(c, _)| c.help()).unwrap_or_default()
}

#[test]
fn help_of_a_small_command() {
    insta::assert_snapshot!(help("rm"), @r"
    Usage:  dhow rm [OPTIONS] CONTAINER [CONTAINER...]

    Remove one or more containers

    Aliases:
      dhow rm, dhow container rm, dhow container remove

    Options:
      -f, --force     Force the removal of a running container (uses SIGKILL)
      -v, --volumes   Remove anonymous volumes associated with the container

    Example:
      dhow rm -f web
    ");
}

#[test]
fn help_of_a_group_member() {
    insta::assert_snapshot!(help("ns enter"), @r"
    Usage:  dhow ns enter [OPTIONS] FILE [FILE...] [--] [COMMAND] [ARG...]

    Run a program in namespaces that are given by their files

    Options:
      -c, --container string   Enter every namespace of this container as well

    Example:
      dhow ns enter /proc/4242/ns/net -- ip address
    ");
}

#[test]
fn both_spellings_are_one_command() {
    for (a, b) in [
        ("ps", "container ls"),
        ("run", "container run"),
        ("images", "image ls"),
        ("rmi", "image rm"),
        ("build", "buildx build"),
        ("build", "builder build"),
        ("info", "system info"),
    ] {
        assert_eq!(help(a), help(b), "{a} {b}");
        assert!(!help(a).is_empty());
    }
}

#[test]
fn numbers_of_arguments() {
    let check = |name: &str, count| {
        let words: Vec<String> = name.split(' ').map(str::to_owned).collect();
        let (command, _) = command::find(&words).unwrap();
        match command.check_args(count) {
            Ok(()) => "ok".to_owned(),
            Err(crate::error::CliError::Arguments(message)) => message,
            Err(other) => format!("{other:?}"),
        }
    };
    assert_eq!(check("run", 0), "'dhow run' requires at least 1 argument");
    assert_eq!(check("tag", 1), "'dhow tag' requires 2 arguments");
    assert_eq!(check("ps", 1), "'dhow ps' accepts no arguments");
    assert_eq!(check("images", 2), "'dhow images' requires at most 1 argument");
    assert_eq!(check("commit", 2), "ok");
}

#[test]
fn run_takes_no_flag_after_the_image() {
    let (command, _) = command::find(&["run".to_owned()]).unwrap();
    let args = ["--rm", "busybox", "ls", "--rm", "-l"].map(str::to_owned).to_vec();
    let m = flags::parse(command.flags, command.interspersed, args).unwrap();
    assert_eq!(m.args, ["busybox", "ls", "--rm", "-l"]);
}
