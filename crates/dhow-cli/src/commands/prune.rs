//! `container prune`, `image prune`.

use super::{confirm, images, now, ps, rmi};
use crate::command::Command;
use crate::error::{CliError, complain};
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::filter::{self, CONTAINER_PRUNE_KEYS, Filters, IMAGE_PRUNE_KEYS};
use dhow_docker::units::human_size;
use dhow_engine::RemoveOptions;
use std::collections::BTreeSet;

const FORCE: Flag = Flag::switch("force", 'f', "Do not prompt for confirmation");
const FILTER: Flag = Flag::list("filter", '\0', "Provide filter values (e.g. \"until=24h\")");

pub(crate) static CONTAINERS: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    example: "dhow container prune -f --filter until=24h",
    flags: &[&[FORCE, FILTER]],
    ..Command::new("container prune", &[], containers)
};

pub(crate) static IMAGES: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused images",
    example: "dhow image prune -a -f",
    flags: &[&[FORCE, FILTER, Flag::switch("all", 'a', "Remove all unused images, not just dangling ones")]],
    ..Command::new("image prune", &[], images)
};

fn containers(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let filters = Filters::parse(m.list("filter"), CONTAINER_PRUNE_KEYS)?;
    if !m.on("force") && !confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let engine = globals.engine()?;
    let (all, mut code) = ps::items(&engine)?;
    let (mut removed, mut freed) = (String::new(), 0);
    for item in filter::containers(&filters, &all, now())?.into_iter().filter(|c| !c.is_running()) {
        let Ok(id) = item.id.parse() else { continue };
        let size = engine.container(&id).map_or(0, |c| engine.container_sizes(&c).0);
        match engine.remove(&id, RemoveOptions { force: false, volumes: false }) {
            Ok(()) => {
                removed.push_str(&format!("{id}\n"));
                freed += size;
            }
            Err(e) => {
                complain(&e.into());
                code = 1;
            }
        }
    }
    if !removed.is_empty() {
        out::print(&format!("Deleted Containers:\n{removed}\n"))?;
    }
    out::print(&format!("Total reclaimed space: {}\n", human_size(freed, 4)))?;
    Ok(code)
}

fn images(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let filters = Filters::parse(m.list("filter"), IMAGE_PRUNE_KEYS)?;
    let all_unused = m.on("all") || filters.get("dangling").iter().any(|d| d == "false");
    let what = if all_unused { "images without at least one container associated to them" } else { "dangling images" };
    if !m.on("force") && !confirm(&format!("WARNING! This will remove all {what}."))? {
        return Ok(0);
    }
    let engine = globals.engine()?;
    let used: BTreeSet<String> = engine.containers()?.0.iter().map(|c| c.record.image.id.to_string()).collect();
    let texts: Vec<String> = m.list("filter").filter(|f| !f.starts_with("dangling=")).map(str::to_owned).collect();
    let filters = Filters::parse(texts.iter().map(String::as_str), IMAGE_PRUNE_KEYS)?;
    let items = images::items(&engine, false)?;
    let (mut code, mut removed, mut freed) = (0, String::new(), 0);
    let mut done = BTreeSet::new();
    for item in filter::images(&filters, &items, now())? {
        let dangling = item.reference.is_none() && item.repository.is_none();
        if used.contains(&item.id) || !(all_unused || dangling) {
            continue;
        }
        let name = item.reference.as_ref().map_or_else(|| item.id.clone(), |r| r.familiar());
        match engine.remove_image(&name, false) {
            Ok(list) => {
                removed.push_str(&(rmi::lines(&list) + "\n"));
                if list.iter().any(|r| matches!(r, dhow_store::Removal::Deleted(_))) && done.insert(item.id.clone()) {
                    freed += item.size;
                }
            }
            Err(e) => {
                complain(&e.into());
                code = 1;
            }
        }
    }
    if !removed.is_empty() {
        out::print(&format!("Deleted Images:\n{removed}\n"))?;
    }
    out::print(&format!("Total reclaimed space: {}\n", human_size(freed, 4)))?;
    Ok(code)
}
