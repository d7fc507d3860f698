//! `history`.

use super::{now, print_list};
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::rows;
use dhow_engine::view;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    example: "dhow history --no-trunc helloworld",
    flags: &[&[
        Flag::value("format", '\0', "string", "Format output using a custom template: table, json, raw, TEMPLATE"),
        Flag::switch("human", 'H', "Print sizes and dates in human readable format (default true)"),
        Flag::switch("no-trunc", '\0', "Don't truncate output"),
        Flag::value("platform", '\0', "string", "").missing(),
        Flag::switch("quiet", 'q', "Only show image IDs"),
    ]],
    args: (1, Some(1)),
    ..Command::new("history", &["image history"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let image = engine.image(m.args.first().map_or("", String::as_str))?;
    let items = view::history_items(&engine, &image);
    let human = m.switch("human").unwrap_or(true);
    let listing = rows::history(&items, m.on("no-trunc"), human, now());
    if m.on("quiet") && m.given("format").is_none() {
        let ids: String = listing.rows.iter().map(|r| format!("{}\n", r.get("ID"))).collect();
        out::print(&ids)?;
        return Ok(0);
    }
    print_list(&listing, m.text("format"))?;
    Ok(0)
}
