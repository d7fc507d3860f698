//! Builds against a backend in memory and a temporary directory. Tests that change file systems need root, because the
//! files they make belong to it.

use super::*;
use crate::backend::{BackendError, BaseImage, Edited, MountSource, RunOutcome, RunStep, Work};
use crate::context::FileStat;
use dhow_oci::image::{ExecConfig, ImageConfig};
use dhow_types::{ErrorKind, Platform};
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A backend whose layers are whole snapshots: the merged root of a list is the snapshot of its last layer.
#[derive(Default)]
struct Fake {
    dir: Option<tempfile::TempDir>,
    images: RefCell<HashMap<String, ImageConfig>>,
    snapshots: RefCell<HashMap<Digest, PathBuf>>,
    cache: RefCell<HashMap<Digest, CachedStep>>,
    contents: RefCell<HashMap<FileStat, Digest>>,
    runs: RefCell<Vec<RunStep>>,
    /// The secret named `key`.
    secret: RefCell<String>,
    records: RefCell<HashMap<Digest, Vec<u8>>>,
    /// Scratch directories.
    scratches: RefCell<Vec<PathBuf>>,
    /// Commands that wait for each other.
    waiting: Cell<usize>,
    /// What scratch directories showed to commands.
    mounted: RefCell<Vec<Vec<String>>>,
    edits: Cell<usize>,
    hashed: Cell<usize>,
    stored: RefCell<Option<ImageConfig>>,
    clock: Cell<i64>,
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), &target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
        if !kind.is_symlink() {
            let meta = entry.metadata().unwrap();
            fs::set_permissions(&target, meta.permissions()).unwrap();
            std::os::unix::fs::chown(&target, Some(meta.uid()), Some(meta.gid())).unwrap();
        }
    }
}

fn listing(root: &Path, at: &Path, out: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(at).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let meta = fs::symlink_metadata(&path).unwrap();
        let shown = path.strip_prefix(root).unwrap().display();
        let detail = if meta.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if meta.is_file() {
            format!("{:?}", fs::read_to_string(&path).unwrap())
        } else {
            "/".to_owned()
        };
        let mode = meta.permissions().mode() & 0o7777;
        out.push(format!("{shown} {mode:o} {}:{} {detail}", meta.uid(), meta.gid()));
        if meta.is_dir() {
            listing(root, &path, out);
        }
    }
}

impl Fake {
    fn new() -> Self {
        let fake = Self { dir: Some(tempfile::tempdir().unwrap()), ..Self::default() };
        fake.image("base", ExecConfig { env: vec!["PATH=/bin".to_owned()], ..ExecConfig::default() });
        fake
    }

    fn image(&self, name: &str, config: ExecConfig) {
        let mut image = ImageConfig::scratch(&Platform::host());
        image.config = config;
        image.rootfs.diff_ids = vec![Digest::of(name.as_bytes())];
        self.images.borrow_mut().insert(name.to_owned(), image);
    }

    /// A new writable copy of the merged root.
    fn snapshot(&self, layers: &[Digest]) -> PathBuf {
        let number = self.edits.get() + self.runs.borrow().len() + self.snapshots.borrow().len();
        let path = self.dir.as_ref().unwrap().path().join(format!("s{number}-{}", layers.len()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        if let Some(snapshot) = layers.last().and_then(|l| self.snapshots.borrow().get(l).cloned()) {
            copy_tree(&snapshot, &path);
        }
        path
    }

    fn tree(&self, layers: &[Digest]) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(snapshot) = layers.last().and_then(|l| self.snapshots.borrow().get(l).cloned()) {
            listing(&snapshot, &snapshot, &mut lines);
        }
        lines
    }

    fn keep(&self, layers: &[Digest], path: PathBuf) -> Option<Digest> {
        let mut lines = Vec::new();
        listing(&path, &path, &mut lines);
        if lines == self.tree(layers) {
            return None;
        }
        let parent = layers.last().map(|d| d.to_string()).unwrap_or_default();
        let layer = Digest::of(format!("{parent} {}", lines.join("\n")).as_bytes());
        self.snapshots.borrow_mut().insert(layer, path);
        Some(layer)
    }

    fn result(&self) -> ImageConfig {
        self.stored.borrow().clone().unwrap()
    }

    fn result_tree(&self) -> Vec<String> {
        self.tree(&self.result().rootfs.diff_ids)
    }
}

impl Backend for Fake {
    fn resolve_image(&self, reference: &str, _: Option<&Platform>, _: bool) -> Result<BaseImage, BackendError> {
        let config = self.images.borrow().get(reference).cloned();
        let missing = || BackendError::text(ErrorKind::NotFound, format!("{reference}: not found"));
        Ok(BaseImage { id: Digest::of(reference.as_bytes()), config: config.ok_or_else(missing)? })
    }

    fn cache_get(&self, key: &Digest) -> Result<Option<CachedStep>, BackendError> {
        Ok(self.cache.borrow().get(key).copied())
    }

