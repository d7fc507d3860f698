//! `--format`: Go templates with Docker's functions.
//!
//! Data is JSON. A [`Shape`] says which keys of it may be absent or null and what they are then (Go's typed structs know
//! that, JSON does not): an empty list, an empty map, or nothing.

use crate::GrammarError;
use gotmpl::{MissingKey, TemplateError, Value};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// What an absent or null key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// `[]`
    List,
    /// `map[]`
    Map,
    /// A nil pointer.
    Nothing,
    /// The zero number.
    Zero,
    /// The empty string.
    Text,
}

/// Keys that may be absent or null: (path of the parent, joined by dots; key; meaning).
pub type Shape = [(&'static str, &'static str, Empty)];

/// The key under which a row's labels are found by `.Label`.
pub(crate) const LABELS: &str = "\0labels";

/// JSON of maps and lists by the address of the template value made from them: template maps are sorted, and `json`
/// shall print fields in their own order.
type Originals = Arc<Mutex<HashMap<usize, Json>>>;

/// A parsed template.
pub struct Template {
    text: String,
    inner: gotmpl::Template,
    lenient: gotmpl::Template,
    originals: Option<Originals>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Template").field(&self.text).finish()
    }
}

impl Template {
    /// Parses a template. `\t` and `\n` outside actions stand for tab and line end.
    pub fn parse(text: &str) -> Result<Self, GrammarError> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        check_blocks(&text)?;
        let source = rewrite_label(&text);
        let originals = source.contains("json").then(Originals::default);
        let build = |missing| {
            let base = gotmpl::Template::new("").missing_key(missing).max_range_iters(1_000_000);
            with_functions(base, originals.clone()).parse(&source).map_err(parse_error)
        };
        Ok(Self { inner: build(MissingKey::Error)?, lenient: build(MissingKey::Invalid)?, text, originals })
    }

    /// Applies the template to a document.
    pub fn render(&self, data: &Json, shape: &Shape) -> Result<String, GrammarError> {
        let value = self.convert(data, "", shape);
        self.execute(&value)
    }

    /// Applies the template to a row of strings with labels.
    pub(crate) fn render_row(&self, data: &Json, labels: &[(String, String)]) -> Result<String, GrammarError> {
        let value = self.convert(data, "", &[]);
        let Value::Map(map) = &value else { return self.execute(&value) };
        let mut with_labels = BTreeMap::clone(map);
        let labels = labels.iter().map(|(k, v)| (Arc::from(k.as_str()), Value::String(Arc::from(v.as_str()))));
        with_labels.insert(Arc::from(LABELS), Value::Map(Arc::new(labels.collect())));
        let value = Value::Map(Arc::new(with_labels));
        self.remember(&value, data);
        self.execute(&value)
    }

    fn execute(&self, value: &Value) -> Result<String, GrammarError> {
        match self.inner.execute_to_string(value) {
            Ok(text) => Ok(text),
            // A key that the user chose (a label, a network) may be absent; a field may not.
            Err(TemplateError::MissingKey { key }) if self.is_users_key(&key) => {
                self.lenient.execute_to_string(value).map_err(render_error)
            }
            Err(error) => Err(render_error(error)),
        }
    }

    fn is_users_key(&self, key: &str) -> bool {
        const MAPS: [&str; 8] =
            ["Labels", "Networks", "Ports", "ExposedPorts", "Volumes", "Sysctls", "PortBindings", "LogConfig.Config"];
        MAPS.iter().any(|map| self.text.contains(&format!(".{map}.{key}")))
    }

    fn convert(&self, json: &Json, path: &str, shape: &Shape) -> Value {
        let value = match json {
            Json::Null => Value::Nil,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Value::Int(n),
                (None, Some(n)) => Value::Uint(n),
                (None, None) => Value::Float(n.as_f64().unwrap_or(0.0)),
            },
            Json::String(s) => Value::String(Arc::from(s.as_str())),
            Json::Array(items) => Value::List(items.iter().map(|i| self.convert(i, path, shape)).collect()),
            Json::Object(object) => {
                let mut map: BTreeMap<Arc<str>, Value> = BTreeMap::new();
                for (key, item) in object {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    map.insert(Arc::from(key.as_str()), self.convert(item, &path, shape));
                }
                for (_, key, empty) in shape.iter().filter(|(parent, ..)| *parent == path) {
                    if object.get(*key).is_none_or(Json::is_null) {
                        let value = empty_value(*empty);
                        self.remember(&value, &Json::Null);
                        map.insert(Arc::from(*key), value);
                    }
                }
                Value::Map(Arc::new(map))
            }
        };
        if json.is_object() || json.is_array() {
            self.remember(&value, json);
        }
        value
    }

    fn remember(&self, value: &Value, json: &Json) {
        if let (Some(originals), Some(address)) = (&self.originals, address(value)) {
            // Rows are rendered one after the other: what an earlier row left behind must not be mistaken for this one's,
            // which holds since a live value's address is its own.
            originals.lock().unwrap_or_else(PoisonError::into_inner).insert(address, json.clone());
        }
    }
}

