//! How many transactions changes take, and what becomes of those that fail, with a database that does as it is told.

use super::*;
use crate::clock::LocalClock;
use crate::host::{ContextCsnWrite, DumpEnd, Reader};
use crate::reads::{self, Moment, Read};
use crate::store::{Store, StoreConfig};
use crate::testing::Nothing;
use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use xmppsync_journal::{Journal, Retention};
use xmppsync_replica::{Csn, EntryUuid, Operation, ServerId, Vector};

/// Takes all changes but those that `answer` has another outcome for.
struct Fake<A> {
    atomic: bool,
    answer: A,
    begun: usize,
    aborted: usize,
    /// Entries that are not there.
    missing: BTreeSet<u64>,
    /// Numbers of the changes of this transaction, and what is committed: those of each, and its vector.
    open: Vec<u64>,
    context_csn: Vector,
    committed: Vec<(Vec<u64>, Vector)>,
    on_commit: Box<dyn FnMut()>,
}

fn fake<A: FnMut(u64) -> Outcome>(answer: A) -> Fake<A> {
    let (open, context_csn, committed) = (Vec::new(), Vector::default(), Vec::new());
    Fake {
        atomic: true,
        answer,
        begun: 0,
        aborted: 0,
        missing: BTreeSet::new(),
        open,
        context_csn,
        committed,
        on_commit: Box::new(|| {}),
    }
}

impl<A> Fake<A> {
    fn numbers(&self) -> Vec<u64> {
        self.committed.iter().flat_map(|(numbers, _)| numbers.iter().copied()).collect()
    }
}

impl<A: FnMut(u64) -> Outcome> Transaction for Fake<A> {
    fn begin(&mut self) -> Result<bool, Failure> {
        self.begun += 1;
        self.open.clear();
        Ok(self.atomic)
    }
    fn set_exclusive(&mut self, _: bool) {}
    fn apply_state(&mut self, state: &Change) -> Outcome {
        self.apply(state)
    }
    fn add_new(&mut self, entry: &Change) -> Outcome {
        self.apply(entry)
    }
    fn apply(&mut self, change: &Change) -> Outcome {
        let number = number(change);
        if matches!(change.operation, Operation::Add(_)) {
            self.missing.remove(&number);
        } else if self.missing.contains(&number) {
            return Outcome::Refused(failure(32));
        }
        let outcome = (self.answer)(number);
        if outcome == Outcome::Applied {
            self.open.push(number);
        }
        outcome
    }
    fn apply_merged(&mut self, change: &Change, _: bool) -> Outcome {
        self.apply(change)
    }
    fn write(&mut self, change: &Change) -> Outcome {
        self.apply(change)
    }
    fn read_entry(&mut self, uuid: &EntryUuid) -> Result<Option<Change>, Failure> {
        let number = u128::from_be_bytes(*uuid.as_bytes()) as u64;
        let entry = Change { csn: csn(0), ..Change::clone(&add(number)) };
        Ok((!self.missing.contains(&number)).then_some(entry))
    }
    fn find(&mut self, _: &str) -> Option<EntryUuid> {
        None
    }
    fn has_children(&mut self, _: &str) -> Result<bool, Failure> {
        Ok(false)
    }
    fn schema_problem(&mut self, _: &str) -> Option<String> {
        None
    }
    fn is_single(&mut self, _: &str) -> bool {
        false
    }
    fn is_of_clients(&mut self, _: &str) -> bool {
        true
    }
    fn normalize(&mut self, _: &str, value: &[u8]) -> Vec<u8> {
        value.to_vec()
    }
    fn write_context_csn(&mut self, vector: &Vector) -> ContextCsnWrite {
        self.context_csn = vector.clone();
        ContextCsnWrite::Written
    }
    fn commit(&mut self) -> Result<(), Failure> {
        (self.on_commit)();
        self.committed.push((std::mem::take(&mut self.open), self.context_csn.clone()));
        Ok(())
    }
    fn abort(&mut self) {
        self.aborted += 1;
        self.open.clear();
    }
    fn must_yield(&self) -> bool {
        false
    }
}

