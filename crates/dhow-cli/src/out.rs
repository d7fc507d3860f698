//! Standard output: written once per command, made safe when it is a terminal.

use crate::error::CliError;
use dhow_docker::text::terminal_safe_lines;
use std::io::Write;

/// Prints text that may hold what others wrote (names, labels, commands).
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    match is_terminal() {
        true => raw(terminal_safe_lines(text).as_bytes()),
        false => raw(text.as_bytes()),
    }
}

/// Prints bytes as they are: a container's own output, an archive.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    let failed = CliError::io("cannot write to standard output");
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(failed)
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    rustix::termios::isatty(rustix::stdio::stdout())
}