    fn cache_put(&self, key: &Digest, step: &CachedStep) -> Result<(), BackendError> {
        self.cache.borrow_mut().insert(*key, *step);
        Ok(())
    }

    fn has_layer(&self, layer: &Digest) -> Result<bool, BackendError> {
        Ok(self.snapshots.borrow().contains_key(layer))
    }

    fn edit<'a>(
        &'a self,
        layers: &'a [Digest],
        _: Option<i64>,
        work: &'a mut Work<'a>,
    ) -> Pending<'a, Result<Edited, BackendError>> {
        Box::pin(async move {
            self.edits.set(self.edits.get() + 1);
            let path = self.snapshot(layers);
            let fd = File::open(&path).unwrap();
            let reply = work(fd.as_fd()).map_err(|e| BackendError::text(ErrorKind::Invalid, e))?;
            Ok(Edited { layer: self.keep(layers, path), reply })
        })
    }

    fn view<'a>(&'a self, layers: &'a [Digest], work: &'a mut Work<'a>) -> Pending<'a, Result<Vec<u8>, BackendError>> {
        Box::pin(async move {
            let path = self.dir.as_ref().unwrap().path().join("view");
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            if let Some(snapshot) = layers.last().and_then(|l| self.snapshots.borrow().get(l).cloned()) {
                copy_tree(&snapshot, &path);
            }
            let fd = File::open(&path).unwrap();
            work(fd.as_fd()).map_err(|e| BackendError::text(ErrorKind::Invalid, e))
        })
    }

    fn scratch(&self) -> Result<(usize, std::os::fd::OwnedFd), BackendError> {
        let mut scratches = self.scratches.borrow_mut();
        let path = self.dir.as_ref().unwrap().path().join(format!("scratch{}", scratches.len()));
        fs::create_dir_all(&path).unwrap();
        scratches.push(path.clone());
        Ok((scratches.len() - 1, File::open(&path).unwrap().into()))
    }

    fn run<'a>(
        &'a self,
        layers: &'a [Digest],
        step: &'a RunStep,
        _: Option<i64>,
        output: &'a mut dyn FnMut(bool, &[u8]),
    ) -> Pending<'a, Result<RunOutcome, BackendError>> {
        Box::pin(async move {
            self.runs.borrow_mut().push(step.clone());
            for mounted in &step.mounts {
                if let MountSource::Scratch { id, .. } = mounted.source {
                    let path = self.scratches.borrow()[id].clone();
                    let mut lines = Vec::new();
                    listing(&path, &path, &mut lines);
                    self.mounted.borrow_mut().push(lines);
                }
            }
            let text = step.argv.last().cloned().unwrap_or_default();
            output(false, text.as_bytes());
            if text == "false" {
                return Ok(RunOutcome { exit_code: 1, layer: None });
            }
            if text == "meet" {
                // Goes on only while another one waits here too.
                self.waiting.set(self.waiting.get() + 1);
                drive::again();
                drive::until(|| self.waiting.get() >= 2).await;
            }
            let Some(name) = text.strip_prefix("touch /") else { return Ok(RunOutcome { exit_code: 0, layer: None }) };
            let path = self.snapshot(layers);
            fs::write(path.join(name), "").unwrap();
            Ok(RunOutcome { exit_code: 0, layer: self.keep(layers, path) })
        })
    }

    fn recall(&self, name: &Digest) -> Option<Vec<u8>> {
        self.records.borrow().get(name).cloned()
    }

    fn remember(&self, name: &Digest, bytes: Vec<u8>) {
        self.records.borrow_mut().insert(*name, bytes);
    }

    fn secret(&self, id: &str) -> Option<Vec<u8>> {
        (id == "key").then(|| self.secret.borrow().clone().into_bytes())
    }

    fn is_archive(&self, mut file: &File) -> bool {
        let mut head = [0; 4];
        file.read_exact(&mut head).is_ok() && &head == b"TAR!"
    }

    fn extract_archive(
        &self,
        root: BorrowedFd<'_>,
        destination: &Path,
        _: &File,
        _: Option<(u32, u32)>,
    ) -> Result<(), BackendError> {
        let root = fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd())).unwrap();
        fs::write(root.join(destination.strip_prefix("/").unwrap()).join("extracted"), "").unwrap();
        Ok(())
    }

    fn known_content(&self, stat: &FileStat) -> Option<Digest> {
        self.contents.borrow().get(stat).copied()
    }

    fn remember_content(&self, stat: &FileStat, content: &Digest) {
        self.hashed.set(self.hashed.get() + 1);
        self.contents.borrow_mut().insert(*stat, *content);
    }

    fn put_image(&self, config: &[u8]) -> Result<Digest, BackendError> {
        *self.stored.borrow_mut() = Some(ImageConfig::parse(config).unwrap());
        Ok(Digest::of(config))
    }

    fn now(&self) -> Timestamp {
        self.clock.set(self.clock.get() + 1);
        Timestamp::from_second(1_700_000_000 + self.clock.get()).unwrap()
    }
}

/// Collects events as lines.
#[derive(Default)]
struct Log(Vec<String>);

