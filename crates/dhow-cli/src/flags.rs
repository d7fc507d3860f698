//! The command line's grammar: Docker's, which is that of Go's pflag.
//!
//! Commands describe their flags in static tables; nothing is built at start, so parsing costs microseconds on the path
//! of `run` where an argument parser with a command tree costs as much as the container. The tables are also what help
//! texts, the list of what is missing, and the compatibility document are made from.
//!
//! The rules: `--flag value` and `--flag=value`; a switch takes a value only with `=`; shorts combine (`-it`), the last
//! may carry its value (`-p80:80`, `-p 80:80`, `-p=80:80`); `--` ends flags; a command may end them at its first
//! positional argument. A flag given twice counts for its last value, unless it is a list.

use crate::error::CliError;
use dhow_docker::GrammarError;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// One value; the word names it in help.
    Value(&'static str),
    /// A value each time.
    List(&'static str),
}

/// How far a flag is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// Done.
    Done,
    /// Accepted because it has nothing to change here; the text says why.
    NoEffect(&'static str),
    /// Understood here, refused by the engine.
    Later,
    /// Known, and refused when given a value other than the one that asks for nothing.
    Missing(&'static str),
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    pub(crate) support: Support,
    /// The name under which values are kept, for aliases; hidden from help when it differs from `long`.
    pub(crate) alias_of: Option<&'static str>,
}

impl Flag {
    const fn new(long: &'static str, short: char, kind: Kind, help: &'static str) -> Self {
        let short = if short == '\0' { None } else { Some(short) };
        Self { long, short, kind, help, support: Support::Done, alias_of: None }
    }

    /// A switch.
    pub(crate) const fn switch(long: &'static str, short: char, help: &'static str) -> Self {
        Self::new(long, short, Kind::Switch, help)
    }

    /// One value.
    pub(crate) const fn value(long: &'static str, short: char, name: &'static str, help: &'static str) -> Self {
        Self::new(long, short, Kind::Value(name), help)
    }

    /// A list.
    pub(crate) const fn list(long: &'static str, short: char, help: &'static str) -> Self {
        Self::new(long, short, Kind::List("list"), help)
    }

    /// Accepted without effect.
    pub(crate) const fn no_effect(mut self, why: &'static str) -> Self {
        self.support = Support::NoEffect(why);
        self
    }

    /// Known, not done.
    pub(crate) const fn missing(mut self) -> Self {
        self.support = Support::Missing("");
        self
    }

    /// Understood, but the engine does not do it yet and says so.
    pub(crate) const fn later(mut self) -> Self {
        self.support = Support::Later;
        self
    }

    /// Known, not done; this value asks for nothing and is accepted.
    pub(crate) const fn missing_unless(mut self, harmless: &'static str) -> Self {
        self.support = Support::Missing(harmless);
        self
    }

    /// Another name of a flag.
    pub(crate) const fn alias_of(mut self, long: &'static str) -> Self {
        self.alias_of = Some(long);
        self
    }

    fn key(&self) -> &'static str {
        self.alias_of.unwrap_or(self.long)
    }

    /// `-m, --memory`, as errors name it.
    pub(crate) fn shown(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}

/// A flag table in parts, so that commands can share some.
pub(crate) type Tables = &'static [&'static [Flag]];

/// What was typed.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    values: Vec<(&'static Flag, String)>,
    /// Positional arguments.
    pub(crate) args: Vec<String>,
    /// `--help` was among the flags.
    pub(crate) help: bool,
}

/// Parses the arguments of one command.
pub(crate) fn parse(tables: Tables, interspersed: bool, args: Vec<String>) -> Result<Matches, String> {
    let mut out = Matches::default();
    let mut rest = args.into_iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            out.args.extend(rest);
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            parse_long(tables, long, &mut rest, &mut out)?;
        } else if arg.len() > 1 && arg.starts_with('-') {
            parse_shorts(tables, &arg[1..], &mut rest, &mut out)?;
        } else {
            out.args.push(arg);
            if !interspersed {
                out.args.extend(rest);
                break;
            }
        }
    }
    Ok(out)
}

