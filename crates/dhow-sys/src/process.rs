//! Processes: making, identifying, preparing and replacing them.
//!
//! Two ways to make one, and the difference matters:
//!
//! * [`clone_child`] is fork(2) with namespaces: the child has a copy of the caller's memory and runs Rust code. It is
//!   refused in a process with several threads, whose locks (the allocator's for one) would stay locked in the child
//!   for ever.
//! * [`spawn_sealed`] shares memory with its caller until the program is replaced (`CLONE_VM | CLONE_VFORK`), allocates
//!   nothing in the child, and so works in any process.
//!
//! **Sealed** is what this module calls a program that was started from a detached, read-only clone of the mount its
//! file is on. A container that gets hold of `/proc/PID/exe` of such a process cannot open it for writing, by no
//! capability (CVE-2019-5736).
//!
//! Deliberately absent: `std::process::Command`. Nothing here looks a program up by name.

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// New mount namespace.
pub const CLONE_NEWNS: u64 = 0x0002_0000;
/// New cgroup namespace.
pub const CLONE_NEWCGROUP: u64 = 0x0200_0000;
/// New UTS namespace.
pub const CLONE_NEWUTS: u64 = 0x0400_0000;
/// New IPC namespace.
pub const CLONE_NEWIPC: u64 = 0x0800_0000;
/// New user namespace.
pub const CLONE_NEWUSER: u64 = 0x1000_0000;
/// New PID namespace.
pub const CLONE_NEWPID: u64 = 0x2000_0000;
/// New network namespace.
pub const CLONE_NEWNET: u64 = 0x4000_0000;
/// New time namespace (Linux 5.6; clone3(2) only, the bit is part of clone(2)'s exit signal).
pub const CLONE_NEWTIME: u64 = 0x0000_0080;

/// Number of rt_sigtimedwait(2), as `/proc/PID/syscall` shows it.
pub const RT_SIGTIMEDWAIT: i64 = libc::SYS_rt_sigtimedwait;

const CLONE_PIDFD: u64 = 0x0000_1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// What a child exits with when its code panicked.
const PANICKED: i32 = 70;

/// A child process. The pidfd names this very process for as long as it is open, whatever becomes of the number.
#[derive(Debug)]
pub struct Child {
    /// Process id in the caller's PID namespace.
    pub pid: u32,
    /// File descriptor of the process (pidfd_open(2)), close-on-exec.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It called exit(2) with this status, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The status as shells and Docker report it: 128 plus the signal's number.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Set in children of [`clone_child`], which start no threads, so that they can do without `/proc`.
static CLONED: AtomicBool = AtomicBool::new(false);

/// Whether the process has one thread. One stat(2): the link count of `/proc/self/task` is two plus the threads.
pub fn is_single_threaded() -> io::Result<bool> {
    if CLONED.load(Ordering::Relaxed) {
        return Ok(true);
    }
    // A thread that was joined is counted until the kernel has put it away, a moment after it woke whoever joined it.
    for _ in 0..100 {
        if rustix::fs::stat("/proc/self/task")?.st_nlink == 3 {
            return Ok(true);
        }
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
    Ok(false)
}

/// `struct clone_args` (clone(2)), version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a child process in new namespaces (`CLONE_NEW*` bits), and in a version 2 cgroup at once when one is given.
///
/// The child has a copy of the caller's memory and descriptors, runs `body`, and exits with what it returns; a panic in
/// it ends the child alone. It must not start threads. Signal handlers are reset. Fails with `EDEADLK` in a process with more than one thread.
pub fn clone_child(namespaces: u64, cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce() -> i32) -> io::Result<Child> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: namespaces | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets a copy of the address space and goes on on its own copy of this stack, as
    // after fork(2); there is no other thread (checked above) that could hold a lock in that copy. `args` is a valid
    // `struct clone_args` and `pidfd` is written by the kernel in the parent before the call returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        CLONED.store(true, Ordering::Relaxed);
        // The stack frames above belong to the parent: neither a return nor an unwinding may reach them.
        let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
        exit_now(code);
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: pid as u32, pidfd })
}

