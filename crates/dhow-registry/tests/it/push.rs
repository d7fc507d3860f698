use super::*;
use dhow_testkit::registry::{Action, FakeAuth, Fault, Times};
use std::io;

fn push(client: &Client, r: &Reference, bytes: &[u8]) -> Result<u64, RegistryError> {
    let d = layer(Digest::of(bytes), bytes.len());
    let sent = Mutex::new(0);
    let mut open = || Ok(Box::new(io::Cursor::new(bytes.to_vec())) as Box<dyn Read>);
    client.push_blob(r, &d, &mut open, &|n| *sent.lock().unwrap() = n)?;
    Ok(sent.into_inner().unwrap())
}

#[test]
fn blobs_and_manifests_arrive() {
    for auth in [
        FakeAuth::None,
        FakeAuth::Basic { user: "u".into(), password: "p".into() },
        FakeAuth::Bearer { user: Some(("u".into(), "p".into())), realm: None, identity_token: None, expires_in: 60 },
    ] {
        let registry = FakeRegistry::with_auth(auth);
        let r = reference(&registry, "x/y:v1");
        let s = setup(RegistryConfig::default(), &[(&registry.host(), user("u", "p"))]);
        let bytes = noise(400_000);
        let digest = Digest::of(&bytes);
        assert!(!s.client.has_blob(&r, &digest).unwrap());
        assert_eq!(push(&s.client, &r, &bytes).unwrap(), 400_000);
        assert!(s.client.has_blob(&r, &digest).unwrap());
        assert_eq!(registry.blob("x/y", &digest).unwrap(), bytes);
        assert_eq!(s.client.push_manifest(&r, media::OCI_MANIFEST, &manifest()).unwrap(), Digest::of(&manifest()));
        assert_eq!(registry.manifest("x/y", "v1").unwrap(), manifest());
        let by_digest = r.with_digest(Digest::of(&manifest()));
        assert!(s.client.push_manifest(&by_digest, media::OCI_MANIFEST, &manifest()).is_ok());
    }
}

#[test]
fn blobs_are_mounted_from_other_repositories() {
    let registry = FakeRegistry::start();
    let digest = registry.put_blob("from", noise(10));
    let r = reference(&registry, "to");
    let client = anonymous().client;
    assert!(client.mount_blob(&r, "from", &digest).unwrap());
    assert!(client.has_blob(&r, &digest).unwrap());
    assert!(!client.mount_blob(&r, "from", &Digest::of(b"not there")).unwrap());
    assert_eq!(registry.requests().pop().unwrap().method, "DELETE", "the upload opened instead is cancelled");
    registry.fault(Fault::on("POST", "mount=", Times::Always, Action::Status(403, vec![], String::new())));
    assert!(!client.mount_blob(&r, "from", &digest).unwrap(), "no right to mount: upload instead");
}

#[test]
fn cut_uploads_start_over() {
    let registry = FakeRegistry::start();
    let r = reference(&registry, "x");
    registry.fault(Fault::on("PUT", "/uploads/", Times::First(1), Action::Hangup));
    registry.fault(Fault::on("PUT", "/uploads/", Times::Nth(1), Action::Status(503, vec![], String::new())));
    registry.fault(Fault::on("PUT", "/uploads/", Times::Nth(2), Action::Status(404, vec![], String::new())));
    let s = anonymous();
    assert_eq!(push(&s.client, &r, &noise(1000)).unwrap(), 1000);
    assert_eq!(s.clock.sleeps().len(), 3);
    let posts = registry.requests().iter().filter(|r| r.method == "POST").count();
    assert_eq!(posts, 4, "each attempt opens its own upload");
}

#[test]
fn a_source_that_fails_is_not_the_networks_fault() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    let registry = FakeRegistry::start();
    let r = reference(&registry, "x");
    let s = anonymous();
    let d = layer(Digest::of(b"abc"), 3);
    let error = s.client.push_blob(&r, &d, &mut || Ok(Box::new(Broken)), &|_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::Local { .. }), "{error}");
    assert!(dhow_types::report(&error).contains("disk on fire"));
    assert!(s.clock.sleeps().is_empty());
}

#[test]
fn an_upload_location_elsewhere_gets_no_credential() {
    let registry = FakeRegistry::with_auth(FakeAuth::Basic { user: "u".into(), password: "secret".into() });
    let other = FakeRegistry::on("127.0.0.2", FakeAuth::None);
    let r = reference(&registry, "x");
    let to = format!("{}/v2/x/blobs/uploads/upload-1?_state=1", other.url());
    registry.fault(Fault::on("POST", "/uploads/", Times::Nth(1), Action::Header("Location".into(), to)));
    let s = setup(RegistryConfig::default(), &[(&registry.host(), user("u", "secret"))]);
    // The other server knows no such upload; what counts is what reached it.
    registry.fault(Fault::on("POST", "/uploads/", Times::Nth(2), Action::Status(418, vec![], String::new())));
    assert!(push(&s.client, &r, &noise(100)).is_err());
    assert_eq!(other.requests().len(), 1, "the control: it was asked");
    assert!(other.credentials_seen().is_empty());
}

#[test]
fn refusals_name_the_repository() {
    let registry = FakeRegistry::start();
    let denied = r#"{"errors":[{"code":"DENIED","message":"no"}]}"#;
    registry.fault(Fault::on("POST", "/uploads/", Times::Always, Action::Status(403, vec![], denied.into())));
    let error = push(&anonymous().client, &reference(&registry, "a/b"), b"x").unwrap_err();
    assert!(error.to_string().starts_with("denied: requested access to the resource"), "{error}");
    assert!(error.to_string().contains("a/b"), "{error}");
}

#[test]
fn a_registry_that_stores_other_bytes_is_caught() {
    let registry = FakeRegistry::start();
    let wrong = Digest::of(b"other").to_string();
    registry.fault(Fault::on(
        "PUT",
        "/manifests/",
        Times::Always,
        Action::Header("Docker-Content-Digest".into(), wrong),
    ));
    let error = anonymous().client.push_manifest(&reference(&registry, "x:v"), media::OCI_MANIFEST, &manifest());
    assert!(matches!(error, Err(RegistryError::DigestMismatch { .. })));
}
