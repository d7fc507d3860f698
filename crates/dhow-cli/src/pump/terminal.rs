//! The caller's terminal.

use crate::error::CliError;
use dhow_sys::tty;
use dhow_types::ErrorKind;
use rustix::stdio::{stderr, stdin, stdout};
use std::sync::{Mutex, Once, PoisonError};

/// Settings to restore when the program ends in a way that runs no destructor.
static SETTINGS: Mutex<Option<rustix::termios::Termios>> = Mutex::new(None);

/// Standard input in raw mode until this is dropped, and also if the program panics.
#[derive(Debug)]
pub(crate) struct RawTerminal(#[allow(dead_code, reason = "restores when dropped")] tty::RawMode<'static>);

impl RawTerminal {
    /// Enters raw mode.
    pub(crate) fn enter() -> Result<Self, CliError> {
        static HOOK: Once = Once::new();
        let settings = tty::settings(stdin()).map_err(CliError::io("cannot read the terminal's settings"))?;
        *SETTINGS.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                before(info);
            }));
        });
        tty::RawMode::enter(stdin()).map(Self).map_err(CliError::io("cannot set the terminal to raw mode"))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        SETTINGS.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Restores the terminal, for ways out that run no destructor.
pub(crate) fn restore() {
    if let Ok(mut settings) = SETTINGS.try_lock()
        && let Some(settings) = settings.take()
    {
        // A terminal that is gone needs no restoring.
        let _ = tty::restore(stdin(), &settings);
    }
}

/// Rows and columns of the caller's terminal, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    [stdout(), stdin(), stderr()].into_iter().find_map(|fd| tty::size(fd).ok()).filter(|size| *size != (0, 0))
}

/// A container with a terminal takes input from a terminal only.
pub(crate) fn check_tty(attach_stdin: bool, tty: bool) -> Result<(), CliError> {
    if attach_stdin && tty && !tty::is_terminal(stdin()) {
        return Err(CliError::failed(ErrorKind::Invalid, "the input device is not a TTY")
            .with_hint("leave out -t to give input from a pipe or file"));
    }
    Ok(())
}
