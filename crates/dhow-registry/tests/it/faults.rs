//! F34 to F39 of the fault list: shaky, slow and lying registries.

use super::*;
use dhow_testkit::registry::{Action, FakeAuth, Fault, Times};
use proptest::prelude::*;

struct Blob {
    registry: FakeRegistry,
    bytes: Vec<u8>,
    descriptor: Descriptor,
    reference: Reference,
}

fn blob(length: usize) -> Blob {
    let registry = FakeRegistry::start();
    let bytes = noise(length);
    let descriptor = layer(registry.put_blob("x/y", bytes.clone()), length);
    let reference = with_manifest(&registry);
    Blob { registry, bytes, descriptor, reference }
}

impl Blob {
    #[track_caller]
    fn survives(&self, s: &Setup) {
        let got = read_blob(&s.client, &self.reference, &self.descriptor, 0).unwrap();
        assert!(got == self.bytes, "other bytes came");
    }

    fn ranges(&self) -> Vec<String> {
        let requests = self.registry.requests();
        requests.iter().filter_map(|r| r.header("range").map(str::to_owned)).collect()
    }
}

#[test]
fn transient_statuses_are_retried_on_every_endpoint() {
    for status in [408, 429, 500, 502, 503, 504] {
        let b = blob(10);
        b.registry.fault(Fault::on("", "/v2/x/", Times::First(3), Action::Status(status, vec![], String::new())));
        let s = anonymous();
        assert!(s.client.resolve(&b.reference).is_ok(), "{status}");
        let sleeps = s.clock.sleeps();
        assert_eq!(sleeps.len(), 3);
        assert!(sleeps[2] > sleeps[0] / 2 && sleeps[2] <= Duration::from_secs(1), "{sleeps:?}");
        b.registry.fault(Fault::on("", "/blobs/", Times::First(3), Action::Status(status, vec![], String::new())));
        b.survives(&s);
    }
}

#[test]
fn the_budget_ends_and_the_error_says_so() {
    let b = blob(10);
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit?token=abc"}]}"#;
    b.registry.fault(Fault::get("/v2/x/", Times::Always, Action::Status(429, vec![], body.into())));
    let s = anonymous();
    let error = s.client.resolve(&b.reference).unwrap_err();
    assert!(error.to_string().starts_with("toomanyrequests: "), "{error}");
    assert!(error.to_string().contains("reached your limit") && !error.to_string().contains("abc"), "{error}");
    assert_eq!(s.clock.sleeps().len(), 5);
    for status in [501, 505, 418] {
        let b = blob(10);
        b.registry.fault(Fault::get("/v2/x/", Times::Always, Action::Status(status, vec![], String::new())));
        let s = anonymous();
        assert!(matches!(s.client.resolve(&b.reference), Err(RegistryError::Status { .. })));
        assert!(s.clock.sleeps().is_empty(), "{status} is not worth a retry");
    }
}

#[test]
fn retry_after_is_honoured_within_reason() {
    for (value, expected) in [
        ("7", Some(Duration::from_secs(7))),
        ("Sun, 06 Nov 1994 08:49:57 GMT", Some(Duration::from_secs(20))),
        ("Tue, 06 Nov 1990 08:49:57 GMT", Some(Duration::ZERO)),
        ("86400", Some(Duration::from_secs(60))),
        ("-5", None),
        ("soon", None),
    ] {
        let b = blob(10);
        let headers = vec![("Retry-After".to_owned(), value.to_owned())];
        b.registry.fault(Fault::get("/manifests/", Times::First(1), Action::Status(429, headers, String::new())));
        let s = anonymous();
        assert!(s.client.resolve(&b.reference).is_ok());
        let [slept] = s.clock.sleeps()[..] else { panic!("one wait expected") };
        match expected {
            Some(expected) => assert_eq!(slept, expected, "{value}"),
            None => assert!(slept < Duration::from_millis(251), "{value}: {slept:?}"),
        }
    }
}

#[test]
fn cut_downloads_resume_where_they_were_cut() {
    for action in [Action::Truncate(150_000), Action::Reset(150_000)] {
        let b = blob(400_000);
        b.registry.fault(Fault::get("/blobs/", Times::First(2), action.clone()));
        b.survives(&anonymous());
        let ranges = b.ranges();
        let [first, second] = &ranges[..] else { panic!("two resumptions expected: {ranges:?}") };
        if !matches!(action, Action::Reset(_)) {
            assert_eq!((first.as_str(), second.as_str()), ("bytes=150000-", "bytes=300000-"), "{action:?}");
        }
    }
}

#[test]
fn silence_is_a_cut() {
    let b = blob(400_000);
    b.registry.fault(Fault::get("/blobs/", Times::First(2), Action::Stall(150_000)));
    b.survives(&setup_with(RegistryConfig::default(), &[], Duration::from_millis(200)));
    assert!(b.ranges().len() >= 2);
}

#[test]
fn progress_renews_the_budget_and_standstill_does_not() {
    let b = blob(2_000_000);
    b.registry.fault(Fault::get("/blobs/", Times::Always, Action::Truncate(100_000)));
    b.survives(&anonymous());
    assert_eq!(b.ranges().len(), 19);
    let b = blob(2_000_000);
    b.registry.fault(Fault::get("/blobs/", Times::Always, Action::Truncate(1000)));
    let s = anonymous();
    let error = read_blob(&s.client, &b.reference, &b.descriptor, 0).unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{error}");
    assert_eq!(s.clock.sleeps().len(), 5);
}

