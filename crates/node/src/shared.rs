//! What the host's threads and the driver share. Locks are held for a few moves of memory, never across IO.

use crate::clock::LocalClock;
use crate::files::Offers;
use crate::host::Database;
use crate::limits;
use crate::load::Loading;
use crate::merging::Names;
use crate::reads::Reads;
use crate::snapshot::Snapshots;
use crate::store::Store;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use xmppsync_journal::Record;
use xmppsync_journal::limits::SET_ASIDES_MAX;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation, Place, ServerId, Unseen, Vector, names};

/// Key of an LDAP transaction: the host's address of its connection.
pub(crate) type TransactionKey = usize;

pub(crate) struct Shared {
    pub(crate) captured: Mutex<Captured>,
    pub(crate) to_apply: Mutex<ToApply>,
    pub(crate) clock: LocalClock,
    /// This server's own changes bear its serverID.
    pub(crate) own: ServerId,
    pub(crate) names: Mutex<Names>,
    /// How far this replica has come; what contextCSN shows.
    pub(crate) vector: Mutex<Vector>,
    /// What of that was not seen. It grows before the vector does.
    pub(crate) unseen: Arc<Mutex<Unseen>>,
    /// The entryUUID of the suffix entry: which data set this is a copy of.
    pub(crate) dataset: Mutex<Option<EntryUuid>>,
    pub(crate) store: Store,
    pub(crate) database: Arc<dyn Database>,
    pub(crate) reads: Reads,
    pub(crate) snapshots: Snapshots,
    pub(crate) loading: Loading,
    pub(crate) offers: Offers,
    /// The driver has something to look at.
    pub(crate) wake: Arc<Notify>,
}

impl Shared {
    pub(crate) fn new(
        clock: LocalClock,
        own: ServerId,
        vector: Vector,
        unseen: Arc<Mutex<Unseen>>,
        store: Store,
        database: Arc<dyn Database>,
        wake: Arc<Notify>,
    ) -> Shared {
        Shared {
            captured: Mutex::default(),
            to_apply: Mutex::default(),
            clock,
            own,
            names: Mutex::default(),
            vector: Mutex::new(vector),
            unseen,
            dataset: Mutex::default(),
            store,
            database,
            reads: Reads::default(),
            snapshots: Snapshots::default(),
            loading: Loading::default(),
            offers: Offers::default(),
            wake,
        }
    }
}

/// Which states of entries were here once.
pub(crate) struct Seen {
    vector: Vector,
    unseen: Unseen,
}

impl Seen {
    /// As of now. To be taken before what is known of the entries: one that comes in between must not look as if it had been
    /// here and were deleted.
    pub(crate) fn now(shared: &Shared) -> Seen {
        let vector = lock(&shared.vector).clone();
        Seen { vector, unseen: lock(&shared.unseen).clone() }
    }

    pub(crate) fn covers(&self, csn: Csn) -> bool {
        self.vector.covers(csn) && !self.unseen.contains(csn)
    }
}

impl Shared {
    /// Takes over what goes with a vector that is taken over, but for what was seen here. Durable before the vector moves,
    /// which is written to the database later.
    pub(crate) async fn take_over_unseen(&self, theirs: &Unseen) -> Option<()> {
        let new = {
            let vector = lock(&self.vector).clone();
            theirs.without(&vector, &lock(&self.unseen))
        };
        self.add_unseen(new);
        self.store.ask(|_| Ok(())).await.ok()
    }

    /// Notes what counts as unseen from now on.
    pub(crate) fn add_unseen(&self, unseen: Unseen) {
        if !unseen.is_empty() {
            lock(&self.unseen).extend(&unseen);
            self.store.write(vec![Record::Unseen { unseen, at: crate::store::now() }]);
        }
    }

    /// What a peer must not take for seen although this replica's vector covers it: what goes with the vector, and what was
    /// refused here. Without a journal, or when it has forgotten some, that may be anything.
    pub(crate) async fn unseen_for_peers(&self) -> Unseen {
        let refused = self.store.ask(|journal| journal.set_asides()).await;
        let mut unseen = lock(&self.unseen).clone();
        match refused.ok().filter(|refused| (refused.len() as u64) < SET_ASIDES_MAX) {
            Some(refused) => refused.iter().for_each(|refused| unseen.add_after(None, refused.csn)),
            None => unseen.extend(&Unseen::all(&lock(&self.vector))),
        }
        unseen
    }
}

