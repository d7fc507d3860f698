//! From the first word to the command.

use crate::command::{self, COMMANDS, Command, GROUPS, NOT_YET};
use crate::commands::build::check_group_flags;
use crate::error::{self, CliError, say};
use crate::flags;
use crate::globals::{FLAGS, Globals};
use crate::{VERSION, build, out};
use dhow_docker::text::suggestion;
use std::ffi::OsString;

/// Runs one command line, program name included, and returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    dhow_sys::signals::default_sigpipe();
    let mut words = Vec::new();
    for arg in args.into_iter().skip(1) {
        match arg.into_string() {
            Ok(text) => words.push(text),
            Err(bytes) => {
                say(&format!("dhow: the argument {bytes:?} is not UTF-8\n"));
                return 125;
            }
        }
    }
    let parsed = match split_globals(words) {
        Ok(parsed) => parsed,
        Err(message) => {
            say(&format!(
                "{message}\n\nUsage:  dhow [OPTIONS] COMMAND [ARG...]\n\nRun 'dhow --help' for more information\n"
            ));
            return 125;
        }
    };
    let (globals, mut rest) = parsed;
    if globals.on("version") {
        return print(&format!("dhow version {VERSION}, build {}\n", build()));
    }
    let asks_help = globals.help;
    let Some(first) = rest.first() else { return print(&overview()) };
    if first == "help" {
        return help_on(&rest[1..]);
    }
    if asks_help {
        return help_on(&rest);
    }
    let first = first.clone();
    if first == "buildx" {
        match check_group_flags(rest.split_off(1)) {
            Ok(mut words) => rest.append(&mut words),
            Err(error) => {
                error::complain(&error);
                return 1;
            }
        }
    }
    match command::find(&rest) {
        Some((command, taken)) => {
            let result = run(command, &globals, rest.into_iter().skip(taken).collect());
            result.unwrap_or_else(|e| error::finish(command, e))
        }
        None if command::is_group(&first) => group(&first, rest.get(1).map(String::as_str)),
        None => unknown(&first),
    }
}

/// Says that a process role could not be taken up, and returns the exit code.
pub fn role_failed(message: &str) -> i32 {
    say(&format!("dhow: {message}\n"));
    1
}

/// Flags before the command are ours; from the command's name on everything is the command's.
fn split_globals(words: Vec<String>) -> Result<(flags::Matches, Vec<String>), String> {
    let mut matches = flags::parse(FLAGS, false, words)?;
    let rest = std::mem::take(&mut matches.args);
    Ok((matches, rest))
}

fn run(command: &Command, globals: &flags::Matches, args: Vec<String>) -> Result<i32, CliError> {
    let matches = flags::parse(command.flags, command.interspersed, args).map_err(CliError::Flag)?;
    if matches.help {
        out::print(&command.help())?;
        return Ok(0);
    }
    command.check_args(matches.args.len())?;
    if command.sealed && !dhow_sys::process::exe_is_sealed().unwrap_or(false) {
        // Returns only if it could not be done.
        let error = dhow_sys::process::reexec_sealed();
        let hint = "dhow must be able to mount a clone of its own file: run it as root, from a local file system";
        return Err(CliError::io("cannot run from a read-only clone of this program")(error).with_hint(hint));
    }
    let globals = Globals { heals: !command.hot, ..Globals::new(globals)? };
    (command.run)(&globals, &matches)
}

fn print(text: &str) -> i32 {
    match out::print(text) {
        Ok(()) => 0,
        Err(error) => {
            error::complain(&error);
            1
        }
    }
}

fn unknown(word: &str) -> i32 {
    if NOT_YET.contains(&word) {
        say(&format!("dhow: '{word}' is not supported yet\n\nRun 'dhow --help' for what is\n"));
        return 1;
    }
    let names = COMMANDS.iter().flat_map(|c| std::iter::once(&c.name).chain(c.aliases)).copied();
    let known = names.filter(|n| !n.contains(' ')).chain(GROUPS.iter().map(|(name, _)| *name));
    let hint = suggestion(word, known).map(|s| format!("\nDid you mean 'dhow {s}'?\n")).unwrap_or_default();
    say(&format!("dhow: '{word}' is not a dhow command.\n{hint}See 'dhow --help'\n"));
    1
}

fn group(name: &str, member: Option<&str>) -> i32 {
    match member.filter(|m| !matches!(*m, "--help" | "-h" | "help")) {
        None => print(&group_help(name)),
        Some(member) if NOT_YET.contains(&format!("{name} {member}").as_str()) => unknown(&format!("{name} {member}")),
        Some(member) => {
            let members = command::members(name);
            let hint = suggestion(member, members.iter().map(|(n, _)| *n));
            let hint = hint.map(|s| format!("\nDid you mean 'dhow {name} {s}'?\n")).unwrap_or_default();
            say(&format!(
                "dhow: unknown command: dhow {name} {member}\n{hint}\nUsage:  dhow {name} COMMAND\n\nRun 'dhow {name} --help' for more information\n"
            ));
            1
        }
    }
}

fn help_on(words: &[String]) -> i32 {
    match (words.first(), command::find(words)) {
        (None, _) => print(&overview()),
        (_, Some((command, _))) => print(&command.help()),
        (Some(word), None) if command::is_group(word) => print(&group_help(word)),
        (Some(word), None) => unknown(word),
    }
}

fn group_help(name: &str) -> String {
    let about = GROUPS.iter().find(|(n, _)| *n == name).map_or("", |(_, about)| about);
    let mut text = format!("Usage:  dhow {name} COMMAND\n\n{about}\n\nCommands:\n");
    let members = command::members(name);
    let width = members.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
    for (member, about) in members {
        text.push_str(&format!("  {member:width$}   {about}\n"));
    }
    text + &format!("\nRun 'dhow {name} COMMAND --help' for more information on a command.\n")
}

fn overview() -> String {
    let mut text = "Usage:  dhow [OPTIONS] COMMAND\n\nA container engine without a daemon\n\nCommands:\n".to_owned();
    let mut top: Vec<_> = COMMANDS.iter().filter(|c| !c.name.contains(' ')).collect();
    top.sort_by_key(|c| c.name);
    for command in top {
        text.push_str(&format!("  {:9}   {}\n", command.name, command.about));
    }
    text.push_str("\nGroups:\n");
    for (name, about) in GROUPS {
        text.push_str(&format!("  {name:9}   {about}\n"));
    }
    text.push_str("\nOptions:\n");
    for flag in FLAGS.iter().flat_map(|t| t.iter()).filter(|f| !f.help.is_empty()) {
        let short = flag.short.map_or("    ".to_owned(), |c| format!("-{c}, "));
        let long = match flag.kind {
            flags::Kind::Switch => flag.long.to_owned(),
            flags::Kind::Value(name) | flags::Kind::List(name) => format!("{} {name}", flag.long),
        };
        text.push_str(&format!("  {short}--{long:14}   {}\n", flag.help));
    }
    text + "\nExample:\n  dhow run --rm -it busybox sh\n\nRun 'dhow COMMAND --help' for more information on a command.\n"
}
