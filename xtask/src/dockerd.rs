//! A `dockerd` of our own: data, state and socket in private directories, ended when it is dropped.

use crate::sh::{self, Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait until the daemon answers.
const START: Duration = Duration::from_secs(40);

/// A running daemon.
pub struct Dockerd {
    daemon: Child,
    place: PathBuf,
}

impl Dockerd {
    /// Starts a daemon below `place`; `None` when docker is not installed or does not start here.
    pub fn start(place: &Path) -> Result<Option<Self>> {
        if sh::find("dockerd").is_none() || sh::find("docker").is_none() {
            return Ok(None);
        }
        let (state, data) = (place.join("docker-exec"), place.join("docker"));
        sh::make_dir(&state)?;
        let path = place.join("dockerd.log");
        let log = std::fs::File::create(&path).context(path.display())?;
        let errors = log.try_clone().context(path.display())?;
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(data).arg("--exec-root").arg(&state);
        command.arg("--pidfile").arg(state.join("pid")).arg("--host").arg(host(place));
        let daemon = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().context("dockerd")?;
        let running = Self { daemon, place: place.to_owned() };
        let start = Instant::now();
        while sh::quiet(running.client().arg("version")).is_err() {
            if start.elapsed() > START {
                println!("dockerd does not start and is left out; see {}", path.display());
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Some(running))
    }

    /// A client of this daemon that uses the classic builder.
    pub fn client(&self) -> Command {
        self.client_at(Path::new("docker"))
    }

    /// The client program at this path.
    pub fn client_at(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", host(&self.place)).env("DOCKER_CONFIG", self.place.join("config"));
        // Debian's docker has the classic builder built in; the newest client needs a plugin for BuildKit.
        command.env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Versions of client and daemon.
    pub fn version(&self) -> Result<String> {
        let template = "docker client {{.Client.Version}}, server {{.Server.Version}}";
        sh::read(self.client().args(["version", "--format", template]))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_raw(self.daemon.id().cast_signed());
        id.map(|id| rustix::process::kill_process(id, rustix::process::Signal::TERM));
        self.daemon.wait().ok();
    }
}

fn host(place: &Path) -> String {
    format!("unix://{}", place.join("docker-exec/docker.sock").display())
}
