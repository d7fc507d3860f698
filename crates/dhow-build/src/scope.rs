//! Variables: which are set where, and what a word expands to.

use crate::check::SYNTAX_ARG;
use crate::error::BuildError;
use crate::options::BuildOptions;
use dhow_dockerfile::{ArgDecl, Expander, Expansion, automatic_args, checks};
use dhow_types::Platform;

/// `PATH` of an image that has none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Build arguments that need no `ARG`: they reach `RUN`, but neither history nor cache keys.
pub(crate) const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Build argument that sets the host name of `RUN`.
pub(crate) const HOSTNAME_ARG: &str = "BUILDKIT_SANDBOX_HOSTNAME";
/// Arguments that are declared for scanners and are in no environment.
const SCAN_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
/// Build argument that sets the latest time stamp.
pub(crate) const EPOCH_ARG: &str = "SOURCE_DATE_EPOCH";

/// Build arguments that speak to the builder itself. Others of BuildKit's have no effect here and are reported like any
/// that nobody uses.
fn is_reserved(name: &str) -> bool {
    [HOSTNAME_ARG, EPOCH_ARG, checks::CHECK_ARG, SYNTAX_ARG].contains(&name) || PROXY_ARGS.contains(&name)
}

/// Arguments outside of stages, and what the caller gave.
#[derive(Debug, Clone)]
pub(crate) struct Globals {
    escape: char,
    given: Vec<(String, String)>,
    values: Vec<(String, String)>,
}

/// Sets a name, in place when it is there.
pub(crate) fn set(list: &mut Vec<(String, String)>, name: &str, value: String) {
    match list.iter_mut().find(|(n, _)| n == name) {
        Some(entry) => entry.1 = value,
        None => list.push((name.to_owned(), value)),
    }
}

fn get<'a>(list: &'a [(String, String)], name: &str) -> Option<&'a str> {
    list.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

impl Globals {
    /// The automatic arguments, then the `ARG`s before the first `FROM`. `last_stage` is the name of the last stage.
    pub(crate) fn new(
        escape: char,
        args: &[ArgDecl],
        last_stage: Option<&str>,
        options: &BuildOptions,
    ) -> Result<Self, BuildError> {
        let target = options.platform.clone().unwrap_or_else(Platform::host);
        let mut values = automatic_args(&target, options.target.as_deref(), last_stage);
        for (name, value) in &options.build_args {
            if values.iter().any(|(n, _)| n == name) {
                set(&mut values, name, value.clone());
            }
        }
        let mut globals = Self { escape, given: options.build_args.clone(), values };
        for arg in args {
            if let Some(value) = globals.given(&arg.name) {
                let value = value.to_owned();
                set(&mut globals.values, &arg.name, value);
            } else if let Some(default) = &arg.default {
                let value = globals.expand(default)?.text;
                set(&mut globals.values, &arg.name, value);
            }
        }
        Ok(globals)
    }

    /// A build argument as the caller gave it.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        get(&self.given, name)
    }

    /// Expands a word of `FROM`.
    pub(crate) fn expand(&self, text: &str) -> Result<Expansion, BuildError> {
        let lookup = |name: &str| get(&self.values, name).map(str::to_owned);
        Ok(Expander::new(self.escape, &lookup).expand(text)?)
    }

    /// Names given by the caller that nothing declares.
    pub(crate) fn unused<'a>(&'a self, declared: &[&str]) -> Vec<&'a str> {
        self.given
            .iter()
            .map(|(n, _)| n.as_str())
            .filter(|n| !declared.contains(n) && !is_reserved(n) && get(&self.values, n).is_none())
            .collect()
    }

    /// Proxy settings given without `ARG`.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = &(String, String)> {
        self.given.iter().filter(|(n, _)| PROXY_ARGS.contains(&n.as_str()))
    }
}

/// Variables of a stage: its `ARG`s. The `ENV`s live in the image config.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// Declared arguments in order; `None` is declared but unset.
    args: Vec<(String, Option<String>)>,
}

impl Scope {
    /// Value of a name: `ENV` beats `ARG`, whatever the order.
    fn lookup(&self, env: &[String], name: &str) -> Option<String> {
        let of_env = env.iter().rev().find_map(|e| e.split_once('=').filter(|(n, _)| *n == name));
        let of_arg = || self.args.iter().rev().find(|(n, _)| n == name).and_then(|(_, v)| v.clone());
        of_env.map(|(_, v)| v.to_owned()).or_else(of_arg)
    }

