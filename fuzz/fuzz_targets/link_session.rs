//! Any stanzas, one a line, received by a session that is logged in and enters a room.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: &[u8]| xmppsync_link::fuzzing::receive(lines));
