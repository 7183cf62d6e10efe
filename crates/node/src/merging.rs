//! Changes that meet others: the rules of [`merge`] at work on the host's database, inside of the transaction that applies.

mod entry;
mod histories;
mod marks;
mod memory;
mod taking;
mod tree;

pub(crate) use entry::is_glue;
pub(crate) use histories::Histories;
pub(crate) use memory::Names;
pub(crate) use taking::{Taking, is_plain, learn, take};
pub(crate) use tree::client_move;

use crate::host::{Failure, Outcome, Transaction};
use crate::limits;
use crate::shared::{Shared, deleted_place, lock};
use crate::to_apply::Incoming;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tracing::{debug, info, warn};
use tree::HostTree;
use xmppsync_journal::{Deleted, Record, SetAside};
use xmppsync_replica::merge::{self, Applied};
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Operation, Place, Vector, names};

/// What the open transaction has led to beside the database. It counts when that is committed.
#[derive(Default)]
pub(crate) struct Scratch {
    /// What is written to the journal.
    records: Vec<Record>,
    /// What is remembered from then on, if that changed.
    names: Option<Names>,
    /// Entries that were deleted in this transaction.
    gone: BTreeMap<EntryUuid, Csn>,
    /// Where they were.
    places: BTreeMap<EntryUuid, Place>,
    /// What the journal said of entries that were deleted before. What clients delete meanwhile is told by what was captured.
    deleted: BTreeMap<EntryUuid, Deleted>,
    /// Entries of the log of moves that the journal was asked for beside others.
    asked: BTreeSet<EntryUuid>,
    lost: Vec<Lost>,
    /// Entries of which it is not known what later changes made of them, and the change that came late.
    doubts: BTreeMap<EntryUuid, Csn>,
    /// Entries that several servers made together into something that the schema forbids, and what it says.
    forbidden: BTreeMap<EntryUuid, String>,
    /// Changes that wait for another entry.
    waiting: Vec<(EntryUuid, Arc<Change>)>,
}

/// Why a change is set aside for now; the entryUUID of the missing entry follows.
pub(crate) const WAITS_FOR: &str = "it waits for the entry ";

/// What became of a change that needed care.
pub(crate) enum Merged {
    Done,
    /// It has to wait for this entry.
    Waits(EntryUuid),
    /// A state is not taken, or not now.
    Left,
    /// As the outcome of a plain attempt.
    Failed(Outcome),
}

impl Scratch {
    /// Looks at what is remembered, with what this transaction has led to.
    fn known<T>(&self, shared: &Shared, look: impl FnOnce(&Names) -> T) -> T {
        match &self.names {
            Some(names) => look(names),
            None => look(&lock(&shared.names)),
        }
    }

    /// Remembers something, and has the journal do so.
    fn note(&mut self, shared: &Shared, record: Record) {
        self.names.get_or_insert_with(|| lock(&shared.names).clone()).note(&record);
        self.records.push(record);
    }

    /// A plain delete was made, and its entry was where the change says.
    pub(crate) fn handle_deleted(&mut self, shared: &Shared, change: &Change) {
        self.note_gone(shared, change);
        if let Some(place) = deleted_place(change) {
            self.place(change.uuid, place);
        }
    }

    /// Of several deletes the latest counts.
    fn note_gone(&mut self, shared: &Shared, change: &Change) {
        self.set_doubt(shared, change.uuid, false);
        let gone = self.gone.entry(change.uuid).or_insert(change.csn);
        *gone = change.csn.max(*gone);
    }

    fn place(&mut self, uuid: EntryUuid, place: Place) {
        self.records.push(Record::Place { uuid, place: place.clone() });
        self.places.insert(uuid, place);
    }

    /// Others see at once that a name may matter; too early does no harm.
    pub(crate) fn announce(&self, shared: &Shared) {
        if let Some(names) = &self.names {
            let mut known = lock(&shared.names);
            known.displaced.extend(names.displaced.iter().map(|(uuid, place)| (*uuid, place.clone())));
            known.glue.extend(&names.glue);
        }
    }

    /// A state that a load or a comparison brought may be of an entry that is aside.
    pub(crate) fn note_state(
        &mut self,
        shared: &Shared,
        transaction: &mut dyn Transaction,
        applied: &Vector,
        state: &Arc<Change>,
    ) -> Result<(), Outcome> {
        let uuid = state.uuid;
        let (rdn, parent) = names::split(state.operation.dn());
        if entry::is_displaced(state)
            && let Some(parent) = transaction.find(parent)
        {
            let place = Place { parent, rdn: names::intended(rdn).into_owned() };
            self.note(shared, Record::Displaced { uuid, place });
        }
        if !entry::is_glue(state) {
            return Ok(());
        }
        let here = transaction.read_entry(&uuid).map_err(Outcome::Temporary)?;
        // It may have stayed what it is, because that is later.
        if here.is_some_and(|here| here.csn == state.csn && entry::is_glue(&here)) {
            tree::make_glue(shared, transaction, self, applied, state)?;
            if let Some(parent) = transaction.find(parent) {
                self.place(uuid, Place { parent, rdn: names::intended(rdn).into_owned() });
            }
        }
        Ok(())
    }

