//! Files that peers offer.

use super::*;
use crate::limits::TRANSFERS_IN_MAX;

/// An offer of a file, with `<transfer>` and `<hash>` as given.
fn offer_of(from: &str, transfer: &str, hash: &str) -> String {
    format!(
        "<iq xmlns='jabber:client' type='set' id='o' from='{from}'>\
         <jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s1'>\
         <content creator='initiator' name='file' senders='initiator'>\
         <description xmlns='urn:xmpp:jingle:apps:file-transfer:5'><file><name>n</name><size>3</size>\
         <hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>{hash}</hash></file></description>\
         <transport xmlns='urn:xmpp:jingle:transports:ibb:1' sid='s1' block-size='4096'/></content>\
         <transfer xmlns='{NS_LDAPSYNC}' {transfer}</transfer></jingle></iq>"
    )
}

const SHA: &str = "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=";

#[test]
fn a_whole_offer_of_a_peer_is_told_and_confirmed() {
    let mut rig = Rig::joined();
    rig.receive(&offer_of("b@example.org/ldap", &format!("room='{ROOM}' id='i'>{SHA}"), SHA));
    let Some(Event::FileOffered { from, offer, .. }) = rig.next() else { panic!("no offer") };
    assert_eq!((from.as_str(), offer.id.as_str(), offer.size), ("b@example.org/ldap", "i", 3));
    let sent = rig.sent();
    assert!(sent.len() == 1 && !sent[0].contains("error"), "{sent:?}");
    assert_eq!(rig.core.transfers.starts.len(), 1);
}

#[test]
fn offers_that_lack_something_or_come_from_strangers_start_nothing() {
    let tag = format!("room='{ROOM}' id='i'");
    for (from, transfer, hash) in [
        ("m@example.org/x", format!("{tag}>{SHA}"), SHA),
        ("b@example.org", format!("{tag}>{SHA}"), SHA),
        ("b@example.org/ldap", format!("room='other@conference.example.org' id='i'>{SHA}"), SHA),
        ("b@example.org/ldap", format!("id='i'>{SHA}"), SHA),
        ("b@example.org/ldap", format!("{tag}>c2hvcnQ="), SHA),
        ("b@example.org/ldap", format!("{tag}>no base64"), SHA),
        ("b@example.org/ldap", format!("{tag}>{SHA}"), "c2hvcnQ="),
        ("b@example.org/ldap", format!("room='{ROOM}' id='{}'>{SHA}", "i".repeat(2_000)), SHA),
    ] {
        let mut rig = Rig::joined();
        rig.receive(&offer_of(from, &transfer, hash));
        assert!(rig.sent()[0].contains("error"), "{from} {transfer}");
        assert!(!matches!(rig.next(), Some(Event::FileOffered { .. })), "{from} {transfer}");
        assert!(rig.core.transfers.starts.is_empty());
    }
}

#[test]
fn stanzas_of_a_transfer_that_is_not_there_are_refused() {
    let mut rig = Rig::joined();
    for payload in [
        "<data xmlns='http://jabber.org/protocol/ibb' seq='0' sid='x'>AAAA</data>",
        "<open xmlns='http://jabber.org/protocol/ibb' block-size='4096' sid='x'/>",
        "<jingle xmlns='urn:xmpp:jingle:1' action='session-accept' sid='x'/>",
        "<jingle xmlns='urn:xmpp:jingle:1' action='dance' sid='x'/>",
        "<nothing xmlns='urn:xmpp:jingle:1'/>",
    ] {
        rig.receive(&format!(
            "<iq xmlns='jabber:client' type='set' id='o' from='b@example.org/ldap'>{payload}</iq>"
        ));
        let sent = rig.sent();
        assert!(sent.len() == 1 && sent[0].contains("error"), "{payload}: {sent:?}");
    }
}

#[test]
fn more_offers_than_the_limit_are_refused_until_one_has_ended() {
    let mut rig = Rig::joined();
    let offer = |n: usize| {
        let offer = offer_of("b@example.org/ldap", &format!("room='{ROOM}' id='i'>{SHA}"), SHA);
        offer.replace("'s1'", &format!("'s{n}'"))
    };
    for n in 0..=TRANSFERS_IN_MAX {
        rig.receive(&offer(n));
    }
    assert_eq!(rig.core.transfers.starts.len(), TRANSFERS_IN_MAX);
    assert!(rig.sent().pop().unwrap().contains("resource-constraint"));
    rig.core.transfers.starts.pop();
    rig.receive(&offer(9));
    assert_eq!(rig.core.transfers.starts.len(), TRANSFERS_IN_MAX);
}
