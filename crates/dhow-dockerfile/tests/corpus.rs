//! Every `corpus/good/*.Dockerfile` has its expected instructions beside it (`.ast`), every `corpus/bad/*.Dockerfile` its
//! error (`.err`). `UPDATE_CORPUS=1 cargo test` rewrites the expectations; read the difference before committing it.

use dhow_dockerfile::{Command, CommandLine, Dockerfile, FileSources, Heredoc, Instruction};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn check(folder: &Path, extension: &str, render: impl Fn(&[u8]) -> String) {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "Dockerfile"))
        .collect();
    files.sort();
    assert!(files.len() >= 40, "the corpus in {} is missing", folder.display());
    let mut wrong = String::new();
    for file in files {
        let actual = render(&fs::read(&file).unwrap());
        let expectation = file.with_extension(extension);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::write(&expectation, &actual).unwrap();
        }
        let expected = fs::read_to_string(&expectation).unwrap_or_default();
        if actual != expected {
            let _ = writeln!(wrong, "== {}\n-- expected\n{expected}-- actual\n{actual}", file.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn corpus(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(part)
}

#[test]
fn trees() {
    check(&corpus("good"), "ast", |bytes| match Dockerfile::parse(bytes) {
        Ok(file) => render(&file),
        Err(e) => format!("error: {e}\n"),
    });
}

#[test]
fn errors() {
    check(&corpus("bad"), "err", |bytes| match Dockerfile::parse(bytes) {
        Ok(_) => "accepted\n".to_owned(),
        Err(e) => format!("{e}\nlines {}-{}: {}\n", e.line, e.end_line, e.text),
    });
}

fn render(file: &Dockerfile) -> String {
    let mut out = String::new();
    let d = &file.directives;
    let _ = writeln!(out, "directives escape={:?} syntax={:?} check={:?}", d.escape, d.syntax, d.check);
    for arg in &file.global_args {
        let _ = writeln!(out, "global ARG {} = {:?}", arg.name, arg.default);
    }
    for stage in &file.stages {
        let f = &stage.from;
        let _ = writeln!(out, "{}-{} FROM {:?}", stage.span.start, stage.span.end, f.image);
        if f.name.is_some() || f.platform.is_some() {
            let _ = writeln!(out, "    name={:?} platform={:?}", f.name, f.platform);
        }
        stage.instructions.iter().for_each(|i| render_instruction(&mut out, i));
    }
    for w in &file.warnings {
        let _ = writeln!(out, "warning {} {}: {}", w.line, w.rule, w.message);
    }
    out
}

fn line(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => format!("shell {text:?}"),
        CommandLine::Exec(argv) => format!("exec {argv:?}"),
    }
}

fn render_instruction(out: &mut String, i: &Instruction) {
    let _ = write!(out, "{}-{} {} ", i.span.start, i.span.end, i.command.name());
    let _ = match &i.command {
        Command::Run(run) => {
            let _ = write!(out, "{}", line(&run.command));
            if run.network != Default::default() || run.security.is_some() || !run.mounts.is_empty() {
                let _ = write!(out, " network={:?} security={:?} mounts={:?}", run.network, run.security, run.mounts);
            }
            if !run.devices.is_empty() {
                let _ = write!(out, " devices={:?}", run.devices);
            }
            let _ = writeln!(out);
            run.heredocs.iter().try_for_each(|d| render_heredoc(out, d))
        }
        Command::Cmd(c) | Command::Entrypoint(c) => writeln!(out, "{}", line(c)),
        Command::Label(pairs) | Command::Env(pairs) => {
            let shown: Vec<String> = pairs.iter().map(|p| format!("{:?}={:?}", p.key, p.value)).collect();
            writeln!(out, "{}", shown.join(" "))
        }
        Command::Expose(words) | Command::Volume(words) | Command::Shell(words) => writeln!(out, "{words:?}"),
        Command::Copy(copy) => {
            let _ = writeln!(out, "from={:?} parents={}", copy.from, copy.parents);
            render_files(out, &copy.files)
        }
        Command::Add(add) => {
            let _ = writeln!(out, "checksum={:?} unpack={:?} git={:?}", add.checksum, add.unpack, add.keep_git_dir);
            render_files(out, &add.files)
        }
        Command::User(t) | Command::Workdir(t) | Command::StopSignal(t) | Command::Maintainer(t) => {
            writeln!(out, "{t:?}")
        }
        Command::Arg(args) => {
            let shown: Vec<String> = args.iter().map(|a| format!("{}={:?}", a.name, a.default)).collect();
            writeln!(out, "{}", shown.join(" "))
        }
        Command::OnBuild(on) => writeln!(out, "{:?}", on.trigger),
        Command::Healthcheck(None) => writeln!(out, "none"),
        Command::Healthcheck(Some(h)) => writeln!(
            out,
            "{} interval={} timeout={} start={}/{} retries={}",
            line(&h.command),
            h.interval,
            h.timeout,
            h.start_period,
            h.start_interval,
            h.retries
        ),
        Command::From(_) => writeln!(out, "unexpected"),
    };
}

fn render_heredoc(out: &mut String, d: &Heredoc) -> std::fmt::Result {
    writeln!(out, "    heredoc {:?} expand={} chomp={} {:?}", d.name, d.expand, d.chomp, d.content)
}

fn render_files(out: &mut String, f: &FileSources) -> std::fmt::Result {
    writeln!(out, "    {:?} -> {:?}", f.paths, f.destination)?;
    for i in &f.inline {
        writeln!(out, "    inline {:?} expand={} {:?}", i.name, i.expand, i.content)?;
    }
    if f.chown.is_some() || f.chmod.is_some() || f.link || !f.exclude.is_empty() {
        writeln!(out, "    chown={:?} chmod={:?} link={} exclude={:?}", f.chown, f.chmod, f.link, f.exclude)?;
    }
    Ok(())
}
