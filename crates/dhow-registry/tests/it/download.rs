//! Plain files over HTTP.

use super::*;
use dhow_registry::{Download, DownloadError, DownloadReader, DownloadRequest, Proxies};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// Answers each connection by a function from the request's lines to the answer's bytes; returns the server's address and
/// what was asked.
fn serve(answer: impl Fn(&[String], &mut TcpStream) + Send + 'static) -> (String, Arc<Mutex<Vec<Vec<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok)
                .take_while(|l| !l.is_empty())
                .collect();
            log.lock().unwrap().push(lines.clone());
            answer(&lines, &mut stream);
        }
    });
    (address, asked)
}

fn client() -> (Client, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    let options = Options { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Options::default() };
    (Client::with_options(RegistryConfig::default(), Arc::new(Known::default()), options), clock)
}

fn ask<'a>(url: &'a str) -> DownloadRequest<'a> {
    DownloadRequest { url, max_size: 1 << 20, ..DownloadRequest::default() }
}

fn content(download: Download) -> DownloadReader {
    match download {
        Download::Content(reader) => reader,
        Download::NotModified => panic!("no content"),
    }
}

fn ok(body: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

#[test]
fn content_and_validators() {
    let (host, asked) = serve(|lines, out| {
        let known = lines.iter().any(|l| l.eq_ignore_ascii_case("if-none-match: \"v1\""));
        let answer = if known {
            b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_vec()
        } else {
            let date = "Last-Modified: Tue, 15 Nov 1994 08:12:31 GMT\r\n";
            ok("hello", &format!("ETag: \"v1\"\r\n{date}Content-Disposition: attachment; filename=\"f\"\r\n"))
        };
        out.write_all(&answer).unwrap();
    });
    let (client, _) = client();
    let url = format!("http://{host}/x?secret#fragment");
    let mut reader = content(client.download(&ask(&url)).unwrap());
    assert_eq!(reader.etag.as_deref(), Some("\"v1\""));
    assert_eq!((reader.modified, reader.name.as_deref()), (Some(784_887_151), Some("f")));
    assert_eq!(reader.url(), format!("http://{host}/x"));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let again = DownloadRequest { etag: Some("\"v1\""), ..ask(&url) };
    assert!(matches!(client.download(&again).unwrap(), Download::NotModified));
    assert_eq!(asked.lock().unwrap()[0][0], "GET /x?secret HTTP/1.1");
}

#[test]
fn redirects_are_followed_within_bounds_and_without_secrets() {
    let (other, seen) = serve(|_, out| out.write_all(&ok("there", "")).unwrap());
    let (host, asked) = serve(move |lines, out| {
        let target = if lines[0].contains("/loop") { "/loop".to_owned() } else { format!("http://{other}/y") };
        let answer =
            format!("HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {target}\r\n\r\n");
        out.write_all(answer.as_bytes()).unwrap();
    });
    let (client, _) = client();
    let url = format!("http://{host}/x");
    let request = DownloadRequest { authorization: Some("Bearer s3cret"), ..ask(&url) };
    let mut text = String::new();
    content(client.download(&request).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "there");
    let has_secret = |log: &Mutex<Vec<Vec<String>>>| format!("{:?}", log.lock().unwrap()).contains("s3cret");
    assert!(has_secret(&asked) && !has_secret(&seen));
    let error = client.download(&ask(&format!("http://{host}/loop"))).unwrap_err();
    assert!(matches!(error, DownloadError::Redirects { .. }), "{error}");
    let error = client.download(&ask("file:///etc/passwd")).unwrap_err();
    assert!(matches!(error, DownloadError::Url(_)), "{error}");
}

#[test]
fn statuses_sizes_and_cuts() {
    let (host, asked) = serve(|lines, out| {
        let big = "x".repeat(100);
        let answer = match lines[0].split(' ').nth(1).unwrap() {
            "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            "/busy" => b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            "/endless" => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{big}").into_bytes(),
            "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nabc".to_vec(),
            _ => ok(&big, ""),
        };
        out.write_all(&answer).unwrap();
    });
    let (client, clock) = client();
    let get = |path: &str| {
        let url = format!("http://{host}{path}");
        let request = DownloadRequest { max_size: 50, ..ask(&url) };
        let mut bytes = Vec::new();
        match client.download(&request)? {
            Download::NotModified => panic!("not asked for"),
            Download::Content(mut reader) => {
                reader.read_to_end(&mut bytes).map_err(|e| DownloadError::from_read(e).unwrap())?
            }
        };
        Ok::<_, DownloadError>(bytes)
    };
    assert!(matches!(get("/missing"), Err(DownloadError::Status { status: 404, .. })));
    assert!(matches!(get("/busy"), Err(DownloadError::Status { status: 503, .. })));
    assert_eq!(clock.sleeps().len(), 2);
    assert_eq!(asked.lock().unwrap().len(), 4);
    for large in ["/large", "/endless"] {
        assert!(matches!(get(large), Err(DownloadError::TooLarge { limit: 50, .. })), "{large}");
    }
    let cut = get("/cut").unwrap_err();
    assert!(cut.is_transient(), "{cut}");
}

#[test]
fn a_trickle_is_cut_off() {
    let (host, _) = serve(|_, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap();
        while out.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let (client, clock) = client();
    let url = format!("http://{host}/");
    let mut reader = content(client.download(&ask(&url)).unwrap());
    clock.tick(Duration::from_secs(1));
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    let error = DownloadError::from_read(error).unwrap();
    assert!(matches!(error, DownloadError::Connection { transient: false, .. }), "{error}");
}

#[test]
fn a_proxy_is_used_for_what_is_not_excepted() {
    let (proxy, asked) = serve(|lines, out| {
        assert_eq!(lines[0], "CONNECT files.example:80 HTTP/1.1");
        out.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
        let mut request = BufReader::new(out.try_clone().unwrap()).lines();
        request.find(|l| l.as_ref().is_ok_and(String::is_empty));
        out.write_all(&ok("through", "")).unwrap();
    });
    let proxies = Proxies { http: Some(format!("http://{proxy}")), ..Proxies::default() };
    let config = RegistryConfig { proxies, ..RegistryConfig::default() };
    let client = Client::new(config, Arc::new(Known::default()));
    let mut text = String::new();
    content(client.download(&ask("http://files.example/x")).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
    assert_eq!(asked.lock().unwrap().len(), 1);
}
