//! `pull`, `push`, `login`, `logout` against Debian's registry, and against one that lies.

use crate::{dhow, empty};
use dhow_testkit::image::{ImageBuilder, busybox_layer, sha256_hex};
use dhow_testkit::registry::{Action, DebianRegistry, FakeAuth, FakeRegistry, Fault, Times};
use dhow_testkit::{Dhow, Entry, Inside, Tar};
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Debian's registry in the engine's network, open or with one account (`ayou`, `secret`).
fn debian(d: &Dhow, account: bool) -> Inside<'_, DebianRegistry> {
    Inside::new(d.net(), || if account { DebianRegistry::with_user("ayou", "secret") } else { DebianRegistry::start() })
}

/// A registry of our own in the engine's network.
pub(crate) fn fake<'d>(d: &'d Dhow, address: &'static str, auth: FakeAuth) -> Inside<'d, FakeRegistry> {
    Inside::new(d.net(), move || FakeRegistry::on(address, auth))
}

/// Puts an image there as `x:1`; returns the manifest's digest.
pub(crate) fn serve(registry: &FakeRegistry, image: &ImageBuilder) -> String {
    for (digest, bytes) in image.blobs() {
        registry.put_blob_as("x", &format!("sha256:{digest}").parse().unwrap(), bytes);
    }
    registry.put_manifest("x", Some("1"), MANIFEST, &image.manifest_bytes()).to_string()
}

pub(crate) fn small() -> ImageBuilder {
    ImageBuilder::new("x:1").layer(&busybox_layer()).layer(&Tar::of([Entry::file("f", 0o644, "content\n")]))
}

/// What `push` and `pull` print after `digest:`.
fn digest(text: &str) -> String {
    let at = text.find("sha256:").unwrap_or_else(|| panic!("no digest in: {text}"));
    text[at..at + 71].to_owned()
}

#[test]
fn push_and_pull_keep_the_digest() {
    let d = dhow();
    let registry = debian(&d, false);
    let name = format!("{}/ayou/box:v1", registry.localhost());
    d.ok(&["tag", "busybox", &name]);
    let pushed = d.ok(&["push", &name]);
    assert!(pushed.contains("The push refers to repository [") && pushed.contains("v1: digest: sha256:"), "{pushed}");
    let id = d.inspect(&name, "{{.Id}}");
    d.ok(&["rmi", "-f", &name, "busybox"]);
    let pulled = d.ok(&["pull", &name]);
    assert!(
        pulled.contains("Pull complete") && pulled.contains(&format!("Status: Downloaded newer image for {name}")),
        "{pulled}"
    );
    assert_eq!(digest(&pulled), digest(&pushed));
    assert_eq!(d.inspect(&name, "{{.Id}}"), id);
    assert_eq!(d.ok(&["run", "--rm", &name, "echo", "works"]), "works");
    let again = d.ok(&["pull", &name]);
    assert!(again.contains(&format!("Status: Image is up to date for {name}")), "{again}");
    let second = format!("{}/other:v2", registry.localhost());
    d.ok(&["tag", &name, &second]);
    assert_eq!(digest(&d.ok(&["push", &second])), digest(&pushed), "a pulled image keeps its manifest");
    let by_digest = format!("{}/ayou/box@{}", registry.localhost(), digest(&pushed));
    d.ok(&["pull", &by_digest]);
    assert_eq!(d.inspect(&by_digest, "{{.Id}}"), id);
    assert_eq!(d.ok(&["pull", "-q", &name]), name);
}

#[test]
fn built_layers_survive_the_registry() {
    let d = dhow();
    let registry = debian(&d, false);
    let name = format!("{}/built", registry.localhost());
    d.file("ctx/Dockerfile", "FROM busybox\nRUN mkdir /d && chown 5:6 /d && chmod 2750 /d && echo x > /d/f && ln /d/f /d/hard && ln -s f /d/soft && rm /etc/notexec\nCMD [\"ls\", \"/d\"]\n");
    d.ok(&["build", "-q", "-t", &name, &d.path("ctx")]);
    let look =
        ["run", "--rm", &name, "sh", "-c", "stat -c '%a %u %g %h' /d /d/f; readlink /d/soft; ls /etc/notexec 2>&1"];
    let before = d.run(&look).stdout;
    let pushed = digest(&d.ok(&["push", &name]));
    d.ok(&["rmi", "-f", &name, "busybox"]);
    assert_eq!(digest(&d.ok(&["pull", &name])), pushed);
    assert_eq!(d.run(&look).stdout, before);
}

