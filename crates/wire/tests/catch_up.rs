//! What is said while a replica catches up other than from a journal: what is refused, and what fits.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // Helpers may fail a test.

mod common;

use common::*;
use ldap3_proto::proto::LdapAddRequest;
use proptest::prelude::*;
use xmppsync_replica::{BootId, Change, Csn, Move, Operation, Unseen, Vector};
use xmppsync_wire::{
    Entries, Fetch, File, Large, LoadRequest, Offer, Past, Payload, Place, Reconcile, Session, WireError,
    change_from_xml, change_to_xml, decode_bytes, limits, past_size_estimate, side_size_estimate,
};

const CSN: &str = "20261122235959.123456Z#000000#001#000000";
const UUID: &str = "0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d";

fn decoded(name: &str, content: &str) -> Result<Payload, WireError> {
    decode_bytes(format!("<{name} xmlns='urn:xmpp:ldapsync:0' {content}").as_bytes())
}

/// What there is too much of.
fn limit_of(error: WireError) -> &'static str {
    match error {
        WireError::Limit { what, .. } => what,
        error => panic!("{error}"),
    }
}

fn first_round(frame: Vec<u8>, vector: Vector) -> Reconcile {
    Reconcile { session: Session::new(7), round: 0, vector: Some(vector), unseen: Unseen::default(), frame }
}

#[test]
fn a_reconciliation_names_vectors_in_its_first_round_alone() {
    let error = |round| Some(WireError::VectorRound { round });
    let vectorless = Reconcile { vector: None, ..first_round(vec![1], Vector::default()) };
    assert_eq!(Payload::Reconcile(vectorless).to_element().err(), error(0));
    let late = Reconcile { round: 1, ..first_round(vec![1], Vector::default()) };
    assert_eq!(Payload::Reconcile(late).to_element().err(), error(1));
    let content = format!("session='0000000000000007' round='1'><csn>{CSN}</csn></reconcile>");
    assert_eq!(decoded("reconcile", &content).err(), error(1));
    let content = format!("session='0000000000000007' round='1'><unseen until='{CSN}'/></reconcile>");
    assert_eq!(decoded("reconcile", &content).err(), error(1));
    // An empty database has an empty vector, which is one.
    let decoded = decoded("reconcile", "session='0000000000000007' round='0'/>");
    assert_eq!(decoded, Ok(Payload::Reconcile(first_round(vec![], Vector::default()))));
}

#[test]
fn a_span_of_what_was_not_seen_is_of_one_server_and_ends() {
    let other = CSN.replace("#001#", "#002#");
    for spans in [
        format!("<unseen after='{other}' until='{CSN}'/>"),
        format!("<unseen after='{CSN}'/>"),
        "<unseen until='tomorrow'/>".to_owned(),
    ] {
        let content = format!("session='0000000000000007' round='0'>{spans}</reconcile>");
        assert!(decoded("reconcile", &content).is_err(), "{spans}");
    }
}

#[test]
fn the_largest_frame_fits_beside_the_vector_of_a_large_group() {
    let vector: Vector = (1..=190).map(|sid| csn(1, sid)).collect();
    let largest = first_round(vec![0xff; limits::FRAME_BYTES_MAX], vector);
    let bytes = bytes_of(&Payload::Reconcile(largest.clone()).to_element().unwrap());
    assert!(bytes.len() <= limits::PAYLOAD_BYTES_MAX);
    assert_eq!(decode_bytes(&bytes), Ok(Payload::Reconcile(largest.clone())));

    let over = Reconcile { frame: vec![0; limits::FRAME_BYTES_MAX + 1], ..largest };
    let error = Payload::Reconcile(over).to_element().unwrap_err();
    assert!(matches!(error, WireError::Limit { what: "bytes of frame", .. }), "{error}");
    let content = format!(
        "session='0000000000000007' round='1'><frame>{}</frame></reconcile>",
        "AAAA".repeat(limits::FRAME_BYTES_MAX / 3 + 1)
    );
    assert!(matches!(decoded("reconcile", &content), Err(WireError::Limit { what: "bytes of frame", .. })));
}

#[test]
fn a_frame_that_is_no_base64_is_refused() {
    for frame in ["A", "!!!!", "AA AA", "AAAA="] {
        let content = format!("session='0000000000000007' round='1'><frame>{frame}</frame></reconcile>");
        let error = WireError::Base64 { what: "the frame", place: Place::Reconcile };
        assert_eq!(decoded("reconcile", &content), Err(error), "{frame}");
    }
}

