//! Splitting the text after an instruction: flags, JSON arrays, words.

use crate::error::Problem;

/// Blanks that separate Dockerfile words (not every Unicode space).
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at the first run of blanks: `RUN  echo a` is `("RUN", "echo a")`.
pub(crate) fn split_first(text: &str) -> (&str, &str) {
    match text.find(is_blank) {
        Some(end) => (&text[..end], text[end..].trim_start_matches(is_blank)),
        None => (text, ""),
    }
}

/// Splits at blanks, without regard to quotes.
pub(crate) fn fields(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// Takes the leading `--flag=value` words off; quotes and escapes in them are resolved. Returns the flags and the rest.
/// A lone `--` ends the flags and belongs to neither.
pub(crate) fn take_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, tail) = flag_word(rest, escape);
        rest = tail.trim_start();
        if word == "--" {
            break;
        }
        flags.push(word);
    }
    (flags, rest)
}

fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, &text[at..]),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ if c == escape => {
                if let Some((_, next)) = chars.next() {
                    word.push(next);
                }
            }
            _ => word.push(c),
        }
    }
    (word, "")
}

/// Words separated by spaces outside quotes; quotes and escapes stay for the expansion that follows.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        // Nothing can be escaped between single quotes, and an escape at the very end is dropped.
        if c == escape && quote != Some('\'') {
            if let Some(next) = chars.next() {
                word.push(c);
                word.push(next);
            }
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The strings of a JSON array; `None` when the text is not valid JSON and so means something else.
pub(crate) fn json_array(text: &str) -> Result<Option<Vec<String>>, Problem> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|v| match v {
        serde_json::Value::String(s) => Ok(s),
        _ => Err(Problem::JsonStrings),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_other_word() {
        let take = |t| {
            let (flags, rest) = take_flags(t, '\\');
            (flags.join("|"), rest)
        };
        assert_eq!(take("--a=b --c  d --e"), ("--a=b|--c".to_owned(), "d --e"));
        assert_eq!(take("--a=\"b c\" d"), ("--a=b c".to_owned(), "d"));
        assert_eq!(take("--a=b\\ c d"), ("--a=b c".to_owned(), "d"));
        assert_eq!(take("-- --x d"), (String::new(), "--x d"));
        assert_eq!(take("-x d"), (String::new(), "-x d"));
        assert_eq!(take("--é=ü x"), ("--é=ü".to_owned(), "x"));
    }

    #[test]
    fn words_keep_quotes() {
        let words = |t| quoted_words(t, '\\').join("|");
        assert_eq!(words("a=b  c=\"d e\" f='g h'"), "a=b|c=\"d e\"|f='g h'");
        assert_eq!(words(r"a=b\ c d"), r"a=b\ c|d");
        assert_eq!(words(r#"a="b\" c" d"#), r#"a="b\" c"|d"#);
        assert_eq!(words(r"a='b\' c"), r"a='b\'|c");
        assert_eq!(words(r"a\"), "a");
        assert_eq!(words(r#""""#), r#""""#);
    }

    #[test]
    fn json_or_not() {
        assert_eq!(json_array(r#" ["a", "b c"]"#), Ok(Some(vec!["a".into(), "b c".into()])));
        assert_eq!(json_array("['a']"), Ok(None));
        assert_eq!(json_array(r#"["a"] x"#), Ok(None));
        assert_eq!(json_array(r#"["a", 1]"#), Err(Problem::JsonStrings));
        assert_eq!(json_array("[]"), Ok(Some(vec![])));
        assert_eq!(json_array(&"[".repeat(100_000)), Ok(None));
    }
}
