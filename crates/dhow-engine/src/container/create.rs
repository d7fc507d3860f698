//! Creating a container: the merge of request and image (run-semantics, section 2), written as one atomic step.

use super::record::{self, HostRecord, ImageUse, MountRecord, ProcessRecord, PublishRecord, Record, State, VERSION};
use crate::files;
use crate::live::Live;
use crate::paths::{CONFIG, STATE};
use crate::{Engine, EngineError};
use dhow_network::files::is_host_name;
use dhow_oci::image::{ExecConfig, HealthConfig};
use dhow_store::ImageRecord;
use dhow_types::{
    Categorized, ContainerId, ContainerName, ContainerSpec, ErrorKind, MountSpec, NetworkMode, PidMode, Platform,
    Timestamp,
};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A container that exists now.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// What the caller should know.
    pub warnings: Vec<String>,
}

/// Docker's `PATH` for images that set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Docker's default size of `/dev/shm`.
pub(crate) const DEFAULT_SHM: u64 = 64 << 20;

impl Engine {
    /// Creates a container of a local image.
    ///
    /// # Errors
    /// [`EngineError::NoSuchImage`] when the image is not local: pulling is the caller's decision.
    pub fn create(&self, spec: &ContainerSpec) -> Result<Created, EngineError> {
        let (created, live) = self.create_live(spec)?;
        live.release()?;
        Ok(created)
    }

    /// The same, keeping responsibility for the new container.
    pub(crate) fn create_live(&self, spec: &ContainerSpec) -> Result<(Created, Live), EngineError> {
        if let Some(feature) = Record::unsupported(spec) {
            return Err(EngineError::Unsupported { feature });
        }
        // Until the container is visible as a user of the image, nobody may delete the image.
        let _hold = self.store().hold()?;
        let image = self.local_image(&spec.image)?;
        let mut warnings = platform_warning(spec, &image)?;
        let (id, live) = self.take_new_live()?;
        let mut record = self.merge(spec, &image, &id)?;
        if record.healthcheck.as_ref().is_some_and(|h| h.test.first().is_some_and(|t| t != "NONE")) {
            warnings.push("the health check is recorded but health checks are not run yet".to_owned());
        }
        let staging = self.paths.new_container(&id);
        let built = self.assemble(&staging, spec, &mut record, &image);
        if let Err(e) = built {
            let _ = files::remove_tree(&staging);
            self.remove_anonymous_volumes(&record);
            let _ = live.release();
            return Err(e);
        }
        Ok((Created { id, warnings }, live))
    }

    /// Writes the directory, claims the name, and makes the container visible by one rename.
    fn assemble(
        &self,
        staging: &Path,
        spec: &ContainerSpec,
        record: &mut Record,
        image: &ImageRecord,
    ) -> Result<(), EngineError> {
        let id = record.container_id().map_err(|e| EngineError::Invalid(e.to_string()))?;
        files::make_dir(&self.paths.containers())?;
        files::make_dir(staging)?;
        self.make_upper(staging, image)?;
        let lock = staging.join("lock");
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(EngineError::state("create", &lock))?;
        self.create_volumes(record, image)?;
        match &spec.name {
            Some(name) => self.claim_name(name, &id)?,
            None => record.name = self.claim_random_name(&id)?,
        }
        let written = files::write_record(&staging.join(CONFIG), record)
            .and_then(|()| files::write_record(&staging.join(STATE), &State::created()))
            .and_then(|()| {
                let target = self.paths.container(&id);
                fs::rename(staging, &target).map_err(EngineError::state("create", &target))
            });
        if written.is_err() {
            let _ = self.release_name(&record.name, &id);
        }
        written
    }

