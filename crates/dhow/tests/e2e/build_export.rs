//! `build --output`, `--push`, `--metadata-file`, `--cache-to`, `--cache-from`.

use crate::{dhow, empty, lines};
use dhow_testkit::registry::{DebianRegistry, FakeAuth};
use dhow_testkit::{Dhow, Inside};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Builds a context with this Dockerfile.
#[track_caller]
fn build(d: &Dhow, dockerfile: &str, options: &[&str]) -> String {
    d.file("ctx/Dockerfile", dockerfile);
    let out = d.run(&[&["build", "--progress", "plain"], options, &[d.path("ctx").as_str()]].concat());
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    out.stdout + &out.stderr
}

#[track_caller]
fn refuses(d: &Dhow, options: &[&str], words: &[&str]) {
    d.file("ctx/Dockerfile", "FROM busybox\nRUN touch /ran\n");
    let out = d.run(&[&["build", "--progress", "plain"], options, &[d.path("ctx").as_str()]].concat());
    let text = out.stdout + &out.stderr;
    assert_ne!(out.code, 0, "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "'{word}' is not in: {text}"));
    assert!(!text.contains("touch /ran"), "found out before the build: {text}");
}

fn images(d: &Dhow) -> Vec<String> {
    lines(&d.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])).iter().map(|l| (*l).to_owned()).collect()
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const RESULT: &str = "FROM busybox AS make\nRUN mkdir -p /out/deep && echo made > /out/deep/file && chown 5:6 /out/deep/file && \
                      chmod 4755 /out/deep/file && ln -s /etc/passwd /out/link && ln /out/deep/file /out/hard\nFROM scratch\nCOPY --from=make /out /\n";

#[test]
fn results_as_files() {
    let d = dhow();
    let out = d.path("out");
    fs::create_dir_all(d.path("out/deep")).unwrap();
    d.file("out/deep/mine", "kept");
    build(&d, RESULT, &["-o", &out]);
    assert_eq!(fs::read_to_string(d.path("out/deep/file")).unwrap(), "made\n");
    assert_eq!(fs::read_to_string(d.path("out/deep/mine")).unwrap(), "kept");
    assert_eq!(fs::read_link(d.path("out/link")).unwrap(), Path::new("/etc/passwd"));
    let meta = fs::metadata(d.path("out/deep/file")).unwrap();
    let me = fs::metadata(d.path("ctx")).unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o7777),
        (me.uid(), me.gid(), 0o755),
        "the user's, without setuid"
    );
    assert_eq!(images(&d), ["busybox:latest"], "only files were asked for");

    // The same as a tar, with the owners of the image; in a file and on standard output.
    let tar = d.path("out.tar");
    build(&d, RESULT, &["-o", &format!("type=tar,dest={tar}")]);
    let listing = |path: &str| {
        let out = std::process::Command::new("tar").args(["-tvf", path, "--numeric-owner"]).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    let text = listing(&tar);
    assert!(
        text.contains("-rwsr-xr-x 5/6") && text.contains("deep/file") && text.contains("link -> /etc/passwd"),
        "{text}"
    );
    let build = d.command(&["build", "-q", "-o", "-", &d.path("ctx")]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" > piped.tar"]).arg(build.get_program()).args(build.get_args());
    shell.env_clear().current_dir(d.dir()).envs(build.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let done = d.run_with(&mut shell, b"");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(fs::read(d.path("piped.tar")).unwrap() == fs::read(&tar).unwrap(), "nothing but the archive is written");
    assert_eq!(images(&d), ["busybox:latest"]);
}

#[test]
fn files_cannot_be_led_out() {
    let d = dhow();
    fs::create_dir(d.path("victim")).unwrap();
    d.file("victim/file", "untouched");
    let victim = d.path("victim");
    // First the image brings a link to the victim, then a directory of that name with a file in it.
    let link = format!(
        "FROM scratch AS x\nFROM busybox AS make\nRUN mkdir /o && ln -s {victim} /o/d && ln -s {victim}/file /o/f\nFROM scratch\nCOPY --from=make /o /\n"
    );
    build(&d, &link, &["-o", "out"]);
    assert!(fs::symlink_metadata(d.path("out/d")).unwrap().is_symlink());
    let files = "FROM busybox AS make\nRUN mkdir -p /o/d && echo bad > /o/d/file && echo bad > /o/f\nFROM scratch\nCOPY --from=make /o /\n";
    build(&d, files, &["-o", "out"]);
    assert_eq!(fs::read_to_string(d.path("victim/file")).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(d.path("out/d/file")).unwrap(), "bad\n", "the attack got as far as the destination");
    assert_eq!(fs::read_dir(d.path("victim")).unwrap().count(), 1);
}

