//! Single instructions applied to a config: `commit --change`, `import --change`.

use super::metadata::Metadata;
use super::stage::StageState;
use crate::copyspec;
use crate::error::BuildError;
use crate::options::BuildOptions;
use crate::scope::Globals;
use dhow_dockerfile::{Command, parse_trigger};
use dhow_oci::image::{ExecConfig, ImageConfig};
use dhow_types::Platform;

/// Applies one Dockerfile instruction to a config. Only those that change nothing but the config are allowed, as in Docker:
/// CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR.
pub fn apply_change(config: &mut ExecConfig, text: &str) -> Result<(), BuildError> {
    let instruction = match text.trim_start().get(..7) {
        // Triggers cannot be triggered, but can be set here.
        Some(word) if word.eq_ignore_ascii_case("onbuild") => {
            let trigger = text.trim_start().get(7..).unwrap_or_default().trim();
            parse_trigger(trigger)?;
            config.on_build.push(trigger.to_owned());
            return Ok(());
        }
        _ => parse_trigger(text)?,
    };
    let mut image = ImageConfig::scratch(&Platform::host());
    image.config = std::mem::take(config);
    let mut state = StageState::new(image);
    let result = change(&mut state, &instruction.command);
    *config = state.config.config;
    result
}

fn change(state: &mut StageState, command: &Command) -> Result<(), BuildError> {
    let globals = Globals::new('\\', &[], None, &BuildOptions::default())?;
    match command {
        Command::Run(_) | Command::Copy(_) | Command::Add(_) | Command::Arg(_) | Command::From(_) => {
            Err(BuildError::Invalid(format!("{} is not a valid change command", command.name().to_lowercase())))
        }
        Command::Workdir(path) => {
            let path = state.scope.expand(&globals, state.env(), path)?.text;
            state.config.config.working_dir = copyspec::absolute(state.workdir(), &path);
            Ok(())
        }
        other => {
            // The container's command stays when only the entry point changes.
            state.cmd_set = true;
            Metadata { globals: &globals, warnings: Vec::new() }.apply(state, other, 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes() {
        let mut config = ExecConfig { env: vec!["A=1".into()], cmd: Some(vec!["c".into()]), ..ExecConfig::default() };
        for text in [
            "ENV B=$A-2",
            "entrypoint [\"/e\"]",
            "EXPOSE 80",
            "LABEL k=v",
            "WORKDIR /a",
            "WORKDIR b",
            "USER u",
            "VOLUME /v",
            "ONBUILD RUN x",
            "STOPSIGNAL KILL",
            "HEALTHCHECK NONE",
        ] {
            apply_change(&mut config, text).unwrap_or_else(|e| panic!("{text}: {e}"));
        }
        assert_eq!(config.env, ["A=1", "B=1-2"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/a/b", "u"));
        assert_eq!(config.entrypoint, Some(vec!["/e".to_owned()]));
        assert_eq!(config.cmd, Some(vec!["c".to_owned()]));
        assert_eq!(config.on_build, ["RUN x"]);
        for bad in ["RUN x", "FROM y", "COPY a b", "NOPE", "", "ENV", "ONBUILD", "ENV a=1\nENV b=2"] {
            assert!(apply_change(&mut config, bad).is_err(), "{bad:?}");
        }
        apply_change(&mut config, "CMD x").unwrap();
        assert_eq!(config.cmd, Some(vec!["/bin/sh".to_owned(), "-c".into(), "x".into()]));
    }
}
