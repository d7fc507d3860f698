//! Sources that are fetched: files behind URLs and git repositories, as BuildKit writes them.
//!
//! ```text
//! https://host/file            http://host/file                      a file
//! https://host/repo.git        git://host/repo    ssh://host/repo    a repository
//! git@host:repo                github.com/owner/repo (contexts only)
//!     #REF:SUBDIR              or ?ref= branch= tag= commit= checksum= subdir= keep-git-dir= submodules=
//! ```

use std::fmt;

/// Longest source that is accepted, in bytes.
const MAX_LENGTH: usize = 8 << 10;

/// Something that is fetched.
#[derive(Clone, PartialEq, Eq)]
pub enum RemoteSource {
    /// A file, by its URL.
    Http(String),
    /// A repository.
    Git(GitSource),
}

/// A repository and what of it is wanted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    /// What git fetches from; without query and fragment.
    pub remote: String,
    /// Branch, tag, full name of a reference, or commit; the remote's default branch when absent.
    pub reference: Option<String>,
    /// Directory in the repository, without a slash at its ends.
    pub subdir: Option<String>,
    /// The commit that it must be, or the beginning of its id.
    pub checksum: Option<String>,
    /// Keep `.git`.
    pub keep_git_dir: Option<bool>,
    /// Fetch submodules, too; they are by default.
    pub submodules: Option<bool>,
}

/// A source that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid source {source_text:?}: {reason}")]
pub struct BadRemote {
    /// As written, without credentials.
    source_text: String,
    /// What is wrong.
    reason: String,
}

impl RemoteSource {
    /// Reads a source; `None` when it means a local file. The short form `github.com/…` is known in contexts only, for as an
    /// argument of `ADD` it is a path.
    pub fn parse(text: &str, is_context: bool) -> Result<Option<Self>, BadRemote> {
        let bad = |reason: &str| BadRemote { source_text: redacted(text), reason: reason.to_owned() };
        let short = is_context && text.starts_with("github.com/");
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let is_git = match scheme.as_deref() {
            Some("http" | "https") => without_suffixes(text).ends_with(".git"),
            Some("git" | "ssh") => true,
            Some(_) => return Ok(None),
            None => short || is_scp(text),
        };
        let is_http = matches!(scheme.as_deref(), Some("http" | "https"));
        if !is_git && !is_http {
            return Ok(None);
        }
        if text.len() > MAX_LENGTH || text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            return Err(bad("it is too long, or has blanks or control characters"));
        }
        if !is_git {
            return Ok(Some(Self::Http(text.to_owned())));
        }
        let text = if short { format!("https://{text}") } else { text.to_owned() };
        parse_git(&text).map(|git| Some(Self::Git(git))).map_err(|reason| bad(&reason))
    }

    /// Whether the word of an `ADD` instruction means something that is fetched.
    pub fn is_remote(word: &str) -> bool {
        !matches!(Self::parse(word, false), Ok(None))
    }
}

/// Without credentials.
impl fmt::Display for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(&redacted(url)),
            Self::Git(git) => fmt::Display::fmt(git, f),
        }
    }
}

impl fmt::Debug for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without credentials.
impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.remote))?;
        match (&self.reference, &self.subdir) {
            (None, None) => Ok(()),
            (Some(reference), None) => write!(f, "#{reference}"),
            (reference, Some(subdir)) => write!(f, "#{}:{subdir}", reference.as_deref().unwrap_or_default()),
        }
    }
}

impl fmt::Debug for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A source as it may be shown: without user and password.
pub fn redacted(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.chars().take(200).collect() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let shown = match authority.rsplit_once('@') {
        // A user alone is part of most ssh URLs.
        Some((user, host)) if user.contains(':') || !scheme.eq_ignore_ascii_case("ssh") => {
            format!("{scheme}://xxxxx@{host}{path}")
        }
        _ => text.to_owned(),
    };
    shown.chars().take(200).collect()
}

fn without_suffixes(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

/// `user@host:path`, as scp(1) has it.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let plain = |text: &str, more: &[u8]| {
        !text.is_empty()
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    plain(user, b"-_.") && plain(host, b"-.") && !path.is_empty()
}

