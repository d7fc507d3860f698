//! A registry on a loopback port that keeps everything in memory, records every request and misbehaves by script.

use super::http::{Request, Response, pairs, read_request};
use dhow_types::Digest;
use rustix::net::sockopt::set_socket_linger;
use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How the registry wants to be authenticated to.
#[derive(Debug, Clone, Default)]
pub enum FakeAuth {
    /// Not at all.
    #[default]
    None,
    /// HTTP Basic.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// Bearer tokens.
    Bearer {
        /// The user that may get tokens; `None`: anonymous tokens suffice.
        user: Option<(String, String)>,
        /// Token server; `None`: this server's own `/token`.
        realm: Option<String>,
        /// Refresh token that a login hands out and that is accepted in place of the password.
        identity_token: Option<String>,
        /// Life of a token in seconds, as announced.
        expires_in: u64,
    },
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
    /// Status answered; 0 while (or if never) answered.
    pub status: u16,
}

impl Recorded {
    /// A header by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The first matching requests.
    First(usize),
    /// Only the n-th matching request, counted from 0.
    Nth(usize),
    /// Every matching request.
    Always,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Action {
    /// This status with these headers and body in place of the answer.
    Status(u16, Vec<(String, String)>, String),
    /// The right head, then only so many bytes of the body, then the connection is closed.
    Truncate(usize),
    /// The same, but the connection is reset.
    Reset(usize),
    /// The right head, so many bytes of the body, then silence until the registry is dropped.
    Stall(usize),
    /// A shorter body with a length that agrees.
    Shorten(usize),
    /// One bit of the body flipped.
    Corrupt,
    /// These bytes after the body, length agreeing.
    Extend(Vec<u8>),
    /// The same, chunked: no length announced.
    ExtendChunked(Vec<u8>),
    /// The body in chunks, without a length.
    Chunked,
    /// `Range` is ignored: 200 with everything.
    IgnoreRange,
    /// A 206 whose `Content-Range` names another place.
    WrongContentRange,
    /// A redirect with this status to this URL.
    Redirect(u16, String),
    /// A header replaced or added.
    Header(String, String),
    /// The connection is closed without a byte.
    Hangup,
}

/// A scripted fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Method it applies to; empty for all.
    pub method: String,
    /// Text that the path and query must contain.
    pub target: String,
    /// How often.
    pub times: Times,
    /// What.
    pub action: Action,
}

impl Fault {
    /// A fault for GET requests.
    pub fn get(target: &str, times: Times, action: Action) -> Self {
        Self::on("GET", target, times, action)
    }

    /// A fault for requests of one method, or all if it is empty.
    pub fn on(method: &str, target: &str, times: Times, action: Action) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), times, action }
    }
}

/// Media type and bytes.
type Document = (String, Arc<Vec<u8>>);

#[derive(Default)]
struct Content {
    /// By repository and digest.
    blobs: BTreeMap<(String, String), Arc<Vec<u8>>>,
    /// By repository and digest: media type and bytes.
    manifests: BTreeMap<(String, String), Document>,
    /// By repository and tag: digest.
    tags: BTreeMap<(String, String), String>,
    uploads: BTreeMap<String, String>,
    faults: Vec<(Fault, usize)>,
    requests: Vec<Recorded>,
    next_upload: usize,
    tokens: Vec<String>,
}

struct Shared {
    auth: FakeAuth,
    address: SocketAddr,
    content: Mutex<Content>,
    stopping: Mutex<bool>,
    stopped: Condvar,
    connections: Mutex<Vec<TcpStream>>,
}

/// The registry. Dropping it closes everything.
pub struct FakeRegistry {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeRegistry {
    /// A registry on 127.0.0.1 that lets everybody in.
    pub fn start() -> Self {
        Self::with_auth(FakeAuth::None)
    }

    /// A registry on 127.0.0.1.
    pub fn with_auth(auth: FakeAuth) -> Self {
        Self::on("127.0.0.1", auth)
    }

