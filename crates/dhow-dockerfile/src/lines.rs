//! Bytes to statements: directives, comments, continuation lines and here-documents.

use crate::directive::{DirectiveScanner, check_syntax};
use crate::error::{ParseError, Problem, clip};
use crate::heredoc::Heredoc;
use crate::instruction::{Layout, Span};
use crate::words::{json_array, split_first, take_flags};

/// Most comments that a statement keeps, the nearest ones.
const MAX_COMMENTS: usize = 64;

/// What the directives at the top say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend image asked for. It is one that dhow's own frontend stands in for; others are refused.
    pub syntax: Option<String>,
    /// `# escape=`: backslash or backtick.
    pub escape: char,
    /// `# check=`: lint control.
    pub check: Option<String>,
}

/// One instruction line, not yet interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// First word as written.
    pub keyword: String,
    /// Leading `--flag` words, quotes resolved.
    pub flags: Vec<String>,
    /// The rest of the line, trimmed.
    pub args: String,
    /// The logical line, continuation lines joined.
    pub original: String,
    /// Bodies of here-documents announced by the line.
    pub heredocs: Vec<Heredoc>,
    /// Where it stands, here-documents included.
    pub span: Span,
    /// How it is written.
    pub layout: Layout,
}

/// A whole file as statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statements {
    /// Directives.
    pub directives: Directives,
    /// Statements in order; never empty.
    pub list: Vec<Statement>,
}

impl Statement {
    /// Splits a logical line.
    pub(crate) fn split(line: &str, escape: char, span: Span) -> Self {
        let (keyword, rest) = split_first(line.trim());
        let (flags, args) = take_flags(rest, escape);
        Self {
            keyword: keyword.to_owned(),
            flags,
            args: args.trim().to_owned(),
            original: line.to_owned(),
            heredocs: Vec::new(),
            span,
            layout: Layout::default(),
        }
    }

    /// Whether `<<WORD` on this line starts a here-document.
    fn takes_heredocs(&self, escape: char) -> bool {
        match self.keyword.to_ascii_uppercase().as_str() {
            "RUN" | "COPY" | "ADD" => !matches!(json_array(&self.args), Ok(Some(_)) | Err(_)),
            "ONBUILD" => {
                let inner = Self::split(&self.args, escape, self.span);
                // One level only: ONBUILD ONBUILD is refused later.
                !inner.keyword.eq_ignore_ascii_case("onbuild") && inner.takes_heredocs(escape)
            }
            _ => false,
        }
    }

    /// An error about this statement.
    pub(crate) fn error(&self, problem: Problem) -> ParseError {
        ParseError { line: self.span.start, end_line: self.span.end, text: clip(self.original.trim(), 200), problem }
    }
}

/// Physical lines with their ends, counted.
struct Lines<'a> {
    rest: &'a [u8],
    number: u32,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let len = self.rest.iter().position(|b| *b == b'\n').map_or(self.rest.len(), |i| i + 1);
        let (line, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.number = self.number.saturating_add(1);
        Some(line)
    }

    fn text(&self, line: &'a [u8]) -> Result<&'a str, ParseError> {
        std::str::from_utf8(line).map_err(|_| ParseError {
            line: self.number,
            end_line: self.number,
            text: clip(String::from_utf8_lossy(line).trim(), 200),
            problem: Problem::Encoding,
        })
    }
}

fn is_comment(line: &[u8]) -> bool {
    line.trim_ascii_start().first() == Some(&b'#')
}

fn trim_end_of_line(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The text before a continuation mark at the end of a line, or `None` when the line is complete. A doubled mark is no
/// mark.
fn before_continuation(line: &str, escape: char) -> Option<&str> {
    let body = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!body.ends_with(escape)).then_some(body)
}

