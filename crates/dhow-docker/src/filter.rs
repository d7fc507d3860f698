//! `--filter` of `ps` and `images`.

use crate::GrammarError;
use crate::error::clip;
use crate::rows::{ContainerItem, ImageItem};
use crate::time;
use dhow_types::{PortProtocol, Timestamp};
use jiff::tz::TimeZone;
use regex_lite::Regex;
use std::collections::BTreeMap;

/// Filters as typed: `key=value`, several of a kind allowed.
#[derive(Debug, Clone, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Keys of `ps`.
pub const CONTAINER_KEYS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
/// Keys of `images`.
pub const IMAGE_KEYS: &[&str] = &["before", "dangling", "label", "label!", "reference", "since", "until"];
/// Keys of `container prune`.
pub const CONTAINER_PRUNE_KEYS: &[&str] = &["label", "label!", "until"];
/// Keys of `image prune`.
pub const IMAGE_PRUNE_KEYS: &[&str] = &["dangling", "label", "label!", "until"];

impl Filters {
    /// Parses the `--filter` texts and checks the keys against those that the command knows.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>, known: &[&str]) -> Result<Self, GrammarError> {
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in texts {
            let Some((key, value)) = text.split_once('=') else {
                let message = format!("invalid argument {:?}: bad format of filter (expected name=value)", clip(text));
                return Err(GrammarError::Worded(message));
            };
            let key = key.trim().to_ascii_lowercase();
            if !known.contains(&key.as_str()) {
                return Err(GrammarError::Worded(format!("invalid filter '{}'", clip(&key))));
            }
            out.entry(key).or_default().push(value.trim().to_owned());
        }
        Ok(Self(out))
    }

    /// The values of a key.
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a key was given.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        !self.has(key) || self.get(key).iter().any(|v| matches(v))
    }

    fn labels_match(&self, labels: &[(String, String)]) -> bool {
        let has = |text: &String| {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (text.as_str(), None),
            };
            labels.iter().any(|(k, v)| k == key && value.is_none_or(|value| value == v))
        };
        self.get("label").iter().all(has) && !self.get("label!").iter().any(has)
    }

    fn until(&self, now: Timestamp) -> Result<Option<Timestamp>, GrammarError> {
        let texts = self.get("until").iter();
        let times: Result<Vec<_>, _> = texts.map(|t| time::point(t, now, &TimeZone::system())).collect();
        Ok(times?.into_iter().min())
    }
}

/// The containers that match. `all` is every container (needed for `before` and `since`).
pub fn containers<'a>(
    filters: &Filters,
    all: &'a [ContainerItem],
    now: Timestamp,
) -> Result<Vec<&'a ContainerItem>, GrammarError> {
    let names = regexes(filters.get("name"))?;
    let ids = regexes(filters.get("id"))?;
    let until = filters.until(now)?;
    let created = |key: &str| -> Result<Option<Timestamp>, GrammarError> {
        let Some(text) = filters.get(key).first() else { return Ok(None) };
        let named =
            |c: &&ContainerItem| c.names.iter().any(|n| n == text.trim_start_matches('/')) || c.id.starts_with(text);
        match all.iter().find(named) {
            Some(c) => Ok(Some(c.created)),
            None => Err(GrammarError::Worded(format!("No such container: {}", clip(text)))),
        }
    };
    let (before, since) = (created("before")?, created("since")?);
    for text in filters.get("status") {
        const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
        if !STATES.contains(&text.as_str()) {
            return Err(GrammarError::Worded(format!("invalid filter 'status={}'", clip(text))));
        }
    }
    let exits: Result<Vec<i64>, _> = filters.get("exited").iter().map(|t| t.parse::<i64>()).collect();
    let exits = exits.map_err(|_| GrammarError::Worded("invalid filter 'exited': expected a number".to_owned()))?;
    let publish = port_ranges(filters.get("publish"))?;
    let expose = port_ranges(filters.get("expose"))?;
    let keep = |c: &&ContainerItem| {
        let name_matches = |r: &Regex| c.names.iter().any(|n| r.is_match(n) || r.is_match(&format!("/{n}")));
        (names.is_empty() || names.iter().any(name_matches))
            && (ids.is_empty() || ids.iter().any(|r| r.is_match(&c.id)))
            && before.is_none_or(|t| c.created < t)
            && since.is_none_or(|t| c.created > t)
            && until.is_none_or(|t| c.created < t)
            && filters.any("status", |s| s == c.state)
            && (exits.is_empty() || (c.started_at.is_some() && !c.is_running() && exits.contains(&c.exit_code)))
            && filters.any("health", |h| h == c.health.as_deref().unwrap_or("none"))
            && filters.any("ancestor", |a| c.has_ancestor(a))
            && filters.any("network", |n| {
                c.networks.iter().any(|(name, id)| name == n || (!n.is_empty() && id.starts_with(n)))
            })
            && filters.any("volume", |v| {
                c.mounts.iter().any(|m| m.name.as_deref() == Some(v) || m.source == v || m.destination == v)
            })
            && filters.any("isolation", |i| i == "default" || i.is_empty())
            && filters.any("is-task", |t| matches!(t, "false" | "0"))
            && (publish.is_empty()
                || publish.iter().any(|r| {
                    c.ports.iter().any(|p| {
                        p.public.is_some() && r.holds(p.private, p.protocol)
                            || p.public.is_some_and(|n| r.holds(n, p.protocol))
                    })
                }))
            && (expose.is_empty() || expose.iter().any(|r| c.ports.iter().any(|p| r.holds(p.private, p.protocol))))
            && filters.labels_match(&c.labels)
    };
    Ok(all.iter().filter(keep).collect())
}

