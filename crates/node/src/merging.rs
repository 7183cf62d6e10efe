//! Changes that meet others: the rules of [`merge`] at work on the host's database, inside of the transaction that applies.

mod names;
mod tree;

pub(crate) use names::Names;

use crate::host::{Failure, Outcome, Transaction};
use crate::limits;
use crate::shared::{Incoming, Shared, lock};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::{debug, info, warn};
use tree::HostTree;
use xmppsync_journal::{Record, SetAside};
use xmppsync_replica::merge::{self, Applied};
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Operation, Place, Vector};

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
    lost: Vec<Lost>,
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
    /// As the outcome of a plain attempt.
    Failed(Outcome),
}

impl Scratch {
    /// A plain delete was made, and its entry was where the change says.
    pub(crate) fn handle_deleted(&mut self, change: &Change) {
        self.note_gone(change);
        if let Some(parent) = change.parent {
            let rdn = xmppsync_replica::names::split(change.operation.dn()).0.to_owned();
            self.place(change.uuid, Place { parent, rdn });
        }
    }

    /// An entry that was deleted before it came must not stay when it comes.
    fn expect_add(&mut self, shared: &Shared, uuid: EntryUuid) {
        let known = self.places.contains_key(&uuid);
        if !known {
            self.names.get_or_insert_with(|| lock(&shared.names).clone()).orphans.insert(uuid);
            self.records.push(Record::Orphan(uuid));
        }
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
    pub(crate) fn note_state(&mut self, shared: &Shared, transaction: &mut dyn Transaction, state: &Change) {
        let (rdn, parent) = xmppsync_replica::names::split(state.operation.dn());
        let displaced =
            xmppsync_replica::names::is_displaced(rdn).then(|| transaction.find(parent)).flatten();
        let glue = tree::is_glue(state);
        if displaced.is_none() && !glue {
            return;
        }
        let names = self.names.get_or_insert_with(|| lock(&shared.names).clone());
        if let Some(parent) = displaced {
            let place = Place { parent, rdn: xmppsync_replica::names::intended(rdn).into_owned() };
            names.displaced.insert(state.uuid, place.clone());
            self.records.push(Record::Displaced { uuid: state.uuid, place });
        }
        if glue {
            names.glue.insert(state.uuid);
            self.records.push(Record::Glue(state.uuid));
        }
    }

    /// Of several deletes the latest counts.
    fn note_gone(&mut self, change: &Change) {
        let gone = self.gone.entry(change.uuid).or_insert(change.csn);
        *gone = change.csn.max(*gone);
    }

    /// Whether something is known of the entry, or of others that wait for a name or a parent, that a plain attempt would not look at.
    pub(crate) fn needs_rules(&self, shared: &Shared, incoming: &Incoming) -> bool {
        let Some(change) = incoming.change() else { return false };
        if incoming.waited().is_some() {
            // Later ones of its origin may have been made before it.
            return true;
        }
        let known = lock(&shared.names);
        let names = self.names.as_ref().unwrap_or(&known);
        match change.operation {
            Operation::Delete { .. } | Operation::ModifyDn { .. } => !names.is_tidy(),
            Operation::Add(_) | Operation::Put(_) => {
                names.orphans.contains(&change.uuid)
                    || self.gone.contains_key(&change.uuid)
                    || lock(&shared.captured).deleted.get(change.uuid).is_some()
            }
            _ => false,
        }
    }

    fn place(&mut self, uuid: EntryUuid, place: Place) {
        self.records.push(Record::Place { uuid, place: place.clone() });
        self.places.insert(uuid, place);
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
                self.records.push(Record::Orphan(uuid));
                lock(&shared.names).orphans.insert(uuid);
                if let Some(names) = &mut self.names {
                    names.orphans.insert(uuid);
                }
            } else {
                warn!(
                    "{operation} of \"{dn}\" (entryUUID {uuid}, CSN {csn}) is set aside: {reason}, and too many do"
                );
            }
            self.records.push(Record::SetAside(SetAside { csn, uuid, reason }));
        }
    }

    /// The transaction is committed.
    pub(crate) fn commit(mut self, shared: &Shared) {
        self.commit_waiting(shared);
        if !self.records.is_empty() {
            shared.store.write(self.records);
        }
        if let Some(names) = self.names {
            *lock(&shared.names) = names;
        }
        for lost in &self.lost {
            tell(lost);
        }
        lock(&shared.to_apply).conflicts += self.lost.len() as u64;
    }
}

fn tell(lost: &Lost) {
    let Lost { csn, uuid, against, attribute, .. } = lost;
    match attribute.as_str() {
        "dn" => warn!(
            "conflict: a change of the entry {uuid} (CSN {csn}, of server {}) has no effect because of a later rename or a \
             delete (CSN {against})",
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
    let records = scratch.records.len();
    let mut tree = HostTree::new(shared, transaction, scratch, applied, change);
    match merge::apply(&mut tree, &placed) {
        Ok(Applied::Done) => {
            if let Operation::Delete { .. } = change.operation {
                scratch.note_gone(change);
                scratch.expect_add(shared, change.uuid);
            }
            Merged::Done
        }
        Ok(Applied::Waits(uuid)) => {
            scratch.records.truncate(records);
            Merged::Waits(uuid)
        }
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
        Incoming::Change(change) | Incoming::Waited(change) => return Ok(Some(Arc::clone(change))),
        Incoming::Reached(_) => return Ok(None),
    };
    if transaction
        .read_entry(&change.uuid)?
        .is_some_and(|entry| entry.csn >= change.csn && !tree::is_glue(&entry))
    {
        return Ok(None);
    }
    if change.parent.is_some() || !matches!(change.operation, Operation::Put(_)) {
        return Ok(Some(Arc::clone(change)));
    }
    let parent = transaction.find(xmppsync_replica::names::split(change.operation.dn()).1);
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

/// What a change that went through the rules means for the inventory. Of an entry that is deleted nothing but that is told.
pub(crate) fn inventory(
    transaction: &mut dyn Transaction,
    change: &Change,
) -> Result<Option<Record>, Failure> {
    let Change { csn, uuid, operation, .. } = change;
    if let Operation::Delete { .. } = operation {
        return Ok(Some(Record::Gone { uuid: *uuid, csn: *csn, at: crate::store::now() }));
    }
    let entry = transaction.read_entry(uuid)?.filter(|entry| !tree::is_glue(entry));
    Ok(entry.map(|entry| Record::Put { uuid: *uuid, csn: entry.csn }))
}
