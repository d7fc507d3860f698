//! `import`.

use super::pull::platform;
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_types::{ErrorKind, Reference};
use std::fs::File;
use std::io::Read;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    about: "Import the contents from a tarball to create a filesystem image",
    example: "dhow import -c 'CMD [\"/bin/sh\"]' rootfs.tar base:latest",
    flags: &[&[
        Flag::list("change", 'c', "Apply Dockerfile instruction to the created image"),
        Flag::value("message", 'm', "string", "Set commit message for imported image"),
        Flag::value("platform", '\0', "string", "Set platform of the image"),
    ]],
    args: (1, Some(2)),
    ..Command::new("import", &["image import"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let source = m.args.first().map_or("", String::as_str);
    let reference = match m.args.get(1) {
        Some(text) => Some(text.parse::<Reference>()?),
        None => None,
    };
    let platform = m.given("platform").as_deref().map(platform).transpose()?;
    let mut input: Box<dyn Read> = match source {
        "-" => Box::new(std::io::stdin().lock()),
        url if url.starts_with("http://") || url.starts_with("https://") => {
            return Err(CliError::failed(ErrorKind::Unsupported, "import from a URL is not supported yet")
                .with_hint(format!("fetch it yourself: curl -L {url} | dhow import -")));
        }
        path => Box::new(File::open(path).map_err(CliError::io(format!("open {path}")))?),
    };
    let changes: Vec<String> = m.list("change").map(str::to_owned).collect();
    let message = m.text("message").map_or_else(|| format!("Imported from {source}"), str::to_owned);
    let id = globals.engine()?.import(&mut input, reference.as_ref(), &changes, &message, platform.as_ref())?;
    out::print(&format!("{id}\n"))?;
    Ok(0)
}
