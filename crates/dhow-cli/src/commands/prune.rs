//! `container prune`, `image prune`, `system prune`. The builder's are beside `build`.

use super::{build, confirm, images, now, ps, rmi};
use crate::command::Command;
use crate::error::{CliError, complain};
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::filter::{self, CONTAINER_PRUNE_KEYS, Filters, IMAGE_PRUNE_KEYS};
use dhow_docker::units::human_size;
use dhow_engine::{Engine, RemoveOptions};
use dhow_store::Removal;
use std::collections::BTreeSet;

const FORCE: Flag = Flag::switch("force", 'f', "Do not prompt for confirmation");
const FILTER: Flag = Flag::list("filter", '\0', "Provide filter values (e.g. \"until=24h\")");
const ALL: Flag = Flag::switch("all", 'a', "Remove all unused images, not just dangling ones");

pub(crate) static CONTAINERS: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    example: "dhow container prune -f --filter until=24h",
    flags: &[&[FORCE, FILTER]],
    ..Command::new("container prune", &[], |globals, m| {
        prune(globals, m, "all stopped containers", &|engine, m, p| p.containers(engine, m))
    })
};

pub(crate) static IMAGES: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused images",
    example: "dhow image prune -a -f",
    flags: &[&[FORCE, FILTER, ALL]],
    ..Command::new("image prune", &[], |globals, m| {
        let what = match m.on("all") {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        prune(globals, m, what, &|engine, m, p| p.images(engine, m))
    })
};

pub(crate) static SYSTEM: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove stopped containers, unused images and the build cache",
    example: "dhow system prune -f",
    flags: &[&[FORCE, FILTER, ALL, Flag::switch("volumes", '\0', "").missing()]],
    ..Command::new("system prune", &[], |globals, m| {
        let what = match m.on("all") {
            true => "all stopped containers, all images without a container and the build cache",
            false => "all stopped containers, all dangling images and the build cache",
        };
        prune(globals, m, what, &|engine, m, p| {
            p.containers(engine, m)?;
            p.images(engine, m)?;
            // Docker keeps the cache of what a filter does not match; nothing of it has labels here.
            if m.list("filter").next().is_none() {
                p.freed += build::prune_all(engine)?;
            }
            Ok(())
        })
    })
};

/// What was removed.
#[derive(Default)]
struct Pruned {
    text: String,
    freed: u64,
    code: i32,
}

type Work = dyn Fn(&Engine, &Matches, &mut Pruned) -> Result<(), CliError>;

fn prune(globals: &Globals, m: &Matches, what: &str, work: &Work) -> Result<i32, CliError> {
    if !m.on("force") && !confirm(&format!("WARNING! This will remove {what}."))? {
        return Ok(0);
    }
    let mut pruned = Pruned::default();
    work(&globals.engine()?, m, &mut pruned)?;
    out::print(&format!("{}Total reclaimed space: {}\n", pruned.text, human_size(pruned.freed, 4)))?;
    Ok(pruned.code)
}

impl Pruned {
    fn report(&mut self, title: &str, removed: &str) {
        if !removed.is_empty() {
            self.text.push_str(&format!("{title}\n{removed}\n"));
        }
    }

    fn containers(&mut self, engine: &Engine, m: &Matches) -> Result<(), CliError> {
        let filters = Filters::parse(m.list("filter"), CONTAINER_PRUNE_KEYS)?;
        let (all, code) = ps::items(engine, false)?;
        self.code = self.code.max(code);
        let mut removed = String::new();
        for item in filter::containers(&filters, &all, now())?.into_iter().filter(|c| !c.is_running()) {
            let Ok(id) = item.id.parse() else { continue };
            let size = engine.container(&id).map_or(0, |c| engine.container_sizes(&c).0);
            match engine.remove(&id, RemoveOptions { force: false, volumes: false }) {
                Ok(()) => {
                    removed.push_str(&format!("{id}\n"));
                    self.freed += size;
                }
                Err(e) => {
                    complain(&e.into());
                    self.code = 1;
                }
            }
        }
        self.report("Deleted Containers:", &removed);
        Ok(())
    }

    fn images(&mut self, engine: &Engine, m: &Matches) -> Result<(), CliError> {
        let given = Filters::parse(m.list("filter"), IMAGE_PRUNE_KEYS)?;
        let all_unused = m.on("all") || given.get("dangling").iter().any(|d| d == "false");
        let rest = m.list("filter").filter(|f| !f.starts_with("dangling="));
        let filters = Filters::parse(rest, IMAGE_PRUNE_KEYS)?;
        let used: BTreeSet<String> = engine.containers()?.0.iter().map(|c| c.record.image.id.to_string()).collect();
        let items = images::items(engine, false)?;
        let mut removed = String::new();
        for item in filter::images(&filters, &items, now())? {
            let dangling = item.reference.is_none() && item.repository.is_none();
            if used.contains(&item.id) || !(all_unused || dangling) {
                continue;
            }
            let name = item.reference.as_ref().map_or_else(|| item.id.clone(), |r| r.familiar());
            match engine.remove_image(&name, false) {
                Ok(list) => {
                    removed.push_str(&(rmi::lines(&list) + "\n"));
                    let gone = |r: &Removal| matches!(r, Removal::Deleted(d) if d.to_string() == item.id);
                    if list.iter().any(gone) {
                        self.freed += item.size;
                    }
                }
                Err(e) => {
                    complain(&e.into());
                    self.code = 1;
                }
            }
        }
        self.report("Deleted Images:", &removed);
        Ok(())
    }
}