#[test]
fn run_pulls_what_is_missing() {
    let d = dhow();
    let registry = debian(&d, false);
    let name = format!("{}/box", registry.localhost());
    d.ok(&["tag", "busybox", &name]);
    d.ok(&["push", "-q", &name]);
    d.ok(&["rmi", &name]);
    d.fails(&["run", "--rm", "--pull", "never", &name, "true"], 125, &["No such image"]);
    let out = d.run(&["run", "--rm", &name, "echo", "pulled"]);
    assert_eq!((out.code, out.stdout.as_str()), (0, "pulled\n"));
    assert!(out.stderr.contains(&format!("Unable to find image '{name}:latest' locally")), "{out:?}");
    d.ok(&["run", "--rm", "--pull", "always", &name, "true"]);
}

#[test]
fn accounts() {
    let d = dhow();
    let registry = debian(&d, true);
    let server = registry.localhost();
    let name = format!("{server}/box");
    d.ok(&["tag", "busybox", &name]);
    d.fails(&["push", &name], 1, &["auth"]);
    d.fails(&["login", "-u", "ayou", "-p", "wrong", &server], 1, &["unauthorized"]);
    let out = d.input(&["login", "-u", "ayou", "--password-stdin", &server], b"secret\n");
    assert_eq!(out.code, 0, "{out:?}");
    assert!(out.stdout.contains("Login Succeeded"), "{out:?}");
    let file = d.dir().join("config/config.json");
    let config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(config["auths"][&server]["auth"], "YXlvdTpzZWNyZXQ=");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    d.ok(&["push", "-q", &name]);
    d.ok(&["rmi", &name]);
    d.ok(&["pull", "-q", &name]);
    assert!(d.ok(&["logout", &server]).contains(&format!("Removing login credentials for {server}")));
    d.fails(&["pull", &name], 1, &[]);
}

#[test]
fn credential_helpers() {
    let d = dhow();
    let registry = debian(&d, true);
    let server = registry.localhost();
    let script =
        "#!/bin/sh\ncat > /dev/null\n[ \"$1\" = get ] && echo '{\"Username\":\"ayou\",\"Secret\":\"secret\"}'\n";
    let helper = d.file("bin/docker-credential-mine", script);
    dhow_testkit::process::must(std::process::Command::new("chmod").args(["755", &helper]));
    d.file("config/config.json", json!({ "credHelpers": { server.clone(): "mine" } }).to_string());
    let name = format!("{server}/box");
    d.ok(&["tag", "busybox", &name]);
    let mut push = d.command(&["push", "-q", &name]);
    push.env("PATH", format!("{}:/usr/bin:/bin", d.path("bin")));
    let out = d.run_with(&mut push, b"");
    assert_eq!(out.code, 0, "{out:?}");
    d.file("config/config.json", json!({ "credHelpers": { server: "../../bin/evil" } }).to_string());
    d.fails(&["push", &name], 1, &[]);
}

#[test]
fn bearer_tokens() {
    let d = dhow();
    let user = Some(("ayou".to_owned(), "secret".to_owned()));
    let registry = fake(&d, "127.0.0.1", FakeAuth::Bearer { user, realm: None, identity_token: None, expires_in: 300 });
    serve(&registry, &small());
    let name = format!("{}/x:1", registry.host());
    d.fails(&["pull", "-q", &name], 1, &[]);
    d.ok(&["login", "-u", "ayou", "-p", "secret", &registry.host()]);
    d.ok(&["pull", "-q", &name]);
    assert_eq!(d.ok(&["run", "--rm", &name, "cat", "/f"]), "content");
    let anonymous = FakeAuth::Bearer { user: None, realm: None, identity_token: None, expires_in: 300 };
    let open = fake(&d, "127.0.0.1", anonymous);
    serve(&open, &small());
    d.ok(&["pull", "-q", &format!("{}/x:1", open.host())]);
}

#[test]
fn unreachable_and_unknown() {
    let d = empty();
    d.fails(&["pull", "127.0.0.1:1/x"], 1, &["127.0.0.1:1", "refused"]);
    d.fails(&["pull", "no-such-host.invalid/x"], 1, &["no-such-host.invalid"]);
    let registry = debian(&d, false);
    d.fails(&["pull", &format!("{}/nothing", registry.localhost())], 1, &["nothing"]);
    d.fails(&["pull", "Bad_Name"], 1, &["invalid reference format"]);
    d.fails(&["pull", "scratch"], 1, &["reserved"]);
    d.fails(&["push", &format!("{}/nothing", registry.localhost())], 1, &["does not exist locally"]);
}

