//! `commit`.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_engine::CommitSpec;
use dhow_types::Reference;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Create a new image from a container's changes",
    example: "dhow commit -m 'with test.txt' web ayou/helloworld:v2",
    flags: &[&[
        Flag::value("author", 'a', "string", "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")"),
        Flag::list("change", 'c', "Apply Dockerfile instruction to the created image"),
        Flag::value("message", 'm', "string", "Commit message"),
        Flag::switch("no-pause", '\0', "Do not pause the container during commit"),
        Flag::switch("pause", 'p', "Pause container during commit (default true)"),
    ]],
    args: (1, Some(2)),
    ..Command::new("commit", &["container commit"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let reference = match m.args.get(1).filter(|r| !r.is_empty()) {
        Some(text) => Some(text.parse::<Reference>()?.with_default_tag()),
        None => None,
    };
    let spec = CommitSpec {
        reference,
        author: m.given("author"),
        message: m.given("message"),
        changes: m.list("change").map(str::to_owned).collect(),
        pause: m.switch("pause").unwrap_or(true) && !m.on("no-pause"),
    };
    let engine = globals.engine()?;
    let id = engine.find(m.args.first().map_or("", String::as_str))?;
    out::print(&format!("{}\n", engine.commit(&id, &spec)?))?;
    Ok(0)
}
