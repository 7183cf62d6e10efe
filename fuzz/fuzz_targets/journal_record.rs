//! Any bytes as a change in the journal's file: no panic, and what is decoded encodes to the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmppsync_journal::codec::{decode, encode};
use xmppsync_replica::Csn;

fuzz_target!(|bytes: &[u8]| {
    let Ok(csn) = Csn::parse(b"20261122235959.123456Z#000000#001#000000") else { return };
    let Ok(stored) = decode(csn, bytes) else { return };
    let mut again = Vec::new();
    encode(stored.boot, stored.seq, &stored.change, &mut again);
    assert_eq!(again, bytes);
});
