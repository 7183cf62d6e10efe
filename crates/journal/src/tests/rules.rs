//! The index by entry, and what the rules remember.

use super::{KEEP, new};
use crate::limits::{CONFLICTS_MAX, ORPHANS_MAX, TRIM_STEP_MAX};
use crate::state::{KEY_FORMAT, put_number};
use crate::store::{CHANGES, CHANGES_BY_ENTRY, MARKS, STATE, TOMBSTONES_BY_TIME};
use crate::testing::{START, SUFFIX, any_lost, csn, modify, uuid};
use crate::{Journal, Opened, Record, Retention};
use proptest::prelude::*;
use redb::ReadableTableMetadata;
use std::collections::BTreeMap;
use std::sync::Arc;
use xmppsync_replica::{BootId, Change, Csn, EntryUuid, Lost, Move, Place, ServerId};

/// One time for everything that is old at [`LATE`].
const AGE: Retention = Retention { age_seconds: 100, bytes_max: u64::MAX };
const LATE: u64 = START + 200;

fn change(csn: Csn, entry: u64) -> Record {
    let parent = entry.is_multiple_of(2).then(|| uuid(entry / 2));
    let change = Change { uuid: uuid(entry), parent, ..modify(csn) };
    Record::Change { boot: BootId::new(1), seq: 1, change: Arc::new(change) }
}

fn place(name: u64) -> Place {
    Place { parent: uuid(name), rdn: format!("cn={name}") }
}

fn movement(csn: Csn, child: u64) -> Move {
    Move {
        csn,
        child: uuid(child),
        from: (child > 1).then(|| uuid(child - 1)),
        to: uuid(9),
        made: child.is_multiple_of(2),
    }
}

fn lost(csn: Csn, attribute: &str) -> Lost {
    Lost { csn, uuid: uuid(1), against: csn, attribute: attribute.to_owned(), values: vec![b"x".to_vec()] }
}

/// The later changes, read.
fn later(journal: &Journal, entry: u64, after: Csn) -> Vec<Change> {
    let found = journal.later(uuid(entry), Some(after), |_| false).unwrap();
    found.into_iter().filter_map(|(_, change)| change).collect()
}

/// That the index has each change, and nothing else.
pub(super) fn assert_indexed(journal: &Journal, entries: impl Iterator<Item = u64>) {
    let begin = csn(0, 1).as_str().replace("2026", "0000").parse().unwrap();
    let rows = |journal: &Journal| {
        journal
            .read(|transaction| {
                let rows = transaction.open_table(CHANGES)?.len()?;
                Ok((rows, transaction.open_table(CHANGES_BY_ENTRY)?.len()?))
            })
            .unwrap()
    };
    let (changes, indexed) = rows(journal);
    assert_eq!(changes, indexed);
    let mut found = 0;
    for entry in entries {
        let later = later(journal, entry, begin);
        assert!(later.is_sorted_by(|a, b| a.csn < b.csn));
        for change in later {
            assert_eq!(change.uuid, uuid(entry));
            assert_eq!(journal.change(change.csn).unwrap(), Some(change));
            found += 1;
        }
    }
    assert_eq!(found, changes);
}

#[derive(Clone, Debug)]
enum Step {
    Change(u64, u16, u64),
    Floor(u64, u16),
    Trim(u64),
    Size(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..40_u64, 1..4_u16, 0..4_u64).prop_map(|(tick, server, entry)| Step::Change(tick * 100, server, entry)),
        1 => (0..30_u64, 1..4_u16).prop_map(|(tick, server)| Step::Floor(tick * 100, server)),
        1 => (0..40_u64).prop_map(Step::Trim),
        1 => (0..4_000_u64).prop_map(Step::Size),
    ]
}

#[derive(Clone, Debug)]
enum Life {
    Put(u64),
    Is(u64),
    Gone(u64),
    Place(u64),
    Forget,
    Trim,
}

