//! Registries that want credentials that are not theirs (CVE-2020-15157 and its kind), and documents that lie to `load`.

use super::Range;
use crate::registry::{fake, serve, small};
use dhow_testkit::image::{busybox_layer, sha256_hex};
use dhow_testkit::registry::{Action, FakeAuth, Fault, Times};
use dhow_testkit::{Entry, ImageBuilder, Tar};
use serde_json::json;

fn account() -> FakeAuth {
    FakeAuth::Basic { user: "ayou".to_owned(), password: "secret".to_owned() }
}

#[test]
fn a_redirect_takes_no_credentials_along() {
    let range = Range::new();
    let d = &range.d;
    let registry = fake(d, "127.0.0.1", account());
    let elsewhere = fake(d, "127.0.0.2", FakeAuth::None);
    let image = small();
    serve(&registry, &image);
    serve(&elsewhere, &image);
    d.ok(&["login", "-u", "ayou", "-p", "secret", &registry.host()]);
    let name = format!("{}/x:1", registry.host());
    d.ok(&["pull", "-q", &name]);
    assert!(!registry.credentials_seen().is_empty(), "baseline: the registry itself gets them");
    d.ok(&["rmi", "-f", &name]);
    let digest = format!("sha256:{}", sha256_hex(&image.stored_bytes(1)));
    let there = format!("{}/v2/x/blobs/{digest}", elsewhere.url());
    registry.fault(Fault::get(&digest, Times::Always, Action::Redirect(307, there)));
    d.ok(&["pull", "-q", &name]);
    assert!(elsewhere.requests().iter().any(|r| r.target.contains(&digest)), "control: the redirect was followed");
    assert_eq!(elsewhere.credentials_seen(), Vec::<String>::new());
    range.unharmed();
}

#[test]
fn a_realm_elsewhere_gets_no_password() {
    let range = Range::new();
    let d = &range.d;
    let elsewhere = fake(d, "127.0.0.2", FakeAuth::None);
    let realm = Some(format!("{}/token", elsewhere.url()));
    let user = Some(("ayou".to_owned(), "secret".to_owned()));
    let own = FakeAuth::Bearer { user: user.clone(), realm: None, identity_token: None, expires_in: 300 };
    let good = fake(d, "127.0.0.1", own);
    serve(&good, &small());
    d.ok(&["login", "-u", "ayou", "-p", "secret", &good.host()]);
    d.ok(&["pull", "-q", &format!("{}/x:1", good.host())]);
    let bad = fake(d, "127.0.0.1", FakeAuth::Bearer { user, realm, identity_token: None, expires_in: 300 });
    serve(&bad, &small());
    let auth = json!({ "auths": { bad.host(): { "auth": "YXlvdTpzZWNyZXQ=" } } });
    d.file("config/config.json", auth.to_string());
    let out = d.run(&["pull", &format!("{}/x:1", bad.host())]);
    assert_ne!(out.code, 0, "{out:?}");
    assert!(bad.requests().iter().any(|r| r.status == 401), "control: the challenge was given");
    let leaked = elsewhere.credentials_seen();
    assert!(
        leaked.iter().all(|c| !c.contains("secret") && !c.contains("YXlvdTpzZWNyZXQ") && !c.contains("Basic")),
        "{leaked:?}"
    );
    range.unharmed();
}

#[test]
fn foreign_urls_are_not_fetched() {
    let range = Range::new();
    let d = &range.d;
    let elsewhere = fake(d, "127.0.0.2", FakeAuth::None);
    let image = small();
    serve(&elsewhere, &image);
    let digest = format!("sha256:{}", sha256_hex(&image.stored_bytes(1)));
    let url = format!("{}/v2/x/blobs/{digest}", elsewhere.url());
    let foreign = small().edit_manifest(move |m| m["layers"][1]["urls"] = json!([url, "file:///etc/passwd"]));
    let registry = fake(d, "127.0.0.1", FakeAuth::None);
    serve(&registry, &foreign);
    registry.fault(Fault::get(&digest, Times::Always, Action::Status(404, Vec::new(), String::new())));
    let out = d.run(&["pull", &format!("{}/x:1", registry.host())]);
    assert_ne!(out.code, 0, "{out:?}");
    assert!(registry.requests().iter().any(|r| r.target.contains(&digest)), "control");
    assert!(elsewhere.requests().is_empty());
    range.unharmed();
}

#[test]
fn lies_to_load() {
    let range = Range::new();
    let d = &range.d;
    let good =
        || ImageBuilder::new("lie").layer(&busybox_layer()).layer(&Tar::of([Entry::file("f", 0o644, "content")]));
    assert_eq!(d.input(&["load", "-q"], &good().archive()).code, 0, "baseline");
    d.ok(&["rmi", "-f", "lie"]);
    let wrong = json!(format!("sha256:{}", sha256_hex(b"something else")));
    let wrong2 = wrong.clone();
    let mut flipped = good().stored_bytes(1);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (what, bytes) in [
        ("wrong diff id", good().edit_config(move |c| c["rootfs"]["diff_ids"][1] = wrong.clone()).archive()),
        (
            "wrong diff id, old form",
            good().edit_config(move |c| c["rootfs"]["diff_ids"][1] = wrong2.clone()).old_archive(),
        ),
        (
            "too few diff ids",
            good().edit_config(|c| drop(c["rootfs"]["diff_ids"].as_array_mut().map(Vec::pop))).archive(),
        ),
        ("a flipped bit", good().damage_layer(1, flipped).archive_without(&["manifest.json"])),
        (
            "a lying size",
            good().edit_manifest(|m| m["layers"][1]["size"] = json!(3)).archive_without(&["manifest.json"]),
        ),
        (
            "both layers and manifests",
            good().edit_manifest(|m| m["manifests"] = json!([])).archive_without(&["manifest.json"]),
        ),
        ("no rootfs", good().edit_config(|c| drop(c.as_object_mut().map(|o| o.remove("rootfs")))).archive()),
    ] {
        let out = d.input(&["load"], &bytes);
        assert!(out.code != 0 && out.stderr.len() > 10, "{what}: {out:?}");
        assert_eq!(d.run(&["image", "inspect", "lie"]).code, 1, "{what}");
    }
    range.unharmed();
}
