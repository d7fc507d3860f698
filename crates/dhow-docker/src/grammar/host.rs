//! Network, namespaces, extra hosts and restart policy.

use super::split_csv;
use crate::GrammarError;
use crate::error::clip;
use dhow_types::{ExtraHost, IpcMode, NetworkMode, PidMode, RestartPolicy};
use std::net::IpAddr;

/// `KEY=VALUE`; `what` names the grammar in messages.
pub fn key_value(what: &'static str, text: &str) -> Result<(String, String), GrammarError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(GrammarError::new(what, text, "expected KEY=VALUE")),
    }
}

/// `--add-host NAME:IP` or `NAME=IP`; the address may be `host-gateway` and IPv6 may stand in brackets.
pub fn add_host(text: &str) -> Result<ExtraHost, GrammarError> {
    let split = match text.split_once('=') {
        Some((name, _)) if name.contains(':') => text.split_once(':'),
        Some(pair) => Some(pair),
        None => text.split_once(':'),
    };
    let Some((name, address)) = split.filter(|(name, address)| !name.is_empty() && !address.is_empty()) else {
        return Err(GrammarError::Worded(format!("bad format for add-host: {:?}", clip(text))));
    };
    if name.contains(char::is_whitespace) {
        return Err(GrammarError::new("host", text, "a host name has no blanks"));
    }
    if address == "host-gateway" {
        return Ok(ExtraHost { name: name.to_owned(), address: None });
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(ExtraHost { name: name.to_owned(), address: Some(address) }),
        Err(_) => Err(GrammarError::Worded(format!("invalid IP address in add-host: {:?}", clip(address)))),
    }
}

/// One `--network`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkAttachment {
    /// Which stack.
    pub mode: NetworkMode,
    /// Extra names in it.
    pub aliases: Vec<String>,
    /// Fixed addresses.
    pub addresses: Vec<IpAddr>,
    /// Fixed hardware address, as typed.
    pub mac: Option<String>,
}

/// `bridge`, `host`, `none`, `container:X`, a network's name, or `name=…,alias=…,ip=…`.
pub fn network(text: &str) -> Result<NetworkAttachment, GrammarError> {
    let mut out = NetworkAttachment::default();
    if !text.contains('=') {
        out.mode = network_mode(text)?;
        return Ok(out);
    }
    let mut name = None;
    for field in split_csv("network", text)? {
        let (key, value) = key_value("network", &field)?;
        match key.to_ascii_lowercase().as_str() {
            "name" => name = Some(value),
            "alias" => out.aliases.push(value),
            "ip" | "ip6" | "link-local-ip" => {
                let ip =
                    value.parse().map_err(|_| GrammarError::new("network", text, format!("{key} is no address")))?;
                out.addresses.push(ip);
            }
            "mac-address" => out.mac = Some(value),
            "driver-opt" | "gw-priority" => return Err(GrammarError::Unsupported(format!("network option {key}"))),
            other => return Err(GrammarError::Worded(format!("invalid field key {}", clip(other)))),
        }
    }
    let name = name.ok_or_else(|| GrammarError::Worded("network name is not specified".to_owned()))?;
    out.mode = network_mode(&name)?;
    Ok(out)
}

fn network_mode(text: &str) -> Result<NetworkMode, GrammarError> {
    Ok(match text {
        "" | "default" | "bridge" => NetworkMode::Bridge,
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        other => match other.strip_prefix("container:") {
            Some("") => {
                let message = "Invalid network mode: invalid container format container:<name|id>";
                return Err(GrammarError::Worded(message.to_owned()));
            }
            Some(name) => NetworkMode::Container(name.to_owned()),
            None => NetworkMode::Named(other.to_owned()),
        },
    })
}

/// `--ipc none|private|shareable|host|container:X`.
pub fn ipc_mode(text: &str) -> Result<IpcMode, GrammarError> {
    match text {
        "" | "private" => Ok(IpcMode::Private),
        "shareable" => Ok(IpcMode::Shareable),
        "host" => Ok(IpcMode::Host),
        "none" => Err(GrammarError::Unsupported("--ipc none".to_owned())),
        other => match other.strip_prefix("container:").filter(|n| !n.is_empty()) {
            Some(name) => Ok(IpcMode::Container(name.to_owned())),
            None => Err(GrammarError::Worded("--ipc: invalid IPC mode".to_owned())),
        },
    }
}

/// `--pid host|container:X`.
pub fn pid_mode(text: &str) -> Result<PidMode, GrammarError> {
    match text {
        "" | "private" => Ok(PidMode::Private),
        "host" => Ok(PidMode::Host),
        other => match other.strip_prefix("container:").filter(|n| !n.is_empty()) {
            Some(name) => Ok(PidMode::Container(name.to_owned())),
            None => Err(GrammarError::Worded("--pid: invalid PID mode".to_owned())),
        },
    }
}

/// `no|always|unless-stopped|on-failure[:N]`.
pub fn restart(text: &str) -> Result<RestartPolicy, GrammarError> {
    let bad = |reason: &str| Err(GrammarError::Worded(format!("invalid restart policy: {reason}")));
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    match (name, count) {
        ("" | "no", None) => Ok(RestartPolicy::No),
        ("always", None) => Ok(RestartPolicy::Always),
        ("unless-stopped", None) => Ok(RestartPolicy::UnlessStopped),
        ("on-failure", None) => Ok(RestartPolicy::OnFailure(0)),
        ("on-failure", Some(count)) => match count.parse() {
            Ok(count) => Ok(RestartPolicy::OnFailure(count)),
            Err(_) => bad("maximum retry count must be an integer"),
        },
        ("no" | "always" | "unless-stopped", Some(_)) => bad("maximum retry count can only be used with 'on-failure'"),
        (other, _) => bad(&format!("unknown policy '{}'", clip(other))),
    }
}
