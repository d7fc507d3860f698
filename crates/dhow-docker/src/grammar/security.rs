//! Confinement flags.

use crate::GrammarError;
use crate::error::clip;
use dhow_types::{SeccompChoice, SecurityOptions};

/// A capability, upper case with `CAP_`, or `ALL`. Whether the kernel has it is for the runtime to say.
pub fn cap(text: &str) -> Result<String, GrammarError> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare.is_empty() || !bare.bytes().all(|c| c.is_ascii_uppercase() || c == b'_' || c.is_ascii_digit()) {
        return Err(GrammarError::Worded(format!("invalid capability: {:?}", clip(text))));
    }
    Ok(if bare == "ALL" { "ALL".to_owned() } else { format!("CAP_{bare}") })
}

/// `--device SRC[:DST][:rwm]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path on the host.
    pub host: String,
    /// Path in the container.
    pub container: String,
    /// Letters of `rwm`.
    pub permissions: String,
}

/// Parses a device that is a path; `None` when the text is a CDI name (`vendor/class=device`).
pub fn device(text: &str) -> Result<Option<Device>, GrammarError> {
    if !text.starts_with('/') && text.contains('=') {
        return Ok(None);
    }
    let is_mode = |t: &str| !t.is_empty() && t.bytes().all(|c| b"rwm".contains(&c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if is_mode(mode) => (*host, *container, *mode),
        _ => return Err(GrammarError::Worded(format!("invalid device specification: {}", clip(text)))),
    };
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(GrammarError::Worded(format!("bad format for path: {}", clip(text))));
    }
    let owned = str::to_owned;
    Ok(Some(Device { host: owned(host), container: owned(container), permissions: owned(permissions) }))
}

/// One `--security-opt`, entered into `out`. `read` returns the content of a seccomp profile file.
pub fn security_opt(
    text: &str,
    out: &mut SecurityOptions,
    read: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<(), GrammarError> {
    let bad = || GrammarError::Worded(format!("invalid --security-opt: {:?}", clip(text)));
    // The colon is Docker's old separator.
    let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    match (key, value) {
        ("no-new-privileges", None | Some("true")) => out.no_new_privileges = true,
        ("no-new-privileges", Some("false")) => out.no_new_privileges = false,
        ("seccomp", Some("unconfined")) => out.seccomp = SeccompChoice::Unconfined,
        ("seccomp", Some("builtin")) => out.seccomp = SeccompChoice::Default,
        ("seccomp", Some(path)) if !path.is_empty() => {
            let content = read(path)
                .map_err(|source| GrammarError::File { path: format!("seccomp profile {}", clip(path)), source })?;
            out.seccomp = SeccompChoice::Profile(content);
        }
        ("apparmor", Some(profile)) if !profile.is_empty() => out.apparmor = Some(profile.to_owned()),
        ("systempaths", Some("unconfined")) => out.unmasked = true,
        // Without SELinux there is nothing to switch off, and nothing else that a label could mean.
        ("label", Some("disable")) => {}
        ("label", Some(_)) => return Err(GrammarError::Unsupported("--security-opt label (SELinux)".to_owned())),
        ("writable-cgroups", _) => {
            return Err(GrammarError::Unsupported("--security-opt writable-cgroups".to_owned()));
        }
        _ => return Err(bad()),
    }
    out.as_typed.push(text.to_owned());
    Ok(())
}
