//! `ns`: what a container is made of, and going there.

use super::invalid;
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::table::{Format, Listing, Row};
use dhow_types::Categorized;
use std::path::PathBuf;

const FORMAT: Flag =
    Flag::value("format", '\0', "string", "Format output using a custom template: table, json, TEMPLATE");

pub(crate) static ENTER: Command = Command {
    usage: "[OPTIONS] FILE [FILE...] [--] [COMMAND] [ARG...]",
    about: "Run a program in namespaces that are given by their files",
    example: "dhow ns enter /proc/4242/ns/net -- ip address",
    flags: &[&[Flag::value("container", 'c', "string", "Enter every namespace of this container as well")]],
    interspersed: false,
    args: (0, None),
    ..Command::new("ns enter", &[], enter)
};

pub(crate) static LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List the namespaces that containers live in, and who shares them",
    example: "dhow ns ls",
    flags: &[&[FORMAT]],
    ..Command::new("ns ls", &["ns list"], ls)
};

pub(crate) static SHOW: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Show the namespaces of a container beside the host's",
    example: "dhow ns show web",
    flags: &[&[FORMAT]],
    args: (1, Some(1)),
    ..Command::new("ns show", &[], show)
};

/// Files come first; the program begins after `--`, or with the first word that does not look like a file of a namespace.
fn split(args: &[String]) -> (Vec<PathBuf>, Vec<String>) {
    if let Some(at) = args.iter().position(|a| a == "--") {
        let (files, program) = args.split_at(at);
        return (files.iter().map(PathBuf::from).collect(), program.iter().skip(1).cloned().collect());
    }
    let is_file = |a: &&String| a.contains("/ns/") || a.contains("/netns/");
    let files: Vec<PathBuf> = args.iter().take_while(is_file).map(PathBuf::from).collect();
    let program = args.iter().skip(files.len()).cloned().collect();
    (files, program)
}

fn enter(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let (mut files, mut program) = split(&m.args);
    if let Some(name) = m.given("container") {
        let engine = globals.engine()?;
        let container = engine.container(&engine.find(&name)?)?;
        if !container.is_alive() {
            return Err(invalid(format!("container {name} is not running")).with_hint("start it with `dhow start`"));
        }
        let own = dhow_runtime::nsview::host().map_err(ns_error)?;
        let there = dhow_runtime::nsview::of(container.state.pid).map_err(ns_error)?;
        // What it shares with us needs no entering.
        let differ = there.into_iter().filter(|n| !own.contains(n));
        files.extend(differ.map(|n| PathBuf::from(format!("/proc/{}/ns/{}", container.state.pid, n.kind.proc_name()))));
    }
    if files.is_empty() {
        return Err(CliError::Arguments("'dhow ns enter' requires at least 1 namespace file".to_owned()));
    }
    if program.is_empty() {
        program.push(crate::globals::variable("SHELL").unwrap_or_else(|| "/bin/sh".to_owned()));
    }
    let env: Vec<String> = std::env::vars_os()
        .filter_map(|(k, v)| Some(format!("{}={}", k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    dhow_runtime::nsview::enter(&files, &program, &env).map_err(ns_error)
}

fn ns_error(error: dhow_runtime::nsview::NsError) -> CliError {
    CliError::Failed { message: dhow_types::report(&error), hint: error.hint(), kind: error.kind() }
}

fn ls(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let table = globals.engine()?.namespaces()?;
    let row = |r: &dhow_engine::NamespaceRow| {
        let mut members: Vec<String> = r.containers.iter().map(|(_, name, pid)| format!("{name} ({pid})")).collect();
        if r.host {
            members.insert(0, "host".to_owned());
        }
        Row {
            fields: vec![
                ("Kind", r.kind.proc_name().to_owned()),
                ("Namespace", format!("{}:[{}]", r.kind.proc_name(), r.inode)),
                ("Count", r.containers.len().to_string()),
                ("Members", members.join(", ")),
            ],
            labels: Vec::new(),
        }
    };
    print(
        Listing {
            columns: vec!["Namespace", "Count", "Members"],
            headers: &[
                ("Kind", "KIND"),
                ("Namespace", "NAMESPACE"),
                ("Count", "CONTAINERS"),
                ("Members", "WHO LIVES THERE (PID)"),
            ],
            rows: table.rows.iter().map(row).collect(),
            raw: &[("Namespace", "namespace"), ("Members", "members")],
        },
        m,
    )
}

fn show(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let id = engine.find(m.args.first().map_or("", String::as_str))?;
    let row = |n: &dhow_engine::NamespaceUse| {
        let sharing = n.shared_with.iter().map(|(_, name)| name.clone());
        let host = (n.inode == n.host_inode).then(|| "host".to_owned());
        let sharing: Vec<String> = host.into_iter().chain(sharing).collect();
        Row {
            fields: vec![
                ("Kind", n.kind.proc_name().to_owned()),
                ("Container", n.inode.to_string()),
                ("Host", n.host_inode.to_string()),
                (
                    "Shared",
                    if sharing.is_empty() { "own".to_owned() } else { format!("shared with {}", sharing.join(", ")) },
                ),
            ],
            labels: Vec::new(),
        }
    };
    print(
        Listing {
            columns: vec!["Kind", "Container", "Host", "Shared"],
            headers: &[("Kind", "KIND"), ("Container", "CONTAINER"), ("Host", "HOST"), ("Shared", "OWN OR SHARED")],
            rows: engine.container_namespaces(&id)?.iter().map(row).collect(),
            raw: &[("Kind", "kind"), ("Container", "container"), ("Host", "host"), ("Shared", "shared")],
        },
        m,
    )
}

fn print(listing: Listing, m: &Matches) -> Result<i32, CliError> {
    let format = Format::parse(m.text("format").unwrap_or_default())?;
    out::print(&listing.render(&format)?)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_program() {
        let run = |words: &[&str]| {
            let (files, program) = split(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
            (files.len(), program.join(" "))
        };
        assert_eq!(run(&["/proc/1/ns/net", "/bin/bash"]), (1, "/bin/bash".to_owned()));
        assert_eq!(run(&["/proc/1/ns/net", "/proc/1/ns/mnt", "--", "ls", "--", "-l"]), (2, "ls -- -l".to_owned()));
        assert_eq!(run(&["/x", "--", "sh"]), (1, "sh".to_owned()));
        assert_eq!(run(&["/var/run/netns/a", "ip", "a"]), (1, "ip a".to_owned()));
    }
}
