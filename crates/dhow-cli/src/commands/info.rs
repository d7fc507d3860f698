//! `info`: the engine's counts, and what the host can do.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::{VERSION, out};
use dhow_docker::template::Template;
use dhow_engine::Info;
use serde_json::{Value, json};

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS]",
    about: "Display system-wide information",
    example: "dhow info --format '{{.CgroupVersion}}'",
    flags: &[&[Flag::value("format", 'f', "string", "Format output using a custom template: json, TEMPLATE")]],
    ..Command::new("info", &["system info"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let info = engine.info()?;
    match m.given("format").as_deref() {
        Some("json") => out::print(&format!("{}\n", document(globals, &info)))?,
        Some(text) => out::print(&(Template::parse(text)?.render(&document(globals, &info), &[])? + "\n"))?,
        None => out::print(&text(globals, &info))?,
    }
    Ok(0)
}

/// The keys of Docker's document that have a meaning here, and dhow's own.
fn document(globals: &Globals, info: &Info) -> Value {
    let host = &info.host;
    let storage = dhow_runtime::probe::storage(&globals.root).ok();
    json!({
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": storage.map(|s| vec![("Backing Filesystem".to_owned(), s.kind)]),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": host.cgroup_mode.version(),
        "KernelVersion": host.kernel.release,
        "OperatingSystem": host.kernel.system,
        "OSType": "linux",
        "Architecture": host.kernel.machine,
        "NCPU": host.machine.cpus,
        "MemTotal": host.machine.memory,
        "Name": host.kernel.node,
        "DockerRootDir": globals.root,
        "RunRoot": globals.run_root,
        "ServerVersion": VERSION,
        "SecurityOptions": host.security.modules,
        "Features": host.features.iter().map(|f| json!({
            "Name": f.feature.name, "Found": f.found, "Since": f.feature.since, "Detail": f.detail,
            "Purpose": f.feature.purpose, "Without": f.feature.without,
        })).collect::<Vec<_>>(),
        "Warnings": warnings(info),
    })
}

fn warnings(info: &Info) -> Vec<String> {
    let blocked = info.forward_blockers.iter().map(|table| {
        format!("table {table} drops forwarded packets: containers may not reach the network until it accepts them")
    });
    blocked.chain(info.damaged.iter().cloned()).collect()
}

fn text(globals: &Globals, info: &Info) -> String {
    let host = &info.host;
    let size = dhow_docker::units::bytes_size;
    let mut lines = vec![
        format!("Version: {VERSION}"),
        format!("Containers: {}", info.containers),
        format!(" Running: {}", info.running),
        format!(" Paused: {}", info.paused),
        format!(" Stopped: {}", info.stopped),
        format!("Images: {}", info.images),
        format!("Root: {}", globals.root.display()),
        format!("Run root: {}", globals.run_root.display()),
    ];
    if let Ok(storage) = dhow_runtime::probe::storage(&globals.root) {
        let upper = if storage.overlay_upper { "" } else { " (overlay cannot keep its upper directories here)" };
        lines.push(format!("Storage: overlay on {}{upper}", storage.kind));
        lines.push(format!(" Free: {} of {}", size(storage.free), size(storage.size)));
        if storage.inodes > 0 {
            lines.push(format!(" Free inodes: {} of {}", storage.inodes_free, storage.inodes));
        }
    }
    let controllers: Vec<String> = host.cgroup_controllers.iter().map(|(c, v)| format!("{c} (v{v})")).collect();
    lines.push(format!("Cgroup: {:?}", host.cgroup_mode));
    lines.push(format!(" Controllers: {}", controllers.join(" ")));
    lines.push(format!("Kernel: {}", host.kernel.release));
    lines.push(format!("Operating system: {}", host.kernel.system));
    lines.push(format!("Architecture: {}", host.kernel.machine));
    lines.push(format!("CPUs: {}", host.machine.cpus));
    lines.push(format!("Memory: {}", size(host.machine.memory)));
    lines.push(format!("Swap: {}", size(host.machine.swap)));
    lines.push(format!("Host name: {}", host.kernel.node));
    lines.push(format!("Security modules: {}", host.security.modules.join(" ")));
    lines.push("Limits (soft, hard):".to_owned());
    let limit = |n: Option<u64>| n.map_or("unlimited".to_owned(), |n| n.to_string());
    lines.extend(host.limits.iter().map(|l| format!(" {}: {}, {}", l.name, limit(l.soft), limit(l.hard))));
    lines.push("Kernel features:".to_owned());
    for finding in &host.features {
        let f = finding.feature;
        let detail = if finding.detail.is_empty() { String::new() } else { format!(" ({})", finding.detail) };
        lines.push(match finding.found {
            true => format!(" {}: yes{detail}, for {}", f.name, f.purpose),
            false => format!(" {}: no{detail}, since {}; without it: {}", f.name, f.since, f.without),
        });
    }
    lines.extend(warnings(info).into_iter().map(|w| format!("WARNING: {w}")));
    lines.join("\n") + "\n"
}
