use super::*;
use std::fs::File;
use std::io::Read;

#[test]
fn start_time_survives_odd_names() {
    let line = b"12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
    assert_eq!(parse_start_time(line), Some(4711));
    assert_eq!(parse_start_time(b""), None);
    assert_eq!(parse_start_time(b"1 (x) S 1"), None);
    assert_eq!(start_time(std::process::id()).unwrap(), start_time(std::process::id()).unwrap());
}

#[test]
fn fields_are_counted_as_in_the_manual() {
    let stat = b"1 (x) S 4 5 6";
    assert_eq!((stat_field(stat, 4), stat_field(stat, 6), stat_field(stat, 7)), (Some(4), Some(6), None));
    assert_eq!((stat_field(stat, 3), stat_field(stat, 1)), (None, None));
}

#[test]
fn boot_id_is_a_uuid() {
    assert_eq!(boot_id().unwrap().len(), 36);
}

#[test]
fn exits_as_shells_say() {
    assert_eq!(Exit::Code(3).shell_code(), 3);
    assert_eq!(Exit::Signal(9).shell_code(), 137);
}

#[test]
fn clone_is_refused_with_threads() {
    // The test runner itself has threads.
    let waiting = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| waiting.wait());
        let error = clone_child(0, None, || 0).unwrap_err();
        waiting.wait();
        assert_eq!(error.raw_os_error(), Some(libc::EDEADLK));
    });
}

/// Tries to overwrite the running program. The kernel looks at the mount first because of `O_TRUNC`, and at whether the
/// program is running after that.
fn write_to_exe() -> Option<i32> {
    File::options().write(true).truncate(true).open("/proc/self/exe").unwrap_err().raw_os_error()
}

/// The argument that turns this test program into one that shows what it was given.
const PROBE: &CStr = c"process::tests::probe_of_a_spawned_child";

/// Only does something when [`root_spawn_is_sealed`] starts it: tells through descriptor 3 what it sees.
#[test]
fn probe_of_a_spawned_child() {
    let args: Vec<_> = std::env::args().collect();
    if !args.iter().any(|a| a == "--exact") || std::env::vars_os().next().is_some() {
        return;
    }
    // SAFETY: the numbers are only asked about, never closed or kept.
    let fds: Vec<_> = (0..20)
        .filter(|n| rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(*n) }).is_ok())
        .map(|n| n.to_string())
        .collect();
    // SAFETY: the parent passed a pipe as descriptor 3; nothing else in this process knows it.
    let mut out = unsafe { File::from_raw_fd(3) };
    let sealed = exe_is_sealed().unwrap();
    let write = write_to_exe();
    let cwd = std::env::current_dir().unwrap();
    use std::io::Write;
    write!(out, "{sealed} {write:?} {} {}", cwd.display(), fds.join(",")).unwrap();
}

#[test]
fn root_spawn_is_sealed() {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let argv = [c"probe", c"--exact", PROBE, c"--test-threads=1"];
    let (_, pidfd) = spawn_sealed(&argv, &[write.as_fd()]).unwrap();
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(wait(pidfd.as_fd()).unwrap(), Exit::Code(0));
    // ETXTBSY would say that only the running program is protected; EROFS that the file is out of reach for good.
    assert!(text.starts_with(&format!("true {:?} / 0,1,2,3", Some(libc::EROFS))), "{text}");
    // The control: from here, where the program is not sealed, the same attempt is stopped by nothing but ETXTBSY.
    if !exe_is_sealed().unwrap() {
        assert_eq!(write_to_exe(), Some(libc::ETXTBSY));
    }
}

#[test]
fn root_spawn_reports_failure() {
    // An argument list beyond the kernel's limit for one string (128 KiB).
    let long = CString::new(vec![b'x'; 200_000]).unwrap();
    let error = spawn_sealed(&[&long], &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
}
