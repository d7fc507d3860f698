//! One table per grammar.

use super::*;
use dhow_types::{MountSpec, NetworkMode, PortBinding, RestartPolicy, SeccompChoice, SecurityOptions};
use proptest::prelude::*;
use std::path::Path;

fn show_ports(text: &str) -> String {
    let one = |b: &PortBinding| {
        let ip = b.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let host =
            b.host_ports.map(|(a, z)| if a == z { a.to_string() } else { format!("{a}-{z}") }).unwrap_or_default();
        format!("{ip}|{host}|{}", b.container)
    };
    match port(text) {
        Ok(list) => list.iter().map(one).collect::<Vec<_>>().join(" "),
        Err(e) => format!("error: {e}"),
    }
}

#[test]
fn ports() {
    for (text, expected) in [
        ("80", "||80/tcp"),
        ("4000:80", "|4000|80/tcp"),
        ("4000:80/udp", "|4000|80/udp"),
        ("127.0.0.1:4000:80", "127.0.0.1|4000|80/tcp"),
        ("127.0.0.1::80", "127.0.0.1||80/tcp"),
        ("[::1]:4000:80/TCP", "::1|4000|80/tcp"),
        ("0:80", "||80/tcp"),
        ("80-81:90-91", "|80|90/tcp |81|91/tcp"),
        ("8000-9000:80", "|8000-9000|80/tcp"),
        ("3000-3001", "||3000/tcp ||3001/tcp"),
        ("published=8080,target=80,protocol=udp", "|8080|80/udp"),
        ("target=80", "||80/tcp"),
        ("a:80", "error: invalid hostPort: a"),
        ("80:", "error: no port specified: 80:<empty>"),
        ("70000:80", "error: invalid hostPort: 70000"),
        ("80/foo", "error: invalid proto: foo"),
        ("80-82:90-91", "error: invalid ranges specified for container and host Ports: 80-82:90-91"),
        ("82-80:1-3", "error: invalid hostPort: 82-80"),
        ("1.2.3:4:5", "error: invalid port \"1.2.3:4:5\": invalid IP address \"1.2.3\""),
        ("0", "error: invalid port \"0\": container port 0 does not exist"),
        ("published=80", "error: invalid port \"published=80\": missing mandatory field 'target'"),
    ] {
        assert_eq!(show_ports(text), expected, "{text}");
    }
    assert_eq!(expose("80-82/udp").unwrap().len(), 3);
    for bad in ["", "0", "a", "80:80", "9-8"] {
        assert!(expose(bad).is_err(), "{bad}");
    }
}

#[track_caller]
fn volume_is(text: &str, expected: &str) {
    let show = |m: MountSpec| match m {
        MountSpec::Bind(b) => format!(
            "bind {} {} {} {}",
            b.source.display(),
            b.target,
            if b.read_only { "ro" } else { "rw" },
            b.propagation.name()
        ),
        MountSpec::Volume(v) => format!("volume {:?} {} {}", v.name, v.target, if v.read_only { "ro" } else { "rw" }),
        MountSpec::Tmpfs(t) => format!("tmpfs {} {:?}", t.target, t.options),
    };
    let result = if text.contains("type=") || text.contains("dst=") {
        mount(text, Path::new("/home/x"))
    } else {
        volume(text, Path::new("/home/x"))
    };
    assert_eq!(result.map_or_else(|e| format!("error: {e}"), show), expected, "{text}");
}

