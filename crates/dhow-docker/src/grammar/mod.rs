//! The texts that Docker's flags take, as our nouns.
//!
//! Every function is pure: text in, noun or [`GrammarError`](crate::GrammarError) out. Files that a flag names are read
//! by the caller (or through a closure it gives), environment variables are looked up through one.

mod csv;
mod files;
mod host;
mod limits;
mod mount;
mod port;
mod security;

pub use files::{EnvEntry, env_file, env_flag, label, label_file};
pub use host::{NetworkAttachment, add_host, ipc_mode, key_value, network, pid_mode, restart};
pub use limits::{bytes, check_resources, cpus, decimal_bytes, duration, ulimit};
pub use mount::{mount, tmpfs, volume};
pub use port::{expose, port};
pub use security::{Device, cap, device, security_opt};

pub use csv::split as split_csv;

#[cfg(test)]
mod tests;
