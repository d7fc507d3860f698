//! `rm`.

use super::each;
use crate::command::Command;
use crate::error::{CliError, complain};
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use dhow_engine::{EngineError, RemoveOptions};

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    example: "dhow rm -f web",
    flags: &[&[
        Flag::switch("force", 'f', "Force the removal of a running container (uses SIGKILL)"),
        Flag::switch("link", 'l', "").missing(),
        Flag::switch("volumes", 'v', "Remove anonymous volumes associated with the container"),
    ]],
    args: (1, None),
    ..Command::new("rm", &["container rm", "container remove"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let options = RemoveOptions { force: m.on("force"), volumes: m.on("volumes") };
    each(&m.args, |name| {
        match engine.find(name).and_then(|id| engine.remove(&id, options)) {
            Ok(()) => Ok(Some(name.to_owned())),
            // With -f nothing to remove is no failure, but it is said.
            Err(e @ EngineError::NoSuchContainer(_)) if options.force => {
                complain(&e.into());
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    })
}
