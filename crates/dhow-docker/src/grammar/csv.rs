//! One record of comma-separated values (RFC 4180), as `--mount`, `--network` and `--gpus` take it.

use crate::GrammarError;

/// Splits one record. Quotes may enclose a whole field; a doubled quote inside stands for one.
pub fn split(what: &'static str, text: &str) -> Result<Vec<String>, GrammarError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(what, text, quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let field = &rest[..end];
                if field.contains('"') {
                    return Err(GrammarError::new(what, text, "bare \" in non-quoted field"));
                }
                (field.to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field<'a>(what: &'static str, text: &str, quoted: &'a str) -> Result<(String, &'a str), GrammarError> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err(GrammarError::new(what, text, "missing closing quote"));
        };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => return Err(GrammarError::new(what, text, "extraneous text after a closing quote")),
        }
    }
}
