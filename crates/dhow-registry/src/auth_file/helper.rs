//! The protocol of credential helpers (docker-credential-helpers): a verb as argument, JSON on stdin and stdout.

use crate::config::Credential;
use crate::error::RegistryError;
use serde::{Deserialize, Serialize};
use std::io;

/// Largest answer that is read from a helper, in bytes. Runners should not read more either.
pub const MAX_OUTPUT: usize = 64 << 10;

/// What a helper left behind.
#[derive(Clone, PartialEq, Eq)]
pub struct HelperOutput {
    /// It exited with 0.
    pub success: bool,
    /// Its standard output. Standard error is nobody's business: it may hold a secret.
    pub stdout: Vec<u8>,
}

/// Runs `docker-credential-HELPER VERB` with `input` on its standard input, found on the user's PATH.
pub trait HelperRunner: Sync {
    /// `helper` is a checked plain name without the prefix; `verb` is `get`, `store` or `erase`.
    fn run(&self, helper: &str, verb: &str, input: &[u8]) -> io::Result<HelperOutput>;
}

/// For places where no program may be run: every helper is missing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHelpers;

impl HelperRunner for NoHelpers {
    fn run(&self, _helper: &str, _verb: &str, _input: &[u8]) -> io::Result<HelperOutput> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "credential helpers cannot be run here"))
    }
}

/// User name that marks an identity token in a helper's store.
const TOKEN_USER: &str = "<token>";
/// What helpers print when they have nothing; the exit code is 1 as for any failure.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Names become part of a program's name: a slash or a `..` would let the file choose any program.
fn check_name(name: &str) -> Result<(), RegistryError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    if name.is_empty() || name.len() > 100 || name.contains("..") || !name.bytes().all(plain) {
        return Err(RegistryError::HelperName(name.chars().take(100).collect()));
    }
    Ok(())
}

fn run(runner: &dyn HelperRunner, name: &str, verb: &'static str, input: &[u8]) -> Result<HelperOutput, RegistryError> {
    check_name(name)?;
    let output =
        runner.run(name, verb, input).map_err(|source| RegistryError::HelperRun { helper: name.to_owned(), source })?;
    if output.stdout.len() > MAX_OUTPUT {
        return Err(failed(name, verb, "its answer is too long"));
    }
    Ok(output)
}

fn failed(name: &str, verb: &'static str, detail: &'static str) -> RegistryError {
    RegistryError::Helper { helper: name.to_owned(), verb, detail }
}

fn is_not_found(output: &HelperOutput) -> bool {
    !output.success && String::from_utf8_lossy(&output.stdout).trim() == NOT_FOUND
}

pub(super) fn get(runner: &dyn HelperRunner, name: &str, server: &str) -> Result<Option<Credential>, RegistryError> {
    let output = run(runner, name, "get", server.as_bytes())?;
    if is_not_found(&output) {
        return Ok(None);
    }
    if !output.success {
        return Err(failed(name, "get", "it exited with an error"));
    }
    let entry: Entry = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed(name, "get", "its answer is not the expected JSON"))?;
    if entry.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if entry.username == TOKEN_USER {
        Credential::IdentityToken(entry.secret)
    } else {
        Credential::Basic { user: entry.username, password: entry.secret }
    }))
}

pub(super) fn store(
    runner: &dyn HelperRunner,
    name: &str,
    server: &str,
    user: &str,
    credential: &Credential,
) -> Result<(), RegistryError> {
    let (username, secret) = match credential {
        Credential::Basic { user, password } => (user.as_str(), password),
        Credential::IdentityToken(token) => (TOKEN_USER, token),
        Credential::RegistryToken(token) => (user, token),
    };
    let entry = Entry { server_url: server.to_owned(), username: username.to_owned(), secret: secret.clone() };
    let input = serde_json::to_vec(&entry).map_err(|_| failed(name, "store", "the credential is not text"))?;
    if run(runner, name, "store", &input)?.success {
        Ok(())
    } else {
        Err(failed(name, "store", "it exited with an error"))
    }
}

/// Returns whether there was something to erase, as far as the helper tells.
pub(super) fn erase(runner: &dyn HelperRunner, name: &str, server: &str) -> Result<bool, RegistryError> {
    let output = run(runner, name, "erase", server.as_bytes())?;
    if output.success {
        Ok(true)
    } else if is_not_found(&output) {
        Ok(false)
    } else {
        Err(failed(name, "erase", "it exited with an error"))
    }
}