/// Ends the process at once: no destructors, no exit handlers, no flushing of what a parent has buffered too.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Waits for a child to end and reaps it.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return exit_of(&status),
            Ok(None) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Reaps a child if it has ended.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)? {
        Some(status) => exit_of(&status).map(Some),
        None => Ok(None),
    }
}

fn exit_of(status: &rustix::process::WaitIdStatus) -> io::Result<Exit> {
    status
        .exit_status()
        .map(Exit::Code)
        .or_else(|| status.terminating_signal().map(Exit::Signal))
        .ok_or_else(|| io::Error::other("waitid reported neither an exit nor a signal"))
}

/// Sends a signal to exactly this process (pidfd_send_signal(2)). Number 0 only asks whether it is there.
pub fn signal(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed; no memory is passed.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A pidfd of a process, close-on-exec.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid =
        i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// When a process started: field 22 of `/proc/PID/stat`, in clock ticks since boot. With the boot id it tells a process
/// from a later one of the same number.
pub fn start_time(pid: u32) -> io::Result<u64> {
    let stat = read_small(&format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "odd /proc/PID/stat"))
}

/// Reads a small file of `/proc` in one read(2), of which each takes locks of the process asked about.
fn read_small(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut bytes))?;
    bytes.truncate(length);
    Ok(bytes)
}

/// The name (field 2) may contain blanks and parentheses, so fields are counted from the last `)`.
fn parse_start_time(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)
}