impl BuildOutput for Log {
    fn event(&mut self, event: &BuildEvent<'_>) {
        self.0.push(match event {
            BuildEvent::StepStarted { step, total, text, .. } => format!("{step}/{total} {text}"),
            BuildEvent::Cached { .. } => "cached".to_owned(),
            BuildEvent::Note { text, .. } => format!("note {text}"),
            BuildEvent::Output { bytes, .. } => format!("> {}", String::from_utf8_lossy(bytes)),
            BuildEvent::Warning { text, .. } => format!("warning {text}"),
            BuildEvent::Failed { excerpt } => (*excerpt).to_owned(),
            BuildEvent::StepDone { .. } | BuildEvent::StepFailed { .. } | BuildEvent::Done { .. } => return,
        });
    }
}

fn run_build(
    fake: &Fake,
    context: Option<&Context>,
    file: &str,
    options: &BuildOptions,
) -> (Result<Built, String>, Log) {
    let mut log = Log::default();
    let result = build(file.as_bytes(), context, options, fake, &mut log);
    (result.map_err(|e| dhow_types::report(&e)), log)
}

fn ok(fake: &Fake, file: &str) -> Built {
    let (result, log) = run_build(fake, None, file, &BuildOptions::default());
    result.unwrap_or_else(|e| panic!("{e}\n{}", log.0.join("\n")))
}

fn history(fake: &Fake) -> Vec<String> {
    let mark = |h: dhow_oci::image::History| {
        format!("{}{}", if h.empty_layer { "" } else { "+ " }, h.created_by.unwrap_or_default())
    };
    fake.result().history.into_iter().map(mark).collect()
}

#[test]
fn metadata_goes_to_config_and_history() {
    let fake = Fake::new();
    ok(
        &fake,
        r#"FROM base
ARG V=1
ENV A=$V B="x $A" C=3
LABEL k=$V "q r"=s
EXPOSE 80 443/udp
VOLUME /data
USER app:grp
STOPSIGNAL SIGQUIT
SHELL ["/bin/bash", "-c"]
CMD echo hi
ENTRYPOINT ["/x"]
HEALTHCHECK --interval=30s CMD true
ONBUILD RUN later
MAINTAINER me
"#,
    );
    let image = fake.result();
    let c = &image.config;
    assert_eq!(c.env, ["PATH=/bin", "A=1", "B=x ", "C=3"]);
    assert_eq!(c.labels.get("q r").map(String::as_str), Some("s"));
    assert_eq!(c.exposed_ports.keys().collect::<Vec<_>>(), ["443/udp", "80/tcp"]);
    assert_eq!((c.user.as_str(), c.stop_signal.as_str()), ("app:grp", "SIGQUIT"));
    assert_eq!(c.cmd.as_deref(), Some(&["/bin/bash".to_owned(), "-c".into(), "echo hi".into()][..]));
    assert_eq!(c.entrypoint.as_deref(), Some(&["/x".to_owned()][..]));
    assert_eq!(c.on_build, ["RUN later"]);
    assert!(c.args_escaped);
    assert_eq!(image.author.as_deref(), Some("me"));
    assert_eq!(
        history(&fake),
        [
            "ARG V=1",
            "ENV A=1 B=x  C=3",
            "LABEL k=1 q r=s",
            "EXPOSE [443/udp 80/tcp]",
            "VOLUME [/data]",
            "USER app:grp",
            "STOPSIGNAL SIGQUIT",
            "SHELL [/bin/bash -c]",
            "CMD [\"/bin/bash\" \"-c\" \"echo hi\"]",
            "ENTRYPOINT [\"/x\"]",
            "HEALTHCHECK {Test:[CMD-SHELL true] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "MAINTAINER me",
        ]
    );
    assert!(image.history.iter().all(|h| h.comment.as_deref() == Some("buildkit.dockerfile.v0")));
}

#[test]
fn entry_point_and_command() {
    let fake = Fake::new();
    let base =
        ExecConfig { cmd: Some(vec!["old".into()]), entrypoint: Some(vec!["e".into()]), ..ExecConfig::default() };
    fake.image("app", base);
    let both = |file: &str| {
        ok(&fake, file);
        let c = fake.result().config;
        (c.entrypoint.map(|e| e.join(" ")), c.cmd.map(|c| c.join(" ")))
    };
    let s = |t: &str| Some(t.to_owned());
    assert_eq!(both("FROM app"), (s("e"), s("old")));
    assert_eq!(both("FROM app\nENTRYPOINT x"), (s("/bin/sh -c x"), None));
    assert_eq!(both("FROM app\nCMD [\"c\"]\nENTRYPOINT [\"x\"]"), (s("x"), s("c")));
    assert_eq!(both("FROM app\nENTRYPOINT [\"x\"]\nCMD c"), (s("x"), s("/bin/sh -c c")));
    assert_eq!(both("FROM app\nENTRYPOINT []\nCMD []"), (None, s("")));
}

