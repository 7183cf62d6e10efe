//! Payloads made at random, and the way over the wire.
#![allow(dead_code, clippy::unwrap_used)] // Each test file uses a part of it; a helper may fail a test.

use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use minidom::Element;
use proptest::collection::vec;
use proptest::prelude::*;
use xmppsync_replica::{
    Batch, BootId, Change, Csn, EntryUuid, Move, Operation, Seen, ServerId, Side, Span, Unseen, Vector,
};
use xmppsync_wire::{
    Card, Entries, Fetch, File, FileRequest, Large, Live, LoadRequest, Notice, NoticeKind, Offer, Page, Part,
    Past, Payload, Phase, Progress, Pull, Reconcile, Session, Snapshot,
};

pub(crate) fn server(id: u16) -> ServerId {
    ServerId::new(u32::from(id)).unwrap()
}

pub(crate) fn csn(count: u32, sid: u16) -> Csn {
    format!("20261122235959.123456Z#{count:06x}#{sid:03x}#000000").parse().unwrap()
}

pub(crate) fn uuid() -> EntryUuid {
    "0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d".parse().unwrap()
}

pub(crate) fn attribute(name: &str, values: &[&[u8]]) -> LdapPartialAttribute {
    LdapPartialAttribute { atype: name.into(), vals: values.iter().map(|value| value.to_vec()).collect() }
}

pub(crate) fn replace(name: &str, values: &[&[u8]]) -> LdapModify {
    LdapModify { operation: LdapModifyType::Replace, modification: attribute(name, values) }
}

/// A batch of server 1 with one operation.
pub(crate) fn batch_of(operation: Operation) -> Batch {
    let changes = vec![Change { csn: csn(0, 1), uuid: uuid(), parent: None, operation }];
    Batch { origin: server(1), boot: BootId::new(255), first: 10, prev: None, changes }
}

pub(crate) fn modify(changes: Vec<LdapModify>) -> Operation {
    Operation::Modify(LdapModifyRequest { dn: "uid=ada,ou=people,dc=example,dc=org".into(), changes })
}

/// Serialised as the stack does it.
pub(crate) fn bytes_of(element: &Element) -> Vec<u8> {
    xso::to_vec(element).unwrap()
}

/// Values that hurt, and values of all kinds.
pub(crate) fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"]]>".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(" ".into()),
        Just("\u{85}\u{2028}\u{feff}\u{fffe}".into()),
        Just(b"\xed\xa0\x80".to_vec()),
        vec(any::<u8>(), 0..64),
        "[ -~]{0,40}".prop_map(String::into_bytes),
        any::<String>().prop_map(String::into_bytes),
        ".{0,40}".prop_map(String::into_bytes),
    ]
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,20}(;[a-z][a-z0-9=-]{0,10}){0,2}"
}

pub(crate) fn dn() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "uid=[a-z]{1,8},ou=(people|\\u{e4}\\u{f6}),dc=example,dc=org".prop_map(|dn| dn),
        any::<String>(),
        "cn=a\t\r\n b,dc= ".prop_map(|dn| dn),
    ]
}

pub(crate) fn attributes() -> impl Strategy<Value = Vec<LdapPartialAttribute>> {
    vec((name(), vec(value(), 0..4)).prop_map(|(atype, vals)| LdapPartialAttribute { atype, vals }), 0..5)
}

pub(crate) fn mods() -> impl Strategy<Value = Vec<LdapModify>> {
    let operation = prop_oneof![
        Just(LdapModifyType::Add),
        Just(LdapModifyType::Delete),
        Just(LdapModifyType::Replace),
        Just(LdapModifyType::Increment)
    ];
    let modification =
        (name(), vec(value(), 0..4)).prop_map(|(atype, vals)| LdapPartialAttribute { atype, vals });
    vec(
        (operation, modification)
            .prop_map(|(operation, modification)| LdapModify { operation, modification }),
        0..5,
    )
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (dn(), attributes()).prop_map(|(dn, attributes)| Operation::Add(LdapAddRequest { dn, attributes })),
        (dn(), mods()).prop_map(|(dn, changes)| Operation::Modify(LdapModifyRequest { dn, changes })),
        (dn(), dn(), any::<bool>(), proptest::option::of(dn()), mods()).prop_map(
            |(dn, newrdn, deleteoldrdn, new_superior, operational)| Operation::ModifyDn {
                request: LdapModifyDNRequest { dn, newrdn, deleteoldrdn, new_superior },
                operational
            }
        ),
        dn().prop_map(|dn| Operation::Delete { dn }),
        (dn(), attributes()).prop_map(|(dn, attributes)| Operation::Put(LdapAddRequest { dn, attributes })),
    ]
}

pub(crate) fn entry_uuid() -> impl Strategy<Value = EntryUuid> {
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(|text| text.parse().unwrap())
}

