//! Who gets to see a credential (G01 to G05), login, and the token flow.

use super::*;
use dhow_testkit::registry::{Action, FakeAuth, Fault, Times};

fn bearer(realm: Option<String>) -> FakeAuth {
    FakeAuth::Bearer {
        user: Some(("u".into(), "secret".into())),
        realm,
        identity_token: Some("refresh-secret".into()),
        expires_in: 300,
    }
}

fn basic_registry() -> FakeRegistry {
    FakeRegistry::with_auth(FakeAuth::Basic { user: "u".into(), password: "secret".into() })
}

fn logged_in(registry: &FakeRegistry, credential: Credential) -> Setup {
    setup(RegistryConfig::default(), &[(&registry.host(), credential)])
}

#[test]
fn basic_and_bearer_and_identity_tokens_work() {
    for (registry, credential) in [
        (basic_registry(), user("u", "secret")),
        (FakeRegistry::with_auth(bearer(None)), user("u", "secret")),
        (FakeRegistry::with_auth(bearer(None)), Credential::IdentityToken("refresh-secret".into())),
    ] {
        let r = with_manifest(&registry);
        let s = logged_in(&registry, credential.clone());
        assert!(s.client.resolve(&r).is_ok(), "{credential:?}");
        assert!(s.client.resolve(&r).is_ok());
        let tokens = registry.requests().iter().filter(|r| r.target.starts_with("/token")).count();
        assert!(tokens <= 1, "tokens are kept");
        assert_eq!(s.known.asked.lock().unwrap().len(), 1, "credentials are asked for once");
    }
}

#[test]
fn the_token_request_says_what_it_is_for() {
    let registry = FakeRegistry::with_auth(bearer(None));
    let r = with_manifest(&registry);
    let s = logged_in(&registry, user("u", "secret"));
    s.client.resolve(&r).unwrap();
    let asked = registry.requests().into_iter().find(|r| r.target.starts_with("/token")).unwrap();
    assert!(asked.target.contains("service=fake"), "{}", asked.target);
    assert!(asked.target.contains("scope=repository:x/y:pull"), "{}", asked.target);
    assert!(!asked.target.contains("scope=repository:x:pull"), "scopes are ours, not the challenge's");
}

