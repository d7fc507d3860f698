//! Finding the program, with Docker's words for what can go wrong. They decide between exit codes 126 and 127, and
//! scripts match them.

use crate::error::{Failure, Stage};
use dhow_sys::process;
use std::ffi::CString;
use std::io;
use std::path::Path;

/// Finds a program as Go's `exec.LookPath` does, which Docker's texts come from: a name with a slash is a path relative to
/// the working directory, any other is looked for in `$PATH`. Entries that are not absolute are skipped, since they would
/// find different programs in different directories.
pub(crate) fn find(name: &str, env: &[String]) -> Result<CString, Failure> {
    let no_nul = |path: &str| CString::new(path).map_err(|_| not_found(name, "a program name with a NUL"));
    if name.contains('/') {
        let path = no_nul(name)?;
        return match check(&path) {
            Ok(()) => Ok(path),
            Err(e) => Err(explain(name, &e, true)),
        };
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
    for directory in path.split(':').filter(|d| d.starts_with('/')) {
        let candidate = no_nul(&format!("{}/{name}", directory.trim_end_matches('/')))?;
        if !name.is_empty() && check(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    Err(not_found(name, "executable file not found in $PATH"))
}

/// Whether the process may execute a file: not a directory, and permitted for the effective user.
fn check(path: &CString) -> io::Result<()> {
    let stat = rustix::fs::stat(path.as_c_str())?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    process::may_execute(path)
}

fn not_found(name: &str, why: &str) -> Failure {
    Failure::new(Stage::ProgramNotFound, format!("exec: {name:?}: {why}"))
}

/// A failure of execve(2), or of looking at the program (`stat`), in Docker's words.
pub(crate) fn explain(name: &str, error: &io::Error, stat: bool) -> Failure {
    let executable = |why: &str| Failure::new(Stage::ProgramNotExecutable, format!("exec: {name:?}: {why}"));
    let stat = if stat { format!("stat {name}: ") } else { String::new() };
    match error.raw_os_error() {
        Some(libc::ENOENT) => not_found(name, &format!("{stat}no such file or directory")),
        Some(libc::ENOTDIR) => not_found(name, &format!("{stat}not a directory")),
        Some(libc::EACCES | libc::EPERM) => executable("permission denied"),
        Some(libc::EISDIR) => executable("is a directory"),
        Some(libc::ENOEXEC) => executable("exec format error"),
        Some(libc::ELOOP) => executable(&format!("{stat}too many levels of symbolic links")),
        errno => Failure { stage: Stage::Program, what: format!("exec: {name:?}"), errno },
    }
}

/// The environment with `HOME` set: what it says already, else the user's home.
pub(crate) fn with_home(env: &[String], home: Option<&Path>) -> Vec<String> {
    let mut env = env.to_vec();
    let unset = |e: &String| e.strip_prefix("HOME=").is_none_or(str::is_empty);
    if env.iter().all(unset) {
        env.retain(|e| e != "HOME=");
        let home = home.and_then(Path::to_str).filter(|h| !h.is_empty()).unwrap_or("/");
        env.push(format!("HOME={home}"));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, path: &str) -> (Stage, String) {
        let failure = find(name, &[format!("PATH={path}")]).unwrap_err();
        (failure.stage, failure.what)
    }

    #[test]
    fn names_are_looked_up_in_path() {
        let found = find("sh", &["PATH=/nonexistent::.:/bin/".to_owned()]).unwrap();
        assert_eq!(found.as_c_str(), c"/bin/sh");
        assert_eq!(find("/bin/sh", &[]).unwrap().as_c_str(), c"/bin/sh");
        // The last one counts, as in a shell's view of a doubled variable.
        assert!(find("sh", &["PATH=/bin".to_owned(), "PATH=/nonexistent".to_owned()]).is_err());
    }

    #[test]
    fn dockers_texts() {
        let not_found =
            |name: &str| (Stage::ProgramNotFound, format!("exec: {name:?}: executable file not found in $PATH"));
        assert_eq!(text("nope", "/bin"), not_found("nope"));
        assert_eq!(text("", "/bin"), not_found(""));
        assert_eq!(text("sh", ""), not_found("sh"));
        assert_eq!(text("sh", "bin:."), not_found("sh"));
        // A file that is not executable does not count in $PATH.
        assert_eq!(text("passwd", "/etc"), not_found("passwd"));
        assert_eq!(
            text("/nope", "/bin"),
            (Stage::ProgramNotFound, "exec: \"/nope\": stat /nope: no such file or directory".into())
        );
        assert_eq!(
            text("/etc/passwd", ""),
            (Stage::ProgramNotExecutable, "exec: \"/etc/passwd\": permission denied".into())
        );
        assert_eq!(text("/etc", ""), (Stage::ProgramNotExecutable, "exec: \"/etc\": is a directory".into()));
        assert_eq!(
            text("/etc/passwd/x", ""),
            (Stage::ProgramNotFound, "exec: \"/etc/passwd/x\": stat /etc/passwd/x: not a directory".into())
        );
    }

    #[test]
    fn home() {
        let env = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let root = Path::new("/root");
        assert_eq!(with_home(&env(&["A=1"]), Some(root)), ["A=1", "HOME=/root"]);
        assert_eq!(with_home(&env(&["HOME=/x"]), Some(root)), ["HOME=/x"]);
        assert_eq!(with_home(&env(&["HOME="]), Some(root)), ["HOME=/root"]);
        assert_eq!(with_home(&env(&[]), None), ["HOME=/"]);
    }
}
