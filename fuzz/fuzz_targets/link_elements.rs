//! Any bytes as an element of a stanza, read by each decoder of the crate that speaks XMPP.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| xmppsync_link::fuzzing::decode(bytes));