#[test]
fn a_fetch_asks_for_no_more_than_its_limits() {
    let uuids = vec![uuid(); limits::FETCH_UUIDS_MAX];
    let changes = vec![csn(0, 1); limits::FETCH_CHANGES_MAX];
    let most = Payload::Fetch(Fetch { uuids: uuids.clone(), changes: changes.clone(), bytes_max: u32::MAX });
    let bytes = bytes_of(&most.to_element().unwrap());
    assert!(bytes.len() <= limits::PAYLOAD_BYTES_MAX);
    assert_eq!(decode_bytes(&bytes), Ok(most));
    let over = |uuids, changes| {
        let fetch = Payload::Fetch(Fetch { uuids, changes, bytes_max: 0 });
        limit_of(fetch.to_element().unwrap_err())
    };
    assert_eq!(over([uuids, vec![uuid()]].concat(), vec![]), "entryUUIDs");
    assert_eq!(over(vec![], [changes, vec![csn(0, 1)]].concat()), "changes");
    for (child, max, what) in [
        (format!("<uuid>{UUID}</uuid>"), limits::FETCH_UUIDS_MAX, "entryUUIDs"),
        (format!("<csn>{CSN}</csn>"), limits::FETCH_CHANGES_MAX, "changes"),
    ] {
        let content = format!("max-bytes='1'>{}</fetch>", child.repeat(max + 1));
        assert_eq!(limit_of(decoded("fetch", &content).unwrap_err()), what);
    }
}

#[test]
fn an_offer_names_no_more_than_its_limit_and_has_nothing_else() {
    let uuids = vec![uuid(); limits::FETCH_UUIDS_MAX];
    let most = Payload::Offer(Offer { uuids: uuids.clone() });
    assert_eq!(decode_bytes(&bytes_of(&most.to_element().unwrap())), Ok(most));
    let over = Payload::Offer(Offer { uuids: [uuids, vec![uuid()]].concat() });
    assert_eq!(limit_of(over.to_element().unwrap_err()), "entryUUIDs");
    let many = format!("<uuid>{UUID}</uuid>").repeat(limits::FETCH_UUIDS_MAX + 1);
    assert_eq!(limit_of(decoded("offer", &format!(">{many}</offer>")).unwrap_err()), "entryUUIDs");
    for content in [" more='false'/>".to_owned(), format!("><csn>{CSN}</csn></offer>")] {
        let error = decoded("offer", &content);
        assert!(matches!(error, Err(WireError::Malformed { place: Place::Offer, .. })), "{error:?}");
    }
}

#[test]
fn entries_hold_states_alone() {
    let state = |operation| Change { csn: csn(0, 1), uuid: uuid(), parent: None, operation };
    let error = Some(WireError::NotAState { csn: csn(0, 1) });
    let put = state(Operation::Put(LdapAddRequest { dn: "dc=org".into(), attributes: vec![] }));
    let delete = state(Operation::Delete { dn: "dc=org".into() });
    let modify = state(modify(vec![]));
    for entries in [
        Entries { puts: vec![modify], ..Entries::default() },
        Entries { puts: vec![delete], ..Entries::default() },
        Entries { deletes: vec![put], ..Entries::default() },
    ] {
        assert_eq!(Payload::Entries(entries).to_element().err(), error);
    }
    for name in ["add", "modify"] {
        let content = format!("more='false'><{name} csn='{CSN}' uuid='{UUID}'><dn/></{name}></entries>");
        assert_eq!(decoded("entries", &content).err(), error);
    }
}

