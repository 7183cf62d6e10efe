//! What a receiver does not take, and how it says so.

#![allow(clippy::expect_used, clippy::unwrap_used)] // Helpers may fail a test.

mod common;

use common::*;
use minidom::Element;
use xmppsync_replica::{Batch, BootId, Operation, Vector};
use xmppsync_wire::{Card, Live, Page, Payload, Phase, Place, WireError, decode_bytes, limits};

const CSN: &str = "20261122235959.123456Z#000000#001#000000";
const UUID: &str = "0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d";

/// A batch of server 1 with one change, whose element this is.
fn in_batch(change: &str) -> String {
    format!(
        "<batch xmlns='urn:xmpp:ldapsync:0' sid='1' boot='00000000000000ff' first='1' last='1'>{change}</batch>"
    )
}

fn modify_with(content: &str) -> String {
    in_batch(&format!("<modify csn='{CSN}' uuid='{UUID}'><dn>dc=org</dn>{content}</modify>"))
}

fn refused(document: &str) -> WireError {
    decode_bytes(document.as_bytes()).expect_err(document)
}

#[test]
fn unknown_content_is_refused() {
    assert!(decode_bytes(modify_with("<replace attr='sn'><v>x</v></replace>").as_bytes()).is_ok());
    for content in [
        "<rename attr='sn'/>",
        "<replace attr='sn' also='cn'/>",
        "<replace attr='sn'><w>x</w></replace>",
        "<replace attr='sn'><v><v>x</v></v></replace>",
        "<replace attr='sn'><v enc='b64'>x</v></replace>",
        "<replace xmlns='urn:example' attr='sn'/>",
        "<replace attr='sn'>text</replace>",
        "text",
        "<dn>dc=com</dn>",
        "<newrdn>dc=com</newrdn>",
    ] {
        let error = refused(&modify_with(content));
        assert!(matches!(error, WireError::Malformed { place: Place::Batch, .. }), "{content}: {error}");
    }
    for document in [
        in_batch("<compare/>"),
        in_batch("text"),
        in_batch(&format!("<delete csn='{CSN}' uuid='{UUID}'><dn>dc=org</dn></delete>"))
            .replace("<batch ", "<batch from='a@b' "),
        in_batch(&format!("<delete csn='{CSN}' uuid='{UUID}' force='true'><dn>dc=org</dn></delete>")),
        in_batch(&format!("<delete csn='{CSN}' uuid='{UUID}'/>")),
        in_batch(&format!("<delete csn='{CSN}'><dn>dc=org</dn></delete>")),
    ] {
        assert!(matches!(refused(&document), WireError::Malformed { .. }), "{document}");
    }
    assert_eq!(refused("<ping xmlns='urn:xmpp:ping'/>"), WireError::NotAPayload);
    assert_eq!(refused("<pong xmlns='urn:xmpp:ldapsync:0'/>"), WireError::NotAPayload);
    assert_eq!(refused("<batch xmlns='urn:xmpp:ldapsync:1'/>"), WireError::NotAPayload);
}

#[test]
fn a_parent_is_an_entry_uuid_and_a_modify_has_none() {
    let delete = |parent: &str| {
        in_batch(&format!("<delete csn='{CSN}' uuid='{UUID}' parent='{parent}'><dn>dc=org</dn></delete>"))
    };
    assert!(decode_bytes(delete(UUID).as_bytes()).is_ok());
    for parent in ["", "dc=org", &UUID[1..]] {
        assert!(matches!(refused(&delete(parent)), WireError::Malformed { .. }), "{parent}");
    }
    let document = modify_with("").replace("<modify ", &format!("<modify parent='{UUID}' "));
    assert!(matches!(refused(&document), WireError::Malformed { .. }));
    let mut batch = batch_of(modify(vec![]));
    batch.changes[0].parent = Some(uuid());
    let element = Payload::Batch(batch.clone()).to_element().unwrap();
    batch.changes[0].parent = None;
    assert_eq!(Payload::decode(&element).unwrap(), Payload::Batch(batch));
}