    /// An expander over this scope.
    pub(crate) fn expand(&self, globals: &Globals, env: &[String], text: &str) -> Result<Expansion, BuildError> {
        let lookup = |name: &str| self.lookup(env, name);
        Ok(Expander::new(globals.escape, &lookup).expand(text)?)
    }

    /// Expands the body of a here-document: quotes are ordinary characters.
    pub(crate) fn expand_body(&self, env: &[String], text: &str) -> Result<String, BuildError> {
        let lookup = |name: &str| self.lookup(env, name);
        Ok(Expander::new('\\', &lookup).plain_quotes().expand(text)?.text)
    }

    /// `ARG`: the caller's value, else the default, else the global value. Returns the effective value.
    pub(crate) fn declare(
        &mut self,
        globals: &Globals,
        env: &[String],
        arg: &ArgDecl,
    ) -> Result<Option<String>, BuildError> {
        let value = match (globals.given(&arg.name), &arg.default) {
            (Some(given), _) => Some(given.to_owned()),
            (None, Some(default)) => Some(self.expand(globals, env, default)?.text),
            (None, None) => get(&globals.values, &arg.name).map(str::to_owned),
        };
        match self.args.iter_mut().find(|(n, _)| *n == arg.name) {
            Some(entry) => entry.1.clone_from(&value),
            None => self.args.push((arg.name.clone(), value.clone())),
        }
        Ok(value)
    }

    /// Arguments with a value, as `RUN` sees them: an `ENV` of the same name wins.
    pub(crate) fn effective(&self, env: &[String]) -> Vec<(String, String)> {
        let value = |name: &String| self.lookup(env, name).map(|v| (name.clone(), v));
        let names = self.args.iter().map(|(name, _)| name);
        names.filter(|n| !SCAN_ARGS.contains(&n.as_str())).filter_map(value).collect()
    }

    /// Declared names with their values, for the history of `RUN`.
    pub(crate) fn declared(&self, env: &[String]) -> Vec<(String, String)> {
        self.args.iter().map(|(n, _)| (n.clone(), self.lookup(env, n).unwrap_or_default())).collect()
    }
}

/// Sets `NAME=VALUE` in a config's environment, in place when the name is there.
pub(crate) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|e| e.split_once('=').is_some_and(|(n, _)| n == name)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(name: &str, default: Option<&str>) -> ArgDecl {
        ArgDecl { name: name.to_owned(), default: default.map(str::to_owned) }
    }

    #[test]
    fn precedence() {
        let options = BuildOptions { build_args: vec![("G".into(), "given".into())], ..BuildOptions::default() };
        let globals = Globals::new('\\', &[arg("G", Some("x")), arg("H", Some("$G-h"))], None, &options).unwrap();
        assert_eq!(globals.expand("$G $H $NOPE").unwrap().text, "given given-h ");
        let mut scope = Scope::default();
        let env = vec!["E=env".to_owned()];
        assert_eq!(scope.expand(&globals, &env, "$H").unwrap().text, "", "globals are not visible in stages");
        assert_eq!(scope.declare(&globals, &env, &arg("H", None)).unwrap().as_deref(), Some("given-h"));
        assert_eq!(scope.declare(&globals, &env, &arg("E", Some("arg"))).unwrap().as_deref(), Some("arg"));
        assert_eq!(scope.declare(&globals, &env, &arg("U", None)).unwrap(), None);
        scope.declare(&globals, &env, &arg(SCAN_ARGS[0], Some("true"))).unwrap();
        assert_eq!(scope.declare(&globals, &env, &arg("TARGETOS", None)).unwrap().as_deref(), Some("linux"));
        assert_eq!(scope.expand(&globals, &env, "$H $E ${U:-unset}").unwrap().text, "given-h env unset");
        let names: Vec<String> = scope.effective(&env).into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(names, ["H=given-h", "E=env", "TARGETOS=linux"]);
        assert_eq!(globals.unused(&[]), Vec::<&str>::new());
    }

    #[test]
    fn env_is_replaced_in_place() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_env(&mut env, "A", "3");
        set_env(&mut env, "C", "");
        assert_eq!(env, ["A=3", "B=2", "C="]);
    }
}