#[test]
fn entries_over_a_limit_are_refused() {
    let refused = |entries| limit_of(Payload::Entries(entries).to_element().unwrap_err());
    let names = vec![uuid(); limits::FETCH_UUIDS_MAX + 1];
    assert_eq!(refused(Entries { absent: names, ..Entries::default() }), "entries");
    let pasts = vec![Past::new(uuid()); limits::FETCH_UUIDS_MAX + 1];
    assert_eq!(refused(Entries { pasts, ..Entries::default() }), "pasts");
    let forgotten = vec![csn(0, 1); limits::FETCH_CHANGES_MAX + 1];
    assert_eq!(refused(Entries { forgotten, ..Entries::default() }), "changes");
    let change = Change { csn: csn(0, 1), uuid: uuid(), parent: None, operation: modify(vec![]) };
    let changes = vec![change; limits::FETCH_CHANGES_MAX];
    assert_eq!(refused(Entries { changes, forgotten: vec![csn(0, 1)], ..Entries::default() }), "changes");

    let change = format!("<delete csn='{CSN}' uuid='{UUID}'><dn/></delete>");
    let changes = change.repeat(limits::FETCH_CHANGES_MAX);
    for (content, what) in [
        (format!("<large>{UUID}</large>").repeat(limits::FETCH_UUIDS_MAX + 1), "entries"),
        (format!("<past uuid='{UUID}'/>").repeat(limits::FETCH_UUIDS_MAX + 1), "pasts"),
        (format!("<forgotten>{CSN}</forgotten>").repeat(limits::FETCH_CHANGES_MAX + 1), "changes"),
        (format!("<changes>{changes}</changes><forgotten>{CSN}</forgotten>"), "changes"),
    ] {
        let error = decoded("entries", &format!("more='false'>{content}</entries>")).unwrap_err();
        assert_eq!(limit_of(error), what);
    }

    let attributes = vec![attribute("jpegPhoto", &[&[0xff; 100_000]])];
    let operation = Operation::Put(LdapAddRequest { dn: "dc=org".into(), attributes });
    let large = vec![Change { csn: csn(0, 1), uuid: uuid(), parent: None, operation }];
    for entries in [
        Entries { puts: large.clone(), ..Entries::default() },
        Entries { changes: large, ..Entries::default() },
    ] {
        let error = Payload::Entries(entries).to_element().unwrap_err();
        assert!(matches!(error, WireError::TooLarge { place: Place::Entries, .. }), "{error}");
    }
}

#[test]
fn an_answer_speaks_of_as_much_as_was_asked_for() {
    let entries = Entries {
        absent: vec![uuid(); limits::FETCH_UUIDS_MAX],
        pasts: vec![Past::new(uuid()); limits::FETCH_UUIDS_MAX / 2],
        forgotten: vec![csn(0, 1); limits::FETCH_CHANGES_MAX],
        ..Entries::default()
    };
    let payload = Payload::Entries(entries);
    assert_eq!(decode_bytes(&bytes_of(&payload.to_element().unwrap())), Ok(payload));
}

#[test]
fn a_past_tells_no_more_than_its_limits() {
    let most: Vec<Csn> = (1..=limits::PAST_CHANGES_MAX).map(|count| csn(count as u32, 1)).collect();
    let step = Move { csn: csn(0, 1), child: uuid(), from: None, to: uuid(), made: true };
    let full = Past { changes: most.clone(), waiting: most.clone(), ..Past::new(uuid()) };
    let payload = Payload::Entries(Entries { pasts: vec![full], ..Entries::default() });
    assert_eq!(decode_bytes(&bytes_of(&payload.to_element().unwrap())), Ok(payload));

    let over = [most, vec![csn(0, 1)]].concat();
    let moves = vec![step; limits::PAST_MOVES_MAX + 1];
    for (past, what) in [
        (Past { changes: over.clone(), ..Past::new(uuid()) }, "changes"),
        (Past { waiting: over, ..Past::new(uuid()) }, "waiting changes"),
        (Past { moves, ..Past::new(uuid()) }, "moves"),
    ] {
        let error = Payload::Entries(Entries { pasts: vec![past], ..Entries::default() }).to_element();
        assert_eq!(limit_of(error.unwrap_err()), what);
    }
    for (child, what) in [
        (format!("<csn>{CSN}</csn>"), "changes"),
        (format!("<waits>{CSN}</waits>"), "waiting changes"),
        (format!("<move csn='{CSN}' to='{UUID}' made='true'/>"), "moves"),
    ] {
        let many = child.repeat(limits::PAST_CHANGES_MAX + 1);
        let content = format!("more='false'><past uuid='{UUID}'>{many}</past></entries>");
        let error = decoded("entries", &content).unwrap_err();
        assert!(matches!(error, WireError::Limit { place: Place::Past(_), .. }), "{error}");
        assert_eq!(limit_of(error), what);
    }
}

