//! Options before the command, environment, and what follows from them.

use crate::config_file::ConfigFile;
use crate::credentials::FileCredentials;
use crate::error::CliError;
use crate::flags::{Flag, Matches, Tables};
use dhow_engine::{Engine, EngineConfig};
use dhow_types::{ErrorKind, report};
use std::path::PathBuf;
use std::sync::Arc;

/// Options before the command.
pub(crate) const FLAGS: Tables = &[&[
    Flag::value("root", '\0', "dir", "Directory of images and containers (env DHOW_ROOT, default /var/lib/dhow)"),
    Flag::value("run-root", '\0', "dir", "Directory of what runs (env DHOW_RUN, default /run/dhow)"),
    Flag::value(
        "config",
        '\0',
        "dir",
        "Directory of client settings and logins (env DOCKER_CONFIG, default ~/.docker)",
    ),
    Flag::value("context", 'c', "name", "Accepted when it is \"default\"").missing_unless("default"),
    Flag::list("host", 'H', "Accepted when it is the default"),
    Flag::switch("debug", 'D', "").no_effect("there is no daemon whose traffic could be shown"),
    Flag::value("log-level", 'l', "level", "").no_effect("there is no daemon whose traffic could be shown"),
    Flag::switch("tls", '\0', "").missing(),
    Flag::switch("tlsverify", '\0', "").missing(),
    Flag::value("tlscacert", '\0', "file", "").no_effect("only --tls would use it"),
    Flag::value("tlscert", '\0', "file", "").no_effect("only --tls would use it"),
    Flag::value("tlskey", '\0', "file", "").no_effect("only --tls would use it"),
    Flag::switch("version", 'v', "Print version information and quit"),
]];

/// Where Docker's own daemon listens by default: naming it asks for nothing special.
const DEFAULT_HOSTS: [&str; 3] = ["", "unix:///var/run/docker.sock", "unix:///run/docker.sock"];

/// What every command may need.
#[derive(Debug, Clone)]
pub(crate) struct Globals {
    /// Persistent root.
    pub(crate) root: PathBuf,
    /// Runtime root.
    pub(crate) run_root: PathBuf,
    /// Directory of `config.json`.
    pub(crate) config_dir: PathBuf,
    /// Opening the engine first finishes or undoes what killed commands left.
    pub(crate) heals: bool,
}

/// A variable that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

impl Globals {
    /// From the flags before the command and the environment.
    pub(crate) fn new(flags: &Matches) -> Result<Self, CliError> {
        let no_daemon = |what: &str, value: &str, way_out: &str| {
            CliError::failed(
                ErrorKind::Unsupported,
                format!("{what} asks for the daemon at {value:?}, but dhow works here and talks to no daemon"),
            )
            .with_hint(way_out.to_owned())
        };
        if let Some(host) = flags.list("host").find(|h| !DEFAULT_HOSTS.contains(h)) {
            return Err(no_daemon("-H", host, "leave -H out to work on this machine"));
        }
        let host = variable("DOCKER_HOST").filter(|h| !DEFAULT_HOSTS.contains(&h.as_str()));
        if let Some(host) = host.filter(|_| flags.list("host").next().is_none()) {
            return Err(no_daemon("DOCKER_HOST", &host, "unset DOCKER_HOST to work on this machine"));
        }
        if let Some(context) = variable("DOCKER_CONTEXT").filter(|c| c != "default") {
            return Err(no_daemon("DOCKER_CONTEXT", &context, "unset DOCKER_CONTEXT to work on this machine"));
        }
        let place = |flag: &str, name: &str, default: &str| {
            PathBuf::from(flags.given(flag).or_else(|| variable(name)).unwrap_or_else(|| default.to_owned()))
        };
        let home = variable("HOME").unwrap_or_else(|| "/root".to_owned());
        let globals = Self {
            root: absolute(place("root", "DHOW_ROOT", "/var/lib/dhow"))?,
            run_root: absolute(place("run-root", "DHOW_RUN", dhow_engine::DEFAULT_RUN_ROOT))?,
            config_dir: place("config", "DOCKER_CONFIG", &format!("{home}/.docker")),
            heals: false,
        };
        Ok(globals)
    }

    /// Opens the engine.
    pub(crate) fn engine(&self) -> Result<Engine, CliError> {
        let credentials = Arc::new(FileCredentials::new(self.config_path()));
        let registry = crate::registries::load()?;
        let engine = Engine::open(EngineConfig {
            root: self.root.clone(),
            run_root: self.run_root.clone(),
            registry,
            credentials,
        })?;
        if self.heals
            && let Err(error) = engine.heal()
        {
            // What the command is for may still work.
            crate::commands::warn(&[format!(
                "what an interrupted command left is not cleaned up yet: {}",
                report(&error)
            )]);
        }
        Ok(engine)
    }

    /// Path of `config.json`.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.config_dir.join("config.json")
    }

    /// The client settings; empty ones when there is no file.
    pub(crate) fn config(&self) -> Result<ConfigFile, CliError> {
        ConfigFile::load(&self.config_path())
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, CliError> {
    std::path::absolute(&path).map_err(CliError::io(path.display().to_string()))
}
