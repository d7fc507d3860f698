use super::*;
use proptest::prelude::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "A" => "alpha",
        "EMPTY" => "",
        "SPACED" => "a  b",
        "FILE" => "dir.d/file.tar.gz",
        "ŁÓDŹ" => "boat",
        "STAR" => "x*y",
        _ => return None,
    };
    Some(value.to_owned())
}

fn text(word: &str) -> String {
    match Expander::new('\\', &lookup).expand(word) {
        Ok(e) => e.text,
        Err(e) => format!("error: {}", e.problem),
    }
}

fn check(table: &[(&str, &str)]) {
    for (word, expected) in table {
        assert_eq!(text(word), *expected, "{word}");
    }
}

#[test]
fn quotes_and_escapes() {
    check(&[
        ("plain", "plain"),
        ("'$A'", "$A"),
        ("\"$A's\"", "alpha's"),
        (r"\$A", "$A"),
        (r"\\$A", r"\alpha"),
        (r#""\$A""#, "$A"),
        (r#""a\tb""#, r"a\tb"),
        (r"a\tb", "atb"),
        (r"'a\'", r"a\"),
        (r"end\", "end"),
        (r"it\'s", "it's"),
        ("it's", "error: unexpected end of statement while looking for matching single-quote"),
        ("\"open", "error: unexpected end of statement while looking for matching double-quote"),
        (r#""\""#, "error: unexpected end of statement while looking for matching double-quote"),
    ]);
}

#[test]
fn names() {
    check(&[
        ("$A.x", "alpha.x"),
        ("$Ab", ""),
        ("${A}b", "alphab"),
        ("$ŁÓDŹ", "boat"),
        ("$.", "$."),
        ("a$", "a$"),
        ("$1x", "x"),
        ("$99x", "x"),
        ("$@x", "x"),
        ("${}", "error: syntax error: bad substitution"),
        ("${{A}}", "error: syntax error: bad substitution"),
        ("${:-x}", "error: syntax error: bad substitution"),
        ("${A", "error: syntax error: missing '}'"),
        ("${", "error: syntax error: missing '}'"),
        ("${.}", "error: unsupported modifier (.) in substitution"),
        ("${A}}", "alpha}"),
    ]);
}

#[test]
fn conditions() {
    check(&[
        ("${X:-d}", "d"),
        ("${X-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:-d}", "alpha"),
        ("${X:-${Y:-$A}}", "alpha"),
        (r"${X:-\$A}", "$A"),
        ("${A:+s}", "s"),
        ("${EMPTY:+s}", ""),
        ("${EMPTY+s}", "s"),
        ("${X+s}", ""),
        ("${A:?no}", "alpha"),
        ("${X?}", "error: X: is not allowed to be unset"),
        ("${EMPTY:?}", "error: EMPTY: is not allowed to be empty"),
        ("${EMPTY?}", ""),
        ("${X:?needed here}", "error: X: needed here"),
        ("${A:=x}", "error: unsupported modifier (:=) in substitution"),
        ("${A:#x}", "error: unsupported modifier (:#) in substitution"),
        ("${A^}", "error: unsupported modifier (^) in substitution"),
        ("${X:-'a b'}", "a b"),
        ("${X:-", "error: syntax error: missing '}'"),
    ]);
}

#[test]
fn patterns() {
    check(&[
        ("${FILE#*.}", "d/file.tar.gz"),
        ("${FILE##*.}", "gz"),
        ("${FILE%.*}", "dir.d/file.tar"),
        ("${FILE%%.*}", "dir"),
        ("${FILE##*/}", "file.tar.gz"),
        ("${FILE#nothing}", "dir.d/file.tar.gz"),
        ("${A#?}", "lpha"),
        ("${A%?}", "alph"),
        ("${A/a/o}", "olpha"),
        ("${A//a/o}", "olpho"),
        ("${A/l*h/-}", "a-a"),
        ("${A//[a]/-}", "alpha"),
        (r"${STAR/\*/+}", "x+y"),
        (r"${FILE//\//_}", "dir.d_file.tar.gz"),
        (r"${A/\a/o}", "error: invalid pattern (\\a) in substitution: invalid escape"),
        ("${A/a}", "error: syntax error: missing '/' in ${}"),
        ("${A/a/b", "error: syntax error: missing '}'"),
        ("${X/a/b}", ""),
    ]);
}

#[test]
fn words_split_after_expansion() {
    let words = |w| Expander::new('\\', &lookup).expand(w).unwrap().words.join("|");
    assert_eq!(words("$SPACED c"), "a|b|c");
    assert_eq!(words("\"$SPACED\" c"), "a  b|c");
    assert_eq!(words(r"a\ b c"), "a b|c");
    assert_eq!(words("x${SPACED}y"), "xa|by");
}

#[test]
fn the_escape_is_the_parsers() {
    let e = Expander::new('`', &lookup).expand(r"C:\$A`$A").unwrap();
    assert_eq!(e.text, r"C:\alpha$A");
}

#[test]
fn unset_names_are_reported_or_kept() {
    let e = Expander::new('\\', &lookup).expand("$X ${Y:-1} $A").unwrap();
    assert_eq!(e.unset, ["X", "Y"]);
    let kept = Expander::new('\\', &lookup).keep_unset().expand("$X ${Y} ${Z:-q} $A").unwrap();
    assert_eq!(kept.text, "$X ${Y} ${Z:-q} alpha");
}

#[test]
fn bodies_keep_their_quotes() {
    let e = Expander::new('\\', &lookup).plain_quotes().expand("it's \"$A\"\n").unwrap();
    assert_eq!(e.text, "it's \"alpha\"\n");
}

#[test]
fn hostile_words_are_bounded() {
    let big = |_: &str| Some("x".repeat(1 << 20));
    let e = Expander::new('\\', &big).expand(&"$a".repeat(10));
    assert!(matches!(e.unwrap_err().problem, ExpandProblem::TooLong(_)));
    let deep = "${a:+".repeat(10_000);
    let e = Expander::new('\\', &lookup).expand(&deep);
    assert!(matches!(e.unwrap_err().problem, ExpandProblem::TooDeep(_)));
    let e = Expander::new('\\', &big).expand("${a//x/yyyyyyyyyyyy}");
    assert!(matches!(e.unwrap_err().problem, ExpandProblem::TooLong(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_panics(word in "[$a-cA{}:?+/%#*\\\\'\" <-]{0,40}") {
        let e = Expander::new('\\', &lookup);
        let _ = e.expand(&word);
        let _ = e.raw_quotes().raw_escapes().keep_unset().expand(&word);
    }

    #[test]
    fn quoting_is_the_inverse_of_expansion(value in "[^']{0,30}") {
        let expanded = Expander::new('\\', &lookup).expand(&format!("'{value}'")).unwrap();
        prop_assert_eq!(expanded.text, value);
    }

    #[test]
    fn plain_words_stay(word in "[a-z0-9./:=,_-]{0,30}") {
        let expanded = Expander::new('\\', &lookup).expand(&word).unwrap();
        prop_assert_eq!(&expanded.text, &word);
        prop_assert!(expanded.unset.is_empty());
    }
}