#[test]
fn a_cut_at_every_64_kib_is_survived() {
    for at in (0..8).map(|i| i * 65_536) {
        let b = blob(500_000);
        b.registry.fault(Fault::get("/blobs/", Times::First(1), Action::Reset(at)));
        b.survives(&anonymous());
    }
}

#[test]
fn a_short_body_with_agreeing_length_is_refused_at_once() {
    let b = blob(100_000);
    b.registry.fault(Fault::get("/blobs/", Times::Always, Action::Shorten(50_000)));
    let error = read_blob(&anonymous().client, &b.reference, &b.descriptor, 0).unwrap_err();
    assert!(matches!(error, RegistryError::SizeMismatch { expected: 100_000, actual: 50_000, .. }), "{error}");
}

#[test]
fn bodies_without_length_are_fine() {
    let b = blob(100_000);
    b.registry.fault(Fault::get("/blobs/", Times::Always, Action::Chunked));
    b.survives(&anonymous());
}

#[test]
fn servers_that_ignore_ranges_send_the_rest_all_the_same() {
    let b = blob(300_000);
    b.registry.fault(Fault::get("/blobs/", Times::First(1), Action::Truncate(200_000)));
    b.registry.fault(Fault::get("/blobs/", Times::Always, Action::IgnoreRange));
    b.survives(&anonymous());
    assert_eq!(read_blob(&anonymous().client, &b.reference, &b.descriptor, 5).unwrap(), b.bytes[5..]);
}

#[test]
fn servers_that_send_another_range_are_asked_for_the_whole() {
    let b = blob(300_000);
    b.registry.fault(Fault::get("/blobs/", Times::First(1), Action::Truncate(200_000)));
    b.registry.fault(Fault::get("/blobs/", Times::Always, Action::WrongContentRange));
    b.survives(&anonymous());
    let blobs: Vec<_> = b.registry.requests().into_iter().filter(|r| r.target.contains("/blobs/")).collect();
    assert_eq!(blobs.len(), 3, "whole, range, whole");
    assert!(blobs[2].header("range").is_none());
}

#[test]
fn a_416_is_not_the_end() {
    let b = blob(300_000);
    b.registry.fault(Fault::get("/blobs/", Times::First(1), Action::Truncate(200_000)));
    b.registry.fault(Fault::get("/blobs/", Times::Nth(1), Action::Status(416, vec![], String::new())));
    b.survives(&anonymous());
}

#[test]
fn a_trickle_is_a_stall() {
    let b = blob(300_000);
    let s = anonymous();
    // Until the first wait, every look at the clock is a progress window later, and no window sees enough bytes.
    s.clock.tick(Duration::from_secs(31));
    let options =
        Options { clock: Arc::clone(&s.clock) as Arc<dyn Clock>, progress_bytes: u64::MAX, ..Options::default() };
    let client = Client::with_options(RegistryConfig::default(), Arc::new(dhow_registry::NoCredentials), options);
    let got = read_blob(&client, &b.reference, &b.descriptor, 0).unwrap();
    assert!(got == b.bytes);
    assert!(!b.ranges().is_empty() && !s.clock.sleeps().is_empty());
}

#[test]
fn manifests_cut_midway_are_fetched_again() {
    let b = blob(10);
    b.registry.fault(Fault::get("/manifests/", Times::First(2), Action::Truncate(20)));
    b.registry.fault(Fault::get("/manifests/", Times::Nth(2), Action::Hangup));
    assert_eq!(anonymous().client.resolve(&b.reference).unwrap().bytes, manifest());
}

#[test]
fn an_expired_token_is_renewed_midway() {
    let auth = FakeAuth::Bearer { user: None, realm: None, identity_token: None, expires_in: 300 };
    let registry = FakeRegistry::with_auth(auth);
    let bytes = noise(300_000);
    let d = layer(registry.put_blob("x/y", bytes.clone()), bytes.len());
    let r = with_manifest(&registry);
    let s = anonymous();
    s.client.resolve(&r).unwrap();
    // The registry no longer knows the token, whatever its life was said to be.
    registry.expire_tokens();
    registry.fault(Fault::get("/blobs/", Times::Nth(1), Action::Truncate(100_000)));
    assert_eq!(read_blob(&s.client, &r, &d, 0).unwrap(), bytes);
    // And one that is over by the clock is not even tried.
    registry.forget_requests();
    s.clock.advance(Duration::from_secs(301));
    s.client.resolve(&r).unwrap();
    let statuses: Vec<u16> = registry.requests().iter().map(|r| r.status).collect();
    assert_eq!(statuses, [200, 200], "token, manifest");
}

fn any_fault() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0usize..200_000).prop_map(Action::Truncate),
        (0usize..200_000).prop_map(Action::Reset),
        Just(Action::Hangup),
        Just(Action::IgnoreRange),
        Just(Action::WrongContentRange),
        Just(Action::Chunked),
        prop::sample::select(vec![408u16, 429, 500, 502, 503, 504]).prop_map(|status| Action::Status(
            status,
            vec![],
            String::new()
        )),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever goes wrong, as long as it stops before the budget: exactly the right bytes come, from any offset.
    #[test]
    fn any_few_faults_are_survived(
        faults in prop::collection::vec((0usize..4, any_fault()), 0..4),
        offset in 0u64..200_000,
    ) {
        let b = blob(200_000);
        for (nth, action) in faults {
            b.registry.fault(Fault::get("/blobs/", Times::Nth(nth), action));
        }
        let got = read_blob(&anonymous().client, &b.reference, &b.descriptor, offset);
        let expected = &b.bytes[usize::try_from(offset).unwrap()..];
        prop_assert!(got.is_ok_and(|got| got == expected));
    }
}