impl Shared {
    /// A client's change was committed.
    pub(crate) fn handle_captured(&self, (change, old_parent): Part) {
        let Some(change) = lock(&self.captured).push(change) else { return };
        let may_matter = match &change.operation {
            Operation::ModifyDn { .. } => change.parent.is_some() || !lock(&self.names).is_tidy(),
            Operation::Delete { .. } => !lock(&self.names).is_tidy(),
            _ => false,
        };
        if let Some(parent) = old_parent.filter(|_| may_matter) {
            let rdn = names::rdn(change.operation.dn()).into_owned();
            lock(&self.to_apply).to_follow.push_back((change, Place { parent, rdn }));
        }
    }
}

/// Where a deleted entry was, should it be needed again because of a child.
pub(crate) fn deleted_place(change: &Change) -> Option<Place> {
    let Operation::Delete { dn } = &change.operation else { return None };
    change.parent.map(|parent| Place { parent, rdn: names::rdn(dn).into_owned() })
}

/// What a change that is in the database means for the inventory.
pub(crate) fn inventory_record(change: &Change) -> Record {
    let Change { csn, uuid, operation, .. } = change;
    match operation {
        Operation::Delete { .. } => Record::Gone { uuid: *uuid, csn: *csn, at: crate::store::now() },
        _ => Record::Put { uuid: *uuid, csn: *csn },
    }
}

/// A panic under one of these locks was caught and logged; the data is whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A change of a client, and the parent that its entry had before, where that matters.
pub(crate) type Part = (Change, Option<EntryUuid>);

#[derive(Default)]
pub(crate) struct Captured {
    changes: Vec<Arc<Change>>,
    /// What is not on its way into the journal yet, whoever has it.
    unwritten: BTreeMap<Csn, Arc<Change>>,
    /// The last one that is.
    written: Option<Csn>,
    bytes: usize,
    /// Parts of LDAP transactions that are not committed yet.
    transactions: HashMap<TransactionKey, Vec<Part>>,
    /// The latest change that was dropped because too many waited.
    overflow: Option<Csn>,
    /// What the dropped changes mean for the inventory.
    skipped: Vec<Record>,
    /// Nobody takes changes any more.
    closed: bool,
    /// A change that is in the database did not get into the journal.
    missed: bool,
    /// Deletes of clients and of others.
    pub(crate) deleted: RecentDeletes,
}

/// The last deletes. A state that a comparison brings may be older than the delete of its entry, which came by the live
/// stream meanwhile; the journal knows of that only when it is committed.
#[derive(Default)]
pub(crate) struct RecentDeletes {
    csns: HashMap<EntryUuid, Csn>,
    order: VecDeque<EntryUuid>,
}

impl RecentDeletes {
    pub(crate) fn note(&mut self, change: &Change) {
        if !matches!(change.operation, Operation::Delete { .. }) {
            return;
        }
        match self.csns.entry(change.uuid) {
            Entry::Occupied(mut known) => *known.get_mut() = change.csn.max(*known.get()),
            Entry::Vacant(new) => {
                new.insert(change.csn);
                self.order.push_back(change.uuid);
            }
        }
        if self.order.len() > limits::RECENT_DELETES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.csns.remove(&oldest);
        }
    }

    /// When the entry was deleted, if that was lately.
    pub(crate) fn get(&self, uuid: EntryUuid) -> Option<Csn> {
        self.csns.get(&uuid).copied()
    }

    /// Whether the entry was deleted after it was in this state.
    pub(crate) fn outdates(&self, state: &Change) -> bool {
        self.csns.get(&state.uuid).is_some_and(|csn| *csn >= state.csn)
    }
}

/// What the driver took over in one go.
pub(crate) struct Taken {
    pub(crate) changes: Vec<Arc<Change>>,
    pub(crate) overflow: Option<Csn>,
    pub(crate) skipped: Vec<Record>,
}

impl Captured {
    /// The driver has ended: what comes from now on is not kept.
    pub(crate) fn close(&mut self) {
        let missed = self.missed || !self.changes.is_empty() || self.overflow.is_some();
        *self = Captured { closed: true, missed, ..Captured::default() };
    }

    /// Returns the change, if it is taken.
    pub(crate) fn push(&mut self, change: Change) -> Option<Arc<Change>> {
        if self.closed {
            self.missed = true;
            return None;
        }
        self.deleted.note(&change);
        let size = change.size();
        if self.bytes + size > limits::CAPTURED_BYTES_MAX {
            self.overflow = self.overflow.max(Some(change.csn));
            self.skipped.push(inventory_record(&change));
            return None;
        }
        self.bytes += size;
        let change = Arc::new(change);
        self.unwritten.insert(change.csn, Arc::clone(&change));
        self.changes.push(Arc::clone(&change));
        Some(change)
    }

    /// Whether the change was captured, in this moment or before.
    pub(crate) fn has_taken(&self, csn: Csn) -> bool {
        self.unwritten.contains_key(&csn) || self.written.is_some_and(|written| csn <= written)
    }

