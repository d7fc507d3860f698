//! `--progress rawjson`: one JSON object per line on standard error, in the shape of BuildKit's `SolveStatus`
//! (`client/graph.go`), which is what tools around buildx read.

use super::View;
use super::steps::Steps;
use crate::progress::moves;
use dhow_engine::{BuildEvent, BuildOutput, Progress, ProgressEvent};
use dhow_types::{Digest, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

#[derive(Serialize, Default)]
struct Status<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<VertexStatus<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Log>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
struct Vertex<'a> {
    digest: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'static str,
}

#[derive(Serialize)]
struct VertexStatus<'a> {
    id: &'a str,
    vertex: String,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    started: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct Log {
    vertex: String,
    stream: u8,
    /// Base64, as Go writes bytes.
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct Warning {
    vertex: String,
    level: u8,
    /// Base64.
    short: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn now() -> String {
    Timestamp::now().to_string()
}

/// A vertex has the digest of its name: two builds of the same Dockerfile give the same.
fn vertex(name: &str) -> String {
    Digest::of(name.as_bytes()).to_string()
}

fn print(out: &mut impl Write, status: &Status<'_>) {
    let Ok(mut line) = serde_json::to_vec(status) else { return };
    line.push(b'\n');
    // If nobody reads the progress, the build goes on.
    let _ = out.write_all(&line);
}

struct Json<W> {
    out: W,
    steps: Steps,
    /// When each step began, as text.
    begun: BTreeMap<usize, String>,
    /// The last step of which something was said; warnings of no step go to it.
    last: usize,
}

pub(super) fn begin() -> View {
    View { output: Box::new(Json::new(std::io::stderr())), progress: Arc::new(Pulls::default()) }
}

impl<W: Write> Json<W> {
    fn new(out: W) -> Self {
        Self { out, steps: Steps::new(0), begun: BTreeMap::new(), last: 0 }
    }

    fn vertex(&mut self, number: usize, completed: bool, cached: bool, error: &'static str) {
        self.last = number;
        let Some(step) = self.steps.get(number) else { return };
        let vertex = Vertex {
            digest: vertex(&step.title),
            name: &step.title,
            started: self.begun.get(&number).map(String::as_str),
            completed: completed.then(now),
            cached,
            error,
        };
        print(&mut self.out, &Status { vertexes: vec![vertex], ..Status::default() });
    }

    fn log(&mut self, number: usize, stream: u8, bytes: &[u8]) {
        let Some(step) = self.steps.get(number) else { return };
        let log = Log { vertex: vertex(&step.title), stream, data: base64(bytes), timestamp: now() };
        print(&mut self.out, &Status { logs: vec![log], ..Status::default() });
    }
}

impl<W: Write> BuildOutput for Json<W> {
    fn event(&mut self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::StepStarted { step, total, stage, text } => {
                self.steps.start(*step, *total, *stage, text, Instant::now());
                self.begun.insert(*step, now());
                self.vertex(*step, false, false, "");
            }
            BuildEvent::Cached { step } => {
                self.steps.cached(*step);
                self.vertex(*step, true, true, "");
            }
            BuildEvent::Output { step, stderr, bytes } => self.log(*step, if *stderr { 2 } else { 1 }, bytes),
            BuildEvent::Note { step, text } => self.log(*step, 2, format!("explain: {text}\n").as_bytes()),
            BuildEvent::StepDone { step, duration, .. } => {
                let cached = self.steps.get(*step).is_some_and(|s| s.stand == super::steps::Stand::Cached);
                self.steps.end(*step, Some(*duration), Instant::now());
                if !cached {
                    self.vertex(*step, true, false, "");
                }
            }
            BuildEvent::StepFailed { step } => self.vertex(*step, true, false, "the step failed"),
            BuildEvent::Warning { text, .. } => {
                let title = self.steps.get(self.last.max(1)).map_or("", |s| &s.title);
                let warning = Warning { vertex: vertex(title), level: 1, short: base64(text.as_bytes()) };
                print(&mut self.out, &Status { warnings: vec![warning], ..Status::default() });
            }
            BuildEvent::Failed { excerpt } => self.log(self.last, 2, excerpt.as_bytes()),
            BuildEvent::Done { .. } => {}
        }
    }
}

/// Transfers are statuses of a vertex of their own.
#[derive(Default)]
struct Pulls(Mutex<BTreeMap<String, String>>);

const TRANSFERS: &str = "[internal] transfer images";

impl Progress for Pulls {
    fn event(&self, event: &ProgressEvent) {
        let ProgressEvent::Layer { id, status, current, total } = event else { return };
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = std::io::stderr().lock();
        if begun.is_empty() {
            let started = now();
            let (digest, name) = (vertex(TRANSFERS), TRANSFERS);
            let vertex = Vertex { digest, name, started: Some(&started), completed: None, cached: false, error: "" };
            print(&mut out, &Status { vertexes: vec![vertex], ..Status::default() });
        }
        let started = begun.entry(id.clone()).or_insert_with(now);
        let over = !moves(status) && current >= total && *total > 0;
        let status = VertexStatus {
            id,
            vertex: vertex(TRANSFERS),
            total: *total,
            current: *current,
            timestamp: now(),
            started,
            completed: over.then(now),
        };
        print(&mut out, &Status { statuses: vec![status], ..Status::default() });
    }
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = DIGITS.get((group >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'=');
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::time::Duration;

    #[test]
    fn encoding() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn shape() {
        let mut view = Json::new(Vec::new());
        for event in [
            BuildEvent::StepStarted { step: 1, total: 2, stage: Some("a"), text: "FROM x" },
            BuildEvent::Cached { step: 1 },
            BuildEvent::StepDone { step: 1, duration: Duration::ZERO, layer: None },
            BuildEvent::StepStarted { step: 2, total: 2, stage: None, text: "RUN y" },
            BuildEvent::Output { step: 2, stderr: true, bytes: b"no\n" },
            BuildEvent::Warning { line: 1, text: "w" },
            BuildEvent::StepFailed { step: 2 },
        ] {
            view.event(&event);
        }
        let text = String::from_utf8(view.out).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0]["vertexes"][0]["name"], "[a 1/2] FROM x");
        assert!(lines[0]["vertexes"][0]["started"].is_string() && lines[0]["vertexes"][0].get("completed").is_none());
        assert_eq!(lines[1]["vertexes"][0]["cached"], true);
        assert_eq!(lines[1]["vertexes"][0]["digest"], lines[0]["vertexes"][0]["digest"]);
        assert_eq!((&lines[3]["logs"][0]["data"], &lines[3]["logs"][0]["stream"]), (&"bm8K".into(), &2.into()));
        assert_eq!(lines[3]["logs"][0]["vertex"], lines[2]["vertexes"][0]["digest"]);
        assert_eq!(lines[4]["warnings"][0]["short"], "dw==");
        assert!(lines[5]["vertexes"][0]["error"].is_string() && lines[5]["vertexes"][0]["completed"].is_string());
    }
}
