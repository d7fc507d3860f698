//! Timing of whole commands, started with pauses in between as people and CI start them.
//!
//! Back-to-back loops hide the kernel's grace periods (a cgroup move costs 0.1 ms in a loop and 12 ms after a pause).

use crate::sh::{self, Context, Failure, Result};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How much is measured.
pub struct Plan {
    /// Repetitions of short commands.
    pub runs: usize,
    /// Repetitions of long ones.
    pub long_runs: usize,
    /// Rest before each.
    pub pause: Duration,
    /// Containers for the row `ps`.
    pub crowd: usize,
    /// One over this of the ten-layer image.
    pub shrink: usize,
}

impl Plan {
    /// For the published table.
    pub fn full() -> Self {
        Self { runs: 30, long_runs: 3, pause: Duration::from_millis(120), crowd: 100, shrink: 1 }
    }

    /// For a look.
    pub fn quick() -> Self {
        Self { runs: 7, long_runs: 1, pause: Duration::from_millis(120), crowd: 20, shrink: 10 }
    }
}

/// Times of one command, in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    sorted: Vec<f64>,
}

impl Times {
    /// From single times; there must be at least one.
    pub fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self { sorted: times }
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        let n = self.sorted.len();
        match n {
            0 => f64::NAN,
            _ if n % 2 == 1 => self.sorted[n / 2],
            _ => (self.sorted[n / 2 - 1] + self.sorted[n / 2]) / 2.0,
        }
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.sorted.iter().sum::<f64>() / self.sorted.len() as f64
    }

    /// The shortest.
    pub fn min(&self) -> f64 {
        self.sorted.first().copied().unwrap_or(f64::NAN)
    }
}

/// Milliseconds that `work` takes.
pub fn once(work: impl FnOnce() -> Result) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// Times `work` `runs` times after one that does not count; `prepare` runs untimed before each.
pub fn spaced(
    runs: usize,
    pause: Duration,
    mut prepare: impl FnMut() -> Result,
    mut work: impl FnMut() -> Result,
) -> Result<Times> {
    let mut times = Vec::with_capacity(runs);
    for round in 0..=runs {
        prepare()?;
        std::thread::sleep(pause);
        let time = once(&mut work)?;
        if round > 0 {
            times.push(time);
        }
    }
    Ok(Times::new(times))
}

/// Runs a command in silence; its output is read only to explain a failure.
pub fn quiet(command: &mut Command) -> Result {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.context(sh::shown(command))?;
    if status.success() {
        return Ok(());
    }
    // Once more to hear why.
    let again = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().context(sh::shown(command))?;
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    Err(Failure::new(format!("{} failed: {status}: {}", sh::shown(command), text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics() {
        let times = Times::new(vec![4.0, 1.0, 7.0]);
        assert_eq!((times.median(), times.mean(), times.min()), (4.0, 4.0, 1.0));
        assert_eq!(Times::new(vec![1.0, 2.0]).median(), 1.5);
    }
}
