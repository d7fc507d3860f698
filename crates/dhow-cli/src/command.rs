//! What a command is, and the list of all.

use crate::commands;
use crate::error::CliError;
use crate::flags::{Flag, Kind, Matches, Support, Tables};
use crate::globals::Globals;

/// One command.
pub(crate) struct Command {
    /// Canonical words, `run` or `image prune`.
    pub(crate) name: &'static str,
    /// Other spellings, `container run`.
    pub(crate) aliases: &'static [&'static str],
    /// What follows the name in its usage line.
    pub(crate) usage: &'static str,
    /// One sentence.
    pub(crate) about: &'static str,
    /// A line that works as typed.
    pub(crate) example: &'static str,
    /// Flags.
    pub(crate) flags: Tables,
    /// Flags may come after positional arguments.
    pub(crate) interspersed: bool,
    /// Least and most positional arguments.
    pub(crate) args: (usize, Option<usize>),
    /// A failure to run a container, whose errors look and exit differently.
    pub(crate) runs_container: bool,
    /// Launches processes from this one, so it must run from a read-only clone of the program (CVE-2019-5736).
    pub(crate) sealed: bool,
    /// Somebody waits for its first byte: it leaves what killed commands left to a later one.
    pub(crate) hot: bool,
    /// The work.
    pub(crate) run: fn(&Globals, &Matches) -> Result<i32, CliError>,
}

impl Command {
    /// A command with flags anywhere, any number of arguments, and everything else to be filled in.
    pub(crate) const fn new(
        name: &'static str,
        aliases: &'static [&'static str],
        run: fn(&Globals, &Matches) -> Result<i32, CliError>,
    ) -> Self {
        Self {
            name,
            aliases,
            usage: "",
            about: "",
            example: "",
            flags: &[],
            interspersed: true,
            args: (0, Some(0)),
            runs_container: false,
            sealed: false,
            hot: false,
            run,
        }
    }

    pub(crate) fn usage_line(&self) -> String {
        format!("dhow {} {}", self.name, self.usage).trim_end().to_owned()
    }

    /// Checks the number of positional arguments, in Docker's words.
    pub(crate) fn check_args(&self, count: usize) -> Result<(), CliError> {
        let (least, most) = self.args;
        let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
        let name = self.name;
        let message = match most {
            Some(most) if most == least && count != least && least == 0 => {
                format!("'dhow {name}' accepts no arguments")
            }
            Some(most) if most == least && count != least => {
                format!("'dhow {name}' requires {least} {}", plural(least))
            }
            _ if count < least => format!("'dhow {name}' requires at least {least} {}", plural(least)),
            Some(most) if count > most => format!("'dhow {name}' requires at most {most} {}", plural(most)),
            _ => return Ok(()),
        };
        Err(CliError::Arguments(message))
    }

    /// The help text.
    pub(crate) fn help(&self) -> String {
        let mut out = format!("Usage:  {}\n\n{}\n", self.usage_line(), self.about);
        if !self.aliases.is_empty() {
            let names: Vec<String> =
                std::iter::once(&self.name).chain(self.aliases).map(|a| format!("dhow {a}")).collect();
            out.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
        }
        let flags: Vec<&Flag> = self.flags.iter().flat_map(|t| t.iter()).filter(|f| f.is_shown()).collect();
        if !flags.is_empty() {
            out.push_str("\nOptions:\n");
            let mut flags: Vec<(String, &str)> = flags.iter().map(|f| (f.column(), f.help)).collect();
            flags.sort_by(|a, b| a.0.trim_start_matches([' ', '-']).cmp(b.0.trim_start_matches([' ', '-'])));
            flags.sort_by_key(|(column, _)| column.split("--").nth(1).unwrap_or_default().to_owned());
            let width = flags.iter().map(|(column, _)| column.len()).max().unwrap_or(0);
            for (column, help) in flags {
                out.push_str(&format!("  {column:width$}   {help}\n"));
            }
        }
        if !self.example.is_empty() {
            out.push_str(&format!("\nExample:\n  {}\n", self.example));
        }
        out
    }
}

impl Flag {
    /// What has no effect is shown when it has something to say.
    fn is_shown(&self) -> bool {
        let speaks = matches!(self.support, Support::NoEffect(_)) && !self.help.is_empty();
        self.alias_of.is_none() && (self.support == Support::Done || speaks)
    }