#[test]
fn mounts() {
    volume_is("/a:/b", "bind /a /b rw rprivate");
    volume_is("/a/../c:/b/:ro,Z,rslave", "bind /c /b ro rslave");
    volume_is("./app:/app", "bind /home/x/app /app rw rprivate");
    volume_is("../app:/app", "bind /home/app /app rw rprivate");
    volume_is("data:/b:ro", "volume Some(\"data\") /b ro");
    volume_is("/b", "volume None /b rw");
    volume_is(
        "data:b",
        "error: invalid volume specification: 'data:b': invalid mount path: 'b' mount path must be absolute",
    );
    volume_is("/a:/", "error: invalid volume specification: '/a:/': invalid specification: destination can't be '/'");
    volume_is("/a:/b:ro,rw", "error: invalid mode: ro,rw");
    volume_is("/a:/b:c:d", "error: invalid volume specification: '/a:/b:c:d'");
    volume_is("/a:/b:", "error: invalid volume specification: '/a:/b:'");
    volume_is("x:/b:shared", "error: invalid volume specification: 'x:/b:shared'");
    assert!(volume("a b:/c", Path::new("/")).is_err());
    assert!(volume("~/x:/c", Path::new("/")).unwrap_err().to_string().contains("shell"));
    volume_is("type=bind,src=/a,dst=/b,readonly", "bind /a /b ro rprivate");
    volume_is("type=bind,source=/a,\"target=/b,c\"", "bind /a /b,c rw rprivate");
    volume_is("dst=/b,src=vol,ro=false", "volume Some(\"vol\") /b rw");
    volume_is("type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770", "tmpfs /t \"size=67108864,mode=1770\"");
    volume_is("type=bind,dst=/b", "error: invalid mount \"type=bind,dst=/b\": type=bind needs a source");
    volume_is(
        "type=tmpfs,dst=/b,bind-propagation=shared",
        "error: cannot mix 'bind-propagation' (bind) with mount type 'tmpfs'",
    );
    volume_is("type=x,dst=/b", "error: invalid mount \"type=x,dst=/b\": unknown mount type \"x\"");
    volume_is("type=bind,src=/a,dst=/b,foo=1", "error: unexpected key 'foo' in 'foo=1'");
    let t = tmpfs("/run:rw,size=1m").unwrap();
    assert!(matches!(t, MountSpec::Tmpfs(t) if t.target == "/run" && t.options == "rw,size=1m"));
}

