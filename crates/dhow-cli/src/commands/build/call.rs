//! `--call` and `--check`: what a Dockerfile says about itself, printed as buildx prints it. Nothing is built.

use crate::error::CliError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_dockerfile::checks::{self, Checked, Finding, Stages};
use dhow_dockerfile::{
    Dockerfile, InputError, Inputs, Outline, OutlineMount, ParseError, Span, Target, outline, targets,
};
use dhow_types::{Categorized, ErrorKind};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// What is asked for instead of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    method: Method,
    json: bool,
    /// Findings do not change the exit code.
    ignore_status: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
}

/// What to print and how to end.
#[derive(Debug)]
pub(super) struct Answer {
    /// For standard output.
    pub(super) text: String,
    /// The command fails with this after the text is printed.
    pub(super) error: Option<CliError>,
    /// Exit code when there is no error.
    pub(super) code: i32,
}

impl Call {
    /// `--check`.
    pub(super) const CHECK: Self = Self { method: Method::Check, json: false, ignore_status: false };

    /// Reads `--call=NAME[,format=json][,ignorestatus=true]`; `None` is a build.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, CliError> {
        let mut call = Self::CHECK;
        let mut name = None;
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("format", "json")) => call.json = true,
                Some(("format", "text" | "")) => call.json = false,
                Some(("ignorestatus", value)) => {
                    call.ignore_status = match value {
                        "1" | "t" | "true" | "T" | "True" | "TRUE" => true,
                        "0" | "f" | "false" | "F" | "False" | "FALSE" => false,
                        _ => return Err(CliError::flag(format!("invalid value in --call: {field}"))),
                    };
                }
                Some(_) => return Err(CliError::flag(format!("invalid field in --call: {field}"))),
                None if name.is_some() => return Err(CliError::flag(format!("invalid value of --call: {text}"))),
                None => name = Some(field),
            }
        }
        call.method = match name.unwrap_or_default() {
            "" | "build" => return Ok(None),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => {
                let message = format!("--call={other} is unknown; there are build, check, outline and targets");
                return Err(CliError::flag(message));
            }
        };
        Ok(Some(call))
    }
}

/// Answers. `path` is how messages name the Dockerfile.
pub(super) fn answer(call: Call, source: &[u8], path: &str, inputs: &Inputs) -> Result<Answer, CliError> {
    let file = || Dockerfile::parse(source).map_err(|e| of_parser(&e, source, path));
    let text = match call.method {
        Method::Check => return check(call, source, path, inputs),
        Method::Targets => {
            let list = targets(&file()?);
            if call.json { targets_json(&list, source)? } else { targets_text(&list) }
        }
        Method::Outline => {
            let found = outline(&file()?, inputs).map_err(|e| of_inputs(&e, source, path))?;
            if call.json { outline_json(&found, source)? } else { outline_text(&found) }
        }
    };
    Ok(Answer { text, error: None, code: 0 })
}

fn of_parser(error: &ParseError, source: &[u8], path: &str) -> CliError {
    let span = Span { start: error.line, end: error.end_line };
    let failed = CliError::failed(ErrorKind::Invalid, with_excerpt(&error.to_string(), source, path, Some(span)));
    match error.hint() {
        Some(hint) => failed.with_hint(hint),
        None => failed,
    }
}

fn of_inputs(error: &InputError, source: &[u8], path: &str) -> CliError {
    CliError::failed(ErrorKind::Invalid, with_excerpt(&error.message, source, path, error.span))
}

fn with_excerpt(message: &str, source: &[u8], path: &str, span: Option<Span>) -> String {
    let excerpt = span.map(|s| excerpt(source, path, s)).unwrap_or_default();
    format!("{message}\n{excerpt}").trim_end().to_owned()
}

fn check(call: Call, source: &[u8], path: &str, inputs: &Inputs) -> Result<Answer, CliError> {
    let (file, broken) = Dockerfile::parse_prefix(source);
    // Without a target every stage is looked at, not just those that the last one needs.
    let which = if inputs.target.is_some_and(|t| !t.is_empty()) { Stages::Needed } else { Stages::All };
    let checked = match &broken {
        Some(_) => checks::check_written(&file, inputs.build_args),
        None => checks::check(&file, inputs, which),
    };
    let checked = checked.map_err(|e| {
        let failed = CliError::failed(ErrorKind::Invalid, e.to_string());
        failed.with_hint(e.hint().unwrap_or_default())
    })?;
    let error = match &broken {
        Some(e) => Some((of_parser(e, source, path), e.to_string(), Some(Span { start: e.line, end: e.end_line }))),
        None => checked.error.as_ref().map(|e| (of_inputs(e, source, path), e.message.clone(), e.span)),
    };
    let text = if call.json {
        let place = error.as_ref().map(|(_, message, span)| (message.as_str(), *span));
        findings_json(&checked, source, path, place)?
    } else {
        findings_text(&checked, source, path, error.is_some())
    };
    let code = i32::from(!checked.findings.is_empty() && !call.ignore_status);
    Ok(Answer { text, error: error.map(|(e, ..)| e), code })
}

