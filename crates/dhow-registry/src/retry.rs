//! What is tried again, when, and how often.

use crate::transport::{Failure, FailureKind};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

/// Time and waiting, so that tests need neither.
pub trait Clock: Send + Sync {
    /// Monotonic time: token expiry, stall detection. Never goes back, whatever is done to the wall clock.
    fn now(&self) -> Instant;
    /// Wall time, only to read HTTP dates.
    fn wall(&self) -> SystemTime;
    /// Waits; `why` says what for, in words for the user.
    fn sleep(&self, duration: Duration, why: &str);
}

/// The real thing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, duration: Duration, _why: &str) {
        std::thread::sleep(duration);
    }
}

/// Longest wait before one retry, whatever `Retry-After` says.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Retries for a host that never answered: it is more likely wrong than shaky.
const CONNECT_RETRIES: u32 = 2;

/// Whether a status says "later" (RFC 9110 section 15; 429 is RFC 6585). 501 and 505 say "never".
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 507..=599)
}

/// The retry budget of one operation.
pub(crate) struct Retry<'a> {
    clock: &'a dyn Clock,
    budget: u32,
    used: u32,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(clock: &'a dyn Clock, budget: u32) -> Self {
        Self { clock, budget, used: 0 }
    }

    /// Retries used since the last progress.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Goes on counting from a budget that was put aside with [`Retry::used`].
    pub(crate) fn resume(clock: &'a dyn Clock, budget: u32, used: u32) -> Self {
        Self { clock, budget, used }
    }

    /// After a transient status: waits and returns true, or returns false when the budget is used up.
    pub(crate) fn after_status(&mut self, host: &str, status: u16, retry_after: Option<&str>) -> bool {
        if !is_transient(status) || self.used >= self.budget {
            return false;
        }
        let asked = retry_after.and_then(|text| parse_retry_after(text, self.clock.wall()));
        let wait = match asked {
            Some(asked) => asked.min(MAX_WAIT),
            None => self.backoff(),
        };
        self.wait(wait, format_args!("registry {host} answered {status}"));
        true
    }

    /// After a request that got no answer or a cut one.
    pub(crate) fn after_failure(&mut self, host: &str, failure: &Failure, answered_before: bool) -> bool {
        let budget = match failure.kind {
            FailureKind::Tls | FailureKind::Local => 0,
            FailureKind::Connect if !answered_before => self.budget.min(CONNECT_RETRIES),
            FailureKind::Connect | FailureKind::Timeout | FailureKind::Broken => self.budget,
        };
        if self.used >= budget {
            return false;
        }
        let wait = self.backoff();
        self.wait(wait, format_args!("registry {host}: {}", failure.text));
        true
    }

    fn backoff(&self) -> Duration {
        let full = FIRST_BACKOFF.saturating_mul(1 << self.used.min(10)).min(MAX_BACKOFF);
        // Half fixed, half random: clients that were cut off together must not come back together.
        let random = RandomState::new().build_hasher().finish();
        full / 2 + full.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64) / 2
    }

    fn wait(&mut self, wait: Duration, why: fmt::Arguments<'_>) {
        self.used += 1;
        self.clock.sleep(wait, &format!("{why}; trying again in {:.1} s", wait.as_secs_f64()));
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds or an HTTP date. Nonsense is `None`; a date in the past is zero.
pub(crate) fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_forms() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let parse = |t| parse_retry_after(t, now);
        assert_eq!(parse("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:57 GMT"), Some(Duration::from_secs(20)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        for nonsense in ["", "-5", "soon", "1.5"] {
            assert_eq!(parse(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn backoff_grows_and_stays_bounded() {
        let mut retry = Retry::new(&SystemClock, 100);
        for used in 0..100 {
            retry.used = used;
            let wait = retry.backoff();
            assert!(wait >= FIRST_BACKOFF / 2 && wait <= MAX_BACKOFF, "{used}: {wait:?}");
        }
    }
}