fn number(change: &Change) -> u64 {
    u128::from_be_bytes(*change.uuid.as_bytes()) as u64
}

fn csn(number: u64) -> Csn {
    format!("20261122230000.{number:06}Z#000000#001#000000").parse().unwrap()
}

fn change(number: u64) -> Arc<Change> {
    let operation = Operation::Delete { dn: format!("cn={number}") };
    Arc::new(Change {
        csn: csn(number),
        uuid: EntryUuid::from_bytes(u128::from(number).to_be_bytes()),
        parent: None,
        operation,
    })
}

fn add(number: u64) -> Arc<Change> {
    let request = LdapAddRequest { dn: format!("cn={number}"), attributes: Vec::new() };
    Arc::new(Change { operation: Operation::Add(request), ..Change::clone(&change(number)) })
}

fn failure(result: i32) -> Failure {
    Failure { result, text: "as told".to_owned() }
}

struct Rig {
    shared: Arc<Shared>,
    _dir: TempDir,
}

impl Rig {
    fn new() -> Rig {
        let dir = TempDir::new().unwrap();
        let (journal, _) = Journal::open(dir.path(), "dc=example").unwrap();
        let retention = Retention { age_seconds: u64::MAX, bytes_max: u64::MAX };
        let config = StoreConfig {
            dir: dir.path().to_owned(),
            nsuffix: "dc=example".to_owned(),
            retention,
            rebuild_pause: Duration::from_secs(1),
        };
        let wake = Arc::new(Notify::new());
        let clock = LocalClock::new(Duration::MAX);
        let (own, vector, unseen) = (ServerId::new(2).unwrap(), Vector::default(), Arc::default());
        let store =
            Store::start(Some(journal), config, &vector, &unseen, Arc::new(Nothing), Arc::clone(&wake));
        Rig {
            shared: Shared::new(clock, own, vector, unseen, store.unwrap(), Arc::new(Nothing), wake).into(),
            _dir: dir,
        }
    }

    fn push(&self, changes: impl IntoIterator<Item = Arc<Change>>) {
        assert!(lock(&self.shared.to_apply).push(changes.into_iter().map(Incoming::Change).collect()));
    }

    fn reached(&self) -> Option<Csn> {
        lock(&self.shared.vector).get(ServerId::new(1).unwrap())
    }

    /// The CSNs of the changes that the journal has as set aside, and how many entries it has as deleted.
    fn journal(&self, numbers: u64) -> (Vec<Csn>, usize) {
        let asked = self.shared.store.ask(move |journal| {
            let aside = journal.set_asides()?.iter().map(|aside| aside.csn).collect();
            let mut gone = 0;
            for number in 1..=numbers {
                gone += usize::from(journal.tombstone(change(number).uuid)?.is_some());
            }
            Ok((aside, gone))
        });
        asked.blocking_recv().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shared.store.close(Vec::new(), Duration::from_secs(30));
    }
}

/// Entries are read while this is held, so that the vector says of each what is in it.
#[test]
fn between_the_commit_and_the_vector_no_entry_is_looked_at() {
    for atomic in [true, false] {
        let (rig, mut database) = (Rig::new(), fake(|_| Outcome::Applied));
        let (shared, commits) = (Arc::clone(&rig.shared), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&commits);
        database.atomic = atomic;
        database.on_commit = Box::new(move || {
            assert!(shared.committing.try_lock().is_err());
            seen.fetch_add(1, Ordering::Relaxed);
        });
        rig.push((1..=3).map(change));
        assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
        assert!(rig.shared.committing.try_lock().is_ok());
        assert_eq!(
            (commits.load(Ordering::Relaxed), rig.reached()),
            (if atomic { 1 } else { 3 }, Some(csn(3)))
        );
    }
}