/// Serves a broken image; the pull must fail with one of `words` and leave no image, layer or staging behind.
#[track_caller]
fn refused(image: &ImageBuilder, words: &[&str]) {
    let d = empty();
    // Baseline: the same engine pulls a good image from such a registry.
    let good = fake(&d, "127.0.0.1", FakeAuth::None);
    serve(&good, &ImageBuilder::new("x:1").layer(&Tar::of([Entry::file("other", 0o644, "good\n")])));
    d.ok(&["pull", "-q", &format!("{}/x:1", good.host())]);
    let registry = fake(&d, "127.0.0.1", FakeAuth::None);
    serve(&registry, image);
    let name = format!("{}/x:1", registry.host());
    let out = d.run(&["pull", &name]);
    assert_ne!(out.code, 0, "{out:?}");
    assert!(words.iter().any(|w| out.stderr.to_lowercase().contains(w)), "{words:?} in {out:?}");
    assert!(registry.requests().iter().any(|r| r.target.contains("/manifests/")), "control: the engine asked for it");
    assert_eq!(d.run(&["image", "inspect", &name]).code, 1, "nothing became visible");
    assert_eq!(d.ok(&["images", "-aq"]).lines().count(), 1, "the good one is there");
}

#[test]
fn lies_about_layers() {
    let stored = small().stored_bytes(1);
    let mut flipped = stored.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    refused(&small().damage_layer(1, flipped), &["digest", "verif"]);
    refused(
        &small().damage_layer(1, stored[..stored.len() / 2].to_vec()),
        &["digest", "verif", "size", "short", "truncated", "end"],
    );
    refused(&small().damage_layer(1, [stored.as_slice(), b"more"].concat()), &["digest", "size", "more"]);
}

#[test]
fn lies_in_documents() {
    let wrong = json!(format!("sha256:{}", sha256_hex(b"something else")));
    refused(&small().edit_config(move |c| c["rootfs"]["diff_ids"][1] = wrong.clone()), &["diff", "corrupt"]);
    refused(&small().edit_config(|c| drop(c["rootfs"]["diff_ids"].as_array_mut().map(Vec::pop))), &["diff"]);
    refused(
        &small().edit_config(|c| drop(c.as_object_mut().map(|o| o.remove("rootfs")))),
        &["rootfs", "diff", "config"],
    );
    refused(&small().edit_manifest(|m| m["layers"][1]["size"] = json!(5)), &["size", "digest", "larger", "more"]);
    refused(&small().edit_manifest(|m| m["layers"][1]["size"] = json!(-5)), &["manifest", "size"]);
    refused(
        &small().edit_manifest(|m| m["layers"][1]["size"] = json!(1u64 << 40)),
        &["size", "digest", "short", "end"],
    );
    refused(
        &small().edit_manifest(|m| m["layers"][1]["digest"] = json!("sha256:../../../etc/passwd")),
        &["digest", "manifest"],
    );
    refused(
        &small().edit_manifest(|m| m["layers"][1]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e")),
        &["digest", "manifest"],
    );
    refused(&small().edit_manifest(|m| m["manifests"] = json!([])), &["both", "ambiguous"]);
}

#[test]
fn pull_by_digest_checks_what_comes() {
    let d = empty();
    let registry = fake(&d, "127.0.0.1", FakeAuth::None);
    let digest = serve(&registry, &small());
    let name = format!("{}/x@{digest}", registry.host());
    d.ok(&["pull", "-q", &name]);
    d.ok(&["rmi", "-f", &name]);
    registry.fault(Fault::get("/manifests/", Times::Always, Action::Corrupt));
    d.fails(&["pull", &name], 1, &["digest"]);
}

#[test]
fn a_broken_line_is_mended() {
    let d = empty();
    let registry = fake(&d, "127.0.0.1", FakeAuth::None);
    let data: Vec<u8> = (0..1u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let image =
        ImageBuilder::new("x:1").layer(&busybox_layer()).plain_layer(&Tar::of([Entry::file("big", 0o644, data)]));
    serve(&registry, &image);
    let layer = format!("sha256:{}", sha256_hex(&image.stored_bytes(1)));
    registry.fault(Fault::get(&layer, Times::First(2), Action::Truncate(300_000)));
    let name = format!("{}/x:1", registry.host());
    d.ok(&["pull", "-q", &name]);
    let ranges: Vec<_> = registry
        .requests()
        .iter()
        .filter(|r| r.target.contains(&layer))
        .map(|r| r.header("range").map(str::to_owned))
        .collect();
    assert!(ranges.len() >= 3 && ranges[1..].iter().all(Option::is_some), "it went on where it was: {ranges:?}");
    assert_eq!(d.ok(&["run", "--rm", &name, "sh", "-c", "wc -c < /big"]), "1048576");
}

#[test]
fn busy_registries_are_asked_again() {
    let d = empty();
    let registry = fake(&d, "127.0.0.1", FakeAuth::None);
    serve(&registry, &small());
    let wait = vec![("Retry-After".to_owned(), "0".to_owned())];
    registry.fault(Fault::get("/manifests/", Times::First(1), Action::Status(429, wait.clone(), String::new())));
    registry.fault(Fault::get("/blobs/", Times::First(1), Action::Status(503, wait, String::new())));
    d.ok(&["pull", "-q", &format!("{}/x:1", registry.host())]);
}
