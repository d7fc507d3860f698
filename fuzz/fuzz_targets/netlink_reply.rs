//! Any bytes as an answer of the kernel's netlink, given to every reader.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dhow_network::fuzzing::netlink_reply(bytes));
