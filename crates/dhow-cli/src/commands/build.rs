//! `build`.

mod output;

use super::invalid;
use super::pull::platform;
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::{Globals, variable};
use crate::out;
use crate::progress::{Lines, Target};
use dhow_docker::grammar;
use dhow_engine::{BuildContext, BuildOptions, BuildSpec, DockerfileSource};
use dhow_types::{ErrorKind, Reference};
use output::Plain;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FLAGS: &[Flag] = &[
    Flag::list("add-host", '\0', "Add a custom host-to-IP mapping (host:ip)"),
    Flag::list("allow", '\0', "").missing(),
    Flag::list("annotation", '\0', "").missing(),
    Flag::list("attest", '\0', "").missing(),
    Flag::list("build-arg", '\0', "Set build-time variables"),
    Flag::list("build-context", '\0', "").missing(),
    Flag::value("builder", '\0', "string", "").missing_unless("default|"),
    Flag::list("cache-from", '\0', "").no_effect("the cache is local, images of registries are no cache"),
    Flag::list("cache-to", '\0', "").missing(),
    Flag::value("call", '\0', "string", "").missing_unless("build"),
    Flag::value("cgroup-parent", '\0', "string", "").missing(),
    Flag::switch("check", '\0', "").missing(),
    Flag::switch("compress", '\0', "").no_effect("the context is not sent anywhere"),
    Flag::value("cpu-period", '\0', "int", "").missing_unless("0"),
    Flag::value("cpu-quota", '\0', "int", "").missing_unless("0"),
    Flag::value("cpu-shares", 'c', "int", "").missing_unless("0"),
    Flag::value("cpuset-cpus", '\0', "string", "").missing(),
    Flag::value("cpuset-mems", '\0', "string", "").missing(),
    Flag::value("disable-content-trust", '\0', "bool", "").no_effect("there is no content trust"),
    Flag::value("file", 'f', "string", "Name of the Dockerfile (default: PATH/Dockerfile, - is STDIN)"),
    Flag::switch("force-rm", '\0', "").no_effect("there are no intermediate containers"),
    Flag::value("iidfile", '\0', "string", "Write the image ID to the file"),
    Flag::value("isolation", '\0', "string", "").missing_unless("default"),
    Flag::list("label", '\0', "Set metadata for an image"),
    Flag::switch("load", '\0', "").no_effect("the image is always loaded"),
    Flag::value("memory", 'm', "bytes", "").missing_unless("0"),
    Flag::value("memory-swap", '\0', "bytes", "").missing_unless("0"),
    Flag::value("metadata-file", '\0', "string", "").missing(),
    Flag::value("network", '\0', "string", "Networking mode of RUN instructions (default, none, host)"),
    Flag::value("net", '\0', "string", "").alias_of("network"),
    Flag::switch("no-cache", '\0', "Do not use cache when building the image"),
    Flag::list("no-cache-filter", '\0', "").missing(),
    Flag::list("output", 'o', "").missing(),
    Flag::value("platform", '\0', "string", "Set target platform for build"),
    Flag::list("policy", '\0', "").missing(),
    Flag::value("progress", '\0', "string", "Type of progress output (auto, plain, quiet)"),
    Flag::value("provenance", '\0', "string", "").missing_unless("false"),
    Flag::switch("pull", '\0', "Always attempt to pull newer versions of base images"),
    Flag::switch("push", '\0', "").missing(),
    Flag::switch("quiet", 'q', "Suppress the build output and print image ID on success"),
    Flag::list("resource", '\0', "").missing(),
    Flag::switch("rm", '\0', "").no_effect("there are no intermediate containers"),
    Flag::value("sbom", '\0', "string", "").missing_unless("false"),
    Flag::list("secret", '\0', "").missing(),
    Flag::list("security-opt", '\0', "").missing(),
    Flag::value("shm-size", '\0', "bytes", "").missing_unless("0"),
    Flag::switch("squash", '\0', "").missing(),
    Flag::list("ssh", '\0', "").missing(),
    Flag::list("tag", 't', "Name and optionally a tag (format: name:tag)"),
    Flag::value("target", '\0', "string", "Set the target build stage to build"),
    Flag::list("ulimit", '\0', "").missing(),
];

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] PATH | -",
    about: "Build an image from a Dockerfile",
    example: "dhow build -t helloworld .",
    flags: &[FLAGS],
    args: (1, Some(1)),
    sealed: true,
    ..Command::new("build", &["image build", "builder build", "buildx build", "buildx b"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let typed = m.args.first().map_or("", String::as_str);
    let (context, dockerfile) = sources(typed, m.text("file"))?;
    let options = options(m, &globals.config()?)?;
    let quiet = m.on("quiet")
        || match m
            .text("progress")
            .map_or_else(|| variable("BUILDKIT_PROGRESS").unwrap_or_default(), str::to_owned)
            .as_str()
        {
            "quiet" | "none" => true,
            "" | "auto" | "plain" | "tty" => false,
            other => return Err(CliError::flag(format!("--progress {other} is not supported yet"))),
        };
    let target = if quiet { Target::Nowhere } else { Target::Stderr };
    let tags: Vec<String> = options.tags.iter().map(Reference::familiar).collect();
    let spec = BuildSpec { context, dockerfile, options, progress: Some(Arc::new(Lines::new(target))) };
    let mut output = Plain::new(quiet);
    let image = globals.engine()?.build(spec, &mut output)?;
    if let Some(path) = m.given("iidfile") {
        super::save::to_file(Path::new(&path), |mut file| {
            use std::io::Write;
            file.write_all(image.to_string().as_bytes()).map_err(CliError::io(format!("cannot write {path}")))
        })?;
    }
    if quiet {
        out::print(&format!("{image}\n"))?;
        return Ok(0);
    }
    out::print(&format!("Successfully built {}\n", image.short()))?;
    for tag in tags {
        out::print(&format!("Successfully tagged {tag}\n"))?;
    }
    Ok(0)
}

fn sources(typed: &str, file: Option<&str>) -> Result<(BuildContext, DockerfileSource), CliError> {
    let url = ["http://", "https://", "git://", "git@", "github.com/"].iter().any(|p| typed.starts_with(p));
    if url {
        return Err(CliError::failed(ErrorKind::Unsupported, "a build context behind a URL is not supported yet")
            .with_hint("clone or fetch it, and build from the directory"));
    }
    if typed == "-" {
        if file == Some("-") {
            return Err(invalid("invalid argument: can't use stdin for both build context and dockerfile"));
        }
        return from_stdin(file);
    }
    let directory = PathBuf::from(typed);
    let meta = std::fs::metadata(&directory).map_err(|e| {
        CliError::failed(ErrorKind::NotFound, format!("unable to prepare context: path {typed:?} not found: {e}"))
    })?;
    if !meta.is_dir() {
        return Err(invalid(format!("unable to prepare context: {typed:?} is not a directory")));
    }
    let dockerfile = match file {
        None | Some("") => DockerfileSource::Default,
        Some("-") => DockerfileSource::Bytes(read_stdin()?),
        Some(path) => DockerfileSource::Path(PathBuf::from(path)),
    };
    Ok((BuildContext::Directory(directory), dockerfile))
}

/// Standard input is a Dockerfile or a tar of the context; the first bytes tell. What was read goes back through a pipe or
/// file only if it must: a Dockerfile is small.
fn from_stdin(file: Option<&str>) -> Result<(BuildContext, DockerfileSource), CliError> {
    let stdin = rustix::stdio::stdin();
    if let Some(file) = file {
        let archive = File::from(stdin.try_clone_to_owned().map_err(CliError::io("cannot use standard input"))?);
        return Ok((BuildContext::Archive(archive), DockerfileSource::Path(PathBuf::from(file))));
    }
    let bytes = read_stdin()?;
    if !is_archive(&bytes) {
        return Ok((BuildContext::Empty, DockerfileSource::Bytes(bytes)));
    }
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let memory = rustix::fs::memfd_create(c"context", flags).map_err(CliError::errno("cannot hold the context"))?;
    let mut archive = File::from(memory);
    use std::io::{Seek, SeekFrom, Write};
    archive.write_all(&bytes).map_err(CliError::io("cannot hold the context"))?;
    archive.seek(SeekFrom::Start(0)).map_err(CliError::io("cannot hold the context"))?;
    Ok((BuildContext::Archive(archive), DockerfileSource::Default))
}

/// Most bytes of a context that comes through standard input.
const MAX_STDIN: u64 = 4 << 30;

fn read_stdin() -> Result<Vec<u8>, CliError> {
    let stdin = rustix::stdio::stdin();
    let mut file = File::from(stdin.as_fd().try_clone_to_owned().map_err(CliError::io("cannot use standard input"))?);
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_STDIN + 1).read_to_end(&mut bytes).map_err(CliError::io("cannot read standard input"))?;
    if bytes.len() as u64 > MAX_STDIN {
        return Err(invalid("the context on standard input is larger than 4 GiB"));
    }
    Ok(bytes)
}

