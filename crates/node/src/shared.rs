//! What the host's threads and the driver share. Locks are held for a few moves of memory, never across IO,
//! but for `committing`.

use crate::captured::{Captured, Part};
use crate::clock::LocalClock;
use crate::files::Offers;
use crate::host::Database;
use crate::load::Loading;
use crate::merging::{Histories, Names};
use crate::patience::Patience;
use crate::reads::Reads;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::to_apply::ToApply;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use xmppsync_journal::Record;
use xmppsync_journal::limits::SET_ASIDES_MAX;
use xmppsync_replica::{Change, EntryUuid, Operation, Place, Seen, ServerId, Unseen, Vector, names};

pub(crate) struct Shared {
    pub(crate) captured: Mutex<Captured>,
    pub(crate) to_apply: Mutex<ToApply>,
    pub(crate) clock: LocalClock,
    /// This server's own changes bear its serverID.
    pub(crate) own: ServerId,
    pub(crate) names: Arc<Mutex<Names>>,
    pub(crate) histories: Mutex<Histories>,
    /// Held from before changes of others are in the database until the vector, and what is ahead, tell of them.
    pub(crate) committing: Mutex<()>,
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
    pub(crate) patience: Patience,
    /// A peer gave this replica entries: others may have taken them here as they were before.
    pub(crate) was_given: AtomicBool,
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
            names: store.names(),
            histories: Mutex::default(),
            committing: Mutex::default(),
            vector: Mutex::new(vector),
            unseen,
            dataset: Mutex::default(),
            store,
            database,
            reads: Reads::default(),
            snapshots: Snapshots::default(),
            loading: Loading::default(),
            offers: Offers::default(),
            patience: Patience::default(),
            was_given: AtomicBool::new(false),
            wake,
        }
    }
}

impl Shared {
    /// Which states of entries were here once, as of now. To be taken before what is known of the entries: one that comes in between must
    /// not look as if it had been here and were deleted.
    pub(crate) fn seen(&self) -> Seen {
        let vector = lock(&self.vector).clone();
        self.seen_up_to(&vector)
    }

    /// The same, as it is when the vector is here.
    pub(crate) fn seen_up_to(&self, vector: &Vector) -> Seen {
        Seen { vector: vector.clone(), unseen: lock(&self.unseen).clone() }
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
        if change.csn.server_id() == self.own {
            self.store.keep(&change, old_parent);
        }
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