    /// Everything up to this CSN is on its way into the journal.
    pub(crate) fn handle_written(&mut self, csn: Csn) {
        self.written = self.written.max(Some(csn));
        while self.unwritten.first_key_value().is_some_and(|(first, _)| *first <= csn) {
            self.unwritten.pop_first();
        }
    }

    /// The changes of this entry after `csn` that the journal does not know of yet.
    pub(crate) fn later(&self, uuid: EntryUuid, after: Option<Csn>) -> Vec<Arc<Change>> {
        let later =
            |change: &&Arc<Change>| change.uuid == uuid && after.is_none_or(|after| change.csn > after);
        self.unwritten.values().filter(later).cloned().collect()
    }

    pub(crate) fn push_part(&mut self, transaction: TransactionKey, part: Part) {
        if !self.closed {
            self.transactions.entry(transaction).or_default().push(part);
        }
    }

    /// The parts of a transaction, if it was committed.
    pub(crate) fn end_transaction(&mut self, transaction: TransactionKey, committed: bool) -> Vec<Part> {
        self.transactions.remove(&transaction).filter(|_| committed).unwrap_or_default()
    }

    pub(crate) fn take(&mut self) -> Taken {
        self.bytes = 0;
        Taken {
            changes: std::mem::take(&mut self.changes),
            overflow: self.overflow.take(),
            skipped: std::mem::take(&mut self.skipped),
        }
    }

    /// What was taken will not get into the journal.
    pub(crate) fn set_missed(&mut self) {
        self.missed = true;
    }

    /// Whether the journal lacks a change that is in the database: the next start has to look for it.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed
    }

    /// Whether the driver has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// CSNs of parts whose transaction has not ended: slapd may have struck them off already.
    pub(crate) fn pending(&self) -> impl Iterator<Item = Csn> + '_ {
        self.transactions.values().flatten().map(|(change, _)| change.csn)
    }
}

/// What is on its way into the database.
#[derive(Clone)]
pub(crate) enum Incoming {
    /// The next change of its origin: the vector moves to it.
    Change(Arc<Change>),
    /// An entry or a delete that a comparison or a load brought; the vector does not tell of it.
    State(Arc<Change>),
    /// The same for an entry that is not in the database, as far as is known.
    New(Arc<Change>),
    /// A change whose turn is over, and that waited for another entry since.
    Waited(Arc<Change>),
    /// Everything up to here is in the database with what came before.
    Reached(Vector),
}

impl Incoming {
    pub(crate) fn size(&self) -> usize {
        match self {
            Incoming::Change(change)
            | Incoming::State(change)
            | Incoming::New(change)
            | Incoming::Waited(change) => change.size(),
            Incoming::Reached(_) => 0,
        }
    }

    pub(crate) fn change(&self) -> Option<&Arc<Change>> {
        match self {
            Incoming::Change(change)
            | Incoming::State(change)
            | Incoming::New(change)
            | Incoming::Waited(change) => Some(change),
            Incoming::Reached(_) => None,
        }
    }

    /// The latest CSN that comes into the database with it.
    pub(crate) fn latest(&self) -> Option<Csn> {
        match self {
            Incoming::Change(change)
            | Incoming::State(change)
            | Incoming::New(change)
            | Incoming::Waited(change) => Some(change.csn),
            Incoming::Reached(reached) => reached.iter().max(),
        }
    }

    /// A change that waited.
    pub(crate) fn waited(&self) -> Option<&Arc<Change>> {
        match self {
            Incoming::Waited(change) => Some(change),
            _ => None,
        }
    }

    /// Moves the vector to where it is once this is in the database.
    pub(crate) fn advance(&self, vector: &mut Vector) {
        match self {
            Incoming::Change(change) => vector.advance(change.csn),
            Incoming::State(_) | Incoming::New(_) | Incoming::Waited(_) => {}
            Incoming::Reached(reached) => reached.iter().for_each(|csn| vector.advance(csn)),
        }
    }
}

#[derive(Default)]
pub(crate) struct ToApply {
    queue: VecDeque<Incoming>,
    bytes: usize,
    /// A call of `apply` was asked for and has not ended.
    pub(crate) running: bool,
    /// The database wants a pause before the next attempt.
    pub(crate) pause: Option<Duration>,
    /// What was in the queue is gone, see `handle_panic`.
    lost: bool,
    /// How often that happened.
    losses: u64,
    paused_until: Option<Instant>,
    /// Attempts at the front of the queue that failed for a reason that may pass.
    pub(crate) temporary_failures: u32,
    pub(crate) waiting: Waiting,
    pub(crate) set_aside: u64,
    /// Deletes and renames of clients, with where their entries were: others may have waited for their names.
    pub(crate) to_follow: VecDeque<(Arc<Change>, Place)>,
    /// Attempts to follow the first of them.
    pub(crate) follow_failures: u32,
}