#[test]
fn archives_and_layouts_load_elsewhere() {
    let d = dhow();
    let there = empty();
    let text = "FROM busybox\nRUN echo hello > /greeting\nCMD [\"cat\", \"/greeting\"]\n";
    for (output, name) in
        [("type=oci", "a"), ("type=docker", "b"), ("type=oci,compression=zstd,compression-level=3", "c")]
    {
        let file = d.path(&format!("{name}.tar"));
        let metadata = d.path("metadata.json");
        let output = format!("{output},dest={file}");
        build(&d, text, &["-t", &format!("{name}:1"), "-o", &output, "--metadata-file", &metadata]);
        assert_eq!(images(&d), ["busybox:latest"]);
        let loaded = there.ok(&["load", "-i", &file]);
        assert!(loaded.contains(&format!("Loaded image: {name}:1")), "{loaded}");
        assert_eq!(there.ok(&["run", "--rm", &format!("{name}:1")]), "hello");
        let metadata = json(&metadata);
        assert_eq!(metadata["containerimage.config.digest"], there.inspect(&format!("{name}:1"), "{{.Id}}"));
        assert_eq!(metadata["image.name"], format!("docker.io/library/{name}:1"));
        assert_eq!(metadata["containerimage.descriptor"]["digest"], metadata["containerimage.digest"]);
    }
    let layout = d.path("layout");
    build(&d, text, &["-t", "l:1", "-o", &format!("type=oci,dest={layout},tar=false")]);
    let index = json(&d.path("layout/index.json"));
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1");
    // Several at once, one of them the store.
    let file = d.path("again.tar");
    build(&d, text, &["-t", "kept", "-o", &format!("type=oci,dest={file}"), "-o", "files", "--load"]);
    assert!(fs::metadata(&file).is_ok() && fs::metadata(d.path("files/greeting")).is_ok());
    assert_eq!(d.ok(&["run", "--rm", "kept"]), "hello");
}

#[test]
fn pushed_at_once() {
    let d = dhow();
    let registry = Inside::new(d.net(), DebianRegistry::start);
    let (one, two) = (format!("{}/a/app:1", registry.localhost()), format!("{}/b:2", registry.localhost()));
    let metadata = d.path("m.json");
    let text = "FROM busybox\nRUN echo pushed > /greeting\nCMD [\"cat\", \"/greeting\"]\n";
    build(&d, text, &["-t", &one, "-t", &two, "--push", "--annotation", "org.x=y", "--metadata-file", &metadata]);
    let digest = json(&metadata)["containerimage.digest"].as_str().unwrap().to_owned();
    for name in [&one, &two] {
        let pulled = d.ok(&["pull", name]);
        assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
        assert_eq!(d.ok(&["run", "--rm", name]), "pushed");
    }
    // Without a name, by digest.
    let nameless = format!("type=image,name={}/c,push=true,push-by-digest=true,store=false", registry.localhost());
    build(&d, text, &["-o", &nameless, "--metadata-file", &metadata]);
    let digest = json(&metadata)["containerimage.digest"].as_str().unwrap().to_owned();
    d.ok(&["pull", &format!("{}/c@{digest}", registry.localhost())]);
    d.fails(&["pull", &format!("{}/c:latest", registry.localhost())], 1, &["c:latest"]);
}