/// A numeric field of `/proc/PID/stat`, counted from 1 as in proc(5), from the third on.
fn stat_field(stat: &[u8], number: usize) -> Option<u64> {
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after..)?).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// A random id of this boot (random(4), `/proc/sys/kernel/random/boot_id`).
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// Whether this program was started from a read-only mount, so that nobody can write to it through `/proc/PID/exe`.
pub fn exe_is_sealed() -> io::Result<bool> {
    let flags = rustix::fs::statvfs("/proc/self/exe")?.f_flag;
    Ok(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// An `O_PATH` descriptor of this program on a read-only mount: a detached clone of the mount (`open_tree`,
/// `mount_setattr`), or the program's own file where that is read-only already. Needs `CAP_SYS_ADMIN` for the clone.
pub fn sealed_self() -> io::Result<OwnedFd> {
    if exe_is_sealed()? {
        // A process that came from a detached clone could not clone it again: the kernel clones only what is mounted in
        // the caller's namespace. Opening it again leads to the same read-only mount.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        return Ok(rustix::fs::open("/proc/self/exe", flags, Mode::empty())?);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, "/proc/self/exe", flags)?;
    crate::mount::set_attributes(tree.as_fd(), crate::mount::Attributes::READ_ONLY, false)?;
    Ok(tree)
}

/// Replaces this program by itself, sealed, with the same arguments and environment. Returns only on failure.
pub fn reexec_sealed() -> io::Error {
    match try_reexec_sealed() {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

fn try_reexec_sealed() -> io::Result<std::convert::Infallible> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let sealed = sealed_self()?;
    let argv = std::env::args_os().map(|a| CString::new(a.into_vec())).collect::<Result<Vec<_>, _>>()?;
    let envp = std::env::vars_os()
        .map(|(k, v)| CString::new([k.as_bytes(), b"=", v.as_bytes()].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    Err(execve_fd(sealed.as_fd(), &pointers(&argv), &pointers(&envp)))
}

/// Replaces the program (execve(2)). Returns only on failure.
pub fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: `path` and every string are NUL-terminated and live across the call, both lists end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// execveat(2) with `AT_EMPTY_PATH`. Both lists must end with a null pointer and hold pointers to C strings.
fn execve_fd(program: BorrowedFd<'_>, argv: &[*const libc::c_char], envp: &[*const libc::c_char]) -> io::Error {
    // SAFETY: the callers in this module pass null-terminated lists of live C strings; the descriptor is borrowed.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Starts this program again in another role: sealed, with `argv`, an empty environment, `/` as working directory,
/// `/dev/null` as descriptors 0 to 2, the given descriptors as 3, 4, …, no other one, and a session of its own.
///
/// Returns the process id and pidfd once the new program runs; a failure to start it is returned as an error. Works in
/// processes with threads.
pub fn spawn_sealed(argv: &[&CStr], fds: &[BorrowedFd<'_>]) -> io::Result<(u32, OwnedFd)> {
    let sealed = sealed_self()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let argv: Vec<_> = argv.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
    let targets: Vec<RawFd> =
        [&null; 3].iter().map(|n| n.as_raw_fd()).chain(fds.iter().map(|f| f.as_raw_fd())).collect();
    let mut moved = vec![-1; targets.len()];
    let mut order = Order { sealed: sealed.as_raw_fd(), targets: &targets, moved: &mut moved, argv: &argv, errno: 0 };
    let (pid, pidfd) = vfork_exec(&mut order)?;
    if order.errno != 0 {
        // The child is gone or going; it must not stay a zombie.
        wait(pidfd.as_fd())?;
        return Err(io::Error::from_raw_os_error(order.errno));
    }
    Ok((pid, pidfd))
}

/// What the child of [`spawn_sealed`] works from; everything is allocated beforehand.
struct Order<'a> {
    sealed: RawFd,
    /// Descriptor that is to become 0, 1, 2, …
    targets: &'a [RawFd],
    /// Scratch of the same length.
    moved: &'a mut [RawFd],
    argv: &'a [*const libc::c_char],
    /// Written by the child when it fails; the parent reads it after the child let go of the memory.
    errno: i32,
}

fn vfork_exec(order: &mut Order<'_>) -> io::Result<(u32, OwnedFd)> {
    const STACK: usize = 64 * 1024;
    // Never written here, so only the pages that the child really uses are ever touched. Stacks are aligned to 16 bytes.
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // All signals are blocked so that no handler of this program runs in the child, on memory that both share.
    let all = u64::MAX;
    let mut before = 0_u64;
    mask_signals(all, Some(&mut before));
    // SAFETY: the child runs `vforked` on a stack of its own, `top` being its aligned end, while this thread sleeps
    // (CLONE_VFORK) until the child has called execveat(2) or _exit(2); so `order`, `stack` and `pidfd` outlive its use
    // of them and nobody else touches them meanwhile. `vforked` allocates nothing, takes no lock and never returns.
    let pid = unsafe {
        libc::clone(
            vforked,
            top.cast(),
            flags,
            std::ptr::from_mut(order).cast(),
            &raw mut pidfd,
            std::ptr::null_mut::<libc::c_void>(),
            std::ptr::null_mut::<libc::c_void>(),
        )
    };
    let error = io::Error::last_os_error();
    mask_signals(before, None);
    if pid == -1 {
        return Err(error);
    }
    // SAFETY: with CLONE_PIDFD the kernel stored a new descriptor of ours here.
    Ok((pid as u32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The child's side of [`spawn_sealed`]. Shares memory with the parent: no allocation, no destructor, no return.
extern "C" fn vforked(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `argument` is the `Order` that `vfork_exec` borrows mutably; the parent sleeps until we are done.
    let order = unsafe { &mut *argument.cast::<Order<'_>>() };
    let envp = [std::ptr::null()];
    order.errno = match vforked_prepare(order) {
        Err(errno) => errno,
        Ok(program) => {
            // SAFETY: `program` is open in this process until it is replaced.
            let program = unsafe { BorrowedFd::borrow_raw(program) };
            execve_fd(program, order.argv, &envp).raw_os_error().unwrap_or(libc::EIO)
        }
    };
    exit_now(127)
}

fn vforked_prepare(order: &mut Order<'_>) -> Result<RawFd, i32> {
    let first_free = order.targets.len() as RawFd;
    reset_signals();
    // SAFETY: plain system calls on descriptors of this process, which has a descriptor table of its own.
    unsafe {
        check(libc::setsid())?;
        check(libc::chdir(c"/".as_ptr()))?;
        // First out of the way of the final numbers, then to them; dup2 drops close-on-exec.
        let program = check(libc::fcntl(order.sealed, libc::F_DUPFD_CLOEXEC, first_free))?;
        for (moved, target) in order.moved.iter_mut().zip(order.targets) {
            *moved = check(libc::fcntl(*target, libc::F_DUPFD_CLOEXEC, first_free))?;
        }
        for (number, moved) in order.moved.iter().enumerate() {
            check(libc::dup2(*moved, number as RawFd))?;
        }
        let cloexec = libc::CLOSE_RANGE_CLOEXEC;
        check(libc::syscall(libc::SYS_close_range, first_free as u32, u32::MAX, cloexec) as libc::c_int)?;
        Ok(program)
    }
}

fn check(result: libc::c_int) -> Result<libc::c_int, i32> {
    if result == -1 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)) } else { Ok(result) }
}

/// Sets every signal to its default action, ignored ones too (execve(2) keeps those), and unblocks all.
pub fn reset_signals() {
    // The kernel's `struct sigaction` of any architecture fits, and all zero means SIG_DFL without flags.
    let default = [0_u64; 8];
    for number in (1..=64).filter(|n| ![libc::SIGKILL, libc::SIGSTOP].contains(n)) {
        // SAFETY: `default` is larger than the kernel's structure and outlives the call. The raw call is used because
        // C libraries refuse the two or three signals they keep for themselves.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &raw const default, std::ptr::null::<u64>(), 8) };
    }
    mask_signals(0, None);
}

/// Sets the mask of blocked signals, bit *n - 1* for signal *n*.
fn mask_signals(mask: u64, before: Option<&mut u64>) {
    let before = before.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: both pointers are null or point to eight bytes, the size that is passed.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, before, 8) };
}

/// Closes every descriptor from `first` on (close_range(2), Linux 5.9).
///
/// For a process that is about to become another program, or to do nothing but wait: values that own such descriptors
/// must not be used after this.
pub fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the caller has no further use of the descriptors, as the function's contract says; a stale number in an
    // `OwnedFd` that is never touched again does no harm.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first as u32, u32::MAX, 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `stdio` descriptors 0 to 2 and `rest` the following numbers, close-on-exec, and closes every other one.
///
/// For a process that is about to become another program: no value that owned a descriptor before may be used after
/// this. Returns what `rest` became.
pub fn replace_descriptors(stdio: [OwnedFd; 3], rest: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let all: Vec<OwnedFd> = stdio.into_iter().chain(rest).collect();
    let count = all.len() as RawFd;
    // First out of the way of the final numbers, then to them.
    let moved = all.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, count)).collect::<Result<Vec<_>, _>>()?;
    for (number, fd) in moved.iter().enumerate() {
        let flags = if number < 3 { 0 } else { libc::O_CLOEXEC };
        // SAFETY: a system call on numbers of this process's own table; see the contract above.
        if unsafe { libc::dup3(fd.as_raw_fd(), number as RawFd, flags) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    // Their numbers are among the final ones, or are closed by the next call; no destructor may close them again.
    std::mem::forget(all);
    std::mem::forget(moved);
    close_from(count)?;
    // SAFETY: the numbers from 3 on were made above, and no value owns them yet.
    Ok((3..count).map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}

/// Leaves some namespaces for new ones (unshare(2)); `CLONE_NEW*` bits alone.
pub fn unshare(namespaces: u64) -> io::Result<()> {
    let flags = libc::c_int::try_from(namespaces).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: namespace bits change nothing that Rust code relies on, unlike CLONE_FILES.
    if unsafe { libc::unshare(flags) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Enters namespaces (setns(2)): those of a process whose pidfd is given, named by `CLONE_NEW*` bits (Linux 5.8), or the
/// one of a namespace file, whose kind is checked against the bit.
pub fn enter(fd: BorrowedFd<'_>, namespaces: u64) -> io::Result<()> {
    let flags = libc::c_int::try_from(namespaces).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: no memory is passed and the descriptor is borrowed.
    if unsafe { libc::setns(fd.as_raw_fd(), flags) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Replaces the session keyring by a new, empty one (keyctl(2)); done silently where the kernel has no keyrings.
pub fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    match result {
        -1 => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            e => Err(e),
        },
        _ => Ok(()),
    }
}

/// Is PID 1 of a container until `child` ends: passes signals on to it and reaps everything that is orphaned.
///
/// Returns how the child ended. Blocks all signals of the calling thread.
pub fn act_as_init(child: u32) -> io::Result<Exit> {
    let child = libc::pid_t::try_from(child).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    mask_signals(u64::MAX, None);
    let all = u64::MAX;
    loop {
        if let Some(exit) = reap_until(child)? {
            return Ok(exit);
        }
        // SAFETY: `all` is a signal set of the size that is passed; no information is asked for.
        let number = unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const all,
                std::ptr::null::<libc::siginfo_t>(),
                std::ptr::null::<libc::timespec>(),
                8,
            )
        };
        if number > 0 && number != libc::c_long::from(libc::SIGCHLD) {
            // SAFETY: a plain system call. It fails when the child is gone, which the next round notices.
            unsafe { libc::kill(child, number as libc::c_int) };
        }
    }
}

/// Reaps ended children; the exit of `child` when that is among them, or when no child is left.
fn reap_until(child: libc::pid_t) -> io::Result<Option<Exit>> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for a write.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            0 => return Ok(None),
            -1 => return Err(io::Error::last_os_error()),
            pid if pid == child => {
                return Ok(Some(if libc::WIFSIGNALED(status) {
                    Exit::Signal(libc::WTERMSIG(status))
                } else {
                    Exit::Code(libc::WEXITSTATUS(status))
                }));
            }
            _ => {}
        }
    }
}

/// Replaces the command line that others see in `/proc/PID/cmdline` by `title`, cut to the length of the old one.
///
/// For a process that goes on as something else than what it was started as; `std::env::args` is of no use after it. The
/// caller's `/proc` must be a trustworthy one. Does nothing where the kernel does not tell the place.
pub fn set_command_line(title: &str) -> io::Result<()> {
    const ARG_START: usize = 48;
    const ARG_END: usize = 49;
    let stat = read_small("/proc/self/stat")?;
    let (Some(start), Some(end)) = (stat_field(&stat, ARG_START), stat_field(&stat, ARG_END)) else { return Ok(()) };
    let length = end.saturating_sub(start) as usize;
    if start == 0 || length == 0 || !is_single_threaded()? {
        return Ok(());
    }
    let mut text = vec![0; length];
    // The last byte stays zero, so that what reads the first argument as a C string finds its end.
    for (to, from) in text.iter_mut().take(length - 1).zip(title.bytes()) {
        *to = from;
    }
    // SAFETY: the kernel says that the arguments of this process are there: writable memory at the bottom of its stack,
    // which Rust code knows only as C strings that the standard library copies on demand. No other thread is running,
    // and every string in the range still ends inside it.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, length) };
    Ok(())
}

/// Whether the effective user may execute a file, asked of the kernel with the effective ids (faccessat2(2)).
pub fn may_execute(path: &CStr) -> io::Result<()> {
    use rustix::fs::Access;
    match rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests;