fn find(tables: Tables, test: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
    tables.iter().flat_map(|t| t.iter()).find(|f| test(f))
}

fn parse_long(
    tables: Tables,
    text: &str,
    rest: &mut impl Iterator<Item = String>,
    out: &mut Matches,
) -> Result<(), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(format!("bad flag syntax: --{text}"));
    }
    let Some(flag) = find(tables, |f| f.long == name) else {
        if name == "help" {
            out.help = true;
            return Ok(());
        }
        let known = tables.iter().flat_map(|t| t.iter()).map(|f| f.long);
        let hint = dhow_docker::text::suggestion(name, known).map(|s| format!("; did you mean --{s}?"));
        return Err(format!("unknown flag: --{name}{}", hint.unwrap_or_default()));
    };
    let value = match (flag.kind, value) {
        (_, Some(value)) => value,
        (Kind::Switch, None) => "true".to_owned(),
        (_, None) => rest.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
    };
    take(flag, value, out)
}

fn parse_shorts(
    tables: Tables,
    text: &str,
    rest: &mut impl Iterator<Item = String>,
    out: &mut Matches,
) -> Result<(), String> {
    for (at, c) in text.char_indices() {
        let Some(flag) = find(tables, |f| f.short == Some(c)) else {
            if c == 'h' {
                out.help = true;
                return Ok(());
            }
            return Err(format!("unknown shorthand flag: {c:?} in -{text}"));
        };
        let tail = &text[at + c.len_utf8()..];
        if flag.kind == Kind::Switch {
            match tail.strip_prefix('=') {
                Some(value) => return take(flag, value.to_owned(), out),
                None => take(flag, "true".to_owned(), out)?,
            }
            continue;
        }
        let value = match tail.strip_prefix('=').unwrap_or(tail) {
            "" if !tail.starts_with('=') => {
                rest.next().ok_or_else(|| format!("flag needs an argument: {c:?} in -{text}"))?
            }
            value => value.to_owned(),
        };
        return take(flag, value, out);
    }
    Ok(())
}

fn take(flag: &'static Flag, value: String, out: &mut Matches) -> Result<(), String> {
    if flag.kind == Kind::Switch && switch_value(&value).is_none() {
        return Err(format!(
            "invalid argument {value:?} for {:?} flag: strconv.ParseBool: parsing {value:?}: invalid syntax",
            flag.shown()
        ));
    }
    if let Support::Missing(harmless) = flag.support {
        let asks_nothing = match flag.kind {
            Kind::Switch => switch_value(&value) == Some(false),
            _ => !harmless.is_empty() && harmless.split('|').any(|h| h == value),
        };
        return if asks_nothing { Ok(()) } else { Err(format!("--{} is not supported yet", flag.long)) };
    }
    out.values.push((flag, value));
    Ok(())
}

/// Go's `strconv.ParseBool`.
fn switch_value(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

impl Matches {
    fn last(&self, long: &str) -> Option<(&'static Flag, &str)> {
        self.values.iter().rev().find(|(f, _)| f.key() == long).map(|(f, v)| (*f, v.as_str()))
    }

    /// A switch; false when not given.
    pub(crate) fn on(&self, long: &str) -> bool {
        self.switch(long).unwrap_or(false)
    }

    /// A switch; `None` when not given.
    pub(crate) fn switch(&self, long: &str) -> Option<bool> {
        self.last(long).and_then(|(_, v)| switch_value(v))
    }

    /// The last value.
    pub(crate) fn text(&self, long: &str) -> Option<&str> {
        self.last(long).map(|(_, v)| v)
    }

    /// The last value, if it is not empty.
    pub(crate) fn given(&self, long: &str) -> Option<String> {
        self.text(long).filter(|t| !t.is_empty()).map(str::to_owned)
    }

    /// Every value.
    pub(crate) fn list<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(move |(f, _)| f.key() == long).map(|(_, v)| v.as_str())
    }

    /// The last value in a grammar.
    pub(crate) fn parsed<T>(
        &self,
        long: &str,
        grammar: impl FnOnce(&str) -> Result<T, GrammarError>,
    ) -> Result<Option<T>, CliError> {
        match self.last(long) {
            Some((flag, value)) => grammar(value).map(Some).map_err(|e| invalid(flag, value, &e)),
            None => Ok(None),
        }
    }

    /// The last value as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, long: &str) -> Result<Option<T>, CliError> {
        self.parsed(long, |text| {
            let message = || GrammarError::Worded(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
            text.parse().map_err(|_| message())
        })
    }

    /// Every value in a grammar.
    pub(crate) fn each<T>(
        &self,
        long: &str,
        mut grammar: impl FnMut(&str) -> Result<T, GrammarError>,
    ) -> Result<Vec<T>, CliError> {
        let values = self.values.iter().filter(|(f, _)| f.key() == long);
        values.map(|(flag, value)| grammar(value).map_err(|e| invalid(flag, value, &e))).collect()
    }
}

