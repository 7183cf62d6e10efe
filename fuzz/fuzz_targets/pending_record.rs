//! Any bytes as a change that was kept beside the journal: no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmppsync_journal::pending::decode;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes);
});
