//! What clients of this server have changed, until the journal has it.

use crate::limits;
use crate::shared::inventory_record;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use xmppsync_journal::Record;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation};

/// Key of an LDAP transaction: the host's address of its connection.
pub(crate) type TransactionKey = usize;

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

    /// These became part of a later one, which is what others will hear of.
    pub(crate) fn handle_absorbed(&mut self, absorbed: Vec<(Csn, Arc<Change>)>) {
        for (csn, later) in absorbed {
            self.unwritten.remove(&csn);
            self.unwritten.insert(later.csn, later);
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
