//! `tag`.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::Matches;
use crate::globals::Globals;
use dhow_types::Reference;

pub(crate) static COMMAND: Command = Command {
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    example: "dhow tag helloworld localhost:5000/helloworld:v2",
    args: (2, Some(2)),
    ..Command::new("tag", &["image tag"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let [source, target] = m.args.as_slice() else { return Ok(1) };
    globals.engine()?.tag(source, &target.parse::<Reference>()?)?;
    Ok(0)
}