fn empty_value(empty: Empty) -> Value {
    match empty {
        Empty::List => Value::List(Arc::from(Vec::new())),
        Empty::Map => Value::Map(Arc::new(BTreeMap::new())),
        Empty::Nothing => Value::Nil,
        Empty::Zero => Value::Int(0),
        Empty::Text => Value::String(Arc::from("")),
    }
}

fn address(value: &Value) -> Option<usize> {
    match value {
        Value::List(list) => Some(Arc::as_ptr(list).cast::<()>() as usize),
        Value::Map(map) => Some(Arc::as_ptr(map).cast::<()>() as usize),
        _ => None,
    }
}

/// Every block is ended and every end has its block; the template engine lets some of both pass.
fn check_blocks(text: &str) -> Result<(), GrammarError> {
    let mut depth = 0usize;
    let mut rest = text;
    while let Some((_, action)) = rest.split_once("{{") {
        let word = action.strip_prefix('-').unwrap_or(action).trim_start();
        let end = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
        match &word[..end] {
            "if" | "range" | "with" | "block" | "define" => depth += 1,
            "end" => {
                let outside = || GrammarError::Template("unexpected {{end}}".to_owned());
                depth = depth.checked_sub(1).ok_or_else(outside)?;
            }
            _ => {}
        }
        rest = action;
    }
    if depth == 0 { Ok(()) } else { Err(GrammarError::Template("unexpected EOF: a block has no {{end}}".to_owned())) }
}

fn parse_error(error: TemplateError) -> GrammarError {
    GrammarError::Template(error.to_string())
}

fn render_error(error: TemplateError) -> GrammarError {
    match error {
        TemplateError::MissingKey { key } => GrammarError::Render(format!("map has no entry for key {key:?}")),
        TemplateError::UndefinedFunction(name) => GrammarError::Template(format!("function {name:?} not defined")),
        other => GrammarError::Render(other.to_string()),
    }
}

