//! The walk itself, in the order of the story: image, container, inside, commit, registry, namespaces.

use super::base::BASE;
use super::host;
use super::place::ACCOUNT;
use super::tour::Tour;
use crate::sh::{Context, Result};
use std::process::Stdio;
use std::time::Duration;

/// All chapters.
pub fn everything(tour: &mut Tour) -> Result {
    let server = format!("localhost:{}", tour.place.registry_port);
    get_the_base(tour, &server)?;
    build(tour)?;
    run_in_front(tour)?;
    let id = run_behind(tour)?;
    life(tour, &id)?;
    enter_and_commit(tour, &id)?;
    namespaces(tour, &id)?;
    networks(tour, &id)?;
    ship(tour, &server)?;
    variants(tour)
}

fn get_the_base(tour: &mut Tour, server: &str) -> Result {
    tour.chapter("An image comes from a registry");
    tour.say("One file, nothing installed beside it, no daemon.");
    tour.dhow(&["--version"])?;
    tour.say("The registry wants to know who asks. The password comes by standard input, so no history keeps it.");
    let mut login = tour.place.command("dhow");
    login.args(["login", "-u", ACCOUNT.0, "--password-stdin", server]);
    let shown = tour.run(&mut login, ACCOUNT.1.as_bytes())?;
    tour.shows(shown.text.contains("Login Succeeded"), "the registry accepts the account")?;
    tour.say("Layers download and unpack at the same time; every byte is checked against its digest on the way.");
    tour.dhow(&["pull", &format!("{server}/{BASE}")])?;
    tour.say("A tag is only another name for the same image; the Dockerfile asks for this one.");
    tour.dhow(&["tag", &format!("{server}/{BASE}"), BASE])?;
    Ok(())
}

fn build(tour: &mut Tour) -> Result {
    tour.chapter("A Dockerfile becomes an image");
    tour.program("cat", &["Dockerfile"])?;
    tour.say("Each instruction runs in a container of its own, and what it changes becomes a layer.");
    tour.dhow(&["build", "-t", "helloworld", "."])?;
    tour.say("Again: nothing has changed, so nothing is done.");
    tour.dhow(&["build", "-q", "-t", "helloworld", "."])?;
    tour.say("Two names of the base are one image: same id.");
    let images = tour.dhow(&["images"])?;
    tour.shows(images.text.contains("helloworld"), "the new image is listed")?;
    tour.say("Every instruction is an entry. ENV, EXPOSE and CMD change no file: their layers are empty (0B).");
    let history = tour.dhow(&["history", "helloworld"])?;
    let empty = |word: &str| history.text.lines().any(|l| l.contains(word) && l.contains("0B"));
    tour.shows(["ENV", "EXPOSE", "CMD"].iter().all(|w| empty(w)), "metadata instructions made empty layers")?;
    Ok(())
}

fn run_in_front(tour: &mut Tour) -> Result {
    tour.chapter("An image becomes a container");
    let publish = format!("{}:80", tour.place.app_port);
    tour.say("In the foreground the container's output is yours, and Ctrl-C reaches the process inside.");
    println!("$ dhow run -p {publish} helloworld");
    let mut command = tour.place.command("dhow");
    command
        .args(["run", "-p", &publish, "helloworld"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().context("dhow run")?;
    let answer = tour.curl(&format!("http://localhost:{}", tour.place.app_port));
    println!("^C");
    if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).ok();
    }
    let start = std::time::Instant::now();
    while child.try_wait().context("dhow run")?.is_none() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = child.try_wait().context("dhow run")?.is_some();
    child.kill().ok();
    child.wait().ok();
    answer?;
    tour.shows(ended, "Ctrl-C ended the container")
}

fn run_behind(tour: &mut Tour) -> Result<String> {
    let port = tour.place.app_port;
    let shared = tour.place.work.join("shared");
    crate::sh::write(&shared.join("host.txt"), "this file lives on the host\n")?;
    tour.say(
        "In the background (-d) the command returns the id; a directory of the host is mounted at /app/shared (-v).",
    );
    let volume = format!("{}:/app/shared", shared.display());
    let id = tour.dhow(&["run", "-d", "-p", &format!("{port}:80"), "-v", &volume, "helloworld"])?.stdout;
    tour.curl(&format!("http://localhost:{port}"))?;
    if let Some(address) = host::outer_address()? {
        tour.say("The port is published on the host's other addresses too…");
        tour.curl(&format!("http://{address}:{port}"))?;
        tour.say("…and another container reaches it there.");
        let url = format!("http://{address}:{port}");
        let shown = tour.dhow(&["run", "--rm", "busybox", "wget", "-q", "-O", "-", &url])?;
        tour.shows(shown.text.contains("Hello World"), "a container reaches the published port")?;
    }
    Ok(id[..12.min(id.len())].to_owned())
}