#[test]
fn run_gets_its_environment() {
    let fake = Fake::new();
    let options = BuildOptions {
        build_args: vec![("A".into(), "given".into()), ("http_proxy".into(), "p".into()), ("Z".into(), "z".into())],
        ..BuildOptions::default()
    };
    let file = "ARG G=g\nFROM base\nARG A B=b G\nENV B=env\nUSER u\nRUN make\n";
    let (result, log) = run_build(&fake, None, file, &options);
    result.unwrap();
    let run = fake.runs.borrow()[0].clone();
    assert_eq!(run.env, ["A=given", "B=env", "G=g", "PATH=/bin", "http_proxy=p", "HTTP_PROXY=p"]);
    assert_eq!((run.user.as_str(), run.cwd.as_str()), ("u", "/"));
    assert!(log.0.contains(&"warning One or more build-args [Z] were not consumed".to_owned()));
    assert!(history(&fake).contains(&"RUN |3 A=given B=env G=g /bin/sh -c make # buildkit".to_owned()));
    // A proxy is no reason to run again, an argument in scope is.
    let again = BuildOptions { build_args: vec![("A".into(), "given".into())], ..BuildOptions::default() };
    run_build(&fake, None, file, &again).0.unwrap();
    assert_eq!(fake.runs.borrow().len(), 1);
    run_build(&fake, None, file, &BuildOptions::default()).0.unwrap();
    assert_eq!(fake.runs.borrow().len(), 2);
}

#[test]
fn root_the_cache_follows_content() {
    let fake = Fake::new();
    let first = ok(&fake, "FROM base\nRUN touch /a\nRUN touch /b\nLABEL x=1");
    assert_eq!(fake.runs.borrow().len(), 2);
    let second = ok(&fake, "FROM base\nRUN touch /a\nRUN touch /b\nLABEL x=1");
    assert_eq!((second.image, second.all_cached), (first.image, true));
    // Metadata that no command sees does not matter; a changed command does, and so does everything on top of it.
    ok(&fake, "FROM base\nLABEL y=2\nRUN touch /a\nCMD x\nRUN touch /b");
    assert_eq!(fake.runs.borrow().len(), 2);
    ok(&fake, "FROM base\nRUN touch /c\nRUN touch /b");
    assert_eq!(fake.runs.borrow().len(), 4);
    // A command that changes nothing keeps the chain: what follows is still known.
    ok(&fake, "FROM base\nRUN true\nRUN touch /c\nRUN touch /b");
    assert_eq!(fake.runs.borrow().len(), 5);
    assert_eq!(history(&fake)[0], "RUN /bin/sh -c true # buildkit");
    // A lost layer is made again.
    let lost = *fake.result().rootfs.diff_ids.last().unwrap();
    fake.snapshots.borrow_mut().remove(&lost);
    ok(&fake, "FROM base\nRUN true\nRUN touch /c\nRUN touch /b");
    assert_eq!(fake.runs.borrow().len(), 6);
    let options = BuildOptions { no_cache: true, ..BuildOptions::default() };
    run_build(&fake, None, "FROM base\nRUN touch /c", &options).0.unwrap();
    assert_eq!(fake.runs.borrow().len(), 7);
}

#[test]
fn a_failing_command_shows_its_place() {
    let fake = Fake::new();
    let (result, log) =
        run_build(&fake, None, "FROM base\n\n# why\nRUN \\\n  false\nCMD x\n", &BuildOptions::default());
    let text = result.unwrap_err();
    assert!(text.ends_with("The command '/bin/sh -c false' returned a non-zero code: 1"), "{text}");
    let expected = "Dockerfile:4\n--------------------\n   2 |\n   3 |     # why\n   4 | >>> RUN \\\n   5 | >>>   false\n   6 |     CMD x\n--------------------";
    assert_eq!(log.0.last().map(String::as_str), Some(expected));
    assert!(fake.stored.borrow().is_none());
}

#[test]
fn unsupported_things_say_so() {
    let fake = Fake::new();
    let error = |file: &str| run_build(&fake, None, file, &BuildOptions::default()).0.unwrap_err();
    for (line, what) in [
        ("RUN --mount=type=ssh y", "RUN --mount=type=ssh is not supported"),
        ("RUN --mount=type=cache,target=/x,from=base z", "RUN --mount=type=cache with from or source is not supported"),
        ("RUN --security=insecure y", "security.insecure is not allowed"),
        ("RUN --network=host y", "network.host is not allowed"),
        ("ADD https://example.com/x /", "https://example.com/x cannot be fetched here"),
    ] {
        let text = error(&format!("FROM base\n{line}"));
        let word = line.split(' ').next().unwrap();
        assert_eq!(text, format!("Dockerfile line 2 ({word}): {what}"));
    }
}