    /// The writable layer. Its root shows through as the container's `/`.
    fn make_upper(&self, staging: &Path, image: &ImageRecord) -> Result<(), EngineError> {
        let (upper, work) = (staging.join("upper"), staging.join("work"));
        files::make_dir(&upper)?;
        files::make_dir(&work)?;
        self.store().prepare_upper(&upper, &image.config.rootfs.diff_ids)?;
        // Programs look for this file to find out that they are in a container.
        let mark = upper.join(".dockerenv");
        File::create(&mark).map_err(EngineError::state("create", &mark))?;
        let lower = self.store().lower_dirs(&image.config.rootfs.diff_ids)?;
        add_mtab(&upper, &lower).map_err(EngineError::state("prepare", &upper))
    }

    fn claim_random_name(&self, id: &ContainerId) -> Result<String, EngineError> {
        // Docker tries a few names, then digits, then gives the short id.
        for attempt in 0..6u8 {
            let mut name = dhow_docker::names::generate(random_bytes()?);
            if attempt > 0 {
                name.push(char::from(b'0' + attempt));
            }
            let name: ContainerName =
                name.parse().map_err(|e: dhow_types::NameError| EngineError::Invalid(e.to_string()))?;
            match self.claim_name(&name, id) {
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                other => return other.map(|()| name.to_string()),
            }
        }
        let name: ContainerName =
            id.short().parse().map_err(|e: dhow_types::NameError| EngineError::Invalid(e.to_string()))?;
        self.claim_name(&name, id)?;
        Ok(name.to_string())
    }

    /// The local image of this name, or [`EngineError::NoSuchImage`].
    pub(crate) fn local_image(&self, text: &str) -> Result<ImageRecord, EngineError> {
        self.store().resolve(text).map_err(|e| match e.kind() {
            ErrorKind::NotFound => EngineError::NoSuchImage(text.to_owned()),
            _ => e.into(),
        })
    }

    fn merge(&self, spec: &ContainerSpec, image: &ImageRecord, id: &ContainerId) -> Result<Record, EngineError> {
        let config = &image.config.config;
        let process = merge_process(spec, config);
        if process.argv().is_empty() {
            return Err(EngineError::Invalid("no command specified".to_owned()));
        }
        let mut labels = config.labels.clone();
        labels.extend(spec.labels.iter().cloned());
        let mut exposed: Vec<String> = config.exposed_ports.keys().cloned().collect();
        let published = spec.ports.iter().map(|p| p.container.to_string());
        for port in spec.expose.iter().map(ToString::to_string).chain(published) {
            if !exposed.contains(&port) {
                exposed.push(port);
            }
        }
        let hostname = match (&spec.hostname, &spec.network, spec.uts_host) {
            (Some(name), _, _) => name.clone(),
            (None, NetworkMode::Host, _) | (None, _, true) => host_name(),
            (None, NetworkMode::Container(target), _) => self.container(&self.find(target)?)?.record.hostname,
            _ => id.short().to_owned(),
        };
        if hostname.len() > 64 || !is_host_name(&hostname) {
            return Err(EngineError::Invalid(format!("invalid hostname: {hostname:?}")));
        }
        // A line break here would be a line of the container's /etc/hosts.
        if let Some(bad) = spec.extra_hosts.iter().find(|h| !is_host_name(&h.name)) {
            return Err(EngineError::Invalid(format!("bad format for add-host: {:?}", bad.name)));
        }
        Ok(Record {
            version: VERSION,
            id: id.to_string(),
            name: spec.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            created: Timestamp::now().to_string(),
            image: ImageUse {
                name: spec.image.clone(),
                id: image.id,
                diff_ids: image.config.rootfs.diff_ids.clone(),
                platform: image.config.platform().to_string(),
            },
            process,
            hostname,
            domainname: spec.domainname.clone().unwrap_or_default(),
            labels,
            exposed,
            volumes: config.volumes.keys().cloned().collect(),
            stop_signal: spec
                .stop_signal
                .map(|s| s.to_string())
                .or_else(|| Some(config.stop_signal.clone()).filter(|s| !s.is_empty())),
            stop_timeout: spec.stop_timeout,
            healthcheck: merge_health(spec, config),
            host: self.host_record(spec, image)?,
        })
    }

