//! What is newer here is offered to the peer, which says what of it was deleted.

use super::{HealError, Healed, Healer, as_put};
use crate::{limits, reads, states};
use std::collections::VecDeque;
use xmppsync_link::RequestError;
use xmppsync_replica::{Change, EntryUuid, Operation};
use xmppsync_wire::limits::{ENTRIES_WRAPPING_BYTES, FETCH_UUIDS_MAX};
use xmppsync_wire::{Entries, Payload, encoded_size_estimate};

/// What this side has to give.
#[derive(Default)]
pub(super) struct Offers {
    pub(super) entries: Vec<EntryUuid>,
    pub(super) tombstones: Vec<Change>,
}

impl Healer {
    pub(super) async fn offer_all(&self, offers: Offers, healed: &mut Healed) -> Result<(), HealError> {
        let mut deleted = Vec::new();
        let offered = self.offer(offers, healed, &mut deleted).await;
        // What was learned is of use. All at once: they have to be deleted in another order than they were offered.
        healed.taken += deleted.len();
        let applied = states::apply(&self.shared, deleted).await;
        offered?;
        applied.ok_or(HealError::Lost)
    }

    async fn offer(
        &self,
        offers: Offers,
        healed: &mut Healed,
        deleted: &mut Vec<Change>,
    ) -> Result<(), HealError> {
        let in_order = self.parents_first(offers.entries).await?;
        // The other side looks where the deleted ones are.
        self.offer_states(offers.tombstones.into(), healed, deleted).await?;
        for uuids in in_order.chunks(limits::LOOKED_UP_AT_ONCE) {
            let found = reads::entries(&self.shared, uuids.to_vec()).await.ok_or(HealError::Stopped)?;
            let states = found.into_iter().flatten().map(as_put).collect();
            self.offer_states(states, healed, deleted).await?;
        }
        Ok(())
    }

    /// Their places in the tree first, for they may be too many to be held.
    async fn parents_first(&self, uuids: Vec<EntryUuid>) -> Result<Vec<EntryUuid>, HealError> {
        let mut places = Vec::new();
        for uuids in uuids.chunks(limits::LOOKED_UP_AT_ONCE) {
            let found = reads::entries(&self.shared, uuids.to_vec()).await.ok_or(HealError::Stopped)?;
            let place = |entry: Change| (states::depth(entry.operation.dn()), entry.uuid);
            places.extend(found.into_iter().flatten().map(place));
        }
        places.sort_by_key(|(depth, _)| *depth);
        Ok(places.into_iter().map(|(_, uuid)| uuid).collect())
    }

    async fn offer_states(
        &self,
        mut states: VecDeque<Change>,
        healed: &mut Healed,
        deleted: &mut Vec<Change>,
    ) -> Result<(), HealError> {
        while let Some((entries, count)) = next_offer(&mut states) {
            let deletes = match self.request(Payload::Entries(entries)).await {
                Ok(Payload::Entries(answer)) => answer.deletes,
                Ok(_) => return Err(HealError::Unexpected),
                Err(HealError::Request(RequestError::Empty)) => Vec::new(),
                Err(problem) => return Err(problem),
            };
            healed.given += count.saturating_sub(deletes.len());
            deleted.extend(deletes);
        }
        Ok(())
    }
}

/// As many as fit a stanza; one that does not even alone is named, and the peer gets it as a file.
fn next_offer(states: &mut VecDeque<Change>) -> Option<(Entries, usize)> {
    let mut entries = Entries::default();
    let mut bytes = ENTRIES_WRAPPING_BYTES;
    let mut count = 0;
    while let Some(state) = states.pop_front() {
        bytes += encoded_size_estimate(&state);
        if count > 0 && (bytes >= limits::PAGE_PAYLOAD_BYTES_MAX || count >= FETCH_UUIDS_MAX) {
            states.push_front(state);
            break;
        }
        count += 1;
        if bytes >= limits::PAGE_PAYLOAD_BYTES_MAX {
            entries.large.push(state.uuid);
            break;
        }
        match state.operation {
            Operation::Delete { .. } => entries.deletes.push(state),
            _ => entries.puts.push(state),
        }
    }
    (count > 0).then_some((entries, count))
}
