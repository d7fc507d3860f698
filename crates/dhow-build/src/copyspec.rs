//! Paths inside the image as instructions write them.

/// Go's `path.Join("/", base, path)`: absolute, without `.`, `..` and doubled slashes.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A destination of `COPY`: absolute, and with a slash at the end when it was written as a directory.
pub(crate) fn destination(workdir: &str, path: &str) -> String {
    let directory =
        path.is_empty() || path.ends_with('/') || path == "." || path.ends_with("/.") || path.ends_with("/..");
    let mut full = absolute(workdir, path);
    if directory && !full.ends_with('/') {
        full.push('/');
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(absolute("/a", "b/../c"), "/a/c");
        assert_eq!(absolute("/a", "/../../etc"), "/etc");
        assert_eq!(absolute("", "."), "/");
        assert_eq!(destination("/app", "."), "/app/");
        assert_eq!(destination("/app", "./"), "/app/");
        assert_eq!(destination("/app", "x"), "/app/x");
        assert_eq!(destination("/app", "/x/"), "/x/");
        assert_eq!(destination("", ""), "/");
    }
}