/// Wants its thread back a few times first.
struct Watching(Arc<Shared>, Cell<u32>);

impl Reader for Watching {
    fn read_entry(&mut self, _: &EntryUuid) -> Result<Option<Change>, Failure> {
        assert!(self.0.committing.try_lock().is_err());
        Ok(None)
    }
    fn dump(&mut self, _: &mut dyn FnMut(Change) -> bool) -> Result<DumpEnd, Failure> {
        Ok(DumpEnd::Whole)
    }
    fn read_all(&mut self, _: &mut dyn FnMut(Change) -> bool) -> Result<DumpEnd, Failure> {
        Ok(DumpEnd::Whole)
    }
    fn scan(&mut self, _: &mut dyn FnMut(EntryUuid, Csn) -> bool) -> Result<DumpEnd, Failure> {
        Ok(DumpEnd::Whole)
    }
    fn must_yield(&self) -> bool {
        let left = self.1.get();
        self.1.set(left.saturating_sub(1));
        left > 0
    }
}

#[test]
fn while_entries_are_looked_at_nothing_is_committed_and_who_wants_the_thread_back_gets_it() {
    let (rig, mut database) = (Rig::new(), fake(|_| Outcome::Applied));
    rig.push((1..=3).map(change));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    let (answer, answered) = oneshot::channel();
    let mut reader = Watching(Arc::clone(&rig.shared), Cell::new(3));
    reads::submit(&rig.shared, Read::Entries(vec![change(1).uuid, change(2).uuid], answer));
    for _ in 0..3 {
        rig.shared.reads.run(&rig.shared, &mut reader);
        assert!(rig.shared.committing.try_lock().is_ok());
    }
    rig.shared.reads.run(&rig.shared, &mut reader);
    let Moment { seen, states, asides } = answered.blocking_recv().unwrap();
    assert_eq!((seen.vector, states.len(), asides.len()), ([csn(3)].into_iter().collect(), 2, 2));
}

#[test]
fn a_hundred_changes_that_wait_are_one_transaction_and_their_vector_is_in_it() {
    let (rig, mut database) = (Rig::new(), fake(|_| Outcome::Applied));
    rig.push((1..=100).map(change));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!((database.begun, database.aborted), (1, 0));
    assert_eq!(database.committed, [((1..=100).collect(), [csn(100)].into_iter().collect())]);
    assert_eq!(rig.reached(), Some(csn(100)));
    assert_eq!(rig.journal(100), (vec![], 100));
}

#[test]
fn a_change_that_fails_is_set_aside_and_all_others_are_applied() {
    let rig = Rig::new();
    let mut database =
        fake(|number| if number == 40 { Outcome::Failed(failure(19)) } else { Outcome::Applied });
    rig.push((1..=100).map(change));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    // All, those before it, it as the first of the rest, those behind it.
    assert_eq!((database.begun, database.aborted), (4, 2));
    assert_eq!(database.numbers(), (1..=39).chain(41..=100).collect::<Vec<_>>());
    assert_eq!(rig.reached(), Some(csn(100)));
    assert_eq!(rig.journal(100), (vec![csn(40)], 99));
}

#[test]
fn a_change_that_is_refused_takes_no_transaction_with_it() {
    let rig = Rig::new();
    let mut database =
        fake(|number| if number == 40 { Outcome::Refused(failure(19)) } else { Outcome::Applied });
    rig.push((1..=100).map(change));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!((database.begun, database.aborted, database.numbers().len()), (1, 0, 99));
    assert_eq!(rig.journal(100), (vec![csn(40)], 99));
}

#[test]
fn without_transactions_each_change_commits_by_itself() {
    let (rig, mut database) = (Rig::new(), fake(|_| Outcome::Applied));
    database.atomic = false;
    rig.push((1..=10).map(change));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!((database.begun, database.committed.len()), (10, 10));
    assert_eq!(rig.reached(), Some(csn(10)));
}

