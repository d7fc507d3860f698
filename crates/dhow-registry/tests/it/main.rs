//! The client against a scripted registry and against Debian's.

mod auth;
mod debian;
mod download;
mod faults;
mod pull;
mod push;

use dhow_oci::image::{Descriptor, media};
use dhow_registry::{Client, Clock, Credential, Credentials, Options, RegistryConfig, RegistryError};
use dhow_testkit::registry::FakeRegistry;
use dhow_types::{Digest, Reference};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Never sleeps; remembers what it was asked to.
#[derive(Default)]
struct TestClock {
    slept: Mutex<Vec<(Duration, String)>>,
    /// How far ahead of real time it is, and how much further after each look.
    ahead: Mutex<(Duration, Duration)>,
}

impl TestClock {
    fn sleeps(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().iter().map(|(d, _)| *d).collect()
    }

    fn advance(&self, by: Duration) {
        self.ahead.lock().unwrap().0 += by;
    }

    fn tick(&self, step: Duration) {
        self.ahead.lock().unwrap().1 = step;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        let mut ahead = self.ahead.lock().unwrap();
        let step = ahead.1;
        ahead.0 += step;
        Instant::now() + ahead.0
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn sleep(&self, duration: Duration, why: &str) {
        self.tick(Duration::ZERO);
        self.slept.lock().unwrap().push((duration, why.to_owned()));
    }
}

/// Credentials by server; remembers who was asked for.
#[derive(Default)]
struct Known {
    entries: BTreeMap<String, Credential>,
    asked: Mutex<Vec<String>>,
}

impl Credentials for Known {
    fn get(&self, server: &str) -> Result<Option<Credential>, RegistryError> {
        self.asked.lock().unwrap().push(server.to_owned());
        Ok(self.entries.get(server).cloned())
    }
}

struct Setup {
    client: Client,
    clock: Arc<TestClock>,
    known: Arc<Known>,
}

fn setup(config: RegistryConfig, entries: &[(&str, Credential)]) -> Setup {
    // Long enough for a busy machine: only a test of stalls may see one.
    setup_with(config, entries, Duration::from_secs(30))
}

fn setup_with(config: RegistryConfig, entries: &[(&str, Credential)], progress_timeout: Duration) -> Setup {
    let known = Arc::new(Known {
        entries: entries.iter().map(|(s, c)| ((*s).to_owned(), c.clone())).collect(),
        asked: Mutex::default(),
    });
    let clock = Arc::new(TestClock::default());
    let options = Options {
        connect_timeout: Duration::from_secs(30),
        progress_timeout,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..Options::default()
    };
    let client = Client::with_options(config, Arc::clone(&known) as _, options);
    Setup { client, clock, known }
}

fn anonymous() -> Setup {
    setup(RegistryConfig::default(), &[])
}

fn user(name: &str, password: &str) -> Credential {
    Credential::Basic { user: name.to_owned(), password: password.to_owned() }
}

fn reference(registry: &FakeRegistry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

fn layer(digest: Digest, size: usize) -> Descriptor {
    serde_json::from_value(serde_json::json!({
        "mediaType": media::OCI_LAYER_GZIP, "digest": digest.to_string(), "size": size,
    }))
    .unwrap()
}

/// Bytes that do not repeat, so that any shift shows.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.extend((state >> 24).to_le_bytes());
    }
    out.truncate(length);
    out
}

fn manifest() -> Vec<u8> {
    let digest = Digest::of(b"{}");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{digest}","size":2}},"layers":[]}}"#,
        media::OCI_MANIFEST,
        media::OCI_CONFIG
    )
    .into_bytes()
}

/// A fake registry's `x/y:v1`.
fn with_manifest(registry: &FakeRegistry) -> Reference {
    registry.put_manifest("x/y", Some("v1"), media::OCI_MANIFEST, &manifest());
    reference(registry, "x/y:v1")
}

fn read_blob(client: &Client, r: &Reference, d: &Descriptor, offset: u64) -> Result<Vec<u8>, RegistryError> {
    let mut reader = client.blob(r, d, offset)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|e| RegistryError::from_read(e, "blob"))?;
    Ok(bytes)
}
