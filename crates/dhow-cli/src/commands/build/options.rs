//! From flags to what the builder is asked.

use super::super::{invalid, pull};
use super::context::is_remote;
use super::grammar;
use crate::config_file::ConfigFile;
use crate::error::CliError;
use crate::flags::Matches;
use crate::globals::variable;
use crate::out;
use dhow_docker::grammar as docker;
use dhow_engine::{
    BuildOptions, BuildRequest, Entitlements, Exports, MAX_SECRET, RunLimits, SecretReader, SecretSource, SecretSpec,
};
use dhow_types::{Digest, ErrorKind, Platform, Reference, Resources};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What the instructions are carried out with.
pub(super) fn options(m: &Matches, config: &ConfigFile) -> Result<BuildOptions, CliError> {
    check_builder(m.text("builder"))?;
    let build_args = build_args(m, config);
    let tag = |text: &str| -> Result<Reference, CliError> { Ok(text.parse::<Reference>()?.with_default_tag()) };
    let network = network(m.text("network").unwrap_or_default())?;
    let platforms = platforms(m)?;
    let hosts = m.each("add-host", docker::add_host)?.into_iter();
    Ok(BuildOptions {
        tags: m.list("tag").map(tag).collect::<Result<Vec<_>, _>>()?,
        labels: m.each("label", docker::label)?,
        no_cache: m.on("no-cache"),
        no_cache_filter: stages(m),
        pull: m.on("pull"),
        target: m.given("target"),
        entitlements: entitlements(m, &network)?,
        network,
        platform: platforms.first().filter(|_| platforms.len() == 1).cloned(),
        source_date_epoch: epoch(&build_args)?,
        build_args,
        extra_hosts: hosts.map(|h| (h.name, h.address.map_or("host-gateway".to_owned(), |a| a.to_string()))).collect(),
        contexts: m.each("build-context", |text| grammar::named_context(text, &is_remote))?,
        limits: limits(m)?,
        explain: m.on("explain"),
        ..BuildOptions::default()
    })
}

