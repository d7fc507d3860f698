//! The engines that are compared: dhow, docker with a daemon of our own, podman; and the bare runtimes.

use super::timing;
use crate::dockerd::Dockerd;
use crate::sh::{self, Context, Failure, Result};
use dhow_testkit::image::busybox_layer;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An engine with images, containers and builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This project.
    Dhow,
    /// Docker: client and a private daemon.
    Docker,
    /// Podman with a private root.
    Podman,
}

/// Everything that is there to be measured.
pub struct Engines {
    /// Scratch directory.
    pub work: PathBuf,
    dhow: PathBuf,
    present: Vec<(Kind, String)>,
    dockerd: Option<Dockerd>,
    registry: Child,
    podman_runtime: Option<&'static str>,
}

/// Address of the local registry; the network namespace is ours, so the port is free.
pub const REGISTRY: &str = "127.0.0.1:5000";

impl Engines {
    /// Starts daemon and registry and loads busybox everywhere.
    pub fn start() -> Result<Self> {
        let dhow = PathBuf::from(std::env::var_os("DHOW_BIN").ok_or_else(|| Failure::new("DHOW_BIN is not set"))?);
        let work = sh::target().join("bench");
        for dir in ["dhow", "podman", "docker-exec", "docker"] {
            sh::remove(&work.join(dir))?;
        }
        sh::make_dir(&work)?;
        let registry = start_registry(&work)?;
        // crun up to 1.8 does not start where a cgroup2 hierarchy is mounted beside v1 ones; runc does.
        let hybrid = Path::new("/sys/fs/cgroup/unified").is_dir();
        let podman_runtime = (hybrid && sh::find("runc").is_some()).then_some("runc");
        let mut engines = Self { work, dhow, present: Vec::new(), dockerd: None, registry, podman_runtime };
        let version = sh::read(Command::new(&engines.dhow).arg("--version"))?;
        engines.present.push((Kind::Dhow, version));
        engines.start_docker()?;
        if sh::find("podman").is_some() {
            let version = sh::read(Command::new("podman").arg("--version"))?;
            engines.present.push((Kind::Podman, version));
        }
        let archive = dhow_testkit::busybox_image();
        let mut broken = Vec::new();
        for kind in engines.kinds() {
            let loaded = timing::quiet(engines.command(kind).args(["load", "-q", "-i"]).arg(&archive));
            let ran = loaded.and_then(|()| timing::quiet(engines.run(kind).args(["--rm", "busybox", "true"])));
            match ran {
                Ok(()) => {}
                Err(failure) if kind == Kind::Dhow => return Err(failure),
                Err(failure) => {
                    println!("{} is installed but does not run here and is left out: {failure}", engines.name(kind));
                    broken.push(kind);
                }
            }
        }
        engines.present.retain(|(kind, _)| !broken.contains(kind));
        Ok(engines)
    }

    fn start_docker(&mut self) -> Result {
        if let Some(daemon) = Dockerd::start(&self.work)? {
            self.present.push((Kind::Docker, daemon.version()?));
            self.dockerd = Some(daemon);
        }
        Ok(())
    }

    /// Engines that work here, dhow first.
    pub fn kinds(&self) -> Vec<Kind> {
        self.present.iter().map(|(kind, _)| *kind).collect()
    }

    /// What the engine calls its version.
    pub fn version(&self, kind: Kind) -> &str {
        self.present.iter().find(|(k, _)| *k == kind).map_or("", |(_, v)| v)
    }

