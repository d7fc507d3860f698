use super::*;
use crate::ignore::IgnoreList;
use crate::inputs::BaseFacts;

/// Findings as `RULE line: message`.
fn findings_with(text: &str, args: &[(&str, &str)], ignore: &str, which: Stages) -> Vec<String> {
    let file = Dockerfile::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
    let build_args: Vec<(String, String)> = args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let list = IgnoreList::parse(ignore.as_bytes()).unwrap();
    let base = |_: usize, image: &str| {
        (image == "python").then(|| BaseFacts { env: vec!["PYTHON_VERSION=3".to_owned()], has_shell: true })
    };
    let ignore = (!ignore.is_empty()).then_some(&list);
    let inputs = Inputs { build_args: &build_args, target: None, platform: None, ignore, base: &base };
    let checked = check(&file, &inputs, which).unwrap();
    let shown = |f: &Finding| format!("{} {}: {}", f.rule.name, f.span.start, f.message);
    checked.findings.iter().map(shown).chain(checked.error.map(|e| format!("error: {e}"))).collect()
}

fn findings(text: &str) -> Vec<String> {
    findings_with(text, &[], "", Stages::Needed)
}

fn table(rows: &[(&str, &[&str])]) {
    for (text, expected) in rows {
        assert_eq!(findings(text), *expected, "{text}");
    }
}

#[test]
fn names_of_stages() {
    table(&[
        ("FROM scratch AS Base", &["StageNameCasing 1: Stage name 'Base' should be lowercase"]),
        ("FROM scratch as base", &["FromAsCasing 1: 'as' and 'FROM' keywords' casing do not match"]),
        ("from scratch AS base", &["FromAsCasing 1: 'AS' and 'from' keywords' casing do not match"]),
        ("from scratch as base", &[]),
        (
            "FROM scratch AS a\nFROM scratch AS A",
            &[
                "StageNameCasing 2: Stage name 'A' should be lowercase",
                "DuplicateStageName 2: Duplicate stage name \"a\", stage names should be unique",
            ],
        ),
        (
            "FROM scratch AS context",
            &["ReservedStageName 1: Stage name should not use the same name as reserved stage \"context\""],
        ),
        ("FROM scratch\nFROM scratch AS a", &[]),
    ]);
}

#[test]
fn ways_of_writing() {
    table(&[
        ("FROM scratch\nRUN a \\\n\n b", &["NoEmptyContinuation 4: Empty continuation line"]),
        (
            "FROM a\nrun x\nRUN y",
            &["ConsistentInstructionCasing 2: Command 'run' should match the case of the command majority (uppercase)"],
        ),
        (
            "from a\nrun x\nRun y",
            &["ConsistentInstructionCasing 3: Command 'Run' should match the case of the command majority (lowercase)"],
        ),
        // A draw is for upper case.
        (
            "FROM a\nrun x",
            &["ConsistentInstructionCasing 2: Command 'run' should match the case of the command majority (uppercase)"],
        ),
        (
            "FROM a\nMAINTAINER me",
            &["MaintainerDeprecated 2: Maintainer instruction is deprecated in favor of using label"],
        ),
        (
            "FROM a\nENV k v\nLABEL k v",
            &[
                "LegacyKeyValueFormat 2: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
                "LegacyKeyValueFormat 3: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
            ],
        ),
        (
            "FROM a\nCMD x\nENTRYPOINT y",
            &[
                "JSONArgsRecommended 2: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
                "JSONArgsRecommended 3: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
            ],
        ),
        ("FROM a AS b\nSHELL [\"/bin/bash\"]\nFROM b\nCMD x", &[]),
        ("FROM python\nCMD x", &[]),
    ]);
}

#[test]
fn descriptions_are_an_experiment() {
    let text = "# check=experimental=InvalidDefinitionDescription\n# bar is\nARG foo\n# base is\nFROM scratch AS base\n\
        # not this\n\nARG a\n# not this\n#\nARG b\n# x is\nARG c d\n# d is\nARG c d\n# y\nRUN z\n# y\nFROM base\n";
    assert_eq!(
        findings(text),
        [
            "InvalidDefinitionDescription 3: Comment for ARG should follow the format: `# foo <description>`",
            "InvalidDefinitionDescription 13: Comment for ARG should follow the format: `# <arg_key> <description>`",
        ]
    );
    assert_eq!(findings(text.split_once('\n').unwrap().1), Vec::<String>::new());
    let skipped = text.replacen("experimental", "skip=all;experimental", 1);
    assert_eq!(findings(&skipped).len(), 2, "skipping is for the others");
}