fn regexes(texts: &[String]) -> Result<Vec<Regex>, GrammarError> {
    texts.iter().map(|t| Regex::new(t).map_err(|e| GrammarError::new("filter", t, e.to_string()))).collect()
}

struct PortRange(u16, u16, PortProtocol);

impl PortRange {
    fn holds(&self, port: u16, protocol: PortProtocol) -> bool {
        (self.0..=self.1).contains(&port) && protocol == self.2
    }
}

fn port_ranges(texts: &[String]) -> Result<Vec<PortRange>, GrammarError> {
    texts
        .iter()
        .map(|t| {
            let ports = crate::grammar::expose(t)?;
            match (ports.first(), ports.last()) {
                (Some(a), Some(b)) => Ok(PortRange(a.port, b.port, a.protocol)),
                _ => Err(GrammarError::new("port", t, "empty range")),
            }
        })
        .collect()
}

/// The images that match. `all` is every image (needed for `before` and `since`).
pub fn images<'a>(filters: &Filters, all: &'a [ImageItem], now: Timestamp) -> Result<Vec<&'a ImageItem>, GrammarError> {
    let until = filters.until(now)?;
    let dangling = match filters.get("dangling").first().map(|t| t.to_ascii_lowercase()) {
        None => None,
        Some(t) if matches!(t.as_str(), "true" | "1" | "t") => Some(true),
        Some(t) if matches!(t.as_str(), "false" | "0" | "f") => Some(false),
        Some(t) => return Err(GrammarError::Worded(format!("invalid filter 'dangling={}'", clip(&t)))),
    };
    let created = |key: &str| -> Result<Option<Timestamp>, GrammarError> {
        let Some(text) = filters.get(key).first() else { return Ok(None) };
        match all.iter().find(|i| i.is_called(text)) {
            Some(image) => Ok(Some(image.created)),
            None => Err(GrammarError::Worded(format!("No such image: {}", clip(text)))),
        }
    };
    let (before, since) = (created("before")?, created("since")?);
    let keep = |i: &&ImageItem| {
        dangling.is_none_or(|d| d == i.is_dangling())
            && before.is_none_or(|t| i.created < t)
            && since.is_none_or(|t| i.created > t)
            && until.is_none_or(|t| i.created < t)
            && filters.any("reference", |pattern| i.matches_reference(pattern))
            && filters.labels_match(&i.labels)
    };
    Ok(all.iter().filter(keep).collect())
}

/// Go's `path.Match`: `*` and `?` stay within one component, `[…]` is a class, `\` quotes. A bad pattern matches nothing.
pub fn path_match(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().take(1024).collect();
    let name: Vec<char> = name.chars().collect();
    // Positions of the pattern that are possible after the characters read so far: linear in both, no backtracking.
    let mut states = vec![false; pattern.len() + 1];
    states[0] = true;
    skip_stars(&pattern, &mut states);
    for c in &name {
        let mut next = vec![false; pattern.len() + 1];
        for at in (0..pattern.len()).filter(|at| states[*at]) {
            match pattern[at] {
                '*' if *c != '/' => next[at] = true,
                '*' => {}
                '?' if *c != '/' => next[at + 1] = true,
                '?' => {}
                '[' => {
                    if let Some((end, hit)) = class(&pattern, at, *c) {
                        next[end] |= hit && *c != '/';
                    }
                }
                '\\' if at + 1 < pattern.len() => next[at + 2] |= pattern[at + 1] == *c,
                literal => next[at + 1] |= literal == *c,
            }
        }
        skip_stars(&pattern, &mut next);
        states = next;
    }
    states.last().copied().unwrap_or(false)
}

