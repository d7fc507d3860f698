//! Debian's `docker-registry` (the distribution project's), on a free loopback port.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running registry with a directory of its own; killed and removed when dropped.
pub struct DebianRegistry {
    child: Child,
    port: u16,
    dir: TempDir,
}

/// What a registry is started with.
#[derive(Debug, Clone, Default)]
pub struct DebianOptions {
    /// User name and password (HTTP Basic).
    pub user: Option<(String, String)>,
    /// Speak TLS with a self-signed certificate for this name, expired in 2020 if `true` comes with it.
    /// [`DebianRegistry::certificate`] has its path.
    pub tls: Option<(String, bool)>,
}

impl DebianRegistry {
    /// Starts it open for everybody.
    pub fn start() -> Self {
        Self::with(&DebianOptions::default())
    }

    /// Starts it with one user (HTTP Basic, an htpasswd file).
    pub fn with_user(user: &str, password: &str) -> Self {
        let user = Some((user.to_owned(), password.to_owned()));
        Self::with(&DebianOptions { user, ..DebianOptions::default() })
    }

    /// `127.0.0.1:port`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `localhost:port`
    pub fn localhost(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The directory that holds its storage below `data`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its certificate (PEM), if it speaks TLS.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Starts it with options.
    pub fn with(options: &DebianOptions) -> Self {
        let mut last = String::new();
        // The port is free when looked at; somebody else may take it before the registry does.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let port = free_port();
            let mut config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
                dir.path().join("data").display()
            );
            if let Some((name, expired)) = &options.tls {
                make_certificate(dir.path(), name, *expired);
                let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
                config.push_str(&format!("  tls:\n    certificate: {}\n    key: {}\n", cert.display(), key.display()));
            }
            if let Some((name, password)) = &options.user {
                let file = dir.path().join("htpasswd");
                fs::write(&file, htpasswd(name, password)).expect("writing the password file");
                config.push_str(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display()));
            }
            let config_file = dir.path().join("config.yml");
            fs::write(&config_file, config).expect("writing the configuration");
            let log = fs::File::create(dir.path().join("log")).expect("creating the log");
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config_file)
                .env("OTEL_TRACES_EXPORTER", "none")
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle of the log"))
                .stderr(log)
                .spawn()
                .expect("running docker-registry (Debian package docker-registry)");
            if wait_ready(&mut child, port) {
                return Self { child, port, dir };
            }
            let _ = child.kill();
            let _ = child.wait();
            last = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        }
        panic!("docker-registry does not come up: {last}");
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn htpasswd(user: &str, password: &str) -> Vec<u8> {
    let output = Command::new("htpasswd")
        .args(["-Bbn", "-C", "4", user, password])
        .output()
        .expect("running htpasswd (Debian package apache2-utils)");
    assert!(output.status.success(), "htpasswd failed: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// `cert.pem` and `key.pem`. By way of `openssl ca`, the only command of OpenSSL 3.0 that lets both dates be chosen.
fn make_certificate(dir: &Path, name: &str, expired: bool) {
    let at = |file: &str| dir.join(file).display().to_string();
    let config = format!(
        "[ca]\ndefault_ca=d\n[d]\ndatabase={}\nnew_certs_dir={}\nrand_serial=yes\ndefault_md=sha256\npolicy=p\ncopy_extensions=copy\n[p]\ncommonName=supplied\n",
        at("index.txt"),
        dir.display()
    );
    fs::write(dir.join("ca.cnf"), config).expect("writing the CA configuration");
    fs::write(dir.join("index.txt"), "").expect("writing the CA index");
    let subject = format!("/CN={name}");
    let alternative = format!("subjectAltName=DNS:{name}");
    let (key, request, config) = (at("key.pem"), at("request.pem"), at("ca.cnf"));
    let mut ask = vec!["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    ask.extend(["-keyout", &key, "-out", &request, "-subj", &subject, "-addext", &alternative]);
    openssl(&ask);
    let end = if expired { "20200201000000Z" } else { "20991231000000Z" };
    let cert = at("cert.pem");
    let mut sign = vec!["ca", "-selfsign", "-batch", "-notext", "-config", &config, "-keyfile", &key];
    sign.extend(["-in", &request, "-out", &cert, "-startdate", "20200101000000Z", "-enddate", end]);
    openssl(&sign);
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("running openssl");
    assert!(output.status.success(), "openssl failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until `/v2/` answers, at most ten seconds.
fn wait_ready(child: &mut Child, port: u16) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if child.try_wait().ok().flatten().is_some() {
            return false;
        }
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let mut answer = String::new();
            let asked = stream.write_all(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n");
            if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.") {
                return true;
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}
