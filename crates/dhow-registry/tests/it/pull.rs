use super::*;
use dhow_testkit::registry::{Action, FakeAuth, Fault, Times};

#[test]
fn a_tag_resolves_to_the_bytes_as_sent() {
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry);
    let fetched = anonymous().client.resolve(&r).unwrap();
    assert_eq!(fetched.bytes, manifest());
    assert_eq!(fetched.digest, Digest::of(&manifest()));
    assert_eq!(fetched.media_type, media::OCI_MANIFEST);
    let accept = registry.requests().pop().unwrap().header("accept").unwrap().to_owned();
    assert!(accept.contains(media::DOCKER_INDEX) && accept.contains(media::OCI_INDEX), "{accept}");
}

#[test]
fn probing_tells_the_digest_without_a_get() {
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry);
    let probed = anonymous().client.probe(&r).unwrap().unwrap();
    assert_eq!(probed.digest, Digest::of(&manifest()));
    assert!(registry.requests().iter().all(|r| r.method == "HEAD" || r.target == "/v2/"));
}

#[test]
fn other_bytes_under_a_digest_are_refused() {
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry).with_digest(Digest::of(&manifest()));
    registry.fault(Fault::get("/manifests/", Times::Always, Action::Corrupt));
    let error = anonymous().client.resolve(&r).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

#[test]
fn a_manifest_by_descriptor_must_have_its_size() {
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry);
    let client = anonymous().client;
    let digest = Digest::of(&manifest());
    assert_eq!(client.manifest(&r, &layer(digest, manifest().len())).unwrap(), manifest());
    for lie in [0, manifest().len() - 1, manifest().len() + 1] {
        let error = client.manifest(&r, &layer(digest, lie)).unwrap_err();
        assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{error}");
    }
}

#[test]
fn endless_documents_are_cut_off() {
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry);
    registry.fault(Fault::get("/manifests/", Times::Always, Action::ExtendChunked(vec![b' '; 5 << 20])));
    let error = anonymous().client.resolve(&r).unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
}

#[test]
fn what_is_not_there_is_named_as_docker_names_it() {
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry);
    let client = anonymous().client;
    let missing = reference(&registry, "x/y:nope");
    let host = registry.host();
    assert_eq!(
        client.resolve(&missing).unwrap_err().to_string(),
        format!("manifest for {host}/x/y:nope not found: manifest unknown")
    );
    let error = client.tags(&reference(&registry, "none")).unwrap_err();
    assert!(error.to_string().starts_with(&format!("repository {host}/none not found: name unknown")), "{error}");
    let error = read_blob(&client, &r, &layer(Digest::of(b"?"), 1), 0).unwrap_err();
    assert!(matches!(error, RegistryError::BlobUnknown { .. }), "{error}");
}

#[test]
fn an_unreachable_registry_is_named_soon() {
    let registry = FakeRegistry::start();
    let (host, r) = (registry.host(), with_manifest(&registry));
    drop(registry);
    let s = anonymous();
    let error = s.client.resolve(&r).unwrap_err();
    assert!(error.to_string().contains(&format!("cannot connect to registry {host}")), "{error}");
    assert!(s.clock.sleeps().iter().sum::<Duration>() < Duration::from_secs(2), "{:?}", s.clock.sleeps());
}

#[test]
fn tags_follow_pages_but_not_to_strangers_with_credentials() {
    let registry = FakeRegistry::with_auth(FakeAuth::Basic { user: "u".into(), password: "p".into() });
    for tag in ["a", "b", "c", "d", "e"] {
        registry.put_manifest("x", Some(tag), media::OCI_MANIFEST, &manifest());
    }
    let s = setup(RegistryConfig::default(), &[(&registry.host(), user("u", "p"))]);
    let r = reference(&registry, "x");
    assert_eq!(s.client.tags(&r).unwrap(), ["a", "b", "c", "d", "e"]);
    let stranger = FakeRegistry::on("127.0.0.2", FakeAuth::None);
    stranger.put_manifest("x", Some("z"), media::OCI_MANIFEST, &manifest());
    let link = format!("<{}/v2/x/tags/list>; rel=\"next\"", stranger.url());
    registry.fault(Fault::get("/tags/list", Times::Always, Action::Header("Link".into(), link)));
    assert_eq!(s.client.tags(&r).unwrap(), ["a", "b", "z"]);
    assert_eq!(stranger.requests().len(), 1, "the control: the stranger was asked");
    assert!(stranger.credentials_seen().is_empty());
}