    /// Name in the table.
    pub fn name(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::Dhow => "dhow",
            Kind::Docker => "docker",
            Kind::Podman => "podman",
        }
    }

    /// A command of an engine in its default root.
    pub fn command(&self, kind: Kind) -> Command {
        self.command_in(kind, "")
    }

    /// A command of an engine in another, initially empty root (docker has one root only).
    pub fn command_in(&self, kind: Kind, root: &str) -> Command {
        let place = |name: &str| self.work.join(name).join(format!("root{root}"));
        match kind {
            Kind::Dhow => {
                let mut command = Command::new(&self.dhow);
                let run = self.work.join("dhow").join(format!("run{root}"));
                command
                    .env("DHOW_ROOT", place("dhow"))
                    .env("DHOW_RUN", run)
                    .env("DOCKER_CONFIG", self.work.join("config"));
                command
            }
            Kind::Docker => self.dockerd.as_ref().map_or_else(|| Command::new("docker"), Dockerd::client),
            Kind::Podman => {
                let mut command = Command::new("podman");
                command
                    .arg("--root")
                    .arg(place("podman"))
                    .arg("--runroot")
                    .arg(self.work.join("podman").join(format!("run{root}")));
                command.args([
                    "--cgroup-manager",
                    "cgroupfs",
                    "--events-backend",
                    "file",
                    "--storage-driver",
                    "overlay",
                ]);
                if let Some(runtime) = self.podman_runtime {
                    command.args(["--runtime", runtime]);
                }
                command
            }
        }
    }

    /// `run` of an engine.
    pub fn run(&self, kind: Kind) -> Command {
        let mut command = self.command(kind);
        command.arg("run").args(Self::limits(kind));
        command
    }

    /// Options of `run` and `build` for podman: it raises limits to a million, which only a root with CAP_SYS_RESOURCE
    /// may, unless it is told not to.
    pub fn limits(kind: Kind) -> &'static [&'static str] {
        match kind {
            Kind::Podman => &["--ulimit", "nproc=4096:4096", "--ulimit", "nofile=1024:4096"],
            _ => &[],
        }
    }

    /// A bundle for bare runtimes: busybox's tree and a config that runs `true`.
    pub fn bundle(&self, runtime: &str, command: &[&str]) -> Result<PathBuf> {
        let bundle = self.work.join(format!("bundle-{runtime}"));
        let rootfs = bundle.join("rootfs");
        if !rootfs.join("bin/busybox").exists() {
            sh::make_dir(&rootfs)?;
            let tar = self.work.join("busybox.tar");
            sh::write(&tar, busybox_layer())?;
            sh::quiet(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&rootfs))?;
        }
        sh::remove(&bundle.join("config.json"))?;
        sh::quiet(Command::new(runtime).arg("spec").current_dir(&bundle))?;
        let text = sh::text(&bundle.join("config.json"))?;
        let mut config: serde_json::Value = serde_json::from_str(&text).context("config.json")?;
        config["process"]["args"] = command.iter().copied().collect();
        config["process"]["terminal"] = false.into();
        sh::write(&bundle.join("config.json"), config.to_string())?;
        Ok(bundle)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        for kind in [Kind::Dhow, Kind::Podman].into_iter().filter(|k| self.present.iter().any(|(p, _)| p == k)) {
            let ids = sh::read(self.command(kind).args(["ps", "-aq"])).unwrap_or_default();
            let ids: Vec<&str> = ids.lines().collect();
            if !ids.is_empty() {
                sh::quiet(self.command(kind).args(["rm", "-f"]).args(ids)).ok();
            }
        }
        self.dockerd.take();
        self.registry.kill().ok();
        self.registry.wait().ok();
    }
}

fn start_registry(work: &Path) -> Result<Child> {
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \"{REGISTRY}\"}}\n",
        work.join("registry").display()
    );
    sh::write(&work.join("registry.yml"), config)?;
    let mut command = Command::new("docker-registry");
    command
        .arg("serve")
        .arg(work.join("registry.yml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn().context("docker-registry")?;
    let start = Instant::now();
    while std::net::TcpStream::connect(REGISTRY).is_err() {
        if start.elapsed() > Duration::from_secs(10) {
            return Err(Failure::new("docker-registry does not start"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// Runs `f` on a thread whose mount table has no cgroup2 beside cgroup v1: crun up to 1.8 refuses such hosts.
pub fn without_unified_cgroup<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    let worker = || {
        use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
        use rustix::thread::UnshareFlags;
        #[expect(deprecated, reason = "the only safe form; the thread ends without touching shared state of std")]
        rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::FS).context("unshare")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context("private mounts")?;
        if Path::new("/sys/fs/cgroup/unified").is_dir() {
            unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH).context("umount /sys/fs/cgroup/unified")?;
        }
        Ok(f())
    };
    std::thread::scope(|scope| scope.spawn(worker).join())
        .unwrap_or_else(|_| Err(Failure::new("a measuring thread failed")))
}