fn findings_text(checked: &Checked, source: &[u8], path: &str, failed: bool) -> String {
    let mut out = match checked.findings.len() {
        0 if failed => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        n => format!("Check complete, {n} warnings have been found!\n"),
    };
    for finding in &checked.findings {
        let Finding { rule, message, span } = finding;
        let _ = write!(out, "\nWARNING: {} - {}\n{message}\n", rule.name, rule.url);
        out.push_str(&excerpt(source, path, *span));
    }
    out
}

/// Lines around a place, as Docker's builder shows them.
fn excerpt(source: &[u8], path: &str, span: Span) -> String {
    let text = String::from_utf8_lossy(source);
    let lines: Vec<&str> = text.split('\n').collect();
    let first = span.start as usize;
    if first < 1 || first > lines.len() {
        return String::new();
    }
    let last = (span.end as usize).clamp(first, lines.len());
    // One line gets four around it, several get two.
    let wanted = if last == first { 4 } else { 2 };
    let (mut start, mut end, mut around) = (first, last, 0);
    while around < wanted {
        if start > 1 {
            start -= 1;
            around += 1;
        }
        if end < lines.len() {
            end += 1;
            around += 1;
        }
        around += 1;
    }
    let mut out = format!("{path}:{first}\n--------------------\n");
    for (number, line) in lines.iter().enumerate().map(|(i, l)| (i + 1, l)).skip(start - 1).take(end + 1 - start) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(out, " {number:>3} | {mark} {line}");
    }
    out.push_str("--------------------\n");
    out
}

/// A table as Go's tabwriter makes it: every column but the last is padded.
fn table(rows: &[Vec<String>], padding: usize) -> String {
    let width = |column: usize| rows.iter().filter_map(|r| Some(r.get(column)?.chars().count())).max().unwrap_or(0);
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                let blanks = width(column) + padding - cell.chars().count();
                out.push_str(&" ".repeat(blanks));
            }
        }
        out.push('\n');
    }
    out
}

fn targets_text(list: &[Target]) -> String {
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in list {
        let name = match (target.name.as_deref(), target.default) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.unwrap_or_default().to_owned(),
        };
        rows.push(vec![name, target.description.clone().unwrap_or_default()]);
    }
    table(&rows, 1)
}

fn outline_text(outline: &Outline) -> String {
    let mut out = String::new();
    if outline.name.is_some() || outline.description.is_some() {
        let name = outline.name.clone().unwrap_or_else(|| "(default)".to_owned());
        let mut rows = vec![vec!["TARGET:".to_owned(), name]];
        rows.extend(outline.description.clone().map(|d| vec!["DESCRIPTION:".to_owned(), d]));
        out.push_str(&table(&rows, 1));
        out.push('\n');
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec()];
        rows.extend(outline.args.iter().map(|a| {
            vec![a.name.clone(), a.value.clone().unwrap_or_default(), a.description.clone().unwrap_or_default()]
        }));
        out.push_str(&table(&rows, 3));
        out.push('\n');
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if list.is_empty() {
            continue;
        }
        let mut rows = vec![vec![title.to_owned(), "REQUIRED".to_owned()]];
        let required = |m: &OutlineMount| if m.required { "true".to_owned() } else { String::new() };
        rows.extend(list.iter().map(|m| vec![m.id.clone(), required(m)]));
        out.push_str(&table(&rows, 3));
        out.push('\n');
    }
    out
}

/// A JSON object without what is empty, as Go's `omitempty` leaves it out.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    let kept = fields.into_iter().filter(|(_, value)| !empty(value)).map(|(key, value)| (key.to_owned(), value));
    Value::Object(kept.collect::<Map<_, _>>())
}

fn location(span: Span) -> Value {
    json!({"ranges": [{"start": {"line": span.start}, "end": {"line": span.end}}]})
}

fn pretty(value: &Value) -> Result<String, CliError> {
    let failed = |e: serde_json::Error| CliError::failed(ErrorKind::Internal, format!("cannot write JSON: {e}"));
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(failed)
}

fn targets_json(list: &[Target], source: &[u8]) -> Result<String, CliError> {
    let target = |t: &Target| {
        object([
            ("name", json!(t.name)),
            ("default", json!(t.default)),
            ("description", json!(t.description)),
            ("base", json!(t.base)),
            ("platform", json!(t.platform)),
            ("location", location(t.span)),
        ])
    };
    let list: Vec<Value> = list.iter().map(target).collect();
    pretty(&json!({"targets": list, "sources": [STANDARD.encode(source)]}))
}

fn outline_json(outline: &Outline, source: &[u8]) -> Result<String, CliError> {
    let mounts = |list: &[OutlineMount]| -> Value {
        let mount = |m: &OutlineMount| {
            object([("name", json!(m.id)), ("required", json!(m.required)), ("location", location(m.span))])
        };
        list.iter().map(mount).collect()
    };
    let args = outline.args.iter().map(|a| {
        object([
            ("name", json!(a.name)),
            ("description", json!(a.description)),
            ("value", json!(a.value)),
            ("location", location(a.span)),
        ])
    });
    let caches = outline.caches.iter().map(|m| json!({"ID": m.id, "location": location(m.span)}));
    pretty(&object([
        ("name", json!(outline.name)),
        ("description", json!(outline.description)),
        ("args", args.collect()),
        ("secrets", mounts(&outline.secrets)),
        ("ssh", mounts(&outline.ssh)),
        ("cache", caches.collect()),
        ("sources", json!([STANDARD.encode(source)])),
    ]))
}

