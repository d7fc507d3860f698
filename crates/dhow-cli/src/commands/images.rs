//! `images`.

use super::{now, print_list};
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::filter::{self, Filters, IMAGE_KEYS};
use dhow_docker::rows::{self, ImageItem, short};
use dhow_engine::{Engine, view};

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    example: "dhow images --filter dangling=true -q",
    flags: &[&[
        Flag::switch("all", 'a', "").no_effect("there are no intermediate images"),
        Flag::switch("digests", '\0', "Show digests"),
        Flag::list("filter", 'f', "Filter output based on conditions provided"),
        Flag::value("format", '\0', "string", "Format output using a custom template: table, json, raw, TEMPLATE"),
        Flag::switch("no-trunc", '\0', "Don't truncate output"),
        Flag::switch("quiet", 'q', "Only show image IDs"),
        Flag::switch("tree", '\0', "").missing(),
    ]],
    args: (0, Some(1)),
    ..Command::new("images", &["image ls", "image list"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let mut texts: Vec<String> = m.list("filter").map(str::to_owned).collect();
    texts.extend(m.args.first().map(|name| format!("reference={name}")));
    let filters = Filters::parse(texts.iter().map(String::as_str), IMAGE_KEYS)?;
    let config = globals.config()?;
    let format =
        m.given("format").or_else(|| config.text("imagesFormat").filter(|_| !m.on("quiet")).map(str::to_owned));
    let engine = globals.engine()?;
    let counted = format.as_deref().is_some_and(|f| f.contains(".Containers"));
    let all = items(&engine, counted)?;
    let shown = filter::images(&filters, &all, now())?;
    if m.on("quiet") && format.is_none() {
        let mut ids: Vec<&str> = Vec::new();
        for image in &shown {
            let hex = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
            let id = if m.on("no-trunc") { image.id.as_str() } else { short(hex) };
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        out::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(0);
    }
    print_list(&rows::images(&shown, m.on("no-trunc"), m.on("digests"), now()), format.as_deref())?;
    Ok(0)
}

/// Every name of every image, newest image first.
pub(super) fn items(engine: &Engine, count_containers: bool) -> Result<Vec<ImageItem>, CliError> {
    let containers = if count_containers { engine.containers()?.0 } else { Vec::new() };
    let images = engine.images()?;
    let users = |image: &dhow_store::ImageRecord| {
        count_containers.then(|| containers.iter().filter(|c| c.record.image.id == image.id).count())
    };
    Ok(images.iter().flat_map(|i| view::image_items(i, users(i))).collect())
}