#[test]
fn variables_of_from_lines() {
    table(&[
        ("ARG base=a\nFROM $base", &[]),
        ("ARG DEBUG\nFROM scratch${DEBUG}", &[]),
        (
            "ARG MY_ARCH=amd64\nFROM a:1-$MYARCH",
            &[
                "InvalidDefaultArgInFrom 2: Default value for ARG a:1-$MYARCH results in empty or invalid base image name",
                "UndefinedArgInFrom 2: FROM argument 'MYARCH' is not declared (did you mean MY_ARCH?)",
            ][1..],
        ),
        ("FROM --platform=$BUILDPLATFORM a", &[]),
        (
            "FROM --platform=$BULIDPLATFORM a",
            &[
                "UndefinedArgInFrom 1: FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)",
                "error: invalid platform \"\": expected os/arch[/variant], for instance linux/amd64",
            ],
        ),
        (
            "FROM --platform=${TARGETPLATFORM} a",
            &[
                "RedundantTargetPlatform 1: Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior",
            ],
        ),
        (
            "FROM --platform=linux/amd64 a",
            &["FromPlatformFlagConstDisallowed 1: FROM --platform flag should not use constant value \"linux/amd64\""],
        ),
        ("FROM --platform=linux/amd64 a AS my_amd64", &[]),
        (
            "ARG V\nFROM a:$V",
            &["InvalidDefaultArgInFrom 2: Default value for ARG a:$V results in empty or invalid base image name"],
        ),
    ]);
    let text = "ARG IMAGE\nFROM $IMAGE";
    assert_eq!(
        findings_with(text, &[("IMAGE", "busybox")], "", Stages::Needed),
        ["InvalidDefaultArgInFrom 2: Default value for ARG $IMAGE results in empty or invalid base image name"]
    );
    assert_eq!(findings(text)[1], "error: base name ($IMAGE) should not be blank");
}

#[test]
fn variables_of_stages() {
    table(&[
        ("FROM a\nARG foo\nCOPY x$foo .", &[]),
        ("FROM a AS b\nARG foo=x\nFROM b\nCOPY $foo .", &[]),
        ("FROM a\nCOPY $foo .\nARG foo=x", &["UndefinedVar 2: Usage of undefined variable '$foo'"]),
        ("ARG foo=x\nFROM a\nCOPY $foo .", &["UndefinedVar 3: Usage of undefined variable '$foo'"]),
        (
            "FROM a\nARG DIR_ASSETS=x\nCOPY $DIR_ASSET .",
            &["UndefinedVar 3: Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)"],
        ),
        ("FROM a\nENV PATH=$PAHT:/x", &["UndefinedVar 2: Usage of undefined variable '$PAHT' (did you mean $PATH?)"]),
        ("FROM python\nARG V=$PYTHON_VERSION", &[]),
        ("FROM a\nARG V=$foo", &["UndefinedVar 2: Usage of undefined variable '$foo'"]),
        ("FROM a\nRUN echo $foo\nCMD [\"$foo\"]\nUSER ${foo:-1}", &[]),
        ("FROM a\nRUN --mount=type=cache,target=$foo x", &["UndefinedVar 2: Usage of undefined variable '$foo'"]),
        ("FROM a\nCOPY <<E /x\n$foo\nE", &["UndefinedVar 2: Usage of undefined variable '$foo'"]),
        ("FROM a\nCOPY <<'E' /x\n$foo\nE", &[]),
        ("FROM a\nLABEL $foo=$foo", &["UndefinedVar 2: Usage of undefined variable '$foo'"]),
        ("FROM a\nENV a=1 b=$a", &["UndefinedVar 2: Usage of undefined variable '$a'"]),
    ]);
}

