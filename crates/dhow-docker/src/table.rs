//! Tables as Docker's lists print them, and the `--format` of lists.

use crate::GrammarError;
use crate::template::Template;
use serde_json::Value as Json;

/// Least width of a column and blanks between two, as in Go's `tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)`.
const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns lines whose cells are separated by tabs. The last cell of a line is not padded.
pub fn align(lines: &[String]) -> String {
    let cells: Vec<Vec<&str>> = lines.iter().map(|l| l.split('\t').collect()).collect();
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let texts = cells.iter().filter(|c| column + 1 < c.len()).filter_map(|c| c.get(column));
        texts.map(|t| t.chars().count() + PADDING).max().unwrap_or(0).max(MIN_WIDTH)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in &cells {
        for (i, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if i + 1 < line.len() {
                let pad = widths.get(i).copied().unwrap_or(0).saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push('\n');
    }
    out
}

/// How a list is printed.
#[derive(Debug)]
pub enum Format {
    /// The command's own columns.
    Table,
    /// Columns of the user's choice.
    TableTemplate(Box<(Template, Template)>),
    /// One JSON object per line.
    Json,
    /// One template per row.
    Template(Box<Template>),
    /// `key: value` lines.
    Raw,
}

impl Format {
    /// The `--format` text; empty is the table.
    pub fn parse(text: &str) -> Result<Self, GrammarError> {
        match text {
            "" | "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "raw" => Ok(Self::Raw),
            _ => match text.strip_prefix("table ").or_else(|| text.strip_prefix("table\\t")) {
                Some(columns) => {
                    let columns = columns.trim();
                    Ok(Self::TableTemplate(Box::new((Template::parse(columns)?, Template::parse(&plain(columns))?))))
                }
                None => Ok(Self::Template(Box::new(Template::parse(text)?))),
            },
        }
    }
}

/// The columns without functions that would change a header (Docker's header functions do nothing).
fn plain(columns: &str) -> String {
    let mut out = columns.to_owned();
    for function in ["json", "upper", "lower", "title"] {
        out = out.replace(&format!("{{{{{function} "), "{{").replace(&format!("{{{{ {function} "), "{{ ");
        out = out.replace(&format!("| {function}"), "").replace(&format!("|{function}"), "");
    }
    out
}

/// One row of a list: every field as text.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Field name and value.
    pub fields: Vec<(&'static str, String)>,
    /// Labels, for `.Label "key"`.
    pub labels: Vec<(String, String)>,
}

impl Row {
    /// The value of a field.
    pub fn get(&self, field: &str) -> &str {
        self.fields.iter().find(|(name, _)| *name == field).map_or("", |(_, value)| value)
    }

    fn json(&self) -> Json {
        // Docker marshals a map here, so keys are sorted.
        let mut fields: Vec<_> = self.fields.iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        Json::Object(fields.iter().map(|(name, value)| ((*name).to_owned(), Json::String(value.clone()))).collect())
    }
}

/// A list to print.
#[derive(Debug)]
pub struct Listing {
    /// Fields of the default table.
    pub columns: Vec<&'static str>,
    /// Field name and column header, for every field.
    pub headers: &'static [(&'static str, &'static str)],
    /// Rows.
    pub rows: Vec<Row>,
    /// Fields of the `raw` form with their names there.
    pub raw: &'static [(&'static str, &'static str)],
}

impl Listing {
    fn header<'a>(&self, field: &'a str) -> &'a str {
        self.headers.iter().find(|(name, _)| *name == field).map_or(field, |(_, header)| header)
    }

    /// Renders the whole list.
    pub fn render(&self, format: &Format) -> Result<String, GrammarError> {
        match format {
            Format::Table => {
                let header = self.columns.iter().map(|c| self.header(c)).collect::<Vec<_>>().join("\t");
                let row = |r: &Row| self.columns.iter().map(|c| cell(r.get(c))).collect::<Vec<_>>().join("\t");
                Ok(align(&std::iter::once(header).chain(self.rows.iter().map(row)).collect::<Vec<_>>()))
            }
            Format::TableTemplate(pair) => {
                let (template, header) = &**pair;
                let fields = self.headers.iter().map(|(n, h)| ((*n).to_owned(), Json::String((*h).to_owned())));
                let mut lines = vec![header.render_row(&Json::Object(fields.collect()), &self.label_headers())?];
                for row in &self.rows {
                    lines.push(template.render_row(&row.json(), &row.labels)?);
                }
                Ok(align(&lines))
            }
            Format::Json => Ok(self.rows.iter().map(|r| format!("{}\n", r.json())).collect()),
            Format::Template(template) => {
                let render = |r: &Row| template.render_row(&r.json(), &r.labels).map(|line| line + "\n");
                self.rows.iter().map(render).collect()
            }
            Format::Raw => {
                let row = |r: &Row| {
                    let lines = self.raw.iter().map(|(field, name)| format!("{name}: {}\n", r.get(field)));
                    lines.collect::<String>() + "\n"
                };
                Ok(self.rows.iter().map(row).collect())
            }
        }
    }

    /// The header of `.Label "a.b-c"` is `b c`.
    fn label_headers(&self) -> Vec<(String, String)> {
        let last = |key: &str| key.rsplit('.').next().unwrap_or(key).replace(['-', '_'], " ");
        self.rows.iter().flat_map(|r| &r.labels).map(|(key, _)| (key.clone(), last(key))).collect()
    }
}

/// A tab or line end in a value would break the table.
fn cell(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let row = |id: &str, name: &str| Row {
            fields: vec![("ID", id.to_owned()), ("Names", name.to_owned())],
            labels: vec![("com.x.the-tier".to_owned(), "db".to_owned())],
        };
        Listing {
            columns: vec!["ID", "Names"],
            headers: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
            rows: vec![row("abc", "web"), row("0123456789abcdef", "ünï")],
            raw: &[("ID", "container_id")],
        }
    }

    #[track_caller]
    fn check(format: &str, expected: &str) {
        assert_eq!(Format::parse(format).and_then(|f| listing().render(&f)).unwrap(), expected);
    }

    #[test]
    fn formats() {
        check("", "CONTAINER ID       NAMES\nabc                web\n0123456789abcdef   ünï\n");
        check("table {{.Names}}\\t{{.ID}}", "NAMES     CONTAINER ID\nweb       abc\nünï       0123456789abcdef\n");
        check("table {{upper .Names}}", "NAMES\nWEB\nÜNÏ\n");
        check(
            "table {{.ID}}\\t{{.Label \"com.x.the-tier\"}}",
            "CONTAINER ID       the tier\nabc                db\n0123456789abcdef   db\n",
        );
        check("json", "{\"ID\":\"abc\",\"Names\":\"web\"}\n{\"ID\":\"0123456789abcdef\",\"Names\":\"ünï\"}\n");
        check("{{.ID}}\\t{{.Names}}", "abc\tweb\n0123456789abcdef\tünï\n");
        check("raw", "container_id: abc\n\ncontainer_id: 0123456789abcdef\n\n");
    }
}