#[test]
fn only_needed_stages_are_built() {
    let fake = Fake::new();
    let file = "FROM base AS a\nRUN touch /a\nFROM base AS unused\nRUN false\nFROM a\nENV X=1\nRUN true\n";
    let (result, log) = run_build(&fake, None, file, &BuildOptions::default());
    result.unwrap();
    assert_eq!(log.0.iter().filter(|l| l.contains('/') && !l.starts_with('>')).count(), 5, "{:?}", log.0);
    let target = BuildOptions { target: Some("A".into()), ..BuildOptions::default() };
    assert!(run_build(&fake, None, file, &target).0.is_ok());
    let by_number = BuildOptions { target: Some("1".into()), ..BuildOptions::default() };
    assert!(run_build(&fake, None, file, &by_number).0.unwrap_err().contains("non-zero code: 1"));
    let wrong = BuildOptions { target: Some("zzz".into()), ..BuildOptions::default() };
    assert_eq!(run_build(&fake, None, file, &wrong).0.unwrap_err(), "target stage \"zzz\" could not be found");
    let circular = "FROM base AS a\nCOPY --from=b / /\nFROM base AS b\nCOPY --from=a / /\n";
    let text = run_build(&fake, None, circular, &BuildOptions::default()).0.unwrap_err();
    assert!(text.ends_with("circular dependency detected on stage: b"), "{text}");
    let later = run_build(
        &fake,
        None,
        "FROM base\nCOPY --from=1 / /\nFROM base",
        &BuildOptions { target: Some("0".into()), ..BuildOptions::default() },
    );
    assert!(later.0.unwrap_err().ends_with("invalid from flag value 1: it is no earlier stage"));
}

#[test]
fn triggers_run_first_and_once() {
    let fake = Fake::new();
    let config = ExecConfig { on_build: vec!["ENV T=1".into(), "RUN make $T".into()], ..ExecConfig::default() };
    fake.image("parent", config);
    ok(&fake, "FROM parent\nENV U=$T");
    let image = fake.result();
    assert_eq!(image.config.env.join(" "), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin T=1 U=1");
    assert!(image.config.on_build.is_empty());
    assert_eq!(history(&fake).len(), 3);
    fake.image("bad", ExecConfig { on_build: vec!["FROM x".into()], ..ExecConfig::default() });
    let text = run_build(&fake, None, "FROM bad", &BuildOptions::default()).0.unwrap_err();
    assert!(text.contains("ONBUILD trigger \"FROM x\" of the base image"), "{text}");
}

#[test]
fn here_documents_of_run() {
    let fake = Fake::new();
    ok(&fake, "FROM base\nRUN <<EOF\na\nb\nEOF\nRUN <<S\n#!/bin/python\np\nS\nRUN cat <<X >/y\n$A\nX\n");
    let runs = fake.runs.borrow();
    assert_eq!(runs[0].argv, ["/bin/sh", "-c", "a\nb\n"]);
    assert_eq!(runs[1].argv, ["/bin/sh", "-c", "/dev/pipes/S"]);
    assert_eq!((runs[1].files[0].path.as_str(), runs[1].files[0].mode), ("/dev/pipes/S", 0o755));
    assert_eq!(runs[2].argv[2], "cat <<X >/y\n$A\nX");
}

#[test]
fn configs_that_nobody_could_read_again_are_refused() {
    let fake = Fake::new();
    let file = format!("FROM base\n{}", "EXPOSE 1-65535/tcp\n".repeat(8));
    let text = run_build(&fake, None, &file, &BuildOptions::default()).0.unwrap_err();
    assert!(text.starts_with("the image config would have"), "{text}");
    assert!(fake.stored.borrow().is_none());
}

#[test]
fn source_date_epoch_fixes_every_time() {
    let fake = Fake::new();
    let options = BuildOptions { source_date_epoch: Some(0), no_cache: true, ..BuildOptions::default() };
    let one = run_build(&fake, None, "FROM base\nRUN x\nCMD [\"y\"]", &options).0.unwrap();
    let two = run_build(&fake, None, "FROM base\nRUN x\nCMD [\"y\"]", &options).0.unwrap();
    assert_eq!(one.image, two.image);
    let by_arg = BuildOptions {
        build_args: vec![("SOURCE_DATE_EPOCH".into(), "0".into()), ("BUILDKIT_SANDBOX_HOSTNAME".into(), "h".into())],
        no_cache: true,
        ..BuildOptions::default()
    };
    let (three, log) = run_build(&fake, None, "FROM base\nRUN x\nCMD [\"y\"]", &by_arg);
    assert_eq!(three.unwrap().image, one.image);
    assert!(!log.0.iter().any(|l| l.starts_with("warning")), "{:?}", log.0);
    assert_eq!(fake.runs.borrow().last().unwrap().hostname, "h");
    let image = fake.result();
    assert_eq!(image.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert!(image.history.iter().all(|h| h.created == image.created));
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("src/sub")).unwrap();
        for (name, text) in [("a", "A"), ("b", "B"), ("src/main", "M"), ("src/sub/x", "X"), ("x.tar", "TAR!")] {
            fs::write(dir.path().join(name), text).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        for name in ["src", "src/sub"] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o750)).unwrap();
        }
        std::os::unix::fs::chown(dir.path().join("a"), Some(5), Some(6)).unwrap();
        symlink("main", dir.path().join("src/link")).unwrap();
        Self { dir }
    }

    fn context(&self) -> Context {
        Context::open(self.dir.path()).unwrap()
    }
}

