//! Who lives in which namespace: what `dhow ns` shows.

use crate::{Engine, EngineError};
use dhow_oci::runtime::NamespaceKind;
use dhow_runtime::nsview::{self, NsId};
use dhow_types::ContainerId;

/// One namespace and everyone in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRow {
    /// Kind.
    pub kind: NamespaceKind,
    /// Inode number, as in `net:[4026532281]`.
    pub inode: u64,
    /// The host's processes live in it too.
    pub host: bool,
    /// Running containers whose first process lives in it: (id, name, pid).
    pub containers: Vec<(ContainerId, String, u32)>,
}

/// All namespaces that containers live in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceTable {
    /// By kind, then inode.
    pub rows: Vec<NamespaceRow>,
}

/// One namespace of one container, beside the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceUse {
    /// Kind.
    pub kind: NamespaceKind,
    /// The container's.
    pub inode: u64,
    /// The host's.
    pub host_inode: u64,
    /// Other containers in it: (id, name).
    pub shared_with: Vec<(ContainerId, String)>,
}

impl Engine {
    /// Every namespace that a running container lives in, and who shares it.
    pub fn namespaces(&self) -> Result<NamespaceTable, EngineError> {
        let host = nsview::host()?;
        let mut rows: Vec<NamespaceRow> = Vec::new();
        for container in self.containers()?.0.into_iter().filter(crate::Container::is_alive) {
            // It may end at any moment; then it lives nowhere.
            let Ok(own) = nsview::of(container.state.pid) else { continue };
            for ns in own {
                let member = (container.id.clone(), container.record.name.clone(), container.state.pid);
                match rows.iter_mut().find(|r| r.kind == ns.kind && r.inode == ns.inode) {
                    Some(row) => row.containers.push(member),
                    None => rows.push(NamespaceRow {
                        kind: ns.kind,
                        inode: ns.inode,
                        host: host.contains(&ns),
                        containers: vec![member],
                    }),
                }
            }
        }
        rows.sort_by_key(|r| (r.kind.proc_name(), r.inode));
        Ok(NamespaceTable { rows })
    }

    /// The eight namespaces of a running container beside the host's.
    pub fn container_namespaces(&self, id: &ContainerId) -> Result<Vec<NamespaceUse>, EngineError> {
        let table = self.namespaces()?;
        let host = nsview::host()?;
        let inode_of = |list: &[NsId], kind| list.iter().find(|n| n.kind == kind).map_or(0, |n| n.inode);
        let rows: Vec<NamespaceUse> = table
            .rows
            .iter()
            .filter(|row| row.containers.iter().any(|(member, ..)| member == id))
            .map(|row| NamespaceUse {
                kind: row.kind,
                inode: row.inode,
                host_inode: inode_of(&host, row.kind),
                shared_with: row
                    .containers
                    .iter()
                    .filter(|(member, ..)| member != id)
                    .map(|(member, name, _)| (member.clone(), name.clone()))
                    .collect(),
            })
            .collect();
        if rows.is_empty() {
            return Err(EngineError::WrongState {
                message: format!("container {id} is not running, so it has no namespaces"),
                hint: Some("start it with `dhow start`"),
            });
        }
        Ok(rows)
    }
}