impl Statements {
    /// Reads a file. Comments may hold any bytes; everything else must be UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let mut lines = Lines { rest: bytes, number: 0 };
        let mut scanner = DirectiveScanner::default();
        let mut directives = Directives { syntax: None, escape: '\\', check: None };
        let mut list = Vec::new();
        let mut comments = Vec::new();
        foreign_syntax(bytes)?;
        while let Some(line) = lines.next() {
            if is_comment(line) {
                let shebang = lines.number == 1 && line.starts_with(b"#!");
                if !shebang && !read_directive(&mut scanner, &mut directives, line, lines.number)? {
                    note_comment(&mut comments, line);
                }
                continue;
            }
            // The first line that is no comment ends the directives; the scanner cannot fail on it.
            let text = trim_end_of_line(lines.text(line)?).trim_start();
            let _ = scanner.line(text);
            let above = std::mem::take(&mut comments);
            if !text.is_empty() {
                let mut statement = read_statement(&mut lines, text, directives.escape)?;
                statement.layout.comments = above;
                // A continuation mark with nothing to continue.
                if !statement.keyword.is_empty() {
                    list.push(statement);
                }
            }
        }
        if list.is_empty() {
            let line = lines.number.max(1);
            return Err(ParseError { line, end_line: line, text: String::new(), problem: Problem::Empty });
        }
        Ok(Self { directives, list })
    }
}

/// Keeps a comment for the statement below it; an empty one separates.
fn note_comment(comments: &mut Vec<String>, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    match text.trim().trim_start_matches('#').trim() {
        "" => comments.clear(),
        comment => comments.push(comment.to_owned()),
    }
    // Whoever looks for something in them may look often.
    if comments.len() > MAX_COMMENTS {
        comments.remove(0);
    }
}

/// BuildKit also reads `// syntax=` and `{"syntax": …}`, for frontends whose language has other comments. A file like that
/// is no Dockerfile for us, but it must be refused for the right reason.
fn foreign_syntax(bytes: &[u8]) -> Result<(), ParseError> {
    let start = bytes.trim_ascii_start();
    let found = match start {
        [b'/', b'/', ..] => {
            let line = start.split(|b| *b == b'\n').next().unwrap_or_default();
            let text = String::from_utf8_lossy(line);
            let pair = text.trim_start_matches('/').split_once('=');
            pair.filter(|(key, _)| key.trim().eq_ignore_ascii_case("syntax")).map(|(_, value)| value.trim().to_owned())
        }
        [b'{', ..] => {
            let object: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(start).ok();
            object.and_then(|o| o.get("syntax")?.as_str().map(str::to_owned))
        }
        _ => None,
    };
    let Some(value) = found else { return Ok(()) };
    let fail = |problem| ParseError { line: 1, end_line: 1, text: clip(&value, 200), problem };
    check_syntax(&value).map_err(fail)
}

/// Reads one line as a directive; false when it is none.
fn read_directive(
    scanner: &mut DirectiveScanner,
    directives: &mut Directives,
    line: &[u8],
    number: u32,
) -> Result<bool, ParseError> {
    let text = String::from_utf8_lossy(line);
    let fail = |problem| ParseError { line: number, end_line: number, text: clip(text.trim(), 200), problem };
    let Some(found) = scanner.line(trim_end_of_line(&text)).map_err(fail)? else { return Ok(false) };
    match found.key {
        "syntax" => {
            check_syntax(&found.value).map_err(fail)?;
            directives.syntax = Some(found.value);
        }
        "check" => directives.check = Some(found.value),
        _ => {
            directives.escape = match found.value.as_str() {
                "\\" => '\\',
                "`" => '`',
                other => return Err(fail(Problem::EscapeToken(clip(other, 20)))),
            }
        }
    }
    Ok(true)
}

fn read_statement(lines: &mut Lines, first: &str, escape: char) -> Result<Statement, ParseError> {
    let start = lines.number;
    let mut joined = String::new();
    let mut gap = false;
    let mut open = push_line(&mut joined, first, escape);
    while open {
        let Some(line) = lines.next() else { break };
        if is_comment(line) {
            continue;
        }
        let text = trim_end_of_line(lines.text(line)?);
        if text.trim_start().is_empty() {
            gap = true;
            continue;
        }
        open = push_line(&mut joined, text, escape);
    }
    let mut statement = Statement::split(&joined, escape, Span { start, end: lines.number });
    statement.layout.gap = gap.then_some(lines.number);
    if joined.contains("<<") && statement.takes_heredocs(escape) {
        for mut doc in Heredoc::of_line(&joined) {
            doc.content = read_body(lines, &doc, &statement)?;
            statement.heredocs.push(doc);
        }
    }
    statement.span.end = lines.number;
    Ok(statement)
}

