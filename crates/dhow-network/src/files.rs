//! The texts of a container's `/etc/hosts` and `/etc/resolv.conf`.
//!
//! Texts only: who writes them where, and when, is the engine's business. No line can be smuggled in through a name: what
//! would end a line or a field is left out, whatever an earlier check let through.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// What `/etc/hosts` is made from.
#[derive(Debug, Clone, Default)]
pub struct HostsFile<'a> {
    /// The container's address on its network; `None` without one.
    pub address: Option<IpAddr>,
    /// Its host name.
    pub hostname: &'a str,
    /// Its domain name, empty without one.
    pub domainname: &'a str,
    /// `--add-host` lines in order, `host-gateway` already resolved.
    pub extra: &'a [(String, IpAddr)],
    /// Whether the container's namespace has IPv6.
    pub ipv6: bool,
}

/// Whether a text may stand as a host name in these files: non-empty, and nothing in it that ends a line or a field, or
/// starts a comment.
pub fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && name.chars().all(allowed)
}

fn allowed(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && c != '#'
}

fn clean(name: &str) -> String {
    name.chars().filter(|c| allowed(*c)).collect()
}

/// The text of `/etc/hosts`.
pub fn hosts(file: &HostsFile<'_>) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n");
    if file.ipv6 {
        text.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str("fe00::\tip6-localnet\n");
        text.push_str("ff00::\tip6-mcastprefix\n");
        text.push_str("ff02::1\tip6-allnodes\n");
        text.push_str("ff02::2\tip6-allrouters\n");
    }
    // Writing to a String cannot fail.
    for (name, address) in file.extra {
        let name = clean(name);
        if !name.is_empty() {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    let (hostname, domainname) = (clean(file.hostname), clean(file.domainname));
    if let Some(address) = file.address.filter(|_| !hostname.is_empty()) {
        let _ = match domainname.as_str() {
            "" => writeln!(text, "{address}\t{hostname}"),
            domain => writeln!(text, "{address}\t{hostname}.{domain} {hostname}"),
        };
    }
    text
}

/// Name servers for a container whose host has none that it could reach. Docker's choice, and the reason why
/// [`ResolvConf::fallback`] exists: a caller that uses it should say so.
pub const FALLBACK_SERVERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// What `/etc/resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
    /// Whether the servers are [`FALLBACK_SERVERS`], because the host's own cannot be reached from a container.
    pub fallback: bool,
}

/// Whether the host's file names the stub of systemd-resolved and nothing else: its upstream servers are then in
/// `/run/systemd/resolve/resolv.conf`, which is the file to give to [`resolv_conf`] instead.
pub fn uses_resolved_stub(host: &str) -> bool {
    let servers = parse(host).servers;
    !servers.is_empty() && servers.iter().all(|s| s == "127.0.0.53")
}

/// The text of `/etc/resolv.conf`: the host's, without name servers on the host's loopback, with what the caller sets in
/// place of the host's. Empty lists set nothing; a search list of `.` alone clears the host's.
pub fn resolv_conf(host: &str, dns: &[IpAddr], search: &[String], options: &[String]) -> String {
    resolve(host, dns, search, options).text()
}

/// The same as a value, for callers that want to know more than the text.
pub fn resolve(host: &str, dns: &[IpAddr], search: &[String], options: &[String]) -> ResolvConf {
    let mut conf = parse(host);
    let reachable = |server: &String| {
        // A zone (`fe80::1%eth0`) names a link that the container does not have.
        server.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    conf.servers.retain(reachable);
    if !dns.is_empty() {
        conf.servers = dns.iter().map(IpAddr::to_string).collect();
    }
    if conf.servers.is_empty() {
        conf.servers = FALLBACK_SERVERS.iter().map(IpAddr::to_string).collect();
        conf.fallback = true;
    }
    if !search.is_empty() {
        conf.search = search.iter().map(|s| clean(s)).filter(|s| !s.is_empty() && s != ".").collect();
    }
    if !options.is_empty() {
        conf.options = options.iter().map(|o| clean(o)).filter(|o| !o.is_empty()).collect();
    }
    conf
}

/// Reads resolv.conf(5). The last `search` or `domain` line counts; `options` add up. Bounded like the resolver's own
/// reading: what is longer is cut, not refused, because a container must start on any host.
fn parse(host: &str) -> ResolvConf {
    const MAX_LINES: usize = 1000;
    const MAX_ENTRIES: usize = 64;
    let mut conf = ResolvConf::default();
    for line in host.lines().take(MAX_LINES) {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace().map(clean).filter(|w| !w.is_empty());
        match words.next().as_deref() {
            Some("nameserver") => conf.servers.extend(words.next()),
            Some("search" | "domain") => conf.search = words.take(MAX_ENTRIES).collect(),
            Some("options") => conf.options.extend(words),
            _ => {}
        }
    }
    conf.servers.truncate(MAX_ENTRIES);
    conf.options.truncate(MAX_ENTRIES);
    conf
}

impl ResolvConf {
    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = String::from("# Generated by dhow. The container may change this file.\n\n");
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        for (word, entries) in [("search", &self.search), ("options", &self.options)] {
            if !entries.is_empty() {
                let _ = writeln!(text, "{word} {}", entries.join(" "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_of_a_container() {
        let extra = [("db".to_owned(), "10.0.0.5".parse().unwrap()), ("h6".to_owned(), "fd00::1".parse().unwrap())];
        let file = HostsFile {
            address: Some("172.17.0.2".parse().unwrap()),
            hostname: "web",
            domainname: "example.org",
            extra: &extra,
            ipv6: false,
        };
        assert_eq!(hosts(&file), "127.0.0.1\tlocalhost\n10.0.0.5\tdb\nfd00::1\th6\n172.17.0.2\tweb.example.org web\n");
        let bare = HostsFile { address: file.address, hostname: "web", ipv6: true, ..HostsFile::default() };
        let text = hosts(&bare);
        assert!(text.contains("::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"));
        assert!(text.ends_with("ff02::2\tip6-allrouters\n172.17.0.2\tweb\n"));
    }

    #[test]
    fn loopback_servers_stay_with_the_host() {
        let host = "# x\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n\
                    search a b\ndomain c\noptions edns0 trust-ad\noptions ndots:2\n";
        let text = resolv_conf(host, &[], &[], &[]);
        assert!(text.ends_with("\n\nnameserver 10.0.0.1\nsearch c\noptions edns0 trust-ad ndots:2\n"), "{text}");
    }

    #[test]
    fn nothing_to_reach() {
        let conf = resolve("nameserver 127.0.0.1\n", &[], &[], &[]);
        assert!(conf.fallback);
        assert_eq!(conf.servers, ["8.8.8.8", "8.8.4.4"]);
        assert!(!resolve("nameserver 9.9.9.9", &[], &[], &[]).fallback);
        assert!(uses_resolved_stub("nameserver 127.0.0.53\noptions x\n"));
        assert!(!uses_resolved_stub("nameserver 127.0.0.53\nnameserver 1.1.1.1"));
        assert!(!uses_resolved_stub(""));
    }

    #[test]
    fn what_is_set_replaces_the_host() {
        let host = "nameserver 9.9.9.9\nsearch corp\noptions ndots:5\n";
        let dns = ["1.1.1.1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let conf = resolve(host, &dns, &[".".to_owned()], &["ndots:1".to_owned()]);
        assert_eq!(
            conf.text().lines().skip(2).collect::<Vec<_>>(),
            ["nameserver 1.1.1.1", "nameserver 127.0.0.1", "options ndots:1"]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_name_makes_a_line(hostname in "\\PC{0,12}|[a\\n\\r\\t #\u{85}\u{2028}]{0,12}", name in "[a\\n\\r\\x00 #]{0,9}") {
            let extra = [(name.clone(), IpAddr::from([10, 0, 0, 1]))];
            let address = Some(IpAddr::from([172, 17, 0, 2]));
            let text = hosts(&HostsFile { address, hostname: &hostname, domainname: &name, extra: &extra, ipv6: false });
            prop_assert!(text.lines().count() <= 3);
            prop_assert!(text.lines().all(|l| l.split('\t').count() == 2));
            let conf = resolv_conf("", &[], &[hostname, name.clone()], &[name]);
            prop_assert!(conf.lines().skip(2).all(|l| ["nameserver ", "search ", "options "].iter().any(|w| l.starts_with(w))));
        }

        #[test]
        fn any_host_file_is_no_panic(host: String) {
            let _ = resolv_conf(&host, &[], &[], &[]);
        }
    }
}
