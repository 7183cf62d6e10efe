//! What is encoded comes back the same, through serialised bytes and a real parse.

mod common;

use common::*;
use minidom::Element;
use proptest::prelude::*;
use xmppsync_replica::Operation;
use xmppsync_wire::{Payload, decode_bytes, encoded_size_estimate};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_payload_survives_the_wire(payload in payload()) {
        let element = payload.to_element().unwrap();
        prop_assert_eq!(&Payload::decode(&element).unwrap(), &payload);
        prop_assert_eq!(&decode_bytes(&bytes_of(&element)).unwrap(), &payload);
    }

    /// Servers write a stanza anew: other quotes, prefixes, escapes. minidom's own parser and writer
    /// stand in for one.
    #[test]
    fn every_payload_survives_a_server_that_writes_it_anew(payload in payload()) {
        let sent = bytes_of(&payload.to_element().unwrap());
        let relayed = String::from(&Element::from_reader(&sent[..]).unwrap());
        prop_assert_eq!(decode_bytes(relayed.as_bytes()).unwrap(), payload);
    }

    #[test]
    fn the_estimate_is_never_below_the_size_and_close_to_it(batch in batch()) {
        let one = |change: &xmppsync_replica::Change| {
            let mut alone = batch.clone();
            alone.changes = vec![change.clone()];
            alone
        };
        for change in &batch.changes {
            let estimate = encoded_size_estimate(change);
            let element = Payload::Batch(one(change)).to_element().unwrap();
            let bytes = bytes_of(element.children().next().unwrap());
            // The stand-alone element declares the namespace that in a batch its parent declares.
            let size = bytes.len() - " xmlns='urn:xmpp:ldapsync:0'".len();
            // ejabberd escapes quotes in text, this serialiser does not.
            let quotes = text_quotes(element.children().next().unwrap());
            prop_assert!(size + 5 * quotes <= estimate, "{} bytes, estimated {}", size + 5 * quotes, estimate);
            let elements = 1 + bytes.iter().filter(|byte| **byte == b'<').count();
            prop_assert!(estimate <= size + 5 * quotes + 110 + 20 * elements);
        }
    }
}

fn text_quotes(element: &Element) -> usize {
    element.texts().map(|text| text.matches(['\'', '"']).count()).sum::<usize>()
        + element.children().map(text_quotes).sum::<usize>()
}

#[test]
fn empty_values_and_no_values_are_different_things() {
    let changes = vec![
        replace("a", &[]),
        replace("b", &[b""]),
        replace("c", &[b"", b""]),
        replace("d", &[b" "]),
        replace("e", &[b"\r\n\t"]),
    ];
    let payload = Payload::Batch(batch_of(modify(changes)));
    assert_eq!(decode_bytes(&bytes_of(&payload.to_element().unwrap())), Ok(payload));
}

#[test]
fn a_value_longer_than_the_parsers_token_comes_back_whole() {
    // rxml hands out text in pieces of at most 8,192 bytes.
    let long = "ä".repeat(30_000);
    let payload = Payload::Batch(batch_of(modify(vec![replace("description", &[long.as_bytes()])])));
    assert_eq!(decode_bytes(&bytes_of(&payload.to_element().unwrap())), Ok(payload));
}

#[test]
fn a_person_can_read_a_batch() {
    let payload = Payload::Batch(batch_of(modify(vec![
        replace("mail;lang-de", &["zoë@example.org".as_bytes()]),
        replace("jpegPhoto", &[b"\xff\xd8"]),
        replace("pager", &[]),
    ])));
    let text = String::from_utf8(bytes_of(&payload.to_element().unwrap())).unwrap();
    assert_eq!(
        text,
        "<batch xmlns='urn:xmpp:ldapsync:0' boot='00000000000000ff' first='10' last='10' sid='1'>\
         <modify csn='20261122235959.123456Z#000000#001#000000' uuid='0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d'>\
         <dn>uid=ada,ou=people,dc=example,dc=org</dn>\
         <replace attr='mail;lang-de'><v>zoë@example.org</v></replace>\
         <replace attr='jpegPhoto'><v b64='true'>/9g=</v></replace>\
         <replace attr='pager'></replace>\
         </modify></batch>"
    );
}

#[test]
fn a_delete_needs_no_more_than_its_dn() {
    let payload = Payload::Batch(batch_of(Operation::Delete { dn: "cn=\t,dc=example,dc=org".into() }));
    assert_eq!(decode_bytes(&bytes_of(&payload.to_element().unwrap())), Ok(payload));
}