fn findings_json(
    checked: &Checked,
    source: &[u8],
    path: &str,
    error: Option<(&str, Option<Span>)>,
) -> Result<String, CliError> {
    let warning = |f: &Finding| {
        json!({
            "ruleName": f.rule.name,
            "description": f.rule.description,
            "url": f.rule.url,
            "detail": f.message,
            "location": location(f.span),
        })
    };
    let warnings: Vec<Value> = checked.findings.iter().map(warning).collect();
    let sources = json!([{"filename": path, "language": "Dockerfile", "data": STANDARD.encode(source)}]);
    let mut result = json!({"warnings": warnings, "sources": sources});
    if let (Some((message, span)), Some(fields)) = (error, result.as_object_mut()) {
        let place = span.map_or_else(|| json!({}), location);
        fields.insert("buildError".to_owned(), json!({"message": message, "location": place}));
    }
    pretty(&result)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"# VERSION of the tool\nARG VERSION=1\n# build compiles\nFROM alpine:$VERSION AS build\n\
        RUN --mount=type=secret,id=token,required --mount=type=cache,target=/c make\n\nFROM scratch\nCMD run\n";

    fn ask(call: &str, source: &[u8], target: Option<&str>) -> Answer {
        let call = Call::parse(call).unwrap().unwrap();
        let inputs = Inputs { build_args: &[], target, platform: None, ignore: None, base: &|_, _| None };
        answer(call, source, "Dockerfile", &inputs).unwrap()
    }

    #[test]
    fn grammar() {
        for none in ["", "build"] {
            assert_eq!(Call::parse(none).unwrap(), None);
        }
        let call = Call::parse("outline,format=json,ignorestatus=1").unwrap().unwrap();
        assert_eq!(call, Call { method: Method::Outline, json: true, ignore_status: true });
        assert_eq!(Call::parse("lint").unwrap(), Some(Call::CHECK));
        for bad in ["x", "check,outline", "check,format=yaml", "check,ignorestatus=x", "check,y=1"] {
            assert!(Call::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tables() {
        assert_eq!(ask("targets", FILE, None).text, "TARGET    DESCRIPTION\nbuild     compiles\n(default) \n");
        assert_eq!(
            ask("outline", FILE, Some("build")).text,
            "TARGET:      build\nDESCRIPTION: compiles\n\nBUILD ARG   VALUE   DESCRIPTION\n\
             VERSION     1       of the tool\n\nSECRET   REQUIRED\ntoken    true\n\n"
        );
    }

    #[test]
    fn a_finding_with_its_lines() {
        let answer = ask("check", FILE, None);
        assert_eq!((answer.code, answer.error.is_none()), (1, true));
        let expected = "Check complete, 1 warning has been found!\n\n\
            WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n\
            JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n\
            Dockerfile:8\n--------------------\n   6 |     \n   7 |     FROM scratch\n   8 | >>> CMD run\n   9 |     \n\
            --------------------\n";
        assert_eq!(answer.text, expected);
        assert_eq!(ask("check,ignorestatus=true", FILE, None).code, 0);
        let clean = ask("check", b"FROM scratch\n", None);
        assert_eq!((clean.text.as_str(), clean.code), ("Check complete, no warnings found.\n", 0));
    }

    #[test]
    fn errors_come_after_findings() {
        let answer = ask("check", b"FROM scratch AS Up\nBAD\n", None);
        assert!(answer.text.contains("StageNameCasing"), "{}", answer.text);
        let Some(CliError::Failed { message, .. }) = answer.error else { panic!() };
        assert!(message.starts_with("dockerfile parse error on line 2: unknown instruction: BAD"), "{message}");
        assert!(message.contains("Dockerfile:2\n"), "{message}");
        let answer = ask("check,format=json", b"FROM scratch\nCOPY ${} /\n", None);
        let value: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(value["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    }

    #[test]
    fn json() {
        let value: Value = serde_json::from_str(&ask("outline,format=json", FILE, Some("build")).text).unwrap();
        assert_eq!(value["args"][0]["name"], "VERSION");
        assert_eq!(
            value["secrets"][0],
            json!({"name": "token", "required": true, "location": location(Span { start: 5, end: 5 })})
        );
        assert_eq!(value["cache"][0]["ID"], "/c");
        let value: Value = serde_json::from_str(&ask("targets,format=json", FILE, None).text).unwrap();
        assert_eq!(value["targets"][1]["default"], true);
        assert_eq!(value["sources"][0], STANDARD.encode(FILE));
        let value: Value = serde_json::from_str(&ask("check,format=json", FILE, None).text).unwrap();
        assert_eq!(value["warnings"][0]["ruleName"], "JSONArgsRecommended");
    }
}
