//! `docs/PROTOCOL.md` says what the code does: its examples decode, and its limits are the limits.
#![allow(clippy::unwrap_used)] // Helpers may fail a test.

mod common;

use minidom::Element;
use std::collections::BTreeSet;
use xmppsync_replica::Operation;
use xmppsync_wire::{Assembler, Payload, limits};

const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");

/// The payloads in the document's XML examples, in their order.
fn examples() -> Vec<Payload> {
    let blocks = DOCUMENT.split("```xml\n").skip(1);
    let documents = blocks.map(|block| block.split("\n```").next().unwrap());
    documents
        .flat_map(|document| {
            let root: Element = document.parse().unwrap();
            let inner: Vec<Element> =
                if Payload::is_ours(&root) { vec![root] } else { root.children().cloned().collect() };
            inner.into_iter().filter(Payload::is_ours)
        })
        .map(|element| Payload::decode(&element).unwrap())
        .collect()
}

#[test]
fn every_example_decodes_and_encodes_to_the_same() {
    let examples = examples();
    let names: Vec<&str> = examples
        .iter()
        .map(|payload| match payload {
            Payload::Batch(_) => "batch",
            Payload::Part(_) => "part",
            Payload::Card(_) => "replica",
            Payload::Pull(_) => "pull",
            Payload::Page(_) => "page",
            Payload::Notice(_) => "event",
            Payload::Reconcile(_) => "reconcile",
            Payload::Fetch(_) => "fetch",
            Payload::Offer(_) => "offer",
            Payload::Entries(_) => "entries",
            Payload::LoadRequest(_) => "load",
            Payload::Snapshot(_) => "snapshot",
            Payload::FileRequest(_) => "file request",
            Payload::File(_) => "file",
            Payload::Large(_) => "large",
        })
        .collect();
    let expected = "batch, part, part, large, replica, pull, page, reconcile, reconcile, fetch, entries, \
                    offer, entries, load, snapshot, file request, file, event";
    assert_eq!(names.join(", "), expected);
    for payload in examples {
        assert_eq!(Payload::decode(&payload.to_element().unwrap()), Ok(payload));
    }
}

#[test]
fn the_example_of_a_batch_says_what_the_text_around_it_says() {
    let Some(Payload::Batch(batch)) = examples().into_iter().next() else { panic!("the first example") };
    assert_eq!((batch.first, batch.last()), (41, 44));
    let names: Vec<&str> = batch.changes.iter().map(|change| change.operation.name()).collect();
    assert_eq!(names, ["add", "modify", "modrdn", "delete"]);
    let Operation::Add(request) = &batch.changes[0].operation else { panic!("an add") };
    assert_eq!(request.attributes[4].vals, [b"Markt 1\n10115 Berlin".to_vec()]);
    let Operation::Modify(request) = &batch.changes[1].operation else { panic!("a modify") };
    assert!(request.changes[1].modification.vals.is_empty());
    assert_eq!(request.changes[2].modification.vals, [b"Leiterin <Einkauf>".to_vec()]);
}

#[test]
fn the_example_of_parts_is_a_batch() {
    let mut assembler = Assembler::new();
    let mut parts = examples().into_iter().filter_map(|payload| match payload {
        Payload::Part(part) => Some(part),
        _ => None,
    });
    assert_eq!(assembler.handle_part(parts.next().unwrap()), Ok(None));
    let batch = assembler.handle_part(parts.next().unwrap()).unwrap().unwrap();
    assert_eq!(batch.changes[0].operation.dn(), "uid=zmueller,ou=purchase,dc=example,dc=org");
}

#[test]
fn the_example_of_a_page_says_what_the_text_around_it_says() {
    let page = examples().into_iter().find_map(|payload| match payload {
        Payload::Page(page) => Some(page),
        _ => None,
    });
    let pull = examples().into_iter().find_map(|payload| match payload {
        Payload::Pull(pull) => Some(pull),
        _ => None,
    });
    let (page, pull) = (page.unwrap(), pull.unwrap());
    // Merged in the order of the CSNs, and each tied to what the asker has.
    assert!(page.batches.is_sorted_by_key(|batch| batch.changes[0].csn));
    assert!(page.batches.iter().all(|batch| pull.vector.covers(batch.prev.unwrap())));
    // What the answering side lacks, it does not send.
    assert!(page.batches.iter().all(|batch| batch.origin != page.beyond[0].server_id()));
}

