//! Where the tour happens: directories, ports, the environment of its commands, the registry, and the clearing up.

use super::host::HostNetwork;
use crate::sh::{self, Context, Result};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Name and password of the registry's only account.
pub const ACCOUNT: (&str, &str) = ("ayou", "open-sesame");

/// Everything that stays the same during a tour.
pub struct Place {
    /// `target/demo`.
    pub work: PathBuf,
    /// The program.
    pub dhow: PathBuf,
    /// Port of the registry.
    pub registry_port: u16,
    /// Host port of the app.
    pub app_port: u16,
    network: HostNetwork,
}

impl Place {
    /// Clears what an earlier tour left and chooses ports.
    pub fn new(dhow: PathBuf) -> Result<Self> {
        let work = sh::target().join("demo");
        let mut place = Self { work, dhow, registry_port: 5000, app_port: 4000, network: HostNetwork::default() };
        place.clear()?;
        for dir in ["root", "run", "config"] {
            sh::remove(&place.work.join(dir))?;
        }
        sh::make_dir(&place.work)?;
        place.registry_port = free_port(5000, "registry")?;
        place.app_port = free_port(4000, "app")?;
        place.network = HostNetwork::now()?;
        sh::write(&place.work.join("network-before"), place.network.to_text())?;
        Ok(place)
    }

    /// A command in the tour's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(if program == "dhow" { self.dhow.as_os_str() } else { program.as_ref() });
        let path = std::env::var("PATH").unwrap_or_default();
        let own = self.dhow.parent().map(|p| p.display().to_string()).unwrap_or_default();
        command.env("PATH", format!("{own}:{path}:/usr/sbin:/sbin")).env("NO_PROXY", "localhost,127.0.0.1");
        command.env("no_proxy", "localhost,127.0.0.1").current_dir(self.work.join("app"));
        for (key, dir) in [("DHOW_ROOT", "root"), ("DHOW_RUN", "run"), ("DOCKER_CONFIG", "config")] {
            command.env(key, self.work.join(dir));
        }
        command
    }

    /// The environment as a line for a shell.
    pub fn as_shell(&self) -> String {
        let work = self.work.display();
        format!(
            "export DHOW_ROOT={work}/root DHOW_RUN={work}/run DOCKER_CONFIG={work}/config PATH={}:$PATH",
            self.dhow.parent().map(|p| p.display().to_string()).unwrap_or_default()
        )
    }

    /// Removes containers, registry, bridge and rules of this and of earlier tours. Images in the registry stay.
    pub fn clear(&self) -> Result {
        let before = self.work.join("network-before");
        // Without it the last tour was cleared whole; asking its engine anything would bring its bridge back.
        if before.exists() && self.work.join("root").is_dir() {
            let ids = sh::read(self.command("dhow").current_dir(&self.work).args(["ps", "-aq"]))?;
            let ids: Vec<&str> = ids.lines().collect();
            if !ids.is_empty() {
                sh::quiet(self.command("dhow").current_dir(&self.work).args(["rm", "-f"]).args(ids))?;
            }
        }
        if let Ok(pid) = sh::text(&self.work.join("registry.pid")) {
            end_registry(&pid);
            sh::remove(&self.work.join("registry.pid"))?;
        }
        self.wait_for_monitors()?;
        if let Ok(text) = sh::text(&before) {
            HostNetwork::from_text(&text).restore()?;
        }
        sh::remove(&before)
    }

    /// A monitor's last work is to heal its engine, bridge and rules included: they can be removed only after that.
    fn wait_for_monitors(&self) -> Result {
        let root = self.work.join("root");
        let is_monitor = |pid: &std::ffi::OsStr| {
            let line = std::fs::read(std::path::Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            words.get(1) == Some(&&b"monitor"[..]) && words.get(2) == Some(&root.as_os_str().as_encoded_bytes())
        };
        let start = Instant::now();
        loop {
            let processes = std::fs::read_dir("/proc").context("/proc")?.flatten();
            if !processes.map(|p| p.file_name()).any(|pid| is_monitor(&pid)) {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(10) {
                return Err(sh::Failure::new("a monitor of the tour does not end"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts Debian's registry with a password file; its images persist from tour to tour.
    pub fn start_registry(&self) -> Result<Registry> {
        let dir = self.work.join("registry");
        sh::make_dir(&dir)?;
        let hash = sh::read(Command::new("htpasswd").args(["-Bbn", ACCOUNT.0, ACCOUNT.1]))?;
        sh::write(&self.work.join("htpasswd"), format!("{hash}\n"))?;
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"127.0.0.1:{}\"}}\nauth:\n  htpasswd: {{realm: dhow-demo, path: {}}}\n",
            dir.display(),
            self.registry_port,
            self.work.join("htpasswd").display()
        );
        let file = self.work.join("registry.yml");
        sh::write(&file, config)?;
        let log = std::fs::File::create(self.work.join("registry.log")).context("registry.log")?;
        let errors = log.try_clone().context("registry.log")?;
        let mut command = Command::new("docker-registry");
        // Its own group: a Ctrl-C that ends the tour leaves the clearing up to us, not to chance.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(["serve".as_ref(), file.as_os_str()]).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().context("docker-registry")?;
        sh::write(&self.work.join("registry.pid"), child.id().to_string())?;
        let registry = Registry { child };
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.registry_port)).is_err() {
            if start.elapsed() > Duration::from_secs(10) {
                registry.stop();
                return Err(sh::Failure::new(format!(
                    "the registry does not start:\n{}",
                    sh::text(&self.work.join("registry.log"))?
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

/// A registry that runs.
pub struct Registry {
    child: Child,
}

impl Registry {
    /// Ends it.
    pub fn stop(mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Lets it run on after this program.
    pub fn keep(self) {
        drop(self.child);
    }
}

/// Ends the registry of an earlier tour, if this process id still is one.
fn end_registry(pid: &str) {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
    let id = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
    if let (true, Some(id)) = (name.starts_with("docker-registry"), id) {
        rustix::process::kill_process(id, rustix::process::Signal::TERM).ok();
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `wanted`, or another free port when it is taken; says so.
fn free_port(wanted: u16, purpose: &str) -> Result<u16> {
    let free =
        |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).and_then(|l| l.local_addr()).map(|a| a.port());
    if let Ok(port) = free(wanted) {
        return Ok(port);
    }
    let port = free(0).context("no free port")?;
    println!("Port {wanted} is in use on this machine; the {purpose} takes {port} instead.");
    Ok(port)
}