/// What surrounds the instructions.
pub(super) fn request(m: &Matches) -> Result<BuildRequest, CliError> {
    let texts = |name: &str| m.list(name).filter(|t| !t.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let mut outputs = texts("output");
    // Without any output the image is loaded anyway.
    if m.on("load") && (m.on("push") || !outputs.is_empty()) {
        outputs.push("type=docker".to_owned());
    }
    if m.on("push") {
        outputs.push("type=registry".to_owned());
    }
    no_attestation(m)?;
    let secrets = m.each("secret", |text| grammar::secret(text, &|name| std::env::var_os(name).is_some()))?;
    for secret in &secrets {
        check_secret(secret)?;
    }
    let verify = m.given("verify").map(|text| {
        text.parse::<Digest>()
            .map_err(|e| CliError::flag(format!("invalid argument {text:?} for \"--verify\" flag: {e}")))
    });
    let stdout = stdout(&outputs)?;
    Ok(BuildRequest {
        outputs,
        stdout,
        cache_from: texts("cache-from"),
        cache_to: texts("cache-to"),
        secret_reader: if secrets.is_empty() { None } else { Some(Arc::new(Secrets)) },
        secrets,
        ssh: m.each("ssh", |text| grammar::ssh(text, variable("SSH_AUTH_SOCK")))?,
        metadata_file: m.given("metadata-file").map(PathBuf::from),
        annotations: texts("annotation"),
        platforms: platforms(m)?,
        verify: verify.transpose()?,
    })
}

/// Standard output, when an output goes there. An archive on a terminal is never meant.
fn stdout(outputs: &[String]) -> Result<Option<std::fs::File>, CliError> {
    use std::os::fd::AsFd;
    if !Exports::parse(outputs, &[], None)?.uses_stdout() {
        return Ok(None);
    }
    if out::is_terminal() {
        return Err(invalid("dest file is required: refusing to write an archive to the terminal".to_owned()));
    }
    let fd = std::io::stdout().as_fd().try_clone_to_owned().map_err(CliError::io("cannot use standard output"))?;
    Ok(Some(fd.into()))
}

/// There is one builder.
pub(super) fn check_builder(flag: Option<&str>) -> Result<(), CliError> {
    let named = flag.map(str::to_owned).or_else(|| variable("BUILDX_BUILDER")).unwrap_or_default();
    match named.as_str() {
        "" | "default" => Ok(()),
        other => Err(CliError::failed(ErrorKind::NotFound, format!("no builder {other:?} found"))
            .with_hint("dhow builds by itself: leave --builder and BUILDX_BUILDER out, or say default")),
    }
}

fn build_args(m: &Matches, config: &ConfigFile) -> Vec<(String, String)> {
    let mut out = config.proxy_env();
    for text in m.list("build-arg") {
        match text.split_once('=') {
            Some((key, value)) => out.push((key.to_owned(), value.to_owned())),
            // Without a value it is the caller's own; not set there means not given.
            None => out.extend(std::env::var(text).ok().map(|value| (text.to_owned(), value))),
        }
    }
    out
}

fn epoch(build_args: &[(String, String)]) -> Result<Option<i64>, CliError> {
    let given = build_args.iter().rev().find(|(k, _)| k == "SOURCE_DATE_EPOCH").map(|(_, v)| v.clone());
    let given = given.filter(|v| !v.is_empty()).or_else(|| variable("SOURCE_DATE_EPOCH"));
    let parse = |text: String| {
        text.parse().map_err(|_| invalid(format!("invalid SOURCE_DATE_EPOCH: {text:?} is no number of seconds")))
    };
    given.map(parse).transpose()
}

/// Every platform once, in order. `local` is this machine's.
fn platforms(m: &Matches) -> Result<Vec<Platform>, CliError> {
    let typed: Vec<&str> = m.list("platform").flat_map(|t| t.split(',')).filter(|t| !t.is_empty()).collect();
    let default = if typed.is_empty() { variable("DOCKER_DEFAULT_PLATFORM") } else { None };
    let mut out = Vec::new();
    for text in typed.into_iter().chain(default.as_deref()) {
        let platform = if text == "local" { Platform::host() } else { pull::platform(text)? };
        if !out.contains(&platform) {
            out.push(platform);
        }
    }
    Ok(out)
}

fn stages(m: &Matches) -> Vec<String> {
    let names = m.list("no-cache-filter").flat_map(|t| t.split(','));
    names.map(|n| n.trim().to_ascii_lowercase()).filter(|n| !n.is_empty()).collect()
}

fn network(text: &str) -> Result<String, CliError> {
    match text {
        "" | "default" | "bridge" => Ok(String::new()),
        "host" | "none" => Ok(text.to_owned()),
        other => Err(CliError::flag(format!("--network {other} is not supported yet"))),
    }
}

fn entitlements(m: &Matches, network: &str) -> Result<Entitlements, CliError> {
    // Who gives every command the host's network has allowed it.
    let mut out = Entitlements { host_network: network == "host", insecure: false };
    for name in m.list("allow").flat_map(|t| t.split(',')).filter(|t| !t.is_empty()) {
        match name {
            "network.host" => out.host_network = true,
            "security.insecure" => out.insecure = true,
            "device" => return Err(CliError::flag("--allow device is not supported yet")),
            other => return Err(CliError::flag(format!("invalid entitlement: {other}"))),
        }
    }
    Ok(out)
}

fn limits(m: &Matches) -> Result<RunLimits, CliError> {
    let mut out = RunLimits {
        ulimits: m.each("ulimit", docker::ulimit)?.into_iter().map(|u| (u.name, u.soft, u.hard)).collect(),
        shm_size: m.parsed("shm-size", grammar::size)?.flatten(),
        cgroup_parent: m.given("cgroup-parent"),
        ..RunLimits::default()
    };
    m.each("resource", |text| grammar::resource(text, &mut out))?;
    out.memory = m.parsed("memory", grammar::size)?.unwrap_or(out.memory);
    out.memory_swap = m.parsed("memory-swap", grammar::swap)?.unwrap_or(out.memory_swap);
    out.cpu_shares = m.parsed("cpu-shares", grammar::number)?.unwrap_or(out.cpu_shares);
    out.cpu_period = m.parsed("cpu-period", grammar::number)?.unwrap_or(out.cpu_period);
    out.cpu_quota = m.parsed("cpu-quota", grammar::number)?.unwrap_or(out.cpu_quota);
    out.cpuset_cpus = m.given("cpuset-cpus").or(out.cpuset_cpus);
    out.cpuset_mems = m.given("cpuset-mems").or(out.cpuset_mems);
    let rules = Resources {
        memory: out.memory,
        memory_swap: out.memory_swap,
        cpu_shares: out.cpu_shares,
        cpu_period: out.cpu_period,
        cpu_quota: out.cpu_quota,
        ..Resources::default()
    };
    docker::check_resources(&rules, 1)?;
    Ok(out)
}

/// Attestations are not made; saying so is what many scripts do.
fn no_attestation(m: &Matches) -> Result<(), CliError> {
    let off = |text: &str| text == "false" || text.split(',').any(|f| f == "disabled=true");
    for flag in ["attest", "provenance", "sbom"] {
        if m.list(flag).any(|text| !off(text)) {
            return Err(CliError::flag(format!("--{flag} is not supported yet")));
        }
    }
    Ok(())
}

/// A file that is not there is found out before the build, as Docker does.
fn check_secret(secret: &SecretSpec) -> Result<(), CliError> {
    let SecretSource::File(path) = &secret.source else { return Ok(()) };
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|e| {
        CliError::failed(ErrorKind::NotFound, format!("failed to stat {shown} for secret {:?}: {e}", secret.id))
    })?;
    if meta.is_dir() || meta.len() > MAX_SECRET {
        let why = if meta.is_dir() { "is a directory" } else { "is larger than 500 KiB" };
        return Err(invalid(format!("invalid secret {:?}: {shown} {why}", secret.id)));
    }
    Ok(())
}