/// tar (POSIX.1, "ustar" at 257), gzip, bzip2, xz, zstd by their first bytes.
fn is_archive(bytes: &[u8]) -> bool {
    let magic: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magic.iter().any(|m| bytes.starts_with(m)) || bytes.get(257..262) == Some(b"ustar")
}

fn options(m: &Matches, config: &crate::config_file::ConfigFile) -> Result<BuildOptions, CliError> {
    let mut build_args = config.proxy_env();
    for text in m.list("build-arg") {
        match text.split_once('=') {
            Some((key, value)) => build_args.push((key.to_owned(), value.to_owned())),
            // Without a value it is the caller's own; not set there means not given.
            None => build_args.extend(std::env::var(text).ok().map(|value| (text.to_owned(), value))),
        }
    }
    let tag = |text: &str| -> Result<Reference, CliError> { Ok(text.parse::<Reference>()?.with_default_tag()) };
    let tags = m.list("tag").map(tag).collect::<Result<Vec<_>, _>>()?;
    let wanted = m.given("platform").or_else(|| variable("DOCKER_DEFAULT_PLATFORM"));
    let epoch = build_args.iter().find(|(k, _)| k == "SOURCE_DATE_EPOCH").map(|(_, v)| v.clone());
    let epoch = epoch.or_else(|| variable("SOURCE_DATE_EPOCH"));
    let epoch = epoch.map(|text| {
        text.parse().map_err(|_| invalid(format!("invalid SOURCE_DATE_EPOCH: {text:?} is no number of seconds")))
    });
    Ok(BuildOptions {
        tags,
        build_args,
        labels: m.each("label", grammar::label)?,
        no_cache: m.on("no-cache"),
        pull: m.on("pull"),
        target: m.given("target"),
        network: network(m.text("network").unwrap_or_default())?,
        platform: wanted.as_deref().map(platform).transpose()?,
        source_date_epoch: epoch.transpose()?,
        extra_hosts: m
            .each("add-host", grammar::add_host)?
            .into_iter()
            .map(|h| (h.name, h.address.map_or("host-gateway".to_owned(), |a| a.to_string())))
            .collect(),
    })
}

fn network(text: &str) -> Result<String, CliError> {
    match text {
        "" | "default" | "bridge" => Ok(String::new()),
        "host" | "none" => Ok(text.to_owned()),
        other => Err(CliError::flag(format!("--network {other} is not supported yet"))),
    }
}
