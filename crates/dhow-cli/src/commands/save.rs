//! `save`.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_types::ErrorKind;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    example: "dhow save -o helloworld.tar helloworld",
    flags: &[&[
        Flag::value("output", 'o', "string", "Write to a file, instead of STDOUT"),
        Flag::list("platform", '\0', "").missing(),
    ]],
    args: (1, None),
    ..Command::new("save", &["image save"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let output = m.given("output").map(PathBuf::from);
    refuse_terminal(output.as_deref())?;
    let engine = globals.engine()?;
    match output {
        Some(path) => to_file(&path, |file| {
            let mut buffered = BufWriter::with_capacity(256 << 10, file);
            engine.save(&m.args, &mut buffered)?;
            buffered.flush().map_err(CliError::io(format!("cannot write {}", path.display())))
        })?,
        None => {
            let mut buffered = BufWriter::with_capacity(256 << 10, std::io::stdout().lock());
            engine.save(&m.args, &mut buffered)?;
            buffered.flush().map_err(CliError::io("cannot write to standard output"))?;
        }
    }
    Ok(0)
}

/// An archive on a terminal is never meant.
pub(super) fn refuse_terminal(output: Option<&Path>) -> Result<(), CliError> {
    match output {
        None if out::is_terminal() => Err(CliError::failed(
            ErrorKind::Invalid,
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        )),
        _ => Ok(()),
    }
}

/// Writes a file that appears under its name only when it is whole. A name that is no regular file (a pipe, a device) is
/// written to directly.
pub(super) fn to_file(path: &Path, write: impl FnOnce(&File) -> Result<(), CliError>) -> Result<(), CliError> {
    let failed = |e| CliError::io(format!("cannot write {}", path.display()))(e);
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return write(&File::options().write(true).open(path).map_err(failed)?);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = File::create(&temporary).map_err(failed).and_then(|file| write(&file));
    let result = result.and_then(|()| fs::rename(&temporary, path).map_err(failed));
    if result.is_err() {
        // Nothing half-written is left behind.
        let _ = fs::remove_file(&temporary);
    }
    result
}
