//! `build` with sources from elsewhere: URLs, repositories, named contexts.

use crate::building::{build, builds, refuses};
use crate::{dhow, lines};
use dhow_testkit::image::gzip;
use dhow_testkit::{Dhow, Entry, Repositories, Tar};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A web server in the engine's network.
struct Web {
    address: String,
    files: Files,
    asked: Arc<Mutex<Vec<String>>>,
}

fn web(d: &Dhow) -> Web {
    let listener = d.net().enter(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = format!("http://{}", listener.local_addr().unwrap());
    let web = Web { address, files: Arc::default(), asked: Arc::default() };
    let (files, asked) = (Arc::clone(&web.files), Arc::clone(&web.asked));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (files, asked) = (Arc::clone(&files), Arc::clone(&asked));
            std::thread::spawn(move || answer(stream.unwrap(), &files, &asked));
        }
    });
    web
}

fn answer(mut stream: TcpStream, files: &Files, asked: &Mutex<Vec<String>>) {
    let reader = BufReader::new(stream.try_clone().unwrap());
    let lines: Vec<String> = reader.lines().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
    let Some(path) = lines.first().and_then(|l| l.split(' ').nth(1)).map(str::to_owned) else { return };
    let known = lines.iter().any(|l| l.to_lowercase() == "if-modified-since: tue, 15 nov 1994 08:12:31 gmt");
    let body = files.lock().unwrap().get(&path).cloned();
    let (status, more, body) = match body {
        Some(body) if body.starts_with(b"-> ") => {
            let target = String::from_utf8(body[3..].to_vec()).unwrap();
            ("302 Found", format!("Location: {target}\r\n"), Vec::new())
        }
        Some(_) if known => ("304 Not Modified", String::new(), Vec::new()),
        Some(body) => ("200 OK", "Last-Modified: Tue, 15 Nov 1994 08:12:31 GMT\r\n".to_owned(), body),
        None => ("404 Not Found", String::new(), b"no such page".to_vec()),
    };
    asked.lock().unwrap().push(format!("{path} {}", &status[..3]));
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(&[head.into_bytes(), body].concat());
}