#[test]
fn missing_and_wrong_credentials_are_told_apart() {
    let registry = basic_registry();
    let r = with_manifest(&registry);
    let error = anonymous().client.resolve(&r).unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: authentication required: no basic auth credentials");
    let error = logged_in(&registry, user("u", "wrong")).client.resolve(&r).unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: incorrect username or password");
    let registry = FakeRegistry::with_auth(bearer(None));
    let r = with_manifest(&registry);
    let error = logged_in(&registry, user("u", "wrong")).client.resolve(&r).unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: incorrect username or password");
    let registry = FakeRegistry::start();
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    registry.fault(Fault::get("/manifests/", Times::Always, Action::Status(403, vec![], denied.into())));
    let error = anonymous().client.resolve(&reference(&registry, "a/b")).unwrap_err();
    let expected = format!(
        "pull access denied for {}/a/b, repository does not exist or may require authorization: requested access to the resource is denied",
        registry.host()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn login_checks_and_takes_identity_tokens() {
    let client = anonymous().client;
    let registry = basic_registry();
    let outcome = client.ping_login(&registry.host(), &user("u", "secret")).unwrap();
    assert_eq!((outcome.status.as_str(), outcome.identity_token), ("Login Succeeded", None));
    let error = client.ping_login(&registry.host(), &user("u", "nope")).unwrap_err();
    assert!(error.to_string().contains("401 Unauthorized"), "{error}");
    let registry = FakeRegistry::with_auth(bearer(None));
    let outcome = client.ping_login(&registry.host(), &user("u", "secret")).unwrap();
    assert_eq!(outcome.identity_token.as_deref(), Some("refresh-secret"));
    let error = client.ping_login(&registry.host(), &user("u", "nope")).unwrap_err();
    assert!(dhow_types::Categorized::kind(&error) == dhow_types::ErrorKind::Unauthorized, "{error}");
    let gone = FakeRegistry::start().host();
    assert!(matches!(client.ping_login(&gone, &user("any", "one")), Err(RegistryError::Unreachable { .. })));
    let open = FakeRegistry::start();
    assert!(client.ping_login(&open.url(), &user("any", "one")).is_ok());
}

#[test]
fn redirect_and_www_authenticate_realm_on_another_host_no_credential_leaves() {
    // Redirect: the blob comes from the other host, without the header.
    for status in [301, 302, 303, 307, 308] {
        for registry in [basic_registry(), FakeRegistry::with_auth(bearer(None))] {
            let attacker = FakeRegistry::on("127.0.0.2", FakeAuth::None);
            let bytes = noise(1000);
            let d = layer(attacker.put_blob("x/y", bytes.clone()), bytes.len());
            let r = with_manifest(&registry);
            let to = format!("{}/v2/x/y/blobs/{}?X-Signature=1", attacker.url(), d.digest);
            registry.fault(Fault::get("/blobs/", Times::Always, Action::Redirect(status, to)));
            let s = logged_in(&registry, user("u", "secret"));
            // The control: with the login the registry itself is content.
            s.client.resolve(&r).unwrap();
            assert_eq!(read_blob(&s.client, &r, &d, 0).unwrap(), bytes);
            assert_eq!(attacker.requests().len(), 1);
            assert!(attacker.credentials_seen().is_empty(), "{:?}", attacker.requests());
        }
    }
    // Realm: not asked at all, and the error names it and the way out.
    for credential in [user("u", "secret"), Credential::IdentityToken("refresh-secret".into())] {
        let attacker = FakeRegistry::on("127.0.0.2", bearer(None));
        let registry = FakeRegistry::with_auth(bearer(Some(format!("{}/token?leak=1", attacker.url()))));
        let r = with_manifest(&registry);
        let s = logged_in(&registry, credential.clone());
        let error = s.client.resolve(&r).unwrap_err();
        assert!(attacker.requests().is_empty(), "{:?}", attacker.requests());
        assert!(matches!(error, RegistryError::ForeignRealm { .. }), "{error}");
        assert!(error.to_string().contains(&attacker.url()) && !error.to_string().contains("leak"), "{error}");
        let hint = dhow_types::Categorized::hint(&error).unwrap();
        assert!(hint.contains("127.0.0.2"), "{hint}");
        // The control: a realm that the user trusts is asked, so the attack would have arrived.
        let config = RegistryConfig { trusted_realms: vec!["127.0.0.2".into()], ..RegistryConfig::default() };
        let _ = setup(config, &[(&registry.host(), credential)]).client.resolve(&r);
        assert!(!attacker.credentials_seen().is_empty());
    }
}

#[test]
fn a_foreign_https_realm_gets_no_credential() {
    for realm in ["https://evil.invalid/token", "https://127.0.0.1.evil.invalid/token", "http://evil.invalid/token"] {
        let registry = FakeRegistry::with_auth(bearer(Some(realm.into())));
        let r = with_manifest(&registry);
        let s = logged_in(&registry, user("u", "secret"));
        let error = s.client.resolve(&r).unwrap_err();
        assert!(matches!(error, RegistryError::ForeignRealm { .. }), "{error}");
    }
}

#[test]
fn a_challenge_from_a_redirect_target_is_not_answered() {
    let attacker = FakeRegistry::on("127.0.0.2", FakeAuth::Basic { user: "u".into(), password: "secret".into() });
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry);
    registry.fault(Fault::get("/manifests/", Times::Always, Action::Redirect(307, format!("{}/v2/", attacker.url()))));
    let s = logged_in(&registry, user("u", "secret"));
    assert!(s.client.resolve(&r).is_err());
    assert!(!attacker.requests().is_empty() && attacker.credentials_seen().is_empty());
}

#[test]
fn a_redirect_that_comes_back_carries_nothing_either() {
    let registry = basic_registry();
    let between = FakeRegistry::on("127.0.0.2", FakeAuth::None);
    let r = with_manifest(&registry);
    let there = format!("{}/v2/x/y/blobs/any", between.url());
    registry.fault(Fault::get("/manifests/v1", Times::Always, Action::Redirect(307, there)));
    between.fault(Fault::get("", Times::Always, Action::Redirect(307, format!("{}/v2/", registry.url()))));
    let s = logged_in(&registry, user("u", "secret"));
    assert!(s.client.resolve(&r).is_err());
    let last = registry.requests().pop().unwrap();
    assert_eq!((last.target.as_str(), last.header("authorization")), ("/v2/", None));
}

#[test]
fn a_redirect_on_the_same_server_keeps_the_header() {
    let registry = basic_registry();
    let bytes = noise(1000);
    let d = layer(registry.put_blob("x/y", bytes.clone()), bytes.len());
    let r = with_manifest(&registry);
    registry.put_blob("moved", bytes.clone());
    let to = format!("/v2/moved/blobs/{}", d.digest);
    registry.fault(Fault::get("/v2/x/y/blobs/", Times::Always, Action::Redirect(307, to)));
    let s = logged_in(&registry, user("u", "secret"));
    assert_eq!(read_blob(&s.client, &r, &d, 0).unwrap(), bytes);
}

#[test]
fn redirects_end() {
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry);
    registry.fault(Fault::get("/manifests/", Times::Always, Action::Redirect(307, "/v2/x/y/manifests/v1".into())));
    let error = anonymous().client.resolve(&r).unwrap_err();
    assert!(matches!(&error, RegistryError::Redirect { .. }), "{error}");
    let registry = FakeRegistry::start();
    let r = with_manifest(&registry);
    for bad in ["file:///etc/passwd", "http://10.0.0.1/x", "ftp://a/", "http://user:pw@127.0.0.1/"] {
        registry.fault(Fault::get("/manifests/", Times::First(1), Action::Redirect(307, bad.into())));
        let error = anonymous().client.resolve(&r).unwrap_err();
        assert!(matches!(error, RegistryError::Redirect { .. } | RegistryError::Protocol { .. }), "{bad}: {error}");
    }
}

