//! `buildx version`, `ls`, `inspect`, `use`: what people and scripts ask of the only builder there is.

use super::options::check_builder;
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{self, Flag, Matches, Tables};
use crate::globals::Globals;
use crate::{VERSION as NUMBER, build, out};
use dhow_docker::table::{Listing, Row};
use dhow_types::Platform;

/// Flags between `buildx` and its command.
pub(crate) const GROUP_FLAGS: Tables = &[&[
    Flag::value("builder", '\0', "string", "Accepted when it is \"default\""),
    Flag::switch("debug", 'D', "").no_effect("there is no daemon whose traffic could be shown"),
]];

const TIMEOUT: Flag = Flag::value("timeout", '\0', "duration", "").no_effect("there is nobody to wait for");
const BUILDER: Flag = Flag::value("builder", '\0', "string", "Accepted when it is \"default\"");

pub(crate) static VERSION: Command = Command {
    about: "Show version information of the builder",
    example: "dhow buildx version",
    ..Command::new("buildx version", &[], |_, _| {
        out::print(&format!("dhow {NUMBER} {}\n", build()))?;
        Ok(0)
    })
};

pub(crate) static LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List builders: there is one, without a daemon",
    example: "dhow buildx ls",
    flags: &[&[
        Flag::value("format", '\0', "string", "Format output (table, json, or a Go template)"),
        Flag::switch("no-trunc", '\0', "").no_effect("nothing is shortened"),
        TIMEOUT,
        BUILDER,
    ]],
    ..Command::new("buildx ls", &[], ls)
};

pub(crate) static INSPECT: Command = Command {
    usage: "[OPTIONS] [NAME]",
    about: "Inspect a builder",
    example: "dhow buildx inspect",
    flags: &[&[Flag::switch("bootstrap", '\0', "").no_effect("nothing has to be started"), TIMEOUT, BUILDER]],
    args: (0, Some(1)),
    ..Command::new("buildx inspect", &[], inspect)
};

pub(crate) static USE: Command = Command {
    usage: "[OPTIONS] NAME",
    about: "Choose a builder: accepted when it is \"default\"",
    example: "dhow buildx use default",
    flags: &[&[
        Flag::switch("default", '\0', "").no_effect("there is one builder"),
        Flag::switch("global", '\0', "").no_effect("there is one builder"),
        BUILDER,
    ]],
    args: (1, Some(1)),
    ..Command::new("buildx use", &[], |_, m| {
        check_builder(m.args.first().map(String::as_str))?;
        Ok(0)
    })
};

/// Takes the flags between `buildx` and its command out of the words.
pub(crate) fn check_group_flags(words: Vec<String>) -> Result<Vec<String>, CliError> {
    let mut matches = flags::parse(GROUP_FLAGS, false, words).map_err(CliError::Flag)?;
    if matches.help {
        return Ok(vec!["--help".to_owned()]);
    }
    if matches.text("builder").is_some() {
        check_builder(matches.text("builder"))?;
    }
    Ok(std::mem::take(&mut matches.args))
}

fn ls(_: &Globals, m: &Matches) -> Result<i32, CliError> {
    check_builder(m.text("builder"))?;
    let row = |name: &str, driver: &str| Row {
        fields: vec![
            ("Name", name.to_owned()),
            ("DriverEndpoint", driver.to_owned()),
            ("Status", "running".to_owned()),
            ("Buildkit", format!("dhow {NUMBER}")),
            ("Platforms", Platform::host().to_string()),
        ],
        labels: Vec::new(),
    };
    let listing = Listing {
        columns: vec!["Name", "DriverEndpoint", "Status", "Buildkit", "Platforms"],
        headers: &[
            ("Name", "NAME/NODE"),
            ("DriverEndpoint", "DRIVER/ENDPOINT"),
            ("Status", "STATUS"),
            ("Buildkit", "BUILDKIT"),
            ("Platforms", "PLATFORMS"),
        ],
        rows: vec![row("default*", "dhow")],
        raw: &[("Name", "name")],
    };
    super::super::print_list(&listing, m.text("format"))?;
    Ok(0)
}

fn inspect(_: &Globals, m: &Matches) -> Result<i32, CliError> {
    check_builder(m.args.first().map(String::as_str).or_else(|| m.text("builder")))?;
    out::print(&format!(
        "Name:   default\nDriver: dhow\n\nNodes:\nName:             default\nEndpoint:         default\nStatus:           running\n\
         BuildKit version: dhow {NUMBER}\nPlatforms:        {}\n",
        Platform::host()
    ))?;
    Ok(0)
}
