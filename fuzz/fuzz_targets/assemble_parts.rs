//! Parts in any order, lost, repeated or altered: no panic, no batch but the one that was split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use xmppsync_replica::{Batch, BootId, ServerId};
use xmppsync_wire::{Assembler, Part, Payload, decode_bytes};

const PIECES: usize = 5;
const DOCUMENT: &str = "<batch xmlns='urn:xmpp:ldapsync:0' sid='1' boot='00000000000000ff' first='10' last='10'>\
    <delete csn='20261122235959.123456Z#000000#001#000000' uuid='0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d'>\
    <dn>uid=ada,ou=people,dc=example,dc=org</dn></delete></batch>";

static SPLIT: LazyLock<(Batch, Vec<Part>)> = LazyLock::new(|| {
    let Ok(Payload::Batch(batch)) = decode_bytes(DOCUMENT.as_bytes()) else {
        panic!("the document is a batch")
    };
    let piece = DOCUMENT.len().div_ceil(PIECES);
    let parts = (0..PIECES).map(|n| Part {
        origin: batch.origin,
        boot: batch.boot,
        first: batch.first,
        last: batch.last(),
        n: n as u32,
        of: PIECES as u32,
        bytes: DOCUMENT.len() as u32,
        change: None,
        text: DOCUMENT[n * piece..DOCUMENT.len().min((n + 1) * piece)].into(),
    });
    (batch.clone(), parts.collect())
});

fuzz_target!(|steps: &[u8]| {
    let (batch, parts) = &*SPLIT;
    let mut assembler = Assembler::new();
    let mut altered = false;
    for pair in steps.chunks_exact(2) {
        let mut part = parts[usize::from(pair[0]) % PIECES].clone();
        // Most steps leave the part as it is: an altered one ends most assemblies.
        match pair[1] {
            1 => part.origin = ServerId::new(2).unwrap_or(part.origin),
            2 => part.boot = BootId::new(1),
            3 => part.first += 1,
            4 => part.last += 1,
            5 => part.n += 1,
            6 => part.of += 1,
            7 => part.bytes += 1,
            8 => part.text.push('x'),
            9 => drop(part.text.pop()),
            10 => assembler.forget(part.origin),
            _ => {}
        }
        altered |= (1..10).contains(&pair[1]);
        if let Ok(Some(whole)) = assembler.handle_part(part) {
            assert!(altered || whole == *batch);
            assert_eq!(whole.origin, batch.origin);
        }
    }
});
