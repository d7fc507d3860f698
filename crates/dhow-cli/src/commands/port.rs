//! `port`.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::Matches;
use crate::globals::Globals;
use crate::out;
use dhow_engine::view;
use dhow_types::ErrorKind;

pub(crate) static COMMAND: Command = Command {
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings or a specific mapping for the container",
    example: "dhow port web 80",
    args: (1, Some(2)),
    ..Command::new("port", &["container port"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let name = m.args.first().map_or("", String::as_str);
    let container = engine.container(&engine.find(name)?)?;
    let ports = view::inspect_container(&engine, &container).network_settings.ports;
    let address = |b: &dhow_docker::inspect::PortBinding| match b.host_ip.contains(':') {
        true => format!("[{}]:{}", b.host_ip, b.host_port),
        false => format!("{}:{}", b.host_ip, b.host_port),
    };
    let mut text = String::new();
    if let Some(wanted) = m.args.get(1) {
        let key = if wanted.contains('/') { wanted.to_ascii_lowercase() } else { format!("{wanted}/tcp") };
        let Some(bindings) = ports.get(&key).and_then(Option::as_ref) else {
            let message = format!("No public port '{key}' published for {name}");
            return Err(CliError::failed(ErrorKind::NotFound, message));
        };
        bindings.iter().for_each(|b| text.push_str(&format!("{}\n", address(b))));
    } else {
        for (port, bindings) in &ports {
            bindings.iter().flatten().for_each(|b| text.push_str(&format!("{port} -> {}\n", address(b))));
        }
    }
    out::print(&text)?;
    Ok(0)
}