#[test]
fn a_past_is_of_one_entry_and_does_not_contradict_itself() {
    let child = "1f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d".parse().unwrap();
    let stray = Move { csn: csn(0, 1), child, from: None, to: uuid(), made: true };
    let past = Past { moves: vec![stray], ..Past::new(uuid()) };
    let error = Payload::Entries(Entries { pasts: vec![past], ..Entries::default() }).to_element();
    assert_eq!(error, Err(WireError::ForeignMove { uuid: uuid(), child }));

    let past = |content: &str| decoded("entries", &format!("more='false'><past {content}</past></entries>"));
    assert!(past(&format!("uuid='{UUID}' many='true'><waits>{CSN}</waits>")).is_ok());
    assert!(past(&format!("uuid='{UUID}' many='true'><csn>{CSN}</csn>")).is_ok());
    for content in [
        "".to_owned(),
        format!("uuid='{UUID}' deleted='today'>"),
        format!("uuid='{UUID}' refused='maybe'>"),
        format!("uuid='{UUID}' lost='true'>"),
        format!("uuid='{UUID}'><uuid>{UUID}</uuid>"),
        format!("uuid='{UUID}'><move csn='{CSN}' to='{UUID}'/>"),
        format!("uuid='{UUID}'><move csn='{CSN}' child='{UUID}' to='{UUID}' made='true'/>"),
    ] {
        assert!(matches!(past(&content), Err(WireError::Malformed { .. })), "{content}");
    }
}

#[test]
fn a_side_has_one_csn_of_a_server_in_each_of_its_vectors() {
    let side = |content: &str| decoded("entries", &format!("more='false'><side>{content}</side></entries>"));
    let csns = format!("<csn>{CSN}</csn><unseen until='{CSN}'/><floor>{CSN}</floor>");
    let Ok(Payload::Entries(entries)) = side(&csns) else { panic!("a side") };
    let found = entries.side.unwrap();
    let vector: Vector = [csn(0, 1)].into_iter().collect();
    assert_eq!((&found.seen.unseen, &found.floor), (&Unseen::all(&vector), &vector));
    assert_eq!(found.seen.vector, vector);
    let after = csn(0, 1).to_string().replace("#001#", "#002#");
    let until = csn(1, 1).to_string().replace("#001#", "#002#");
    let part = format!("<unseen after='{after}' until='{until}'/>");
    let Ok(Payload::Entries(entries)) = side(&format!("{part}<unseen until='{until}'/>")) else {
        panic!("a side")
    };
    assert_eq!(entries.side.unwrap().seen.unseen.iter().count(), 2);
    let once = [format!("<csn>{CSN}</csn>"), format!("<floor>{CSN}</floor>")];
    for twice in once.map(|once| once.repeat(2)) {
        let error = WireError::TwoCsns { place: Place::Entries, server: server(1) };
        assert_eq!(side(&twice), Err(error), "{twice}");
    }
    let two = decoded("entries", "more='false'><side/><side/></entries>");
    assert!(matches!(two, Err(WireError::Malformed { place: Place::Entries, .. })));
}

#[test]
fn the_id_of_a_file_is_no_path() {
    let file = |id: &str| File { id: id.into(), csn: csn(0, 1), bytes: 1, sha256: [0; 32] };
    assert!(Payload::File(file(&"x".repeat(64))).to_element().is_ok());
    for id in ["", "../passwd", "a b", "ä", &"x".repeat(65)] {
        let error = |place| Some(WireError::FileId { place, max: limits::FILE_ID_BYTES_MAX });
        assert_eq!(Payload::File(file(id)).to_element().err(), error(Place::File));
        let load = LoadRequest { resume: Some((id.into(), 1)) };
        assert_eq!(Payload::LoadRequest(load).to_element().err(), error(Place::Load));
        assert_eq!(decoded("load", &format!("id='{id}' resume='1'/>")).err(), error(Place::Load));
    }
}

#[test]
fn a_load_resumes_at_a_place_of_a_known_file_or_begins() {
    let half = Err(WireError::Half { names: "id and resume", place: Place::Load });
    assert_eq!(decoded("load", "/>"), Ok(Payload::LoadRequest(LoadRequest::default())));
    assert_eq!(decoded("load", "id='a'/>"), half);
    assert_eq!(decoded("load", "resume='1'/>"), half);
}