    fn host_record(&self, spec: &ContainerSpec, image: &ImageRecord) -> Result<HostRecord, EngineError> {
        let network = match &spec.network {
            NetworkMode::Container(target) => format!("container:{}", self.find(target)?),
            other => record::network_word(other),
        };
        let pid = match &spec.pid {
            PidMode::Container(target) => format!("container:{}", self.find(target)?),
            other => record::pid_word(other),
        };
        let ipc = match &spec.ipc {
            dhow_types::IpcMode::Container(target) => format!("container:{}", self.find(target)?),
            other => record::ipc_word(other),
        };
        check_network(spec)?;
        Ok(HostRecord {
            auto_remove: spec.auto_remove,
            network,
            ports: spec.ports.iter().map(PublishRecord::from).collect(),
            publish_all: spec.publish_all,
            mounts: mount_records(spec, &image.config.config)?,
            extra_hosts: spec
                .extra_hosts
                .iter()
                .map(|h| match h.address {
                    Some(address) => format!("{}:{address}", h.name),
                    None => format!("{}:host-gateway", h.name),
                })
                .collect(),
            dns: spec.dns.clone(),
            dns_search: spec.dns_search.clone(),
            dns_options: spec.dns_options.clone(),
            resources: (&spec.resources).into(),
            security: (&spec.security).into(),
            init: spec.init,
            restart: record::restart_word(spec.restart),
            log_driver: spec.log.driver.clone().unwrap_or_else(|| "json-file".to_owned()),
            log_options: spec.log.options.iter().cloned().collect(),
            ipc,
            pid,
            uts_host: spec.uts_host,
            group_add: spec.group_add.clone(),
            sysctls: spec.sysctls.iter().cloned().collect(),
            shm_size: spec.shm_size.unwrap_or(DEFAULT_SHM),
            annotations: spec.annotations.iter().cloned().collect(),
            console_size: spec.console_size,
            cidfile: spec.cidfile.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        })
    }
}

