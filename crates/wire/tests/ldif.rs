//! Snapshots as LDIF: what is written comes back, slapcat's files are read, and nothing else is.
#![allow(clippy::unwrap_used)] // Helpers may fail a test.

mod common;

use common::*;
use ldap3_proto::proto::{LdapAddRequest, LdapPartialAttribute};
use proptest::prelude::*;
use std::collections::BTreeSet;
use xmppsync_replica::{Change, Operation};
use xmppsync_wire::ldif::{LdifError, LdifReader, LdifWriter};
use xmppsync_wire::limits;

/// As slapcat of OpenLDAP 2.6 writes it: folded at 76, base64 where needed, operational attributes.
const SLAPCAT: &str = "\
dn: dc=example,dc=org
objectClass: top
objectClass: domain
dc: example
structuralObjectClass: domain
entryUUID: 5fd4ee80-5b4e-1041-8a8c-0d5e0e6d2a11
creatorsName: cn=admin,dc=example,dc=org
createTimestamp: 20261122235959Z
entryCSN: 20261122235959.123456Z#000000#001#000000
modifiersName: cn=admin,dc=example,dc=org
modifyTimestamp: 20261122235959Z
contextCSN: 20261122235959.223456Z#000000#001#000000
contextCSN: 20261122230102.000017Z#000000#002#000000

dn:: Y249Wm/DqyBNw7xsbGVyLG91PWEgcmF0aGVyIGxvbmcgbmFtZSBvZiBhIHVuaXQsZGM9ZXhh
 bXBsZSxkYz1vcmc=
objectClass: inetOrgPerson
cn:: Wm/DqyBNw7xsbGVy
sn: x
description: a description of more than seventy-six characters, which slapcat f
 olds here
description:: IHNwYWNlIGZpcnN0
description:
userPassword:: e1NTSEF9YWJj
entryUUID: 0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d
entryCSN: 20261122235959.223456Z#000000#001#000000

";

const IDENTITY: &str = "entryUUID: 0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d\n\
                        entryCSN: 20261122235959.123456Z#000000#001#000000\n";

fn read_in_pieces(bytes: &[u8], piece: usize) -> Vec<Result<Change, LdifError>> {
    let mut reader = LdifReader::new();
    let mut results = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece).unwrap();
        results.extend(reader.by_ref());
    }
    reader.finish();
    results.extend(reader);
    results
}

fn read(text: &str) -> Vec<Result<Change, LdifError>> {
    read_in_pieces(text.as_bytes(), 4096)
}

fn entry(change: &Change) -> &LdapAddRequest {
    match &change.operation {
        Operation::Put(entry) => entry,
        other => unreachable!("a reader gives puts, not {other:?}"),
    }
}

fn written(changes: &[Change]) -> Vec<u8> {
    let mut writer = LdifWriter::new(Vec::new(), &["suffix dc=example,dc=org", "two\nlines"]).unwrap();
    changes.iter().for_each(|change| writer.write(change).unwrap());
    assert_eq!(writer.entries(), changes.len() as u64);
    let bytes = writer.bytes();
    let out = writer.into_inner();
    assert_eq!(bytes, out.len() as u64);
    out
}

/// An entry with what identifies it, and attributes as LDIF can say them: each once, with values.
fn snapshot_entry() -> impl Strategy<Value = Change> {
    let attributes = proptest::collection::vec((name(), proptest::collection::vec(value(), 1..4)), 0..6);
    (0_u32..0xff_ffff, 1_u16..=4095, entry_uuid(), dn(), attributes).prop_map(
        |(count, sid, uuid, dn, attributes)| {
            let csn = csn(count, sid);
            let mut seen = BTreeSet::new();
            let reserved = ["entrycsn", "entryuuid", "changetype", "control"];
            let mut attributes: Vec<_> = attributes
                .into_iter()
                .filter(|(name, _)| !reserved.contains(&name.to_ascii_lowercase().as_str()))
                .filter(|(name, _)| seen.insert(name.to_ascii_lowercase()))
                .map(|(atype, vals)| LdapPartialAttribute { atype, vals })
                .collect();
            attributes.push(attribute("entryUUID", &[uuid.to_string().as_bytes()]));
            attributes.push(attribute("entryCSN", &[csn.as_str().as_bytes()]));
            Change { csn, uuid, parent: None, operation: Operation::Put(LdapAddRequest { dn, attributes }) }
        },
    )
}

