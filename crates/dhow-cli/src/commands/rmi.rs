//! `rmi`.

use super::each;
use crate::command::Command;
use crate::error::{CliError, complain};
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use dhow_store::Removal;
use dhow_types::{Categorized, ErrorKind};

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    example: "dhow rmi helloworld",
    flags: &[&[
        Flag::switch("force", 'f', "Force removal of the image"),
        Flag::switch("no-prune", '\0', "").no_effect("images have no untagged parents here"),
        Flag::list("platform", '\0', "").missing(),
    ]],
    args: (1, None),
    ..Command::new("rmi", &["image rm", "image remove"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let force = m.on("force");
    each(&m.args, |name| match engine.remove_image(name, force) {
        Ok(removed) => Ok(Some(lines(&removed)).filter(|l| !l.is_empty())),
        Err(e) if force && e.kind() == ErrorKind::NotFound => {
            complain(&e.into());
            Ok(None)
        }
        Err(e) => Err(e.into()),
    })
}

/// `Untagged: …` and `Deleted: …`.
pub(super) fn lines(removed: &[Removal]) -> String {
    let line = |r: &Removal| match r {
        Removal::Untagged(name) => format!("Untagged: {name}"),
        Removal::Deleted(digest) => format!("Deleted: {digest}"),
    };
    removed.iter().map(line).collect::<Vec<_>>().join("\n")
}
