//! Any bytes as a value and any text as a DN survive the wire, whole or in parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmppsync_replica::Operation;
use xmppsync_wire::{Assembler, Payload, decode_bytes, split};

const DOCUMENT: &[u8] =
    b"<batch xmlns='urn:xmpp:ldapsync:0' sid='1' boot='00000000000000ff' first='10' last='10'>\
    <modify csn='20261122235959.123456Z#000000#001#000000' uuid='0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d'>\
    <dn/><replace attr='description'><v/></replace></modify></batch>";

fuzz_target!(|input: (Vec<u8>, String, u16)| {
    let (value, dn, repeat) = input;
    let Ok(Payload::Batch(mut batch)) = decode_bytes(DOCUMENT) else { panic!("the document is a batch") };
    if let Operation::Modify(request) = &mut batch.changes[0].operation {
        request.dn = dn;
        request.changes[0].modification.vals = vec![value.repeat(usize::from(repeat) % 2_000 + 1)];
    }
    let Ok(elements) = split(&batch) else { return };
    let mut assembler = Assembler::new();
    let mut whole = None;
    for element in &elements {
        let bytes = xso::to_vec(element).expect("an element serialises");
        whole = match decode_bytes(&bytes) {
            Ok(Payload::Batch(batch)) => Some(batch),
            Ok(Payload::Part(part)) => assembler.handle_part(part).expect("the parts come in order"),
            other => panic!("neither batch nor part: {other:?}"),
        };
    }
    assert_eq!(whole, Some(batch));
});
