//! The `WWW-Authenticate` header (RFC 9110, section 11.6.1): a comma-separated list of challenges, each a scheme with
//! either a token68 or comma-separated parameters.
//!
//! Lenient where registries are sloppy (spaces, trailing commas), never panicking, bounded in what it keeps.

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Authentication scheme in lower case, for instance `bearer`.
    pub scheme: String,
    /// Parameters in order, names in lower case. A token68 is not kept.
    pub params: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of that name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Longest header value that is looked at, in bytes.
const MAX_HEADER: usize = 8 << 10;

/// Parses one header value. What cannot be read is left out; the result may be empty.
pub fn parse(header: &str) -> Vec<Challenge> {
    if header.len() > MAX_HEADER {
        return Vec::new();
    }
    let mut scanner = Scanner { bytes: header.as_bytes(), at: 0 };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        scanner.skip(|c| c == b',' || is_space(c));
        let Some(word) = scanner.token() else { break };
        scanner.skip(is_space);
        if scanner.eat(b'=') && !challenges.is_empty() {
            scanner.skip(is_space);
            let Some(value) = scanner.value() else { break };
            if let Some(last) = challenges.last_mut() {
                last.params.push((word.to_ascii_lowercase(), value));
            }
        } else {
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new() });
            scanner.skip_token68();
        }
    }
    challenges
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.at += usize::from(hit);
        hit
    }

    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&unwanted) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> String {
        let start = self.at;
        self.skip(wanted);
        self.bytes.get(start..self.at).map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default()
    }

    fn token(&mut self) -> Option<String> {
        let token = self.take(is_token);
        (!token.is_empty()).then_some(token)
    }

    /// A token or a quoted string; an unterminated string ends the header.
    fn value(&mut self) -> Option<String> {
        if !self.eat(b'"') {
            // Registries put unquoted URLs here although a token has no slashes.
            return Some(self.take(|c| c != b',' && !is_space(c)));
        }
        let mut value = Vec::new();
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    value.push(self.peek()?);
                }
                other => value.push(other),
            }
            self.at += 1;
        }
        self.at += 1;
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// After a scheme: jumps over a token68 (`Negotiate abc==`), which is told from a parameter by what follows it.
    fn skip_token68(&mut self) {
        let start = self.at;
        self.skip(|c| c.is_ascii_alphanumeric() || b"-._~+/".contains(&c));
        self.skip(|c| c == b'=');
        self.skip(is_space);
        let ended = self.peek().is_none_or(|c| c == b',');
        if !ended || self.at == start {
            self.at = start;
        }
    }
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t')
}

fn is_token(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn docker_hub() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#;
        let [challenge] = &parse(header)[..] else { panic!("one challenge expected") };
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.param("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(challenge.param("service"), Some("registry.docker.io"));
        assert_eq!(challenge.param("scope"), Some("repository:library/busybox:pull,push"));
    }

    #[test]
    fn several_challenges_in_one_header() {
        let all = parse(r#"Negotiate YWJj==, basic Realm = "a, \"b\"" , , Bearer realm=https://x/t ,service=s"#);
        assert_eq!(all.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(), ["negotiate", "basic", "bearer"]);
        assert_eq!(all[1].param("realm"), Some("a, \"b\""));
        assert_eq!(all[2].param("realm"), Some("https://x/t"));
        assert_eq!(all[2].param("service"), Some("s"));
    }

    #[test]
    fn junk_yields_nothing_dangerous() {
        assert!(parse("").is_empty());
        assert!(parse("=,=").is_empty());
        assert_eq!(parse("Bearer realm=\"https://x").first().map(|c| c.params.len()), Some(0));
        assert!(parse(&"a".repeat(MAX_HEADER + 1)).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn never_panics(header in ".{0,300}") {
            parse(&header);
        }

        #[test]
        fn what_is_printed_is_read_back(
            challenges in prop::collection::vec(
                ("[a-z][a-z0-9-]{0,9}", prop::collection::vec(("[a-z]{1,8}", "[ -~]{0,30}"), 1..4)),
                1..4,
            )
        ) {
            let expected: Vec<Challenge> =
                challenges.into_iter().map(|(scheme, params)| Challenge { scheme, params }).collect();
            let text = expected
                .iter()
                .map(|c| {
                    let params: Vec<String> = c
                        .params
                        .iter()
                        .map(|(n, v)| format!("{n}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                        .collect();
                    format!("{} {}", c.scheme, params.join(", "))
                })
                .collect::<Vec<_>>()
                .join(", ");
            prop_assert_eq!(parse(&text), expected);
        }
    }
}
