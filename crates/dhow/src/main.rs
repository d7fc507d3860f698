//! The `dhow` binary: picks the process role, nothing else.
//!
//! The role is decided before any thread exists and before anything is opened, since a monitor takes over descriptors
//! by their numbers.

use std::ffi::OsString;

fn main() {
    let args: Vec<OsString> = std::env::args_os().collect();
    let code = match args.as_slice() {
        // One per running container, started by the engine itself.
        [_, role, root, run, id] if role == "monitor" => {
            let args = [root, run, id].map(|a| a.to_string_lossy().into_owned());
            match dhow_engine::monitor_main(&args) {
                Ok(()) => 0,
                Err(message) => dhow_cli::role_failed(&message),
            }
        }
        _ => dhow_cli::main(args),
    };
    std::process::exit(code);
}