/// Changes that wait for another entry to come.
#[derive(Default)]
pub(crate) struct Waiting {
    by_entry: BTreeMap<EntryUuid, Vec<Arc<Change>>>,
    csns: HashSet<Csn>,
}

impl Waiting {
    /// `false`: too many wait.
    pub(crate) fn push(&mut self, missing: EntryUuid, change: Arc<Change>) -> bool {
        let has_room = self.csns.len() < limits::WAITING_CHANGES_MAX;
        if has_room && self.csns.insert(change.csn) {
            self.by_entry.entry(missing).or_default().push(change);
        }
        has_room
    }

    /// Those that wait for one of these entries, in the order of their CSNs.
    pub(crate) fn take(&mut self, come: impl Iterator<Item = EntryUuid>) -> Vec<Arc<Change>> {
        let mut taken: Vec<Arc<Change>> =
            come.filter_map(|uuid| self.by_entry.remove(&uuid)).flatten().collect();
        for change in &taken {
            self.csns.remove(&change.csn);
        }
        taken.sort_by_key(|change| change.csn);
        taken
    }

    pub(crate) fn contains(&self, csn: Csn) -> bool {
        self.csns.contains(&csn)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.csns.is_empty()
    }
}

impl ToApply {
    /// `false`: the queue is full, nothing was taken.
    pub(crate) fn push(&mut self, work: Vec<Incoming>) -> bool {
        let bytes: usize = work.iter().map(Incoming::size).sum();
        if self.bytes > 0 && self.bytes + bytes > limits::APPLY_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.queue.extend(work);
        true
    }

    /// As [`push`](Self::push), but leaves room for others.
    pub(crate) fn push_if_room(&mut self, work: &[Incoming]) -> bool {
        self.has_room() && self.push(work.to_vec())
    }

    /// The next changes for one transaction.
    pub(crate) fn take(&mut self) -> Vec<Incoming> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        while let Some(next) = self.queue.front() {
            let size = next.size();
            let full = taken.len() >= limits::TRANSACTION_CHANGES_MAX
                || (bytes > 0 && bytes + size > limits::TRANSACTION_BYTES_MAX);
            if full {
                break;
            }
            bytes += size;
            taken.extend(self.queue.pop_front());
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }

    pub(crate) fn put_back(&mut self, changes: Vec<Incoming>) {
        self.bytes += changes.iter().map(Incoming::size).sum::<usize>();
        for incoming in changes.into_iter().rev() {
            self.queue.push_front(incoming);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.to_follow.is_empty()
    }

    /// Whether what a client did is to be followed once more after a failure that may pass.
    pub(crate) fn may_follow_again(&mut self) -> bool {
        self.follow_failures += 1;
        let again = self.follow_failures < limits::FOLLOW_ATTEMPTS;
        if !again {
            self.follow_failures = 0;
        }
        again
    }

    /// These entries have come: what waited for them is next.
    pub(crate) fn release(&mut self, come: &[EntryUuid]) {
        if !self.waiting.is_empty() {
            let waited = self.waiting.take(come.iter().copied());
            self.put_back(waited.into_iter().map(Incoming::Waited).collect());
        }
    }

    /// Whether the change waits for another entry.
    pub(crate) fn is_waiting(&self, change: &Change) -> bool {
        self.waiting.contains(change.csn)
    }

    /// The task that applied changes failed in a way that nobody foresaw. What it held is lost, so nothing that
    /// waits may be applied before it, and the vector tells from where to go on.
    pub(crate) fn handle_panic(&mut self) {
        *self = ToApply {
            waiting: std::mem::take(&mut self.waiting),
            set_aside: self.set_aside,
            to_follow: std::mem::take(&mut self.to_follow),
            lost: true,
            losses: self.losses + 1,
            pause: Some(limits::PANIC_PAUSE),
            ..ToApply::default()
        };
    }

    /// How often what was in the queue got lost: whoever put something into it compares before and after.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    /// Whether changes were lost since this was asked last.
    pub(crate) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Whether another page can be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < limits::APPLY_BYTES_MAX / 2
    }

    /// Nothing waits and nothing is being applied: the vector is up to date.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && !self.running
    }

    /// The end of the pause that the database wants; the first call begins it.
    pub(crate) fn pause_until(&mut self, now: Instant) -> Option<Instant> {
        if let Some(pause) = self.pause.take() {
            self.paused_until = Some(now + pause);
        }
        self.paused_until = self.paused_until.filter(|until| now < *until);
        self.paused_until
    }
}
