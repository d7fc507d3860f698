//! `login` and `logout`.

use crate::command::Command;
use crate::credentials::Helpers;
use crate::error::{CliError, say};
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_registry::auth_file::{AuthFile, StoredIn};
use dhow_registry::{Credential, DOCKER_HUB_SERVER};
use dhow_types::ErrorKind;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, Read};

pub(crate) static LOGIN: Command = Command {
    usage: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry",
    example: "dhow login -u ayou --password-stdin localhost:5000 < password.txt",
    flags: &[&[
        Flag::value("password", 'p', "string", "Password or Personal Access Token"),
        Flag::switch("password-stdin", '\0', "Take the password from stdin"),
        Flag::value("username", 'u', "string", "Username"),
    ]],
    args: (0, Some(1)),
    ..Command::new("login", &[], login)
};

pub(crate) static LOGOUT: Command = Command {
    usage: "[SERVER]",
    about: "Log out from a registry",
    example: "dhow logout localhost:5000",
    args: (0, Some(1)),
    ..Command::new("logout", &[], logout)
};

fn server(m: &Matches) -> String {
    match m.args.first().map(String::as_str) {
        None | Some("" | "docker.io" | "index.docker.io") => DOCKER_HUB_SERVER.to_owned(),
        Some(server) => server.to_owned(),
    }
}

fn login(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let server = server(m);
    let from_stdin = m.on("password-stdin");
    if from_stdin && m.text("password").is_some() {
        return Err(CliError::flag("--password and --password-stdin are mutually exclusive"));
    }
    if from_stdin && m.given("username").is_none() {
        return Err(super::invalid("Must provide --username with --password-stdin"));
    }
    let typed = m.given("username").is_some() || m.text("password").is_some();
    let stored = match typed {
        // Docker first tries what it has.
        false => AuthFile::load(&globals.config_path())?.get(&server, &Helpers)?,
        true => None,
    };
    let known = stored.is_some();
    let (user, credential) = match stored {
        Some(credential) => (user_of(&credential), credential),
        None => ask(m, from_stdin)?,
    };
    let outcome = globals.engine()?.login(&server, &credential)?;
    if known {
        out::print("Authenticating with existing credentials...\n")?;
    }
    let credential = outcome.identity_token.map_or(credential, Credential::IdentityToken);
    let stored = AuthFile::update(&globals.config_path(), |file| file.login(&server, &user, &credential, &Helpers))?;
    if stored == StoredIn::File {
        say(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n",
            globals.config_path().display()
        ));
    }
    out::print(&format!("{}\n", outcome.status))?;
    Ok(0)
}

fn user_of(credential: &Credential) -> String {
    match credential {
        Credential::Basic { user, .. } => user.clone(),
        _ => String::new(),
    }
}

fn ask(m: &Matches, from_stdin: bool) -> Result<(String, Credential), CliError> {
    let user = match m.given("username") {
        Some(user) => user,
        None => {
            need_terminal()?;
            out::print("Username: ")?;
            read_line()?
        }
    };
    let password = match m.text("password") {
        Some(password) => {
            say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
            password.to_owned()
        }
        None if from_stdin => {
            let mut text = String::new();
            let read = std::io::stdin().take(64 << 10).read_to_string(&mut text);
            read.map_err(CliError::io("cannot read the password"))?;
            text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&text).to_owned()
        }
        None => {
            need_terminal()?;
            read_secret("Password: ")?
        }
    };
    if user.is_empty() {
        return Err(super::invalid("username is empty"));
    }
    if password.is_empty() {
        return Err(super::invalid("password is empty"));
    }
    Ok((user.clone(), Credential::Basic { user, password }))
}

fn need_terminal() -> Result<(), CliError> {
    match rustix::termios::isatty(rustix::stdio::stdin()) {
        true => Ok(()),
        false => Err(CliError::failed(ErrorKind::Invalid, "Cannot perform an interactive login from a non TTY device")
            .with_hint("use -u with --password-stdin")),
    }
}

fn read_line() -> Result<String, CliError> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(CliError::io("cannot read from the terminal"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a line that the terminal does not show.
fn read_secret(prompt: &str) -> Result<String, CliError> {
    let stdin = rustix::stdio::stdin();
    let failed = || CliError::errno("cannot set up the terminal");
    let before = tcgetattr(stdin).map_err(failed())?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    out::print(prompt)?;
    tcsetattr(stdin, OptionalActions::Now, &quiet).map_err(failed())?;
    let line = read_line();
    tcsetattr(stdin, OptionalActions::Now, &before).map_err(failed())?;
    out::print("\n")?;
    line
}

fn logout(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let server = server(m);
    let found = AuthFile::update(&globals.config_path(), |file| file.logout(&server, &Helpers))?;
    match found {
        true => out::print(&format!("Removing login credentials for {server}\n"))?,
        false => out::print(&format!("Not logged in to {server}\n"))?,
    }
    Ok(0)
}