    fn column(&self) -> String {
        let short = self.short.map_or("    ".to_owned(), |c| format!("-{c}, "));
        match self.kind {
            Kind::Switch => format!("{short}--{}", self.long),
            Kind::Value(name) | Kind::List(name) => format!("{short}--{} {name}", self.long),
        }
    }
}

/// Every command.
pub(crate) static COMMANDS: &[&Command] = &[
    &commands::run::COMMAND,
    &commands::exec::COMMAND,
    &commands::ps::COMMAND,
    &commands::build::COMMAND,
    &commands::pull::COMMAND,
    &commands::push::COMMAND,
    &commands::images::COMMAND,
    &commands::login::LOGIN,
    &commands::login::LOGOUT,
    &commands::version::COMMAND,
    &commands::info::COMMAND,
    &commands::attach::COMMAND,
    &commands::commit::COMMAND,
    &commands::create::COMMAND,
    &commands::export::COMMAND,
    &commands::history::COMMAND,
    &commands::import::COMMAND,
    &commands::inspect::COMMAND,
    &commands::inspect::CONTAINER,
    &commands::inspect::IMAGE,
    &commands::state::KILL,
    &commands::load::COMMAND,
    &commands::logs::COMMAND,
    &commands::state::PAUSE,
    &commands::port::COMMAND,
    &commands::state::RENAME,
    &commands::state::RESTART,
    &commands::rm::COMMAND,
    &commands::rmi::COMMAND,
    &commands::save::COMMAND,
    &commands::start::COMMAND,
    &commands::state::STOP,
    &commands::tag::COMMAND,
    &commands::top::COMMAND,
    &commands::state::UNPAUSE,
    &commands::state::WAIT,
    &commands::prune::CONTAINERS,
    &commands::prune::IMAGES,
    &commands::build::PRUNE,
    &commands::build::PRUNE_X,
    &commands::build::DU,
    &commands::build::VERSION,
    &commands::build::LS,
    &commands::build::INSPECT,
    &commands::build::USE,
    &commands::prune::SYSTEM,
    &commands::ns::ENTER,
    &commands::ns::LS,
    &commands::ns::SHOW,
    &commands::system::CHECK,
];

/// Groups of commands and what they are about.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("builder", "Build images"),
    ("buildx", "Build images"),
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("ns", "See and enter namespaces"),
    ("system", "Look after the engine"),
];

/// Docker's commands that dhow does not have yet.
pub(crate) const NOT_YET: &[&str] = &[
    "bake",
    "buildx bake",
    "buildx create",
    "buildx history",
    "buildx imagetools",
    "buildx rm",
    "buildx stop",
    "checkpoint",
    "compose",
    "config",
    "context",
    "cp",
    "diff",
    "events",
    "manifest",
    "network",
    "node",
    "plugin",
    "search",
    "secret",
    "service",
    "stack",
    "stats",
    "swarm",
    "trust",
    "update",
    "volume",
];

/// Flags that stand between the name of a group and its command.
#[cfg(test)]
pub(crate) fn group_flags(group: &str) -> Tables {
    if group == "buildx" { commands::build::GROUP_FLAGS } else { &[] }
}

/// The command that these words begin with, and how many words it takes.
pub(crate) fn find(words: &[String]) -> Option<(&'static Command, usize)> {
    let named = |text: &str| COMMANDS.iter().find(|c| c.name == text || c.aliases.contains(&text)).copied();
    let (first, second) = (words.first()?, words.get(1));
    if let Some(second) = second
        && is_group(first)
        && let Some(command) = named(&format!("{first} {second}"))
    {
        return Some((command, 2));
    }
    named(first).map(|c| (c, 1))
}

pub(crate) fn is_group(word: &str) -> bool {
    GROUPS.iter().any(|(name, _)| *name == word)
}

/// The commands of a group: the second word and what it does.
pub(crate) fn members(group: &str) -> Vec<(&'static str, &'static str)> {
    let mut out = Vec::new();
    for command in COMMANDS {
        let names = std::iter::once(&command.name).chain(command.aliases);
        let member = names.filter_map(|n| n.strip_prefix(group)?.strip_prefix(' ')).next();
        if let Some(member) = member {
            out.push((member, command.about));
        }
    }
    out.sort_unstable();
    out
}
