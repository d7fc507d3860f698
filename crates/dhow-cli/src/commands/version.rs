//! `version`.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::{VERSION, build, out};
use dhow_docker::template::Template;
use serde_json::json;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS]",
    about: "Show the version information",
    example: "dhow version --format '{{.Client.Version}}'",
    flags: &[&[Flag::value("format", 'f', "string", "Format output using a custom template: json, TEMPLATE")]],
    ..Command::new("version", &[], run)
};

fn run(_globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let arch = dhow_types::Platform::host().architecture;
    let half = json!({"Version": VERSION, "GitCommit": build(), "Os": "linux", "Arch": arch});
    // There is no server: client and engine are one program.
    let data = json!({"Client": half, "Server": half});
    match m.given("format").as_deref() {
        Some("json") => out::print(&format!("{data}\n"))?,
        Some(text) => out::print(&(Template::parse(text)?.render(&data, &[])? + "\n"))?,
        None => out::print(&format!(
            "dhow (client and engine are one program):\n Version:    {VERSION}\n Git commit: {}\n OS/Arch:    linux/{arch}\n",
            build()
        ))?,
    }
    Ok(0)
}
