//! `--publish` and `--expose`.

use super::split_csv;
use crate::GrammarError;
use dhow_types::{PortBinding, PortProtocol, PortSpec};
use std::net::IpAddr;

/// `[IP:][HOST[-END]:]CTR[-END][/proto]`, or the long form `published=8080,target=80,protocol=tcp`.
///
/// A range of container ports with an equally long range of host ports gives one binding each; a range of host ports
/// with a single container port is a choice, kept in one binding. No host port, or 0, is an ephemeral one.
pub fn port(text: &str) -> Result<Vec<PortBinding>, GrammarError> {
    if text.contains('=') {
        return long(text);
    }
    let (address, protocol) = split_protocol(text)?;
    let (front, container) = match address.rsplit_once(':') {
        Some((front, container)) => (Some(front), container),
        None => (None, address),
    };
    if container.is_empty() {
        return Err(GrammarError::Worded(format!("no port specified: {}<empty>", crate::error::clip(text))));
    }
    let container = range(container, "containerPort")?;
    let (ip, host) = match front {
        None => (None, ""),
        Some(front) => match split_ip(front) {
            Some((ip, host)) => (Some(host_ip(ip, text)?), host),
            None => (None, front),
        },
    };
    let host = match host {
        "" => None,
        text => Some(range(text, "hostPort")?),
    };
    bindings(text, ip.flatten(), host, container, protocol)
}

/// Splits `IP:HOST`; `None` when there is no colon outside brackets.
fn split_ip(front: &str) -> Option<(&str, &str)> {
    match front.rfind(']') {
        Some(end) => Some((&front[..=end], front[end + 1..].strip_prefix(':').unwrap_or(&front[end + 1..]))),
        None => front.rsplit_once(':'),
    }
}

fn host_ip(text: &str, whole: &str) -> Result<Option<IpAddr>, GrammarError> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match bare {
        "" => Ok(None),
        ip => ip
            .parse()
            .map(Some)
            .map_err(|_| GrammarError::new("port", whole, format!("invalid IP address {:?}", crate::error::clip(ip)))),
    }
}

fn split_protocol(text: &str) -> Result<(&str, PortProtocol), GrammarError> {
    match text.rsplit_once('/') {
        None => Ok((text, PortProtocol::Tcp)),
        Some((rest, name)) => match PortProtocol::from_name(&name.to_ascii_lowercase()) {
            Some(protocol) => Ok((rest, protocol)),
            None => Err(GrammarError::Worded(format!("invalid proto: {}", crate::error::clip(name)))),
        },
    }
}

/// `N` or `N-M`, inclusive. 0 is allowed here and judged by the caller.
fn range(text: &str, what: &str) -> Result<(u16, u16), GrammarError> {
    let bad = || GrammarError::Worded(format!("invalid {what}: {}", crate::error::clip(text)));
    let number = |t: &str| match t.bytes().all(|c| c.is_ascii_digit()) {
        true => t.parse::<u16>().map_err(|_| bad()),
        false => Err(bad()),
    };
    match text.split_once('-') {
        None => number(text).map(|n| (n, n)),
        Some((a, b)) => {
            let (a, b) = (number(a)?, number(b)?);
            if a <= b && (a > 0 || b == 0) { Ok((a, b)) } else { Err(bad()) }
        }
    }
}

fn bindings(
    text: &str,
    host_ip: Option<IpAddr>,
    host: Option<(u16, u16)>,
    container: (u16, u16),
    protocol: PortProtocol,
) -> Result<Vec<PortBinding>, GrammarError> {
    if container.0 == 0 {
        return Err(GrammarError::new("port", text, "container port 0 does not exist"));
    }
    let host = host.filter(|h| *h != (0, 0));
    let one = |port, host_ports| PortBinding { host_ip, host_ports, container: PortSpec { port, protocol } };
    match host {
        None => Ok((container.0..=container.1).map(|p| one(p, None)).collect()),
        Some(h) if container.0 == container.1 => Ok(vec![one(container.0, Some(h))]),
        Some(h) if h.1 - h.0 == container.1 - container.0 => {
            Ok((container.0..=container.1).zip(h.0..=h.1).map(|(c, h)| one(c, Some((h, h)))).collect())
        }
        Some(_) => {
            let clip = crate::error::clip(text);
            Err(GrammarError::Worded(format!("invalid ranges specified for container and host Ports: {clip}")))
        }
    }
}

fn long(text: &str) -> Result<Vec<PortBinding>, GrammarError> {
    let mut published = None;
    let mut target = None;
    let mut protocol = PortProtocol::Tcp;
    for field in split_csv("port", text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(GrammarError::Worded(format!("invalid field: {}", crate::error::clip(&field))));
        };
        match key.to_ascii_lowercase().as_str() {
            "published" => published = Some(range(value, "published port")?),
            "target" => target = Some(range(value, "target port")?),
            "protocol" => {
                protocol = PortProtocol::from_name(value)
                    .ok_or_else(|| GrammarError::new("port", text, format!("invalid protocol value {value:?}")))?;
            }
            // A publish mode has meaning only in a swarm; on one host both words mean the same.
            "mode" if value == "ingress" || value == "host" => {}
            other => return Err(GrammarError::new("port", text, format!("invalid field key {other:?}"))),
        }
    }
    match target {
        Some(target) => bindings(text, None, published, target, protocol),
        None => Err(GrammarError::new("port", text, "missing mandatory field 'target'")),
    }
}

/// `PORT[-END][/proto]`.
pub fn expose(text: &str) -> Result<Vec<PortSpec>, GrammarError> {
    if text.contains(':') {
        return Err(GrammarError::Worded(format!("invalid port format for --expose: {}", crate::error::clip(text))));
    }
    let (ports, protocol) = split_protocol(text)?;
    let (first, last) = range(ports, "range format for --expose")?;
    if first == 0 {
        return Err(GrammarError::Worded(format!("invalid port format for --expose: {}", crate::error::clip(text))));
    }
    Ok((first..=last).map(|port| PortSpec { port, protocol }).collect())
}
