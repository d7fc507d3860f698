//! Looking at namespaces, and entering them by file: what is behind `dhow ns`.
//!
//! A process's namespaces are the links in `/proc/PID/ns`; two processes share one if device and inode of the links are
//! equal (namespaces(7)). Entering is what setns(2) does, in an order that works: see [`enter`].
//!
//! Deliberately absent: confinement. Who enters a namespace this way keeps all rights; containers are entered with
//! [`crate::exec`].

use crate::error::{Failure, Stage};
use crate::program;
use dhow_oci::runtime::NamespaceKind;
use dhow_sys::{ns, process};
use dhow_types::{Categorized, ErrorKind};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::pipe::PipeFlags;
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What can go wrong with namespaces.
#[derive(Debug, thiserror::Error)]
pub enum NsError {
    /// There is no such process.
    #[error("no process {pid}")]
    NoProcess {
        /// The process id.
        pid: u32,
    },
    /// The file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file is not a namespace.
    #[error("{} is not a namespace", path.display())]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
    /// Two files are namespaces of one kind.
    #[error("two {} namespaces are given, {} being the second", kind.proc_name(), path.display())]
    Twice {
        /// Their kind.
        kind: NamespaceKind,
        /// The second file.
        path: PathBuf,
    },
    /// The namespace cannot be entered.
    #[error("cannot enter the {} namespace {}", kind.proc_name(), path.display())]
    Enter {
        /// Its kind.
        kind: NamespaceKind,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program cannot be executed; the text is Docker's.
    #[error("{message}")]
    Program {
        /// What failed.
        message: String,
        /// Category, which decides between exit codes 127 and 126.
        kind: ErrorKind,
    },
    /// A namespace cannot be looked at, or the program's process cannot be made or waited for.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Categorized for NsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProcess { .. } => ErrorKind::NotFound,
            Self::NotANamespace { .. } | Self::Twice { .. } => ErrorKind::Invalid,
            Self::Program { kind, .. } => *kind,
            Self::Open { source, .. } | Self::Enter { source, .. } | Self::Io { source, .. } => {
                match source.raw_os_error() {
                    Some(libc::ENOENT | libc::ESRCH) => ErrorKind::NotFound,
                    Some(libc::EACCES | libc::EPERM) => ErrorKind::Forbidden,
                    _ => ErrorKind::Internal,
                }
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotANamespace { .. } => Some("namespaces are the files in /proc/PID/ns".into()),
            Self::Enter { source, .. } if source.raw_os_error() == Some(libc::EPERM) => Some(
                "entering needs CAP_SYS_ADMIN in the user namespace that owns it; give its user namespace as well"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// A namespace: its kind, and what tells it from others of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NsId {
    /// Kind.
    pub kind: NamespaceKind,
    /// Inode number, the one in `net:[4026531840]`.
    pub inode: u64,
    /// Device number of the nsfs that the inode is in.
    pub dev: u64,
}

impl fmt::Display for NsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:[{}]", self.kind.proc_name(), self.inode)
    }
}

/// Who owns a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user namespace whose capabilities count in it; `None` if that is outside the caller's own.
    pub user: Option<NsId>,
    /// For user namespaces: who made it, as numbered in the caller's user namespace.
    pub uid: Option<u32>,
    /// For user and pid namespaces: the parent, if it is not outside the caller's own.
    pub parent: Option<NsId>,
}

/// The namespaces of a process, in the order of [`NamespaceKind::ALL`]. Kinds that the kernel does not have are left out.
pub fn of(pid: u32) -> Result<Vec<NsId>, NsError> {
    read_links(&format!("/proc/{pid}/ns")).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => NsError::NoProcess { pid },
        _ => NsError::Io { action: "read the namespaces of a process", source: e },
    })
}

/// The namespaces of this process, which for the engine are the host's.
pub fn host() -> Result<Vec<NsId>, NsError> {
    read_links("/proc/self/ns").map_err(|source| NsError::Io { action: "read own namespaces", source })
}