#[test]
fn the_example_of_entries_says_what_was_asked_for() {
    let fetch = examples().into_iter().find_map(|payload| match payload {
        Payload::Fetch(fetch) => Some(fetch),
        _ => None,
    });
    let entries = examples().into_iter().find_map(|payload| match payload {
        Payload::Entries(entries) => Some(entries),
        _ => None,
    });
    let (fetch, entries) = (fetch.unwrap(), entries.unwrap());
    // Each entry and each change in one place, and nothing else.
    let states = entries.states().map(|state| state.uuid);
    let names = [&entries.absent, &entries.refused, &entries.large].into_iter().flatten().copied();
    let told: BTreeSet<_> = states.chain(names).collect();
    assert_eq!(told, fetch.uuids.iter().copied().collect());
    let changes = entries.changes.iter().map(|change| change.csn);
    let changes: BTreeSet<_> = changes.chain(entries.forgotten.iter().copied()).collect();
    assert_eq!(changes, fetch.changes.iter().copied().collect());
    assert!(entries.pasts.iter().all(|past| told.contains(&past.uuid)));
    // What is told of as being in an entry was seen.
    let side = entries.side.unwrap();
    assert!(entries.pasts.iter().flat_map(|past| &past.changes).all(|csn| side.seen.covers(*csn)));
}

#[test]
fn the_limits_in_the_document_are_those_of_the_code() {
    for (row, limit) in [
        ("| a payload as sent | 130,048 bytes |", limits::PAYLOAD_BYTES_MAX == 130_048),
        ("| a payload as received | 262,144 bytes |", limits::DOCUMENT_BYTES_MAX == 262_144),
        ("| nested elements | 8 |", limits::NESTING_MAX == 8),
        ("| changes in a batch | 1,000 ", limits::CHANGES_PER_BATCH_MAX == 1_000),
        (
            "| attributes or modifications of a change | 400,000 |",
            limits::ATTRIBUTES_PER_CHANGE_MAX == 400_000,
        ),
        ("| values of an attribute | 1,500,000 |", limits::VALUES_PER_ATTRIBUTE_MAX == 1_500_000),
        ("| attribute description | 1 to 512 bytes |", limits::ATTRIBUTE_NAME_BYTES_MAX == 512),
        ("| DN, RDN, suffix | 8,192 bytes |", limits::DN_BYTES_MAX == 8_192),
        ("| batches in a page | 256 |", limits::BATCHES_PER_PAGE_MAX == 256),
        ("| CSNs in a vector or a floor, `<beyond>`s of a page | 4,095 |", limits::VECTOR_CSNS_MAX == 4_095),
        ("| `<unseen>`s of a side, a comparison or a snapshot | 8,190 |", limits::UNSEEN_SPANS_MAX == 8_190),
        ("| a frame of a reconciliation | 90,000 bytes before base64 |", limits::FRAME_BYTES_MAX == 90_000),
        (
            "| entries asked for or offered, or spoken of in an answer; pasts in an answer | 512 |",
            limits::FETCH_UUIDS_MAX == 512,
        ),
        ("| changes asked for, or spoken of in an answer | 512 |", limits::FETCH_CHANGES_MAX == 512),
        (
            "| changes in a past, changes that wait in a past | 1,000 each |",
            limits::PAST_CHANGES_MAX == 1_000,
        ),
        ("| moves in a past | 500 |", limits::PAST_MOVES_MAX == 500),
        ("| `id` of a file | 1 to 64 bytes |", limits::FILE_ID_BYTES_MAX == 64),
        ("| the file of one change | 64 MiB |", limits::CHANGE_FILE_BYTES_MAX == 64 * 1024 * 1024),
        (
            "| a record of LDIF | 64 MiB, 2,000,000 values |",
            limits::LDIF_RECORD_BYTES_MAX == 64 * 1024 * 1024
                && limits::LDIF_VALUES_PER_RECORD_MAX == 2_000_000,
        ),
        ("| `node` | 1,024 bytes |", limits::NODE_BYTES_MAX == 1_024),
        ("| `software` | 64 bytes |", limits::SOFTWARE_BYTES_MAX == 64),
        ("| parts of a batch | 1,024 |", limits::PARTS_MAX == 1_024),
        ("| text assembled from parts | 16 MiB; 64 MiB and 16 origins in all |", {
            const MIB: usize = 1024 * 1024;
            limits::ASSEMBLED_BYTES_MAX == 16 * MIB
                && limits::ASSEMBLING_BYTES_MAX == 64 * MIB
                && limits::ASSEMBLIES_MAX == 16
        }),
    ] {
        assert!(DOCUMENT.contains(row) && limit, "{row}");
    }
}
