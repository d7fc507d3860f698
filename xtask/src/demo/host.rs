//! The host's bridges and nftables tables before and after: the tour takes its own away again.

use crate::sh::{self, Result};
use std::collections::BTreeSet;
use std::process::Command;

/// Bridges and tables by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    bridges: BTreeSet<String>,
    tables: BTreeSet<String>,
}

impl HostNetwork {
    /// What is there now.
    pub fn now() -> Result<Self> {
        let bridges = sh::read(Command::new("ip").args(["-o", "link", "show", "type", "bridge"]))?;
        let tables = sh::read(Command::new("nft").args(["list", "tables"]))?;
        Ok(Self {
            bridges: bridges.lines().filter_map(|l| Some(l.split(": ").nth(1)?.to_owned())).collect(),
            tables: tables.lines().filter_map(|l| Some(l.strip_prefix("table ")?.to_owned())).collect(),
        })
    }

    /// As lines of a file.
    pub fn to_text(&self) -> String {
        let bridges = self.bridges.iter().map(|b| format!("bridge {b}\n"));
        bridges.chain(self.tables.iter().map(|t| format!("table {t}\n"))).collect()
    }

    /// From such lines.
    pub fn from_text(text: &str) -> Self {
        let pick = |kind: &str| text.lines().filter_map(|l| Some(l.strip_prefix(kind)?.to_owned())).collect();
        Self { bridges: pick("bridge "), tables: pick("table ") }
    }

    /// Removes dhow's bridges and tables that are not in this list.
    pub fn restore(&self) -> Result {
        let now = Self::now()?;
        for bridge in now.bridges.difference(&self.bridges).filter(|b| b.starts_with("dhow")) {
            sh::quiet(Command::new("ip").args(["link", "delete", bridge]))?;
        }
        for table in now.tables.difference(&self.tables).filter(|t| t.contains("dhow")) {
            sh::quiet(Command::new("nft").args(["delete", "table"]).args(table.split(' ')))?;
        }
        Ok(())
    }
}

/// An IPv4 address of this host that is neither loopback nor a bridge's, if it has one.
pub fn outer_address() -> Result<Option<String>> {
    let text = sh::read(Command::new("ip").args(["-o", "-4", "addr", "show", "scope", "global"]))?;
    let outer = text.lines().filter_map(|l| {
        let words: Vec<&str> = l.split_whitespace().collect();
        let bridge = std::path::Path::new("/sys/class/net").join(words.get(1)?).join("bridge").exists();
        (!bridge).then(|| words.get(3)?.split('/').next().map(str::to_owned))?
    });
    Ok(outer.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let text = "bridge dhow1\nbridge virbr0\ntable inet dhow\n";
        assert_eq!(HostNetwork::from_text(text).to_text(), text);
    }
}