impl Web {
    fn put(&self, path: &str, body: impl AsRef<[u8]>) -> String {
        self.files.lock().unwrap().insert(path.to_owned(), body.as_ref().to_vec());
        format!("{}{path}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// git's own daemon in the engine's network.
struct Daemon {
    repositories: Repositories,
    port: u16,
    child: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn daemon(d: &Dhow) -> Daemon {
    let base = d.dir().join("repositories");
    let repositories = Repositories::new(&base);
    let (port, child) = d.net().enter(|| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Not by `git daemon`, which would have it as a child that outlives it.
        let programs = Command::new("git").arg("--exec-path").output().unwrap().stdout;
        let mut command = Command::new(format!("{}/git-daemon", String::from_utf8(programs).unwrap().trim()));
        command.args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"]);
        command.args([format!("--port={port}"), format!("--base-path={}", base.display())]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        (port, child)
    });
    Daemon { repositories, port, child }
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

fn show(d: &Dhow, command: &str) -> String {
    d.ok(&["run", "--rm", "x", "sh", "-c", command])
}

#[test]
fn add_of_a_url() {
    let d = dhow();
    let web = web(&d);
    let url = web.put("/dir/file.txt", "over the wire\n");
    let text = format!("FROM busybox\nADD {url} /named\nADD {url} /in/\nADD --chmod=755 --chown=1:2 {url}?q=1 /mode\n");
    web.put("/dir/file.txt?q=1", "query\n");
    builds(&d, &text, &[]);
    assert_eq!(show(&d, "cat /named /in/file.txt /mode"), "over the wire\nover the wire\nquery");
    assert_eq!(show(&d, "stat -c '%a %u:%g %Y' /named /mode"), "600 0:0 784887151\n755 1:2 784887151");
    web.asked();
    let id = d.inspect("x", "{{.Id}}");
    // Nothing changed: one small question each, and the same image.
    let again = builds(&d, &text, &[]);
    assert_eq!(d.inspect("x", "{{.Id}}"), id, "{again}");
    assert!(web.asked().iter().all(|a| a.ends_with(" 304")));
    assert!(d.inspect("x", "{{json .Config}}").contains("PATH"));
    assert!(d.ok(&["history", "--no-trunc", "x"]).contains(&format!("ADD {url} /named # buildkit")));
}

#[test]
fn add_with_a_checksum() {
    let d = dhow();
    let web = web(&d);
    let url = web.put("/f", "abc");
    let sum = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = format!("FROM busybox\nARG S={sum}\nADD --checksum=$S {url} /f\n");
    builds(&d, &text, &[]);
    assert_eq!((show(&d, "cat /f").as_str(), web.asked().len()), ("abc", 1));
    // Known content: the server is not asked at all, not even after the step before changed.
    builds(&d, &text, &[]);
    builds(&d, &text.replace("ARG", "RUN true > /n\nARG"), &[]);
    assert_eq!(web.asked(), Vec::<String>::new());
    let wrong = sum.replace("ba78", "0000");
    refuses(&d, &format!("FROM busybox\nADD --checksum={wrong} {url} /f\n"), &[], &["digest mismatch", sum]);
    refuses(&d, &format!("FROM busybox\nADD --checksum={sum} {url} {url} /f/\n"), &[], &["multiple sources"]);
    refuses(&d, &format!("FROM busybox\nADD --checksum={sum} Dockerfile /f\n"), &[], &["requires HTTP(S) or Git"]);
}

#[test]
fn add_of_urls_that_fail() {
    let d = dhow();
    let web = web(&d);
    let base = &web.address;
    refuses(&d, &format!("FROM busybox\nADD {base}/none /f\n"), &[], &["invalid response status 404", "/none"]);
    let round = web.put("/round", format!("-> {base}/round"));
    refuses(&d, &format!("FROM busybox\nADD {round} /f\n"), &[], &["redirects more than"]);
    let file = web.put("/file", "-> file:///etc/passwd");
    refuses(&d, &format!("FROM busybox\nADD {file} /f\n"), &[], &["redirects to file:///etc/passwd"]);
    refuses(&d, "FROM busybox\nADD http://127.0.0.1:1/x /f\n", &[], &["cannot fetch http://127.0.0.1:1/x"]);
    // Control: a redirect within bounds.
    let there = web.put("/there", "arrived");
    let here = web.put("/here", format!("-> {there}"));
    builds(&d, &format!("FROM busybox\nADD {here} /d/\n"), &[]);
    assert_eq!(show(&d, "cat /d/here"), "arrived");
}

#[test]
fn archives_are_unpacked_only_when_asked() {
    let d = dhow();
    let web = web(&d);
    let tar = gzip(&Tar::of([Entry::file("inside", 0o644, "unpacked\n")]));
    let url = web.put("/a.tar.gz", tar);
    builds(&d, &format!("FROM busybox\nADD {url} /plain/\nADD --unpack {url} /out/\nADD --link {url} /link/\n"), &[]);
    assert_eq!(show(&d, "ls /plain /link; cat /out/inside"), "/link:\na.tar.gz\n\n/plain:\na.tar.gz\nunpacked");
}

#[test]
fn add_of_a_repository() {
    let d = dhow();
    let g = daemon(&d);
    let commit = g.repository("r", &[("a", "one\n"), ("sub/b", "two\n"), ("sub/c/d", "three\n")]);
    g.git("r", &["tag", "v1"]);
    g.repository("r", &[("a", "newer\n")]);
    let url = g.url("r");
    let text = format!("FROM busybox\nADD {url} /new\nADD {url}#v1 /old/\nADD {url}?ref=v1&subdir=sub /sub\n");
    builds(&d, &text, &[]);
    assert_eq!(show(&d, "cat /new/a /old/a /sub/b /sub/c/d; ls -a /new"), "newer\none\ntwo\nthree\n.\n..\na\nsub");
    assert_eq!(show(&d, "stat -c '%a %u:%g' /new/a /old/sub"), "644 0:0\n755 0:0");
    let again = builds(&d, &text, &[]);
    assert!(!again.contains("git "), "{again}");
    builds(&d, &format!("FROM busybox\nADD --keep-git-dir=true --checksum={commit} {url}#v1 /r\n"), &[]);
    assert_eq!(show(&d, "cat /r/.git/HEAD; test -d /r/.git/objects && echo yes"), format!("{commit}\nyes"));
    let head = g.git("r", &["rev-parse", "HEAD"]);
    refuses(&d, &format!("FROM busybox\nADD --checksum={commit} {url} /r\n"), &[], &["expected checksum", &head]);
    refuses(&d, &format!("FROM busybox\nADD {url}#none /r\n"), &[], &["does not contain ref \"none\""]);
    refuses(&d, &format!("FROM busybox\nADD {url}#main:none /r\n"), &[], &["has no directory \"none\""]);
}

#[test]
fn contexts_that_are_repositories() {
    let d = dhow();
    let g = daemon(&d);
    let file = "FROM busybox\nCOPY . /here\n";
    let files =
        [("Dockerfile", file), ("x", "root"), ("sub/Dockerfile", file), ("sub/y", "below"), ("sub/Other", file)];
    g.repository("r", &files);
    g.repository("r", &[("sub/Other.dockerignore", "Dockerfile\n"), (".dockerignore", "sub\n")]);
    let url = g.url("r");
    let listed = |extra: &[&str]| {
        d.ok(&[&["build", "-q", "-t", "x"], extra].concat());
        show(&d, "ls /here")
    };
    assert_eq!(lines(&listed(&[&url])), ["Dockerfile", "x"]);
    assert_eq!(lines(&listed(&[&format!("{url}#main:sub")])), ["Dockerfile", "Other", "Other.dockerignore", "y"]);
    assert_eq!(lines(&listed(&["-f", "Other", &format!("{url}#:sub")])), ["Other", "Other.dockerignore", "y"]);
    d.fails(&["build", "-f", "None", &url], 1, &["None", "no such file"]);
    d.fails(&["build", &format!("{url}#nope")], 1, &["does not contain ref"]);
    d.fails(&["build", &g.url("none")], 1, &["git ls-remote"]);
}

#[test]
fn hostile_repositories() {
    let d = dhow();
    let g = daemon(&d);
    let victim = d.dir().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret"), "of the host").unwrap();
    let touch = format!("#!/bin/sh\ntouch {}/touched\n", victim.display());
    let away = format!("-> {}", victim.display());
    g.repository("r", &[("up", &away), ("hooks/post-checkout", &touch), (".gitattributes", "* filter=evil\n")]);
    let url = g.url("r");
    // Control: the repository itself can be used, its links are links.
    builds(&d, &format!("FROM busybox\nADD {url} /r\n"), &[]);
    assert_eq!(show(&d, "readlink /r/up; cat /r/up/secret 2>&1 || true").lines().next(), victim.to_str());
    for text in
        [format!("ADD {url}#main:up /r"), format!("ADD {url}#:up/../../ /r"), "ADD ssh://-oProxyCommand=x/y /r".into()]
    {
        let (code, said) = build(&d, &format!("FROM busybox\n{text}\n"), &[]);
        assert!(code == 1 && !said.contains("of the host"), "{text}: {said}");
    }
    let (code, said) = {
        let out = d.run(&["build", "-t", "x", &format!("{url}#main:up")]);
        (out.code, out.stdout + &out.stderr)
    };
    assert!(code == 1 && said.contains("has no directory"), "{said}");
    g.repository("lib", &[("l", "x")]);
    g.repository("m", &[("Dockerfile", "FROM busybox\nCOPY . /\n")]);
    let local = d.path("repositories/lib");
    g.git("m", &["-c", "protocol.file.allow=always", "submodule", "add", "-q", "--", &local, "lib"]);
    g.repository("m", &[]);
    d.fails(&["build", &g.url("m")], 1, &["submodule \"lib\" has a URL that is not fetched"]);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "something ran");
}

#[test]
fn contexts_behind_urls() {
    let d = dhow();
    let web = web(&d);
    let tar = Tar::of([
        Entry::file("Dockerfile", 0o644, "FROM busybox\nCOPY . /here\n"),
        Entry::file("Second", 0o644, "FROM busybox\nCOPY x /second\n"),
        Entry::file("x", 0o644, "content"),
        Entry::file(".dockerignore", 0o644, "Second\n"),
    ]);
    let url = web.put("/context.tar.gz", gzip(&tar));
    d.ok(&["build", "-q", "-t", "x", &url]);
    assert_eq!(show(&d, "ls /here; cat /here/x"), "Dockerfile\nx\ncontent");
    d.ok(&["build", "-q", "-t", "x", "-f", "Second", &url]);
    assert_eq!(show(&d, "cat /second"), "content");
    let file = web.put("/Dockerfile", "FROM busybox\nRUN echo alone > /f\n");
    d.ok(&["build", "-q", "-t", "x", &file]);
    assert_eq!(show(&d, "cat /f"), "alone");
    d.file("ctx/y", "local");
    let file = web.put("/D2", "FROM busybox\nCOPY y /y\n");
    d.ok(&["build", "-q", "-t", "x", "-f", &file, &d.path("ctx")]);
    assert_eq!(show(&d, "cat /y"), "local");
    d.fails(&["build", &format!("{}/none", web.address)], 1, &["invalid response status 404"]);
}

#[test]
fn named_contexts() {
    let d = dhow();
    let web = web(&d);
    let g = daemon(&d);
    d.file("other/file", "directory\n");
    d.file("other/hidden", "x");
    d.file("other/.dockerignore", "hidden\n");
    g.repository("r", &[("g", "repository\n")]);
    let url = web.put("/w", "web\n");
    let other = format!("other={}", d.path("other"));
    let text = "FROM busybox AS base\nRUN echo stage > /s\n\
                FROM busybox\nCOPY --from=other . /o\nCOPY --from=repo . /g\nCOPY --from=web . /w\n\
                RUN --mount=from=other,target=/m cat /m/file > /mounted\nCOPY --from=again /s /s\n";
    let (repo, web_context) = (format!("repo={}", g.url("r")), format!("web={url}"));
    let contexts = [&other, &repo, &web_context, "again=target:base"];
    let options: Vec<&str> = contexts.iter().flat_map(|c| ["--build-context", c]).collect();
    builds(&d, text, &options);
    let shown = show(&d, "ls /o; cat /o/file /g/g /w/context /mounted /s");
    assert_eq!(shown, "file\ndirectory\nrepository\nweb\ndirectory\nstage");
    // Names of images, however written, and of stages.
    builds(&d, "FROM busybox\nRUN echo mine > /mine\n", &[]);
    d.ok(&["tag", "x", "mine"]);
    let image = ["--build-context", "docker.io/library/alpine:latest=docker-image://mine"];
    builds(&d, "FROM alpine\nCOPY --from=alpine /mine /copy\n", &image);
    assert_eq!(show(&d, "cat /copy"), "mine");
    builds(
        &d,
        "FROM scratch AS tools\nFROM busybox\nCOPY --from=tools / /t/\n",
        &["--build-context", &format!("tools={}", d.path("other"))],
    );
    assert_eq!(show(&d, "ls /t"), "file");
    // A stage that starts from a directory.
    builds(&d, "FROM other\nCOPY --from=busybox /bin/busybox /bin/sh\n", &["--build-context", &other]);
    assert_eq!(d.ok(&["run", "--rm", "x", "/bin/sh", "-c", "read a < /file; echo $a"]), "directory");
    d.fails(&["build", "--build-context", "n=/does/not/exist", &d.path("ctx")], 125, &["/does/not/exist"]);
}

#[test]
fn a_context_that_is_an_image_layout() {
    let d = dhow();
    builds(&d, "FROM busybox\nRUN echo layout > /f\n", &[]);
    d.ok(&["save", "-o", &d.path("x.tar"), "x"]);
    d.file("layout/.keep", "");
    let out = Command::new("tar").args(["-xf", &d.path("x.tar"), "-C", &d.path("layout")]).output().unwrap();
    assert!(out.status.success());
    d.ok(&["rmi", "-f", "x"]);
    let context = format!("base=oci-layout://{}", d.path("layout"));
    builds(&d, "FROM base\nRUN cat /f > /g\n", &["--build-context", &context]);
    assert_eq!(show(&d, "cat /g"), "layout");
    fs::remove_dir_all(d.path("layout/blobs")).unwrap();
    let context = format!("base=oci-layout://{}:none", d.path("layout"));
    refuses(&d, "FROM base\n", &["--build-context", &context], &["has no image \"none\""]);
}

#[test]
fn a_server_that_stalls_does_not_outlive_the_build() {
    // A connection that is cut in the middle, each time.
    let d = dhow();
    let listener = d.net().enter(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}/f", listener.local_addr().unwrap());
    let attempts = Arc::new(Mutex::new(0));
    let count = Arc::clone(&attempts);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            *count.lock().unwrap() += 1;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning");
        }
    });
    refuses(&d, &format!("FROM busybox\nADD {url} /f\n"), &[], &["cannot fetch"]);
    assert_eq!(*attempts.lock().unwrap(), 3);
}