/// Folds as another writer may: after `width` bytes, wherever that is.
fn folded(ldif: &[u8], width: usize, newline: &[u8]) -> Vec<u8> {
    let mut folded = Vec::new();
    for line in ldif.split(|byte| *byte == b'\n') {
        for (index, piece) in line.chunks(width).enumerate() {
            if index > 0 {
                folded.extend_from_slice(newline);
                folded.push(b' ');
            }
            folded.extend_from_slice(piece);
        }
        folded.extend_from_slice(newline);
    }
    folded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn entries_come_back_byte_for_byte_however_they_are_cut(
        entries in proptest::collection::vec(snapshot_entry(), 0..5),
        piece in 1_usize..200,
    ) {
        let read: Vec<_> = read_in_pieces(&written(&entries), piece).into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn folding_and_line_ends_change_nothing(
        entries in proptest::collection::vec(snapshot_entry(), 1..3),
        width in 1_usize..80,
        crlf in any::<bool>(),
    ) {
        let newline: &[u8] = if crlf { b"\r\n" } else { b"\n" };
        let ldif = folded(&written(&entries), width, newline);
        let read: Vec<_> = read_in_pieces(&ldif, 100).into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn what_is_read_is_the_same_however_the_bytes_are_cut(noise in "[a-d:< #\\-\r\n]{0,120}", piece in 1_usize..20) {
        // Records with noise in them, so that more than refusals are compared.
        let ldif = format!("dn: {noise}\n{IDENTITY}\n{noise}\n\n{noise}dn: dc=org\n{IDENTITY}");
        let whole = format!("{:?}", read_in_pieces(ldif.as_bytes(), ldif.len()));
        prop_assert_eq!(format!("{:?}", read_in_pieces(ldif.as_bytes(), piece)), whole);
    }

    #[test]
    fn bytes_from_outside_never_panic(noise in proptest::collection::vec(any::<u8>(), 0..400), piece in 1_usize..50) {
        drop(read_in_pieces(&noise, piece));
    }
}

#[test]
fn the_file_of_slapcat_is_read() {
    let changes: Vec<Change> = read(SLAPCAT).into_iter().map(Result::unwrap).collect();
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0].csn, csn(0, 1));
    assert_eq!(entry(&changes[0]).attributes.last().unwrap().vals.len(), 2);
    assert_eq!(changes[1].uuid, uuid());
    let person = entry(&changes[1]);
    assert_eq!(person.dn, "cn=Zoë Müller,ou=a rather long name of a unit,dc=example,dc=org");
    let description = &person.attributes[3];
    assert_eq!(
        description.vals,
        [
            &b"a description of more than seventy-six characters, which slapcat folds here"[..],
            b" space first",
            b""
        ]
    );
}

#[test]
fn version_and_comments_are_passed_over() {
    let entry = format!("dn: dc=org\n# folded\n  comment\no: x\n{IDENTITY}");
    for text in [
        format!("version: 1\n{entry}"),
        format!("# a\nversion: 1\n\n\n# b\n\n{entry}\n\n"),
        format!("version: 1\n# a\n\n{entry}# end"),
    ] {
        let changes: Vec<_> = read(&text).into_iter().map(Result::unwrap).collect();
        assert_eq!(changes.len(), 1, "{text}");
    }
    assert!(matches!(read("version: 2\n")[..], [Err(LdifError::Version { line: 1 })]));
    assert!(read("").is_empty() && read("\n\n# nothing\n").is_empty());
}

#[test]
fn the_last_entry_waits_for_the_end_of_the_bytes() {
    let mut reader = LdifReader::new();
    reader.push(format!("dn: dc=org\n{IDENTITY}").as_bytes()).unwrap();
    assert!(reader.next().is_none());
    reader.finish();
    assert!(matches!(reader.next(), Some(Ok(_))));
    assert!(reader.next().is_none());
}

#[test]
fn an_entry_that_cannot_be_placed_is_named_and_the_next_one_read() {
    let [uuid, csn] = IDENTITY.split_inclusive('\n').collect::<Vec<_>>()[..] else { unreachable!() };
    for (identity, missing) in [
        (uuid.to_owned(), "entryCSN"),
        (csn.to_owned(), "entryUUID"),
        (format!("{IDENTITY}{csn}"), "entryCSN"),
        (format!("{IDENTITY}{uuid}"), "entryUUID"),
        (format!("{csn}entryUUID: 0f2b1c3d\n"), "entryUUID"),
        (format!("{uuid}entryCSN: 20261122235959Z\n"), "entryCSN"),
    ] {
        let results = read(&format!("dn: o=bad,dc=org\n{identity}\ndn: o=good,dc=org\n{IDENTITY}\n"));
        let [Err(LdifError::Unusable { dn, attribute }), Ok(good)] = &results[..] else {
            unreachable!("{results:?}")
        };
        assert_eq!((dn.as_str(), *attribute), ("o=bad,dc=org", missing));
        assert_eq!(entry(good).dn, "o=good,dc=org");
    }
}

