//! `pull`.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::{Globals, variable};
use crate::out;
use crate::progress::{Target, pull_image};
use dhow_types::{ErrorKind, Platform, PlatformError, Reference};

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    example: "dhow pull localhost:5000/python:2.7-slim",
    flags: &[&[
        Flag::switch("all-tags", 'a', "Download all tagged images in the repository"),
        Flag::value("platform", '\0', "string", "Set platform if the image is for several"),
        Flag::switch("quiet", 'q', "Suppress verbose output"),
        Flag::value("disable-content-trust", '\0', "bool", "").no_effect("there is no content trust"),
    ]],
    args: (1, Some(1)),
    ..Command::new("pull", &["image pull"], run)
};

/// A platform as typed.
pub(super) fn platform(text: &str) -> Result<Platform, CliError> {
    text.parse().map_err(|e: PlatformError| CliError::failed(ErrorKind::Invalid, e.to_string()))
}

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let typed = m.args.first().map_or("", String::as_str);
    let reference: Reference = typed.parse()?;
    let wanted = m.given("platform").or_else(|| variable("DOCKER_DEFAULT_PLATFORM"));
    let wanted = wanted.as_deref().map(platform).transpose()?;
    let quiet = m.on("quiet");
    let target = if quiet { Target::Nowhere } else { Target::Stdout };
    let engine = globals.engine()?;
    if m.on("all-tags") {
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(super::invalid("tag can't be used with --all-tags/-a"));
        }
        for tag in engine.registry().tags(&reference)? {
            pull_image(&engine, &reference.with_tag(&tag)?, wanted.as_ref(), target)?;
        }
        out::print(&format!("{reference}\n"))?;
        return Ok(0);
    }
    if reference.tag().is_none() && reference.digest().is_none() && !quiet {
        out::print("Using default tag: latest\n")?;
    }
    let reference = reference.with_default_tag();
    pull_image(&engine, &reference, wanted.as_ref(), target)?;
    out::print(&format!("{reference}\n"))?;
    Ok(0)
}