/// An operation and the parent that its change may have.
pub(crate) fn operation_and_parent() -> impl Strategy<Value = (Operation, Option<EntryUuid>)> {
    (operation(), parent()).prop_map(|(operation, parent)| {
        let parent = parent.filter(|_| !matches!(operation, Operation::Modify(_)));
        (operation, parent)
    })
}

fn parent() -> impl Strategy<Value = Option<EntryUuid>> {
    proptest::option::of(entry_uuid())
}

pub(crate) fn batch() -> impl Strategy<Value = Batch> {
    let changes = vec((entry_uuid(), operation_and_parent()), 1..6);
    (1_u16..=4095, any::<u64>(), 1..=u64::MAX - 6, any::<bool>(), changes).prop_map(
        |(sid, boot, first, begins, changes)| {
            let prev = (!begins).then(|| csn(0, sid));
            let changes = changes.into_iter().zip(1..);
            let changes = changes.map(|((uuid, (operation, parent)), count)| Change {
                csn: csn(count, sid),
                uuid,
                parent,
                operation,
            });
            Batch { origin: server(sid), boot: BootId::new(boot), first, prev, changes: changes.collect() }
        },
    )
}

pub(crate) fn vector() -> impl Strategy<Value = Vector> {
    vec((0_u32..0xff_ffff, 1_u16..=4095), 0..8)
        .prop_map(|csns| csns.into_iter().map(|(count, sid)| csn(count, sid)).collect())
}

pub(crate) fn card() -> impl Strategy<Value = Card> {
    let phase = prop_oneof![
        Just(Phase::Ready),
        Just(Phase::Refreshing),
        Just(Phase::Loading),
        Just(Phase::Busy),
        Just(Phase::Stopping)
    ];
    let live = prop_oneof![Just(Live::Muc), Just(Live::Pubsub)];
    let texts = ("[!-~]{0,60}", dn(), "xmppsync [0-9.]{1,8}[0-9]");
    let progress = (any::<u64>(), any::<u64>()).prop_map(|(done, total)| Progress { done, total });
    let load = (proptest::option::of(entry_uuid()), proptest::option::of(progress));
    (1_u16..=4095, any::<u64>(), any::<u64>(), phase, live, texts, vector(), load).prop_map(
        |(sid, boot, seq, phase, live, (node, suffix, software), vector, (dataset, progress))| Card {
            sid: server(sid),
            boot: BootId::new(boot),
            seq,
            phase,
            live,
            node,
            suffix,
            software,
            vector,
            dataset,
            progress,
        },
    )
}

pub(crate) fn part() -> impl Strategy<Value = Part> {
    (1_u16..=4095, any::<u64>(), 1_u64..1 << 60, 0_u64..1000, 1_u32..=1024, "[!-~]{1,80}").prop_map(
        |(sid, boot, first, span, of, text)| Part {
            origin: server(sid),
            boot: BootId::new(boot),
            first,
            last: first + span,
            n: of - 1,
            of,
            bytes: 10_000,
            change: None,
            text,
        },
    )
}

fn uuids() -> impl Strategy<Value = Vec<EntryUuid>> {
    vec(entry_uuid(), 0..4)
}

fn any_csn() -> impl Strategy<Value = Csn> {
    (0_u32..0xff_ffff, 1_u16..=4095).prop_map(|(count, sid)| csn(count, sid))
}

pub(crate) fn put() -> impl Strategy<Value = Change> {
    (any_csn(), entry_uuid(), parent(), dn(), attributes()).prop_map(|(csn, uuid, parent, dn, attributes)| {
        Change { csn, uuid, parent, operation: Operation::Put(LdapAddRequest { dn, attributes }) }
    })
}

fn csns() -> impl Strategy<Value = Vec<Csn>> {
    vec(any_csn(), 0..6)
}

pub(crate) fn past() -> impl Strategy<Value = Past> {
    let step = (any_csn(), parent(), entry_uuid(), any::<bool>());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let changes = (csns(), csns(), proptest::option::of(any_csn()));
    (entry_uuid(), changes, flags, vec(step, 0..4)).prop_map(
        |(uuid, (changes, waiting, deleted), (has_many, is_refused, in_doubt), moves)| {
            let moved = |(csn, from, to, made)| Move { csn, child: uuid, from, to, made };
            let moves = moves.into_iter().map(moved).collect();
            Past { uuid, changes, has_many, waiting, deleted, is_refused, in_doubt, moves }
        },
    )
}

pub(crate) fn side() -> impl Strategy<Value = Side> {
    (vector(), unseen(), vector())
        .prop_map(|(vector, unseen, floor)| Side { seen: Seen { vector, unseen }, floor })
}