#[test]
fn several_platforms_are_one_index() {
    let d = dhow();
    let registry = Inside::new(d.net(), DebianRegistry::start);
    let name = format!("{}/multi:1", registry.localhost());
    let text = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n";
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    build(&d, text, &[&platforms[..], &["-t", &name, "--push", "-o", "type=local,dest=tree"]].concat());
    for arch in ["amd64", "arm64"] {
        assert!(Path::new(&d.path(&format!("tree/linux_{arch}/{arch}"))).is_file());
        d.ok(&["pull", "--platform", &format!("linux/{arch}"), &name]);
        assert_eq!(d.inspect(&name, "{{.Architecture}} {{.Config.Labels.arch}}"), format!("{arch} {arch}"));
    }
    let file = d.path("multi.tar");
    build(&d, text, &[&platforms[..], &["-t", "multi:2", "-o", &format!("type=oci,dest={file}")]].concat());
    let there = empty();
    there.ok(&["load", "-i", &file]);
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    assert_eq!(there.inspect("multi:2", "{{.Architecture}}"), host);
}

#[test]
fn mistakes_are_found_before_the_build() {
    let d = dhow();
    refuses(&d, &["-o", "type=what"], &["what"]);
    refuses(&d, &["-o", "type=local"], &["dest is required"]);
    refuses(&d, &["-o", "type=tar,dest=/none/such"], &["/none"]);
    refuses(&d, &["-o", "type=image,colour=red"], &["colour"]);
    refuses(&d, &["--push"], &["tag is needed"]);
    refuses(&d, &["--annotation", "index:a=b", "-o", "type=oci,dest=x"], &["several platforms"]);
    refuses(&d, &["--cache-to", "type=gha"], &["gha"]);
    refuses(&d, &["--cache-from", "type=s3,bucket=x"], &["s3"]);
    refuses(&d, &["--provenance=mode=max"], &["provenance"]);
    build(&d, "FROM busybox\nRUN true\n", &["--provenance=false", "--sbom=false"]);
}

const RANDOM: &str = "FROM busybox AS other\nRUN cat /proc/sys/kernel/random/uuid > /other\nFROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /final\n\
                      COPY --from=other /other /copied\nCMD [\"cat\", \"/final\", \"/copied\"]\n";

/// Builds in another engine within the network of `d`; returns the text and the image's id.
#[track_caller]
fn elsewhere(d: &Dhow, other: &Dhow, dockerfile: &str, options: &[&str]) -> (String, String) {
    other.file("ctx/Dockerfile", dockerfile);
    let context = other.path("ctx");
    let args = [&["build", "--progress", "plain", "-t", "x"], options, &[context.as_str()]].concat();
    let out = d.run_with(&mut other.command(&args), b"");
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    (out.stdout + &out.stderr, other.inspect("x", "{{.Id}}"))
}

#[test]
fn caches_travel_in_directories_and_registries() {
    let d = dhow();
    let registry = Inside::new(d.net(), DebianRegistry::start);
    let reference = format!("type=registry,ref={}/cache:main", registry.localhost());
    let directory = d.path("cache");
    build(
        &d,
        RANDOM,
        &[
            "-t",
            "x",
            "--cache-to",
            &format!("type=local,dest={directory},mode=max"),
            "--cache-to",
            &format!("{reference},mode=max"),
        ],
    );
    let id = d.inspect("x", "{{.Id}}");
    for from in [format!("type=local,src={directory}"), reference.clone()] {
        // The contents are random: the same image means that nothing was run.
        let other = dhow();
        let (text, same) = elsewhere(&d, &other, RANDOM, &["--cache-from", &from]);
        assert_eq!(same, id, "{text}");
        assert_eq!(other.ok(&["run", "--rm", "x"]), d.ok(&["run", "--rm", "x"]));
        // What came from a cache can go on.
        let next = other.path("next");
        elsewhere(&d, &other, RANDOM, &["--cache-to", &format!("type=local,dest={next},mode=max")]);
        let third = dhow();
        assert_eq!(elsewhere(&d, &third, RANDOM, &["--cache-from", &format!("type=local,src={next}")]).1, id);
        third.ok(&["save", "-o", &third.path("saved.tar"), "x"]);
    }
    // A cache that is not there is a warning.
    let other = dhow();
    let (text, _) = elsewhere(&d, &other, RANDOM, &["--cache-from", "type=local,src=/none/such"]);
    assert!(text.contains("/none/such"), "{text}");
}