fn life(tour: &mut Tour, id: &str) -> Result {
    tour.chapter("Watching, stopping and starting");
    let ps = tour.dhow(&["ps"])?;
    tour.shows(ps.text.contains(id) && ps.text.contains("->80/tcp"), "ps shows the container and its port")?;
    tour.say("logs -f follows what the process prints, until you have seen enough.");
    println!("$ dhow logs -f {id}");
    let mut follow = tour.place.command("dhow");
    let mut child =
        follow.args(["logs", "-f", id]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("dhow logs")?;
    std::thread::sleep(Duration::from_millis(500));
    let ended = child.try_wait().context("dhow logs")?.is_some();
    child.kill().ok();
    let output = child.wait_with_output().context("dhow logs")?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    text.lines().for_each(|l| println!("{l}"));
    tour.shows(!ended && text.contains("GET / "), "logs show the requests and wait for more")?;
    tour.dhow(&["stop", "-t", "2", id])?;
    let all = tour.dhow(&["ps", "-a"])?;
    tour.shows(all.text.contains("Exited ("), "a stopped container is still there, with its files")?;
    tour.dhow(&["start", id])?;
    tour.curl(&format!("http://localhost:{}", tour.place.app_port))?;
    Ok(())
}

fn enter_and_commit(tour: &mut Tour, id: &str) -> Result {
    tour.chapter("Going inside, and keeping what was changed");
    tour.say("exec starts a second process in the container's namespaces.");
    tour.terminal(&["exec", "-it", id, "/bin/sh"], &[("# ", "touch test.txt"), ("# ", "ls"), ("# ", "exit")])?;
    tour.say(
        "commit makes an image of the container's changes. A mounted directory is not part of the container's files.",
    );
    tour.dhow(&["commit", id, "ayou/helloworld:v2"])?;
    let list = tour.dhow(&["run", "--rm", "ayou/helloworld:v2", "sh", "-c", "ls; ls shared; true"])?;
    tour.shows(list.text.contains("test.txt"), "test.txt is in the new image")?;
    tour.shows(!list.text.contains("host.txt"), "the host's file is not")?;
    Ok(())
}

fn namespaces(tour: &mut Tour, id: &str) -> Result {
    tour.chapter("What a container is: a process with namespaces of its own");
    let pid = tour.dhow(&["inspect", "--format", "{{ .State.Pid }}", id])?.stdout;
    tour.say("The kernel shows each namespace as a file. Same number, same namespace.");
    tour.program("ls", &["-l", &format!("/proc/{pid}/ns")])?;
    let link = |pid: &str, kind: &str| -> Result<String> {
        let path = format!("/proc/{pid}/ns/{kind}");
        Ok(std::fs::read_link(&path).context(path)?.display().to_string())
    };
    tour.say("dhow shows them beside the host's, and with whom they are shared.");
    let shown = tour.dhow(&["ns", "show", id])?;
    for kind in ["mnt", "net", "pid", "ipc", "uts", "user"] {
        let number: String = link(&pid, kind)?.chars().filter(char::is_ascii_digit).collect();
        tour.check(shown.text.contains(&number), &format!("ns show reports {kind} {number}"))?;
    }
    tour.shows(true, "dhow reports the numbers that /proc shows")?;
    tour.say("set_ns of the notes, built in: join one namespace by its file, then become another program.");
    let net = format!("/proc/{pid}/ns/net");
    let script = "readlink /proc/self/ns/net; ip -4 -o addr";
    let inside = tour.dhow(&["ns", "enter", &net, "--", "/bin/bash", "-c", script])?;
    tour.shows(inside.text.contains(&link(&pid, "net")?), "the program is in the container's network namespace")?;
    tour.shows(inside.text.contains("eth0"), "and sees its eth0")?;
    tour.dhow(&["ns", "ls"])?;
    Ok(())
}

fn networks(tour: &mut Tour, id: &str) -> Result {
    tour.chapter("Sharing a network, or having none");
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = tour.dhow(&["inspect", "--format", template, id])?.stdout;
    tour.say("A second container joins the network namespace of the first: the same eth0.");
    let joined =
        tour.terminal(&["run", "--rm", "-it", "--net", &format!("container:{id}"), "busybox", "ifconfig"], &[])?;
    tour.shows(joined.text.contains("eth0") && joined.text.contains(&address), &format!("it has eth0 with {address}"))?;
    tour.say("--net host puts up no wall at all: these are the host's interfaces.");
    let host = tour.dhow(&["run", "--rm", "--net", "host", "busybox", "ifconfig"])?;
    let bridge = tour.dhow(&["run", "--rm", "--net", "host", "busybox", "readlink", "/proc/self/ns/net"])?;
    let own = std::fs::read_link("/proc/self/ns/net").context("/proc/self/ns/net")?;
    tour.shows(
        bridge.stdout == own.display().to_string() && host.text.contains("lo"),
        "it is the host's network namespace",
    )?;
    tour.say("--net none: a network namespace with the loopback alone.");
    let none = tour.dhow(&["run", "--rm", "--net", "none", "busybox", "ifconfig", "-a"])?;
    let links = none.text.lines().filter(|l| l.contains("Link encap")).count();
    tour.shows(links == 1 && none.text.contains("lo "), "only lo is there")?;
    Ok(())
}

fn ship(tour: &mut Tour, server: &str) -> Result {
    tour.chapter("To the registry and back");
    let name = format!("{server}/ayou/helloworld:v2");
    tour.dhow(&["tag", "ayou/helloworld:v2", &name])?;
    tour.say("Only layers that the registry lacks travel; the base is there already.");
    let pushed = digest(&tour.dhow(&["push", &name])?.text);
    tour.shows(pushed.is_some(), "the registry named the image's digest")?;
    tour.dhow(&["logout", server])?;
    tour.say("Without the login the registry refuses.");
    let refused = tour.dhow_code(&["push", &name])?;
    tour.shows(refused.code == 1, "push without login fails with code 1")?;
    let mut login = tour.place.command("dhow");
    login.args(["login", "-u", ACCOUNT.0, "--password-stdin", server]);
    tour.run(&mut login, ACCOUNT.1.as_bytes())?;
    tour.say("Away with both names here, then back from the registry.");
    tour.dhow(&["rmi", &name, "ayou/helloworld:v2"])?;
    let pulled = digest(&tour.dhow(&["pull", &name])?.text);
    tour.shows(pulled == pushed, "the same digest came back")?;
    let list = tour.dhow(&["run", "--rm", &name, "ls", "test.txt"])?;
    tour.shows(list.stdout == "test.txt", "and test.txt is in it")?;
    Ok(())
}

/// The `sha256:…` in what push and pull print.
fn digest(text: &str) -> Option<String> {
    let start = text.find("sha256:")?;
    let end = text[start + 7..].find(|c: char| !c.is_ascii_hexdigit()).map_or(text.len(), |e| start + 7 + e);
    Some(text[start..end].to_owned())
}

fn variants(tour: &mut Tour) -> Result {
    tour.chapter("ENTRYPOINT and the shell form");
    tour.say("With ENTRYPOINT [\"python\"] the words after the image name replace CMD and become python's arguments.");
    tour.dhow(&["build", "-q", "-t", "helloworld:entrypoint", "-f", "Dockerfile.entrypoint", "."])?;
    let version = tour.dhow(&["run", "--rm", "helloworld:entrypoint", "--version"])?;
    tour.shows(version.text.contains("Python 3"), "python got --version")?;
    tour.say("CMD in shell form is run by /bin/sh -c.");
    tour.dhow(&["build", "-q", "-t", "helloworld:shell", "-f", "Dockerfile.shell", "."])?;
    let command = tour.dhow(&["inspect", "--format", "{{json .Config.Cmd}}", "helloworld:shell"])?;
    tour.shows(command.stdout == r#"["/bin/sh","-c","python app.py"]"#, "the image's command is a shell that runs it")?;
    Ok(())
}