fn copied(file: &str) -> Result<Vec<String>, String> {
    let (fake, files) = (Fake::new(), Files::new());
    run_build(&fake, Some(&files.context()), file, &BuildOptions::default()).0.map(|_| fake.result_tree())
}

#[test]
fn root_copy_destinations() {
    let tree = |lines: &str| copied(&format!("FROM scratch\n{lines}")).unwrap_or_else(|e| panic!("{lines}: {e}"));
    assert_eq!(tree("COPY a /f"), ["f 640 0:0 \"A\""]);
    assert_eq!(tree("COPY a /d/e/"), ["d 755 0:0 /", "d/e 755 0:0 /", "d/e/a 640 0:0 \"A\""]);
    assert_eq!(tree("WORKDIR /w\nCOPY a b ./"), ["w 755 0:0 /", "w/a 640 0:0 \"A\"", "w/b 640 0:0 \"B\""]);
    assert_eq!(tree("WORKDIR /w\nCOPY a ."), ["w 755 0:0 /", "w/a 640 0:0 \"A\""]);
    assert_eq!(
        tree("COPY src /d"),
        ["d 755 0:0 /", "d/link 777 0:0 -> main", "d/main 640 0:0 \"M\"", "d/sub 750 0:0 /", "d/sub/x 640 0:0 \"X\""]
    );
    assert_eq!(tree("COPY src/ src/sub /d/").len(), 6);
    assert_eq!(tree("COPY [ab] /d/"), ["d 755 0:0 /", "d/a 640 0:0 \"A\"", "d/b 640 0:0 \"B\""]);
    assert_eq!(tree("COPY nothing* /d/"), Vec::<String>::new());
    assert_eq!(tree("COPY --chown=7 --chmod=u=rw,go= a /d/f"), ["d 755 7:7 /", "d/f 600 7:7 \"A\""]);
    assert_eq!(tree("COPY --chown=7:8 src/sub /d"), ["d 755 7:8 /", "d/x 640 7:8 \"X\""]);
    assert_eq!(tree("COPY a /f\nCOPY b /f"), ["f 640 0:0 \"B\""]);
    assert_eq!(
        tree("ENV N=v\nCOPY <<one <<'two' /d/\n$N \"q\"\none\n$N\ntwo\n"),
        ["d 755 0:0 /", "d/one 644 0:0 \"v \\\"q\\\"\\n\"", "d/two 644 0:0 \"$N\\n\""]
    );
    assert_eq!(tree("COPY --exclude=sub --exclude=link src /d"), ["d 755 0:0 /", "d/main 640 0:0 \"M\""]);
    assert_eq!(
        tree("COPY --exclude=* --exclude=!sub/x src /d"),
        ["d 755 0:0 /", "d/sub 750 0:0 /", "d/sub/x 640 0:0 \"X\""]
    );
    assert_eq!(
        tree("COPY --parents src/sub/x a /p/"),
        ["p 755 0:0 /", "p/a 640 0:0 \"A\"", "p/src 750 0:0 /", "p/src/sub 750 0:0 /", "p/src/sub/x 640 0:0 \"X\""]
    );
    assert_eq!(tree("COPY --parents src/./sub/x /p"), ["p 755 0:0 /", "p/sub 750 0:0 /", "p/sub/x 640 0:0 \"X\""]);
    assert_eq!(tree("COPY --parents **/x /p/").last().map(String::as_str), Some("p/src/sub/x 640 0:0 \"X\""));
    assert_eq!(tree("COPY --parents **/none /p/"), Vec::<String>::new());
    assert_eq!(tree("COPY --exclude=b [ab] /d/"), ["d 755 0:0 /", "d/a 640 0:0 \"A\""]);
    assert_eq!(tree("ADD x.tar /d"), ["d 755 0:0 /", "d/extracted 644 0:0 \"\""]);
    assert_eq!(tree("ADD --unpack=false x.tar /d"), ["d 640 0:0 \"TAR!\""]);
    assert_eq!(tree("ADD a /d/"), ["d 755 0:0 /", "d/a 640 0:0 \"A\""]);
}

#[test]
fn root_copy_errors() {
    let error = |lines: &str| copied(&format!("FROM scratch\n{lines}")).expect_err(lines);
    assert!(error("COPY a b /f").ends_with(
        "When using COPY with more than one source file, the destination must be a directory and end with a /"
    ));
    assert!(error("COPY a /f\nCOPY src /f").ends_with("cannot copy to non-directory: /f"));
    assert!(error("COPY src /d\nCOPY a /d/sub\nCOPY src/sub /d\nCOPY src /e\nCOPY a /e/main/").contains("/e/main"));
    assert!(error("COPY nope /x").contains("\"/nope\": not found"));
    assert!(error("COPY --parents src/nope /x").contains("not found"));
    assert!(error("COPY --chown=nobody a /x").contains("unable to find user \"nobody\""));
    assert!(error("COPY --chmod=999 a /x").contains("invalid chmod parameter: '999'"));
    let text = run_build(&Fake::new(), None, "FROM scratch\nCOPY a /x", &BuildOptions::default()).0.unwrap_err();
    assert!(text.contains("has no context"), "{text}");
}

