use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn only(line: &str) -> Command {
    parse(&format!("FROM a\n{line}")).stages.remove(0).instructions.remove(0).command
}

fn error(text: &str) -> String {
    Dockerfile::parse(text.as_bytes()).map(|_| ()).expect_err(text).to_string()
}

fn shell(text: &str) -> CommandLine {
    CommandLine::Shell(text.to_owned())
}

#[test]
fn stages_and_global_arguments() {
    let f = parse("ARG A=1 B\nfrom --platform=$P img:$A as Build\nRUN x\nFROM build\n");
    assert_eq!(f.global_args.len(), 2);
    assert_eq!(f.stages[0].from.name.as_deref(), Some("build"));
    assert_eq!(f.stages[0].from.platform.as_deref(), Some("$P"));
    assert_eq!(f.stages[1].from.image, "build");
    assert_eq!(f.warnings[0].rule, "StageNameCasing");
}

#[test]
fn forms() {
    assert_eq!(only(r#"RUN ["a", "b c"]"#), only("RUN [\"a\",\t\"b c\"] "));
    assert_eq!(only("CMD ['a']"), Command::Cmd(shell("['a']")));
    assert_eq!(only("CMD []"), Command::Cmd(CommandLine::Exec(vec![])));
    assert_eq!(only("entrypoint a  b"), Command::Entrypoint(shell("a  b")));
    assert_eq!(only("VOLUME /a /b"), only(r#"VOLUME ["/a", "/b"]"#));
    assert_eq!(only("EXPOSE 80 443/udp"), Command::Expose(vec!["80".into(), "443/udp".into()]));
    assert_eq!(only("USER a b"), Command::User("a b".into()));
}

#[test]
fn key_value_forms() {
    let Command::Env(pairs) = only(r#"ENV a=1 b="x y" c=d\ e"#) else { panic!() };
    let values: Vec<&str> = pairs.iter().map(|p| p.value.as_str()).collect();
    assert_eq!(values, ["1", "\"x y\"", "d\\ e"]);
    let Command::Label(pairs) = only("LABEL a  b=c d") else { panic!() };
    assert_eq!((pairs[0].key.as_str(), pairs[0].value.as_str(), pairs[0].legacy), ("a", "b=c d", true));
}

#[test]
fn run_flags() {
    let Command::Run(run) = only("RUN --network=none --mount=type=cache,target=/x --mount=type=tmpfs,target=/y make")
    else {
        panic!()
    };
    assert_eq!((run.network, run.mounts.len()), (RunNetwork::None, 2));
    assert_eq!(run.command, shell("make"));
}

#[test]
fn heredocs_of_run_and_copy() {
    let Command::Run(run) = only("RUN <<EOF\nset -e\nEOF") else { panic!() };
    assert_eq!(run.heredocs[0].content, "set -e\n");
    let Command::Copy(copy) = only("COPY a <<x <<'y' /dst/\n1\nx\n2\ny") else { panic!() };
    assert_eq!(copy.files.paths, ["a"]);
    assert_eq!(
        copy.files.inline.iter().map(|i| (i.name.as_str(), i.expand)).collect::<Vec<_>>(),
        [("x", true), ("y", false)]
    );
    let Command::OnBuild(on) = only("ONBUILD RUN <<E\nx\nE") else { panic!() };
    assert_eq!(on.trigger, "RUN <<E\nx\nE");
    assert!(matches!(parse_trigger(&on.trigger).unwrap().command, Command::Run(_)));
}

#[test]
fn healthchecks() {
    let Command::Healthcheck(Some(probe)) = only("HEALTHCHECK --interval=1m --retries=2 CMD curl x") else { panic!() };
    assert_eq!((probe.interval, probe.retries), (60_000_000_000, 2));
    assert_eq!(only("HEALTHCHECK none"), Command::Healthcheck(None));
}

#[test]
fn errors_name_the_line_and_the_way_out() {
    let p = "dockerfile parse error on line";
    for (text, expected) in [
        ("FROM a\n\nRUNN x", format!("{p} 3: unknown instruction: RUNN (did you mean RUN?)")),
        ("FROM a\nfrobnicate", format!("{p} 2: unknown instruction: frobnicate")),
        ("RUN x", format!("{p} 1: no build stage in current context")),
        ("ARG a", format!("{p} 1: dockerfile contains no stages to build")),
        ("", format!("{p} 1: file with no instructions (it is empty, or has comments only)")),
        ("FROM", format!("{p} 1: FROM requires either one or three arguments")),
        ("FROM a b", format!("{p} 1: FROM requires either one or three arguments")),
        (
            "FROM a AS 1x",
            format!("{p} 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols"),
        ),
        ("FROM a\nCOPY --form=x a b", format!("{p} 2: unknown flag: --form (did you mean --from?)")),
        ("FROM a\nCOPY --from=x --from=y a b", format!("{p} 2: duplicate flag specified: --from")),
        ("FROM a\nCOPY --from a b", format!("{p} 2: missing a value on flag: --from")),
        ("FROM a\nCOPY --link=maybe a b", format!("{p} 2: expecting boolean value for flag --link, not: maybe")),
        (
            "FROM a\nRUN --network=bridge x",
            format!("{p} 2: invalid value \"bridge\" for flag --network: expected default, none or host"),
        ),
        ("FROM a\nSHELL /bin/sh", format!("{p} 2: SHELL requires the arguments to be in JSON form")),
        (
            "FROM a\nCMD [\"a\", 1]",
            format!("{p} 2: when using JSON array syntax, arrays must be comprised of strings only"),
        ),
        ("FROM a\nENV x", format!("{p} 2: ENV must have two arguments")),
        ("FROM a\nENV", format!("{p} 2: ENV requires at least one argument")),
        ("FROM a\nENV a=b c", format!("{p} 2: Syntax error - can't find = in \"c\". Must be of the form: name=value")),
        ("FROM a\nENV =b", format!("{p} 2: ENV names can not be blank")),
        ("FROM a\nONBUILD ONBUILD RUN x", format!("{p} 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        ("FROM a\nONBUILD FROM x", format!("{p} 2: FROM isn't allowed as an ONBUILD trigger")),
        ("FROM a\nHEALTHCHECK x", format!("{p} 2: Unknown type \"x\" in HEALTHCHECK (try CMD)")),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", format!("{p} 2: Interval \"interval\" cannot be less than 1ms")),
        ("FROM a\nCOPY x <<E\nE\n", format!("{p} 2: COPY cannot accept a heredoc as a destination")),
        (
            "FROM a\nADD x",
            format!(
                "{p} 2: ADD requires at least two arguments, but only one was provided. Destination could not be determined"
            ),
        ),
        ("FROM a\nRUN \\\n  <<E\nx\n", format!("{p} 2: unterminated heredoc (no line with \"E\" alone follows)")),
    ] {
        assert_eq!(error(text), expected, "{text:?}");
    }
}

#[test]
fn triggers_are_single_instructions() {
    assert!(parse_trigger("RUN x").is_ok());
    assert!(parse_trigger("RUN x\nRUN y").is_err());
    assert!(parse_trigger("FROM x").is_err());
    assert!(parse_trigger("").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Dockerfile::parse(&bytes);
    }

    #[test]
    fn never_panics_on_plausible_text(
        lines in prop::collection::vec("(FROM|RUN|COPY|ENV|ONBUILD|HEALTHCHECK|ADD|ARG|# escape=`|) ?[-a=\\[\"\\]<E'`\\\\ $é]{0,12}", 0..8)
    ) {
        let _ = Dockerfile::parse(lines.join("\n").as_bytes());
    }

    #[test]
    fn continuation_does_not_change_the_meaning(words in prop::collection::vec("[a-z0-9]{1,6}", 1..8)) {
        let one = only(&format!("RUN {}", words.join(" ")));
        let many = only(&format!("RUN {}", words.join(" \\\n# comment\n")));
        prop_assert_eq!(one, many);
    }

    #[test]
    fn spans_lie_in_the_file_and_in_order(words in prop::collection::vec("[a-z]{1,3}( \\\\\n[a-z]{1,3}){0,2}", 1..6)) {
        let text = format!("FROM a\n{}", words.iter().map(|w| format!("RUN {w}\n")).collect::<String>());
        let file = parse(&text);
        let mut last = 1;
        for i in &file.stages[0].instructions {
            prop_assert!(i.span.start == last + 1 && i.span.end >= i.span.start);
            last = i.span.end;
        }
        prop_assert_eq!(last as usize, text.lines().count());
    }
}