fn any_life() -> impl Strategy<Value = Life> {
    prop_oneof![
        (0..50_u64).prop_map(Life::Put),
        (0..50_u64).prop_map(Life::Is),
        (0..50_u64).prop_map(Life::Gone),
        (0..50_u64).prop_map(Life::Place),
        Just(Life::Forget),
        Just(Life::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_index_has_what_the_journal_has_whatever_is_written_and_trimmed(
        steps in prop::collection::vec(any_step(), 1..60), entry in 0..4_u64, after in (0..40_u64, 1..4_u16),
    ) {
        let (dir, mut journal) = new();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Change(tick, server, entry) => {
                    let csn = csn(tick, server);
                    journal.write(&[change(csn, entry)]).unwrap();
                    if journal.floor().get(csn.server_id()) < Some(csn) {
                        model.insert(csn, entry);
                    }
                }
                Step::Floor(tick, server) => journal.write(&[Record::Floor(csn(tick, server))]).unwrap(),
                Step::Trim(second) => drop(journal.trim(START + 100 + second, AGE, &[]).unwrap()),
                Step::Size(bytes_max) => drop(journal.trim(START, Retention { bytes_max, ..KEEP }, &[]).unwrap()),
            }
            model.retain(|csn, _| journal.change(*csn).unwrap().is_some());
            assert_indexed(&journal, 0..4);
        }
        let after = csn(after.0 * 100, after.1);
        let expected: Vec<Csn> =
            model.iter().filter(|(csn, of)| **csn > after && **of == entry).map(|(csn, _)| *csn).collect();
        drop(journal);
        let (journal, _) = Journal::open(dir.path(), SUFFIX).unwrap();
        let later = later(&journal, entry, after);
        prop_assert_eq!(later.iter().map(|change| change.csn).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_place_lives_as_its_tombstone_does_and_none_stays_for_ever(
        lives in prop::collection::vec((0..3_u64, any_life()), 1..80),
    ) {
        let (_dir, mut journal) = new();
        let mut now = 1_000;
        let mut places = BTreeMap::new();
        for (entry, life) in lives {
            let (uuid, before) = (uuid(entry), journal.tombstone(uuid(entry)).unwrap());
            match life {
                Life::Put(tick) => journal.write(&[Record::Put { uuid, csn: csn(tick, 1) }]).unwrap(),
                Life::Is(tick) => journal.write(&[Record::Is { uuid, csn: csn(tick, 1) }]).unwrap(),
                Life::Gone(tick) => journal.write(&[Record::Gone { uuid, csn: csn(tick, 1), at: now }]).unwrap(),
                Life::Place(name) => {
                    journal.write(&[Record::Place { uuid, place: place(name) }]).unwrap();
                    places.insert(entry, place(name));
                }
                Life::Forget => journal.write(&[Record::Forget { uuid }]).unwrap(),
                Life::Trim => {
                    let had: Vec<u64> = places.keys().copied().collect();
                    let had_tombstone = |entry: &u64| journal.tombstone(super::uuid(*entry)).unwrap().is_some();
                    let (with, without): (Vec<u64>, Vec<u64>) = had.into_iter().partition(had_tombstone);
                    journal.trim(now, AGE, &[]).unwrap();
                    let gone = |entry: &u64| journal.tombstone(super::uuid(*entry)).unwrap().is_none();
                    with.iter().filter(|entry| gone(entry)).for_each(|entry| drop(places.remove(entry)));
                    // Without a tombstone it goes some time after the age.
                    let ended = |entry: &u64| journal.place(super::uuid(*entry)).unwrap().is_none();
                    without.iter().filter(|entry| ended(entry)).for_each(|entry| drop(places.remove(entry)));
                }
            }
            if before.is_some() && journal.tombstone(uuid).unwrap().is_none() {
                places.remove(&entry);
            }
            now += 10;
            for entry in 0..3 {
                prop_assert_eq!(journal.place(super::uuid(entry)).unwrap(), places.get(&entry).cloned());
            }
        }
        journal.trim(now, AGE, &[]).unwrap();
        journal.trim(now + 101, AGE, &[]).unwrap();
        let left = journal.read(|transaction| {
            Ok((transaction.open_table(MARKS)?.len()?, transaction.open_table(TOMBSTONES_BY_TIME)?.len()?))
        });
        prop_assert_eq!(left.unwrap(), (0, 0));
    }

    #[test]
    fn losses_come_back_as_they_were_written(
        losses in prop::collection::vec((any_lost((0..9_u64, 1..3_u16).prop_map(|(tick, server)| csn(tick, server))), any::<u64>()), 0..9),
    ) {
        let (_dir, mut journal) = new();
        let records = losses.iter().map(|(lost, at)| Record::Lost { lost: lost.clone(), at: *at });
        journal.write(&records.collect::<Vec<_>>()).unwrap();
        let model: BTreeMap<_, _> =
            losses.into_iter().map(|loss| ((loss.0.csn, loss.0.attribute.clone()), loss)).collect();
        prop_assert_eq!(journal.lost().unwrap(), model.into_values().collect::<Vec<_>>());
    }
}

#[test]
fn later_changes_are_given_beyond_a_hole_and_of_every_origin() {
    let (_dir, mut journal) = new();
    journal.write(&[change(csn(1, 1), 1), change(csn(3, 2), 1), Record::Head(csn(1, 1))]).unwrap();
    journal.write(&[change(csn(2, 3), 1), change(csn(2, 1), 2)]).unwrap();
    let csns = |entry, after| -> Vec<Csn> {
        later(&journal, entry, after).iter().map(|change| change.csn).collect()
    };
    assert_eq!(csns(1, csn(1, 1)), [csn(2, 3), csn(3, 2)]);
    assert_eq!(csns(1, csn(3, 2)), []);
    assert_eq!(csns(2, csn(1, 1)), [csn(2, 1)]);
    assert_eq!(later(&journal, 2, csn(1, 1))[0].parent, Some(uuid(1)));
    // What is known is named, and not read.
    let named = journal.later(uuid(1), Some(csn(1, 1)), |known| known == csn(2, 3)).unwrap();
    let read: Vec<_> = named.iter().map(|(csn, change)| (*csn, change.is_some())).collect();
    assert_eq!(read, [(csn(2, 3), false), (csn(3, 2), true)]);
}

#[test]
fn what_the_rules_remember_survives_reopening_and_the_last_word_counts() {
    let (dir, mut journal) = new();
    let moves = [movement(csn(1, 2), 4), movement(csn(2, 1), 1), movement(csn(2, 2), 3)];
    let refused = Move { made: false, ..moves[0] };
    journal
        .write(&[
            Record::Move(moves[2]),
            Record::Move(refused),
            Record::Move(moves[1]),
            Record::Move(moves[0]),
            Record::Lost { lost: lost(csn(5, 1), "mail"), at: 4 },
            Record::Lost { lost: lost(csn(5, 1), "cn"), at: 5 },
            Record::Lost { lost: lost(csn(5, 1), "mail"), at: 6 },
            Record::Displaced { uuid: uuid(3), place: place(1) },
            Record::Displaced { uuid: uuid(2), place: place(2) },
            Record::Displaced { uuid: uuid(2), place: place(3) },
            Record::Displaced { uuid: uuid(1), place: place(4) },
            Record::Named(uuid(1)),
            Record::Named(uuid(8)),
            Record::Glue(uuid(3)),
            Record::Glue(uuid(2)),
            Record::NoGlue(uuid(3)),
            Record::Doubt(uuid(4)),
            Record::Doubt(uuid(2)),
            Record::Certain(uuid(4)),
            Record::Certain(uuid(8)),
            Record::Ahead { csn: csn(3, 1), uuid: uuid(1) },
            Record::Ahead { csn: csn(2, 1), uuid: uuid(2) },
            Record::Ahead { csn: csn(3, 2), uuid: uuid(3) },
            Record::InTurn(csn(3, 1)),
            Record::InTurn(csn(9, 1)),
            Record::Orphan(uuid(3)),
            Record::Orphan(uuid(5)),
            Record::Adopted(uuid(3)),
            Record::Place { uuid: uuid(2), place: place(7) },
        ])
        .unwrap();
    drop(journal);
    let (journal, _) = Journal::open(dir.path(), SUFFIX).unwrap();
    assert_eq!(journal.moves().unwrap(), moves);
    assert_eq!(journal.lost().unwrap(), [(lost(csn(5, 1), "cn"), 5), (lost(csn(5, 1), "mail"), 6)]);
    assert_eq!(journal.displaced().unwrap(), [(uuid(2), place(3)), (uuid(3), place(1))]);
    assert_eq!(journal.glue().unwrap(), [uuid(2)]);
    assert_eq!(journal.doubts().unwrap(), [uuid(2)]);
    assert_eq!(journal.ahead().unwrap(), [(csn(2, 1), uuid(2)), (csn(3, 2), uuid(3))]);
    assert_eq!(journal.orphans().unwrap(), [uuid(5)]);
    assert_eq!((journal.place(uuid(2)).unwrap(), journal.place(uuid(3)).unwrap()), (Some(place(7)), None));
}

#[test]
fn a_place_that_comes_before_its_tombstone_stays_with_it() {
    let (_dir, mut journal) = new();
    let at = LATE;
    journal.write(&[Record::Place { uuid: uuid(1), place: place(1) }]).unwrap();
    assert_eq!(journal.trim(at, AGE, &[]).unwrap().tombstones, 0);
    journal.write(&[Record::Gone { uuid: uuid(1), csn: csn(1, 1), at: at + 50 }]).unwrap();
    journal.trim(at + 101, AGE, &[]).unwrap();
    assert_eq!(journal.place(uuid(1)).unwrap(), Some(place(1)));
    journal.trim(at + 151, AGE, &[]).unwrap();
    assert_eq!((journal.place(uuid(1)).unwrap(), journal.tombstone(uuid(1)).unwrap()), (None, None));
}

#[test]
fn old_moves_and_losses_go_and_marks_stay() {
    let (_dir, mut journal) = new();
    // One second for each: those of the first 100 seconds are old.
    let tick = |second: u64| csn(second * 100, 1);
    let mut records: Vec<Record> = (0..150).map(|second| Record::Move(movement(tick(second), 1))).collect();
    records
        .extend((0..150).map(|second| Record::Lost { lost: lost(tick(second), "cn"), at: START + second }));
    // Late, about an old change.
    records.push(Record::Lost { lost: lost(tick(7), "sn"), at: START + 120 });
    records.extend([Record::Glue(uuid(1)), Record::Orphan(uuid(1))]);
    records.push(Record::Displaced { uuid: uuid(1), place: place(1) });
    journal.write(&records).unwrap();
    let trimmed = journal.trim(LATE, AGE, &[]).unwrap();
    assert_eq!((trimmed.dropped, trimmed.tombstones, trimmed.more), (0, 0, false));
    assert_eq!(trimmed.moves, Some(tick(99)));
    assert_eq!((journal.moves().unwrap().len(), journal.moves().unwrap()[0].csn), (50, tick(100)));
    assert_eq!((journal.lost().unwrap().len(), &journal.lost().unwrap()[0].0), (51, &lost(tick(7), "sn")));
    assert_eq!((journal.glue().unwrap().len(), journal.orphans().unwrap().len()), (1, 1));
    assert_eq!(journal.displaced().unwrap().len(), 1);
}

#[test]
fn many_old_moves_go_in_steps() {
    let (_dir, mut journal) = new();
    let moves = |server| {
        (0..TRIM_STEP_MAX as u64 / 2 + 1).map(move |tick| Record::Move(movement(csn(tick, server), 1)))
    };
    journal.write(&moves(1).chain(moves(2)).collect::<Vec<_>>()).unwrap();
    assert!(journal.trim(LATE + 1_000, AGE, &[]).unwrap().more);
    assert_eq!(journal.moves().unwrap().len(), 2);
    assert!(!journal.trim(LATE + 1_000, AGE, &[]).unwrap().more);
    assert_eq!(journal.moves().unwrap(), []);
}

#[test]
fn the_latest_losses_and_the_first_orphans_are_kept() {
    let (_dir, mut journal) = new();
    let losses = (0..=CONFLICTS_MAX).map(|tick| Record::Lost { lost: lost(csn(tick, 1), "cn"), at: tick });
    journal.write(&losses.collect::<Vec<_>>()).unwrap();
    let kept = journal.lost().unwrap();
    assert_eq!((kept.len() as u64, kept[0].0.csn), (CONFLICTS_MAX, csn(1, 1)));
    journal.write(&(0..=ORPHANS_MAX).map(|entry| Record::Orphan(uuid(entry))).collect::<Vec<_>>()).unwrap();
    let kept = journal.orphans().unwrap();
    assert_eq!((kept.len() as u64, kept.last()), (ORPHANS_MAX, Some(&uuid(ORPHANS_MAX - 1))));
    journal.write(&[Record::Adopted(uuid(0)), Record::Orphan(uuid(ORPHANS_MAX))]).unwrap();
    assert_eq!(journal.orphans().unwrap().last(), Some(&uuid(ORPHANS_MAX)));
}

#[test]
fn a_file_of_the_format_before_is_of_no_use() {
    let (dir, mut journal) = new();
    journal
        .write_with(|_, transaction| put_number(&mut transaction.open_table(STATE)?, KEY_FORMAT, 1))
        .unwrap();
    journal.close(b"x").unwrap();
    let (journal, opened) = Journal::open(dir.path(), SUFFIX).unwrap();
    assert!(matches!(opened, Opened::Replaced { why, .. } if why.contains("its format is 1, not 2")));
    assert_eq!(journal.head().get(ServerId::new(1).unwrap()), None);
    assert_eq!(journal.orphans().unwrap(), Vec::<EntryUuid>::new());
}