#[test]
fn root_mounts_are_seen_but_not_kept() {
    use crate::backend::MountSource;
    let (fake, files) = (Fake::new(), Files::new());
    fake.image("base", ExecConfig { on_build: vec![], ..ExecConfig::default() });
    let file = "FROM scratch AS s\nCOPY --chown=5:6 a /in/f\nFROM scratch\nWORKDIR /w\nARG T=cache\n\
        RUN --mount=type=bind,source=src,target=code --mount=from=s,source=/in/f,target=/f,rw \
        --mount=type=cache,target=$T,sharing=locked,mode=0700 --mount=type=tmpfs,target=/t,size=1m \
        --mount=type=secret,id=key,env=KEY --mount=type=secret,id=key,target=/k,uid=3 --mount=type=secret,id=none true\n";
    let go = |secret: &str| {
        *fake.secret.borrow_mut() = secret.to_owned();
        run_build(&fake, Some(&files.context()), file, &BuildOptions::default()).0.unwrap();
    };
    go("s1");
    let run = fake.runs.borrow()[0].clone();
    let shown: Vec<(&str, bool)> = run.mounts.iter().map(|m| (m.target.as_str(), m.read_only)).collect();
    assert_eq!(shown, [("/w/code", true), ("/f", false), ("/w/cache", false), ("/t", false)]);
    assert!(matches!(&run.mounts[2].source, MountSource::Cache { id, mode: 0o700, .. } if id == "/w/cache"));
    assert_eq!(run.mounts[3].source, MountSource::Memory(Some(1 << 20)));
    assert!(run.env.contains(&"KEY=s1".to_owned()));
    assert_eq!(
        (run.files.len(), run.files[0].path.as_str(), run.files[0].owner.0, run.files[0].mode),
        (1, "/k", 3, 0o400)
    );
    let mounted = fake.mounted.borrow().clone();
    assert!(mounted[0].contains(&"mounted/sub/x 640 0:0 \"X\"".to_owned()), "{mounted:?}");
    assert_eq!(mounted[1], ["mounted 640 5:6 \"A\""]);
    // Another secret is no reason to run again; another file is.
    go("s2");
    assert_eq!(fake.runs.borrow().len(), 1);
    fs::write(files.dir.path().join("src/main"), "changed").unwrap();
    go("s2");
    assert_eq!(fake.runs.borrow().len(), 2);
    let stored = serde_json::to_string(&fake.result()).unwrap();
    assert!(!stored.contains("s1") && !stored.contains("s2"), "{stored}");
    let required = "FROM base\nRUN --mount=type=secret,id=nope,required x";
    let text = run_build(&fake, None, required, &BuildOptions::default()).0.unwrap_err();
    assert!(text.ends_with("secret nope: not found"), "{text}");
}

#[test]
fn root_linked_copies_do_not_depend_on_what_lies_below() {
    let (fake, files) = (Fake::new(), Files::new());
    let go = |first: &str| {
        let file = format!("FROM scratch\nCOPY {first} /x\nCOPY --link b /d/f\n");
        run_build(&fake, Some(&files.context()), &file, &BuildOptions::default()).0.unwrap();
        *fake.result().rootfs.diff_ids.last().unwrap()
    };
    let one = go("a");
    assert_eq!(fake.edits.get(), 2);
    assert_eq!(go("src/main"), one);
    assert_eq!(fake.edits.get(), 3, "the linked layer was made again");
    assert_eq!(fake.tree(&[one]), ["d 755 0:0 /", "d/f 640 0:0 \"B\""]);
}

#[test]
fn the_host_network_is_the_callers_to_give() {
    let fake = Fake::new();
    let file = "FROM base\nRUN --network=host x";
    let text = run_build(&fake, None, file, &BuildOptions::default()).0.unwrap_err();
    assert!(text.ends_with("network.host is not allowed"), "{text}");
    let options = BuildOptions { network: "host".into(), ..BuildOptions::default() };
    run_build(&fake, None, file, &options).0.unwrap();
    assert_eq!(fake.runs.borrow()[0].network, dhow_dockerfile::RunNetwork::Host);
}

#[test]
fn root_copy_from_stages_keeps_owners() {
    let tree = copied(
        "FROM scratch AS one\nCOPY --chown=5:6 a /out/f\nFROM scratch\nCOPY --from=one /out /in\nCOPY --from=0 --chown=9 /out/f /g\n",
    );
    assert_eq!(tree.unwrap(), ["g 640 9:9 \"A\"", "in 755 0:0 /", "in/f 640 5:6 \"A\""]);
}

