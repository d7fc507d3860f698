//! `ps`.

use super::{now, print_list};
use crate::command::Command;
use crate::error::{CliError, complain};
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::filter::{self, CONTAINER_KEYS, Filters};
use dhow_docker::rows::{self, ContainerItem, short};
use dhow_engine::{Engine, view};
use dhow_types::Digest;
use std::collections::HashMap;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS]",
    about: "List containers",
    example: "dhow ps -a --filter status=exited --format '{{.Names}}\\t{{.Status}}'",
    flags: &[&[
        Flag::switch("all", 'a', "Show all containers (default shows just running)"),
        Flag::list("filter", 'f', "Filter output based on conditions provided"),
        Flag::value("format", '\0', "string", "Format output using a custom template: table, json, raw, TEMPLATE"),
        Flag::value("last", 'n', "int", "Show n last created containers (includes all states)"),
        Flag::switch("latest", 'l', "Show the latest created container (includes all states)"),
        Flag::switch("no-trunc", '\0', "Don't truncate output"),
        Flag::switch("quiet", 'q', "Only display container IDs"),
        Flag::switch("size", 's', "Display total file sizes"),
    ]],
    ..Command::new("ps", &["container ls", "container list", "container ps"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let filters = Filters::parse(m.list("filter"), CONTAINER_KEYS)?;
    let last: i64 = if m.on("latest") { 1 } else { m.number("last")?.unwrap_or(-1) };
    let config = globals.config()?;
    let format = m.given("format").or_else(|| config.text("psFormat").filter(|_| !m.on("quiet")).map(str::to_owned));
    let wants_size = m.on("size") || format.as_deref().is_some_and(|f| f.contains(".Size"));
    let engine = globals.engine()?;
    let (mut all, code) = items(&engine, filters.has("ancestor"))?;
    let mut kept: Vec<String> = filter::containers(&filters, &all, now())?.iter().map(|c| c.id.clone()).collect();
    if !m.on("all") && last <= 0 && !filters.has("status") && !filters.has("exited") {
        let running = |id: &String| all.iter().any(|c| c.id == *id && c.is_running());
        kept.retain(running);
    }
    if last > 0 {
        kept.truncate(usize::try_from(last).unwrap_or(usize::MAX));
    }
    if wants_size {
        for item in all.iter_mut().filter(|c| kept.contains(&c.id)) {
            let container = item.id.parse().ok().and_then(|id| engine.container(&id).ok());
            item.sizes = container.map(|c| engine.container_sizes(&c));
        }
    }
    let shown: Vec<&ContainerItem> = all.iter().filter(|c| kept.contains(&c.id)).collect();
    if m.on("quiet") && format.is_none() {
        let no_trunc = m.on("no-trunc");
        let ids: String = shown.iter().map(|c| format!("{}\n", if no_trunc { &c.id } else { short(&c.id) })).collect();
        out::print(&ids)?;
        return Ok(code);
    }
    print_list(&rows::ps(&shown, m.on("no-trunc"), m.on("size"), now()), format.as_deref())?;
    Ok(code)
}

/// Every container, newest first; records that cannot be read are complained of and make the exit code 1. `ancestry` asks
/// for what the filter `ancestor` needs: a look at every image.
pub(super) fn items(engine: &Engine, ancestry: bool) -> Result<(Vec<ContainerItem>, i32), CliError> {
    let (containers, broken) = engine.containers()?;
    let code = i32::from(!broken.is_empty());
    broken.into_iter().for_each(|e| complain(&e.into()));
    let ancestors = if ancestry { ancestors(engine) } else { HashMap::new() };
    let mut meaning: HashMap<&str, Option<Digest>> = HashMap::new();
    let mut out = Vec::with_capacity(containers.len());
    for container in &containers {
        let image = &container.record.image;
        let now = meaning.entry(&image.name).or_insert_with(|| engine.image(&image.name).ok().map(|i| i.id));
        let moved = now.is_some_and(|id| id != image.id);
        let names = ancestors.get(&image.id).cloned().unwrap_or_default();
        out.push(view::container_item(container, names, moved));
    }
    Ok((out, code))
}

/// For every image, the names and ids of the images that it is or is built on. An unreadable image has none.
fn ancestors(engine: &Engine) -> HashMap<Digest, Vec<String>> {
    let images = engine.images().unwrap_or_default();
    let mut out = HashMap::new();
    for image in &images {
        let layers = &image.config.rootfs.diff_ids;
        let below = images.iter().filter(|i| layers.starts_with(&i.config.rootfs.diff_ids));
        let names = below.flat_map(|i| {
            std::iter::once(i.id.to_string()).chain(i.references.iter().map(dhow_types::Reference::familiar))
        });
        out.insert(image.id, names.collect());
    }
    out
}
