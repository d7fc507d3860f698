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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Said(Vec<String>);

    impl BuildOutput for Said {
        fn event(&mut self, event: &BuildEvent<'_>) {
            if let BuildEvent::Warning { line, text } = event {
                self.0.push(format!("{line}: {text}"));
            }
        }
    }

    fn reported(text: &str, args: &[(&str, &str)]) -> (Vec<String>, Result<(), String>) {
        let file = Dockerfile::parse(text.as_bytes()).unwrap();
        let build_args = args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let options = BuildOptions { build_args, ..BuildOptions::default() };
        let plan = Plan { stages: Vec::new(), total_steps: 0 };
        let mut said = Said::default();
        let result = report(&file, &options, &plan, None, &mut said).map_err(|e| e.to_string());
        (said.0, result)
    }

    #[test]
    fn findings_are_warnings_or_errors() {
        let finding = "2: MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)";
        let text = "FROM scratch\nMAINTAINER me\n";
        assert_eq!(reported(text, &[]), (vec![finding.to_owned()], Ok(())));
        let violation = Err("lint violation found for rules: MaintainerDeprecated".to_owned());
        let strict = [(checks::CHECK_ARG, "error=true")];
        assert_eq!(reported(text, &strict), (vec![finding.to_owned()], violation));
        assert_eq!(reported(text, &[(checks::CHECK_ARG, "skip=all;error=true")]), (Vec::new(), Ok(())));
    }

    #[test]
    fn other_frontends_are_refused() {
        assert_eq!(reported("FROM scratch\n", &[(SYNTAX_ARG, "docker/dockerfile:1.7")]).1, Ok(()));
        let refused = Err("the Dockerfile frontend \"me/toml\" cannot be run".to_owned());
        assert_eq!(reported("FROM scratch\n", &[(SYNTAX_ARG, "me/toml")]).1, refused);
    }
}