/// Docker's rows have a method, `.Label "key"`; the template engine has functions only.
fn rewrite_label(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(".Label") {
        let (before, after) = rest.split_at(at);
        let tail = &after[".Label".len()..];
        let follows = tail.starts_with([' ', '\t']) && tail.trim_start().starts_with(['"', '`', '$', '(', '.']);
        let (subject, before) = match before.strip_suffix('$') {
            Some(shorter) => ("$", shorter),
            None => (".", before),
        };
        let part_of_name = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ')');
        if follows && !part_of_name {
            out.push_str(before);
            out.push_str(&format!("label {subject}"));
        } else {
            out.push_str(&rest[..at + ".Label".len()]);
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn text_of(value: Option<&Value>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn text(s: impl Into<String>) -> gotmpl::Result<Value> {
    Ok(Value::String(Arc::from(s.into())))
}

fn number(value: Option<&Value>) -> usize {
    value.and_then(Value::as_int).and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(10_000)
}

fn with_functions(template: gotmpl::Template, originals: Option<Originals>) -> gotmpl::Template {
    template
        .func("json", move |args| {
            let value = args.first().unwrap_or(&Value::Nil);
            text(serde_json::to_string(&to_json(value, originals.as_ref())).unwrap_or_default())
        })
        .func("split", |args| {
            let (s, sep) = (text_of(args.first()), text_of(args.get(1)));
            let item = |s: &str| Value::String(Arc::from(s));
            Ok(Value::List(match sep.is_empty() {
                true => s.chars().map(|c| item(&c.to_string())).collect(),
                false => s.split(&sep).map(item).collect(),
            }))
        })
        .func("join", |args| match args.first() {
            Some(Value::List(items)) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                text(items.join(&text_of(args.get(1))))
            }
            other => text(text_of(other)),
        })
        .func("title", |args| text(title(&text_of(args.first()))))
        .func("lower", |args| text(text_of(args.first()).to_lowercase()))
        .func("upper", |args| text(text_of(args.first()).to_uppercase()))
        .func("pad", |args| {
            let s = text_of(args.first());
            match s.is_empty() {
                true => text(s),
                false => text(format!("{}{s}{}", " ".repeat(number(args.get(1))), " ".repeat(number(args.get(2))))),
            }
        })
        .func("truncate", |args| text(text_of(args.first()).chars().take(number(args.get(1))).collect::<String>()))
        .func("label", |args| {
            let Some(Value::Map(row)) = args.first() else { return text("") };
            let Some(Value::Map(labels)) = row.get(LABELS) else { return text("") };
            text(text_of(labels.get(text_of(args.get(1)).as_str())))
        })
}

fn title(s: &str) -> String {
    let mut start = true;
    let upper = |c: char| c.to_uppercase().collect::<String>();
    s.chars()
        .map(|c| {
            let out = if start { upper(c) } else { c.to_string() };
            start = !c.is_alphanumeric() && c != '_' && c != '\'';
            out
        })
        .collect()
}

fn to_json(value: &Value, originals: Option<&Originals>) -> Json {
    if let (Some(originals), Some(address)) = (originals, address(value))
        && let Some(json) = originals.lock().unwrap_or_else(PoisonError::into_inner).get(&address)
    {
        return json.clone();
    }
    match value {
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Uint(n) => Json::from(*n),
        Value::Float(n) => Json::from(*n),
        Value::String(s) => Json::String(s.to_string()),
        Value::List(items) => Json::Array(items.iter().map(|i| to_json(i, originals)).collect()),
        Value::Map(map) => Json::Object(
            map.iter().filter(|(k, _)| &***k != LABELS).map(|(k, v)| (k.to_string(), to_json(v, originals))).collect(),
        ),
        Value::Nil | Value::Function(_) => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let data = json!({
            "Zed": 1, "State": {"Pid": 42, "Status": "running"}, "Name": "/web", "Binds": null,
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null},
            "Args": ["a", "b"], "Config": {"Labels": {"k": "v"}}
        });
        let shape: &Shape = &[("", "Binds", Empty::List), ("", "Health", Empty::Nothing)];
        let result = Template::parse(template).and_then(|t| t.render(&data, shape));
        assert_eq!(result.unwrap_or_else(|e| format!("error: {e}")), expected, "{template}");
    }

    #[test]
    fn as_docker_prints() {
        check("{{ .State.Pid }}", "42");
        check("{{.Name}}\\t{{.State.Status}}", "/web\trunning");
        check(
            "{{json .}}",
            r#"{"Zed":1,"State":{"Pid":42,"Status":"running"},"Name":"/web","Binds":null,"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":null},"Args":["a","b"],"Config":{"Labels":{"k":"v"}}}"#,
        );
        check("{{json .State}}", r#"{"Pid":42,"Status":"running"}"#);
        check("{{json .Binds}} {{.Binds}} {{len .Binds}}", "null [] 0");
        check("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080");
        check(
            "{{range $p, $conf := .Ports}} {{$p}} -> {{(index $conf 0).HostPort}} {{break}}{{end}}",
            " 80/tcp -> 8080 ",
        );
        check(
            "{{join .Args \",\"}}{{upper .Name}}{{title \"a b\"}}{{pad .Name 1 2}}|{{truncate .Name 2}}",
            "a,b/WEBA B /web  |/w",
        );
        check("{{range split \"a:b\" \":\"}}<{{.}}>{{end}}", "<a><b>");
        check("{{if .Health}}y{{else}}n{{end}}", "n");
        check("{{.Config.Labels.k}}{{.Config.Labels.none}}", "v<no value>");
        check("{{index .Config.Labels \"k\"}}", "v");
        check("{{.Nope}}", "error: template: map has no entry for key \"Nope\"");
        check("{{printf \"%-5s|%03d\" \"a\" 7}}", "a    |007");
        check("{{println .Zed}}", "1\n");
    }

    #[test]
    fn bad_templates() {
        for bad in ["{{.X", "{{end}}", "{{if .X}}", "{{if}}x{{end}}", "{{nope .}}"] {
            let result = Template::parse(bad).and_then(|t| t.render(&json!({}), &[]));
            assert!(matches!(result, Err(GrammarError::Template(_))), "{bad}: {result:?}");
        }
    }

    #[test]
    fn labels_are_a_method() {
        let t = Template::parse("{{.Label \"a.b\"}}:{{.Labels}}:{{json .}}:{{.Label `x`}}").unwrap();
        let row = t.render_row(&json!({"Labels": "a.b=c"}), &[("a.b".into(), "c".into())]).unwrap();
        assert_eq!(row, "c:a.b=c:{\"Labels\":\"a.b=c\"}:");
    }
}
