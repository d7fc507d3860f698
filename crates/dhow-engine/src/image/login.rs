//! Checking credentials. Where they are kept is the front end's business (`dhow_registry::auth_file`).

use crate::EngineError;
use dhow_registry::{Client, Credential, LoginOutcome};

/// Asks a registry whether it takes a credential.
pub(crate) fn login(client: &Client, server: &str, credential: &Credential) -> Result<LoginOutcome, EngineError> {
    Ok(client.ping_login(server, credential)?)
}