#[test]
fn only_what_is_built_unless_all_is_asked_for() {
    let text = "FROM scratch AS a\nCOPY $foo .\nFROM scratch\nCOPY $bar .";
    assert_eq!(findings(text), ["UndefinedVar 4: Usage of undefined variable '$bar'"]);
    assert_eq!(findings_with(text, &[], "", Stages::All).len(), 2);
    assert_eq!(findings(&format!("{text}\nCOPY --from=a x /x")).len(), 2);
    assert_eq!(findings(&format!("{text}\nRUN --mount=from=0,target=/x y")).len(), 2);
}

#[test]
fn secrets() {
    let text = "FROM a\nARG SECRET_X\nENV SUPER_Secret=1 password=2 sunflower=3\nARG public_token\nENV password_file=x\n\
        ARG AUTH_MODULE_VERSION\nENV keyboard=x monkey=y\nARG DB_PASSWORD=x";
    assert_eq!(
        findings(text),
        [
            "SecretsUsedInArgOrEnv 2: Do not use ARG or ENV instructions for sensitive data (ARG \"SECRET_X\")",
            "SecretsUsedInArgOrEnv 3: Do not use ARG or ENV instructions for sensitive data (ENV \"SUPER_Secret\")",
            "SecretsUsedInArgOrEnv 3: Do not use ARG or ENV instructions for sensitive data (ENV \"password\")",
            "SecretsUsedInArgOrEnv 8: Do not use ARG or ENV instructions for sensitive data (ARG \"DB_PASSWORD\")",
        ]
    );
}

#[test]
fn instructions_of_a_stage() {
    table(&[
        (
            "FROM a\nWORKDIR app/",
            &["WorkdirRelativePath 2: Relative workdir \"app/\" can have unexpected results if the base image changes"],
        ),
        ("FROM a AS b\nWORKDIR /app\nFROM b\nWORKDIR sub", &[]),
        (
            "FROM a\nENTRYPOINT [\"a\"]\nHEALTHCHECK CMD x\nENTRYPOINT [\"b\"]\nHEALTHCHECK NONE",
            &[
                "MultipleInstructionsDisallowed 2: Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used",
                "MultipleInstructionsDisallowed 3: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used",
            ],
        ),
        ("FROM a AS b\nCMD [\"a\"]\nFROM b\nCMD [\"b\"]", &[]),
        (
            "FROM a\nEXPOSE 80/TcP 8080/udp",
            &["ExposeProtoCasing 2: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase"],
        ),
        (
            "FROM a\nENV P=5000:5000\nEXPOSE 127.0.0.1:80:80 [::1]:8080:8080 $P 8000 9-10",
            &[
                "ExposeInvalidFormat 3: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
                "ExposeInvalidFormat 3: EXPOSE instruction should not define an IP address or host-port mapping, found '[::1]:8080:8080'",
                "ExposeInvalidFormat 3: EXPOSE instruction should not define an IP address or host-port mapping, found '5000:5000'",
            ],
        ),
    ]);
}

#[test]
fn files_that_are_ignored() {
    let ignored = |text: &str, list: &str| findings_with(&format!("FROM a\n{text}"), &[], list, Stages::Needed);
    let one = |verb: &str, file: &str| {
        vec![format!("CopyIgnoredFile 2: Attempting to {verb} file \"{file}\" that is excluded by .dockerignore")]
    };
    assert_eq!(ignored("COPY Dockerfile .", "Dockerfile\n"), one("Copy", "Dockerfile"));
    assert_eq!(ignored("ADD /a/b /x", "a\n"), one("Add", "a/b"));
    assert_eq!(ignored("COPY . .", "*\n"), one("Copy", "."));
    for (text, list) in [
        ("COPY . .", ".*\n"),
        ("COPY x .", "**\n!x\n"),
        ("COPY --from=b Dockerfile .", "Dockerfile\n"),
        ("ADD https://example.com/a /x", "https*\n"),
        ("COPY x .", "y\n"),
    ] {
        assert_eq!(ignored(text, list), Vec::<String>::new(), "{text}");
    }
    assert_eq!(ignored("COPY x .", ""), Vec::<String>::new());
}

