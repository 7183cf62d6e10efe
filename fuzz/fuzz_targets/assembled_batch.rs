//! Any text as a batch that came in parts, which is parsed without a tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmppsync_replica::{BootId, ServerId};
use xmppsync_wire::{Assembler, Part, Payload, decode_bytes};

fuzz_target!(|text: &str| {
    // The header is that of the seeds; the other headers are the business of `assemble_parts`.
    let Ok(origin) = ServerId::new(1) else { return };
    let part = Part {
        origin,
        boot: BootId::new(255),
        first: 10,
        last: 10,
        n: 0,
        of: 1,
        bytes: text.len() as u32,
        change: None,
        text: text.into(),
    };
    if let Ok(Some(batch)) = Assembler::new().handle_part(part) {
        // Both ways to parse a batch see the same.
        assert_eq!(decode_bytes(text.as_bytes()), Ok(Payload::Batch(batch)));
    }
});