fn invalid(flag: &Flag, value: &str, error: &GrammarError) -> CliError {
    match error {
        GrammarError::Unsupported(what) => CliError::flag(format!("{what} is not supported yet")),
        _ => CliError::flag(format!(
            "invalid argument {value:?} for {:?} flag: {}",
            flag.shown(),
            dhow_types::report(error)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Tables = &[&[
        Flag::switch("interactive", 'i', ""),
        Flag::switch("tty", 't', ""),
        Flag::list("publish", 'p', ""),
        Flag::value("network", '\0', "network", ""),
        Flag::value("net", '\0', "network", "").alias_of("network"),
        Flag::value("gpus", '\0', "gpus", "").missing(),
        Flag::value("isolation", '\0', "string", "").missing_unless("default"),
    ]];

    fn run(interspersed: bool, args: &[&str]) -> Result<Matches, String> {
        parse(TABLE, interspersed, args.iter().map(|a| (*a).to_owned()).collect())
    }

    #[test]
    fn as_pflag_reads() {
        let m =
            run(false, &["-it", "-p80:80", "-p", "81:81", "-p=82", "--net", "host", "img", "-x", "--", "y"]).unwrap();
        assert!(m.on("interactive") && m.on("tty"));
        assert_eq!(m.list("publish").collect::<Vec<_>>(), ["80:80", "81:81", "82"]);
        assert_eq!(m.text("network"), Some("host"));
        assert_eq!(m.args, ["img", "-x", "--", "y"]);
        let m = run(true, &["a", "--tty=false", "-i=0", "b", "--", "-t"]).unwrap();
        assert_eq!((m.switch("tty"), m.on("interactive")), (Some(false), false));
        assert_eq!(m.args, ["a", "b", "-t"]);
        assert_eq!(run(true, &["-", "x"]).unwrap().args, ["-", "x"]);
        assert!(run(true, &["-h"]).unwrap().help && run(true, &["--help"]).unwrap().help);
        // A switch never takes the next word.
        assert_eq!(run(true, &["-t", "false"]).unwrap().args, ["false"]);
        assert_eq!(run(true, &["--network", "a", "--network=b"]).unwrap().text("network"), Some("b"));
        assert_eq!(run(true, &["--network="]).unwrap().text("network"), Some(""));
    }

    #[test]
    fn complaints() {
        for (args, message) in [
            (&["--nope"][..], "unknown flag: --nope"),
            (&["--netwrok", "x"], "unknown flag: --netwrok; did you mean --network?"),
            (&["-ix"], "unknown shorthand flag: 'x' in -ix"),
            (&["--network"], "flag needs an argument: --network"),
            (&["-ip"], "flag needs an argument: 'p' in -ip"),
            (&["--gpus", "all"], "--gpus is not supported yet"),
            (&["--isolation", "hyperv"], "--isolation is not supported yet"),
            (&["---x"], "bad flag syntax: ---x"),
            (
                &["--tty=maybe"],
                "invalid argument \"maybe\" for \"-t, --tty\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(run(true, args).map(|m| m.args).unwrap_err(), message);
        }
        assert!(run(true, &["--isolation", "default"]).is_ok());
    }
}