/// `/etc/mtab`, for the programs that still read it, where the image has an `/etc` without one. Layers are hostile: they
/// are only looked at, and never through a symbolic link.
fn add_mtab(upper: &Path, lower: &[PathBuf]) -> std::io::Result<()> {
    let mut like = None;
    for layer in lower {
        match fs::symlink_metadata(layer.join("etc")) {
            Ok(etc) if etc.is_dir() => {
                if fs::symlink_metadata(layer.join("etc/mtab")).is_ok() {
                    return Ok(());
                }
                like = like.or(Some(etc));
            }
            Ok(_) => return Ok(()),
            Err(_) => {}
        }
    }
    let Some(like) = like else { return Ok(()) };
    let etc = upper.join("etc");
    fs::create_dir(&etc)?;
    std::os::unix::fs::chown(&etc, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(&etc, like.permissions())?;
    std::os::unix::fs::symlink("/proc/mounts", etc.join("mtab"))
}

/// Docker's rules for flags that a shared network stack forbids.
fn check_network(spec: &ContainerSpec) -> Result<(), EngineError> {
    if let NetworkMode::Container(_) = spec.network {
        let conflict = |what: &str| {
            Err(EngineError::Invalid(format!("conflicting options: {what} and the network mode container:<name|id>")))
        };
        if !spec.ports.is_empty() || spec.publish_all {
            return conflict("port publishing");
        }
        if !spec.expose.is_empty() {
            return conflict("port exposing");
        }
        if spec.hostname.is_some() {
            return conflict("hostname");
        }
        if !spec.dns.is_empty() || !spec.dns_search.is_empty() {
            return conflict("dns");
        }
        if !spec.extra_hosts.is_empty() {
            return conflict("custom host-to-IP mapping");
        }
    }
    Ok(())
}

fn merge_process(spec: &ContainerSpec, config: &ExecConfig) -> ProcessRecord {
    // A caller's entry point also drops the image's arguments; `--entrypoint ""` drops both.
    let (entrypoint, cmd) = match &spec.entrypoint {
        Some(entrypoint) => (Some(entrypoint.iter().filter(|e| !e.is_empty()).cloned().collect()), None),
        None => (config.entrypoint.clone(), config.cmd.clone()),
    };
    let cmd = if spec.command.is_empty() { cmd } else { Some(spec.command.clone()) };
    ProcessRecord {
        entrypoint: entrypoint.filter(|e: &Vec<String>| !e.is_empty()),
        cmd,
        env: merge_env(&config.env, &spec.env),
        workdir: spec.workdir.clone().unwrap_or_else(|| config.working_dir.clone()),
        user: spec.user.clone().unwrap_or_else(|| config.user.clone()),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        attach_stdin: spec.attach.0,
        attach_stdout: spec.attach.1,
        attach_stderr: spec.attach.2,
        on_build: config.on_build.clone(),
        shell: config.shell.clone(),
    }
}

/// Variables of the caller replace the image's in place; a bare name removes one.
pub(crate) fn merge_env(image: &[String], user: &[String]) -> Vec<String> {
    let key = |item: &str| item.split_once('=').map_or(item, |(k, _)| k).to_owned();
    let mut merged: Vec<String> = image.to_vec();
    if !merged.iter().chain(user).any(|item| item.starts_with("PATH=")) {
        merged.insert(0, DEFAULT_PATH.to_owned());
    }
    for item in user {
        let at = merged.iter().position(|old| key(old) == key(item));
        match (item.contains('='), at) {
            (true, Some(i)) => merged[i] = item.clone(),
            (true, None) => merged.push(item.clone()),
            (false, Some(i)) => {
                merged.remove(i);
            }
            (false, None) => {}
        }
    }
    merged
}

fn merge_health(spec: &ContainerSpec, config: &ExecConfig) -> Option<HealthConfig> {
    let Some(user) = &spec.healthcheck else { return config.healthcheck.clone() };
    let image = config.healthcheck.clone().unwrap_or_default();
    let pick = |mine: i64, theirs: i64| if mine == 0 { theirs } else { mine };
    Some(HealthConfig {
        test: if user.test.is_empty() { image.test } else { user.test.clone() },
        interval: pick(user.interval, image.interval),
        timeout: pick(user.timeout, image.timeout),
        start_period: pick(user.start_period, image.start_period),
        start_interval: pick(user.start_interval, image.start_interval),
        retries: pick(user.retries, image.retries),
    })
}

/// Mounts in order, and an anonymous volume for every path that the image declares and nothing covers.
fn mount_records(spec: &ContainerSpec, config: &ExecConfig) -> Result<Vec<MountRecord>, EngineError> {
    let mut mounts: Vec<MountRecord> = Vec::new();
    for mount in &spec.mounts {
        let record = match mount {
            MountSpec::Bind(b) => MountRecord {
                kind: "bind".to_owned(),
                source: prepare_source(&b.source, b.create_source)?,
                name: String::new(),
                target: clean_target(&b.target)?,
                read_only: b.read_only,
                propagation: b.propagation.name().to_owned(),
                options: String::new(),
                anonymous: false,
            },
            MountSpec::Volume(v) => MountRecord {
                kind: "volume".to_owned(),
                source: String::new(),
                name: v.name.clone().unwrap_or_default(),
                target: clean_target(&v.target)?,
                read_only: v.read_only,
                propagation: String::new(),
                options: if v.no_copy { "nocopy".to_owned() } else { String::new() },
                anonymous: v.name.is_none(),
            },
            MountSpec::Tmpfs(t) => MountRecord {
                kind: "tmpfs".to_owned(),
                source: String::new(),
                name: String::new(),
                target: clean_target(&t.target)?,
                read_only: false,
                propagation: String::new(),
                options: t.options.clone(),
                anonymous: false,
            },
        };
        if mounts.iter().any(|m| m.target == record.target) {
            return Err(EngineError::Invalid(format!("Duplicate mount point: {}", record.target)));
        }
        mounts.push(record);
    }
    for path in config.volumes.keys() {
        let target = clean_target(path)?;
        if !mounts.iter().any(|m| m.target == target) {
            mounts.push(MountRecord {
                kind: "volume".to_owned(),
                source: String::new(),
                name: String::new(),
                target,
                read_only: false,
                propagation: String::new(),
                options: String::new(),
                anonymous: true,
            });
        }
    }
    Ok(mounts)
}

/// A bind's source must exist; `-v` makes it a directory, `--mount` refuses.
fn prepare_source(source: &Path, create: bool) -> Result<String, EngineError> {
    if !source.exists() {
        if !create {
            return Err(EngineError::Invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                source.display()
            )));
        }
        fs::create_dir_all(source).map_err(EngineError::state("create the bind source", source))?;
    }
    source
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| EngineError::Invalid(format!("bind source {} is not UTF-8", source.display())))
}

