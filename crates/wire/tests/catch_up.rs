//! What is said while a replica catches up other than from a journal: what is refused, and what fits.
#![allow(clippy::expect_used, clippy::unwrap_used)] // Helpers may fail a test.

mod common;

use common::*;
use ldap3_proto::proto::LdapAddRequest;
use proptest::prelude::*;
use xmppsync_replica::{BootId, Change, Operation, Unseen, Vector};
use xmppsync_wire::{
    Entries, Fetch, File, Large, LoadRequest, Payload, Place, Reconcile, Session, WireError, change_from_xml,
    change_to_xml, decode_bytes, limits,
};

const CSN: &str = "20261122235959.123456Z#000000#001#000000";
const UUID: &str = "0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d";

fn decoded(name: &str, content: &str) -> Result<Payload, WireError> {
    decode_bytes(format!("<{name} xmlns='urn:xmpp:ldapsync:0' {content}").as_bytes())
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
fn what_was_not_seen_is_one_span_of_one_server() {
    let other = CSN.replace("#001#", "#002#");
    for spans in [
        format!("<unseen after='{other}' until='{CSN}'/>"),
        format!("<unseen until='{CSN}'/><unseen until='{CSN}'/>"),
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
fn a_fetch_asks_for_no_more_than_its_limit() {
    let uuids = vec![uuid(); limits::FETCH_UUIDS_MAX];
    let most = Payload::Fetch(Fetch { uuids: uuids.clone(), bytes_max: u32::MAX });
    assert_eq!(decode_bytes(&bytes_of(&most.to_element().unwrap())), Ok(most));
    let over = Fetch { uuids: [uuids, vec![uuid()]].concat(), bytes_max: 0 };
    let error = Payload::Fetch(over).to_element().unwrap_err();
    assert!(matches!(error, WireError::Limit { what: "entryUUIDs", .. }), "{error}");
    let many = format!("<uuid>{UUID}</uuid>").repeat(limits::FETCH_UUIDS_MAX + 1);
    let error = decoded("fetch", &format!("max-bytes='1'>{many}</fetch>")).unwrap_err();
    assert!(matches!(error, WireError::Limit { what: "entryUUIDs", .. }), "{error}");
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
    let names = Entries { absent: vec![uuid(); limits::FETCH_UUIDS_MAX + 1], ..Entries::default() };
    let error = Payload::Entries(names).to_element().unwrap_err();
    assert!(matches!(error, WireError::Limit { what: "entries", .. }), "{error}");
    let many = format!("<large>{UUID}</large>").repeat(limits::FETCH_UUIDS_MAX + 1);
    let error = decoded("entries", &format!("more='false'>{many}</entries>")).unwrap_err();
    assert!(matches!(error, WireError::Limit { what: "entries", .. }), "{error}");
    let attributes = vec![attribute("jpegPhoto", &[&[0xff; 100_000]])];
    let operation = Operation::Put(LdapAddRequest { dn: "dc=org".into(), attributes });
    let puts = vec![Change { csn: csn(0, 1), uuid: uuid(), parent: None, operation }];
    let error = Payload::Entries(Entries { puts, ..Entries::default() }).to_element().unwrap_err();
    assert!(matches!(error, WireError::TooLarge { place: Place::Entries, .. }), "{error}");
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
    fn every_change_survives_as_a_file(uuid in entry_uuid(), operation in operation()) {
        let change = Change { csn: csn(0, 1), uuid, parent: None, operation };
        prop_assert_eq!(change_from_xml(&change_to_xml(&change).unwrap()), Ok(change));
    }
}