    /// Whether something is known of the entry, or of others that wait for a name or a parent, that a plain attempt would not look at.
    pub(crate) fn needs_rules(&self, shared: &Shared, incoming: &Incoming) -> bool {
        let Some(change) = incoming.change() else { return false };
        match change.operation {
            // Later ones of its origin may have been made before it.
            _ if incoming.waited().is_some() => true,
            Operation::Modify(_) => false,
            Operation::Delete { .. } | Operation::ModifyDn { .. } => {
                self.known(shared, |names| !names.is_tidy())
            }
            // Its place counts among the moves, wherever the entry is.
            Operation::Put(_) if matches!(incoming, Incoming::Change(_)) => true,
            // Who has a name is told by those that are here.
            Operation::Put(_) if entry::is_displaced(change) && !entry::is_glue(change) => true,
            Operation::Add(_) | Operation::Put(_) => {
                self.gone.contains_key(&change.uuid)
                    || self.known(shared, |names| names.orphans.contains(&change.uuid))
                    || lock(&shared.captured).deleted.get(change.uuid).is_some()
            }
        }
    }

    /// The change waits for an entry that is not here yet, or never will be.
    pub(crate) fn wait(&mut self, change: &Arc<Change>, missing: EntryUuid) {
        self.waiting.push((missing, Arc::clone(change)));
    }

    /// Whether the change waits.
    pub(crate) fn is_waiting(&self, csn: Csn) -> bool {
        self.waiting.iter().any(|(_, change)| change.csn == csn)
    }

    fn commit_waiting(&mut self, shared: &Shared) {
        for (missing, change) in std::mem::take(&mut self.waiting) {
            let (csn, uuid, operation) = (change.csn, change.uuid, change.operation.name());
            let dn = change.operation.dn().to_owned();
            let reason = format!("{WAITS_FOR}{missing}");
            if lock(&shared.to_apply).waiting.push(missing, change) {
                debug!("{operation} of \"{dn}\" (CSN {csn}): {reason}");
                self.note(shared, Record::Orphan(uuid));
            } else {
                warn!(
                    "{operation} of \"{dn}\" (entryUUID {uuid}, CSN {csn}) is set aside: {reason}, and too many do; the next \
                     comparison with another server brings the entry"
                );
            }
            self.records.push(Record::SetAside(SetAside { csn, uuid, reason }));
        }
    }

    fn commit_doubts(&mut self, shared: &Shared) {
        for (uuid, csn) in std::mem::take(&mut self.doubts) {
            let (is_known, has_room) = self.known(shared, |names| {
                (names.doubts.contains(&uuid), names.doubts.len() < limits::DOUBTS_MAX)
            });
            if is_known {
                continue;
            }
            let follows = if has_room {
                "other servers are asked what became of the entry"
            } else {
                "too many entries are so for other servers to be asked about this one before the next regular comparison"
            };
            warn!(
                "conflict: the change {csn} of the entry {uuid} came late, and the journal does not reach back to all that is later; \
                 {follows}. Where the change is wanted and stays without effect, write it again"
            );
            if has_room {
                self.set_doubt(shared, uuid, true);
            }
        }
    }

    /// Marks, in the open transaction, what it has lost.
    ///
    /// # Errors
    /// The database's. The transaction has to be aborted.
    pub(crate) fn mark_lost(
        &self,
        shared: &Shared,
        transaction: &mut dyn Transaction,
    ) -> Result<(), Failure> {
        let known: Vec<&Lost> =
            self.lost.iter().filter(|lost| !self.doubts.contains_key(&lost.uuid)).collect();
        if known.is_empty() { Ok(()) } else { marks::write(shared, transaction, &known) }
    }

    /// The transaction is committed.
    pub(crate) fn commit(mut self, shared: &Shared) {
        let has_questions = !(self.waiting.is_empty() && self.doubts.is_empty());
        self.commit_waiting(shared);
        self.commit_doubts(shared);
        self.records.extend(lost_records(&self.lost));
        if !self.records.is_empty() {
            shared.store.write(self.records);
        }
        if let Some(names) = self.names {
            *lock(&shared.names) = names;
        }
        if has_questions {
            lock(&shared.to_apply).questions += 1;
            shared.wake.notify_one();
        }
        self.lost.iter().for_each(tell);
        for (uuid, problem) in &self.forbidden {
            warn!(
                "conflict: the entry {uuid} is against the schema, by changes of several servers together: {problem}; slapd refuses \
                 every modification of it that does not mend that"
            );
        }
    }
}

/// The journal has one loss for each attribute of a change.
fn lost_records(lost: &[Lost]) -> impl Iterator<Item = Record> {
    let mut merged: BTreeMap<(Csn, &str), Lost> = BTreeMap::new();
    for lost in lost {
        merged
            .entry((lost.csn, &lost.attribute))
            .and_modify(|known| {
                known.against = known.against.max(lost.against);
                let new = lost.values.iter().filter(|value| !known.values.contains(value)).cloned();
                known.values.extend(new.collect::<Vec<_>>());
            })
            .or_insert_with(|| lost.clone());
    }
    merged.into_values().map(|lost| Record::Lost { lost, at: crate::store::now() })
}

