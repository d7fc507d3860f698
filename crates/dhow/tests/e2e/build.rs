//! `build`.

use crate::building::{builds, refuses};
use crate::{dhow, lines};
use dhow_testkit::{Entry, Tar};

#[test]
fn every_classic_instruction() {
    let d = dhow();
    d.file("ctx/file", "from the context\n");
    let text = "ARG BASE=busybox\nFROM $BASE\nMAINTAINER me\nLABEL a=b \"c d\"=e\nARG ARG1=default\nENV E1=one E2=\"two $ARG1\"\nENV E3 three words\n\
                WORKDIR /w\nWORKDIR sub\nCOPY file copied\nADD file /added\nRUN echo $E1 $ARG1 > ran && pwd >> ran\nRUN [\"touch\", \"exec\"]\n\
                EXPOSE 80 90/udp\nVOLUME /data\nUSER alice:www\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/sh\", \"-ec\"]\n\
                HEALTHCHECK --interval=7s --retries=2 CMD true\nONBUILD RUN echo child > /tmp/onbuild\nENTRYPOINT [\"cat\"]\nCMD [\"ran\", \"copied\", \"/added\"]\n";
    builds(&d, text, &["--build-arg", "ARG1=given"]);
    assert_eq!(lines(&d.ok(&["run", "--rm", "x"])), ["one given", "/w/sub", "from the context", "from the context"]);
    let c: serde_json::Value = serde_json::from_str(&d.inspect("x", "{{json .Config}}")).unwrap();
    assert_eq!(
        c["Env"].as_array().unwrap()[1..],
        ["E1=one".into(), "E2=two given".into(), "E3=three words".into()] as [serde_json::Value; 3]
    );
    assert_eq!((c["User"].as_str(), c["WorkingDir"].as_str()), (Some("alice:www"), Some("/w/sub")));
    assert_eq!(c["ExposedPorts"], serde_json::json!({ "80/tcp": {}, "90/udp": {} }));
    assert_eq!(c["Volumes"], serde_json::json!({ "/data": {} }));
    assert_eq!(c["Labels"], serde_json::json!({ "a": "b", "c d": "e" }));
    assert_eq!((c["StopSignal"].as_str(), &c["Shell"]), (Some("SIGINT"), &serde_json::json!(["/bin/sh", "-ec"])));
    assert_eq!(c["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "true"]));
    assert_eq!(c["Healthcheck"]["Interval"], 7_000_000_000u64);
    assert_eq!(c["OnBuild"], serde_json::json!(["RUN echo child > /tmp/onbuild"]));
    d.file("child/Dockerfile", "FROM x\nUSER root\n");
    d.ok(&["build", "-q", "-t", "child", &d.path("child")]);
    assert_eq!(d.ok(&["run", "--rm", "--entrypoint", "cat", "child", "/tmp/onbuild"]), "child");
}

#[test]
fn shell_forms() {
    let d = dhow();
    builds(&d, "FROM busybox\nENV NAME World\nENTRYPOINT echo Hello $NAME\nCMD ignored\n", &[]);
    assert_eq!(d.ok(&["run", "--rm", "x", "ignored too"]), "Hello World");
    assert_eq!(d.inspect("x", "{{json .Config.Entrypoint}}"), r#"["/bin/sh","-c","echo Hello $NAME"]"#);
    builds(&d, "FROM busybox\nCMD echo one \\\n  two\n", &[]);
    assert_eq!(d.ok(&["run", "--rm", "x"]), "one two");
}

#[test]
fn nothing_changed_is_cached() {
    let d = dhow();
    d.file("ctx/file", "1");
    let text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /uuid\nCOPY file /file\nRUN cat /proc/sys/kernel/random/uuid > /uuid2\n";
    builds(&d, text, &[]);
    let id = || d.inspect("x", "{{.Id}}");
    let show = || d.ok(&["run", "--rm", "x", "cat", "/uuid", "/uuid2"]);
    let (first, values) = (id(), show());
    builds(&d, text, &[]);
    assert_eq!(id(), first);
    d.file("ctx/file", "2");
    builds(&d, text, &[]);
    let after = show();
    assert_eq!(lines(&after)[0], lines(&values)[0], "before the change: cached");
    assert_ne!(lines(&after)[1], lines(&values)[1], "after it: run again");
    d.file("ctx/file", "1");
    builds(&d, text, &[]);
    assert_eq!(id(), first, "the old result is still known");
    builds(&d, text, &["--no-cache"]);
    assert_ne!(show(), values);
    builds(
        &d,
        "FROM busybox\nARG A\nRUN cat /proc/sys/kernel/random/uuid > /uuid; touch /uuid2\n",
        &["--build-arg", "A=1"],
    );
    let one = show();
    builds(
        &d,
        "FROM busybox\nARG A\nRUN cat /proc/sys/kernel/random/uuid > /uuid; touch /uuid2\n",
        &["--build-arg", "A=2"],
    );
    assert_ne!(show(), one, "another build argument is another key");
}

#[test]
fn copy_and_add_rules() {
    let d = dhow();
    for name in ["dir/a", "dir/sub/b", "one.txt", "two.txt", "skip.log", "dir/skip.log"] {
        d.file(&format!("ctx/{name}"), name);
    }
    d.file("ctx/.dockerignore", "**/*.log\n");
    let archive = Tar::of([Entry::dir("t/", 0o755), Entry::file("t/inner", 0o640, "inner").owned(5, 6)]);
    d.file("ctx/plain.tar", &archive);
    d.file("ctx/packed.tgz", dhow_testkit::image::gzip(&archive));
    builds(
        &d,
        "FROM busybox\nCOPY dir /whole\nCOPY *.txt /texts/\nCOPY one.txt /renamed\nADD plain.tar /un/\nADD packed.tgz /un2/\nCOPY plain.tar /kept.tar\nCOPY --chown=alice:www --chmod=640 one.txt /owned\nCOPY . /all/\n",
        &[],
    );
    let out = d.ok(&["run", "--rm", "x", "sh", "-c", "find /whole /texts /un /un2 -type f | sort"]);
    assert_eq!(
        lines(&out),
        ["/texts/one.txt", "/texts/two.txt", "/un/t/inner", "/un2/t/inner", "/whole/a", "/whole/sub/b"]
    );
    assert_eq!(d.ok(&["run", "--rm", "x", "cat", "/renamed", "/kept.tar"]).len(), "one.txt".len() + archive.len());
    let out = d.ok(&["run", "--rm", "x", "stat", "-c", "%a %u:%g", "/owned", "/whole/a", "/un/t/inner"]);
    assert_eq!(lines(&out), ["640 1000:33", "644 0:0", "640 5:6"]);
    assert_eq!(d.ok(&["run", "--rm", "x", "find", "/all", "-name", "*.log"]), "");
    refuses(&d, "FROM busybox\nCOPY one.txt two.txt /nodir\n", &[], &["/"]);
    refuses(&d, "FROM busybox\nCOPY missing.txt /x\n", &[], &["missing.txt", "line 2"]);
    refuses(&d, "FROM busybox\nADD skip.log /x\n", &[], &["skip.log"]);
    refuses(&d, "FROM busybox\nCOPY ../outside /x\n", &[], &["outside"]);
    refuses(&d, "FROM busybox\nCOPY --chown=nosuch one.txt /x\n", &[], &["nosuch"]);
}

#[test]
fn stages() {
    let d = dhow();
    let text = "FROM busybox AS make\nRUN echo made > /made\nFROM busybox AS unused\nRUN exit 1\nFROM scratch\nCOPY --from=make /made /bin/busybox /\nCOPY --from=busybox /etc/passwd /users\nCMD [\"/busybox\", \"cat\", \"/made\"]\n";
    builds(&d, text, &[]);
    assert_eq!(d.ok(&["run", "--rm", "x"]), "made");
    assert_eq!(
        d.ok(&["run", "--rm", "x", "/busybox", "ls", "/"])
            .lines()
            .filter(|l| ["made", "users", "busybox"].contains(l))
            .count(),
        3
    );
    builds(&d, text, &["--target", "make"]);
    assert_eq!(d.ok(&["run", "--rm", "x", "cat", "/made"]), "made");
}

#[test]
fn output_options() {
    let d = dhow();
    d.file("ctx/Dockerfile", "FROM busybox\nRUN true\n");
    d.file("ctx/other/File", "FROM busybox\nRUN echo other > /which\n");
    let context = d.path("ctx");
    let id = d.ok(&["build", "-q", "-t", "a:1", "-t", "b:2", &context]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!((d.inspect("a:1", "{{.Id}}"), d.inspect("b:2", "{{.Id}}")), (id.clone(), id.clone()));
    let file = d.path("iid");
    d.ok(&["build", "-q", "--iidfile", &file, &context]);
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), id);
    d.ok(&["build", "-q", "-t", "c1", "-f", &format!("{context}/other/File"), &context]);
    assert_eq!(d.ok(&["run", "--rm", "c1", "cat", "/which"]), "other");
    d.ok(&["build", "-q", "-t", "l", "--label", "k=v", &context]);
    assert_eq!(d.inspect("l", "{{.Config.Labels.k}}"), "v");
    let out = d.input(&["build", "-q", "-t", "piped", "-"], b"FROM busybox\nRUN echo piped > /which\n");
    assert_eq!(out.code, 0, "{out:?}");
    assert_eq!(d.ok(&["run", "--rm", "piped", "cat", "/which"]), "piped");
}

#[test]
fn mistakes_are_explained() {
    let d = dhow();
    refuses(&d, "FROM busybox\nRUNN echo\n", &[], &["unknown instruction: RUNN", "line 2", "RUN"]);
    refuses(&d, "FROM busybox\n\nCOYP a b\n", &[], &["unknown instruction: COYP", "line 3", "COPY"]);
    refuses(&d, "RUN echo\n", &[], &["FROM"]);
    refuses(&d, "", &[], &["empty"]);
    refuses(&d, "FROM busybox\nENV\n", &[], &["ENV"]);
    refuses(&d, "FROM\n", &[], &["FROM"]);
    refuses(&d, "FROM busybox\nEXPOSE notaport\n", &[], &["notaport"]);
    refuses(&d, "FROM busybox\nSTOPSIGNAL NOPE\n", &[], &["NOPE"]);
    refuses(&d, "FROM busybox\nONBUILD FROM x\n", &[], &["FROM"]);
    refuses(&d, "FROM no/such:image\n", &[], &["no/such:image"]);
    refuses(&d, "FROM Bad Name\n", &[], &["FROM"]);
    refuses(&d, "FROM busybox\nHEALTHCHECK --interval=x CMD true\n", &[], &["x"]);
    d.fails(&["build", &d.path("nowhere")], 1, &["nowhere"]);
    d.fails(&["build", "-f", &d.path("no-file"), &d.path("ctx")], 1, &["no-file"]);
}

#[test]
fn a_failing_run_names_the_step_and_code() {
    let d = dhow();
    refuses(&d, "FROM busybox\nRUN echo before; exit 42\n", &[], &["exit 42", "42", "before"]);
    refuses(&d, "FROM busybox\nRUN [\"/no/such/program\"]\n", &[], &["/no/such/program"]);
    assert_eq!(d.run(&["inspect", "x"]).code, 1, "no image was made");
}

#[test]
fn run_has_the_confinement_of_run() {
    let d = dhow();
    let text = "FROM busybox\nRUN grep -E '^(Cap|Seccomp)' /proc/self/status > /status; ls /proc/self/fd | wc -l >> /status; echo x > /proc/sys/kernel/core_pattern || echo denied >> /status\n";
    builds(&d, text, &[]);
    let built = d.ok(&["run", "--rm", "x", "cat", "/status"]);
    let run = d.ok(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "grep -E '^(Cap|Seccomp)' /proc/self/status; ls /proc/self/fd | wc -l; echo denied",
    ]);
    assert_eq!(built, run);
}

#[test]
fn layers_hold_only_what_changed() {
    let d = dhow();
    builds(&d, "FROM busybox\nRUN echo a > /a\nRUN rm /etc/notexec\nRUN true\n", &[]);
    let out = d.ok(&["history", "--format", "{{.Size}}", "--human=false", "x"]);
    assert_eq!(lines(&out)[..3], ["0", "0", "2"], "{out}");
    d.fails(&["run", "--rm", "x", "cat", "/etc/notexec"], 1, &["No such file"]);
    for name in ["resolv.conf", "hosts", "hostname"] {
        let out =
            d.run(&["run", "--rm", "--net", "none", "x", "sh", "-c", &format!("grep -c nameserver /etc/{name}; true")]);
        assert_eq!(out.code, 0, "{out:?}");
    }
}

#[test]
fn reproducible_with_an_epoch() {
    let digests: Vec<String> = (0..2)
        .map(|_| {
            let d = dhow();
            d.file("ctx/file", "same");
            d.file("ctx/Dockerfile", "FROM busybox\nCOPY file /file\nENV A=1\n");
            let mut command = d.command(&["build", "-q", "-t", "x", &d.path("ctx")]);
            command.env("SOURCE_DATE_EPOCH", "1700000000");
            let out = d.run_with(&mut command, b"");
            assert_eq!(out.code, 0, "{out:?}");
            out.stdout
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}
