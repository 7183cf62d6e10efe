//! The frames of a file: any bytes do no harm, any content makes a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmppsync_link::fuzzing;

fuzz_target!(|input: (Vec<u8>, u16, u16)| {
    let (bytes, frame, piece) = input;
    fuzzing::frames(&bytes, piece.into());
    fuzzing::sealed(&bytes, frame.into(), piece.into());
});