#[test]
fn sizes_and_times() {
    for (text, n) in [("512", 512), ("1k", 1024), ("1.5KiB", 1536), ("10 mb", 10 << 20), ("2G", 2 << 30), ("0", 0)] {
        assert_eq!(bytes(text).unwrap(), n, "{text}");
    }
    for bad in ["", "x", "1x", "-1", "1ib", "1 k b", "99999999t", "1e9"] {
        assert!(bytes(bad).is_err(), "{bad}");
    }
    assert_eq!(decimal_bytes("10m").unwrap(), 10_000_000);
    for (text, n) in [("1s", 1_000_000_000), ("1h30m", 5_400_000_000_000), ("1.5ms", 1_500_000), ("0", 0), ("-2ns", -2)]
    {
        assert_eq!(duration(text).unwrap(), n, "{text}");
    }
    for bad in ["", "1", "s", "1x", "1s1", "99999999999h", "--1s"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
    for (text, n) in [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("1.", 1_000_000_000)] {
        assert_eq!(cpus(text).unwrap(), n, "{text}");
    }
    for bad in ["", ".", "x", "1.0000000001", "-1", "1e3"] {
        assert!(cpus(bad).is_err(), "{bad}");
    }
    let u = ulimit("nofile=1024:2048").unwrap();
    assert_eq!((u.soft, u.hard), (1024, 2048));
    assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
    for bad in ["nofile", "nofile=", "x=1", "nofile=2:1", "nofile=a"] {
        assert!(ulimit(bad).is_err(), "{bad}");
    }
}

#[test]
fn environment() {
    let file = b"\xef\xbb\xbf# c\n\nA=1\n  B = 'x y' \nC\nD=\r\n";
    assert!(env_file("f", b"B C=1").is_err());
    let entries = env_file("f", &file[..]).map_err(|e| e.to_string());
    assert_eq!(entries, Err("f:4: variable 'B ' contains whitespaces".to_owned()));
    let entries = env_file("f", b"A=1\n  B='x y' \nC\nD=\r\nE").unwrap();
    let lookup = |k: &str| (k == "C").then(|| "client".to_owned());
    let resolved: Vec<_> = entries.into_iter().filter_map(|e| e.resolve(&lookup)).collect();
    assert_eq!(resolved, ["A=1", "B='x y' ", "C=client", "D="]);
    assert!(env_file("f", &[b'a'; 70_000]).is_err());
    assert!(env_file("f", b"\xff").is_err());
    assert!(env_flag("=x").is_err() && env_flag("").is_err());
    assert_eq!(label("a").unwrap(), ("a".to_owned(), String::new()));
    assert_eq!(label_file("f", b"a=b\nc").unwrap().len(), 2);
}

#[test]
fn hosts_and_modes() {
    let h = add_host("a:1.2.3.4").unwrap();
    assert_eq!((h.name.as_str(), h.address), ("a", "1.2.3.4".parse().ok()));
    assert_eq!(add_host("a:::1").unwrap().address, "::1".parse().ok());
    assert_eq!(add_host("a=[::1]").unwrap().address, "::1".parse().ok());
    assert_eq!(add_host("a:host-gateway").unwrap().address, None);
    for bad in ["a", ":1.2.3.4", "a:", "a:b", "a b:1.2.3.4"] {
        assert!(add_host(bad).is_err(), "{bad}");
    }
    assert_eq!(network("container:web").unwrap().mode, NetworkMode::Container("web".to_owned()));
    assert_eq!(network("name=net1,alias=db,ip=1.2.3.4").unwrap().aliases, ["db"]);
    for bad in ["container:", "alias=x", "name=a,foo=b", "name=a,ip=b"] {
        assert!(network(bad).is_err(), "{bad}");
    }
    assert_eq!(restart("on-failure:3").unwrap(), RestartPolicy::OnFailure(3));
    for bad in ["x", "always:1", "on-failure:x", "on-failure:-1"] {
        assert!(restart(bad).is_err(), "{bad}");
    }
    assert!(pid_mode("container:").is_err() && ipc_mode("nope").is_err());
}

#[test]
fn confinement() {
    assert_eq!(cap("net_admin").unwrap(), "CAP_NET_ADMIN");
    assert_eq!(cap("CAP_SYS_ADMIN").unwrap(), "CAP_SYS_ADMIN");
    assert_eq!(cap("all").unwrap(), "ALL");
    assert!(cap("").is_err() && cap("a b").is_err());
    let mut out = SecurityOptions::default();
    let read = |path: &str| match path {
        "p.json" => Ok("{}".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    for text in
        ["no-new-privileges", "seccomp=p.json", "apparmor:unconfined", "systempaths=unconfined", "label=disable"]
    {
        security_opt(text, &mut out, &read).unwrap();
    }
    assert!(out.no_new_privileges && out.unmasked && out.seccomp == SeccompChoice::Profile("{}".to_owned()));
    assert_eq!(out.as_typed.len(), 5);
    for bad in ["x", "seccomp", "seccomp=missing", "no-new-privileges=maybe"] {
        assert!(security_opt(bad, &mut out, &read).is_err(), "{bad}");
    }
    assert_eq!(device("/dev/a:/dev/b:r").unwrap().unwrap().permissions, "r");
    assert_eq!(device("/dev/a:rw").unwrap().unwrap().container, "/dev/a");
    assert!(device("vendor.com/gpu=0").unwrap().is_none());
    assert!(device("dev/a").is_err() && device("/a:/b:x").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// No text makes a grammar panic.
    #[test]
    fn never_panics(text in "[ -~äß\\[\\]:/=,.\"-]{0,40}") {
        let _ = port(&text);
        let _ = expose(&text);
        let _ = volume(&text, Path::new("/"));
        let _ = mount(&text, Path::new("/"));
        let _ = network(&text);
        let _ = add_host(&text);
        let _ = bytes(&text);
        let _ = duration(&text);
        let _ = cpus(&text);
        let _ = device(&text);
        let _ = crate::detach::parse(&text);
        let _ = crate::filter::path_match(&text, &text);
    }

    /// A port that is printed is read back.
    #[test]
    fn ports_round_trip(host in 1u16.., container in 1u16.., v6: bool) {
        let ip = if v6 { "[fe80::1]" } else { "10.0.0.1" };
        let bindings = port(&format!("{ip}:{host}:{container}")).unwrap();
        prop_assert_eq!(bindings.len(), 1);
        prop_assert_eq!(bindings[0].host_ports, Some((host, host)));
        prop_assert_eq!(bindings[0].container.port, container);
    }

    /// A quoted CSV field keeps its content.
    #[test]
    fn csv_round_trip(fields in proptest::collection::vec("[a-z,\" ]{0,8}", 1..5)) {
        let text: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
        prop_assert_eq!(split_csv("test", &text.join(",")).unwrap(), fields);
    }
}