#[test]
fn options_choose() {
    let text = "FROM scratch as base\ncopy a b\n";
    let with = |directive: &str, args: &[(&str, &str)]| {
        findings_with(&format!("# check={directive}\n{text}"), args, "", Stages::Needed).len()
    };
    assert_eq!(with("error=false", &[]), 2);
    assert_eq!(with("skip=all", &[]), 0);
    assert_eq!(with("skip=FromAsCasing", &[]), 1);
    assert_eq!(with("skip=all", &[(CHECK_ARG, "skip=FromAsCasing;error=true")]), 1);
    assert_eq!(with("error=true", &[(CHECK_ARG, "skip=all")]), 0);
    // For one instruction.
    table(&[
        ("FROM a\n# check=skip=JSONArgsRecommended // it is a script\nCMD x", &[]),
        ("FROM a\n# check=skip=all\nENV password=x", &[]),
        ("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER me", &[]),
        ("\n# check=skip=RedundantTargetPlatform\nFROM --platform=$TARGETPLATFORM a", &[]),
    ]);
    assert_eq!(findings("FROM a\n# check=skip=UndefinedVar\nENV password=x").len(), 1);
}

#[test]
fn strict_files_fail() {
    let file = Dockerfile::parse(b"# check=error=true\nFROM scratch as Base\n").unwrap();
    let inputs = Inputs { build_args: &[], target: None, platform: None, ignore: None, base: &|_, _| None };
    let checked = check(&file, &inputs, Stages::Needed).unwrap();
    let violation = "lint violation found for rules: FromAsCasing, StageNameCasing";
    assert_eq!(checked.violation().as_deref(), Some(violation));
    let file = Dockerfile::parse(b"# check=error=true\nFROM scratch\n").unwrap();
    assert_eq!(check(&file, &inputs, Stages::Needed).unwrap().violation(), None);
    let file = Dockerfile::parse(b"# check=nonsense\nFROM scratch\n").unwrap();
    assert!(check(&file, &inputs, Stages::Needed).is_err());
}

#[test]
fn every_rule_has_a_page() {
    for rule in RULES {
        let kebab: String = rule.url.trim_end_matches('/').rsplit('/').next().unwrap().split('-').collect();
        assert_eq!(kebab, rule.name.to_lowercase());
    }
    assert_eq!(RULES.len(), 21);
}

#[test]
fn warnings_and_a_prefix() {
    let file = Dockerfile::parse(b"FROM a AS Up\nENV k v\nFROM b\nMAINTAINER x\n").unwrap();
    let rules: Vec<&str> = file.warnings.iter().map(|w| w.rule).collect();
    assert_eq!(rules, ["StageNameCasing", "LegacyKeyValueFormat", "MaintainerDeprecated"]);
    let (file, error) = Dockerfile::parse_prefix(b"FROM a AS Up\nMAINTAINER x\nBAD\nMAINTAINER y");
    assert_eq!(error.unwrap().line, 3);
    assert_eq!(check_written(&file, &[]).unwrap().findings.len(), 2);
}

#[test]
fn hostile_files_stay_cheap() {
    let mut text = "FROM a\nENV A0=xxxxxxxx\n".to_owned();
    for i in 1..60 {
        text.push_str(&format!("ENV A{i}=$A{}$A{}\n", i - 1, i - 1));
    }
    assert_eq!(findings(&text), Vec::<String>::new());
    let many: String = (0..5000).map(|i| format!("COPY $undefined_{i} /\n")).collect();
    assert_eq!(findings(&format!("FROM a\n{many}")).len(), 1000);
    // Long comments, many findings that one of them skips, and many names that are nearly right.
    let comments: String = (0..20_000).map(|i| format!("# check {i}\n")).collect();
    let ports: String = (0..20_000).map(|_| " 1/TCP").collect();
    assert_eq!(findings(&format!("FROM a\n{comments}# check=skip=all\nEXPOSE{ports}")), Vec::<String>::new());
    let near: String = (1000..9000).map(|i| format!("ARG N{i}\n")).collect();
    let used: String = (1000..9000).map(|i| format!("USER $M{i}\n")).collect();
    assert_eq!(findings(&format!("FROM a\n{near}{used}")).len(), 1000);
}
