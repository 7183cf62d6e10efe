//! A short run of what `fuzz/` does at length: documents bent at random never panic a decoder, and
//! what is decoded can be encoded again to the same.

mod common;

use common::*;
use proptest::prelude::*;
use proptest::sample::Index;
use xmppsync_replica::Operation;
use xmppsync_wire::{Assembler, Payload, decode_bytes, split};

/// A modify of one value of one entry.
const MODIFY: &[u8] =
    b"<batch xmlns='urn:xmpp:ldapsync:0' sid='1' boot='00000000000000ff' first='10' last='10'>\
    <modify csn='20261122235959.123456Z#000000#001#000000' uuid='0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d'>\
    <dn/><replace attr='description'><v/></replace></modify></batch>";

/// One way to bend a document.
#[derive(Clone, Debug)]
enum Bend {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Double(Index, usize),
    Insert(Index, &'static str),
}

fn bend() -> impl Strategy<Value = Bend> {
    let pieces = prop_oneof![
        Just("<v/>"),
        Just("</"),
        Just("<"),
        Just("'"),
        Just("&#xd;"),
        Just("&#0;"),
        Just("]]>"),
        Just("<![CDATA["),
        Just(" b64='true'"),
        Just(" xmlns='urn:x'"),
        Just("\u{0}"),
        Just("\u{fffe}"),
        Just("18446744073709551616"),
        Just("-1"),
        Just("<batch xmlns='urn:xmpp:ldapsync:0'>"),
        Just("<dn>"),
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Bend::Flip(at, bits)),
        any::<Index>().prop_map(Bend::Cut),
        (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Bend::Remove(at, length)),
        (any::<Index>(), 1_usize..200).prop_map(|(at, length)| Bend::Double(at, length)),
        (any::<Index>(), pieces).prop_map(|(at, piece)| Bend::Insert(at, piece)),
    ]
}

fn bent(mut document: Vec<u8>, bends: &[Bend]) -> Vec<u8> {
    for bend in bends {
        if document.is_empty() {
            break;
        }
        let length = document.len();
        match bend {
            Bend::Flip(at, bits) => document[at.index(length)] ^= bits,
            Bend::Cut(at) => document.truncate(at.index(length)),
            Bend::Remove(at, count) => {
                let start = at.index(length);
                document.drain(start..length.min(start + count));
            }
            Bend::Double(at, count) => {
                let start = at.index(length);
                let piece = document[start..length.min(start + count)].to_vec();
                document.splice(start..start, piece);
            }
            Bend::Insert(at, piece) => {
                let start = at.index(length);
                document.splice(start..start, piece.bytes());
            }
        }
    }
    document
}

/// What was decoded encodes, and decodes to the same; a part feeds the assembler.
fn use_it(payload: Payload) -> Result<(), TestCaseError> {
    let element =
        payload.to_element().map_err(|error| TestCaseError::fail(format!("not encoded: {error}")))?;
    let again = decode_bytes(&bytes_of(&element));
    prop_assert_eq!(again.as_ref(), Ok(&payload));
    if let Payload::Part(part) = payload {
        let _ = Assembler::new().handle_part(part);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bent_documents_never_panic(payload in payload(), bends in proptest::collection::vec(bend(), 1..5)) {
        let document = bent(bytes_of(&payload.to_element().unwrap()), &bends);
        if let Ok(payload) = decode_bytes(&document) {
            use_it(payload)?;
        }
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(payload) = decode_bytes(&noise) {
            use_it(payload)?;
        }
    }

    #[test]
    fn the_assembler_takes_any_text(part in part(), bends in proptest::collection::vec(bend(), 0..4), batch in batch()) {
        let whole = bent(bytes_of(&Payload::Batch(batch).to_element().unwrap()), &bends);
        let text = String::from_utf8_lossy(&whole).into_owned();
        if !text.is_empty() {
            let bytes = text.len() as u32;
            let _ = Assembler::new().handle_part(xmppsync_wire::Part { n: 0, of: 1, bytes, text, ..part });
        }
    }
}

proptest! {
    // Large ones take their time.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_value_and_any_dn_survive_the_wire_whole_or_in_parts(
        value in proptest::collection::vec(any::<u8>(), 0..200), dn: String, repeat in 1_usize..2_000,
    ) {
        let Ok(Payload::Batch(mut batch)) = decode_bytes(MODIFY) else { panic!("the document is a batch") };
        if let Operation::Modify(request) = &mut batch.changes[0].operation {
            request.dn = dn;
            request.changes[0].modification.vals = vec![value.repeat(repeat)];
        }
        let mut assembler = Assembler::new();
        let mut whole = None;
        for element in &split(&batch).unwrap() {
            whole = match decode_bytes(&bytes_of(element)) {
                Ok(Payload::Batch(batch)) => Some(batch),
                Ok(Payload::Part(part)) => assembler.handle_part(part).unwrap(),
                other => panic!("neither batch nor part: {other:?}"),
            };
        }
        prop_assert_eq!(whole, Some(batch));
    }
}
