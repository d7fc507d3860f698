//! Histories made comparable. Every builder writes `created_by` in a form of its own; [`RULES`] lists what is evened out.

use super::peers::Peer;
use serde_json::Value;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The instruction in a form that all builders share.
    pub text: String,
    /// It made no layer.
    pub empty: bool,
}

/// What is evened out before histories are compared, and why. Printed in the document.
pub const RULES: &[(&str, &str)] = &[
    (
        "`SHELL #(nop)` in front of an instruction, ` # buildkit` behind it, repeated blanks",
        "marks of the classic builder (and buildah) and of BuildKit",
    ),
    ("`RUN` in front of a command", "the classic builder and buildah write the command alone"),
    (
        "sources of `COPY` and `ADD`, and their flags",
        "the classic builder and buildah write a hash of the content, BuildKit the words of the Dockerfile",
    ),
    (
        "ports of `EXPOSE`",
        "`80 90/udp`, `map[80/tcp:{} 90/udp:{}]` and `[80/tcp 90/udp]`, in the order of the file or sorted",
    ),
    ("the values of `HEALTHCHECK`", "different Go formats of one value, which is compared in the config"),
    ("entries of `ONBUILD`", "BuildKit, whose history dhow follows, writes none"),
    (
        "beside buildah all but the first word",
        "buildah writes the line of the Dockerfile as it is, nothing expanded and no JSON formatted",
    ),
];

/// The entries of a config document that `maker` wrote, for a comparison with `peer`.
pub fn entries(config: &Value, maker: Peer, peer: Peer) -> Vec<Entry> {
    let history = config["history"].as_array().into_iter().flatten();
    let entry = |item: &Value| {
        let mut text = canonical(item["created_by"].as_str().unwrap_or_default(), maker);
        if peer == Peer::Buildah {
            text.truncate(text.find(' ').unwrap_or(text.len()));
        }
        Entry { text, empty: item["empty_layer"].as_bool().unwrap_or(false) }
    };
    history.map(entry).filter(|e| !e.text.starts_with("ONBUILD")).collect()
}

fn canonical(text: &str, peer: Peer) -> String {
    let text = text.strip_suffix(" # buildkit").unwrap_or(text);
    let (marked, text) = match text.split_once("#(nop)") {
        Some((_, rest)) => (true, rest.trim_start()),
        None => (false, text),
    };
    let commands_are_bare = matches!(peer, Peer::Classic | Peer::Buildah);
    let text = if commands_are_bare && !marked { format!("RUN {text}") } else { text.to_owned() };
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [verb @ ("COPY" | "ADD"), .., destination] => format!("{verb} … {destination}"),
        ["EXPOSE", ports @ ..] => format!("EXPOSE {}", self::ports(ports).join(" ")),
        ["HEALTHCHECK", ..] => "HEALTHCHECK …".to_owned(),
        words => words.join(" "),
    }
}

fn ports(words: &[&str]) -> Vec<String> {
    let bare = |word: &&str| {
        let word = word.trim_start_matches("map").trim_matches(['[', ']']).trim_end_matches(":{}");
        if word.contains('/') { word.to_owned() } else { format!("{word}/tcp") }
    };
    let mut ports: Vec<String> = words.iter().map(bare).collect();
    ports.sort();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_meet() {
        for (ours, peer, theirs) in [
            ("CMD [\"sh\"]", Peer::Classic, "/bin/sh -c #(nop)  CMD [\"sh\"]"),
            ("RUN |1 A=1 /bin/sh -c x # buildkit", Peer::Classic, "|1 A=1 /bin/sh -c x"),
            ("COPY a b /d/ # buildkit", Peer::Classic, "/bin/sh -c #(nop) COPY multi:0abc in /d/ "),
            ("COPY a b /d/ # buildkit", Peer::BuildKit, "COPY a b /d/ # buildkit"),
            ("EXPOSE [80/tcp 90/udp]", Peer::Classic, "/bin/sh -c #(nop)  EXPOSE 90/udp 80"),
            ("EXPOSE [80/tcp 90/udp]", Peer::BuildKit, "EXPOSE map[80/tcp:{} 90/udp:{}]"),
            ("WORKDIR /w", Peer::Buildah, "/bin/sh -c #(nop) WORKDIR /w"),
        ] {
            assert_eq!(canonical(ours, Peer::Dhow), canonical(theirs, peer), "{theirs}");
        }
    }
}