#[test]
fn documents_that_are_not_one_element_are_refused() {
    let good = modify_with("");
    for document in
        ["", " ", "<", "<batch", "\u{feff}", "&amp;", "<!DOCTYPE x><x/>", &format!("{good}{good}")]
    {
        assert!(matches!(refused(document), WireError::Malformed { .. }), "{document}");
    }
    assert!(decode_bytes(format!("{good} \n").as_bytes()).is_ok());
    assert!(decode_bytes(format!("<?xml version='1.0'?>{good}").as_bytes()).is_ok());
}

#[test]
fn a_change_of_another_server_is_refused_on_both_sides() {
    let document = modify_with("").replace("sid='1'", "sid='2'");
    let error = WireError::ForeignChange { origin: server(2), csn: csn(0, 1) };
    assert_eq!(refused(&document), error);
    let mut batch = batch_of(modify(vec![]));
    batch.origin = server(2);
    assert_eq!(Payload::Batch(batch).to_element(), Err(error));
}

#[test]
fn a_sequence_that_does_not_fit_its_changes_is_refused_on_both_sides() {
    for (first, last) in [(0, 0), (1, 2), (2, 1), (u64::MAX, 0), (1, u64::MAX)] {
        let document =
            modify_with("").replace("first='1' last='1'", &format!("first='{first}' last='{last}'"));
        assert_eq!(refused(&document), WireError::Sequence { first, last, changes: 1 });
    }
    let mut batch = batch_of(modify(vec![]));
    batch.first = 0;
    assert!(matches!(Payload::Batch(batch.clone()).to_element(), Err(WireError::Sequence { .. })));
    batch.first = u64::MAX;
    assert!(Payload::Batch(batch.clone()).to_element().is_ok());
    batch.changes.push(batch.changes[0].clone());
    assert!(matches!(Payload::Batch(batch).to_element(), Err(WireError::Sequence { .. })));
}

#[test]
fn an_empty_batch_is_refused_on_both_sides() {
    let error = WireError::EmptyBatch { origin: server(1) };
    assert_eq!(refused(&in_batch("").replace("last='1'", "last='0'")), error);
    let batch = Batch { origin: server(1), boot: BootId::new(0), first: 1, prev: None, changes: vec![] };
    assert_eq!(Payload::Batch(batch).to_element(), Err(error));
}

#[test]
fn attribute_descriptions_are_checked_on_both_sides() {
    for name in
        ["cn", "2.5.4.3", "userCertificate;binary", "cn;lang-de;x-a", "member;range=0-1499", "my_attr"]
    {
        assert!(decode_bytes(modify_with(&format!("<replace attr='{name}'/>")).as_bytes()).is_ok(), "{name}");
    }
    for name in ["", " cn", "c n", "-cn", ";lang-de", "c:n", "cn\n", "ä", "cn*"] {
        let error = WireError::AttributeName { place: Place::Change(csn(0, 1)) };
        assert_eq!(refused(&modify_with(&format!("<replace attr='{name}'/>"))), error);
        let batch = batch_of(modify(vec![replace(name, &[])]));
        assert_eq!(Payload::Batch(batch).to_element(), Err(error));
    }
}

#[test]
fn malformed_base64_is_refused_without_showing_it() {
    for text in ["!secret!", "c2VjcmV0=", "c2Vj cmV0", "c2VjcmV", "geheim\u{e4}"] {
        let document =
            modify_with(&format!("<replace attr='userPassword'><v b64='true'>{text}</v></replace>"));
        let place = Place::Attribute(csn(0, 1), "userPassword".into());
        let error = refused(&document);
        assert_eq!(error, WireError::Base64 { what: "a value", place });
        assert!(!error.to_string().contains(text));
    }
}

#[test]
fn a_dn_that_is_not_utf8_is_refused() {
    let document = modify_with("").replace("<dn>dc=org</dn>", "<dn b64='1'>/w==</dn>");
    assert_eq!(refused(&document), WireError::NotUtf8 { what: "DN", place: Place::Change(csn(0, 1)) });
}

