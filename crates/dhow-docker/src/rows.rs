//! What `ps`, `images` and `history` list: neutral items, and the rows made from them.

use crate::status::{StatusInput, ago, status_text};
use crate::table::{Listing, Row};
use crate::time::created_at;
use crate::units::human_size;
use dhow_types::{PortProtocol, Reference, Timestamp};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortItem {
    /// Host address.
    pub ip: Option<IpAddr>,
    /// Port in the container.
    pub private: u16,
    /// Port on the host, when published.
    pub public: Option<u16>,
    /// Protocol.
    pub protocol: PortProtocol,
}

/// A mount of a container.
#[derive(Debug, Clone, Default)]
pub struct MountItem {
    /// Volume name.
    pub name: Option<String>,
    /// Host path.
    pub source: String,
    /// Container path.
    pub destination: String,
}

/// A container as lists see it.
#[derive(Debug, Clone)]
pub struct ContainerItem {
    /// Full id.
    pub id: String,
    /// Names, without slash.
    pub names: Vec<String>,
    /// Image as it was typed.
    pub image: String,
    /// The image's id, `sha256:…`.
    pub image_id: String,
    /// Ids and references that the image descends from, itself included, for the `ancestor` filter.
    pub ancestors: Vec<String>,
    /// Command line in one string.
    pub command: String,
    /// Creation.
    pub created: Timestamp,
    /// State word.
    pub state: String,
    /// Last exit code.
    pub exit_code: i64,
    /// Last start.
    pub started_at: Option<Timestamp>,
    /// Last end.
    pub finished_at: Option<Timestamp>,
    /// Health word, when there is a probe.
    pub health: Option<String>,
    /// Ports.
    pub ports: Vec<PortItem>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Networks: name and id.
    pub networks: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<MountItem>,
    /// Bytes of the writable layer and of everything, when asked for.
    pub sizes: Option<(u64, u64)>,
    /// `linux/amd64`.
    pub platform: String,
}

impl ContainerItem {
    /// Running, paused or about to be started again.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }

    pub(crate) fn has_ancestor(&self, text: &str) -> bool {
        let same = |a: &str| {
            let bare = a.strip_prefix("sha256:").unwrap_or(a);
            let wanted = text.strip_prefix("sha256:").unwrap_or(text);
            a == text
                || (wanted.len() >= 4 && bare.len() == 64 && bare.starts_with(wanted))
                || a == format!("{text}:latest")
        };
        self.ancestors.iter().any(|a| same(a)) || same(&self.image_id) || same(&self.image)
    }

    /// The `STATUS` text.
    pub fn status(&self, now: Timestamp) -> String {
        let input = StatusInput {
            state: &self.state,
            exit_code: self.exit_code,
            started_at: self.started_at,
            finished_at: self.finished_at,
            health: self.health.as_deref(),
        };
        status_text(&input, now)
    }
}

