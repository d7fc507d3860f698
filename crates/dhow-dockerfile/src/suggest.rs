//! "Did you mean": the closest of a few known words.

/// The candidate closest to `word` by edit distance, compared without case, or `None` when none is close: at most two
/// edits, and fewer than half of the word.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A word much longer than any instruction is no typing error, and the distance costs its length squared.
    if word.is_empty() || word.len() > 40 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (distance(&lower, &c.to_lowercase()), c))
        .filter(|(d, _)| *d <= 2 && d * 2 <= lower.chars().count())
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// The name closest to `word`, with at most two edits, case and all, or `None` when there is none or the word itself is
/// among them. Unlike [`closest`] this may be asked about names that strangers chose, any number of them.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > 40 {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for name in names.filter(|n| n.len().abs_diff(word.len()) <= 2).take(300) {
        match distance(word, name) {
            0 => return None,
            d if d <= 2 && best.is_none_or(|(b, _)| d < b) => best = Some((d, name)),
            _ => {}
        }
    }
    best.map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let previous = &rows[i - 1];
            let mut best =
                (previous[j] + 1).min(row[j - 1] + 1).min(previous[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words() {
        let known = ["RUN", "COPY", "ENTRYPOINT", "ENV", "FROM"];
        let near = |w| closest(w, known);
        assert_eq!(near("RUNN"), Some("RUN"));
        assert_eq!(near("FORM"), Some("FROM"));
        assert_eq!(near("entrypont"), Some("ENTRYPOINT"));
        assert_eq!(near("apt-get"), None);
        assert_eq!(near("echo"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"x".repeat(1 << 16)), None);
    }
}