/// A star may stand for nothing.
fn skip_stars(pattern: &[char], states: &mut [bool]) {
    for at in 0..pattern.len() {
        if states[at] && pattern[at] == '*' {
            states[at + 1] = true;
        }
    }
}

/// The class that starts at `at`: where it ends, and whether it holds `c`.
fn class(pattern: &[char], at: usize, c: char) -> Option<(usize, bool)> {
    let mut i = at + 1;
    let negated = pattern.get(i) == Some(&'^');
    i += usize::from(negated);
    let mut hit = false;
    let start = i;
    loop {
        let mut take = || {
            if pattern.get(i) == Some(&'\\') {
                i += 1;
            }
            let c = pattern.get(i).copied()?;
            i += 1;
            Some(c)
        };
        let low = take()?;
        let high = if pattern.get(i) == Some(&'-') {
            i += 1;
            let c = pattern.get(i).copied()?;
            i += 1;
            c
        } else {
            low
        };
        hit |= (low..=high).contains(&c);
        if pattern.get(i) == Some(&']') && i > start {
            return Some((i + 1, hit != negated));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::PortItem;

    #[test]
    fn go_patterns() {
        for (pattern, name, expected) in [
            ("busy*", "busybox", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("localhost:5000/*:2*", "localhost:5000/python:2.7-slim", true),
            ("[a-c]x", "bx", true),
            ("[^a]x", "ax", false),
            ("?", "/", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("[", "a", false),
            ("", "", true),
            ("***a", "a", true),
        ] {
            assert_eq!(path_match(pattern, name), expected, "{pattern} {name}");
        }
    }

    fn item(name: &str, state: &str, created: i64) -> ContainerItem {
        ContainerItem {
            id: format!("{name}{}", "0".repeat(64 - name.len())),
            names: vec![name.to_owned()],
            image: "busybox".to_owned(),
            image_id: format!("sha256:{}", "ab".repeat(32)),
            ancestors: vec!["busybox:latest".to_owned()],
            command: "sh".to_owned(),
            created: Timestamp::from_second(created).unwrap(),
            state: state.to_owned(),
            exit_code: 3,
            started_at: Some(Timestamp::UNIX_EPOCH),
            finished_at: None,
            health: None,
            ports: vec![PortItem { ip: None, private: 80, public: Some(8080), protocol: PortProtocol::Tcp }],
            labels: vec![("tier".to_owned(), "db".to_owned())],
            networks: vec![("bridge".to_owned(), "f00".to_owned())],
            mounts: Vec::new(),
            sizes: None,
            platform: "linux/amd64".to_owned(),
        }
    }

    #[track_caller]
    fn check(filters: &[&str], expected: &[&str]) {
        let all = [item("web1", "running", 10), item("db1", "exited", 20), item("job", "created", 30)];
        let filters = Filters::parse(filters.iter().copied(), CONTAINER_KEYS).unwrap();
        let found = containers(&filters, &all, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(found.iter().map(|c| c.names[0].as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn container_filters() {
        check(&[], &["web1", "db1", "job"]);
        check(&["name=1$"], &["web1", "db1"]);
        check(&["name=^/web"], &["web1"]);
        check(&["status=exited", "status=created"], &["db1", "job"]);
        check(&["exited=3"], &["db1", "job"]);
        check(&["since=web1", "before=job"], &["db1"]);
        check(&["label=tier=db", "label=tier"], &["web1", "db1", "job"]);
        check(&["label=tier=x"], &[]);
        check(&["ancestor=busybox", "id=^job"], &["job"]);
        check(&["ancestor=abab"], &["web1", "db1", "job"]);
        check(&["publish=8080"], &["web1", "db1", "job"]);
        check(&["expose=70-90/tcp"], &["web1", "db1", "job"]);
        check(&["network=f0"], &["web1", "db1", "job"]);
        check(&["health=none"], &["web1", "db1", "job"]);
    }

    #[test]
    fn bad_filters() {
        assert!(Filters::parse(["nope=1"], CONTAINER_KEYS).is_err());
        assert!(Filters::parse(["name"], CONTAINER_KEYS).is_err());
        for text in ["name=(", "status=up", "exited=x", "since=nobody", "publish=x"] {
            let f = Filters::parse([text], CONTAINER_KEYS).unwrap();
            assert!(containers(&f, &[], Timestamp::UNIX_EPOCH).is_err(), "{text}");
        }
    }
}
