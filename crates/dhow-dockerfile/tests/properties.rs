//! What must hold for any input: printing a parsed file and parsing it again changes nothing, expansion leaves plain text
//! alone, and ignore lists match as a naive reading of their definition does.

use dhow_dockerfile::checks::{self, Stages};
use dhow_dockerfile::{
    CacheSharing, Command, CommandLine, Dockerfile, Expander, FileSources, From, Heredoc, IgnoreList, Inputs, KeyValue,
    MountKind, RunMount, RunNetwork, outline, targets,
};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// A file in one way of writing it.
fn print(file: &Dockerfile) -> String {
    let mut out = String::new();
    let d = &file.directives;
    out.push_str(&format!("# escape={}\n", d.escape));
    out.extend(d.syntax.iter().map(|s| format!("# syntax={s}\n")));
    out.extend(d.check.iter().map(|s| format!("# check={s}\n")));
    for instruction in &file.header {
        out.push_str(&command(&instruction.command, d.escape));
    }
    for stage in &file.stages {
        out.push_str(&command(&Command::From(stage.from.clone()), d.escape));
        out.extend(stage.instructions.iter().map(|i| command(&i.command, d.escape)));
    }
    out
}

/// A flag whose value may hold anything.
fn flag(name: &str, value: &str, escape: char) -> String {
    let mut out = format!("--{name}=");
    for c in value.chars() {
        if c.is_whitespace() || c == escape || c == '\'' || c == '"' {
            out.push(escape);
        }
        out.push(c);
    }
    out.push(' ');
    out
}

fn option(name: &str, value: Option<&String>, escape: char) -> String {
    value.map(|v| flag(name, v, escape)).unwrap_or_default()
}

fn json(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| serde_json::to_string(w).unwrap()).collect();
    format!("[{}]", quoted.join(", "))
}

fn line(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => text.clone(),
        CommandLine::Exec(argv) => json(argv),
    }
}

