//! Developer tasks: `cargo xtask setup|build|demo|test|compare|bench|tidy`.
//!
//! Everything a newcomer or a CI machine needs is reachable from here; nothing in here is part of `dhow` itself.

mod bench;
mod binary;
mod compare;
mod demo;
mod dockerd;
mod setup;
mod sh;
mod test;
mod tidy;

use sh::Failure;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup [--for demo|test|compare|bench]
                                  install what is missing (apt-get, rustup target) and say what was done
  build [--gnu]                   build the static release binary and print its path
  demo [--keep]                   the tour: from a Dockerfile to a pushed image, on this machine
  test [--only PHASE] [FILTER]    everything that CI runs; phases: fmt clippy tidy unit e2e binary docs deny
  compare [--only CONTEXT] [--install-peers] [--list]
                                  builds beside docker's and buildah's; writes docs/compat/build.md
  bench [--quick] [--only ROW] [--install-peers] [--list]
                                  dhow beside the peers that are installed; writes docs/benchmarks.md
  tidy                            the rules of this repository, without compiling the workspace
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match command {
        "setup" => setup::main(rest),
        "build" => binary::main(rest),
        "demo" => demo::main(rest),
        "test" => test::main(rest),
        "compare" => compare::main(rest),
        "bench" => bench::main(rest),
        "tidy" => tidy::main(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(Failure::new(format!("unknown task '{other}'\n\n{USAGE}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