#[test]
fn an_image_is_a_cache() {
    let d = dhow();
    let registry = Inside::new(d.net(), DebianRegistry::start);
    let name = format!("{}/app:1", registry.localhost());
    let text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /final\nCMD [\"cat\", \"/final\"]\n";
    build(&d, text, &["-t", &name, "--push", "--cache-to", "type=inline"]);
    let other = dhow();
    elsewhere(&d, &other, text, &["--cache-from", &name]);
    assert_eq!(other.ok(&["run", "--rm", "x"]), d.ok(&["run", "--rm", &name]));
    let third = dhow();
    elsewhere(&d, &third, text, &[]);
    assert_ne!(third.ok(&["run", "--rm", "x"]), d.ok(&["run", "--rm", &name]), "without the cache it is run");
}

#[test]
fn cache_mounts_travel_when_asked() {
    let d = dhow();
    let text = |n: u8| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,mode=1777 ls /c > /seen; echo {n} > /c/mark\nCMD [\"cat\", \"/seen\"]\n"
        )
    };
    let directory = d.path("cache");
    build(&d, &text(1), &["-t", "x", "--cache-to", &format!("type=local,dest={directory},mounts=true")]);
    assert_eq!(d.ok(&["run", "--rm", "x"]), "");
    let other = dhow();
    let from = format!("type=local,src={directory}");
    elsewhere(&d, &other, &text(2), &["--cache-from", &from]);
    assert_eq!(other.ok(&["run", "--rm", "x"]), "mark", "a new command sees what the old one left");
    let third = dhow();
    elsewhere(&d, &third, &text(3), &[]);
    assert_eq!(third.ok(&["run", "--rm", "x"]), "");
    // Nothing is run, so nothing is mounted, and what was there goes on all the same.
    let (fourth, fifth) = (dhow(), dhow());
    let next = fourth.path("next");
    let to = format!("type=local,dest={next},mounts=true");
    elsewhere(&d, &fourth, &text(1), &["--cache-from", &from, "--cache-to", &to]);
    elsewhere(&d, &fifth, &text(4), &["--cache-from", &format!("type=local,src={next}")]);
    assert_eq!(fifth.ok(&["run", "--rm", "x"]), "mark");
}

#[test]
fn hostile_caches_are_passed_over() {
    let d = dhow();
    let text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /final\n";
    let victim = d.file("secret", "not yours");
    let directory = d.path("cache");
    let to = format!("type=local,dest={directory}");
    let from = format!("type=local,src={directory}");
    build(&d, text, &["-t", "x", "--cache-to", &to]);
    let id = d.inspect("x", "{{.Id}}");
    // The control: as it is, it is used.
    assert_eq!(elsewhere(&d, &dhow(), text, &["--cache-from", &from]).1, id);
    let layer = {
        let index = json(&d.path("cache/index.json"));
        let blob =
            |v: &Value| d.path(&format!("cache/blobs/sha256/{}", v.as_str().unwrap().trim_start_matches("sha256:")));
        blob(&json(&blob(&index["manifests"][0]["digest"]))["layers"][0]["digest"])
    };
    let good = fs::read(&layer).unwrap();
    let flip = || {
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&layer, bad).unwrap();
    };
    let link = || {
        fs::remove_file(&layer).unwrap();
        symlink(&victim, &layer).unwrap();
    };
    let shut = || {
        fs::remove_file(&layer).unwrap();
        fs::create_dir(&layer).unwrap();
        fs::set_permissions(&layer, fs::Permissions::from_mode(0o0)).unwrap();
    };
    for spoil in [&flip as &dyn Fn(), &link, &shut] {
        spoil();
        let other = dhow();
        let (shown, other_id) = elsewhere(&d, &other, text, &["--cache-from", &from]);
        assert_ne!(other_id, id, "the step was run: {shown}");
        assert!(!shown.contains("not yours"));
    }
    fs::remove_dir(&layer).unwrap();
    // Somebody else's registry that asks for a password is passed over as well.
    let closed = FakeAuth::Basic { user: "u".to_owned(), password: "p".to_owned() };
    let registry = crate::registry::fake(&d, "127.0.0.1", closed);
    let name = format!("{}/cache", registry.host());
    let (shown, _) = elsewhere(&d, &dhow(), text, &["--cache-from", &name]);
    assert!(shown.contains(&name), "{shown}");
}
