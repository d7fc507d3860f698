//! `push`.

use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use crate::progress::{Lines, Target};
use dhow_engine::Engine;
use dhow_types::Reference;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    example: "dhow push localhost:5000/helloworld",
    flags: &[&[
        Flag::switch("all-tags", 'a', "Push all tags of an image to the repository"),
        Flag::value("platform", '\0', "string", "").missing(),
        Flag::switch("quiet", 'q', "Suppress verbose output"),
        Flag::value("disable-content-trust", '\0', "bool", "").no_effect("there is no content trust"),
    ]],
    args: (1, Some(1)),
    ..Command::new("push", &["image push"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let reference: Reference = m.args.first().map_or("", String::as_str).parse()?;
    let quiet = m.on("quiet");
    let engine = globals.engine()?;
    let mut wanted = Vec::new();
    if m.on("all-tags") {
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(super::invalid("tag can't be used with --all-tags/-a"));
        }
        let images = engine.images()?;
        let tags = images.into_iter().flat_map(|i| i.references);
        wanted.extend(tags.filter(|r| r.repository() == reference.repository()));
        if wanted.is_empty() {
            let message = format!("An image does not exist locally with the tag: {}", reference.familiar_repository());
            return Err(CliError::failed(dhow_types::ErrorKind::NotFound, message));
        }
    } else {
        if reference.tag().is_none() && !quiet {
            out::print("Using default tag: latest\n")?;
        }
        wanted.push(reference.clone().with_default_tag());
    }
    for reference in &wanted {
        push(&engine, reference, quiet)?;
    }
    Ok(0)
}

fn push(engine: &Engine, reference: &Reference, quiet: bool) -> Result<(), CliError> {
    let lines = Lines::new(if quiet { Target::Nowhere } else { Target::Stdout });
    // Every line of Docker's output, the digest included, comes as an event.
    engine.push(reference, &lines)?;
    if quiet {
        out::print(&format!("{reference}\n"))?;
    }
    Ok(())
}
