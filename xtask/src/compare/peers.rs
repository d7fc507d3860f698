//! The builders that are compared, each in private directories.

use crate::dockerd::Dockerd;
use crate::sh::{self, Failure, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// This project.
    Dhow,
    /// `docker build` with the classic builder.
    Classic,
    /// `docker build` with BuildKit.
    BuildKit,
    /// `buildah bud`.
    Buildah,
}

impl Peer {
    /// Name in tables and in the lists of differences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dhow => "dhow",
            Self::Classic => "classic",
            Self::BuildKit => "buildkit",
            Self::Buildah => "buildah",
        }
    }
}

/// Builders that work here.
pub struct Peers {
    work: PathBuf,
    dhow: PathBuf,
    dockerd: Option<Dockerd>,
    /// A docker client that has BuildKit.
    buildkit: Option<PathBuf>,
    runtime: Option<&'static str>,
    present: Vec<(Peer, String)>,
}

impl Peers {
    /// Starts what is installed and loads busybox everywhere.
    pub fn start(work: &Path, dhow: PathBuf) -> Result<Self> {
        for dir in ["dhow", "docker", "docker-exec", "buildah", "out"] {
            sh::remove(&work.join(dir))?;
        }
        sh::make_dir(&work.join("out"))?;
        // crun up to 1.8 does not start where a cgroup2 hierarchy is mounted beside v1 ones; runc does.
        let hybrid = Path::new("/sys/fs/cgroup/unified").is_dir();
        let runtime = (hybrid && sh::find("runc").is_some()).then_some("runc");
        let dockerd = Dockerd::start(work)?;
        let version = sh::read(Command::new(&dhow).arg("--version"))?;
        let present = vec![(Peer::Dhow, version)];
        let mut peers = Self { work: work.to_owned(), dhow, dockerd, buildkit: None, runtime, present };
        let archive = dhow_testkit::busybox_image();
        sh::quiet(peers.dhow().args(["load", "-q", "-i"]).arg(&archive))?;
        if let Some(daemon) = &peers.dockerd {
            sh::quiet(daemon.client().args(["load", "-q", "-i"]).arg(&archive))?;
            let version = daemon.version()?;
            peers.buildkit = client_with_buildkit(daemon, work)?;
            peers.present.push((Peer::Classic, format!("{version}, classic builder")));
            if let Some(client) = &peers.buildkit {
                let client = sh::read(Command::new(client).arg("--version"))?;
                peers.present.push((Peer::BuildKit, format!("{client}, the daemon's BuildKit")));
            }
        }
        if sh::find("buildah").is_some() {
            let source = format!("docker-archive:{}", archive.display());
            sh::quiet(peers.buildah().args(["pull", "-q", &source]))?;
            let version = sh::read(Command::new("buildah").arg("--version"))?;
            peers.present.push((Peer::Buildah, version));
        }
        Ok(peers)
    }

    /// Builders that are here, dhow first, with their versions.
    pub fn present(&self) -> &[(Peer, String)] {
        &self.present
    }

    fn dhow(&self) -> Command {
        let mut command = Command::new(&self.dhow);
        let place = self.work.join("dhow");
        command.env("DHOW_ROOT", place.join("root")).env("DHOW_RUN", place.join("run"));
        command.env("DOCKER_CONFIG", self.work.join("config"));
        command
    }

    fn docker(&self, peer: Peer) -> Result<Command> {
        let daemon = self.dockerd.as_ref().ok_or_else(|| Failure::new("there is no dockerd"))?;
        match (peer, &self.buildkit) {
            (Peer::BuildKit, Some(client)) => {
                let mut command = daemon.client_at(client);
                command.env("DOCKER_BUILDKIT", "1");
                Ok(command)
            }
            _ => Ok(daemon.client()),
        }
    }

    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        let place = self.work.join("buildah");
        command.arg("--root").arg(place.join("root")).arg("--runroot").arg(place.join("run"));
        command.args(["--storage-driver", "overlay"]);
        command
    }

    /// Builds a context under a name with these options.
    pub fn build(&self, peer: Peer, context: &Path, tag: &str, options: &[String]) -> Result {
        let mut command = match peer {
            Peer::Dhow => self.dhow(),
            Peer::Classic | Peer::BuildKit => self.docker(peer)?,
            Peer::Buildah => self.buildah(),
        };
        command.arg(if peer == Peer::Buildah { "bud" } else { "build" });
        if peer == Peer::Buildah {
            // Docker's format keeps ONBUILD, SHELL and HEALTHCHECK; layers make one history entry of each instruction.
            command.args(["--format", "docker", "--layers", "--pull-never"]);
            if let Some(runtime) = self.runtime {
                command.args(["--runtime", runtime]);
            }
            // Limits of a million, its default, need CAP_SYS_RESOURCE.
            command.args(["--ulimit", "nproc=4096:4096", "--ulimit", "nofile=1024:4096"]);
        }
        sh::quiet(command.args(["-t", tag]).args(options).arg(context)).map(drop)
    }

    /// Writes an image as a docker-archive.
    pub fn export(&self, peer: Peer, tag: &str) -> Result<PathBuf> {
        let file = self.work.join("out").join(format!("{}-{tag}.tar", peer.name()));
        sh::remove(&file)?;
        match peer {
            Peer::Dhow => sh::quiet(self.dhow().arg("save").arg("-o").arg(&file).arg(tag))?,
            Peer::Classic | Peer::BuildKit => sh::quiet(self.docker(peer)?.arg("save").arg("-o").arg(&file).arg(tag))?,
            Peer::Buildah => {
                let target = format!("docker-archive:{}:{tag}", file.display());
                sh::quiet(self.buildah().args(["push", "-q", tag, &target]))?
            }
        };
        Ok(file)
    }
}

/// A docker client of this machine with which BuildKit works: the first of `PATH`, or an older one beside it. Clients
/// from 23 on need the buildx plugin; those before have BuildKit built in.
fn client_with_buildkit(daemon: &Dockerd, work: &Path) -> Result<Option<PathBuf>> {
    let context = work.join("probe");
    sh::write(&context.join("Dockerfile"), "FROM busybox\nRUN true\n")?;
    let candidates = sh::find("docker").into_iter().chain([PathBuf::from("/usr/bin/docker")]);
    for client in candidates.filter(|c| c.is_file()) {
        let mut command = daemon.client_at(&client);
        command.env("DOCKER_BUILDKIT", "1").args(["build", "-q", "-t", "probe"]).arg(&context);
        if sh::quiet(&mut command).is_ok() {
            return Ok(Some(client));
        }
    }
    Ok(None)
}