#[test]
fn root_unchanged_files_are_not_read_again() {
    let (fake, files) = (Fake::new(), Files::new());
    let go = || run_build(&fake, Some(&files.context()), "FROM scratch\nCOPY . /", &BuildOptions::default()).0.unwrap();
    let first = go();
    let hashed = fake.hashed.get();
    assert_eq!((hashed, fake.edits.get()), (5, 1));
    let second = go();
    assert_eq!((second.image, fake.hashed.get(), fake.edits.get()), (first.image, hashed, 1));
    // Touching a file reads it again but changes nothing; new content does.
    File::open(files.dir.path().join("b")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(go().image, first.image);
    assert_eq!((fake.hashed.get(), fake.edits.get()), (hashed + 1, 1));
    fs::write(files.dir.path().join("b"), "C").unwrap();
    assert_ne!(go().image, first.image);
    assert_eq!(fake.edits.get(), 2);
}

#[test]
fn root_links_in_the_image_stay_inside() {
    let (fake, files) = (Fake::new(), Files::new());
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("host");
    fs::create_dir(&target).unwrap();
    symlink(&target, files.dir.path().join("esc")).unwrap();
    fs::create_dir(files.dir.path().join("links")).unwrap();
    symlink(&target, files.dir.path().join("links/esc")).unwrap();
    symlink("../../../../../../etc", files.dir.path().join("links/up")).unwrap();
    let file = "FROM scratch\nCOPY links /\nWORKDIR /esc/new\nWORKDIR /up/new\nCOPY a /esc/f\nCOPY a /esc/sub/\n";
    run_build(&fake, Some(&files.context()), file, &BuildOptions::default()).0.unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "the host directory was written to");
    let tree = fake.result_tree();
    let inside = target.strip_prefix("/").unwrap().join("new");
    assert!(tree.iter().any(|l| l.starts_with(&format!("{} ", inside.display()))), "{tree:#?}");
    assert!(tree.iter().any(|l| l.starts_with("etc/new ")), "{tree:#?}");
    assert_eq!(fake.result().config.working_dir, "/up/new");
}

#[test]
fn root_workdir_is_made_once() {
    let (fake, files) = (Fake::new(), Files::new());
    let file = "FROM scratch\nUSER 7:8\nWORKDIR /a/b\nWORKDIR c\nWORKDIR /a\nWORKDIR /\nENV D=x\nWORKDIR $D\n";
    run_build(&fake, Some(&files.context()), file, &BuildOptions::default()).0.unwrap();
    assert_eq!(fake.result_tree(), ["a 755 7:8 /", "a/b 755 7:8 /", "a/b/c 755 7:8 /", "x 755 7:8 /"]);
    assert_eq!(
        history(&fake),
        ["USER 7:8", "+ WORKDIR /a/b", "+ WORKDIR /a/b/c", "WORKDIR /a", "WORKDIR /", "ENV D=x", "+ WORKDIR /x"]
    );
}

#[test]
fn stages_without_a_path_between_them_run_at_the_same_time() {
    let fake = Fake::new();
    let file = "FROM base AS one\nRUN meet\nRUN touch /a\nFROM base AS two\nRUN meet\nRUN touch /b\n\
                FROM base\nCOPY --from=one /a /\nCOPY --from=two /b /\n";
    let (result, log) = run_build(&fake, None, file, &BuildOptions::default());
    result.unwrap();
    assert_eq!(fake.waiting.get(), 2);
    assert!(log.0.iter().any(|l| l == "9/9 COPY --from=two /b /"), "{:?}", log.0);
    assert_eq!(fake.result_tree().len(), 2);
}

#[test]
fn misses_are_explained() {
    let fake = Fake::new();
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("a", "1");
    put("b", "1");
    let notes = |file: &str, args: &[(&str, &str)], no_cache: bool| {
        let build_args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let options = BuildOptions { explain: true, build_args, no_cache, ..BuildOptions::default() };
        let context = Context::open(dir.path()).unwrap();
        let (result, log) = run_build(&fake, Some(&context), file, &options);
        result.unwrap();
        log.0.into_iter().filter_map(|l| l.strip_prefix("note ").map(str::to_owned)).collect::<Vec<_>>()
    };
    let file = "FROM base\nARG V=1\nRUN touch /x$V\nCOPY . /src/\nRUN touch /y\n";
    assert_eq!(notes(file, &[], false), ["there is no earlier build to compare with"; 3]);
    assert_eq!(notes(file, &[], false), [""; 0]);
    put("b", "2");
    put("c", "");
    let found = notes(file, &[], false);
    assert_eq!(found, ["changed file \"b\"; new file \"c\"", "step 4 made another layer below it"]);
    let found = notes(file, &[("V", "2")], false);
    // The first command makes the same layer with it, so the copy stays.
    assert_eq!(found, ["variable V changed: \"1\" became \"2\""; 2]);
    let again = "FROM base\nARG V=1\nRUN touch /x$V\nCOPY . /src/\nRUN touch /z\n";
    let found = notes(again, &[("V", "2")], false);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("command changed: "), "{found:?}");
    assert_eq!(notes(again, &[("V", "2")], true)[0], "the cache is not used");
    fake.cache.borrow_mut().clear();
    assert_eq!(notes(again, &[("V", "2")], false)[0], "nothing changed, but its result is no longer in the cache");
}
