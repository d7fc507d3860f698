//! `builder prune`, `buildx prune`, `buildx du`: what builds remember.

use super::super::{confirm, invalid, now, print_list};
use super::grammar::size;
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::filter::Filters;
use dhow_docker::grammar::duration;
use dhow_docker::table::{Listing, Row, align};
use dhow_docker::units::{human_duration, human_size};
use dhow_engine::{CacheEntry, CachePrune, Engine};

const TIMEOUT: Flag = Flag::value("timeout", '\0', "duration", "").no_effect("there is nobody to wait for");
const BUILDER: Flag = Flag::value("builder", '\0', "string", "Accepted when it is \"default\"");
const FILTER: Flag = Flag::list("filter", '\0', "Provide filter values (e.g. \"until=24h\")");
const FORCE: Flag = Flag::switch("force", 'f', "Do not prompt for confirmation");
const VERBOSE: Flag = Flag::switch("verbose", '\0', "Provide a more verbose output");
const ALL: Flag = Flag::switch("all", 'a', "Remove all unused build cache, not just dangling ones");
const RESERVED: Flag =
    Flag::value("reserved-space", '\0', "bytes", "Amount of disk space always allowed to keep for cache");
const MAX_USED: Flag =
    Flag::value("max-used-space", '\0', "bytes", "Maximum amount of disk space allowed to keep for cache");
const MIN_FREE: Flag = Flag::value("min-free-space", '\0', "bytes", "Target amount of free disk space after pruning");

/// Filters of BuildKit.
const KEYS: &[&str] = &[
    "description",
    "id",
    "immutable",
    "inuse",
    "mutable",
    "parent",
    "parents",
    "private",
    "shared",
    "type",
    "unused-for",
    "until",
];

pub(crate) static PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove build cache",
    example: "dhow builder prune -f --filter until=24h",
    flags: &[&[
        FORCE,
        ALL,
        FILTER,
        RESERVED,
        MAX_USED,
        MIN_FREE,
        Flag::value("keep-storage", '\0', "bytes", "Amount of disk space to keep for cache (--reserved-space)"),
    ]],
    ..Command::new("builder prune", &[], run_prune)
};

pub(crate) static PRUNE_X: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove build cache",
    example: "dhow buildx prune -f --filter until=24h",
    flags: &[&[FORCE, ALL, FILTER, RESERVED, MAX_USED, MIN_FREE, VERBOSE, TIMEOUT, BUILDER]],
    ..Command::new("buildx prune", &[], run_prune)
};

pub(crate) static DU: Command = Command {
    usage: "[OPTIONS]",
    about: "Disk usage of what builds remember",
    example: "dhow buildx du --verbose",
    flags: &[&[
        FILTER,
        Flag::value("format", '\0', "string", "Format output (table, json, or a Go template)"),
        VERBOSE,
        TIMEOUT,
        BUILDER,
    ]],
    ..Command::new("buildx du", &[], run_du)
};

fn entries(engine: &Engine) -> Result<Vec<CacheEntry>, CliError> {
    Ok(engine.build_cache()?)
}

fn prune(
    engine: &Engine,
    options: &CachePrune,
    select: Option<&dyn Fn(&CacheEntry) -> bool>,
) -> Result<Vec<CacheEntry>, CliError> {
    Ok(engine.prune_build_cache(options, select.unwrap_or(&|_| true))?)
}

/// Removes everything that builds remember, and returns how many bytes that freed.
pub(crate) fn prune_all(engine: &Engine) -> Result<u64, CliError> {
    let removed = prune(engine, &CachePrune { all: true, ..CachePrune::default() }, None)?;
    Ok(removed.iter().filter(|e| !e.shared).map(|e| e.size).sum())
}

fn run_prune(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    super::options::check_builder(m.text("builder"))?;
    let options = CachePrune {
        all: m.on("all"),
        reserved_space: m.parsed("reserved-space", size)?.flatten().or(m.parsed("keep-storage", size)?.flatten()),
        max_used_space: m.parsed("max-used-space", size)?.flatten(),
        min_free_space: m.parsed("min-free-space", size)?.flatten(),
    };
    let select = Select::parse(m)?;
    let what = if options.all { "all build cache" } else { "all dangling build cache" };
    if !m.on("force") && !confirm(&format!("WARNING! This will remove {what}."))? {
        return Ok(0);
    }
    let chosen = |entry: &CacheEntry| select.takes(entry);
    let removed = prune(&globals.engine()?, &options, (!select.0.is_empty()).then_some(&chosen))?;
    let freed: u64 = removed.iter().filter(|e| !e.shared).map(|e| e.size).sum();
    let mut text = String::new();
    if m.on("verbose") {
        text.push_str(&removed.iter().map(details).collect::<String>());
    } else if !removed.is_empty() {
        let ids: String = removed.iter().map(|e| format!("{}\n", e.id)).collect();
        text.push_str(&format!("Deleted build cache objects:\n{ids}\n"));
    }
    out::print(&format!("{text}Total reclaimed space: {}\n", human_size(freed, 4)))?;
    Ok(0)
}

