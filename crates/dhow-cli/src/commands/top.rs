//! `top`: the processes of a container, as the host's `ps` shows them.

use super::invalid;
use crate::command::Command;
use crate::error::CliError;
use crate::flags::Matches;
use crate::globals::Globals;
use crate::out;
use dhow_docker::table::align;

pub(crate) static COMMAND: Command = Command {
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    example: "dhow top web -o pid,cmd",
    interspersed: false,
    args: (1, None),
    ..Command::new("top", &["container top"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let mut args = m.args.iter();
    let id = engine.find(args.next().map_or("", String::as_str))?;
    let pids = engine.processes(&id)?;
    let mut options: Vec<String> = args.flat_map(|a| a.split_whitespace()).map(str::to_owned).collect();
    if options.is_empty() {
        options.push("-ef".to_owned());
    }
    let output =
        std::process::Command::new("ps").args(&options).output().map_err(CliError::io("cannot run the host's ps"))?;
    if !output.status.success() {
        return Err(invalid(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    out::print(&align(&select(&String::from_utf8_lossy(&output.stdout), &pids)?))?;
    Ok(0)
}

/// The header and the lines of these processes. The last column may hold blanks.
fn select(listing: &str, pids: &[u32]) -> Result<Vec<String>, CliError> {
    let mut lines = listing.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let at = header.iter().position(|h| *h == "PID").ok_or_else(|| invalid("Couldn't find PID field in ps output"))?;
    let mut out = vec![header.join("\t")];
    for line in lines {
        let mut cells: Vec<&str> = line.split_whitespace().collect();
        if !cells.get(at).and_then(|c| c.parse().ok()).is_some_and(|pid: u32| pids.contains(&pid)) {
            continue;
        }
        let rest = cells.split_off(cells.len().min(header.len().saturating_sub(1))).join(" ");
        cells.push(&rest);
        out.push(cells.join("\t"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes() {
        let listing = "UID   PID CMD\nroot    1 /sbin/init x\nroot   42 sleep  100\n";
        assert_eq!(select(listing, &[42]).unwrap(), ["UID\tPID\tCMD", "root\t42\tsleep 100"]);
        assert!(select("A B\n", &[]).is_err());
    }
}
