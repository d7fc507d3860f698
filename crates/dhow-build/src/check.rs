//! The build checks of a Dockerfile, with what a build knows: its arguments, its base images, its ignore list.

use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::output::{BuildEvent, BuildOutput};
use crate::plan::{Base, Plan};
use dhow_dockerfile::checks::{self, Stages};
use dhow_dockerfile::{BaseFacts, Dockerfile, IgnoreList, Inputs, check_syntax};

/// Build argument that names another frontend.
pub(crate) const SYNTAX_ARG: &str = "BUILDKIT_SYNTAX";

/// Reports what the checks find in the stages of a plan. They are an error when the Dockerfile, or build argument
/// [`checks::CHECK_ARG`], says so. The one place where a build's findings come from.
pub fn report(
    file: &Dockerfile,
    options: &BuildOptions,
    plan: &Plan,
    ignore: Option<&IgnoreList>,
    output: &mut dyn BuildOutput,
) -> Result<(), BuildError> {
    let invalid = |e: &dyn std::error::Error| BuildError::Invalid(e.to_string());
    if let Some((_, image)) = options.build_args.iter().rev().find(|(name, _)| name == SYNTAX_ARG) {
        check_syntax(image).map_err(|e| invalid(&e))?;
    }
    let base = |number: usize, _: &str| {
        let stage = plan.stages.iter().find(|s| s.number == number)?;
        let Base::Image(image) = &stage.base else { return None };
        let config = &image.config.config;
        let has_shell = config.shell.as_ref().is_some_and(|s| !s.is_empty());
        Some(BaseFacts { env: config.env.clone(), has_shell })
    };
    let inputs = Inputs {
        build_args: &options.build_args,
        target: options.target.as_deref(),
        platform: options.platform.as_ref(),
        ignore: ignore.filter(|list| !list.is_empty()),
        base: &base,
    };
    // What ends the checks early ends the build, too, and is said there.
    let checked = checks::check(file, &inputs, Stages::Needed).map_err(|e| invalid(&e))?;
    for finding in &checked.findings {
        output.event(&BuildEvent::Warning { line: finding.span.start, text: &finding.text() });
    }
    match checked.violation() {
        Some(violation) => Err(BuildError::Invalid(violation)),
        None => Ok(()),
    }
}
