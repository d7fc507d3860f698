//! `inspect`, `container inspect`, `image inspect`.

use crate::command::Command;
use crate::error::{CliError, complain};
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::GrammarError;
use dhow_docker::inspect::{CONTAINER_SHAPE, IMAGE_SHAPE, pretty};
use dhow_docker::template::{Shape, Template};
use dhow_engine::{Engine, EngineError, view};
use dhow_types::{Categorized, ErrorKind};
use serde_json::Value;

const FORMAT: Flag = Flag::value("format", 'f', "string", "Format output using a custom template: json, TEMPLATE");
const SIZE: Flag = Flag::switch("size", 's', "Display total file sizes if the type is container");

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Return low-level information on containers and images",
    example: "dhow inspect --format '{{ .State.Pid }}' web",
    flags: &[&[
        FORMAT,
        SIZE,
        Flag::value("type", '\0', "string", "Only inspect objects of the given type (container, image)"),
    ]],
    args: (1, None),
    ..Command::new("inspect", &[], |globals, m| inspect(globals, m, m.text("type").unwrap_or_default()))
};

pub(crate) static CONTAINER: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Display detailed information on one or more containers",
    example: "dhow container inspect web",
    flags: &[&[FORMAT, SIZE]],
    args: (1, None),
    ..Command::new("container inspect", &[], |globals, m| inspect(globals, m, "container"))
};

pub(crate) static IMAGE: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Display detailed information on one or more images",
    example: "dhow image inspect --format '{{.Config.Cmd}}' helloworld",
    flags: &[&[FORMAT, Flag::value("platform", '\0', "string", "").missing()]],
    args: (1, None),
    ..Command::new("image inspect", &[], |globals, m| inspect(globals, m, "image"))
};

fn inspect(globals: &Globals, m: &Matches, kind: &str) -> Result<i32, CliError> {
    if !matches!(kind, "" | "container" | "image") {
        let known = ["network", "volume", "plugin", "node", "service", "secret", "config", "task"];
        return Err(match known.contains(&kind) {
            true => CliError::flag(format!("--type {kind} is not supported yet")),
            false => CliError::flag(format!("{kind:?} is not a valid value for --type")),
        });
    }
    let format = m.given("format");
    let template = match format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text).map_err(template_error)?),
    };
    let engine = globals.engine()?;
    let mut code = 0;
    let mut documents = Vec::new();
    let mut lines = String::new();
    for name in &m.args {
        match look_up(&engine, name, kind, m.on("size")) {
            Ok((document, shape)) => match (&template, &format) {
                (Some(template), _) => {
                    lines.push_str(&(template.render(&document, shape).map_err(template_error)? + "\n"))
                }
                (None, Some(_)) => lines.push_str(&format!("{document}\n")),
                (None, None) => documents.push(document),
            },
            Err(error) => {
                // What was found before comes first, as Docker prints it.
                code = 1;
                if format.is_some() && lines.is_empty() {
                    lines.push('\n');
                }
                complain(&error);
            }
        }
    }
    match format {
        Some(_) => out::print(&lines)?,
        None => out::print(&pretty(&documents))?,
    }
    Ok(code)
}

fn template_error(error: GrammarError) -> CliError {
    CliError::Template(match error {
        GrammarError::Template(text) => format!("template parsing error: {text}"),
        other => other.to_string(),
    })
}

/// A container or an image, in this order.
fn look_up(engine: &Engine, name: &str, kind: &str, size: bool) -> Result<(Value, &'static Shape), CliError> {
    if kind != "image" {
        match engine.find(name) {
            Ok(id) => {
                let container = engine.container(&id)?;
                let mut document = view::inspect_container(engine, &container);
                if size {
                    let (writable, all) = engine.container_sizes(&container);
                    (document.size_rw, document.size_root_fs) = (Some(writable), Some(all));
                }
                return Ok((to_value(&document)?, CONTAINER_SHAPE));
            }
            Err(EngineError::NoSuchContainer(_)) if kind.is_empty() => {}
            Err(e) => return Err(e.into()),
        }
    }
    match engine.image(name) {
        Ok(image) => Ok((to_value(&view::inspect_image(engine, &image))?, IMAGE_SHAPE)),
        Err(e) if kind.is_empty() && matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
            Err(EngineError::NoSuchObject(name.to_owned()).into())
        }
        Err(e) => Err(e.into()),
    }
}

fn to_value(document: &impl serde::Serialize) -> Result<Value, CliError> {
    let failed = |e| CliError::failed(ErrorKind::Internal, format!("cannot write the document: {e}"));
    serde_json::to_value(document).map_err(failed)
}