pub(crate) fn entries() -> impl Strategy<Value = Entries> {
    let delete = (any_csn(), entry_uuid(), parent(), dn()).prop_map(|(csn, uuid, parent, dn)| Change {
        csn,
        uuid,
        parent,
        operation: Operation::Delete { dn },
    });
    let change = (any_csn(), entry_uuid(), operation_and_parent())
        .prop_map(|(csn, uuid, (operation, parent))| Change { csn, uuid, parent, operation });
    let states = (vec(put(), 0..3), vec(delete, 0..3), uuids(), uuids(), uuids(), any::<bool>());
    let remembered = (proptest::option::of(side()), vec(past(), 0..3), vec(change, 0..3), csns());
    (states, remembered).prop_map(
        |((puts, deletes, absent, refused, large, more), (side, pasts, changes, forgotten))| Entries {
            puts,
            deletes,
            absent,
            refused,
            large,
            more,
            side,
            pasts,
            changes,
            forgotten,
        },
    )
}

fn unseen() -> impl Strategy<Value = Unseen> {
    let span = (any_csn(), any::<bool>()).prop_map(|(csn, begins)| Span::new((!begins).then_some(csn), csn));
    vec(span, 0..4).prop_map(|spans| spans.into_iter().flatten().collect())
}

pub(crate) fn reconcile() -> impl Strategy<Value = Reconcile> {
    (any::<u64>(), any::<u32>(), vector(), unseen(), vec(any::<u8>(), 0..200)).prop_map(
        |(session, round, vector, unseen, frame)| {
            let round = if round % 2 == 0 { 0 } else { round };
            let (vector, unseen) =
                if round == 0 { (Some(vector), unseen) } else { (None, Unseen::default()) };
            Reconcile { session: Session::new(session), round, vector, unseen, frame }
        },
    )
}

/// What goes before a file.
pub(crate) fn announcement() -> impl Strategy<Value = Payload> {
    let id = || "[A-Za-z0-9-]{1,64}";
    let resume = proptest::option::of((id(), any::<u64>()));
    let snapshot = (id(), any::<u64>(), any::<[u8; 32]>(), any::<u64>(), entry_uuid(), vector(), unseen());
    let large = (any::<u64>(), 1..=u64::MAX, any::<bool>(), any_csn(), 0_u64..1 << 26);
    prop_oneof![
        resume.prop_map(|resume| Payload::LoadRequest(LoadRequest { resume })),
        snapshot.prop_map(|(id, bytes, sha256, entries, dataset, vector, unseen)| {
            Payload::Snapshot(Snapshot { id, bytes, sha256, entries, dataset, vector, unseen })
        }),
        any_csn().prop_map(|csn| Payload::FileRequest(FileRequest::Change(csn))),
        entry_uuid().prop_map(|uuid| Payload::FileRequest(FileRequest::Entry(uuid))),
        (id(), any_csn(), 0_u64..1 << 26, any::<[u8; 32]>())
            .prop_map(|(id, csn, bytes, sha256)| Payload::File(File { id, csn, bytes, sha256 })),
        large.prop_map(|(boot, seq, begins, csn, bytes)| {
            let prev = (!begins).then_some(csn);
            let (origin, boot) = (csn.server_id(), BootId::new(boot));
            Payload::Large(Large { origin, boot, seq, prev, csn, bytes })
        }),
    ]
}

pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    let kind = prop_oneof![
        Just(NoticeKind::Joined),
        Just(NoticeKind::Left),
        Just(NoticeKind::Problem),
        Just(NoticeKind::Gap),
        Just(NoticeKind::Healed)
    ];
    let part_of = proptest::option::of(((0_u32..0xff_ffff, 1_u16..=4095), any::<u32>()));
    prop_oneof![
        4 => batch().prop_map(Payload::Batch),
        1 => part().prop_map(Payload::Part),
        1 => card().prop_map(Payload::Card),
        1 => (vector(), any::<u32>(), part_of).prop_map(|(vector, bytes_max, part)| {
            let part = part.map(|((count, sid), n)| (csn(count, sid), n));
            Payload::Pull(Pull { vector, bytes_max, part })
        }),
        1 => (vec(batch(), 0..3), vector(), any::<bool>()).prop_map(|(batches, beyond, more)| {
            Payload::Page(Page { batches, beyond: beyond.iter().collect(), more })
        }),
        1 => (kind, 1_u16..=4095).prop_map(|(kind, sid)| Payload::Notice(Notice { kind, sid: server(sid) })),
        1 => reconcile().prop_map(Payload::Reconcile),
        1 => (uuids(), csns(), any::<u32>()).prop_map(|(uuids, changes, bytes_max)| {
            Payload::Fetch(Fetch { uuids, changes, bytes_max })
        }),
        1 => uuids().prop_map(|uuids| Payload::Offer(Offer { uuids })),
        2 => entries().prop_map(Payload::Entries),
        2 => announcement(),
    ]
}
