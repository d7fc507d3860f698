//! `build`, and the small commands around it.

mod buildx;
mod cache;
mod call;
mod context;
mod flags;
mod grammar;
mod options;
mod progress;

#[cfg(test)]
pub(crate) use buildx::GROUP_FLAGS;
pub(crate) use buildx::{INSPECT, LS, USE, VERSION, check_group_flags};
pub(crate) use cache::{DU, PRUNE, PRUNE_X, prune_all};

use crate::command::Command;
use crate::error::CliError;
use crate::flags::Matches;
use crate::globals::Globals;
use crate::out;
use call::Call;
use dhow_dockerfile::{BaseFacts, Inputs};
use dhow_engine::{BuildContext, BuildOptions, BuildRequest, BuildSpec, DockerfileSource};
use dhow_types::{Digest, Reference};
use progress::Mode;
use std::path::Path;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] PATH | URL | -",
    about: "Build an image from a Dockerfile",
    example: "dhow build -t helloworld .",
    flags: &[flags::FLAGS],
    args: (1, Some(1)),
    sealed: true,
    ..Command::new("build", &["image build", "builder build", "buildx build", "buildx b"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let mode = Mode::of(m)?;
    let options = options::options(m, &globals.config()?)?;
    let request = options::request(m)?;
    if !request.ssh.is_empty() {
        return Err(CliError::flag("--ssh is not supported yet"));
    }
    let typed = m.args.first().map_or("", String::as_str);
    let (context, dockerfile) = context::sources(typed, m.text("file"))?;
    let call = if m.on("check") { Some(Call::CHECK) } else { Call::parse(m.text("call").unwrap_or_default())? };
    if let Some(call) = call {
        return answer(globals, call, m.text("file"), (context, dockerfile), &options, &request);
    }
    let to_stdout = request.stdout.is_some();
    let tags: Vec<String> = options.tags.iter().map(Reference::familiar).collect();
    let engine = globals.engine()?;
    let mut view = mode.begin();
    let spec = BuildSpec { context, dockerfile, options, request, progress: Some(view.progress) };
    let built = engine.build(spec, view.output.as_mut());
    // The view's last picture comes before anything else that is said.
    drop(view.output);
    let image = built?.image;
    if let Some(path) = m.given("iidfile") {
        write_id(&path, &image)?;
    }
    if to_stdout {
        // It has the result itself.
        return Ok(0);
    }
    match mode {
        Mode::Quiet => out::print(&format!("{image}\n"))?,
        Mode::Plain | Mode::Tty => {
            let tagged: String = tags.iter().map(|t| format!("Successfully tagged {t}\n")).collect();
            out::print(&format!("Successfully built {}\n{tagged}", image.short()))?;
        }
        // Programs read the metadata file.
        Mode::Json | Mode::Nothing => {}
    }
    Ok(0)
}

/// `--check` and `--call`: nothing is built.
fn answer(
    globals: &Globals,
    call: Call,
    file: Option<&str>,
    (context, dockerfile): (BuildContext, DockerfileSource),
    options: &BuildOptions,
    request: &BuildRequest,
) -> Result<i32, CliError> {
    let engine = globals.engine()?;
    let (source, ignore) = engine.read_dockerfile(context, dockerfile, request)?;
    let facts = |_stage: usize, name: &str| {
        let (env, has_shell) = engine.image_facts(name)?;
        Some(BaseFacts { env, has_shell })
    };
    let inputs = Inputs {
        build_args: &options.build_args,
        target: options.target.as_deref(),
        platform: options.platform.as_ref(),
        ignore: ignore.as_ref(),
        base: &facts,
    };
    let answer = call::answer(call, &source, file.filter(|f| !f.is_empty()).unwrap_or("Dockerfile"), &inputs)?;
    out::print(&answer.text)?;
    answer.error.map_or(Ok(answer.code), Err)
}

fn write_id(path: &str, image: &Digest) -> Result<(), CliError> {
    use std::io::Write;
    super::save::to_file(Path::new(path), |mut file| {
        file.write_all(image.to_string().as_bytes()).map_err(CliError::io(format!("cannot write {path}")))
    })
}