fn parse_git(text: &str) -> Result<GitSource, String> {
    let (text, fragment) = match text.split_once('#') {
        Some((text, fragment)) => (text, Some(fragment)),
        None => (text, None),
    };
    // A question mark in scp's form is part of the path.
    let (remote, query) = match text.split_once('?').filter(|_| text.contains("://")) {
        Some((remote, query)) => (remote, Some(query)),
        None => (text, None),
    };
    let mut git = GitSource { remote: remote.to_owned(), ..GitSource::default() };
    if let Some((_, rest)) = remote.split_once("://") {
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        // A host like -oProxyCommand=… would be an option of ssh (CVE-2017-1000117).
        if host.is_empty() || host.starts_with('-') || authority.starts_with('-') {
            return Err("it names no host".to_owned());
        }
    }
    let mut subdir = None;
    if let Some(fragment) = fragment {
        let (reference, below) = fragment.split_once(':').unwrap_or((fragment, ""));
        git.reference = Some(decode(reference)?).filter(|r| !r.is_empty());
        subdir = Some(decode(below)?).filter(|s| !s.is_empty());
    }
    for pair in query.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(&value.replace('+', " "))?;
        let name = match key {
            "ref" | "commit" => value.clone(),
            "branch" => format!("refs/heads/{value}"),
            "tag" => format!("refs/tags/{value}"),
            _ => String::new(),
        };
        match key {
            "ref" | "branch" | "tag" if git.reference.is_some() => {
                return Err(format!("{key} conflicts with another ref"));
            }
            "ref" | "branch" | "tag" if !value.is_empty() => git.reference = Some(name),
            "commit" | "checksum" if git.checksum.is_none() => git.checksum = Some(value),
            "subdir" if subdir.is_none() => subdir = Some(value).filter(|v| !v.is_empty()),
            "keep-git-dir" => git.keep_git_dir = Some(switch(key, &value)?),
            "submodules" => git.submodules = Some(switch(key, &value)?),
            "ref" | "branch" | "tag" | "commit" | "checksum" | "subdir" => {
                return Err(format!("{key} is empty or repeated"));
            }
            other => return Err(format!("unexpected query {other:?}")),
        }
    }
    if let Some(reference) = &git.reference {
        check_reference(reference)?;
    }
    if let Some(checksum) = &git.checksum {
        check_commit(checksum)?;
        if git.reference.is_none() && matches!(checksum.len(), 40 | 64) {
            // A URL that names a commit alone means that commit, wherever the branches are.
            git.reference = Some(checksum.clone());
        }
    }
    git.subdir = subdir.map(|s| clean_subdir(&s)).transpose()?.filter(|s| !s.is_empty());
    Ok(git)
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        other => Err(format!("{key}={other} is neither true nor false")),
    }
}

/// What git-check-ref-format(1) refuses, and anything that could be an option.
fn check_reference(reference: &str) -> Result<(), String> {
    let odd = |b: u8| b.is_ascii_control() || b" ~^:?*[\\".contains(&b);
    let bad = reference.bytes().any(odd)
        || ["..", "@{", "//"].iter().any(|p| reference.contains(p))
        || reference.starts_with(['-', '/', '.'])
        || reference.ends_with(['/', '.'])
        || reference.ends_with(".lock");
    if bad || reference.len() > 1024 { Err(format!("{reference:?} is no name of a reference")) } else { Ok(()) }
}

/// Whether a text is the id of a commit, complete (SHA-1 or SHA-256) or its beginning.
pub(crate) fn check_commit(text: &str) -> Result<(), String> {
    let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex && (7..=64).contains(&text.len()) {
        Ok(())
    } else {
        let text: String = text.chars().take(100).collect();
        Err(format!("{text:?} is no commit: 7 to 64 lower-case hexadecimal digits"))
    }
}

fn clean_subdir(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") || text.contains('\0') {
        return Err(format!("the directory {text:?} may not lead upwards"));
    }
    Ok(parts.join("/"))
}

fn decode(text: &str) -> Result<String, String> {
    let broken = || format!("{text:?} has a broken escape");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(broken);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).map_err(|_| broken())?);
    }
    String::from_utf8(out).map_err(|_| broken())
}

/// The last name of a URL's path, as a file may be called; `None` when there is none.
pub fn url_name(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = without_suffixes(rest).split_once('/')?.1;
    let last = path.rsplit('/').find(|p| !p.is_empty())?;
    file_name(&decode(last).ok()?)
}