#[test]
fn a_file_is_asked_for_by_change_or_by_entry() {
    let error = Err(WireError::Either { names: "csn and uuid", place: Place::File });
    assert_eq!(decoded("file", "/>"), error);
    assert_eq!(decoded("file", &format!("csn='{CSN}' uuid='{UUID}'/>")), error);
}

#[test]
fn a_hash_has_one_spelling() {
    let file = |hash: &str| decoded("file", &format!("id='a' csn='{CSN}' size='1' sha256='{hash}'/>"));
    assert!(file(&"0f".repeat(32)).is_ok());
    for hash in ["0F".repeat(32), "0f".repeat(31), "0f".repeat(33), "0g".repeat(32), "ä".repeat(32)] {
        assert!(matches!(file(&hash), Err(WireError::Malformed { place: Place::File, .. })), "{hash}");
    }
}

#[test]
fn a_reference_to_a_change_is_checked_on_both_sides() {
    let good = Large {
        origin: server(1),
        boot: BootId::new(255),
        seq: 1,
        prev: Some(csn(0, 1)),
        csn: csn(1, 1),
        bytes: 1 << 25,
    };
    let foreign = |csn| WireError::ForeignChange { origin: server(1), csn };
    let refused = |large: Large| Payload::Large(large).to_element().unwrap_err();
    assert!(Payload::Large(good).to_element().is_ok());
    assert_eq!(refused(Large { csn: csn(1, 2), ..good }), foreign(csn(1, 2)));
    assert_eq!(refused(Large { prev: Some(csn(0, 2)), ..good }), foreign(csn(0, 2)));
    assert!(matches!(refused(Large { seq: 0, ..good }), WireError::Sequence { .. }));
    let bytes = limits::CHANGE_FILE_BYTES_MAX as u64 + 1;
    assert!(matches!(refused(Large { bytes, ..good }), WireError::Limit { what: "bytes of file", .. }));
    let content = format!("sid='2' boot='00000000000000ff' seq='1' csn='{CSN}' bytes='1'/>");
    let error = WireError::ForeignChange { origin: server(2), csn: csn(0, 1) };
    assert_eq!(decoded("large", &content), Err(error));
}

#[test]
fn a_change_over_the_limit_of_parts_survives_as_a_file() {
    let value = vec![b'x'; limits::ASSEMBLED_BYTES_MAX + 1];
    let change = Change {
        csn: csn(0, 1),
        uuid: uuid(),
        parent: None,
        operation: modify(vec![replace("jpegPhoto", &[&value])]),
    };
    assert_eq!(change_from_xml(&change_to_xml(&change).unwrap()), Ok(change));
    assert_eq!(change_from_xml(b"<batch xmlns='urn:xmpp:ldapsync:0'/>"), Err(WireError::NotAPayload));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_size_of_entries_is_never_underestimated(entries in entries()) {
        let element = Payload::Entries(entries.clone()).to_element().unwrap();
        prop_assert!(bytes_of(&element).len() <= entries.size_estimate());
    }

    #[test]
    fn the_sizes_of_a_past_and_of_a_side_are_never_underestimated(past in past(), side in side()) {
        let entries = Entries { pasts: vec![past.clone()], side: Some(side.clone()), ..Entries::default() };
        let element = Payload::Entries(entries).to_element().unwrap();
        let size_of = |name: &str| {
            let child = element.children().find(|child| child.name() == name).unwrap();
            // An element that stands alone declares the namespace that otherwise its parent declares.
            bytes_of(child).len() - " xmlns='urn:xmpp:ldapsync:0'".len()
        };
        let (size, estimate) = (size_of("past"), past_size_estimate(&past));
        prop_assert!(size <= estimate && estimate <= size + 100 + 50 * past.moves.len(), "{size}: {estimate}");
        let (size, estimate) = (size_of("side"), side_size_estimate(&side));
        let spans = side.seen.unseen.iter().count();
        prop_assert!(size <= estimate && estimate <= size + 60 * spans, "{size}: {estimate}");
    }

    #[test]
    fn every_change_survives_as_a_file(uuid in entry_uuid(), operation in operation()) {
        let change = Change { csn: csn(0, 1), uuid, parent: None, operation };
        prop_assert_eq!(change_from_xml(&change_to_xml(&change).unwrap()), Ok(change));
    }
}