#[test]
fn foreign_layer_urls_are_never_fetched() {
    let attacker = FakeRegistry::on("127.0.0.2", FakeAuth::None);
    let registry = FakeRegistry::start();
    let bytes = noise(100);
    let mut d = layer(registry.put_blob("x/y", bytes.clone()), bytes.len());
    d.urls = vec![format!("{}/layer", attacker.url()), "http://169.254.169.254/".into(), "file:///etc/shadow".into()];
    let r = with_manifest(&registry);
    assert_eq!(read_blob(&anonymous().client, &r, &d, 0).unwrap(), bytes);
    d.digest = Digest::of(b"only abroad");
    assert!(read_blob(&anonymous().client, &r, &d, 0).is_err());
    assert!(attacker.requests().is_empty());
}

#[test]
fn a_refresh_token_does_not_follow_a_redirect() {
    let attacker = FakeRegistry::on("127.0.0.2", bearer(None));
    let registry = FakeRegistry::with_auth(bearer(None));
    let r = with_manifest(&registry);
    registry.fault(Fault::on(
        "POST",
        "/token",
        Times::Always,
        Action::Redirect(307, format!("{}/token", attacker.url())),
    ));
    let s = logged_in(&registry, Credential::IdentityToken("refresh-secret".into()));
    assert!(matches!(s.client.resolve(&r), Err(RegistryError::Redirect { .. })));
    assert!(attacker.requests().is_empty());
}

#[test]
fn secrets_are_not_in_errors() {
    let registry = FakeRegistry::with_auth(bearer(None));
    let r = with_manifest(&registry);
    registry.fault(Fault::get("/token", Times::Always, Action::Status(500, vec![], "secret".into())));
    let error = logged_in(&registry, user("u", "secret")).client.resolve(&r).unwrap_err();
    let text = format!("{} {error:?}", dhow_types::report(&error));
    assert!(!text.contains("secret") && !text.contains("dTpzZWNyZXQ"), "{text}");
    assert!(!format!("{:?}", user("u", "secret")).contains("secret"));
}