    /// A registry on a loopback address (127.0.0.2 serves as "another host").
    pub fn on(address: &str, auth: FakeAuth) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free loopback port");
        let shared = Arc::new(Shared {
            auth,
            address: listener.local_addr().expect("a bound socket has an address"),
            content: Mutex::default(),
            stopping: Mutex::new(false),
            stopped: Condvar::new(),
            connections: Mutex::default(),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared))
        };
        Self { shared, accepting: Some(accepting) }
    }

    /// `host:port`
    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// `http://host:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// Stores a blob.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.put_blob_as(repository, &digest, bytes);
        digest
    }

    /// Stores bytes under a digest that need not be theirs.
    pub fn put_blob_as(&self, repository: &str, digest: &Digest, bytes: impl Into<Vec<u8>>) {
        let key = (repository.to_owned(), digest.to_string());
        lock(&self.shared.content).blobs.insert(key, Arc::new(bytes.into()));
    }

    /// Stores a manifest or index, under a tag if one is given.
    pub fn put_manifest(&self, repository: &str, tag: Option<&str>, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut content = lock(&self.shared.content);
        let key = (repository.to_owned(), digest.to_string());
        content.manifests.insert(key, (media_type.to_owned(), Arc::new(bytes.to_vec())));
        if let Some(tag) = tag {
            content.tags.insert((repository.to_owned(), tag.to_owned()), digest.to_string());
        }
        digest
    }

    /// Stores an image as it was built, damaged where that was asked for. Returns the manifest's digest.
    pub fn put_image(&self, repository: &str, tag: &str, image: &crate::ImageBuilder) -> Digest {
        for (hex, bytes) in image.blobs() {
            let digest = Digest::from_hex(&hex).expect("a digest in hex");
            self.put_blob_as(repository, &digest, bytes);
        }
        self.put_manifest(repository, Some(tag), "application/vnd.oci.image.manifest.v1+json", &image.manifest_bytes())
    }

    /// The bytes of a manifest by tag or digest.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        let content = lock(&self.shared.content);
        content.manifest(repository, name).map(|(_, _, bytes)| bytes.to_vec())
    }

    /// The bytes of a blob.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), digest.to_string());
        lock(&self.shared.content).blobs.get(&key).map(|b| b.to_vec())
    }

    /// Adds a fault. Earlier ones go first.
    pub fn fault(&self, fault: Fault) {
        lock(&self.shared.content).faults.push((fault, 0));
    }

    /// Everything asked so far.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared.content).requests.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        lock(&self.shared.content).requests.clear();
    }

    /// Makes every token given out so far invalid.
    pub fn expire_tokens(&self) {
        lock(&self.shared.content).tokens.clear();
    }

    /// Values of `Authorization` and of credentials in bodies or queries that reached this server.
    pub fn credentials_seen(&self) -> Vec<String> {
        let requests = self.requests();
        let headers = requests.iter().filter_map(|r| r.header("authorization").map(str::to_owned));
        let bodies = requests
            .iter()
            .map(|r| String::from_utf8_lossy(&r.body).into_owned())
            .filter(|b| b.contains("refresh_token=") || b.contains("password="));
        let queries = requests.iter().map(|r| r.target.clone()).filter(|t| t.contains("account="));
        headers.chain(bodies).chain(queries).collect()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        *lock(&self.shared.stopping) = true;
        self.shared.stopped.notify_all();
        for connection in lock(&self.shared.connections).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread.
        let _ = TcpStream::connect_timeout(&self.shared.address, Duration::from_secs(1));
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    for stream in listener.incoming() {
        if *lock(&shared.stopping) {
            break;
        }
        let Ok(stream) = stream else { continue };
        if let Ok(copy) = stream.try_clone() {
            lock(&shared.connections).push(copy);
        }
        let shared = Arc::clone(shared);
        threads.push(thread::spawn(move || {
            // A client that goes away is no failure of ours.
            let _ = serve(stream, &shared);
        }));
    }
    for connection in lock(&shared.connections).drain(..) {
        let _ = connection.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        let index = {
            let mut content = lock(&shared.content);
            content.requests.push(Recorded {
                method: request.method.clone(),
                target: request.target.clone(),
                headers: request.headers.clone(),
                body: request.body.clone(),
                status: 0,
            });
            content.requests.len() - 1
        };
        let actions = lock(&shared.content).actions(&request);
        let ignore_range = actions.iter().any(|a| matches!(a, Action::IgnoreRange));
        let mut response = shared.answer(&request, ignore_range);
        for action in &actions {
            response = alter(response, action);
        }
        if let Some(recorded) = lock(&shared.content).requests.get_mut(index) {
            recorded.status = response.status;
        }
        if !send(&stream, shared, &request, &response, &actions)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Faults that change what is answered.
fn alter(mut response: Response, action: &Action) -> Response {
    match action {
        Action::Status(status, headers, body) => {
            response = Response::new(*status).body(body.clone());
            for (name, value) in headers {
                response = response.with(name, value.clone());
            }
        }
        Action::Shorten(length) => response.body.truncate(*length),
        Action::Corrupt => {
            let middle = response.body.len() / 2;
            if let Some(byte) = response.body.get_mut(middle) {
                *byte ^= 1;
            }
        }
        Action::Extend(bytes) => response.body.extend(bytes),
        Action::ExtendChunked(bytes) => {
            response.body.extend(bytes);
            response.chunked = true;
        }
        Action::Chunked => response.chunked = true,
        Action::WrongContentRange => {
            if let Some(range) = response.header("content-range").map(str::to_owned) {
                let moved = range.replacen("bytes ", "bytes 1", 1);
                response = response.with("Content-Range", moved);
            }
        }
        Action::Redirect(status, url) => response = Response::new(*status).with("Location", url.clone()),
        Action::Header(name, value) => response = response.with(name, value.clone()),
        Action::Truncate(_) | Action::Reset(_) | Action::Stall(_) | Action::IgnoreRange | Action::Hangup => {}
    }
    response
}

/// Sends an answer with the faults that concern the connection. Returns whether the connection lives on.
fn send(
    stream: &TcpStream,
    shared: &Shared,
    request: &Request,
    response: &Response,
    actions: &[Action],
) -> io::Result<bool> {
    let mut out = BufWriter::new(stream);
    for action in actions {
        let sent = match action {
            Action::Hangup => {
                stream.shutdown(Shutdown::Both)?;
                return Ok(false);
            }
            Action::Truncate(n) | Action::Reset(n) | Action::Stall(n) => *n,
            _ => continue,
        };
        response.write_head(&mut out)?;
        out.write_all(response.body.get(..sent).unwrap_or(&response.body))?;
        out.flush()?;
        match action {
            Action::Reset(_) => set_socket_linger(stream, Some(Duration::ZERO))?,
            Action::Stall(_) => {
                let mut stopping = lock(&shared.stopping);
                while !*stopping {
                    stopping = shared.stopped.wait(stopping).unwrap_or_else(PoisonError::into_inner);
                }
            }
            _ => stream.shutdown(Shutdown::Both)?,
        }
        if matches!(action, Action::Reset(_)) {
            // The copy kept for closing at the end would hold the connection open.
            let peer = stream.peer_addr()?;
            lock(&shared.connections).retain(|c| c.peer_addr().map_or(true, |p| p != peer));
        }
        return Ok(false);
    }
    response.write_head(&mut out)?;
    if request.method == "HEAD" {
        out.flush()?;
    } else {
        response.write_body(&mut out)?;
    }
    Ok(true)
}

impl Content {
    fn actions(&mut self, request: &Request) -> Vec<Action> {
        let mut actions = Vec::new();
        for (fault, hits) in &mut self.faults {
            let method = fault.method.is_empty() || fault.method == request.method;
            if !method || !request.target.contains(&fault.target) {
                continue;
            }
            let strikes = match fault.times {
                Times::First(n) => *hits < n,
                Times::Nth(n) => *hits == n,
                Times::Always => true,
            };
            *hits += 1;
            if strikes {
                actions.push(fault.action.clone());
            }
        }
        actions
    }

    fn manifest(&self, repository: &str, name: &str) -> Option<(String, String, Arc<Vec<u8>>)> {
        let tag = self.tags.get(&(repository.to_owned(), name.to_owned()));
        let digest = tag.cloned().unwrap_or_else(|| name.to_owned());
        let (media_type, bytes) = self.manifests.get(&(repository.to_owned(), digest.clone()))?;
        Some((digest, media_type.clone(), Arc::clone(bytes)))
    }
}

impl Shared {
    fn answer(&self, request: &Request, ignore_range: bool) -> Response {
        if request.path() == "/token" {
            return self.token(request);
        }
        if let Some(refused) = self.check(request) {
            return refused;
        }
        let path = request.path();
        if path == "/v2/" || path == "/v2" {
            return Response::new(200).with("Docker-Distribution-Api-Version", "registry/2.0").body("{}");
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return Response::new(404) };
        if let Some((repository, name)) = rest.split_once("/manifests/") {
            return self.manifests(request, repository, name);
        }
        if let Some((repository, tail)) = rest.split_once("/blobs/uploads/") {
            return self.uploads(request, repository, tail);
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            return self.blobs(request, repository, digest, ignore_range);
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return self.tags(request, repository);
        }
        Response::new(404)
    }

    /// The 401, or nothing if the request may pass.
    fn check(&self, request: &Request) -> Option<Response> {
        let given = request.headers.get("authorization").map(String::as_str).unwrap_or_default();
        let (passes, challenge) = match &self.auth {
            FakeAuth::None => return None,
            FakeAuth::Basic { user, password } => {
                (given == basic(user, password), "Basic realm=\"Fake Registry\"".to_owned())
            }
            FakeAuth::Bearer { realm, .. } => {
                let own = format!("http://{}/token", self.address);
                let realm = realm.as_ref().unwrap_or(&own);
                let token = given.strip_prefix("Bearer ").unwrap_or_default();
                let passes = lock(&self.content).tokens.iter().any(|t| t == token);
                (passes, format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"repository:x:pull\""))
            }
        };
        let refused = Response::error(401, "UNAUTHORIZED", "authentication required");
        (!passes).then(|| refused.with("WWW-Authenticate", challenge))
    }

    fn token(&self, request: &Request) -> Response {
        let FakeAuth::Bearer { user, identity_token, expires_in, .. } = &self.auth else {
            return Response::new(404);
        };
        let form: BTreeMap<_, _> = pairs(&String::from_utf8_lossy(&request.body)).into_iter().collect();
        let given = request.headers.get("authorization").map(String::as_str).unwrap_or_default();
        let by_password = user.as_ref().is_none_or(|(name, password)| given == basic(name, password));
        let by_token = identity_token.as_ref().is_some_and(|t| form.get("refresh_token") == Some(t));
        if !by_password && !by_token {
            return Response::error(401, "UNAUTHORIZED", "incorrect username or password");
        }
        let mut content = lock(&self.content);
        let token = format!("token-{}", content.tokens.len() + content.requests.len());
        content.tokens.push(token.clone());
        let mut reply = serde_json::json!({"token": token, "expires_in": expires_in});
        if let (Some(identity), true) = (identity_token, request.query("offline_token").is_some()) {
            reply["refresh_token"] = identity.clone().into();
        }
        Response::new(200).body(reply.to_string())
    }

    fn manifests(&self, request: &Request, repository: &str, name: &str) -> Response {
        let mut content = lock(&self.content);
        if request.method == "PUT" {
            let digest = Digest::of(&request.body).to_string();
            if name.contains(':') && name != digest {
                return Response::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
            }
            let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
            let key = (repository.to_owned(), digest.clone());
            content.manifests.insert(key, (media_type, Arc::new(request.body.clone())));
            if !name.contains(':') {
                content.tags.insert((repository.to_owned(), name.to_owned()), digest.clone());
            }
            return Response::new(201).with("Docker-Content-Digest", digest);
        }
        match content.manifest(repository, name) {
            Some((digest, media_type, bytes)) => Response::new(200)
                .with("Docker-Content-Digest", digest)
                .with("Content-Type", media_type)
                .body(bytes.to_vec()),
            None => Response::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    fn blobs(&self, request: &Request, repository: &str, digest: &str, ignore_range: bool) -> Response {
        let key = (repository.to_owned(), digest.to_owned());
        let Some(bytes) = lock(&self.content).blobs.get(&key).cloned() else {
            return Response::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let whole = Response::new(200).with("Docker-Content-Digest", digest).with("Accept-Ranges", "bytes");
        let first = request
            .headers
            .get("range")
            .and_then(|r| r.strip_prefix("bytes="))
            .and_then(|r| r.strip_suffix('-'))
            .and_then(|r| r.parse::<usize>().ok());
        match first {
            Some(first) if !ignore_range => match bytes.get(first..) {
                Some(part) if !part.is_empty() => {
                    let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
                    Response { status: 206, ..whole }.with("Content-Range", range).body(part)
                }
                _ => Response::new(416).with("Content-Range", format!("bytes */{}", bytes.len())),
            },
            _ => whole.body(bytes.to_vec()),
        }
    }

    fn uploads(&self, request: &Request, repository: &str, session: &str) -> Response {
        let mut content = lock(&self.content);
        match request.method.as_str() {
            "POST" => {
                if let (Some(digest), Some(from)) = (request.query("mount"), request.query("from"))
                    && let Some(bytes) = content.blobs.get(&(from, digest.clone())).cloned()
                {
                    content.blobs.insert((repository.to_owned(), digest.clone()), bytes);
                    return Response::new(201).with("Location", format!("/v2/{repository}/blobs/{digest}"));
                }
                content.next_upload += 1;
                let id = format!("upload-{}", content.next_upload);
                content.uploads.insert(id.clone(), repository.to_owned());
                Response::new(202).with("Location", format!("/v2/{repository}/blobs/uploads/{id}?_state=abc"))
            }
            "PUT" => {
                if content.uploads.remove(session).as_deref() != Some(repository) {
                    return Response::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
                }
                let digest = Digest::of(&request.body).to_string();
                if request.query("digest").as_deref() != Some(digest.as_str()) {
                    return Response::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
                }
                content.blobs.insert((repository.to_owned(), digest.clone()), Arc::new(request.body.clone()));
                Response::new(201).with("Docker-Content-Digest", digest)
            }
            "DELETE" => {
                content.uploads.remove(session);
                Response::new(204)
            }
            _ => Response::new(405),
        }
    }

    /// Pages of two, so that clients have to follow links.
    fn tags(&self, request: &Request, repository: &str) -> Response {
        let content = lock(&self.content);
        let all: Vec<&String> = content.tags.keys().filter(|(r, _)| r == repository).map(|(_, t)| t).collect();
        if all.is_empty() {
            return Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        }
        let last = request.query("last").unwrap_or_default();
        let page: Vec<&String> = all.iter().filter(|t| ***t > last).take(2).copied().collect();
        let body = serde_json::json!({"name": repository, "tags": page}).to_string();
        let response = Response::new(200).body(body);
        match page.last() {
            Some(end) if all.last().is_some_and(|l| l != end) => {
                response.with("Link", format!("</v2/{repository}/tags/list?last={end}>; rel=\"next\""))
            }
            _ => response,
        }
    }
}

/// The value of an `Authorization` header.
fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("Basic ");
    for group in format!("{user}:{password}").as_bytes().chunks(3) {
        let word = group.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
