//! The crate's error.

use crate::net::Ipv4Net;
use crate::netlink::NetlinkError;
use dhow_types::{Categorized, ContainerId, ErrorKind, PortProtocol};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// What can go wrong with a container's network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused a change or a question.
    #[error("cannot {operation} {object}")]
    Kernel {
        /// What was tried, "create bridge".
        operation: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: NetlinkError,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}", .path.display())]
    Io {
        /// What was tried, "write".
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record of this crate cannot be used.
    #[error("{}: {reason}", .path.display())]
    Record {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A name for a link or a table that the kernel or a path would not take.
    #[error("invalid network device or table name {0:?}")]
    BadName(String),
    /// A link of the bridge's name exists and is something else.
    #[error("network device {name} exists and is not a bridge, but {kind}")]
    NotABridge {
        /// Name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// Containers hold addresses or ports of a bridge that shall go.
    #[error("bridge {name} is in use by {containers} container(s)")]
    InUse {
        /// Name.
        name: String,
        /// How many.
        containers: usize,
    },
    /// Every private network overlaps a route of the host.
    #[error("no free subnet: every candidate overlaps an address or a route of this host")]
    NoSubnet,
    /// All addresses are in use.
    #[error("no free address in {subnet}")]
    SubnetFull {
        /// The bridge's subnet.
        subnet: Ipv4Net,
    },
    /// Somebody else has the port. The words are Docker's, because scripts match them.
    #[error("{}", port_in_use(.host_ip.as_ref(), *.port, *.protocol, .holder.is_some()))]
    PortInUse {
        /// Host address asked for; `None` is every address.
        host_ip: Option<IpAddr>,
        /// Host port.
        port: u16,
        /// Protocol.
        protocol: PortProtocol,
        /// The container that has it.
        holder: Option<ContainerId>,
        /// The process that has it, if it is none of ours and could be found.
        process: Option<HolderProcess>,
    },
    /// Every port of a range is taken.
    #[error("no free port in {first}-{last}/{} on {}", .protocol.name(), Host(.host_ip.as_ref()))]
    RangeInUse {
        /// Host address asked for.
        host_ip: Option<IpAddr>,
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// Protocol.
        protocol: PortProtocol,
    },
    /// The host does not have the address.
    #[error("cannot publish on {host_ip}: this host does not have that address")]
    NotLocal {
        /// Host address asked for.
        host_ip: IpAddr,
    },
    /// A socket for the port cannot be had for another reason.
    #[error("cannot reserve port {port}/{} on {}", .protocol.name(), Host(.host_ip.as_ref()))]
    Reserve {
        /// Host address asked for.
        host_ip: Option<IpAddr>,
        /// Host port; 0 is an ephemeral one.
        port: u16,
        /// Protocol.
        protocol: PortProtocol,
        /// Why not.
        source: io::Error,
    },
    /// Publishing on an IPv6 address is not done yet.
    #[error("publishing on the IPv6 address {host_ip} is not supported")]
    Ipv6 {
        /// Host address asked for.
        host_ip: IpAddr,
    },
    /// A range whose end is below its start, or a port 0.
    #[error("invalid port range {first}-{last}")]
    BadRange {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// The lease does not belong to this bridge.
    #[error("address {address} is not in {subnet}")]
    ForeignAddress {
        /// The address.
        address: Ipv4Addr,
        /// The bridge's subnet.
        subnet: Ipv4Net,
    },
    /// `eth0` is missing where it should have been put.
    #[error("no network device {0} in this network namespace")]
    NoDevice(&'static str),
}

/// A process that has a port open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderProcess {
    /// Process id.
    pub pid: u32,
    /// Short command name (`/proc/PID/comm`).
    pub name: String,
}

impl fmt::Display for HolderProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

struct Host<'a>(Option<&'a IpAddr>);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ip) => ip.fmt(f),
            None => f.write_str("0.0.0.0"),
        }
    }
}

fn port_in_use(host_ip: Option<&IpAddr>, port: u16, protocol: PortProtocol, container: bool) -> String {
    let host = Host(host_ip);
    if container {
        format!("Bind for {host}:{port} failed: port is already allocated")
    } else {
        format!("failed to bind host port {host}:{port}/{}: address already in use", protocol.name())
    }
}