fn read_links(dir: &str) -> io::Result<Vec<NsId>> {
    // One descriptor for the directory: a process id that is reused meanwhile does not mix two processes.
    let dir = rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut found = Vec::with_capacity(NamespaceKind::ALL.len());
    for kind in NamespaceKind::ALL {
        match rustix::fs::statat(&dir, kind.proc_name(), AtFlags::empty()) {
            Ok(stat) => found.push(NsId { kind, inode: stat.st_ino, dev: stat.st_dev }),
            Err(rustix::io::Errno::NOENT) => {
                // A kind that the kernel lacks, or a process that has just gone.
                rustix::fs::statat(&dir, NamespaceKind::Mount.proc_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

/// The kind of the namespace that an open file is.
pub fn kind_of(file: BorrowedFd<'_>) -> io::Result<NamespaceKind> {
    let flag = ns::kind(file)?;
    let kind = NamespaceKind::ALL.into_iter().find(|k| clone_flag(*k) == flag);
    kind.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Who owns the namespace of one kind that a process is in.
pub fn owner(pid: u32, kind: NamespaceKind) -> Result<Owner, NsError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/{}", kind.proc_name()));
    let file = open(&path)?;
    let id = |found: io::Result<OwnedFd>, kind| -> Result<Option<NsId>, NsError> {
        match found {
            Ok(fd) => identify(fd.as_fd(), kind).map(Some),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) => Ok(None),
            Err(source) => Err(NsError::Io { action: "find the owner of a namespace", source }),
        }
    };
    Ok(Owner {
        user: id(ns::owner(file.as_fd()), NamespaceKind::User)?,
        uid: if kind == NamespaceKind::User { ns::owner_uid(file.as_fd()).ok() } else { None },
        parent: id(ns::parent(file.as_fd()), kind)?,
    })
}

fn identify(fd: BorrowedFd<'_>, kind: NamespaceKind) -> Result<NsId, NsError> {
    let stat = rustix::fs::fstat(fd).map_err(|e| NsError::Io { action: "look at a namespace", source: e.into() })?;
    Ok(NsId { kind, inode: stat.st_ino, dev: stat.st_dev })
}

const fn clone_flag(kind: NamespaceKind) -> u64 {
    match kind {
        NamespaceKind::User => process::CLONE_NEWUSER,
        NamespaceKind::Cgroup => process::CLONE_NEWCGROUP,
        NamespaceKind::Ipc => process::CLONE_NEWIPC,
        NamespaceKind::Uts => process::CLONE_NEWUTS,
        NamespaceKind::Network => process::CLONE_NEWNET,
        NamespaceKind::Pid => process::CLONE_NEWPID,
        NamespaceKind::Mount => process::CLONE_NEWNS,
        NamespaceKind::Time => process::CLONE_NEWTIME,
    }
}

fn open(path: &Path) -> Result<OwnedFd, NsError> {
    // The caller names the file; following `/proc/PID/ns/*` is the point.
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|e| NsError::Open { path: path.to_owned(), source: e.into() })
}

/// A namespace to enter.
struct Target {
    path: PathBuf,
    file: OwnedFd,
    kind: NamespaceKind,
}

/// Enters the namespaces behind these files and replaces this process by a program, found in `env`'s `PATH` *after*
/// entering. Does not return on success, with one exception: a pid namespace takes effect for children only, so then the
/// program runs as a child, its exit code (128 + signal) being the result.
///
/// Order: every namespace is tried with the rights there are; then the user namespace is entered; then those are tried
/// again that were refused. So it works whether the user namespace takes rights away or gives them. The mount namespace
/// comes last of each round, as it changes the root directory. The caller must have one thread.
pub fn enter<P: AsRef<Path>>(paths: &[P], argv: &[String], env: &[String]) -> Result<i32, NsError> {
    let targets = open_all(paths)?;
    let pid_too = targets.iter().any(|t| t.kind == NamespaceKind::Pid);
    enter_all(&targets)?;
    drop(targets);
    if !pid_too {
        return Err(program_error(run(argv, env)));
    }
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe")(e.into()))?;
    let child = process::clone_child(0, None, || {
        let failure = run(argv, env);
        // The parent tells. A byte for the stage, then the text.
        let mut message = vec![failure.stage as u8];
        message.extend(program_error(failure).to_string().into_bytes());
        let _ = rustix::io::write(&writer, &message);
        1
    })
    .map_err(failed("make a process in the pid namespace"))?;
    drop(writer);
    ns::ignore_terminal_signals();
    let mut message = Vec::new();
    // At execve(2) the other end closes without a byte.
    File::from(reader).take(64 << 10).read_to_end(&mut message).map_err(failed("hear from the program's process"))?;
    let exit = process::wait(child.pidfd.as_fd()).map_err(failed("wait for the program"))?;
    match message.split_first() {
        None => Ok(exit.shell_code()),
        Some((stage, text)) => Err(NsError::Program {
            message: String::from_utf8_lossy(text).into_owned(),
            kind: program_kind(Stage::from_number(*stage).unwrap_or(Stage::Program)),
        }),
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> NsError {
    move |source| NsError::Io { action, source }
}

fn open_all<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Target>, NsError> {
    let mut targets: Vec<Target> = Vec::with_capacity(paths.len());
    for path in paths {
        let path = path.as_ref().to_owned();
        let file = open(&path)?;
        let Ok(kind) = kind_of(file.as_fd()) else { return Err(NsError::NotANamespace { path }) };
        if targets.iter().any(|t| t.kind == kind) {
            return Err(NsError::Twice { kind, path });
        }
        targets.push(Target { path, file, kind });
    }
    // Stable, false before true: the mount namespace is last.
    targets.sort_by_key(|t| t.kind == NamespaceKind::Mount);
    Ok(targets)
}

fn enter_all(targets: &[Target]) -> Result<(), NsError> {
    let (user, others): (Vec<&Target>, Vec<&Target>) = targets.iter().partition(|t| t.kind == NamespaceKind::User);
    let mut refused = Vec::new();
    for target in others {
        if user.is_empty() {
            enter_one(target)?;
        } else if enter_one(target).is_err() {
            refused.push(target);
        }
    }
    for target in user {
        // setns(2) refuses the user namespace one is in already.
        let here = host()?.into_iter().find(|n| n.kind == NamespaceKind::User);
        if here != Some(identify(target.file.as_fd(), NamespaceKind::User)?) {
            enter_one(target)?;
            become_root();
        }
    }
    refused.into_iter().try_for_each(enter_one)
}

fn enter_one(target: &Target) -> Result<(), NsError> {
    process::enter(target.file.as_fd(), clone_flag(target.kind)).map_err(|source| NsError::Enter {
        kind: target.kind,
        path: target.path.clone(),
        source,
    })
}

/// Takes the identity of the entered user namespace's root, where it has one: the old ids mean nothing in it.
fn become_root() {
    use rustix::thread;
    // Each may be unmapped or forbidden; then the overflow ids stay, as with nsenter(1).
    let _ = thread::set_thread_groups(&[]);
    let _ = thread::set_thread_res_gid(rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT);
    let _ = thread::set_thread_res_uid(rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT);
}

/// Executes the program; returns only when that fails.
fn run(argv: &[String], env: &[String]) -> Failure {
    let strings =
        |list: &[String]| -> Option<Vec<CString>> { list.iter().map(|s| CString::new(s.as_str()).ok()).collect() };
    let (Some(name), Some(args), Some(vars)) = (argv.first(), strings(argv), strings(env)) else {
        return Failure::new(Stage::ProgramNotFound, "exec: no program, or an argument with a NUL");
    };
    match program::find(name, env) {
        Ok(path) => {
            // A Rust program ignores SIGPIPE, and would hand that on.
            process::reset_signals();
            program::explain(name, &process::execve(&path, &args, &vars), false)
        }
        Err(failure) => failure,
    }
}

fn program_error(failure: Failure) -> NsError {
    let kind = program_kind(failure.stage);
    let message = match failure.errno {
        Some(errno) => format!("{}: {}", failure.what, io::Error::from_raw_os_error(errno)),
        None => failure.what,
    };
    NsError::Program { message, kind }
}

fn program_kind(stage: Stage) -> ErrorKind {
    match stage {
        Stage::ProgramNotFound => ErrorKind::CommandNotFound,
        _ => ErrorKind::CommandNotExecutable,
    }
}

#[cfg(test)]
#[path = "nsview_tests.rs"]
mod tests;
