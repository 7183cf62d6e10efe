//! The states that a comparison brought, in an order in which a database takes them.
//!
//! They come in the order of their entryUUIDs, which has nothing to do with the tree: an entry before its parent, the delete
//! of a parent before those of its children, a new entry before the delete of the one whose name it has.

use crate::limits;
use crate::reads;
use crate::shared::{Shared, lock};
use crate::to_apply::Incoming;
use std::cmp::Reverse;
use std::sync::Arc;
use xmppsync_replica::{Change, EntryUuid, Operation};

/// Queues them: deletes first, children before their parents; then entries, parents before their children, and of those
/// on one level the earlier first, so that a name is given up before another entry gets it. What still fails, waits for
/// the others. Two entries that exchanged their names stay in each other's way.
///
/// `None`: not all of them could be queued.
pub(crate) async fn apply(shared: &Shared, states: Vec<Change>) -> Option<()> {
    let is_delete = |state: &Change| matches!(state.operation, Operation::Delete { .. });
    let (deletes, mut entries): (Vec<Change>, Vec<Change>) = states.into_iter().partition(is_delete);
    let mut ordered = Vec::new();
    for some in deletes.chunks(limits::TRANSACTION_CHANGES_MAX) {
        // A tombstone does not tell where the entry is.
        let uuids: Vec<EntryUuid> = some.iter().map(|delete| delete.uuid).collect();
        let here = reads::entries(shared, uuids).await?;
        let depths = here.into_iter().map(|entry| entry.map_or(0, |entry| depth(entry.operation.dn())));
        ordered.extend(depths.zip(some.iter().cloned()));
    }
    ordered.sort_by_key(|(depth, _)| Reverse(*depth));
    entries.sort_by_key(|entry| (depth(entry.operation.dn()), entry.csn));
    let work = ordered.into_iter().map(|(_, delete)| delete).chain(entries);
    let work: Vec<Incoming> = work.map(|state| Incoming::State(Arc::new(state))).collect();
    for some in work.chunks(limits::TRANSACTION_CHANGES_MAX) {
        push(shared, some.to_vec()).await;
    }
    Some(())
}

/// Puts work into the queue to apply as soon as there is room.
pub(crate) async fn push(shared: &Shared, work: Vec<Incoming>) {
    if work.is_empty() {
        return;
    }
    shared.clock.observe(work.iter().filter_map(Incoming::latest));
    while !lock(&shared.to_apply).push(work.clone()) {
        tokio::time::sleep(limits::FULL_PAUSE).await;
    }
    shared.wake.notify_one();
}

/// How many RDNs a DN has, as slapd writes it.
pub(crate) fn depth(dn: &str) -> usize {
    let mut escaped = false;
    let is_separator = |byte: u8| {
        let separates = byte == b',' && !escaped;
        escaped = byte == b'\\' && !escaped;
        separates
    };
    if dn.is_empty() { 0 } else { 1 + dn.bytes().map(is_separator).filter(|separates| *separates).count() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_commas_do_not_separate() {
        let depths = ["", "dc=com", "dc=example,dc=com", "cn=a\\,b,dc=com", "cn=a\\\\,dc=com"].map(depth);
        assert_eq!(depths, [0, 1, 2, 2, 2]);
    }
}