/// An absolute path without `.` and `..`, not `/`.
fn clean_target(target: &str) -> Result<String, EngineError> {
    let bad = |why: &str| Err(EngineError::Invalid(format!("invalid mount path: '{target}' {why}")));
    if !target.starts_with('/') {
        return bad("mount path must be absolute");
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(EngineError::Invalid("invalid specification: destination can't be '/'".to_owned()));
    }
    Ok(format!("/{}", parts.join("/")))
}

fn platform_warning(spec: &ContainerSpec, image: &ImageRecord) -> Result<Vec<String>, EngineError> {
    let have = image.config.platform();
    let wanted = match &spec.platform {
        Some(text) => {
            let wanted: Platform =
                text.parse().map_err(|e: dhow_types::PlatformError| EngineError::Invalid(e.to_string()))?;
            if !wanted.accepts(&have) {
                return Err(EngineError::NoSuchImage(format!("{} for platform {wanted}", spec.image)));
            }
            return Ok(Vec::new());
        }
        None => Platform::host(),
    };
    if wanted.accepts(&have) {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "The requested image's platform ({have}) does not match the detected host platform ({wanted}) and no specific platform was requested"
    )])
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn random_bytes<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0u8; N];
    // Up to 256 bytes come whole or not at all (getrandom(2)).
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(EngineError::errno("read random numbers from", Path::new("getrandom(2)")))?;
    Ok(bytes)
}

/// A new container id (or any other 64 random digits).
pub(crate) fn random_id() -> Result<ContainerId, EngineError> {
    random_bytes().map(ContainerId::from_random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn environment_merges_in_place() {
        let merged = merge_env(&strings(&["PATH=/bin", "A=1", "B=2"]), &strings(&["B=3", "A", "C=4"]));
        assert_eq!(merged, strings(&["PATH=/bin", "B=3", "C=4"]));
        assert_eq!(merge_env(&[], &[]), strings(&[DEFAULT_PATH]));
    }

    #[test]
    fn entrypoint_of_the_caller_drops_the_images_arguments() {
        let config = ExecConfig {
            entrypoint: Some(strings(&["/ep"])),
            cmd: Some(strings(&["a", "b"])),
            ..ExecConfig::default()
        };
        let argv = |entrypoint: Option<&[&str]>, command: &[&str]| {
            let spec = ContainerSpec {
                entrypoint: entrypoint.map(strings),
                command: strings(command),
                ..ContainerSpec::default()
            };
            merge_process(&spec, &config).argv()
        };
        assert_eq!(argv(None, &[]), strings(&["/ep", "a", "b"]));
        assert_eq!(argv(None, &["c"]), strings(&["/ep", "c"]));
        assert_eq!(argv(Some(&["/x"]), &[]), strings(&["/x"]));
        assert_eq!(argv(Some(&["/x"]), &["c"]), strings(&["/x", "c"]));
        assert_eq!(argv(Some(&[""]), &[]), Vec::<String>::new());
    }

    #[test]
    fn mount_targets_are_cleaned() {
        assert_eq!(clean_target("/a/./b/../c//").unwrap(), "/a/c");
        assert_eq!(clean_target("/../../etc").unwrap(), "/etc");
        assert!(clean_target("a").is_err());
        assert!(clean_target("/..").is_err());
    }
}
