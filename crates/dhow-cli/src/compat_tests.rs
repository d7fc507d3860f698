//! `docs/compat/cli.tsv` lists what Docker's users type. Each row is known here or stands in `docs/compat/missing.txt`,
//! and `docs/compat/docker-cli.md` says so in prose. `UPDATE=1 cargo test -p dhow-cli compat` writes both again.

use crate::command::{self, COMMANDS, Command};
use crate::flags::{Flag, Kind, Support};
use crate::globals;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

struct Row {
    command: String,
    flag: String,
    short: String,
    kind: String,
    default: String,
    meaning: String,
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compat").join(name)
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(docs("cli.tsv")).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#')).skip(1);
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let cell = |i: usize| cells.get(i).copied().unwrap_or_default().to_owned();
            Row { command: cell(0), flag: cell(1), short: cell(2), kind: cell(3), default: cell(4), meaning: cell(5) }
        })
        .collect()
}

/// The command that a row is about; the last resort is an alias that a plugin group has in Docker.
fn find(name: &str) -> Option<&'static Command> {
    let name = name.trim_end_matches(" (buildx)");
    let words: Vec<String> = name.split(' ').map(str::to_owned).collect();
    command::find(&words).filter(|(_, taken)| *taken == words.len()).map(|(c, _)| c)
}

fn flag(command: &Row, table: &[&'static [Flag]]) -> Option<&'static Flag> {
    table.iter().flat_map(|t| t.iter()).find(|f| format!("--{}", f.long) == command.flag)
}

enum State {
    Done,
    NoEffect(&'static str),
    Missing,
}

fn state(row: &Row, source: &str) -> State {
    let known = |yes: bool| if yes { State::Done } else { State::Missing };
    match row.kind.as_str() {
        "env" | "cfg" => {
            let names = row.flag.split([' ', '/']);
            known(names.clone().count() > 0 && row.flag.split([' ', '/']).all(|n| source.contains(&format!("\"{n}\""))))
        }
        "cmd" => known(find(&row.command).is_some() || command::is_group(&row.command)),
        "alias" => {
            let target = find(&row.default).map(|c| c.name);
            known(target.is_some() && find(&row.command).map(|c| c.name) == target)
        }
        _ if row.flag == "--help" => State::Done,
        kind => {
            let table = match row.command.as_str() {
                "docker" => Some(globals::FLAGS),
                group if command::is_group(group) => Some(command::group_flags(group)),
                name => find(name).map(|c| c.flags),
            };
            let Some(flag) = table.and_then(|t| flag(row, t)) else { return State::Missing };
            let short = flag.short.map(|c| format!("-{c}")).unwrap_or_default();
            assert_eq!(short, row.short, "short form of {} {}", row.command, row.flag);
            let switch = flag.kind == Kind::Switch;
            // Docker's own switch for content trust is accepted with and without a value.
            if row.flag != "--disable-content-trust" {
                assert_eq!(switch, kind == "bool", "kind of {} {}", row.command, row.flag);
            }
            match flag.support {
                Support::Done => State::Done,
                Support::NoEffect(why) => State::NoEffect(why),
                Support::Missing(_) | Support::Later => State::Missing,
            }
        }
    }
}

fn source() -> String {
    let mut text = String::new();
    // Credentials in the client's settings are read by the registry crate.
    let mut todo = vec![
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../dhow-registry/src"),
    ];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => todo.push(path),
                false if path.ends_with("compat_tests.rs") => {}
                false => text.push_str(&std::fs::read_to_string(path).unwrap()),
            }
        }
    }
    text
}

fn check_file(name: &str, text: &str) {
    let path = docs(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "docs/compat/{name} is stale: UPDATE=1 cargo test -p dhow-cli compat, then read the difference"
    );
}

#[test]
fn every_row_is_known_or_listed_as_missing() {
    let source = source();
    let mut missing = String::from(
        "# What Docker's users type and dhow does not do yet: rows of cli.tsv (command, flag). Kept by the test `compat`.\n",
    );
    let mut page: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut done, mut all) = (0, 0);
    for row in rows() {
        all += 1;
        let shown = match row.kind.as_str() {
            "alias" => format!("`{}`", row.command),
            "cmd" => format!("`{}`", row.command),
            _ => format!("`{} {}`", row.command, row.flag),
        };
        let (mark, note) = match state(&row, &source) {
            State::Done => {
                done += 1;
                ("yes", row.meaning.clone())
            }
            State::NoEffect(why) => {
                done += 1;
                ("accepted", format!("no effect: {why}"))
            }
            State::Missing => {
                let line = format!("{} {}", row.command, row.flag);
                writeln!(missing, "{}", line.trim_end()).unwrap();
                ("**no**", row.meaning.clone())
            }
        };
        let note = note.replace('|', "\\|");
        page.entry(row.command.split(' ').next().unwrap_or_default().to_owned())
            .or_default()
            .push(format!("| {shown} | {mark} | {note} |"));
    }
    let mut text = format!(
        "# Docker's command line in dhow\n\nMade from `cli.tsv` by the test `compat` of `crates/dhow-cli`; do not edit. {done} of {all} rows are there.\n\
         \"accepted\" means that the flag asks for something that dhow has no need of. What is missing is refused with an error, never ignored.\n"
    );
    for (group, lines) in page {
        write!(text, "\n## {group}\n\n| | there | |\n|---|---|---|\n{}\n", lines.join("\n")).unwrap();
    }
    check_file("missing.txt", &missing);
    check_file("docker-cli.md", &text);
}

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        assert!(!command.about.is_empty() && command.example.contains(command.name), "{}", command.name);
        let mut seen = std::collections::BTreeSet::new();
        for flag in command.flags.iter().flat_map(|t| t.iter()) {
            assert!(seen.insert(flag.long.to_owned()), "{} --{} twice", command.name, flag.long);
            if let Some(short) = flag.short {
                assert!(seen.insert(short.to_string()), "{} -{short} twice", command.name);
            }
            let hidden = flag.alias_of.is_some() || flag.support != Support::Done;
            assert!(hidden || !flag.help.is_empty(), "{} --{} has no help", command.name, flag.long);
        }
    }
}
