//! Signals by name or number (signal(7)), in Docker's grammar.

use std::fmt;
use std::str::FromStr;

/// A Linux signal number, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

/// The text names no signal. The wording is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid signal: {0}")]
pub struct SignalError(pub String);

/// Names in the order of their numbers, from 1 (signal(7), x86 and ARM).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// The first real-time signal that glibc leaves to programs, and the last.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

impl Signal {
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM.
    pub const TERM: Self = Self(15);

    /// A signal by number.
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=RTMAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let bad = || SignalError(text.chars().take(40).collect());
        if let Ok(number) = text.parse::<i32>() {
            return Self::from_number(number).ok_or_else(bad);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(i) = NAMES.iter().position(|n| *n == name) {
            return Ok(Self(i as i32 + 1));
        }
        let offset = |t: &str| t.parse::<i32>().ok().filter(|n| (0..=RTMAX - RTMIN).contains(n));
        match name {
            "IOT" => Ok(Self(6)),
            "CLD" => Ok(Self(17)),
            "POLL" => Ok(Self(29)),
            "RTMIN" => Ok(Self(RTMIN)),
            "RTMAX" => Ok(Self(RTMAX)),
            _ => {
                let number = if let Some(n) = name.strip_prefix("RTMIN+") {
                    offset(n).map(|n| RTMIN + n)
                } else if let Some(n) = name.strip_prefix("RTMAX-") {
                    offset(n).map(|n| RTMAX - n)
                } else {
                    None
                };
                number.map(Self).ok_or_else(bad)
            }
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let number = |t: &str| t.parse::<Signal>().map(Signal::number);
        assert_eq!(number("KILL"), Ok(9));
        assert_eq!(number("sigterm"), Ok(15));
        assert_eq!(number("9"), Ok(9));
        assert_eq!(number("RTMIN+3"), Ok(37));
        assert_eq!(number("SIGRTMAX-1"), Ok(63));
        for bad in ["0", "-1", "65", "9999", "", "NOPE", "RTMIN+99", "RTMIN+-1"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