#[test]
fn oversize_names_and_counts_are_refused_on_both_sides() {
    let both = |operation: Operation, what: &str| {
        let error = Payload::Batch(batch_of(operation)).to_element().unwrap_err();
        assert!(matches!(error, WireError::Limit { what: found, .. } if found == what), "{what}: {error}");
    };
    both(Operation::Delete { dn: "x".repeat(limits::DN_BYTES_MAX + 1) }, "bytes of DN");
    let name = "x".repeat(limits::ATTRIBUTE_NAME_BYTES_MAX + 1);
    both(modify(vec![replace(&name, &[])]), "bytes of attribute description");
    both(modify(vec![replace("cn", &[]); limits::ATTRIBUTES_PER_CHANGE_MAX + 1]), "attributes");
    both(modify(vec![replace("cn", &vec![&b""[..]; limits::VALUES_PER_ATTRIBUTE_MAX + 1])]), "values");

    let limit = |document: String, what: &str| {
        let error = refused(&document);
        assert!(matches!(error, WireError::Limit { what: found, .. } if found == what), "{what}: {error}");
    };
    let long = "x".repeat(limits::DN_BYTES_MAX + 1);
    limit(modify_with("").replace("dc=org", &long), "bytes of DN");
    limit(modify_with(&format!("<replace attr='{name}'/>")), "bytes of attribute description");
    let many = "<add attr='cn'/>".repeat(limits::ATTRIBUTES_PER_CHANGE_MAX + 1);
    // No document of one stanza holds so many, an assembled batch does.
    let element: minidom::Element = modify_with(&many).parse().unwrap();
    let error = Payload::decode(&element).unwrap_err();
    assert!(matches!(error, WireError::Limit { what: "attributes", .. }), "{error}");
    limit(in_batch(&"<delete/>".repeat(limits::CHANGES_PER_BATCH_MAX + 1)), "changes");
}

#[test]
fn oversize_batches_and_pages_are_refused_when_they_are_encoded() {
    let mut batch = batch_of(Operation::Delete { dn: "dc=org".into() });
    batch.changes = vec![batch.changes[0].clone(); limits::CHANGES_PER_BATCH_MAX + 1];
    let error = Payload::Batch(batch).to_element().unwrap_err();
    assert!(matches!(error, WireError::Limit { what: "changes", .. }));

    let large = batch_of(modify(vec![replace("description", &[&[b'x'; 100_000]])]));
    let page = Page { batches: vec![large.clone()], ..Page::default() };
    assert!(Payload::Page(page).to_element().is_ok());
    let page = Page { batches: vec![large.clone(), large], ..Page::default() };
    assert!(matches!(
        Payload::Page(page).to_element(),
        Err(WireError::TooLarge { place: Place::Page, bytes: 200_000.., max: limits::PAYLOAD_BYTES_MAX })
    ));
}

#[test]
fn oversize_documents_are_refused_before_they_are_parsed() {
    let document = " ".repeat(limits::DOCUMENT_BYTES_MAX + 1);
    let (found, max) = (document.len(), limits::DOCUMENT_BYTES_MAX);
    assert_eq!(refused(&document), WireError::Limit { what: "bytes", place: Place::Document, found, max });
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    // 85,000 levels overflow the stack of a parser that recurses, and of the drop of its tree.
    let deep = "<a>".repeat(limits::DOCUMENT_BYTES_MAX / 3 - 20);
    for document in [deep.clone(), format!("<replica xmlns='urn:xmpp:ldapsync:0' version='0'>{deep}")] {
        let error = refused(&document);
        assert!(matches!(error, WireError::Limit { what: "levels of nested elements", .. }), "{error}");
    }
    // The stack's own trees: one that is deep, but not so deep that building it here overflows.
    let mut element = Element::bare("replica", "urn:xmpp:ldapsync:0");
    for _ in 0..100 {
        let mut parent = Element::bare("replica", "urn:xmpp:ldapsync:0");
        parent.append_child(element);
        element = parent;
    }
    assert!(matches!(Payload::decode(&element), Err(WireError::Limit { .. })));
}

fn card() -> Card {
    Card {
        sid: server(1),
        boot: BootId::new(255),
        seq: 0,
        phase: Phase::Ready,
        live: Live::Muc,
        node: "xmppsync/dc=example".into(),
        suffix: "dc=example,dc=org".into(),
        software: "xmppsync 0.1.0".into(),
        vector: [csn(3, 1)].into_iter().collect(),
        dataset: None,
        progress: None,
    }
}

fn card_text() -> String {
    String::from_utf8(bytes_of(&Payload::Card(card()).to_element().unwrap())).unwrap()
}

