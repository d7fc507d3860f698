//! `load`.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_types::ErrorKind;
use std::fs::File;
use std::io::Read;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    example: "dhow load -i helloworld.tar",
    flags: &[&[
        Flag::value("input", 'i', "string", "Read from tar archive file, instead of STDIN"),
        Flag::list("platform", '\0', "").missing(),
        Flag::switch("quiet", 'q', "").no_effect("nothing but the result is printed"),
    ]],
    ..Command::new("load", &["image load"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let mut input: Box<dyn Read> = match m.given("input") {
        Some(path) => Box::new(File::open(&path).map_err(CliError::io(format!("open {path}")))?),
        None if rustix::termios::isatty(rustix::stdio::stdin()) => {
            return Err(CliError::failed(ErrorKind::Invalid, "requested load from stdin, but stdin is empty"));
        }
        None => Box::new(std::io::stdin().lock()),
    };
    let loaded = globals.engine()?.load(&mut input, &mut |_| {})?;
    let text: String = loaded.iter().map(|image| format!("{image}\n")).collect();
    out::print(&text)?;
    Ok(0)
}
