//! What two builders made different of one context.

use super::history;
use super::image::{Image, Inode, Tree};
use super::peers::Peer;
use serde_json::Value;
use std::collections::BTreeSet;

/// One difference: what, what dhow has there, what the peer has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// `build`, `config Env`, `history 3`, `/path mode`, …
    pub what: String,
    /// dhow's.
    pub dhow: String,
    /// The peer's.
    pub peer: String,
}

/// Fields of the config's `config` object.
const FIELDS: &[&str] = &[
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
];

/// Fields beside it.
const OUTER: &[&str] = &["author", "architecture", "os"];

/// All differences between two results; a builder that failed has its error instead.
pub fn compare(dhow: &Result<Image, String>, other: &Result<Image, String>, peer: Peer) -> Vec<Difference> {
    let mut out = Vec::new();
    match (dhow, other) {
        (Ok(dhow), Ok(other)) => {
            configs(&dhow.config, &other.config, &mut out);
            histories(&dhow.config, &other.config, peer, &mut out);
            trees(&dhow.files, &other.files, &mut out);
        }
        (dhow, other) => {
            let state = |result: &Result<Image, String>| if result.is_ok() { "succeeds" } else { "fails" }.to_owned();
            out.push(Difference { what: "build".to_owned(), dhow: state(dhow), peer: state(other) });
        }
    }
    out
}

fn push(out: &mut Vec<Difference>, what: String, dhow: String, peer: String) {
    if dhow != peer {
        out.push(Difference { what, dhow, peer });
    }
}

/// Absent, `null` and empty mean the same in an image config.
fn meaning(value: &Value) -> String {
    let empty = match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if empty { "–".to_owned() } else { sorted(value).to_string() }
}

/// The same with keys in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        other => other.clone(),
    }
}

fn configs(dhow: &Value, other: &Value, out: &mut Vec<Difference>) {
    for field in FIELDS {
        let values = [dhow, other].map(|c| meaning(&c["config"][*field]));
        let [dhow, other] = values;
        push(out, format!("config {field}"), dhow, other);
    }
    for field in OUTER {
        push(out, field.to_string(), meaning(&dhow[*field]), meaning(&other[*field]));
    }
}

fn histories(dhow: &Value, other: &Value, peer: Peer, out: &mut Vec<Difference>) {
    let own = history::entries(dhow, Peer::Dhow, peer);
    let others = history::entries(other, peer, peer);
    push(out, "history length".to_owned(), own.len().to_string(), others.len().to_string());
    if own.len() != others.len() {
        return;
    }
    for (index, (own, other)) in own.iter().zip(&others).enumerate() {
        push(out, format!("history {index}"), own.text.clone(), other.text.clone());
        let layer = |empty: bool| if empty { "no layer" } else { "layer" }.to_owned();
        push(out, format!("history {index} layer"), layer(own.empty), layer(other.empty));
    }
}

fn trees(dhow: &Tree, other: &Tree, out: &mut Vec<Difference>) {
    let links = [dhow.first_links(), other.first_links()];
    let paths: BTreeSet<&str> = dhow.paths().chain(other.paths()).collect();
    for path in paths {
        let what = |field: &str| format!("/{path}{field}");
        match (dhow.get(path), other.get(path)) {
            (Some(own), Some(other)) => {
                inodes(own, other, &what, out);
                let [own, other] = links.each_ref().map(|l| l.get(path).copied().unwrap_or_default().to_owned());
                push(out, what(" linked with"), own, other);
            }
            (own, other) => {
                let show = |inode: Option<&Inode>| inode.map_or("–".to_owned(), shown);
                push(out, what(""), show(own), show(other));
            }
        }
    }
}

fn shown(inode: &Inode) -> String {
    format!("{} {:o} {}:{}", inode.kind, inode.mode, inode.owner.0, inode.owner.1)
}

fn inodes(own: &Inode, other: &Inode, what: &dyn Fn(&str) -> String, out: &mut Vec<Difference>) {
    push(out, what(" type"), own.kind.to_owned(), other.kind.to_owned());
    push(out, what(" mode"), format!("{:o}", own.mode), format!("{:o}", other.mode));
    let owner = |inode: &Inode| format!("{}:{}", inode.owner.0, inode.owner.1);
    push(out, what(" owner"), owner(own), owner(other));
    push(out, what(" content"), own.content.clone(), other.content.clone());
    let xattrs = |inode: &Inode| format!("{:?}", inode.xattrs);
    push(out, what(" xattrs"), xattrs(own), xattrs(other));
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_testkit::{Entry, Tar};
    use serde_json::json;

    fn image(config: Value, entry: Entry) -> Result<Image, String> {
        let mut files = Tree::default();
        files.apply(&Tar::of([entry])).unwrap();
        Ok(Image { config, files })
    }

    #[test]
    fn differences_are_found() {
        let history = json!([{ "created_by": "RUN /bin/sh -c x # buildkit" }]);
        let one = image(
            json!({ "config": { "Env": ["A=1"], "Labels": {}, "Cmd": null }, "history": history }),
            Entry::file("f", 0o644, "one"),
        );
        let two = image(
            json!({ "config": { "Env": ["A=2"] }, "history": [{ "created_by": "/bin/sh -c x", "empty_layer": true }] }),
            Entry::file("f", 0o600, "two").owned(1, 2),
        );
        let found: Vec<String> = compare(&one, &two, Peer::Classic).into_iter().map(|d| d.what).collect();
        assert_eq!(found, ["config Env", "history 0 layer", "/f mode", "/f owner", "/f content"]);
        assert_eq!(compare(&one, &one, Peer::BuildKit), []);
        assert_eq!(compare(&one, &Err(String::new()), Peer::Buildah)[0].what, "build");
    }
}
