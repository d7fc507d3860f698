//! Real containers. Needs root and `/bin/busybox` (statically linked), and fails without.
//!
//! Not libtest's harness: a process that starts containers must have one thread and must be sealed. This one takes the
//! same filters and `--list`, `--exact`, `--skip`, and runs tests one after the other.

mod attacks;
mod basics;
mod errors;
mod exec;
mod fixture;
mod mounts;
mod nsview;
mod process;
mod roots;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A named test.
type Test = (&'static str, fn());

/// Lists the tests of a module.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[$crate::Test] = &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}

fn main() -> ExitCode {
    // Before anything else: this very binary is what containers would get at.
    if !dhow_sys::process::exe_is_sealed().unwrap() {
        panic!("cannot seal the test program: {}", dhow_sys::process::reexec_sealed());
    }
    let all = [
        basics::TESTS,
        process::TESTS,
        mounts::TESTS,
        roots::TESTS,
        errors::TESTS,
        attacks::TESTS,
        exec::TESTS,
        nsview::TESTS,
    ];
    let mut args = Args::default();
    args.parse();
    let tests: Vec<Test> = all
        .concat()
        .into_iter()
        .map(|(n, f)| (n.strip_prefix("launch::").unwrap_or(n), f))
        .filter(|t| args.wants(t.0))
        .collect();
    if args.list {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", tests.len());
    let mut failed = Vec::new();
    for (name, test) in &tests {
        let ok = catch_unwind(AssertUnwindSafe(|| {
            test();
            leaves_no_child(name);
        }))
        .is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            failed.push(name);
        }
    }
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = tests.len() - failed.len();
    println!(
        "\ntest result: {result}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out\n",
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// Every process that a test started must have been reaped, by it or by what it tests.
fn leaves_no_child(name: &str) {
    let left = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert!(matches!(left, Err(rustix::io::Errno::CHILD)), "{name} leaves a child: {left:?}");
}

#[derive(Default)]
struct Args {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
}

impl Args {
    fn parse(&mut self) {
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => self.list = true,
                "--exact" => self.exact = true,
                "--skip" => self.skip.extend(args.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" => drop(args.next()),
                flag if flag.starts_with('-') => {}
                filter => self.filters.push(filter.to_owned()),
            }
        }
    }

    fn wants(&self, name: &str) -> bool {
        let is = |f: &String| if self.exact { name == f } else { name.contains(f.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(is)) && !self.skip.iter().any(is)
    }
}
