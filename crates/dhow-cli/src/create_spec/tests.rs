//! From a command line to a spec.

use super::*;
use crate::flags;

fn spec(line: &str) -> Result<ContainerSpec, String> {
    let args = line.split_whitespace().map(str::to_owned).collect();
    let m = flags::parse(&[FLAGS], false, args)?;
    build(&m, &ConfigFile::default()).map_err(|e| format!("{e:?}"))
}

#[test]
fn the_daily_flags() {
    let s = spec(
        "-it --rm --name web -e A=1 -p 4000:80 -P -v /a:/b:ro -w /app -u 1:2 --entrypoint sh --hostname h --net none \
         --cap-add net_admin --cap-drop ALL --privileged --read-only --tmpfs /run --memory 64m --cpus 1 \
         --pids-limit 10 --init --label a=b --stop-signal INT --stop-timeout 3 --security-opt no-new-privileges \
         --add-host x:1.2.3.4 --dns 9.9.9.9 --ulimit nofile=10:20 --shm-size 1m img echo -n --rm",
    )
    .unwrap();
    assert_eq!((s.image.as_str(), s.command.join(" ")), ("img", "echo -n --rm".to_owned()));
    assert!(s.tty && s.open_stdin && s.auto_remove && s.publish_all && s.init);
    assert_eq!(s.env, ["A=1"]);
    assert_eq!(s.ports.len(), 1);
    assert_eq!(s.mounts.len(), 2);
    assert_eq!(s.entrypoint, Some(vec!["sh".to_owned()]));
    assert_eq!(s.network, NetworkMode::None);
    assert_eq!(s.security.cap_add, ["CAP_NET_ADMIN"]);
    assert_eq!(s.security.cap_drop, ["ALL"]);
    assert!(s.security.privileged && s.security.read_only_rootfs && s.security.no_new_privileges);
    assert_eq!(
        (s.resources.memory, s.resources.nano_cpus, s.resources.pids),
        (Some(64 << 20), Some(1_000_000_000), Some(10))
    );
    assert_eq!((s.stop_signal.map(Signal::number), s.stop_timeout), (Some(2), Some(3)));
    assert_eq!(s.shm_size, Some(1 << 20));
}

#[test]
fn empty_and_special_values() {
    assert_eq!(spec("--entrypoint= img").unwrap().entrypoint, Some(vec![]));
    let s = spec("--memory 0 --pids-limit -1 --memory-swap 0 img").unwrap();
    assert_eq!((s.resources.memory, s.resources.pids, s.resources.memory_swap), (None, None, None));
    assert_eq!(spec("-e DHOW_SURELY_NOT_SET img").unwrap().env, ["DHOW_SURELY_NOT_SET"]);
    assert_eq!(spec("--no-healthcheck img").unwrap().healthcheck.unwrap().test, ["NONE"]);
}

#[test]
fn refusals() {
    for (line, part) in [
        ("--rm --restart always img", "cannot specify both --restart and --rm"),
        ("--stop-signal NOPE img", "Invalid signal: NOPE"),
        ("--gpus all img", "--gpus is not supported yet"),
        ("--device /dev/fuse img", "--device is not supported yet"),
        ("-p x img", "invalid argument \\\"x\\\" for \\\"-p, --publish\\\" flag: invalid containerPort: x"),
        ("-m 5m img", "Minimum memory limit allowed is 6MB"),
        ("--memory-swap 1g img", "should always set the Memory limit"),
        ("-m 64m --memory-swap 32m img", "Minimum memoryswap limit should be larger than memory limit"),
        ("--cpus 9999 img", "Range of CPUs is from 0.01 to"),
        ("--cpus 1 --cpu-quota 1000 img", "Conflicting options"),
        ("--uts host -h x img", "hostname and the UTS mode"),
        ("-w app img", "needs to be an absolute path"),
        ("--name - img", "Invalid container name"),
        ("--no-healthcheck --health-cmd x img", "conflicts with --health"),
        ("--env-file /nonexistent img", "open /nonexistent: No such file"),
    ] {
        let error = spec(line).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }
}