/// Header of every field of `ps`.
pub const PS_HEADERS: &[(&str, &str)] = &[
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("HealthStatus", "HEALTH STATUS"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Mounts", "MOUNTS"),
    ("Names", "NAMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
    ("Ports", "PORTS"),
    ("RunningFor", "CREATED"),
    ("Size", "SIZE"),
    ("State", "STATE"),
    ("Status", "STATUS"),
];

/// The list of `ps`.
pub fn ps(items: &[&ContainerItem], no_trunc: bool, size: bool, now: Timestamp) -> Listing {
    let mut columns = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if size {
        columns.push("Size");
    }
    Listing {
        columns,
        headers: PS_HEADERS,
        rows: items.iter().map(|c| ps_row(c, no_trunc, now)).collect(),
        raw: &[
            ("ID", "container_id"),
            ("Image", "image"),
            ("Command", "command"),
            ("CreatedAt", "created_at"),
            ("State", "state"),
            ("Status", "status"),
            ("Names", "names"),
            ("Labels", "labels"),
            ("Ports", "ports"),
        ],
    }
}

fn ps_row(c: &ContainerItem, no_trunc: bool, now: Timestamp) -> Row {
    let command = if no_trunc { c.command.clone() } else { ellipsis(&c.command, 20) };
    let size = c.sizes.map_or("0B".to_owned(), |(rw, all)| match all {
        0 => human_size(rw, 3),
        all => format!("{} (virtual {})", human_size(rw, 3), human_size(all, 3)),
    });
    let mounts = c.mounts.iter().map(|m| m.name.as_deref().unwrap_or(&m.source));
    let mounts: Vec<String> = mounts.map(|m| if no_trunc { m.to_owned() } else { ellipsis(m, 15) }).collect();
    let image = match c.image.as_str() {
        "" => "<no image>".to_owned(),
        image => {
            image.strip_prefix("sha256:").filter(|_| !no_trunc).map_or(image.to_owned(), |hex| short(hex).to_owned())
        }
    };
    Row {
        fields: vec![
            ("Command", quote(&command)),
            ("CreatedAt", created_at(c.created, &TimeZone::system())),
            ("HealthStatus", c.health.clone().unwrap_or_default()),
            ("ID", if no_trunc { c.id.clone() } else { short(&c.id).to_owned() }),
            ("Image", image),
            ("Labels", join_labels(&c.labels)),
            ("LocalVolumes", c.mounts.iter().filter(|m| m.name.is_some()).count().to_string()),
            ("Mounts", mounts.join(",")),
            ("Names", c.names.join(",")),
            ("Networks", c.networks.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(",")),
            ("Platform", c.platform.clone()),
            ("Ports", ports_text(&c.ports)),
            ("RunningFor", ago(c.created, now)),
            ("Size", size),
            ("State", c.state.clone()),
            ("Status", c.status(now)),
        ],
        labels: c.labels.clone(),
    }
}

/// The first twelve characters.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// At most `width` characters, the last being an ellipsis when something was cut.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

/// Go's `strconv.Quote`, near enough: backslashes, quotes and control characters are escaped.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn join_labels(labels: &[(String, String)]) -> String {
    let mut pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.sort();
    pairs.join(",")
}

/// `0.0.0.0:80-81->80-81/tcp, 90/udp`: sorted by container port, neighbours merged into ranges.
pub fn ports_text(ports: &[PortItem]) -> String {
    #[derive(Clone, Copy)]
    struct Group {
        private: (u16, u16),
        public: Option<u16>,
        protocol: PortProtocol,
        ip: Option<IpAddr>,
    }
    let mut sorted: Vec<&PortItem> = ports.iter().collect();
    sorted.sort_by_key(|p| (p.private, p.protocol, p.ip, p.public));
    sorted.dedup();
    // Ranges grow per address and protocol, so that the two address families do not interrupt each other.
    let mut open: BTreeMap<(Option<IpAddr>, PortProtocol, bool), usize> = BTreeMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for p in sorted {
        let key = (p.ip, p.protocol, p.public.is_some());
        let last = open.get(&key).copied().and_then(|i| groups.get_mut(i));
        if let Some(g) = last
            && g.private.1.checked_add(1) == Some(p.private)
            && g.public.map(u32::from).map(|n| n + u32::from(p.private - g.private.0)) == p.public.map(u32::from)
        {
            g.private.1 = p.private;
            continue;
        }
        open.insert(key, groups.len());
        groups.push(Group { private: (p.private, p.private), public: p.public, protocol: p.protocol, ip: p.ip });
    }
    let span = |a: u16, b: u16| if a == b { a.to_string() } else { format!("{a}-{b}") };
    let text = |g: &Group| {
        let private = span(g.private.0, g.private.1);
        let protocol = g.protocol.name();
        match g.public {
            None => format!("{private}/{protocol}"),
            Some(public) => {
                let ip = match g.ip {
                    Some(IpAddr::V6(ip)) => format!("[{ip}]"),
                    Some(ip) => ip.to_string(),
                    None => Ipv4Addr::UNSPECIFIED.to_string(),
                };
                let public = span(public, public.saturating_add(g.private.1 - g.private.0));
                format!("{ip}:{public}->{private}/{protocol}")
            }
        }
    };
    groups.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The IPv6 address that Docker shows beside `0.0.0.0`.
pub const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// An image as lists see it: one item per reference, or one without.
#[derive(Debug, Clone)]
pub struct ImageItem {
    /// `sha256:…`
    pub id: String,
    /// The tag reference, when there is one.
    pub reference: Option<Reference>,
    /// Every reference and digest of the image, for filters.
    pub references: Vec<Reference>,
    /// Repository to show when only a digest is known.
    pub repository: Option<String>,
    /// Digest of the manifest, when known.
    pub digest: Option<String>,
    /// Creation.
    pub created: Timestamp,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Containers that use it.
    pub containers: Option<usize>,
}

impl ImageItem {
    pub(crate) fn is_dangling(&self) -> bool {
        self.reference.is_none() && self.repository.is_none()
    }

    pub(crate) fn is_called(&self, text: &str) -> bool {
        let hex = |t: &str| t.strip_prefix("sha256:").unwrap_or(t).to_owned();
        let wanted = text.parse::<Reference>().map(Reference::with_default_tag);
        self.references.iter().any(|r| wanted.as_ref().is_ok_and(|w| w == r))
            || (text.len() >= 4 && hex(&self.id).starts_with(&hex(text)))
    }

    pub(crate) fn matches_reference(&self, pattern: &str) -> bool {
        let forms = |r: &Reference| [r.familiar(), r.familiar_repository(), r.to_string(), r.repository()];
        // An item of a tag is judged by its own reference, so that other tags of the image stay away.
        let own = self.reference.iter().chain(self.references.iter().filter(|r| r.digest().is_some()));
        own.flat_map(forms).any(|form| crate::filter::path_match(pattern, &form))
    }
}

/// Header of every field of `images`.
pub const IMAGE_HEADERS: &[(&str, &str)] = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

/// The list of `images`.
pub fn images(items: &[&ImageItem], no_trunc: bool, digests: bool, now: Timestamp) -> Listing {
    let columns = match digests {
        true => vec!["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
        false => vec!["Repository", "Tag", "ID", "CreatedSince", "Size"],
    };
    Listing {
        columns,
        headers: IMAGE_HEADERS,
        rows: items.iter().map(|i| image_row(i, no_trunc, now)).collect(),
        raw: &[
            ("Repository", "repository"),
            ("Tag", "tag"),
            ("ID", "image_id"),
            ("CreatedAt", "created_at"),
            ("Size", "virtual_size"),
        ],
    }
}

fn image_row(i: &ImageItem, no_trunc: bool, now: Timestamp) -> Row {
    let none = || "<none>".to_owned();
    let repository = i.reference.as_ref().map(Reference::familiar_repository).or_else(|| i.repository.clone());
    let id = if no_trunc { i.id.clone() } else { short(i.id.strip_prefix("sha256:").unwrap_or(&i.id)).to_owned() };
    let size = human_size(i.size, 3);
    Row {
        fields: vec![
            ("Containers", i.containers.map_or("N/A".to_owned(), |n| n.to_string())),
            ("CreatedAt", created_at(i.created, &TimeZone::system())),
            ("CreatedSince", ago(i.created, now)),
            ("Digest", i.digest.clone().unwrap_or_else(none)),
            ("ID", id),
            ("Repository", repository.unwrap_or_else(none)),
            ("SharedSize", "N/A".to_owned()),
            ("Size", size.clone()),
            ("Tag", i.reference.as_ref().and_then(Reference::tag).map_or_else(none, str::to_owned)),
            ("UniqueSize", "N/A".to_owned()),
            ("VirtualSize", size),
        ],
        labels: i.labels.clone(),
    }
}

/// One step of an image's history.
#[derive(Debug, Clone, Default)]
pub struct HistoryItem {
    /// `sha256:…` of the image that ends with this step, or `<missing>`.
    pub id: String,
    /// Creation.
    pub created: Option<Timestamp>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of its layer.
    pub size: u64,
    /// Comment.
    pub comment: String,
}

/// Header of every field of `history`.
pub const HISTORY_HEADERS: &[(&str, &str)] = &[
    ("Comment", "COMMENT"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("CreatedSince", "CREATED"),
    ("ID", "IMAGE"),
    ("Size", "SIZE"),
];

/// The list of `history`; `human` is false for exact sizes and times.
pub fn history(items: &[HistoryItem], no_trunc: bool, human: bool, now: Timestamp) -> Listing {
    let row = |h: &HistoryItem| {
        let id = match h.id.strip_prefix("sha256:") {
            Some(hex) if !no_trunc => short(hex).to_owned(),
            _ => h.id.clone(),
        };
        let by = h.created_by.replace('\t', " ");
        let at = h.created.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default();
        Row {
            fields: vec![
                ("Comment", h.comment.clone()),
                ("CreatedAt", at.clone()),
                ("CreatedBy", if no_trunc { by } else { ellipsis(&by, 45) }),
                ("CreatedSince", if human { h.created.map_or("N/A".to_owned(), |t| ago(t, now)) } else { at }),
                ("ID", id),
                ("Size", if human { human_size(h.size, 3) } else { h.size.to_string() }),
            ],
            labels: Vec::new(),
        }
    };
    Listing {
        columns: vec!["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
        headers: HISTORY_HEADERS,
        rows: items.iter().map(row).collect(),
        raw: &[
            ("ID", "image"),
            ("CreatedAt", "created_at"),
            ("CreatedBy", "created_by"),
            ("Size", "size"),
            ("Comment", "comment"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(ip: &str, private: u16, public: u16) -> PortItem {
        PortItem { ip: ip.parse().ok(), private, public: (public > 0).then_some(public), protocol: PortProtocol::Tcp }
    }

    #[test]
    fn ports() {
        assert_eq!(ports_text(&[]), "");
        assert_eq!(ports_text(&[p("", 80, 0)]), "80/tcp");
        assert_eq!(ports_text(&[p("0.0.0.0", 80, 8080), p("::", 80, 8080)]), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
        assert_eq!(ports_text(&[p("0.0.0.0", 81, 81), p("0.0.0.0", 80, 80)]), "0.0.0.0:80-81->80-81/tcp");
        assert_eq!(ports_text(&[p("0.0.0.0", 80, 90), p("0.0.0.0", 81, 80)]), "0.0.0.0:90->80/tcp, 0.0.0.0:80->81/tcp");
        assert_eq!(ports_text(&[p("", 80, 0), p("", 81, 0), p("", 83, 0)]), "80-81/tcp, 83/tcp");
        assert_eq!(
            ports_text(&[p("", 65535, 0), p("127.0.0.1", 65535, 65535)]),
            "65535/tcp, 127.0.0.1:65535->65535/tcp"
        );
    }

    #[test]
    fn cut_and_quoted() {
        assert_eq!(quote(&ellipsis("/bin/sh -c 'echo hello world'", 20)), "\"/bin/sh -c 'echo he…\"");
        assert_eq!(quote("a\"\\\n\x1b"), "\"a\\\"\\\\\\n\\x1b\"");
    }
}