/// What `--filter` chooses: every key must agree, one value of each is enough.
struct Select(Filters, i64);

impl Select {
    fn parse(m: &Matches) -> Result<Self, CliError> {
        // BuildKit's filters may have no value (`shared`), which is true.
        let spelled: Vec<String> =
            m.list("filter").map(|f| if f.contains('=') { f.to_owned() } else { format!("{f}=true") }).collect();
        let select = Self(Filters::parse(spelled.iter().map(String::as_str), KEYS)?, now().as_second());
        for text in select.0.get("until").iter().chain(select.0.get("unused-for")) {
            duration(text)?;
        }
        for key in ["inuse", "shared", "private", "mutable", "immutable"] {
            if let Some(other) = select.0.get(key).iter().find(|v| truth(v).is_none()) {
                return Err(invalid(format!("invalid filter '{key}={other}': it is true or false")));
            }
        }
        Ok(select)
    }

    fn takes(&self, entry: &CacheEntry) -> bool {
        let any = |key: &str, test: &dyn Fn(&str) -> bool| !self.0.has(key) || self.0.get(key).iter().any(|v| test(v));
        let is = |key: &str, state: bool| any(key, &|v| truth(v) == Some(state));
        let unused = |text: &str| {
            let seconds = duration(text).map_or(i64::MAX, |n| n / 1_000_000_000);
            self.1.saturating_sub(entry.last_used.unwrap_or(entry.created)) >= seconds
        };
        let mutable = entry.kind == dhow_engine::CacheKind::Mount;
        let parent = |v: &str| entry.parents.iter().any(|p| p.starts_with(v));
        any("id", &|v| entry.id.starts_with(v))
            && any("parent", &parent)
            && any("parents", &parent)
            && any("type", &|v| entry.kind.name() == v)
            && any("description", &|v| entry.description.contains(v))
            && any("until", &unused)
            && any("unused-for", &unused)
            && is("inuse", entry.in_use)
            && is("shared", entry.shared)
            && is("private", !entry.shared)
            && is("mutable", mutable)
            && is("immutable", !mutable)
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn run_du(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    super::options::check_builder(m.text("builder"))?;
    let select = Select::parse(m)?;
    let mut all = entries(&globals.engine()?)?;
    all.retain(|e| select.takes(e));
    all.sort_by_key(|e| std::cmp::Reverse(e.last_used.unwrap_or(e.created)));
    if m.on("verbose") {
        out::print(&(all.iter().map(details).collect::<String>() + &totals(&all)))?;
        return Ok(0);
    }
    print_list(&listing(&all), m.text("format"))?;
    if matches!(m.text("format"), None | Some("" | "table")) {
        out::print(&totals(&all))?;
    }
    Ok(0)
}

fn ago(seconds: Option<i64>) -> String {
    seconds.map_or(String::new(), |s| format!("{} ago", human_duration(now().as_second().saturating_sub(s))))
}

fn time(seconds: i64) -> String {
    dhow_types::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |t| t.to_string())
}

fn listing(all: &[CacheEntry]) -> Listing {
    let row = |e: &CacheEntry| Row {
        fields: vec![
            ("ID", e.id.clone()),
            ("Parents", e.parents.join(", ")),
            ("CreatedAt", time(e.created)),
            ("Mutable", (e.kind == dhow_engine::CacheKind::Mount).to_string()),
            ("Reclaimable", (!e.in_use).to_string()),
            ("Shared", e.shared.to_string()),
            ("Size", human_size(e.size, 4)),
            ("Description", e.description.clone()),
            ("UsageCount", e.uses.to_string()),
            ("LastUsedAt", ago(e.last_used)),
            ("Type", e.kind.name().to_owned()),
        ],
        labels: Vec::new(),
    };
    Listing {
        columns: vec!["ID", "Reclaimable", "Size", "LastUsedAt"],
        headers: &[
            ("ID", "ID"),
            ("Parents", "PARENTS"),
            ("CreatedAt", "CREATED AT"),
            ("Mutable", "MUTABLE"),
            ("Reclaimable", "RECLAIMABLE"),
            ("Shared", "SHARED"),
            ("Size", "SIZE"),
            ("Description", "DESCRIPTION"),
            ("UsageCount", "USAGE COUNT"),
            ("LastUsedAt", "LAST ACCESSED"),
            ("Type", "TYPE"),
        ],
        rows: all.iter().map(row).collect(),
        raw: &[("ID", "id"), ("Size", "size"), ("Type", "type"), ("LastUsedAt", "last_used")],
    }
}

fn details(e: &CacheEntry) -> String {
    let mut lines = vec![format!("ID:\t{}", e.id)];
    if !e.parents.is_empty() {
        lines.push(format!("Parents:\t{}", e.parents.join(", ")));
    }
    lines.push(format!("Created at:\t{}", time(e.created)));
    lines.push(format!("Mutable:\t{}", e.kind == dhow_engine::CacheKind::Mount));
    lines.push(format!("Reclaimable:\t{}", !e.in_use));
    lines.push(format!("Shared:\t{}", e.shared));
    lines.push(format!("Size:\t{}", human_size(e.size, 4)));
    lines.push(format!("Description:\t{}", e.description.replace(['\n', '\t'], " ")));
    lines.push(format!("Usage count:\t{}", e.uses));
    if let Some(used) = e.last_used {
        lines.push(format!("Last used:\t{}", ago(Some(used))));
    }
    lines.push(format!("Type:\t{}\n", e.kind.name()));
    align(&lines)
}

fn totals(all: &[CacheEntry]) -> String {
    let sum = |test: &dyn Fn(&CacheEntry) -> bool| all.iter().filter(|e| test(e)).map(|e| e.size).sum::<u64>();
    let mut lines = Vec::new();
    let shared = sum(&|e| e.shared);
    if shared > 0 {
        lines.push(format!("Shared:\t{}", human_size(shared, 4)));
        lines.push(format!("Private:\t{}", human_size(sum(&|e| !e.shared), 4)));
    }
    lines.push(format!("Reclaimable:\t{}", human_size(sum(&|e| !e.in_use && !e.shared), 4)));
    lines.push(format!("Total:\t{}", human_size(sum(&|_| true), 4)));
    align(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;
    use dhow_engine::CacheKind;

    fn entry(id: &str, kind: CacheKind, shared: bool, used: i64) -> CacheEntry {
        CacheEntry {
            id: id.to_owned(),
            parents: vec!["base".to_owned()],
            kind,
            description: "RUN make".to_owned(),
            in_use: false,
            shared,
            size: 1_500_000,
            created: 0,
            last_used: Some(used),
            uses: 2,
        }
    }

    fn select(filters: &[&str]) -> Result<Select, CliError> {
        let args = filters.iter().flat_map(|f| ["--filter".to_owned(), (*f).to_owned()]).collect();
        Select::parse(&parse(PRUNE_X.flags, true, args).unwrap())
    }

    #[test]
    fn filters() {
        let now = now().as_second();
        let one = entry("abc", CacheKind::Mount, false, now - 7200);
        for (filters, takes) in [
            (&[][..], true),
            (&["id=ab"], true),
            (&["id=x", "id=abc"], true),
            (&["id=abc", "type=regular"], false),
            (&["type=exec.cachemount", "mutable"], true),
            (&["shared"], false),
            (&["private", "inuse=false"], true),
            (&["until=1h"], true),
            (&["unused-for=3h"], false),
            (&["description=make", "parent=base"], true),
            (&["immutable"], false),
        ] {
            assert_eq!(select(filters).unwrap().takes(&one), takes, "{filters:?}");
        }
        for bad in ["nosuch=1", "until=never", "shared=maybe"] {
            assert!(select(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn texts() {
        let all = [entry("abc", CacheKind::Step, true, 0), entry("def", CacheKind::Mount, false, 0)];
        insta::assert_snapshot!(totals(&all), @r"
        Shared:        1.5MB
        Private:       1.5MB
        Reclaimable:   1.5MB
        Total:         3MB
        ");
        let mut table = listing(&all);
        table.rows.iter_mut().for_each(|r| r.fields.retain(|f| f.0 != "LastUsedAt"));
        let format = dhow_docker::table::Format::parse("table {{.ID}} {{.Type}} {{.Shared}}").unwrap();
        assert_eq!(table.render(&format).unwrap(), "ID TYPE SHARED\nabc regular true\ndef exec.cachemount false\n");
        let text = details(&all[1]);
        assert!(text.starts_with("ID:            def\nParents:       base\n"), "{text}");
        assert!(text.contains("Type:          exec.cachemount\n"), "{text}");
    }
}
