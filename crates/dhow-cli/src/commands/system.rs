//! `system check`: finish or undo what killed processes left, now and thoroughly.

use crate::command::Command;
use crate::error::{CliError, complain};
use crate::flags::Matches;
use crate::globals::Globals;
use crate::out;

pub(crate) static CHECK: Command = Command {
    usage: "",
    about: "Clean up after processes that were killed, and report what is damaged",
    example: "dhow system check",
    ..Command::new("system check", &["system heal"], check)
};

fn check(globals: &Globals, _m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    engine.heal()?;
    let mut code = 0;
    let (containers, broken) = engine.containers()?;
    for error in broken {
        complain(&error.into());
        code = 1;
    }
    for (image, error) in engine.store().damaged_images()? {
        complain(&CliError::failed(
            dhow_types::ErrorKind::Corrupt,
            format!("image {image} is damaged: {}", dhow_types::report(&error)),
        ));
        code = 1;
    }
    out::print(&format!("{} containers, {} images\n", containers.len(), engine.images()?.len()))?;
    Ok(code)
}
