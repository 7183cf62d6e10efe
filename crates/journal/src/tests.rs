//! The journal against a naive model, and on a disk that crashes.

mod rules;

use crate::error::JournalError;
use crate::open::{Unopened, open_backend};
use crate::testing::{Disk, START, SUFFIX, csn, modify, record, uuid};
use crate::{Journal, Opened, Peer, Record, Retention, SetAside};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use xmppsync_replica::{BootId, Change, Csn, Operation, Place, ServerId, Span, Unseen, Vector};

const KEEP: Retention = Retention { age_seconds: 1 << 40, bytes_max: u64::MAX };

fn new() -> (TempDir, Journal) {
    let dir = TempDir::new().unwrap();
    let (journal, opened) = Journal::open(dir.path(), SUFFIX).unwrap();
    assert_eq!(opened, Opened::New);
    (dir, journal)
}

fn on_disk(disk: &Disk) -> (Journal, Opened) {
    match open_backend(Path::new("disk"), SUFFIX, disk.clone()) {
        Ok(found) => (Journal::new("disk".into(), found.database, found.state), found.opened),
        Err(Unopened::Unusable(why)) => panic!("{why}"),
        Err(Unopened::Hopeless(error)) => panic!("{error}"),
    }
}

/// All that somebody at `after` gets, page by page.
fn all(journal: &Journal, after: &Vector, bytes_max: usize) -> Vec<Csn> {
    let (mut after, mut csns) = (after.clone(), Vec::new());
    loop {
        let page = journal.changes(&after, bytes_max).unwrap();
        for run in page.runs {
            assert_eq!(run.prev, after.get(run.batch.origin));
            assert!(run.batch.changes.iter().all(|change| change.csn.server_id() == run.batch.origin));
            for change in run.batch.changes {
                after.advance(change.csn);
                csns.push(change.csn);
            }
        }
        if !page.more {
            return csns;
        }
    }
}

