//! Batches too large for a stanza.
#![allow(clippy::panic, clippy::unwrap_used)] // Helpers may fail a test.

mod common;

use common::*;
use proptest::prelude::*;
use std::sync::LazyLock;
use xmppsync_replica::{Batch, Operation};
use xmppsync_wire::{Assembler, Part, Payload, Place, WireError, decode_bytes, limits, split};

/// The parts of a batch as they come out of the wire.
fn parts(batch: &Batch) -> Vec<Part> {
    let decode = |element: &minidom::Element| match decode_bytes(&bytes_of(element)).unwrap() {
        Payload::Part(part) => part,
        other => panic!("not a part: {other:?}"),
    };
    split(batch).unwrap().iter().map(decode).collect()
}

/// A batch of server 1 whose XML takes about `bytes`.
fn large(byte: u8, bytes: usize) -> Batch {
    batch_of(modify(vec![replace("description", &[&vec![byte; bytes]])]))
}

fn assemble(parts: impl IntoIterator<Item = Part>) -> Result<Option<Batch>, WireError> {
    let mut assembler = Assembler::new();
    let mut whole = None;
    for part in parts {
        whole = assembler.handle_part(part)?;
    }
    Ok(whole)
}

#[test]
fn a_batch_that_fits_into_a_stanza_is_not_split() {
    let batch = large(b'x', 100_000);
    let elements = split(&batch).unwrap();
    assert_eq!(elements.len(), 1);
    assert_eq!(Payload::decode(&elements[0]), Ok(Payload::Batch(batch)));
}

#[test]
fn no_part_is_over_the_limit_of_a_stanza_however_it_is_escaped() {
    for (byte, bytes) in [(b'x', 200_000), (b'\'', 100_000), (b'<', 100_000), (b' ', 300_000), (0, 300_000)] {
        let mut batch = large(byte, bytes);
        // Not a space at the ends, which would be base64.
        let Operation::Modify(request) = &mut batch.changes[0].operation else { unreachable!() };
        request.changes[0].modification.vals[0].insert(0, b'a');
        request.changes[0].modification.vals[0].push(b'z');
        let elements = split(&batch).unwrap();
        assert!(elements.len() > 1);
        for element in &elements {
            let quotes = element.text().matches(['\'', '"']).count();
            assert!(bytes_of(element).len() + 5 * quotes <= limits::PAYLOAD_BYTES_MAX);
        }
        assert_eq!(assemble(parts(&batch)), Ok(Some(batch)));
    }
}

#[test]
fn parts_are_cut_between_characters_and_away_from_spaces() {
    let text = "añ 日本 👩‍🚀 ".repeat(30_000) + "end";
    let batch = batch_of(modify(vec![replace("description", &[text.as_bytes()])]));
    let parts = parts(&batch);
    assert!(parts.len() > 2);
    for part in &parts {
        assert_eq!(part.text.trim(), part.text);
    }
    assert_eq!(assemble(parts), Ok(Some(batch)));
}