#[test]
fn what_is_no_entry_is_refused_with_its_line() {
    let after = |line: &str| read(&format!("\n\ndn: dc=org\n{line}\n{IDENTITY}\n")).remove(0).unwrap_err();
    assert!(matches!(after("jpegPhoto:< file:///etc/passwd"), LdifError::Url { line: 4 }));
    assert!(matches!(after("changetype: delete"), LdifError::ChangeRecord { line: 4 }));
    assert!(matches!(after("ChangeType: modify"), LdifError::ChangeRecord { line: 4 }));
    assert!(matches!(after("control: 1.2.3 true"), LdifError::ChangeRecord { line: 4 }));
    for line in ["-", "no colon", ": x", "a b: x", "cn:: !!!!", "cn:: QQ", "ä: x"] {
        assert!(matches!(after(line), LdifError::Syntax { line: 4, .. }), "{line}");
    }
    for text in ["cn: x\n", " dn: dc=org\n", "dn:: /w==\n", "version: 1\ncn: x"] {
        assert!(matches!(read(text)[..], [Err(LdifError::Syntax { .. })]), "{text}");
    }
    let error = after("userPassword:: geheim!").to_string();
    assert_eq!(error, "Line 4 of the LDIF is malformed: its base64 is malformed.");
}

#[test]
fn values_of_one_attribute_come_together_wherever_they_stand() {
    // Beyond 64 attributes they are found another way.
    let many: String = (0..100).map(|n| format!("a{n}: x\n")).collect();
    let text = format!("dn: dc=org\n{many}cn: a\n{IDENTITY}CN: b\nA99: y\na0: y\n");
    let changes: Vec<_> = read(&text).into_iter().map(Result::unwrap).collect();
    let attributes = &entry(&changes[0]).attributes;
    assert_eq!(attributes.len(), 103);
    for (position, values) in [(0, ["x", "y"]), (99, ["x", "y"]), (100, ["a", "b"])] {
        assert_eq!(attributes[position].vals, values.map(|value| value.as_bytes().to_vec()));
    }
}

#[test]
fn limits_of_a_record_hold() {
    let values = format!("dn: dc=org\n{}{IDENTITY}", "a:\n".repeat(limits::LDIF_VALUES_PER_RECORD_MAX));
    assert!(matches!(read(&values)[..], [Err(LdifError::Limit { what: "values", .. })]));
    let dn = format!("dn: {}\n{IDENTITY}", "x".repeat(limits::DN_BYTES_MAX + 1));
    assert!(matches!(read(&dn)[..], [Err(LdifError::Limit { what: "bytes of DN", .. })]));

    let piece = vec![b'x'; 1024 * 1024];
    let mut reader = LdifReader::new();
    reader.push(b"dn: dc=org\ncn: ").unwrap();
    let pushed = (0..100).take_while(|_| {
        assert!(reader.next().is_none());
        reader.push(&piece).is_ok()
    });
    assert_eq!(pushed.count(), limits::LDIF_RECORD_BYTES_MAX / piece.len());
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let identity = || {
        let csn = csn(0, 1);
        vec![
            attribute("entryUUID", &[uuid().to_string().as_bytes()]),
            attribute("entryCSN", &[csn.as_str().as_bytes()]),
        ]
    };
    let refused = |operation| {
        let mut writer = LdifWriter::new(Vec::new(), &[]).unwrap();
        let error =
            writer.write(&Change { csn: csn(0, 1), uuid: uuid(), parent: None, operation }).unwrap_err();
        assert_eq!(writer.into_inner(), b"");
        error
    };
    let put = |attributes| Operation::Put(LdapAddRequest { dn: "dc=org".into(), attributes });
    assert!(matches!(refused(modify(vec![])), LdifError::NotAnEntry { .. }));
    assert!(matches!(
        refused(put(identity()[..1].to_vec())),
        LdifError::Unusable { attribute: "entryCSN", .. }
    ));
    assert!(matches!(
        refused(put(identity()[1..].to_vec())),
        LdifError::Unusable { attribute: "entryUUID", .. }
    ));
    let other = vec![identity()[0].clone(), attribute("entryCSN", &[csn(1, 1).as_str().as_bytes()])];
    assert!(matches!(refused(put(other)), LdifError::Unusable { attribute: "entryCSN", .. }));
    for name in ["changetype", "c n", ""] {
        let attributes = [vec![attribute(name, &[b"x"])], identity()].concat();
        assert!(matches!(refused(put(attributes)), LdifError::NotAnEntry { .. }), "{name}");
    }
}

#[test]
fn a_person_can_read_a_snapshot() {
    let attributes = vec![
        attribute("cn", &[b"Ada", "Zoë".as_bytes(), b" x", b"", b": y"]),
        attribute("pager", &[]),
        attribute("entryUUID", &[uuid().to_string().as_bytes()]),
        attribute("entryCSN", &[csn(0, 1).as_str().as_bytes()]),
    ];
    let operation = Operation::Add(LdapAddRequest { dn: "cn=Ada,dc=org".into(), attributes });
    let text = written(&[Change { csn: csn(0, 1), uuid: uuid(), parent: None, operation }]);
    assert_eq!(
        String::from_utf8(text).unwrap(),
        format!(
            "# suffix dc=example,dc=org\n# two lines\n\n\
             dn: cn=Ada,dc=org\ncn: Ada\ncn:: Wm/Dqw==\ncn:: IHg=\ncn:\ncn:: OiB5\n{IDENTITY}\n"
        )
    );
}