/// Adds a physical line; true when it continues.
fn push_line(joined: &mut String, line: &str, escape: char) -> bool {
    match before_continuation(line, escape) {
        Some(body) => {
            joined.push_str(body);
            true
        }
        None => {
            joined.push_str(line);
            false
        }
    }
}

fn read_body(lines: &mut Lines, doc: &Heredoc, statement: &Statement) -> Result<String, ParseError> {
    let mut content = String::new();
    while let Some(line) = lines.next() {
        let text = lines.text(line)?;
        let candidate = trim_end_of_line(text);
        let candidate = if doc.chomp { candidate.trim_start_matches('\t') } else { candidate };
        if candidate == doc.name {
            return Ok(content);
        }
        content.push_str(text);
    }
    Err(statement.error(Problem::UnterminatedHeredoc(clip(&doc.name, 60))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn originals(text: &str) -> Vec<String> {
        Statements::parse(text.as_bytes()).unwrap().list.into_iter().map(|s| s.original).collect()
    }

    #[test]
    fn continuation() {
        assert_eq!(originals("RUN a \\\n  b\nCMD c"), ["RUN a   b", "CMD c"]);
        assert_eq!(originals("RUN a \\  \t\n# no\n\n  && b"), ["RUN a   && b"]);
        assert_eq!(originals("RUN a \\\\\nCMD c"), ["RUN a \\\\", "CMD c"]);
        assert_eq!(originals("# escape=`\nRUN dir C:\\\nRUN a `\n b"), ["RUN dir C:\\", "RUN a  b"]);
        assert_eq!(originals("RUN a \\"), ["RUN a "]);
        assert_eq!(originals("\\\nRUN a"), ["RUN a"]);
    }

    #[test]
    fn byte_order_mark_and_crlf() {
        assert_eq!(originals("\u{feff}# escape=`\r\nRUN a `\r\n b\r\n"), ["RUN a  b"]);
    }

    #[test]
    fn comments_may_hold_any_bytes() {
        let s = Statements::parse(b"# caf\xe9\nRUN a").unwrap();
        assert_eq!(s.list.len(), 1);
        let e = Statements::parse(b"FROM x\nRUN caf\xe9").unwrap_err();
        assert_eq!((e.line, e.problem), (2, Problem::Encoding));
    }

    #[test]
    fn heredocs_take_their_bodies() {
        let s = Statements::parse(b"RUN cat <<A <<-B\n# kept\n\\\nA\n\tx\n\tB\nCMD c").unwrap();
        let docs = &s.list[0].heredocs;
        assert_eq!(docs[0].content, "# kept\n\\\n");
        assert_eq!((docs[1].content.as_str(), docs[1].text().as_str()), ("\tx\n", "x\n"));
        assert_eq!(s.list[0].span, Span { start: 1, end: 6 });
        assert_eq!(s.list[1].span, Span { start: 7, end: 7 });
        assert!(Statements::parse(b"CMD cat <<A\n").is_ok());
        let e = Statements::parse(b"FROM a\nRUN <<A\nx").unwrap_err();
        assert_eq!((e.line, e.end_line), (2, 2));
    }

    #[test]
    fn empty_files() {
        for empty in ["", "\n\n", "# only\n", "# escape=`"] {
            assert_eq!(Statements::parse(empty.as_bytes()).unwrap_err().problem, Problem::Empty, "{empty:?}");
        }
    }

    #[test]
    fn directives() {
        let s = Statements::parse(b"#!/usr/bin/env x\n# syntax=docker/dockerfile:1\n# check=skip=all\nRUN a").unwrap();
        assert_eq!(s.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!(s.directives.check.as_deref(), Some("skip=all"));
        assert!(Statements::parse(b"# escape=x\nRUN a").is_err());
        assert!(Statements::parse(b"# syntax=a\n# syntax=b\nRUN a").is_err());
        // After a blank line it is a comment.
        assert_eq!(Statements::parse(b"\n# escape=`\nRUN a").unwrap().directives.escape, '\\');
    }
}
