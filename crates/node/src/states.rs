//! The states that a comparison brought, in an order in which a database takes them.
//!
//! They come in the order of their entryUUIDs, which has nothing to do with the tree: an entry before its parent, the delete
//! of a parent before those of its children, a new entry before the delete of the one whose name it has.

use crate::limits;
use crate::merging::Taking;
use crate::reads;
use crate::shared::{Shared, lock};
use crate::to_apply::Incoming;
use std::cmp::Reverse;
use std::sync::Arc;
use xmppsync_replica::{Change, EntryUuid};

/// A delete that a comparison brought.
pub(crate) struct Deleting {
    pub(crate) delete: Change,
    /// It takes what was written without knowing of it, too.
    pub(crate) takes_later: bool,
}

/// Queues them: deletes first, children before their parents; then entries, parents before their children, and of those
/// on one level the earlier first, so that a name is given up before another entry gets it.
///
/// `None`: not all of them could be queued.
pub(crate) async fn apply(shared: &Shared, deletes: Vec<Deleting>, mut takes: Vec<Taking>) -> Option<()> {
    let mut ordered = Vec::new();
    for some in deletes.chunks(limits::TRANSACTION_CHANGES_MAX) {
        // A tombstone does not tell where the entry is.
        let uuids: Vec<EntryUuid> = some.iter().map(|deleting| deleting.delete.uuid).collect();
        let here = reads::entries(shared, uuids).await?;
        for (entry, Deleting { delete, takes_later }) in here.into_iter().zip(some) {
            let depth = entry.as_ref().map_or(0, |entry| depth(entry.operation.dn()));
            let delete = Arc::new(delete.clone());
            ordered
                .push((depth, if *takes_later { Incoming::Gone(delete) } else { Incoming::State(delete) }));
        }
    }
    ordered.sort_by_key(|(depth, _)| Reverse(*depth));
    takes.sort_by_key(|taking| (depth(taking.state.operation.dn()), taking.state.csn));
    let takes = takes.into_iter().map(|taking| Incoming::Take(Arc::new(taking)));
    let work: Vec<Incoming> = ordered.into_iter().map(|(_, delete)| delete).chain(takes).collect();
    for some in work.chunks(limits::STATES_QUEUED_AT_ONCE) {
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