#[test]
fn blobs_come_whole_and_from_an_offset() {
    let registry = FakeRegistry::start();
    let bytes = noise(300_000);
    let d = layer(registry.put_blob("x/y", bytes.clone()), bytes.len());
    let r = with_manifest(&registry);
    let client = anonymous().client;
    assert_eq!(read_blob(&client, &r, &d, 0).unwrap(), bytes);
    assert_eq!(read_blob(&client, &r, &d, 123_456).unwrap(), bytes[123_456..]);
    assert_eq!(client.blob(&r, &d, 123_456).unwrap().start(), 123_456);
    registry.forget_requests();
    assert!(read_blob(&client, &r, &d, 300_000).unwrap().is_empty());
    assert!(registry.requests().is_empty(), "nothing is missing, nothing is asked");
}

#[test]
fn a_size_that_lies_is_refused() {
    let registry = FakeRegistry::start();
    let bytes = noise(1000);
    let digest = registry.put_blob("x/y", bytes.clone());
    let r = with_manifest(&registry);
    let client = anonymous().client;
    for lie in [999, 1001, 0] {
        let result = read_blob(&client, &r, &layer(digest, lie), 0);
        assert!(lie == 0 && result.as_ref().is_ok_and(Vec::is_empty) || result.is_err(), "{lie}: {result:?}");
    }
    registry.fault(Fault::get("/blobs/", Times::Always, Action::ExtendChunked(b"more".to_vec())));
    let error = read_blob(&client, &r, &layer(digest, 1000), 0).unwrap_err();
    assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{error}");
}

#[test]
fn mirrors_come_first_with_their_own_credentials() {
    let mirror = FakeRegistry::with_auth(FakeAuth::Basic { user: "m".into(), password: "mp".into() });
    let origin = FakeRegistry::with_auth(FakeAuth::Basic { user: "o".into(), password: "secret".into() });
    let r = with_manifest(&origin);
    mirror.put_manifest("x/y", Some("v1"), media::OCI_MANIFEST, &manifest());
    let config = RegistryConfig { mirrors: vec![(origin.host(), vec![mirror.url()])], ..RegistryConfig::default() };
    let s = setup(config.clone(), &[(&origin.host(), user("o", "secret")), (&mirror.host(), user("m", "mp"))]);
    assert!(s.client.resolve(&r).is_ok());
    assert!(origin.requests().is_empty(), "the mirror sufficed");
    // Without a credential for the mirror it is passed over, and the origin's never goes there.
    mirror.forget_requests();
    let s = setup(config, &[(&origin.host(), user("o", "secret"))]);
    assert!(s.client.resolve(&r).is_ok());
    assert!(!mirror.requests().is_empty() && mirror.credentials_seen().is_empty());
    assert!(!origin.credentials_seen().is_empty());
    let notices = s.client.take_notices();
    assert!(notices.iter().any(|n| n.contains(&mirror.host())), "{notices:?}");
    assert!(s.known.asked.lock().unwrap().contains(&mirror.host()));
}

#[test]
fn a_mirror_that_dies_midway_hands_over_to_the_origin() {
    let (mirror, origin) = (FakeRegistry::start(), FakeRegistry::start());
    let bytes = noise(200_000);
    let d = layer(origin.put_blob("x/y", bytes.clone()), bytes.len());
    mirror.put_blob("x/y", bytes.clone());
    mirror.fault(Fault::get("/blobs/", Times::First(1), Action::Truncate(100_000)));
    mirror.fault(Fault::get("/blobs/", Times::Always, Action::Hangup));
    let r = reference(&origin, "x/y:v1");
    let config = RegistryConfig { mirrors: vec![(origin.host(), vec![mirror.url()])], ..RegistryConfig::default() };
    assert_eq!(read_blob(&setup(config, &[]).client, &r, &d, 0).unwrap(), bytes);
}

#[test]
fn plain_http_is_for_loopback_only() {
    // Nobody listens there; what counts is that https was tried, not http.
    let r: Reference = "registry.invalid:5000/x".parse().unwrap();
    let config = RegistryConfig {
        mirrors: vec![("registry.invalid:5000".into(), vec!["http://mirror.invalid".into()])],
        ..Default::default()
    };
    let error = setup(config, &[]).client.resolve(&r).unwrap_err();
    assert!(matches!(error, RegistryError::Config(_)), "{error}");
}

#[test]
fn clients_are_shared_by_threads() {
    let registry =
        FakeRegistry::with_auth(FakeAuth::Bearer { user: None, realm: None, identity_token: None, expires_in: 300 });
    let bytes = noise(500_000);
    let d = layer(registry.put_blob("x/y", bytes.clone()), bytes.len());
    let r = with_manifest(&registry);
    let client = anonymous().client;
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(read_blob(&client, &r, &d, 0).unwrap(), bytes));
        }
    });
}
