//! Fetching from a small web server and from git's own daemon, with a real store.

use super::*;
use crate::{Engine, EngineConfig};
use dhow_build::{REMOTE_FILE, drive};
use dhow_registry::{NoCredentials, RegistryConfig};
use dhow_testkit::Repositories;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

struct Fixture {
    dir: tempfile::TempDir,
    engine: Engine,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(EngineConfig {
        root: dir.path().join("root"),
        run_root: dir.path().join("run"),
        registry: RegistryConfig::default(),
        credentials: Arc::new(NoCredentials),
    })
    .unwrap();
    Fixture { dir, engine }
}

impl Fixture {
    fn http(&self, url: &str, checksum: Option<&str>) -> Result<Box<dyn RemoteTree + '_>, String> {
        self.find(url, checksum, None)
    }

    fn find(&self, text: &str, checksum: Option<&str>, keep: Option<bool>) -> Result<Box<dyn RemoteTree + '_>, String> {
        let source = RemoteSource::parse(text, true).unwrap().unwrap();
        let request = RemoteRequest { source, checksum: checksum.map(str::to_owned), keep_git_dir: keep };
        drive::block_on(find(&self.engine, request, &|_| None)).map_err(|e| dhow_types::report(&e))
    }

    /// Files below a fetched tree, with their contents or links' targets.
    fn files(&self, text: &str) -> Result<BTreeMap<String, String>, String> {
        let tree = self.find(text, None, None)?;
        let fd = drive::block_on(tree.open()).map_err(|e| dhow_types::report(&e))?;
        Ok(list(&fd))
    }

    /// Nothing is left in the staging area.
    fn assert_clean(&self) {
        let left: Vec<_> =
            fs::read_dir(self.dir.path().join("root/tmp")).unwrap().flatten().map(|e| e.path()).collect();
        let left: Vec<_> =
            left.iter().flat_map(|p| fs::read_dir(p).into_iter().flatten().flatten()).map(|e| e.path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

fn place(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn list(fd: &OwnedFd) -> BTreeMap<String, String> {
    fn walk(dir: &Path, prefix: &str, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                walk(&entry.path(), &format!("{name}/"), out);
            } else if kind.is_symlink() {
                out.insert(name, format!("-> {}", fs::read_link(entry.path()).unwrap().display()));
            } else {
                out.insert(name, fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(&place(fd), "", &mut out);
    out
}

/// A web server whose files can be changed; counts requests and answers with validators.
struct Web {
    address: String,
    files: Arc<Mutex<BTreeMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

fn web() -> Web {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = Web {
        address: format!("http://{}", listener.local_addr().unwrap()),
        files: Arc::default(),
        asked: Arc::default(),
    };
    let (files, asked) = (Arc::clone(&web.files), Arc::clone(&web.asked));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&mut stream.unwrap(), &files.lock().unwrap(), &asked);
        }
    });
    web
}

fn answer(stream: &mut TcpStream, files: &BTreeMap<String, String>, asked: &Mutex<Vec<String>>) {
    let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok)
        .take_while(|l| !l.is_empty())
        .collect();
    let path = lines[0].split(' ').nth(1).unwrap().to_owned();
    let known = lines.iter().find_map(|l| l.to_lowercase().strip_prefix("if-none-match: ").map(str::to_owned));
    let (status, body) = match files.get(&path) {
        None => ("404 Not Found", String::new()),
        Some(body) if known == Some(format!("\"{}\"", body.len())) => ("304 Not Modified", String::new()),
        Some(body) => ("200 OK", body.clone()),
    };
    asked.lock().unwrap().push(format!("{path} {}", &status[..3]));
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nETag: \"{}\"\r\nLast-Modified: Tue, 15 Nov 1994 08:12:31 GMT\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
}

impl Web {
    fn put(&self, path: &str, body: &str) -> String {
        self.files.lock().unwrap().insert(path.to_owned(), body.to_owned());
        format!("{}{path}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[test]
fn root_a_file_is_fetched_once() {
    let (f, web) = (fixture(), web());
    let url = web.put("/a/file.txt", "hello");
    let first = f.http(&url, None).unwrap();
    let identity = first.identity();
    assert_eq!(identity, Digest::of(b"hello").to_string());
    assert_eq!(first.file_name().as_deref(), Some("file.txt"));
    let look = |tree: &dyn RemoteTree| {
        let fd = drive::block_on(tree.open()).unwrap();
        assert_eq!(list(&fd), BTreeMap::from([(REMOTE_FILE.to_owned(), "hello".to_owned())]));
        let meta = fs::metadata(place(&fd).join(REMOTE_FILE)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o600, 784_887_151));
    };
    look(&*first);
    assert_eq!(web.asked(), ["/a/file.txt 200"]);
    // The same again: one conditional request, content out of the cache.
    let again = f.http(&url, None).unwrap();
    look(&*again);
    assert_eq!((again.identity(), web.asked()), (identity.clone(), vec!["/a/file.txt 304".to_owned()]));
    // With a checksum: none at all.
    look(&*f.http(&url, Some(&identity)).unwrap());
    assert_eq!(web.asked(), Vec::<String>::new());
    // A cache that was damaged is noticed.
    let cached = f.dir.path().join("root/cache/http");
    let cached = fs::read_dir(cached).unwrap().next().unwrap().unwrap().path().join(Digest::of(b"hello").hex());
    drop((first, again));
    fs::write(&cached, "olleh").unwrap();
    look(&*f.http(&url, None).unwrap());
    assert_eq!(web.asked(), ["/a/file.txt 304", "/a/file.txt 200"]);
    // A change is seen, and the old content goes.
    web.put("/a/file.txt", "hello there");
    assert_ne!(f.http(&url, None).unwrap().identity(), identity);
    assert!(!cached.exists());
    f.assert_clean();
}

#[test]
fn root_checksums_and_missing_files() {
    let (f, web) = (fixture(), web());
    let url = web.put("/x", "content");
    let wrong = Digest::of(b"other").to_string();
    let error = f.http(&url, Some(&wrong)).err().unwrap();
    assert_eq!(error, format!("digest mismatch {}: {wrong}", Digest::of(b"content")));
    assert!(f.http(&url, Some(&Digest::of(b"content").to_string())).is_ok());
    assert!(f.http(&url, Some("md5:00")).err().unwrap().contains("only sha256"));
    let error = f.http(&format!("{}/none?token=s3cret", web.address), None).err().unwrap();
    assert_eq!(error, format!("invalid response status 404 for {}/none", web.address));
    f.assert_clean();
}

/// Repositories behind `git daemon`.
struct Daemon {
    repositories: Repositories,
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn daemon() -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Not by `git daemon`, which would have it as a child that outlives it.
    let programs = Command::new("git").arg("--exec-path").output().unwrap().stdout;
    let child = Command::new(format!("{}/git-daemon", String::from_utf8(programs).unwrap().trim()))
        .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
        .args([format!("--port={port}"), format!("--base-path={}", dir.path().display())])
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let repositories = Repositories::new(dir.path());
    Daemon { dir, repositories, port, child }
}

impl Deref for Daemon {
    type Target = Repositories;

    fn deref(&self) -> &Repositories {
        &self.repositories
    }
}

impl Daemon {
    fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

fn map(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn root_commits_branches_tags_and_directories() {
    let (f, d) = (fixture(), daemon());
    let first = d.repository("r", &[("a", "1"), ("sub/b", "2"), ("sub/deep/c", "3")]);
    d.git("r", &["tag", "-a", "-m", "x", "v1"]);
    d.git("r", &["checkout", "-q", "-b", "other"]);
    let second = d.repository("r", &[("a", "changed")]);
    d.git("r", &["checkout", "-q", "main"]);
    let url = d.url("r");
    let old = map(&[("a", "1"), ("sub/b", "2"), ("sub/deep/c", "3")]);
    assert_eq!(f.files(&url).unwrap(), old);
    assert_eq!(f.files(&format!("{url}#v1")).unwrap(), old);
    assert_eq!(f.files(&format!("{url}#{first}")).unwrap(), old);
    assert_eq!(f.files(&format!("{url}?branch=other")).unwrap()["a"], "changed");
    assert_eq!(f.files(&format!("{url}#main:sub")).unwrap(), map(&[("b", "2"), ("deep/c", "3")]));
    assert_eq!(f.files(&format!("{url}?subdir=sub/deep&ref=v1")).unwrap(), map(&[("c", "3")]));
    let identity = |text: &str| f.find(text, None, None).map(|t| t.identity());
    assert_eq!(identity(&format!("{url}#v1")).unwrap(), format!("git {first}"));
    assert_eq!(identity(&format!("{url}#other")).unwrap(), format!("git {second}"));
    // The commit it must be.
    assert!(f.find(&format!("{url}#other"), Some(&second), None).is_ok());
    assert!(f.find(&format!("{url}#other"), Some(&second[..8]), None).is_ok());
    let error = f.find(&format!("{url}#other"), Some(&first), None).err().unwrap();
    assert_eq!(error, format!("expected checksum to match {first}, got {second}"));
    for (wrong, words) in [
        ("#nothing", "repository does not contain ref \"nothing\""),
        ("#main:missing", "has no directory \"missing\""),
        ("#main:a", "has no directory \"a\""),
        ("#1111111111111111111111111111111111111111", "git fetch"),
    ] {
        let error = f.files(&format!("{url}{wrong}")).unwrap_err();
        assert!(error.contains(words) || error.contains("does not contain ref"), "{wrong}: {error}");
    }
    let error = f.files(&d.url("missing")).unwrap_err();
    assert!(error.contains("git ls-remote of git://127.0.0.1"), "{error}");
    f.assert_clean();
}

#[test]
fn root_modes_times_and_attributes_are_those_of_the_commit() {
    let (f, d) = (fixture(), daemon());
    d.repository(
        "r",
        &[
            ("run", "x"),
            ("secret", "kept"),
            ("v", "$Format:%H$"),
            (".gitattributes", "secret export-ignore\nv export-subst\n"),
        ],
    );
    fs::set_permissions(d.dir.path().join("r/run"), fs::Permissions::from_mode(0o755)).unwrap();
    d.repository("r", &[("more", "y")]);
    let source = match RemoteSource::parse(&d.url("r"), true).unwrap().unwrap() {
        RemoteSource::Git(git) => git,
        RemoteSource::Http(_) => panic!(),
    };
    let tree = drive::block_on(GitTree::find(&f.engine, source, &|_| None)).unwrap();
    let checkout = drive::block_on(tree.check_out()).unwrap();
    assert_eq!(checkout.time, Some(1_700_000_000));
    let at = place(&checkout.directory);
    let files = list(&checkout.directory);
    assert_eq!((files["secret"].as_str(), files["v"].as_str()), ("kept", "$Format:%H$"));
    let meta = |name: &str| fs::metadata(at.join(name)).unwrap();
    assert_eq!((meta("run").mode() & 0o7777, meta("more").mode() & 0o7777), (0o755, 0o644));
    assert_eq!(meta("run").mtime(), 1_700_000_000);
    assert!(!at.join(".git").exists());
    assert_eq!(git_commit_time(&d.dir.path().join("r")), Some(1_700_000_000));
    assert_eq!(git_commit_time(d.dir.path()), None);
}

#[test]
fn root_the_repository_itself_can_be_kept() {
    let (f, d) = (fixture(), daemon());
    let commit = d.repository("r", &[("a", "1")]);
    let tree = f.find(&d.url("r"), None, Some(true)).unwrap();
    assert!(tree.identity().contains(" keep=refs/heads/main git://"), "{}", tree.identity());
    let fd = drive::block_on(tree.open()).unwrap();
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).current_dir(place(&fd).canonicalize().unwrap()).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    assert_eq!(git(&["rev-parse", "HEAD"]), commit);
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert_eq!(git(&["branch", "--show-current"]), "main");
    assert_eq!(git(&["remote", "get-url", "origin"]), d.url("r"));
}

#[test]
fn root_submodules_come_along() {
    let (f, d) = (fixture(), daemon());
    d.repository("lib", &[("l", "library")]);
    d.repository("mid", &[("m", "middle")]);
    d.git("mid", &["submodule", "add", "-q", &d.url("lib"), "below/lib"]);
    d.repository("mid", &[]);
    d.repository("top", &[("t", "top")]);
    d.git("top", &["submodule", "add", "-q", &d.url("mid"), "mid"]);
    // Relative, as most are.
    d.git("top", &["config", "-f", ".gitmodules", "submodule.mid.url", "../mid"]);
    d.repository("top", &[]);
    let files = f.files(&d.url("top")).unwrap();
    assert_eq!((files["mid/m"].as_str(), files["mid/below/lib/l"].as_str()), ("middle", "library"));
    assert!(!f.files(&format!("{}?submodules=false", d.url("top"))).unwrap().contains_key("mid/m"));
    assert_eq!(f.files(&format!("{}#main:mid", d.url("top"))).unwrap()["m"], "middle");
}

#[test]
fn root_hostile_repositories_do_no_harm() {
    let (f, d) = (fixture(), daemon());
    let victim = d.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret"), "host").unwrap();
    let v = victim.to_string_lossy().into_owned();
    // Baseline: links are kept as links.
    d.repository("links", &[("up", &format!("-> {v}")), ("etc", "-> /etc"), ("sub/x", "1")]);
    assert_eq!(f.files(&d.url("links")).unwrap()["up"], format!("-> {v}"));
    let error = f.files(&format!("{}#main:up", d.url("links"))).unwrap_err();
    assert!(error.contains("has no directory \"up\""), "{error}");
    // A submodule at a path that an earlier commit made a link, and one on the host.
    d.repository("lib", &[("l", "x")]);
    for url in ["file:///etc", "/etc", "ext::touch /tmp/x", "-x", "../../../../etc"] {
        let name = format!("s{}", url.len());
        d.repository(&name, &[("a", "1")]);
        d.git(&name, &["submodule", "add", "-q", &d.url("lib"), "lib"]);
        d.git(&name, &["config", "-f", ".gitmodules", "submodule.lib.url", url]);
        d.repository(&name, &[]);
        let error = f.files(&d.url(&name)).unwrap_err();
        assert!(error.contains("URL that is not fetched"), "{url}: {error}");
    }
    // Hooks, filters and configuration in the repository mean nothing here.
    let touch = victim.join("touched");
    let run = format!("#!/bin/sh\ntouch {}\n", touch.display());
    d.repository("hooks", &[(".gitattributes", "* filter=evil\n"), ("hooks/post-checkout", &run), ("a", "1")]);
    assert_eq!(f.files(&d.url("hooks")).unwrap()["a"], "1");
    // A tree with an entry that git itself would not make.
    let blob = d.git("hooks", &["hash-object", "-w", "a"]);
    let tree = format!("100644 blob {blob}\t.git\n");
    let mut child = Command::new("git")
        .arg("mktree")
        .current_dir(d.dir.path().join("hooks"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(tree.as_bytes()).unwrap();
    let mut id = String::new();
    child.stdout.take().unwrap().read_to_string(&mut id).unwrap();
    child.wait().unwrap();
    let commit = d.git("hooks", &["commit-tree", "-m", "x", id.trim()]);
    d.git("hooks", &["branch", "evil", &commit]);
    let error = f.files(&format!("{}#evil", d.url("hooks"))).unwrap_err();
    assert!(error.contains("invalid path '.git'") || error.contains("is refused"), "{error}");
    assert!(!touch.exists());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    f.assert_clean();
}