#[test]
fn a_card_of_a_later_version_is_refused_by_its_version() {
    for (version, found) in
        [("1", "1"), ("", ""), ("0.1", "0.1"), ("12345678901234567890", "1234567890123456")]
    {
        let document =
            format!("<replica xmlns='urn:xmpp:ldapsync:0' version='{version}' all='else is different'/>");
        assert_eq!(refused(&document), WireError::Version { found: found.into(), known: 0 });
    }
}

#[test]
fn a_card_that_says_more_is_taken() {
    let document = card_text()
        .replace("<replica ", "<replica role='master' ")
        .replace("<csn>", "<digest xmlns='urn:example' alg='sha-256'><a>x</a></digest><csn>");
    assert_eq!(decode_bytes(document.as_bytes()), Ok(Payload::Card(card())));
}

#[test]
fn a_card_with_two_csns_of_one_server_is_refused() {
    let document = card_text();
    let start = document.find("<csn>").unwrap();
    let end = document.find("</replica>").unwrap();
    let doubled = format!("{}{}{}", &document[..end], &document[start..end], &document[end..]);
    assert_eq!(refused(&doubled), WireError::TwoCsns { place: Place::Card, server: server(1) });
}

#[test]
fn texts_of_a_card_that_an_attribute_cannot_carry_are_refused_when_it_is_encoded() {
    let node = |node: &str| Payload::Card(Card { node: node.into(), ..card() }).to_element();
    assert!(matches!(node("a\nb"), Err(WireError::NotPlain { what: "pubsub node", place: Place::Card })));
    assert!(matches!(
        node(&"x".repeat(limits::NODE_BYTES_MAX + 1)),
        Err(WireError::Limit { what: "bytes of pubsub node", .. })
    ));
    // Every server that there can be, in one vector, is more than a stanza holds.
    let all: Vector = (1..=4095).map(|sid| csn(1, sid)).collect();
    let error = Payload::Card(Card { vector: all, ..card() }).to_element().unwrap_err();
    assert!(matches!(error, WireError::TooLarge { place: Place::Card, .. }));
}

#[test]
fn attributes_that_stand_together_are_refused_alone() {
    let pull = |attributes: &str| {
        let document = format!("<pull xmlns='urn:xmpp:ldapsync:0' max-bytes='65536' {attributes}/>");
        decode_bytes(document.as_bytes())
    };
    let half = Err(WireError::Half { names: "change and part", place: Place::Pull });
    assert!(pull("").is_ok());
    assert!(pull(&format!("change='{CSN}' part='3'")).is_ok());
    assert_eq!(pull(&format!("change='{CSN}'")), half);
    assert_eq!(pull("part='3'"), half);

    let card = |attributes: &str| {
        let document = card_text().replace("<replica ", &format!("<replica {attributes} "));
        decode_bytes(document.as_bytes())
    };
    let half = Err(WireError::Half { names: "done and of", place: Place::Card });
    assert!(card("done='1' of='2'").is_ok());
    assert_eq!(card("done='1'"), half);
    assert_eq!(card("of='2'"), half);
}

#[test]
fn the_position_of_a_former_pull_is_refused() {
    let document = "<pull xmlns='urn:xmpp:ldapsync:0' max-bytes='65536' sid='1'/>";
    assert!(matches!(refused(document), WireError::Malformed { place: Place::Pull, .. }));
}

#[test]
fn a_page_that_lacks_one_origin_twice_is_refused_on_both_sides() {
    let error = WireError::TwoCsns { place: Place::Page, server: server(1) };
    let page = Page { beyond: vec![csn(1, 1), csn(2, 2), csn(3, 1)], ..Page::default() };
    assert_eq!(Payload::Page(page).to_element(), Err(error.clone()));
    let beyond = format!("<beyond>{CSN}</beyond>");
    let document = format!("<page xmlns='urn:xmpp:ldapsync:0' more='false'>{beyond}{beyond}</page>");
    assert_eq!(refused(&document), error);
}

#[test]
fn errors_are_sentences_without_values() {
    let document = modify_with("<replace attr='userPassword'><v>geheim</v><w/></replace>");
    let text = refused(&document).to_string();
    assert!(text.starts_with("The XML of the batch is malformed: ") && text.ends_with('.'), "{text}");
    assert!(!text.contains("geheim"));
}