fn pairs(list: &[KeyValue]) -> String {
    let one = |p: &KeyValue| if p.legacy { format!("{} {}", p.key, p.value) } else { format!("{}={}", p.key, p.value) };
    list.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn mount(m: &RunMount) -> String {
    let kind = match m.kind {
        MountKind::Bind => "bind",
        MountKind::Cache => "cache",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Secret => "secret",
        MountKind::Ssh => "ssh",
    };
    let mut fields = vec![format!("type={kind}"), format!("ro={}", m.read_only)];
    let texts = [
        ("from", &m.from),
        ("source", &m.source),
        ("target", &m.target),
        ("id", &m.id),
        ("mode", &m.mode),
        ("uid", &m.uid),
        ("gid", &m.gid),
        ("size", &m.size),
        ("env", &m.env),
    ];
    for (key, value) in texts {
        fields.extend(value.as_ref().map(|v| format!("\"{key}={}\"", v.replace('"', "\"\""))));
    }
    match m.sharing {
        CacheSharing::Shared => {}
        CacheSharing::Private => fields.push("sharing=private".to_owned()),
        CacheSharing::Locked => fields.push("sharing=locked".to_owned()),
    }
    if m.required {
        fields.push("required".to_owned());
    }
    fields.join(",")
}

fn bodies(docs: &[Heredoc]) -> String {
    docs.iter().map(|d| format!("{}{}\n", d.content, d.name)).collect()
}

fn files(f: &FileSources, flags: &str, escape: char) -> String {
    let mut out = flags.to_owned();
    out.push_str(&option("chown", f.chown.as_ref(), escape));
    out.push_str(&option("chmod", f.chmod.as_ref(), escape));
    out.push_str(if f.link { "--link " } else { "" });
    out.extend(f.exclude.iter().map(|e| flag("exclude", e, escape)));
    // A path may begin like a flag.
    out.push_str("-- ");
    if f.inline.is_empty() {
        let words: Vec<String> = f.paths.iter().chain([&f.destination]).cloned().collect();
        return out + &json(&words);
    }
    out.extend(f.paths.iter().map(|p| format!("{p} ")));
    out.extend(f.inline.iter().map(|i| {
        let quote = if i.expand { "" } else { "'" };
        format!("<<{quote}{}{quote} ", i.name)
    }));
    out.push_str(&f.destination);
    for i in &f.inline {
        out.push_str(&format!("\n{}{}", i.content, i.name));
    }
    out
}

fn command(command: &Command, escape: char) -> String {
    let args = match command {
        Command::From(From { image, platform, name }) => {
            let name = name.as_ref().map(|n| format!(" AS {n}")).unwrap_or_default();
            format!("{}{image}{name}", option("platform", platform.as_ref(), escape))
        }
        Command::Run(run) => {
            let mut out = String::new();
            out.extend(run.mounts.iter().map(|m| flag("mount", &mount(m), escape)));
            out.push_str(match run.network {
                RunNetwork::Default => "",
                RunNetwork::None => "--network=none ",
                RunNetwork::Host => "--network=host ",
            });
            out.push_str(&option("security", run.security.as_ref(), escape));
            out.extend(run.devices.iter().map(|d| flag("device", d, escape)));
            return format!("RUN {out}-- {}\n{}", line(&run.command), bodies(&run.heredocs));
        }
        Command::Cmd(c) | Command::Entrypoint(c) => line(c),
        Command::Label(list) | Command::Env(list) => pairs(list),
        Command::Expose(words) => words.join(" "),
        Command::Volume(words) | Command::Shell(words) => json(words),
        Command::Copy(copy) => {
            let from = option("from", copy.from.as_ref(), escape);
            files(&copy.files, &format!("{from}--parents={} ", copy.parents), escape)
        }
        Command::Add(add) => {
            let mut flags = option("checksum", add.checksum.as_ref(), escape);
            flags.extend(add.keep_git_dir.map(|b| format!("--keep-git-dir={b} ")));
            flags.extend(add.unpack.map(|b| format!("--unpack={b} ")));
            files(&add.files, &flags, escape)
        }
        Command::User(t) | Command::Workdir(t) | Command::StopSignal(t) | Command::Maintainer(t) => t.clone(),
        Command::Arg(args) => {
            let one = |a: &dhow_dockerfile::ArgDecl| match &a.default {
                Some(default) => format!("{}={default}", a.name),
                None => a.name.clone(),
            };
            args.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        Command::OnBuild(on) => on.trigger.clone(),
        Command::Healthcheck(None) => "NONE".to_owned(),
        Command::Healthcheck(Some(h)) => format!(
            "--interval={}ns --timeout={}ns --start-period={}ns --start-interval={}ns --retries={} CMD {}",
            h.interval,
            h.timeout,
            h.start_period,
            h.start_interval,
            h.retries,
            line(&h.command)
        ),
    };
    format!("{} {args}\n", command.name())
}

/// What a file says, without where and how.
fn meaning(file: &Dockerfile) -> (Vec<Command>, Vec<(From, Vec<Command>)>) {
    let commands = |list: &[dhow_dockerfile::Instruction]| list.iter().map(|i| i.command.clone()).collect();
    let stages = file.stages.iter().map(|s| (s.from.clone(), commands(&s.instructions))).collect();
    (commands(&file.header), stages)
}

fn survives_printing(file: &Dockerfile) {
    let printed = print(file);
    let again = Dockerfile::parse(printed.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{printed}"));
    assert_eq!(meaning(&again), meaning(file), "{printed}");
    assert_eq!(again.directives, file.directives);
}

#[test]
fn the_corpus_survives_printing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/good");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "Dockerfile") {
            survives_printing(&Dockerfile::parse(&fs::read(&path).unwrap()).unwrap());
        }
    }
}

/// One element of a path or pattern, compared by brute force.
fn naive_pattern(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', '*', rest @ ..] => {
            let rest = rest.strip_prefix(&['/'][..]).unwrap_or(rest);
            // At the end `**` is anything, elsewhere nothing or anything that ends in a slash.
            rest.is_empty()
                || naive_pattern(rest, text)
                || (0..text.len()).any(|i| text[i] == '/' && naive_pattern(rest, &text[i + 1..]))
        }
        ['*', rest @ ..] => {
            (0..=text.len()).take_while(|n| !text[..*n].contains(&'/')).any(|n| naive_pattern(rest, &text[n..]))
        }
        ['?', rest @ ..] => text.first().is_some_and(|c| *c != '/') && naive_pattern(rest, &text[1..]),
        ['[', lo, '-', hi, ']', rest @ ..] => {
            text.first().is_some_and(|c| (lo..=hi).contains(&c)) && naive_pattern(rest, &text[1..])
        }
        ['\\', c, rest @ ..] | [c, rest @ ..] => text.first() == Some(c) && naive_pattern(rest, &text[1..]),
    }
}

