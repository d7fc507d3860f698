//! The caller's terminal.

use crate::error::CliError;
use dhow_sys::tty;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::sync::{Mutex, Once, PoisonError};

/// Settings to restore when the program ends, in whatever way.
static SETTINGS: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input in raw mode until this is dropped, and also if the program panics.
///
/// Fully raw, output included: the container's terminal has translated newlines already, and a full-screen program there
/// that switched the translation off means its bare line feeds.
#[derive(Debug)]
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// Enters raw mode.
    pub(crate) fn enter() -> Result<Self, CliError> {
        static HOOK: Once = Once::new();
        let before = tcgetattr(stdin()).map_err(CliError::errno("cannot read the terminal's settings"))?;
        let mut raw = before.clone();
        raw.make_raw();
        *SETTINGS.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                before(info);
            }));
        });
        tcsetattr(stdin(), OptionalActions::Now, &raw)
            .map_err(CliError::errno("cannot set the terminal to raw mode"))?;
        Ok(Self(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal if it is raw.
pub(crate) fn restore() {
    if let Ok(mut settings) = SETTINGS.try_lock()
        && let Some(settings) = settings.take()
    {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &settings);
    }
}

/// Rows and columns of the caller's terminal, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    [stdout(), stdin(), stderr()].into_iter().find_map(|fd| tty::size(fd).ok()).filter(|size| *size != (0, 0))
}

/// A container with a terminal takes input from a terminal only.
pub(crate) fn check_tty(attach_stdin: bool, tty: bool) -> Result<(), CliError> {
    if attach_stdin && tty && !tty::is_terminal(stdin()) {
        return Err(CliError::Refused {
            message: "the input device is not a TTY",
            hint: "leave out -t to give input from a pipe or file",
        });
    }
    Ok(())
}
