//! Any bytes as a stanza's payload: no panic, and what is decoded encodes to the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmppsync_wire::{Payload, WireError, decode_bytes};

fuzz_target!(|bytes: &[u8]| {
    let Ok(payload) = decode_bytes(bytes) else { return };
    let element = match payload.to_element() {
        Ok(element) => element,
        // A receiver takes larger documents than a sender makes.
        Err(WireError::TooLarge { .. }) => return,
        Err(error) => panic!("decoded, but not to be encoded: {error}"),
    };
    assert_eq!(Payload::decode(&element).as_ref(), Ok(&payload));
    let again = xso::to_vec(&element).expect("an element serialises");
    assert_eq!(decode_bytes(&again).as_ref(), Ok(&payload));
});
