//! A container's state in Docker's words.

use crate::units::human_duration;
use dhow_types::Timestamp;

/// What the `STATUS` column is made from.
#[derive(Debug, Clone, Default)]
pub struct StatusInput<'a> {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: &'a str,
    /// Last exit code.
    pub exit_code: i64,
    /// Last start.
    pub started_at: Option<Timestamp>,
    /// Last end.
    pub finished_at: Option<Timestamp>,
    /// `healthy`, `unhealthy` or `starting`, when there is a probe.
    pub health: Option<&'a str>,
}

/// `Up 5 minutes (healthy)`, `Exited (0) 3 hours ago` and the like.
pub fn status_text(input: &StatusInput<'_>, now: Timestamp) -> String {
    let since = |t: Option<Timestamp>| human_duration(t.map_or(0, |t| now.duration_since(t).as_secs()));
    match input.state {
        "running" => match input.health {
            Some("starting") => format!("Up {} (health: starting)", since(input.started_at)),
            Some(health) => format!("Up {} ({health})", since(input.started_at)),
            None => format!("Up {}", since(input.started_at)),
        },
        "paused" => format!("Up {} (Paused)", since(input.started_at)),
        "restarting" => format!("Restarting ({}) {} ago", input.exit_code, since(input.finished_at)),
        "removing" => "Removal In Progress".to_owned(),
        "dead" => "Dead".to_owned(),
        "exited" => format!("Exited ({}) {} ago", input.exit_code, since(input.finished_at)),
        _ => "Created".to_owned(),
    }
}

/// The age of something, `3 hours ago`.
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", human_duration(now.duration_since(time).as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let now: Timestamp = "2024-01-01T01:00:00Z".parse().unwrap();
        let then = Some("2024-01-01T00:55:00Z".parse().unwrap());
        let show = |state, health, exit_code| {
            status_text(&StatusInput { state, exit_code, started_at: then, finished_at: then, health }, now)
        };
        assert_eq!(show("running", None, 0), "Up 5 minutes");
        assert_eq!(show("running", Some("healthy"), 0), "Up 5 minutes (healthy)");
        assert_eq!(show("running", Some("starting"), 0), "Up 5 minutes (health: starting)");
        assert_eq!(show("paused", None, 0), "Up 5 minutes (Paused)");
        assert_eq!(show("exited", None, 137), "Exited (137) 5 minutes ago");
        assert_eq!(show("restarting", None, 1), "Restarting (1) 5 minutes ago");
        assert_eq!(show("created", None, 0), "Created");
        assert_eq!(show("removing", None, 0), "Removal In Progress");
    }
}
