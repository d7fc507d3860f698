//! Profiles in Docker's JSON format, `--security-opt seccomp=FILE`.
//!
//! The format is the OCI runtime specification's `linux.seccomp` with three additions: `archMap`, and `includes` and
//! `excludes` on each entry. Their meaning, and the texts of errors that scripts may match, are Docker's.

use super::SeccompError;
use super::arch::{Arch, go_name};
use super::rules::{Action, Condition, Op, Rule, Rules};
use super::syscalls;
use crate::caps::Set;
use serde::Deserialize;

/// Longest profile in bytes; Docker's own default has 14 KiB.
const MAX_LENGTH: usize = 4 << 20;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    default_action: Option<String>,
    default_errno_ret: Option<u32>,
    architectures: Vec<String>,
    arch_map: Vec<ArchMap>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What a profile asks for on one host.
pub(super) struct Resolved {
    /// `None`: the profile confines nothing.
    pub(super) rules: Option<Rules>,
    /// Flags for seccomp(2); `None` where the profile is silent.
    pub(super) flags: Option<u32>,
}

/// Reads a profile for a host with kernel `kernel` and a container with the bounding set `caps`.
pub(super) fn resolve(json: &str, caps: Set, kernel: (u32, u32)) -> Result<Resolved, SeccompError> {
    if json.len() > MAX_LENGTH {
        return Err(invalid("the profile is longer than 4 MiB"));
    }
    if !json.trim_start().starts_with('{') {
        // serde would read an array as a structure's fields in order.
        return Err(SeccompError::Decode(serde::de::Error::custom("a profile is a JSON object")));
    }
    let document: Document = serde_json::from_str(json).map_err(SeccompError::Decode)?;
    let flags = document.flags.map(|names| flags(&names)).transpose()?;
    let entries = document.syscalls.unwrap_or_default();
    let Some(default) = document.default_action.filter(|a| !a.is_empty()) else {
        // Docker: neither a default action nor calls means no confinement.
        return match entries.is_empty() {
            true => Ok(Resolved { rules: None, flags }),
            false => Err(invalid("defaultAction is missing")),
        };
    };
    if document.listener_path.is_some_and(|p| !p.is_empty()) {
        return Err(invalid("listenerPath is not supported"));
    }
    if !document.architectures.is_empty() && !document.arch_map.is_empty() {
        return Err(invalid(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
        ));
    }
    let default = action(&default, document.default_errno_ret)?;
    let arches = arches(&document.architectures, &document.arch_map);
    let mut rules = Vec::new();
    for entry in entries {
        resolve_entry(entry, caps, kernel, &mut rules)?;
    }
    Ok(Resolved { rules: Some(Rules { arches, default, rules }), flags })
}

/// This host's own ABI, and those of its others that the profile names.
fn arches(list: &[String], map: &[ArchMap]) -> Vec<Arch> {
    let Some((native, others)) = Arch::host().split_first() else { return Vec::new() };
    let from_map = map.iter().find(|m| m.architecture == native.profile_name());
    let named = match from_map {
        Some(map) => map.sub_architectures.as_deref().unwrap_or_default(),
        None => list,
    };
    let mut arches = vec![*native];
    arches.extend(others.iter().filter(|a| named.iter().any(|n| n == a.profile_name())));
    arches
}

fn resolve_entry(entry: Entry, caps: Set, kernel: (u32, u32), rules: &mut Vec<Rule>) -> Result<(), SeccompError> {
    let mut names = entry.names.unwrap_or_default();
    if let Some(name) = entry.name.filter(|n| !n.is_empty()) {
        if !names.is_empty() {
            return Err(invalid(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
            ));
        }
        names.push(name);
    }
    let action = action(&entry.action, entry.errno_ret)?;
    let conditions = conditions(entry.args.unwrap_or_default())?;
    if !applies(entry.includes.as_ref(), entry.excludes.as_ref(), caps, kernel)? {
        return Ok(());
    }
    for name in names {
        // Names of other hosts' ABIs, or of kernels to come, are no error: profiles serve many hosts.
        let Some(call) = syscalls::find(&name) else { continue };
        // More than one condition on an argument cannot be said in libseccomp; runtimes make each a rule of its own.
        let repeated = conditions.iter().enumerate().any(|(at, c)| conditions[..at].iter().any(|d| d.index == c.index));
        if repeated {
            rules.extend(conditions.iter().map(|c| Rule { call, conditions: vec![*c], action }));
        } else {
            rules.push(Rule { call, conditions: conditions.clone(), action });
        }
    }
    Ok(())
}