/// A name as one file may have it: the last part of a path, no control characters.
pub fn file_name(text: &str) -> Option<String> {
    let last = text.rsplit('/').next().unwrap_or_default();
    let good = !matches!(last, "" | "." | "..") && last.len() <= 255 && !last.chars().any(char::is_control);
    good.then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn git(text: &str) -> GitSource {
        match RemoteSource::parse(text, true).unwrap() {
            Some(RemoteSource::Git(git)) => git,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn kinds() {
        let kind = |text: &str| match RemoteSource::parse(text, false) {
            Ok(None) => "local",
            Ok(Some(RemoteSource::Http(_))) => "http",
            Ok(Some(RemoteSource::Git(_))) => "git",
            Err(_) => "bad",
        };
        for (text, expected) in [
            ("file.txt", "local"),
            ("github.com/a/b", "local"),
            ("./git@x", "local"),
            ("file:///etc/passwd", "local"),
            ("http://h/x.tar", "http"),
            ("https://h/x.git?x", "bad"),
            ("https://h/x.git", "git"),
            ("https://h/x.gitx", "http"),
            ("https://h/x.tar#.git", "http"),
            ("git://h/x", "git"),
            ("ssh://git@h:22/x", "git"),
            ("git@github.com:a/b.git", "git"),
            ("http://h/a b", "bad"),
            ("ssh://-oProxyCommand=x/y", "bad"),
            ("-oProxyCommand=x@h:y", "local"),
            ("git@-oProxyCommand=x:y", "local"),
            ("ext::sh -c x", "local"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert!(matches!(RemoteSource::parse("github.com/a/b", true), Ok(Some(RemoteSource::Git(_)))));
        assert!(RemoteSource::is_remote("https://h/x.git?x") && !RemoteSource::is_remote("x"));
    }

    #[test]
    fn references_and_directories() {
        let parts = |text: &str| {
            let g = git(text);
            (g.remote, g.reference.unwrap_or_default(), g.subdir.unwrap_or_default())
        };
        let expect = |r: &str, a: &str, b: &str| (r.to_owned(), a.to_owned(), b.to_owned());
        let repo = "https://h/r.git";
        assert_eq!(parts("https://h/r.git#v1:a/b/"), expect(repo, "v1", "a/b"));
        assert_eq!(parts("https://h/r.git#:a"), expect(repo, "", "a"));
        assert_eq!(parts("https://h/r.git?branch=x&subdir=%2fa+b"), expect(repo, "refs/heads/x", "a b"));
        assert_eq!(parts("https://h/r.git?tag=v1"), expect(repo, "refs/tags/v1", ""));
        assert_eq!(parts("git@h:r.git#main"), expect("git@h:r.git", "main", ""));
        assert_eq!(parts("github.com/a/b#x"), expect("https://github.com/a/b", "x", ""));
        let g = git("https://h/r.git?ref=x&checksum=abcdef1&keep-git-dir=1&submodules=false");
        assert_eq!((g.checksum.as_deref(), g.keep_git_dir, g.submodules), (Some("abcdef1"), Some(true), Some(false)));
        for bad in [
            "https://h/r.git#-x",
            "https://h/r.git#a..b",
            "https://h/r.git#x:../y",
            "https://h/r.git#a%0ab",
            "https://h/r.git?ref=a&tag=b",
            "https://h/r.git?ref=a#b",
            "https://h/r.git?commit=xyz",
            "https://h/r.git?other=1",
            "https://h/r.git?keep-git-dir=maybe",
            "https://h/r.git?ref=%zz",
        ] {
            assert!(RemoteSource::parse(bad, true).is_err() || git(bad).reference.is_some_and(|r| r == "a"), "{bad}");
        }
    }

    #[test]
    fn names_and_secrets() {
        assert_eq!(url_name("https://h/a/b%20c?x=/y").as_deref(), Some("b c"));
        assert_eq!(url_name("https://h/a/").as_deref(), Some("a"));
        for none in ["https://h", "https://h/", "https://h/%2e%2e", "https://h/a%0a"] {
            assert_eq!(url_name(none), None, "{none}");
        }
        assert_eq!(file_name("../../etc/passwd").as_deref(), Some("passwd"));
        let source = RemoteSource::parse("https://user:s3cret@h/r.git#x", false).unwrap().unwrap();
        assert_eq!(format!("{source} {source:?}"), "https://xxxxx@h/r.git#x https://xxxxx@h/r.git#x");
        assert_eq!(redacted("ssh://git@h/x"), "ssh://git@h/x");
        let error = RemoteSource::parse("https://user:s3cret@h/r.git#-x", false).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panic(text in "\\PC{0,40}", scheme in "(https|git|ssh)://h/r.git[?#:&=]{0,3}") {
            let _ = RemoteSource::parse(&text, true);
            if let Ok(Some(RemoteSource::Git(git))) = RemoteSource::parse(&format!("{scheme}{text}"), true) {
                prop_assert!(!git.remote.starts_with('-'));
                prop_assert!(git.reference.is_none_or(|r| !r.starts_with('-')));
                prop_assert!(git.subdir.is_none_or(|s| !s.split('/').any(|p| p == "..")));
            }
            let _ = url_name(&text);
        }
    }
}
