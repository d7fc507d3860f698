//! What the flags of `run` and `create` mean: from what was typed to a [`ContainerSpec`].

mod table;

pub(crate) use table::FLAGS;

use crate::config_file::ConfigFile;
use crate::error::CliError;
use crate::flags::Matches;
use crate::globals::variable;
use dhow_docker::{GrammarError, grammar};
use dhow_types::{
    ContainerSpec, ErrorKind, Healthcheck, LogConfig, MountSpec, NetworkMode, Resources, RestartPolicy,
    SecurityOptions, Signal,
};
use std::path::{Path, PathBuf};

/// When to pull the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    Missing,
    Never,
}

impl PullPolicy {
    pub(crate) fn parse(text: &str) -> Result<Self, GrammarError> {
        match text {
            "always" => Ok(Self::Always),
            "missing" | "" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            other => Err(GrammarError::Worded(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            ))),
        }
    }
}

/// Builds the spec. `m.args` is the image and the command.
pub(crate) fn build(m: &Matches, config: &ConfigFile) -> Result<ContainerSpec, CliError> {
    let mut args = m.args.iter().cloned();
    let image = args.next().unwrap_or_default();
    if image.is_empty() {
        return Err(CliError::failed(ErrorKind::Invalid, "invalid reference format: the image name is empty"));
    }
    let tty = m.on("tty");
    let open_stdin = m.on("interactive");
    let auto_remove = m.on("rm");
    let restart = m.parsed("restart", grammar::restart)?.unwrap_or_default();
    if auto_remove && restart != RestartPolicy::No {
        return Err(conflict("conflicting options: cannot specify both --restart and --rm"));
    }
    let uts_host = m.parsed("uts", uts)?.unwrap_or(false);
    if uts_host && m.given("hostname").is_some() {
        return Err(conflict("conflicting options: hostname and the UTS mode"));
    }
    Ok(ContainerSpec {
        image,
        name: m
            .parsed("name", |t| t.parse().map_err(|e: dhow_types::NameError| GrammarError::Worded(e.to_string())))?,
        // An empty entry point is a wish: it clears the image's.
        entrypoint: m.text("entrypoint").map(|e| if e.is_empty() { Vec::new() } else { vec![e.to_owned()] }),
        command: args.collect(),
        env: environment(m, config)?,
        workdir: m.parsed("workdir", workdir)?.filter(|w| !w.is_empty()),
        user: m.given("user"),
        hostname: m.given("hostname"),
        domainname: m.given("domainname"),
        labels: labels(m)?,
        tty,
        open_stdin,
        auto_remove,
        network: network(m)?,
        ports: m.each("publish", grammar::port)?.into_iter().flatten().collect(),
        publish_all: m.on("publish-all"),
        expose: m.each("expose", grammar::expose)?.into_iter().flatten().collect(),
        mounts: mounts(m)?,
        extra_hosts: m.each("add-host", grammar::add_host)?,
        dns: m.each("dns", address)?,
        dns_search: m.list("dns-search").map(str::to_owned).collect(),
        dns_options: m.list("dns-option").map(str::to_owned).collect(),
        resources: resources(m)?,
        security: security(m)?,
        init: m.on("init"),
        stop_signal: signal(m, "stop-signal")?,
        stop_timeout: m.number("stop-timeout")?,
        restart,
        healthcheck: healthcheck(m)?,
        log: LogConfig {
            driver: m.given("log-driver"),
            options: m.each("log-opt", |t| grammar::key_value("log option", t))?,
        },
        ipc: m.parsed("ipc", grammar::ipc_mode)?.unwrap_or_default(),
        pid: m.parsed("pid", grammar::pid_mode)?.unwrap_or_default(),
        uts_host,
        group_add: m.list("group-add").map(str::to_owned).collect(),
        sysctls: m.each("sysctl", |t| grammar::key_value("sysctl", t))?,
        shm_size: m.parsed("shm-size", grammar::bytes)?.filter(|n| *n > 0),
        platform: m.given("platform").or_else(|| variable("DOCKER_DEFAULT_PLATFORM")),
        annotations: m.each("annotation", |t| grammar::key_value("annotation", t))?,
        cidfile: m.given("cidfile").map(PathBuf::from),
        ..ContainerSpec::default()
    })
}

fn conflict(message: &str) -> CliError {
    CliError::failed(ErrorKind::Invalid, message)
}

/// A flag that is a signal by name or number. Docker's client leaves it to the daemon, so a wrong one is no usage error.
pub(crate) fn signal(m: &Matches, flag: &str) -> Result<Option<Signal>, CliError> {
    let wrong = |e: dhow_types::SignalError| CliError::failed(ErrorKind::Invalid, e.to_string());
    m.given(flag).map(|text| text.parse().map_err(wrong)).transpose()
}

fn uts(text: &str) -> Result<bool, GrammarError> {
    match text {
        "" => Ok(false),
        "host" => Ok(true),
        _ => Err(GrammarError::Worded("--uts: invalid UTS mode".to_owned())),
    }
}

fn address(text: &str) -> Result<std::net::IpAddr, GrammarError> {
    text.parse().map_err(|_| GrammarError::Worded(format!("{text} is not an ip address")))
}

fn workdir(text: &str) -> Result<String, GrammarError> {
    if text.is_empty() || text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(GrammarError::Worded(format!("the working directory '{text}' is invalid, it needs to be an absolute path")))
    }
}