#[test]
fn a_change_that_needs_no_transaction_around_it_gets_none() {
    let mut asked = 0;
    let rig = Rig::new();
    let mut database = fake(|number| {
        asked += usize::from(number == 5);
        // The first two times it is in a transaction: with all, and as the first of the rest.
        if number == 5 && asked <= 2 { Outcome::Alone(failure(80)) } else { Outcome::Applied }
    });
    rig.push((1..=10).map(change));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!(database.numbers(), [1, 2, 3, 4, 6, 7, 8, 9, 10], "5 committed by itself");
    assert_eq!(rig.reached(), Some(csn(10)));
    assert_eq!(rig.journal(10), (vec![], 10));
}

#[test]
fn what_fails_for_a_reason_that_may_pass_waits_with_all_that_follow() {
    let mut full = true;
    let rig = Rig::new();
    let mut database = fake(|number| match number {
        40 if std::mem::take(&mut full) => Outcome::Temporary(failure(53)),
        _ => Outcome::Applied,
    });
    rig.push((1..=100).map(change));
    assert_eq!(run(&rig.shared, &mut database), Rest::Pause);
    assert_eq!((database.numbers().len(), rig.reached()), (0, None));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!(database.committed.len(), 1);
    assert_eq!(rig.reached(), Some(csn(100)));
    assert_eq!(rig.journal(100), (vec![], 100));
}

#[test]
fn a_change_whose_entry_is_missing_waits_for_it() {
    let (rig, mut database) = (Rig::new(), fake(|_| Outcome::Applied));
    database.missing.insert(1);
    let modification = LdapPartialAttribute { atype: "sn".to_owned(), vals: vec![b"x".to_vec()] };
    let changes = vec![LdapModify { operation: LdapModifyType::Replace, modification }];
    let request = LdapModifyRequest { dn: "cn=1".to_owned(), changes };
    let modify = Change { csn: csn(3), operation: Operation::Modify(request), ..Change::clone(&change(1)) };
    rig.push([Arc::new(modify)]);
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!(rig.journal(1), (vec![csn(3)], 0));
    rig.push([change(2), add(1)]);
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!(database.numbers(), [2, 1, 1]);
    assert_eq!(rig.journal(1), (vec![], 0));
}

/// What a comparison or a load brings says nothing of what lies before it.
#[test]
fn a_state_does_not_move_the_vector_and_what_was_reached_does() {
    let (rig, mut database) = (Rig::new(), fake(|_| Outcome::Applied));
    let reached: Vector = [csn(7)].into_iter().collect();
    assert!(lock(&rig.shared.to_apply).push(vec![Incoming::State(change(9))]));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!(rig.reached(), None);
    assert!(lock(&rig.shared.to_apply).push(vec![Incoming::Reached(reached.clone())]));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!(rig.reached(), Some(csn(7)));
    assert_eq!(database.context_csn, reached);
}

#[test]
fn a_state_that_is_older_than_the_delete_of_its_entry_does_not_bring_it_back() {
    let (rig, mut database) = (Rig::new(), fake(|_| Outcome::Applied));
    let put = |number: u64, at: u64| {
        let request = LdapAddRequest { dn: format!("cn={number}"), attributes: Vec::new() };
        let (csn, operation) = (csn(at), Operation::Put(request));
        Incoming::State(Arc::new(Change { csn, operation, ..Change::clone(&change(number)) }))
    };
    let delete = Incoming::Change(change(5));
    let work = vec![delete, put(5, 4), put(6, 4)];
    assert!(lock(&rig.shared.to_apply).push(work));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!(database.numbers(), [5, 6]);
    // A client's delete, and an entry that was made anew after one.
    database.missing.insert(7);
    lock(&rig.shared.captured).push(Change::clone(&change(7)));
    assert!(lock(&rig.shared.to_apply).push(vec![put(7, 6), put(7, 8)]));
    assert_eq!(run(&rig.shared, &mut database), Rest::Empty);
    assert_eq!(database.numbers(), [5, 6, 7]);
}