/// Every kind of include must be met (all capabilities, this architecture, this kernel); any exclude that is met excludes.
fn applies(
    includes: Option<&Filter>,
    excludes: Option<&Filter>,
    caps: Set,
    kernel: (u32, u32),
) -> Result<bool, SeccompError> {
    let holds = |name: &String| crate::caps::number(name).is_ok_and(|n| name.starts_with("CAP_") && caps.contains(n));
    let here = |arches: &[String]| arches.iter().any(|a| a == go_name());
    let met = |f: &Filter| -> Result<bool, SeccompError> {
        Ok(f.arches.as_deref().is_some_and(here)
            || f.caps.as_ref().is_some_and(|c| c.iter().any(holds))
            || at_least(f.min_kernel.as_deref(), kernel)? == Some(true))
    };
    let missed = |f: &Filter| -> Result<bool, SeccompError> {
        Ok(f.arches.as_deref().is_some_and(|a| !a.is_empty() && !here(a))
            || f.caps.as_ref().is_some_and(|c| !c.iter().all(holds))
            || at_least(f.min_kernel.as_deref(), kernel)? == Some(false))
    };
    let excluded = excludes.map(met).transpose()?.unwrap_or(false);
    let not_included = includes.map(missed).transpose()?.unwrap_or(false);
    Ok(!excluded && !not_included)
}

/// Compares `major.minor` with the running kernel.
fn at_least(version: Option<&str>, kernel: (u32, u32)) -> Result<Option<bool>, SeccompError> {
    let Some(text) = version.filter(|v| !v.is_empty()) else { return Ok(None) };
    let parsed = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let wanted: (u32, u32) = parsed.ok_or_else(|| invalid(format!("invalid kernel version: {text:?}")))?;
    Ok(Some(kernel >= wanted))
}

fn conditions(args: Vec<Argument>) -> Result<Vec<Condition>, SeccompError> {
    args.into_iter()
        .map(|a| {
            if a.index > 5 {
                return Err(invalid(format!("invalid argument index {}: a call has six arguments", a.index)));
            }
            let (op, value) = match a.op.as_str() {
                "SCMP_CMP_NE" => (Op::Ne, a.value),
                "SCMP_CMP_LT" => (Op::Lt, a.value),
                "SCMP_CMP_LE" => (Op::Le, a.value),
                "SCMP_CMP_EQ" => (Op::Eq, a.value),
                "SCMP_CMP_GE" => (Op::Ge, a.value),
                "SCMP_CMP_GT" => (Op::Gt, a.value),
                "SCMP_CMP_MASKED_EQ" => (Op::MaskedEq(a.value), a.value_two),
                other => return Err(invalid(format!("invalid comparison {other:?}"))),
            };
            Ok(Condition { index: a.index, op, value, narrow: false })
        })
        .collect()
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, SeccompError> {
    let data = || {
        let number = errno.unwrap_or(libc::EPERM as u32);
        // MAX_ERRNO: the kernel caps what is above.
        u16::try_from(number).ok().filter(|n| *n <= 4095).ok_or_else(|| invalid(format!("invalid errnoRet {number}")))
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::ALLOW,
        "SCMP_ACT_ERRNO" => Action::errno(data()?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS,
        "SCMP_ACT_TRAP" => Action::TRAP,
        "SCMP_ACT_TRACE" => Action::trace(data()?),
        "SCMP_ACT_LOG" => Action::LOG,
        "SCMP_ACT_NOTIFY" => return Err(invalid("SCMP_ACT_NOTIFY is not supported")),
        other => return Err(invalid(format!("invalid action {other:?}"))),
    })
}

fn flags(names: &[String]) -> Result<u32, SeccompError> {
    names.iter().try_fold(0, |flags, name| {
        Ok(flags
            | match name.as_str() {
                "SECCOMP_FILTER_FLAG_LOG" => dhow_sys::seccomp::FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => dhow_sys::seccomp::FLAG_SPEC_ALLOW,
                // One thread needs no synchronising.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                other => return Err(invalid(format!("unsupported flag {other:?}"))),
            })
    })
}

fn invalid(reason: impl Into<String>) -> SeccompError {
    SeccompError::Invalid { reason: reason.into() }
}
