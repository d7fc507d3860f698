//! Credentials for registries: `DOCKER_AUTH_CONFIG`, then `config.json` and the helpers it names.

use crate::globals::variable;
use dhow_registry::auth_file::{AuthFile, HelperOutput, HelperRunner};
use dhow_registry::{Credential, Credentials, RegistryError};
use dhow_sys::signals::SignalFd;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Credentials from the user's files. Nothing is read before a registry asks.
#[derive(Debug)]
pub(crate) struct FileCredentials {
    path: PathBuf,
}

impl FileCredentials {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Credentials for FileCredentials {
    fn get(&self, server: &str) -> Result<Option<Credential>, RegistryError> {
        if let Some(json) = variable("DOCKER_AUTH_CONFIG") {
            let file = AuthFile::parse(&PathBuf::from("DOCKER_AUTH_CONFIG"), json.as_bytes())?;
            if let Some(credential) = file.get(server, &Helpers)? {
                return Ok(Some(credential));
            }
        }
        AuthFile::load(&self.path)?.get(server, &Helpers)
    }
}

/// Runs `docker-credential-NAME` from the user's `PATH`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Helpers;

const SIGPIPE: i32 = 13;
/// More is no credential.
const MAX_OUTPUT: u64 = 64 << 10;

impl HelperRunner for Helpers {
    fn run(&self, helper: &str, verb: &str, input: &[u8]) -> io::Result<HelperOutput> {
        // A helper need not read its input; the signal that comes with it must not end us.
        let pipe_signal = SignalFd::new(&[SIGPIPE])?;
        let mut child = Command::new(format!("docker-credential-{helper}"))
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input) {
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
                _ => {}
            }
        }
        drop(pipe_signal);
        let mut stdout = Vec::new();
        if let Some(out) = child.stdout.take() {
            out.take(MAX_OUTPUT + 1).read_to_end(&mut stdout)?;
        }
        Ok(HelperOutput { success: child.wait()?.success(), stdout })
    }
}
