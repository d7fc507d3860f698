//! `--chmod`: octal, or symbolic like `u=rwX,go=rX` (chmod(1)).

use crate::error::BuildError;

/// A parsed change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModeChange {
    /// Exactly these bits.
    Octal(u32),
    /// Clauses applied in order.
    Symbolic(Vec<Clause>),
}

/// `who op permissions`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    user: bool,
    group: bool,
    other: bool,
    op: char,
    permissions: Vec<char>,
}

/// Parses a `--chmod` value. The first text is Docker's.
pub(crate) fn parse(text: &str) -> Result<ModeChange, BuildError> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(ModeChange::Octal(mode)),
            _ => Err(BuildError::Invalid(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            ))),
        };
    }
    let bad =
        || BuildError::Invalid(format!("invalid chmod parameter: '{text}'. it should look like 0755 or u=rwX,go=rX"));
    let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
    Ok(ModeChange::Symbolic(clauses.ok_or_else(bad)?.into_iter().flatten().collect()))
}

/// `ugo+rw-x`: one who, one or more operations.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let start = text.find(['+', '-', '='])?;
    let (who, mut rest) = text.split_at(start);
    if !who.chars().all(|c| "ugoa".contains(c)) {
        return None;
    }
    let all = who.is_empty() || who.contains('a');
    let mut list = Vec::new();
    while let Some(op) = rest.chars().next() {
        let body = &rest[1..];
        let end = body.find(['+', '-', '=']).unwrap_or(body.len());
        let permissions: Vec<char> = body[..end].chars().collect();
        let copies = permissions.iter().any(|c| "ugo".contains(*c));
        if !permissions.iter().all(|c| "rwxXstugo".contains(*c)) || (copies && permissions.len() > 1) {
            return None;
        }
        list.push(Clause {
            user: all || who.contains('u'),
            group: all || who.contains('g'),
            other: all || who.contains('o'),
            op,
            permissions,
        });
        rest = &body[end..];
    }
    Some(list)
}

impl ModeChange {
    /// The new permission bits (with set-id and sticky) of a file that has `mode`.
    pub(crate) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => clauses.iter().fold(mode & 0o7777, |m, c| c.apply(m, directory)),
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let executable = directory || mode & 0o111 != 0;
        let mut triple = 0;
        let mut special = 0;
        for c in &self.permissions {
            match c {
                'r' => triple |= 4,
                'w' => triple |= 2,
                'x' => triple |= 1,
                'X' if executable => triple |= 1,
                's' => special |= if self.user { 0o4000 } else { 0 } | if self.group { 0o2000 } else { 0 },
                't' => special |= 0o1000,
                'u' => triple |= mode >> 6 & 7,
                'g' => triple |= mode >> 3 & 7,
                'o' => triple |= mode & 7,
                _ => {}
            }
        }
        let spread = |t: u32| {
            (if self.user { t << 6 } else { 0 })
                | (if self.group { t << 3 } else { 0 })
                | (if self.other { t } else { 0 })
        };
        let bits = spread(triple) | special;
        match self.op {
            '+' => mode | bits,
            '-' => mode & !bits,
            // A directory keeps its set-id bits unless they are named, as chmod(1) does.
            _ => {
                let sets = (if self.user { 0o4000 } else { 0 }) | (if self.group { 0o2000 } else { 0 });
                mode & !(spread(7) | if directory { 0 } else { sets }) | bits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic() {
        let apply = |text, mode, dir| parse(text).map(|m| m.apply(mode, dir)).map_err(|e| e.to_string());
        assert_eq!(apply("0755", 0o600, false), Ok(0o755));
        assert_eq!(apply("4755", 0o600, false), Ok(0o4755));
        assert_eq!(apply("u=rwX,go=rX", 0o600, false), Ok(0o644));
        assert_eq!(apply("u=rwX,go=rX", 0o700, false), Ok(0o755));
        assert_eq!(apply("u=rwX,go=rX", 0o600, true), Ok(0o755));
        assert_eq!(apply("+x", 0o644, false), Ok(0o755));
        assert_eq!(apply("a-w", 0o666, false), Ok(0o444));
        assert_eq!(apply("g=u", 0o740, false), Ok(0o770));
        assert_eq!(apply("u+s,o+t", 0o755, false), Ok(0o5755));
        assert_eq!(apply("u+r-w", 0o200, false), Ok(0o400));
        for bad in ["8", "77777", "", "x", "u", "u=q", "z+x", "99", "u=ug", "755x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
