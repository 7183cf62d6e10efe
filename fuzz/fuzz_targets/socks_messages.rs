//! Any bytes as the messages of SOCKS5: no panic, and a reader never asks for more than a message has.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| xmppsync_link::fuzzing::socks(bytes));
