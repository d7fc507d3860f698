//! `~/.docker/config.json`: stored credentials, shared with Docker's own tools.
//!
//! The file is read, changed and replaced as a whole by an atomic rename with mode 0600; fields that are not ours and the
//! order of all fields stay. A symbolic link is followed, so that a file kept elsewhere stays there. Two writers exclude
//! each other by a lock on the directory.
//!
//! Credentials may live in helper programs (`docker-credential-NAME`, chosen by `credHelpers` per server or `credsStore`
//! for all). Running them is the front end's business: [`HelperRunner`].

mod helper;
#[cfg(test)]
mod tests;

pub use helper::{HelperOutput, HelperRunner, NoHelpers};

use crate::config::Credential;
use crate::endpoint::{credential_key, hostname};
use crate::error::RegistryError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The file, loaded.
#[derive(Clone, PartialEq)]
pub struct AuthFile {
    path: PathBuf,
    root: Map<String, Value>,
}

/// Shows the path only: the content is secret.
impl std::fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthFile({})", self.path.display())
    }
}

/// Where a login was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredIn {
    /// In the file itself, hardly more than plain text.
    File,
    /// In a credential helper.
    Helper(String),
}

impl AuthFile {
    /// Reads the file. One that does not exist is an empty one.
    pub fn load(path: &Path) -> Result<Self, RegistryError> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("read", path)(e)),
            Ok(file) => {
                file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
            }
        }
        if bytes.len() as u64 > MAX_FILE {
            return Err(syntax(path, "it is larger than 4 MiB"));
        }
        Self::parse(path, &bytes)
    }

    /// The same from bytes. Empty or blank text is an empty file, as for Docker.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RegistryError> {
        let mut file = Self { path: path.to_owned(), root: Map::new() };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(file);
        }
        // serde_json's messages give line and column but may quote a value of the wrong type; position only.
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|e| syntax(path, &format!("invalid JSON at line {} column {}", e.line(), e.column())))?;
        let Value::Object(root) = value else { return Err(syntax(path, "it is not a JSON object")) };
        for key in ["auths", "credHelpers"] {
            if root.get(key).is_some_and(|v| !v.is_object() && !v.is_null()) {
                return Err(syntax(path, &format!("{key:?} is not an object")));
            }
        }
        file.root = root;
        Ok(file)
    }

    /// Locks, loads, changes and saves. Nothing is written when `change` fails or leaves the file as it was.
    pub fn update<T>(
        path: &Path,
        change: impl FnOnce(&mut AuthFile) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        // Through a link: the file's own directory is the one to lock and to rename in.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let dir = parent(path);
        fs::create_dir_all(dir).map_err(failed("create the directory of", path))?;
        let handle = File::open(dir).map_err(failed("open the directory of", path))?;
        rustix::fs::flock(&handle, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| failed("lock the directory of", path)(e.into()))?;
        let mut file = Self::load(path)?;
        let before = file.root.clone();
        let result = change(&mut file)?;
        if file.root != before {
            file.save()?;
        }
        Ok(result)
    }

    /// The credential for a server, from its helper, the general helper, or the file, in this order.
    pub fn get(&self, server: &str, helpers: &dyn HelperRunner) -> Result<Option<Credential>, RegistryError> {
        let key = credential_key(server);
        if let Some(name) = self.helper_for(&key)
            && let Some(credential) = helper::get(helpers, &name, &key)?
        {
            return Ok(Some(credential));
        }
        let Some(entry) = self.entry(&key) else { return Ok(None) };
        let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|t| !t.is_empty());
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credential::RegistryToken(token.to_owned())));
        }
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::IdentityToken(token.to_owned())));
        }
        if let Some(auth) = text("auth") {
            return self.decode(&key, auth);
        }
        // Old files have the two fields apart.
        match (text("username"), text("password")) {
            (Some(user), Some(password)) => {
                Ok(Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() }))
            }
            _ => Ok(None),
        }
    }

    fn decode(&self, key: &str, auth: &str) -> Result<Option<Credential>, RegistryError> {
        let bad = || syntax(&self.path, &format!("the \"auth\" of {key:?} is not base64 of user:password"));
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        // Docker pads the password with NULs in some old files.
        let password = password.trim_end_matches('\0');
        Ok((!user.is_empty()).then(|| Credential::Basic { user: user.to_owned(), password: password.to_owned() }))
    }

    /// Stores a credential under a server, replacing the one before. `user` goes along with an identity token, for
    /// display only. Call [`AuthFile::save`], or use [`AuthFile::update`].
    pub fn login(
        &mut self,
        server: &str,
        user: &str,
        credential: &Credential,
        helpers: &dyn HelperRunner,
    ) -> Result<StoredIn, RegistryError> {
        let key = credential_key(server);
        let helper = self.helper_for(&key);
        let mut entry = Map::new();
        if let Some(name) = &helper {
            helper::store(helpers, name, &key, user, credential)?;
        } else {
            let auth = |password: &str| Value::String(STANDARD.encode(format!("{user}:{password}")));
            match credential {
                Credential::Basic { user, password } => {
                    let text = STANDARD.encode(format!("{user}:{password}"));
                    entry.insert("auth".to_owned(), Value::String(text));
                }
                Credential::IdentityToken(token) => {
                    if !user.is_empty() {
                        entry.insert("auth".to_owned(), auth(""));
                    }
                    entry.insert("identitytoken".to_owned(), Value::String(token.clone()));
                }
                Credential::RegistryToken(token) => {
                    entry.insert("registrytoken".to_owned(), Value::String(token.clone()));
                }
            }
        }
        // With a helper an empty entry marks the server as logged in, as Docker writes it.
        let auths = self.root.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if auths.is_null() {
            *auths = Value::Object(Map::new());
        }
        if let Value::Object(auths) = auths {
            auths.insert(key, Value::Object(entry));
        }
        Ok(helper.map_or(StoredIn::File, StoredIn::Helper))
    }

    /// Forgets a server's credential. Returns whether there was an entry.
    pub fn logout(&mut self, server: &str, helpers: &dyn HelperRunner) -> Result<bool, RegistryError> {
        let key = credential_key(server);
        let mut found = false;
        if let Some(Value::Object(auths)) = self.root.get_mut("auths") {
            let keys: Vec<String> = auths.keys().filter(|k| names_server(k, &key)).cloned().collect();
            for name in keys {
                found |= auths.shift_remove(&name).is_some();
            }
        }
        if let Some(name) = self.helper_for(&key) {
            found |= helper::erase(helpers, &name, &key)?;
        }
        Ok(found)
    }

    /// Servers that have an entry.
    pub fn servers(&self) -> Vec<String> {
        self.root.get("auths").and_then(Value::as_object).map(|a| a.keys().cloned().collect()).unwrap_or_default()
    }

    fn entry(&self, key: &str) -> Option<&Map<String, Value>> {
        let auths = self.root.get("auths")?.as_object()?;
        let named = auths.iter().find(|(name, _)| names_server(name, key)).map(|(_, value)| value);
        auths.get(key).or(named)?.as_object()
    }

    fn helper_for(&self, key: &str) -> Option<String> {
        let special = self.root.get("credHelpers").and_then(Value::as_object);
        let special = special.and_then(|map| map.iter().find(|(name, _)| names_server(name, key)).map(|(_, v)| v));
        let name = special.or_else(|| self.root.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Writes the file: a temporary one beside it, mode 0600, flushed to disk, then renamed over it.
    pub fn save(&self) -> Result<(), RegistryError> {
        let path = &fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let dir = parent(path);
        fs::create_dir_all(dir).map_err(failed("create the directory of", path))?;
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(&self.root, &mut serializer)
            .map_err(|e| failed("write", path)(io::Error::other(e)))?;
        text.push(b'\n');
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
        let result = write_new(&temporary, &text).and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = result {
            let _ = fs::remove_file(&temporary);
            return Err(failed("write", path)(error));
        }
        File::open(dir).and_then(|d| d.sync_all()).map_err(failed("write", path))
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A leftover of a killed process that had our pid; never written through (it could be a link).
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether an entry's name (a host, or a URL in old files) means the server with this key.
fn names_server(name: &str, key: &str) -> bool {
    name == key || credential_key(name) == key || (!key.contains("://") && hostname(name) == key)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::AuthFile { operation, path, source }
}

fn syntax(path: &Path, detail: &str) -> RegistryError {
    RegistryError::AuthFileSyntax { path: path.to_owned(), detail: detail.to_owned() }
}