fn tell(lost: &Lost) {
    let Lost { csn, uuid, against, attribute, .. } = lost;
    match attribute.as_str() {
        Lost::ENTRY => warn!(
            "conflict: a change of the entry {uuid} (CSN {csn}, of server {}) has no effect because of a delete (CSN {against})",
            csn.server_id()
        ),
        Lost::NAME => warn!(
            "conflict: a change of the entry {uuid} (CSN {csn}, of server {}) has no effect because of another rename, move or \
             state (CSN {against})",
            csn.server_id()
        ),
        _ => info!(
            "conflict: values of {attribute} in the entry {uuid} (CSN {csn}, of server {}) were replaced by later ones (CSN \
             {against})",
            csn.server_id()
        ),
    }
}

/// Brings a change into the database by the rules. `applied`: what is in it already.
pub(crate) fn apply(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    scratch: &mut Scratch,
    applied: &Vector,
    incoming: &Incoming,
) -> Merged {
    let Some(change) = incoming.change() else { return Merged::Done };
    let placed = match with_parent(transaction, incoming) {
        Ok(Some(placed)) => placed,
        Ok(None) => return Merged::Done,
        Err(failure) => return Merged::Failed(Outcome::Failed(failure)),
    };
    let mut tree = HostTree::new(shared, transaction, scratch, applied, change);
    match merge::apply(&mut tree, &placed) {
        Ok(Applied::Done) => {
            if let Operation::Delete { .. } = change.operation {
                scratch.note_gone(shared, change);
                if !scratch.places.contains_key(&change.uuid) {
                    // It was deleted before it came, and must not stay when it comes.
                    scratch.note(shared, Record::Orphan(change.uuid));
                }
            }
            Merged::Done
        }
        Ok(Applied::Waits(uuid)) => Merged::Waits(uuid),
        Err(outcome) => Merged::Failed(outcome),
    }
}

/// Whether other servers than the one that made the change have changed its entry as well, as far as the journal reaches back.
pub(crate) fn is_written_by_others(shared: &Shared, change: &Change) -> bool {
    let (uuid, origin) = (change.uuid, change.csn.server_id());
    let fresh = lock(&shared.captured).later(uuid, None);
    if fresh.iter().any(|change| change.csn.server_id() != origin) {
        return true;
    }
    let known =
        shared.store.ask_now(move |journal| journal.has_other_origin(uuid, origin), limits::HISTORY_PATIENCE);
    // Whether the schema has a say is better left open than decided by a slow disk.
    known.map_or(true, Option::unwrap_or_default)
}

/// A state that a comparison or a load brought names its parent by the DN only. `None`: the entry is in this state or a later one.
fn with_parent(
    transaction: &mut dyn Transaction,
    incoming: &Incoming,
) -> Result<Option<Arc<Change>>, Failure> {
    let change = match incoming {
        Incoming::State(state) | Incoming::New(state) => state,
        Incoming::Change(change) | Incoming::Waited(change) | Incoming::Gone(change) => {
            return Ok(Some(Arc::clone(change)));
        }
        Incoming::Take(_) | Incoming::Moves(_) | Incoming::Certain(..) | Incoming::Reached(_) => {
            return Ok(None);
        }
    };
    if transaction
        .read_entry(&change.uuid)?
        .is_some_and(|entry| entry.csn >= change.csn && !entry::is_glue(&entry))
        && !matches!(change.operation, Operation::Delete { .. })
    {
        return Ok(None);
    }
    if change.parent.is_some() || !matches!(change.operation, Operation::Put(_)) {
        return Ok(Some(Arc::clone(change)));
    }
    let parent = transaction.find(names::split(change.operation.dn()).1);
    Ok(Some(Arc::new(Change { parent, ..Change::clone(change) })))
}

/// Does what a change means that a client made here.
pub(crate) fn follow(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    scratch: &mut Scratch,
    applied: &Vector,
    change: &Arc<Change>,
    from: Place,
) -> Result<(), Outcome> {
    let mut tree = HostTree::new(shared, transaction, scratch, applied, change);
    tree.refresh(change.uuid)?;
    merge::follow(&mut tree, change, from)
}

/// What a change that went through the rules, or glue, means for the inventory. A delete takes what is later, too.
pub(crate) fn inventory(transaction: &mut dyn Transaction, change: &Change) -> Result<Vec<Record>, Failure> {
    let Change { csn, uuid, operation, .. } = change;
    let entry = transaction.read_entry(uuid)?.filter(|entry| !entry::is_glue(entry));
    let gone = || {
        vec![Record::Forget { uuid: *uuid }, Record::Gone { uuid: *uuid, csn: *csn, at: crate::store::now() }]
    };
    Ok(match (operation, entry) {
        (Operation::Delete { .. }, None) => gone(),
        (_, None) if is_glue(change) => gone(),
        (_, Some(entry)) => vec![Record::Put { uuid: *uuid, csn: entry.csn }],
        (_, None) => Vec::new(),
    })
}
