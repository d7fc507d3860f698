//! The same client against Debian's `docker-registry`: proof that the fake one is no invention.

use super::*;
use dhow_testkit::registry::{DebianOptions, DebianRegistry};
use std::io;

fn upload(client: &Client, r: &Reference, bytes: &[u8]) {
    let mut open = || Ok(Box::new(io::Cursor::new(bytes.to_vec())) as Box<dyn Read>);
    client.push_blob(r, &layer(Digest::of(bytes), bytes.len()), &mut open, &|_| ()).unwrap();
}

#[test]
fn push_pull_mount_and_tags() {
    let registry = DebianRegistry::start();
    let client = anonymous().client;
    let r: Reference = format!("{}/team/app:v1", registry.localhost()).parse().unwrap();
    let bytes = noise(3_000_000);
    let d = layer(Digest::of(&bytes), bytes.len());
    assert!(!client.has_blob(&r, &d.digest).unwrap());
    upload(&client, &r, &bytes);
    upload(&client, &r, b"{}");
    assert!(client.has_blob(&r, &d.digest).unwrap());
    assert_eq!(client.push_manifest(&r, media::OCI_MANIFEST, &manifest()).unwrap(), Digest::of(&manifest()));
    assert_eq!(client.resolve(&r).unwrap().bytes, manifest());
    assert_eq!(client.probe(&r).unwrap().unwrap().digest, Digest::of(&manifest()));
    assert_eq!(client.resolve(&r.with_digest(Digest::of(&manifest()))).unwrap().bytes, manifest());
    assert_eq!(client.tags(&r).unwrap(), ["v1"]);
    assert!(read_blob(&client, &r, &d, 0).unwrap() == bytes);
    assert!(read_blob(&client, &r, &d, 1_000_000).unwrap() == bytes[1_000_000..]);
    let other: Reference = format!("{}/other:v1", registry.localhost()).parse().unwrap();
    assert!(client.mount_blob(&other, "team/app", &d.digest).unwrap());
    assert!(!client.mount_blob(&other, "team/app", &Digest::of(b"not there")).unwrap());
    assert!(client.has_blob(&other, &d.digest).unwrap());
    let missing: Reference = format!("{}/team/app:v2", registry.localhost()).parse().unwrap();
    let error = client.resolve(&missing).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("manifest for {}/team/app:v2 not found: manifest unknown", registry.localhost()))
    );
}

#[test]
fn htpasswd_login() {
    let registry = DebianRegistry::with_user("me", "pass:word");
    let client = anonymous().client;
    assert!(client.ping_login(&registry.host(), &user("me", "pass:word")).is_ok());
    let error = client.ping_login(&registry.host(), &user("me", "wrong")).unwrap_err();
    assert!(error.to_string().contains("failed with status: 401 Unauthorized"), "{error}");
    let r: Reference = format!("{}/x:v1", registry.host()).parse().unwrap();
    assert!(matches!(client.resolve(&r), Err(RegistryError::Unauthorized { had_credentials: false, .. })));
    let s = setup(RegistryConfig::default(), &[(&registry.host(), user("me", "pass:word"))]);
    upload(&s.client, &r, b"{}");
    s.client.push_manifest(&r, media::OCI_MANIFEST, &manifest()).unwrap();
    assert_eq!(s.client.resolve(&r).unwrap().bytes, manifest());
}

/// A registry that speaks TLS on `localhost`, with a self-signed certificate.
fn with_tls(name: &str, expired: bool) -> DebianRegistry {
    DebianRegistry::with(&DebianOptions { tls: Some((name.to_owned(), expired)), ..DebianOptions::default() })
}

#[test]
fn certificates_are_verified_even_on_loopback() {
    let ca = tempfile::tempdir().unwrap();
    let trusting = |registry: &DebianRegistry| {
        let dir = ca.path().join(registry.localhost());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(registry.certificate(), dir.join("ca.crt")).unwrap();
        RegistryConfig { ca_dirs: vec![ca.path().to_owned()], ..RegistryConfig::default() }
    };
    let tags = |registry: &DebianRegistry, config: RegistryConfig| {
        let r: Reference = format!("{}/x", registry.localhost()).parse().unwrap();
        setup(config, &[]).client.tags(&r)
    };
    // Self-signed: refused, unless its CA is known or the registry is marked insecure.
    let registry = with_tls("localhost", false);
    let error = tags(&registry, RegistryConfig::default()).unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error}");
    let hint = dhow_types::Categorized::hint(&error).unwrap();
    assert!(hint.contains("ca.crt"), "{hint}");
    let through = |result: Result<_, RegistryError>| matches!(result, Err(RegistryError::RepositoryUnknown { .. }));
    assert!(through(tags(&registry, trusting(&registry))), "the control");
    let insecure = RegistryConfig { insecure: vec![registry.localhost()], ..RegistryConfig::default() };
    assert!(through(tags(&registry, insecure)));
    // Known CA, but for another name, or expired.
    let registry = with_tls("elsewhere.example", false);
    assert!(matches!(tags(&registry, trusting(&registry)), Err(RegistryError::Tls { .. })));
    let registry = with_tls("localhost", true);
    let error = tags(&registry, trusting(&registry)).unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error}");
    let hint = dhow_types::Categorized::hint(&error).unwrap();
    assert!(hint.contains("clock"), "{hint}: {}", dhow_types::report(&error));
}