#[test]
fn an_oversize_change_is_refused_with_its_size() {
    let batch = large(b'x', limits::ASSEMBLED_BYTES_MAX);
    match split(&batch).unwrap_err() {
        WireError::TooLarge { place, bytes, max } => {
            assert_eq!((place, max), (Place::Change(csn(0, 1)), limits::ASSEMBLED_BYTES_MAX));
            assert!(bytes > max);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_missing_part_drops_the_batch_and_is_named() {
    let parts = parts(&large(b'x', 500_000));
    let mut assembler = Assembler::new();
    assert_eq!(assembler.handle_part(parts[0].clone()), Ok(None));
    let missing = |expected, found| {
        Err(WireError::PartMissing { origin: server(1), first: 10, last: 10, expected, found })
    };
    assert_eq!(assembler.handle_part(parts[2].clone()), missing(1, 2));
    assert_eq!(assembler.unfinished(), 0);
    // What is left of it does not start it again.
    assert_eq!(assembler.handle_part(parts[1].clone()), missing(0, 1));
}

#[test]
fn repeated_parts_are_passed_over() {
    let batch = large(b'x', 500_000);
    let parts = parts(&batch);
    let twice = parts.iter().flat_map(|part| [part.clone(), part.clone()]);
    // The last one again begins nothing.
    let mut assembler = Assembler::new();
    let results: Vec<_> = twice.map(|part| assembler.handle_part(part)).collect();
    assert_eq!(
        results.iter().filter(|result| matches!(result, Ok(Some(whole)) if *whole == batch)).count(),
        1
    );
    // The sender began again from the start.
    let resent = parts[..2].iter().chain(&parts).cloned();
    assert_eq!(assemble(resent), Ok(Some(batch)));
}

#[test]
fn a_repeated_part_with_other_text_drops_the_batch() {
    let parts = parts(&large(b'x', 500_000));
    let mut assembler = Assembler::new();
    assembler.handle_part(parts[0].clone()).unwrap();
    assembler.handle_part(parts[1].clone()).unwrap();
    let forged = Part { text: parts[1].text.replace('x', "y"), ..parts[1].clone() };
    assert!(matches!(assembler.handle_part(forged), Err(WireError::PartsDisagree { .. })));
    assert_eq!(assembler.unfinished(), 0);
}

#[test]
fn the_first_part_of_another_batch_starts_anew() {
    let mut later = large(b'y', 500_000);
    later.first = 11;
    let before = parts(&large(b'x', 500_000));
    let parts = before[..2].iter().cloned().chain(parts(&later));
    assert_eq!(assemble(parts), Ok(Some(later)));
}

#[test]
fn parts_that_hold_another_batch_than_they_announce_are_refused() {
    let mut parts = parts(&large(b'x', 500_000));
    for part in &mut parts {
        part.origin = server(2);
    }
    assert!(matches!(assemble(parts), Err(WireError::PartsDisagree { origin, .. }) if origin == server(2)));
}

#[test]
fn parts_whose_numbers_contradict_each_other_are_refused() {
    let good = parts(&large(b'x', 500_000)).remove(0);
    let refused = |part: Part| Assembler::new().handle_part(part).unwrap_err();
    for part in [
        Part { n: good.of, ..good.clone() },
        Part { of: 0, ..good.clone() },
        Part { text: String::new(), ..good.clone() },
        Part { bytes: 10, ..good.clone() },
        Part { first: 0, ..good.clone() },
        Part { first: 11, ..good.clone() },
        Part { last: u64::MAX, ..good.clone() },
    ] {
        assert!(matches!(refused(part), WireError::PartHeader { .. }));
    }
    let too_many = Part { of: limits::PARTS_MAX as u32 + 1, ..good.clone() };
    assert!(matches!(refused(too_many), WireError::Limit { .. }));
    let too_large = Part { bytes: limits::ASSEMBLED_BYTES_MAX as u32 + 1, ..good };
    assert!(matches!(refused(too_large), WireError::Limit { .. }));
}

#[test]
fn the_assembler_holds_no_more_than_its_limits() {
    let good = parts(&large(b'x', 500_000)).remove(0);
    let mut assembler = Assembler::new();
    for sid in 1..=100 {
        assembler.handle_part(Part { origin: server(sid), ..good.clone() }).unwrap();
        assert!(assembler.unfinished() <= limits::ASSEMBLIES_MAX);
    }
    // The ones that waited longest went, the latest is there.
    let second = Part { n: 1, ..good.clone() };
    assert!(assembler.handle_part(Part { origin: server(1), ..second.clone() }).is_err());
    assert!(assembler.handle_part(Part { origin: server(100), ..second }).is_ok());

    let mut assembler = Assembler::new();
    let text = "x".repeat(limits::ASSEMBLED_BYTES_MAX);
    for sid in 1..=8 {
        let huge = Part { bytes: text.len() as u32, text: text.clone(), ..good.clone() };
        assembler.handle_part(Part { origin: server(sid), ..huge }).unwrap();
    }
    assert_eq!(assembler.unfinished(), limits::ASSEMBLING_BYTES_MAX / limits::ASSEMBLED_BYTES_MAX);
}

/// What may befall a part.
#[derive(Clone, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Late(usize),
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => (1_usize..6).prop_map(Fate::Late),
    ];
    proptest::collection::vec(fate, 32)
}

/// A small batch cut into many parts: what `split` would do if stanzas were short.
fn cut_small(batch: &Batch, pieces: usize) -> Vec<Part> {
    let xml = String::from_utf8(bytes_of(&Payload::Batch(batch.clone()).to_element().unwrap())).unwrap();
    let piece = xml.len().div_ceil(pieces);
    let part = |n: usize| Part {
        origin: batch.origin,
        boot: batch.boot,
        first: batch.first,
        last: batch.last(),
        n: n as u32,
        of: pieces as u32,
        bytes: xml.len() as u32,
        change: None,
        text: xml[n * piece..xml.len().min((n + 1) * piece)].into(),
    };
    (0..pieces).map(part).collect()
}

/// Two batches of one origin and one of another.
static SENT: LazyLock<[Batch; 3]> = LazyLock::new(|| {
    let mut second = large(b'y', 20);
    second.first = 11;
    let mut other = large(b'z', 20);
    other.origin = server(2);
    other.changes[0].csn = csn(0, 2);
    [large(b'x', 20), second, other]
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn parts_in_any_loss_pattern_never_give_a_wrong_batch(fates in fates(), rounds in 1_usize..4, pieces in 2_usize..6) {
        // Interleaved, `rounds` times.
        let batches = &*SENT;
        let mine: Vec<Part> = batches[..2].iter().flat_map(|batch| cut_small(batch, pieces)).collect();
        let theirs = cut_small(&batches[2], pieces);
        let mut sent = Vec::new();
        for _ in 0..rounds {
            for (index, part) in mine.iter().enumerate() {
                sent.push(part.clone());
                sent.extend(theirs.get(index).cloned());
            }
        }
        let mut order: Vec<(usize, Part)> = Vec::new();
        let lossless = fates.iter().take(sent.len()).all(|fate| matches!(fate, Fate::Arrives | Fate::Twice));
        for (index, (part, fate)) in sent.into_iter().zip(fates.iter().cycle()).enumerate() {
            match fate {
                Fate::Arrives => order.push((index, part)),
                Fate::Lost => {}
                Fate::Twice => order.extend([(index, part.clone()), (index, part)]),
                Fate::Late(by) => order.push((index + by, part)),
            }
        }
        order.sort_by_key(|(at, _)| *at);
        let mut assembler = Assembler::new();
        let whole: Vec<Batch> =
            order.into_iter().filter_map(|(_, part)| assembler.handle_part(part).ok().flatten()).collect();
        for batch in &whole {
            prop_assert!(batches.contains(batch));
        }
        if lossless {
            prop_assert!(batches.iter().all(|batch| whole.contains(batch)));
        }
    }
}
