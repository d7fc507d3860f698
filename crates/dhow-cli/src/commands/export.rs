//! `export`.

use super::save::{refuse_terminal, to_file};
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    example: "dhow export -o web.tar web",
    flags: &[&[Flag::value("output", 'o', "string", "Write to a file, instead of STDOUT")]],
    args: (1, Some(1)),
    ..Command::new("export", &["container export"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let output = m.given("output").map(PathBuf::from);
    refuse_terminal(output.as_deref())?;
    let engine = globals.engine()?;
    let id = engine.find(m.args.first().map_or("", String::as_str))?;
    match output {
        Some(path) => to_file(&path, |file| Ok(engine.export(&id, file)?))?,
        None => {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned();
            engine.export(&id, &File::from(stdout.map_err(CliError::io("cannot use standard output"))?))?;
        }
    }
    Ok(0)
}