/// Reads secrets from files and from this process's environment.
struct Secrets;

impl SecretReader for Secrets {
    fn read(&self, secret: &SecretSpec) -> io::Result<Vec<u8>> {
        let value = match &secret.source {
            SecretSource::Env(name) => std::env::var_os(name)
                .map(OsStringExt::into_vec)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the variable {name} is not set")))?,
            SecretSource::File(path) => {
                let mut value = Vec::new();
                std::fs::File::open(path)?.take(MAX_SECRET + 1).read_to_end(&mut value)?;
                value
            }
        };
        if value.len() as u64 > MAX_SECRET {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the secret is larger than 500 KiB"));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;

    fn matches(args: &[&str]) -> Matches {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        parse(&[super::super::flags::FLAGS], true, args).unwrap()
    }

    fn both(args: &[&str]) -> Result<(BuildOptions, BuildRequest), CliError> {
        let m = matches(args);
        Ok((options(&m, &ConfigFile::default())?, request(&m)?))
    }

    #[test]
    fn everything_is_understood() {
        let (o, r) = both(&[
            "-t",
            "a",
            "-t",
            "b:1",
            "--build-arg",
            "X=1",
            "--label",
            "k=v",
            "--no-cache-filter",
            "One,two",
            "--allow",
            "network.host,security.insecure",
            "--platform",
            "linux/amd64,linux/arm64",
            "--platform",
            "amd64",
            "--ulimit",
            "nofile=10:20",
            "--shm-size",
            "1m",
            "--memory",
            "32m",
            "--resource",
            "memory=64m,cpu-shares=5",
            "--explain",
            "--build-context",
            "x=docker-image://y",
            "--push",
            "--load",
            "-o",
            "out",
            "--cache-from",
            "c",
            "--cache-to",
            "type=inline",
            "--secret",
            "id=s,src=/etc/passwd",
            "--ssh",
            "default=/run/agent",
            "--annotation",
            "a=b",
            "--metadata-file",
            "m.json",
            "--provenance=false",
            "--sbom=false",
            "--attest",
            "type=sbom,disabled=true",
            "--builder",
            "default",
            "--verify",
            "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ])
        .unwrap();
        assert_eq!(o.tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:latest", "b:1"]);
        assert_eq!(o.no_cache_filter, ["one", "two"]);
        assert!(o.entitlements.host_network && o.entitlements.insecure && o.explain);
        assert_eq!((o.platform, r.platforms.len()), (None, 2));
        assert_eq!(o.limits.ulimits, [("nofile".to_owned(), 10, 20)]);
        assert_eq!((o.limits.shm_size, o.limits.memory, o.limits.cpu_shares), (Some(1 << 20), Some(32 << 20), Some(5)));
        assert_eq!(r.outputs, ["out", "type=docker", "type=registry"]);
        assert_eq!((r.cache_from, r.cache_to), (vec!["c".to_owned()], vec!["type=inline".to_owned()]));
        assert_eq!((r.secrets.len(), r.ssh.len(), r.annotations.len()), (1, 1, 1));
        assert!(r.verify.is_some() && r.secret_reader.is_some());
    }

    #[test]
    fn nothing_is_nothing() {
        let (o, r) = both(&["--load", "--memory=0", "--cpu-quota", "0", "--network", "default"]).unwrap();
        assert_eq!((o.limits, o.entitlements), (RunLimits::default(), Entitlements::default()));
        assert!(r.outputs.is_empty() && r.secrets.is_empty() && r.secret_reader.is_none());
        assert!(both(&["--network", "host"]).unwrap().0.entitlements.host_network);
    }

    #[test]
    fn complaints() {
        for bad in [
            &["--builder", "other"][..],
            &["--allow", "device"],
            &["--allow", "everything"],
            &["--memory", "1m"],
            &["--memory", "x"],
            &["--attest", "type=sbom"],
            &["--provenance", "mode=max"],
            &["--verify", "sha256:12"],
            &["--platform", "a/b/c/d"],
            &["--secret", "id=x,src=/no/such/file"],
            &["--secret", "id=x,src=/"],
            &["--network", "other"],
        ] {
            assert!(both(bad).is_err(), "{bad:?}");
        }
    }
}
