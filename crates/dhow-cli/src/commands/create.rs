//! `create`, and what `run` shares with it: image, name file, pull policy.

use super::warn;
use crate::command::Command;
use crate::create_spec::{self, PullPolicy};
use crate::error::{CliError, say};
use crate::flags::Matches;
use crate::globals::Globals;
use crate::out;
use crate::progress::{Target, pull_image};
use dhow_engine::{Created, Engine, EngineError};
use dhow_types::{ContainerSpec, ErrorKind};
use std::io::Write;
use std::path::Path;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    example: "dhow create --name web -p 4000:80 helloworld",
    flags: &[create_spec::FLAGS],
    interspersed: false,
    args: (1, None),
    runs_container: true,
    hot: true,
    ..Command::new("create", &["container create"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let mut spec = create_spec::build(m, &globals.config()?)?;
    spec.attach = (spec.open_stdin, true, true);
    spec.stdin_once = spec.open_stdin;
    let engine = globals.engine()?;
    check_cidfile(&spec)?;
    let created = with_image(&engine, m, &spec, &mut |engine| engine.create(&spec))?;
    if let Err(e) = write_cidfile(&spec, &created) {
        engine.remove(&created.id, dhow_engine::RemoveOptions { force: true, volumes: true })?;
        return Err(e.into());
    }
    warn(&created.warnings);
    out::print(&format!("{}\n", created.id))?;
    Ok(0)
}

/// Does work that needs the image, pulling it as the policy says.
pub(super) fn with_image<T>(
    engine: &Engine,
    m: &Matches,
    spec: &ContainerSpec,
    work: &mut dyn FnMut(&Engine) -> Result<T, EngineError>,
) -> Result<T, CliError> {
    let policy = m.parsed("pull", PullPolicy::parse)?.unwrap_or(PullPolicy::Missing);
    let quiet = m.on("quiet");
    if policy == PullPolicy::Always {
        pull(engine, spec, quiet)?;
    }
    match work(engine) {
        Err(EngineError::NoSuchImage(name)) if policy == PullPolicy::Missing => {
            if !quiet {
                let shown = spec.image_reference().map_or(name, |r| r.familiar());
                say(&format!("Unable to find image '{shown}' locally\n"));
            }
            pull(engine, spec, quiet)?;
            Ok(work(engine)?)
        }
        other => Ok(other?),
    }
}

fn pull(engine: &Engine, spec: &ContainerSpec, quiet: bool) -> Result<(), CliError> {
    let reference = spec.image.parse::<dhow_types::Reference>()?.with_default_tag();
    let platform = spec.platform.as_deref().map(super::pull::platform).transpose()?;
    pull_image(engine, &reference, platform.as_ref(), if quiet { Target::Nowhere } else { Target::Stderr })?;
    Ok(())
}

/// Docker refuses a file that exists before it does anything.
pub(super) fn check_cidfile(spec: &ContainerSpec) -> Result<(), CliError> {
    match &spec.cidfile {
        Some(path) if path.exists() => Err(CliError::failed(
            ErrorKind::Conflict,
            format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ),
        )),
        _ => Ok(()),
    }
}

/// Writes the id to the file that the caller named. It must not exist.
pub(super) fn write_cidfile(spec: &ContainerSpec, created: &Created) -> Result<(), EngineError> {
    let Some(path) = &spec.cidfile else { return Ok(()) };
    let write = |path: &Path| -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(created.id.as_str().as_bytes())
    };
    write(path).map_err(|source| EngineError::State {
        operation: "create the container ID file",
        path: path.clone(),
        source,
    })
}
