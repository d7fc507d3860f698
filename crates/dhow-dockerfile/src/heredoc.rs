//! Here-documents (`RUN <<EOF`, `COPY <<file /dst`).

use crate::expand::Expander;

/// One here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The terminating word, without quotes.
    pub name: String,
    /// Whether variables in the body expand (the word was not quoted). Only `COPY` and `ADD` look at it.
    pub expand: bool,
    /// `<<-`: leading tabs of the body are dropped.
    pub chomp: bool,
    /// The body, line ends included.
    pub content: String,
}

impl Heredoc {
    /// The body with leading tabs dropped if `<<-` asked for it.
    pub fn text(&self) -> String {
        if self.chomp { strip_leading_tabs(&self.content) } else { self.content.clone() }
    }

    /// Reads one word (`<<EOF`, `3<<-"EOF"`); `None` when it is no here-document.
    pub fn parse(word: &str) -> Option<Self> {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let nothing = |_: &str| None;
        let lexer = Expander::new('\\', &nothing).keep_unset();
        let plain = lexer.expand(rest).ok()?.words;
        let raw = lexer.raw_quotes().expand(rest).ok()?.words;
        let ([name], [raw]) = (plain.as_slice(), raw.as_slice()) else { return None };
        let quotes = |s: &str| s.matches(['\'', '"']).count();
        Some(Self { name: name.clone(), expand: quotes(name) == quotes(raw), chomp, content: String::new() })
    }

    /// All here-documents announced by a line, in order.
    pub(crate) fn of_line(line: &str) -> Vec<Self> {
        let nothing = |_: &str| None;
        let lexer = Expander::new('\\', &nothing).keep_unset().raw_quotes().raw_escapes();
        // A line with unbalanced quotes has no here-documents: the shell will complain about it, not the parser.
        let words = lexer.expand(line).map(|e| e.words).unwrap_or_default();
        words.iter().filter_map(|w| Self::parse(w)).collect()
    }
}

/// Drops the tabs at the start of each line.
pub fn strip_leading_tabs(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |w| Heredoc::parse(w).map(|h| (h.name, h.expand, h.chomp));
        assert_eq!(parse("<<EOF"), Some(("EOF".into(), true, false)));
        assert_eq!(parse("<< EOF"), Some(("EOF".into(), true, false)));
        assert_eq!(parse("3<<-'E F'"), Some(("E F".into(), false, true)));
        assert_eq!(parse("<<\"EOF\""), Some(("EOF".into(), false, false)));
        for none in ["<<<word", "<<", "<EOF", "a<<EOF", "<<a b", "<<'a"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn several_on_a_line() {
        let names = |l| Heredoc::of_line(l).into_iter().map(|h| h.name).collect::<Vec<_>>().join(",");
        assert_eq!(names("cat <<A 3<<B > /x"), "A,B");
        assert_eq!(names("cat << A"), "A");
        assert_eq!(names("echo '<<A'"), "");
        assert_eq!(names("echo \"it's <<A"), "");
        assert_eq!(names("echo $((1<<2))"), "");
    }

    #[test]
    fn tabs() {
        assert_eq!(strip_leading_tabs("\t\ta\n\tb\n c\t"), "a\nb\n c\t");
    }
}