impl Categorized for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Kernel { .. } | Self::Io { .. } | Self::Reserve { .. } | Self::NoDevice(_) => ErrorKind::Internal,
            Self::Record { .. } => ErrorKind::Corrupt,
            Self::BadName(_) | Self::NotLocal { .. } | Self::BadRange { .. } | Self::ForeignAddress { .. } => {
                ErrorKind::Invalid
            }
            Self::NotABridge { .. } | Self::InUse { .. } | Self::PortInUse { .. } | Self::RangeInUse { .. } => {
                ErrorKind::Conflict
            }
            Self::NoSubnet | Self::SubnetFull { .. } => ErrorKind::Exhausted,
            Self::Ipv6 { .. } => ErrorKind::Unsupported,
        }
    }

    fn hint(&self) -> Option<String> {
        let port_free = "or publish another host port";
        Some(match self {
            Self::PortInUse { holder: Some(id), port, .. } => {
                format!("port {port} is held by container {}; stop it {port_free}", id.short())
            }
            Self::PortInUse { process: Some(process), port, .. } => {
                format!("port {port} is held by {process}; stop it {port_free}")
            }
            Self::PortInUse { port, .. } => {
                format!("port {port} is held by a process of this host; find it with `ss -lnp` {port_free}")
            }
            Self::RangeInUse { .. } => "publish a wider range, or no host port for a free one".to_owned(),
            Self::NotLocal { .. } => "list the host's addresses with `ip address`".to_owned(),
            Self::Ipv6 { .. } => "publish on an IPv4 address, or without an address".to_owned(),
            Self::SubnetFull { .. } => "remove containers that are no longer used".to_owned(),
            Self::NoSubnet => "free one of 172.17.0.0/16 to 172.31.0.0/16, 192.168.0.0/16 or 10.0.0.0/8".to_owned(),
            Self::NotABridge { name, .. } => format!("rename or delete the network device {name}"),
            Self::Kernel { source, .. } if source.is(rustix::io::Errno::PERM) => "run as root".to_owned(),
            Self::Kernel { source, .. }
                if source.is(rustix::io::Errno::OPNOTSUPP) || source.is(rustix::io::Errno::PROTONOSUPPORT) =>
            {
                "the kernel lacks a feature: bridge, veth, nf_tables with nat, masq, fib and ct are needed".to_owned()
            }
            _ => return None,
        })
    }
}

/// Adds what was tried to a failed conversation.
pub(crate) trait Context<T> {
    /// `operation` on `object` failed.
    fn during(self, operation: &'static str, object: impl fmt::Display) -> Result<T, NetworkError>;
}

impl<T> Context<T> for Result<T, NetlinkError> {
    fn during(self, operation: &'static str, object: impl fmt::Display) -> Result<T, NetworkError> {
        self.map_err(|source| NetworkError::Kernel { operation, object: object.to_string(), source })
    }
}

/// Adds what was tried to a failed file operation.
pub(crate) trait PathContext<T> {
    /// `operation` on `path` failed.
    fn on(self, operation: &'static str, path: &std::path::Path) -> Result<T, NetworkError>;
}

impl<T, E: Into<io::Error>> PathContext<T> for Result<T, E> {
    fn on(self, operation: &'static str, path: &std::path::Path) -> Result<T, NetworkError> {
        self.map_err(|e| NetworkError::Io { operation, path: path.to_owned(), source: e.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_that_scripts_match() {
        let mut error = NetworkError::PortInUse {
            host_ip: None,
            port: 8080,
            protocol: PortProtocol::Tcp,
            holder: Some(ContainerId::from_random([0xab; 32])),
            process: None,
        };
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
        assert!(error.hint().unwrap().contains("abababababab"));
        if let NetworkError::PortInUse { holder, process, .. } = &mut error {
            *holder = None;
            *process = Some(HolderProcess { pid: 812, name: "nginx".to_owned() });
        }
        assert!(error.to_string().ends_with("address already in use"));
        assert!(error.hint().unwrap().contains("process 812 (nginx)"));
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}