/// Changes of one server, all known.
fn fill(journal: &mut Journal, server: u16, ticks: std::ops::RangeInclusive<u64>) {
    let mut records: Vec<Record> = ticks.clone().map(|tick| record(csn(tick, server), 1, tick)).collect();
    records.push(Record::Head(csn(*ticks.end(), server)));
    journal.write(&records).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn pages_hold_what_a_naive_model_says(
        changes in prop::collection::btree_set((0..200_u64, 1..4_u16), 1..60),
        heads in prop::collection::vec(0..200_u64, 3),
        floors in prop::collection::vec(0..80_u64, 3),
        after in prop::collection::vec(0..200_u64, 3),
        bytes_max in 0..2_000_usize,
    ) {
        let (_dir, mut journal) = new();
        let mut records: Vec<Record> = changes.iter().map(|(tick, server)| record(csn(*tick, *server), 1, *tick)).collect();
        let place = |ticks: &[u64], server: u16| ticks[usize::from(server) - 1];
        for server in 1..4 {
            records.push(Record::Floor(csn(place(&floors, server), server)));
            records.push(Record::Head(csn(place(&heads, server), server)));
        }
        journal.write(&records).unwrap();
        let asker: Vector = (1..4).map(|server| csn(place(&after, server), server)).collect();
        let beyond = journal.changes(&asker, bytes_max).unwrap().beyond;
        let below = |server: &u16| place(&after, *server) < place(&floors, *server);
        let expected: Vec<Csn> = (1..4).filter(below).map(|server| csn(place(&floors, server), server)).collect();
        prop_assert_eq!(beyond, expected);
        let expected: Vec<Csn> = changes.iter()
            .filter(|(tick, server)| !below(server) && *tick > place(&after, *server))
            .filter(|(tick, server)| *tick <= place(&heads, *server).max(place(&floors, *server)))
            .map(|(tick, server)| csn(*tick, *server)).collect();
        prop_assert_eq!(all(&journal, &asker, bytes_max), expected);
    }

    #[test]
    fn a_crash_at_any_write_loses_nothing_acknowledged_and_tears_nothing(
        budget in 0..160_usize, kept in prop::collection::vec(any::<bool>(), 1..50),
    ) {
        let disk = Disk::default();
        let (mut journal, _) = on_disk(&disk);
        disk.fail_after(budget);
        let mut acknowledged = 0;
        for group in 0..20_u64 {
            let ticks = group * 3 + 1..=group * 3 + 3;
            let mut records: Vec<Record> = ticks.clone().map(|tick| record(csn(tick, 1), 1, tick)).collect();
            records.extend(ticks.clone().map(|tick| Record::Put { uuid: uuid(tick), csn: csn(tick, 1) }));
            records.push(Record::Head(csn(*ticks.end(), 1)));
            match journal.write(&records) {
                Ok(()) => acknowledged = *ticks.end(),
                Err(JournalError::Failed(first)) => {
                    let again = journal.changes(&Vector::default(), 1).unwrap_err();
                    prop_assert!(matches!(again, JournalError::Poisoned(cause) if cause == first));
                    prop_assert!(matches!(journal.write(&[]), Err(JournalError::Poisoned(_))));
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        let mut kept = kept.into_iter().cycle();
        let image = disk.after_crash(|| kept.next().unwrap_or(false));
        drop(journal);
        let (journal, opened) = on_disk(&Disk::of(image));
        prop_assert_eq!(opened, Opened::Existing { clean: None, loading: None });
        let there = all(&journal, &Vector::default(), usize::MAX);
        let last = there.len() as u64;
        prop_assert!(last == acknowledged || last == acknowledged + 3, "{last} after {acknowledged}");
        let expected: Vec<Csn> = (1..=last).map(|tick| csn(tick, 1)).collect();
        prop_assert_eq!(there, expected);
        prop_assert_eq!(journal.inventory_len().unwrap(), last);
        // All of these changes are of one entry.
        rules::assert_indexed(&journal, 1..=1);
        prop_assert_eq!(journal.head().get(ServerId::new(1).unwrap()), (last > 0).then(|| csn(last, 1)));
    }
}

#[test]
fn the_marker_of_a_clean_close_is_given_once() {
    let (dir, mut journal) = new();
    journal.write(&[Record::Loading(Some(b"half".to_vec()))]).unwrap();
    journal.close(b"print").unwrap();
    let reopen = || Journal::open(dir.path(), SUFFIX).unwrap();
    let loading = Some(b"half".to_vec());
    let (journal, opened) = reopen();
    assert_eq!(opened, Opened::Existing { clean: Some(b"print".to_vec()), loading: loading.clone() });
    drop(journal);
    let (mut journal, opened) = reopen();
    assert_eq!(opened, Opened::Existing { clean: None, loading });
    journal.write(&[Record::Loading(None)]).unwrap();
    journal.close(b"").unwrap();
    assert_eq!(reopen().1, Opened::Existing { clean: Some(Vec::new()), loading: None });
}

#[test]
fn everything_survives_reopening() {
    let (dir, mut journal) = new();
    fill(&mut journal, 1, 1..=9);
    let peer = Peer {
        jid: "ldap2@example.org".to_owned(),
        server: ServerId::new(2).unwrap(),
        vector: [csn(4, 1), csn(2, 2)].into_iter().collect(),
        seen: 7,
    };
    let set_aside = SetAside { csn: csn(3, 2), uuid: uuid(3), reason: "no such object".to_owned() };
    let cleared = SetAside { csn: csn(4, 2), ..set_aside.clone() };
    journal
        .write(&[
            Record::Peer(peer.clone()),
            Record::Peer(Peer { jid: "old@example.org".to_owned(), ..peer.clone() }),
            Record::PeerRemoved("old@example.org".to_owned()),
            Record::SetAside(set_aside.clone()),
            Record::SetAside(cleared.clone()),
            Record::ClearedAside(cleared.csn),
            Record::Put { uuid: uuid(1), csn: csn(1, 1) },
            Record::Gone { uuid: uuid(2), csn: csn(2, 1), at: 5 },
            Record::Unseen {
                unseen: [(None, 1), (Some(2), 3), (Some(5), 6)]
                    .map(|(after, until)| Span::new(after.map(|tick| csn(tick, 2)), csn(until, 2)).unwrap())
                    .into_iter()
                    .collect(),
                at: 3,
            },
            Record::Floor(csn(2, 1)),
        ])
        .unwrap();
    let state = journal.state.clone();
    drop(journal);
    let (journal, _) = Journal::open(dir.path(), SUFFIX).unwrap();
    assert_eq!(journal.state, state);
    assert_eq!(journal.peers().unwrap(), [peer]);
    assert_eq!(journal.set_asides().unwrap(), [set_aside]);
    assert_eq!(journal.inventory_get(uuid(1)).unwrap(), Some(csn(1, 1)));
    assert_eq!(journal.tombstone(uuid(2)).unwrap(), Some((csn(2, 1), 5)));
    assert_eq!([2, 3].map(|tick| journal.unseen().contains(csn(tick, 2))), [false, true]);
    let mut inventory = Vec::new();
    journal.inventory_for_each(|uuid, csn| inventory.push((uuid, csn))).unwrap();
    assert_eq!(inventory, [(uuid(1), csn(1, 1))]);
}

#[test]
fn the_inventory_never_goes_back_and_a_deleted_entry_does_not_return() {
    let (_dir, mut journal) = new();
    let put = |csn| Record::Put { uuid: uuid(1), csn };
    let gone = |csn| Record::Gone { uuid: uuid(1), csn, at: 1 };
    let cases = [
        (put(csn(5, 1)), Some(csn(5, 1)), None),
        (put(csn(4, 1)), Some(csn(5, 1)), None),
        (gone(csn(4, 1)), Some(csn(5, 1)), None),
        (gone(csn(6, 1)), None, Some((csn(6, 1), 1))),
        (put(csn(6, 1)), None, Some((csn(6, 1), 1))),
        (gone(csn(2, 1)), None, Some((csn(6, 1), 1))),
        (put(csn(7, 1)), Some(csn(7, 1)), None),
    ];
    for (record, entry, tombstone) in cases {
        journal.write(std::slice::from_ref(&record)).unwrap();
        assert_eq!(journal.inventory_get(uuid(1)).unwrap(), entry, "{record:?}");
        assert_eq!(journal.tombstone(uuid(1)).unwrap(), tombstone, "{record:?}");
    }
}

#[test]
fn the_same_change_twice_is_one_and_one_below_the_floor_is_none() {
    let (_dir, mut journal) = new();
    fill(&mut journal, 1, 1..=3);
    let bytes = journal.bytes();
    fill(&mut journal, 1, 1..=3);
    assert_eq!(journal.bytes(), bytes);
    journal.write(&[Record::Floor(csn(5, 1)), record(csn(4, 1), 1, 4)]).unwrap();
    assert_eq!(journal.bytes(), bytes);
    assert_eq!(journal.head().get(ServerId::new(1).unwrap()), Some(csn(5, 1)));
    let trimmed = journal.trim(START, KEEP, &[]).unwrap();
    assert_eq!((trimmed.dropped, journal.bytes()), (3, 0));
}

#[test]
fn one_change_is_given_however_large() {
    let (_dir, mut journal) = new();
    fill(&mut journal, 1, 1..=3);
    let page = journal.changes(&Vector::default(), 0).unwrap();
    assert_eq!((page.runs.len(), page.runs[0].batch.changes.len(), page.more), (1, 1, true));
}

#[test]
fn a_change_that_is_too_large_is_refused_and_the_journal_goes_on() {
    let (_dir, mut journal) = new();
    let dn = "x".repeat(crate::limits::CHANGE_BYTES_MAX);
    let change = Arc::new(Change { operation: Operation::Delete { dn }, ..modify(csn(2, 1)) });
    let large = Record::Change { boot: BootId::new(1), seq: 2, change };
    let error = journal.write(&[record(csn(1, 1), 1, 1), large]).unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error}");
    assert_eq!(journal.bytes(), 0);
    fill(&mut journal, 1, 1..=1);
}

#[test]
fn old_changes_go_unless_a_peer_lacks_them() {
    let (_dir, mut journal) = new();
    fill(&mut journal, 1, 0..=999);
    fill(&mut journal, 2, 0..=999);
    let limits = Retention { age_seconds: 100, bytes_max: u64::MAX };
    // Five seconds of changes are old; the peer lacks those of server 1 from the second second on.
    let peer: Vector = [csn(199, 1), csn(999, 2)].into_iter().collect();
    let trimmed = journal.trim(START + 105, limits, std::slice::from_ref(&peer)).unwrap();
    assert_eq!((trimmed.dropped, trimmed.forced, trimmed.more), (700, None, false));
    assert_eq!(*journal.floor(), [csn(199, 1), csn(499, 2)].into_iter().collect());
    assert_eq!(all(&journal, &peer, usize::MAX).len(), 800);
    assert_eq!(journal.trim(START + 105, limits, &[]).unwrap().dropped, 300);
    assert_eq!(journal.changes(&peer, 1).unwrap().beyond, [csn(499, 1)]);
}

#[test]
fn the_size_forces_the_oldest_out_and_says_who_lacked_them() {
    let (_dir, mut journal) = new();
    fill(&mut journal, 1, 1..=100);
    fill(&mut journal, 2, 51..=150);
    let limits = Retention { age_seconds: 1 << 40, bytes_max: journal.bytes() / 2 };
    let peers =
        [[csn(100, 1), csn(150, 2)], [csn(10, 1), csn(150, 2)]].map(|csns| csns.into_iter().collect());
    let trimmed = journal.trim(START, limits, &peers).unwrap();
    let forced = trimmed.forced.unwrap();
    assert_eq!((trimmed.dropped, forced.changes, forced.last), (100, 100, csn(75, 2)));
    assert_eq!(forced.lacking, BTreeSet::from([1]));
    assert_eq!(*journal.floor(), [csn(75, 1), csn(75, 2)].into_iter().collect());
    assert_eq!(journal.bytes(), limits.bytes_max);
}

#[test]
fn changes_behind_a_hole_are_kept_and_not_given_until_the_head_comes() {
    let (_dir, mut journal) = new();
    fill(&mut journal, 1, 1..=2);
    journal.write(&[record(csn(5, 1), 1, 5)]).unwrap();
    assert_eq!(all(&journal, &Vector::default(), usize::MAX), [csn(1, 1), csn(2, 1)]);
    fill(&mut journal, 1, 3..=5);
    assert_eq!(all(&journal, &Vector::default(), usize::MAX).len(), 5);
}

#[test]
fn old_tombstones_go_and_what_was_unseen_as_long_ago_is_seen() {
    let (dir, mut journal) = new();
    let gone = |n: u64| Record::Gone { uuid: uuid(n), csn: csn(n, 1), at: n };
    let unseen: Unseen = [Span::new(None, csn(3, 2)).unwrap()].into_iter().collect();
    let noted = Record::Unseen { unseen: unseen.clone(), at: 6 };
    journal.write(&(1..=9).map(gone).chain([noted]).collect::<Vec<_>>()).unwrap();
    let trimmed = journal.trim(105, Retention { age_seconds: 100, ..KEEP }, &[]).unwrap();
    assert_eq!((trimmed.tombstones, journal.unseen()), (4, &unseen));
    assert_eq!(journal.tombstone(uuid(4)).unwrap(), None);
    assert_eq!(journal.tombstone(uuid(5)).unwrap(), Some((csn(5, 1), 5)));
    journal.trim(107, Retention { age_seconds: 100, ..KEEP }, &[]).unwrap();
    assert_eq!(*journal.unseen(), Unseen::default());
    let state = journal.state.clone();
    drop(journal);
    assert_eq!(Journal::open(dir.path(), SUFFIX).unwrap().0.state, state);
}

#[test]
fn what_is_known_of_deletes_is_told_of_all_at_once_in_the_order_asked() {
    let (_dir, mut journal) = new();
    let place = Place { parent: uuid(9), rdn: "uid=gone".to_owned() };
    let gone = |number| Record::Gone { uuid: uuid(number), csn: csn(number, 2), at: 5 };
    let at = |number| Record::Place { uuid: uuid(number), place: place.clone() };
    journal.write(&[gone(1), at(1), gone(2), at(3)]).unwrap();
    let known = journal.deleted(&[uuid(3), uuid(4), uuid(2), uuid(1)]).unwrap();
    let [first, second] = [1, 2].map(|number| Some(csn(number, 2)));
    assert_eq!(known, [(None, Some(place.clone())), (None, None), (second, None), (first, Some(place))]);
}