/// Env files in order, then `-e`; proxies of the client's settings unless they are set.
fn environment(m: &Matches, config: &ConfigFile) -> Result<Vec<String>, CliError> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut out = env_files(m)?;
    // A bare name that the caller has not set says "without this variable".
    out.extend(
        m.each("env", |text| grammar::env_flag(text).map(|e| e.resolve(&lookup).unwrap_or_else(|| text.to_owned())))?,
    );
    let set = |name: &str| out.iter().any(|e| e.split_once('=').map_or(e.as_str(), |(k, _)| k) == name);
    let proxies: Vec<String> =
        config.proxy_env().into_iter().filter(|(k, _)| !set(k)).map(|(k, v)| format!("{k}={v}")).collect();
    out.extend(proxies);
    Ok(out)
}

/// The entries of every `--env-file`.
pub(crate) fn env_files(m: &Matches) -> Result<Vec<String>, CliError> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut out = Vec::new();
    for path in m.list("env-file") {
        let content = std::fs::read(path).map_err(CliError::io(format!("open {path}")))?;
        let entries = grammar::env_file(path, &content)?;
        out.extend(entries.into_iter().filter_map(|e| e.resolve(&lookup)));
    }
    Ok(out)
}

fn labels(m: &Matches) -> Result<Vec<(String, String)>, CliError> {
    let mut out = Vec::new();
    for path in m.list("label-file") {
        let content = std::fs::read(path).map_err(CliError::io(format!("open {path}")))?;
        out.extend(grammar::label_file(path, &content)?);
    }
    out.extend(m.each("label", grammar::label)?);
    Ok(out)
}

fn network(m: &Matches) -> Result<NetworkMode, CliError> {
    let given = m.each("network", grammar::network)?;
    if given.len() > 1 {
        return Err(CliError::flag("several --network are not supported yet"));
    }
    let Some(network) = given.into_iter().next() else { return Ok(NetworkMode::Bridge) };
    if !network.aliases.is_empty() || !network.addresses.is_empty() || network.mac.is_some() {
        return Err(CliError::flag("addresses and aliases in --network are not supported yet"));
    }
    Ok(network.mode)
}

fn mounts(m: &Matches) -> Result<Vec<MountSpec>, CliError> {
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let cwd: &Path = &cwd;
    let mut out = m.each("volume", |t| grammar::volume(t, cwd))?;
    out.extend(m.each("mount", |t| grammar::mount(t, cwd))?);
    out.extend(m.each("tmpfs", grammar::tmpfs)?);
    Ok(out)
}

fn resources(m: &Matches) -> Result<Resources, CliError> {
    let swap = |text: &str| match text {
        "-1" => Ok(-1),
        text => grammar::bytes(text).map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
    };
    let r = Resources {
        memory: m.parsed("memory", grammar::bytes)?.filter(|n| *n > 0),
        memory_swap: m.parsed("memory-swap", swap)?.filter(|n| *n != 0),
        memory_reservation: m.parsed("memory-reservation", grammar::bytes)?.filter(|n| *n > 0),
        nano_cpus: m.parsed("cpus", grammar::cpus)?.filter(|n| *n > 0),
        cpu_shares: m.number("cpu-shares")?.filter(|n| *n > 0),
        cpu_period: m.number("cpu-period")?.filter(|n| *n > 0),
        cpu_quota: m.number("cpu-quota")?.filter(|n| *n != 0),
        cpuset_cpus: m.given("cpuset-cpus"),
        cpuset_mems: m.given("cpuset-mems"),
        pids: m.number("pids-limit")?.filter(|n| *n > 0),
        blkio_weight: m.number("blkio-weight")?.filter(|n| *n > 0),
        ulimits: m.each("ulimit", grammar::ulimit)?,
        oom_score_adj: m.number("oom-score-adj")?.filter(|n| *n != 0),
    };
    // Counting CPUs reads a dozen cgroup files: only when the answer matters.
    let cpus = match r.nano_cpus {
        Some(_) => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        None => 1,
    };
    grammar::check_resources(&r, cpus as u64)?;
    Ok(r)
}

fn security(m: &Matches) -> Result<SecurityOptions, CliError> {
    let mut out = SecurityOptions {
        privileged: m.on("privileged"),
        cap_add: m.each("cap-add", grammar::cap)?,
        cap_drop: m.each("cap-drop", grammar::cap)?,
        read_only_rootfs: m.on("read-only"),
        ..SecurityOptions::default()
    };
    m.each("security-opt", |text| grammar::security_opt(text, &mut out, &|path: &str| std::fs::read_to_string(path)))?;
    Ok(out)
}

fn healthcheck(m: &Matches) -> Result<Option<Healthcheck>, CliError> {
    let command = m.given("health-cmd");
    let duration = |flag| m.parsed(flag, grammar::duration).map(Option::unwrap_or_default);
    let probe = Healthcheck {
        test: command.map(|c| vec!["CMD-SHELL".to_owned(), c]).unwrap_or_default(),
        interval: duration("health-interval")?,
        timeout: duration("health-timeout")?,
        start_period: duration("health-start-period")?,
        start_interval: duration("health-start-interval")?,
        retries: m.number("health-retries")?.unwrap_or(0),
    };
    let given = probe != Healthcheck::default();
    if m.on("no-healthcheck") {
        if given {
            return Err(conflict("--no-healthcheck conflicts with --health-* options"));
        }
        return Ok(Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }));
    }
    Ok(given.then_some(probe))
}

#[cfg(test)]
mod tests;