/// Rules in order; what matched a directory matches what is below it, unless it was not asked.
fn naive_list(rules: &[(bool, String)], path: &str) -> bool {
    let mut above = vec![false; rules.len()];
    let mut excluded = false;
    let names: Vec<&str> = path.split('/').collect();
    for depth in 1..=names.len() {
        let text: Vec<char> = names[..depth].join("/").chars().collect();
        excluded = false;
        for (hit, (negated, pattern)) in above.iter_mut().zip(rules) {
            let pattern: Vec<char> = pattern.chars().collect();
            *hit = *hit || (*negated == excluded && naive_pattern(&pattern, &text));
            if *hit {
                excluded = !negated;
            }
        }
    }
    excluded
}

fn rule() -> impl Strategy<Value = (bool, String)> {
    let element = "(\\*\\*|[ab]|\\*|[ab]?\\*[ab]?|\\?|[a-b]\\?|\\[a-b\\][ab]?|\\\\[ab*])";
    (any::<bool>(), prop::collection::vec(element, 1..4)).prop_map(|(negated, parts)| (negated, parts.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn ignore_lists_match_as_they_are_defined(
        rules in prop::collection::vec(rule(), 0..5),
        path in "[ab*]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let text: String = rules.iter().map(|(n, p)| format!("{}{p}\n", if *n { "!" } else { "" })).collect();
        let list = IgnoreList::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(list.excludes(&path), naive_list(&rules, &path), "{:?} {}", text, path);
    }

    #[test]
    fn plain_text_is_its_own_expansion(text in "[^$'\"\\\\]{0,60}") {
        let nothing = |_: &str| None;
        let e = Expander::new('\\', &nothing).expand(&text).unwrap();
        prop_assert_eq!(&e.text, &text);
        prop_assert!(e.unset.is_empty() && e.used.is_empty());
    }

    #[test]
    fn words_are_the_text_without_blanks(text in "[a-z \t]{0,40}") {
        let nothing = |_: &str| None;
        let e = Expander::new('\\', &nothing).expand(&text).unwrap();
        prop_assert_eq!(e.words, text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    }

    #[test]
    fn printing_and_parsing_are_inverse(
        escape in "[\\\\`]",
        lines in prop::collection::vec(
            "(FROM (--platform=[a-z$]{1,4} )?[a-z$:]{1,6}( AS [a-z][a-z0-9]{0,3})?\
            |RUN (--mount=type=cache,target=/[a-z]{1,3} |--network=none )?[a-z\"'$ &|\\[\\]#]{1,12}\
            |RUN \\[\"[a-z ]{1,4}\"(, \"[^\"\\\\\n\r]{0,4}\")?\\]\
            |COPY (--link |--exclude=[a-z*]{1,3} |--chown=[a-z:]{1,4} )?[a-z./*]{1,5} [a-z/]{1,5}\
            |ADD (--unpack=false )?[a-z]{1,5} [a-z/]{1,5}\
            |(ENV|LABEL) [a-z]{1,3}=[a-z$]{0,4}( [a-z]{1,3}=\"[a-z $]{0,5}\")?\
            |(ENV|LABEL) [a-z]{1,3} [a-z =$]{1,6}x\
            |ARG [A-Z]{1,3}(=[a-z${}:-]{0,5})?\
            |(EXPOSE|VOLUME) [a-z0-9/]{1,5}( [a-z0-9]{1,3})?\
            |(USER|WORKDIR|STOPSIGNAL|MAINTAINER) [a-z:$/]{1,6}\
            |HEALTHCHECK (--interval=[1-9]s )?CMD [a-z|& ]{1,5}x\
            |ONBUILD RUN [a-z ]{1,5}x\
            |COPY <<E /[a-z]{1,3}\n[a-z$#\n]{0,6}\nE\
            |RUN <<-'E' [a-z]{0,4}\n\t[a-z]{0,4}\n\tE\
            |# [a-z ]{0,6}\
            |)",
            0..8,
        ),
    ) {
        let text = format!("# escape={escape}\nFROM start\n{}\n", lines.join("\n"));
        let (file, error) = Dockerfile::parse_prefix(text.as_bytes());
        // What stands before an error is a file, too.
        prop_assume!(!file.stages.is_empty());
        survives_printing(&file);
        prop_assert_eq!(Dockerfile::parse(text.as_bytes()).err(), error);
        let inputs = Inputs { build_args: &[], target: None, platform: None, ignore: None, base: &|_, _| None };
        let lines = u32::try_from(text.lines().count()).unwrap();
        let checked = checks::check(&file, &inputs, Stages::All).unwrap();
        prop_assert!(checked.findings.iter().all(|f| (1..=lines).contains(&f.span.start)));
        prop_assert_eq!(targets(&file).len(), file.stages.len());
        let _ = outline(&file, &inputs);
    }
}
