//! What the peer is to look at, which does what follows there and says what of it was deleted.

use super::{HealError, Healed, Healer};
use crate::limits;
use crate::states::{self, Deleting};
use xmppsync_journal::Record;
use xmppsync_link::RequestError;
use xmppsync_replica::{Change, EntryUuid};
use xmppsync_wire::{Offer, Payload};

/// What this side has to give.
#[derive(Default)]
pub(crate) struct Offers {
    /// Entries with their depths in the tree; 0 for what is no entry here any more.
    pub(crate) entries: Vec<(usize, EntryUuid)>,
    /// Entries that were here once in just the state that the peer has, and were deleted.
    pub(crate) tombstones: Vec<Change>,
}

impl Healer {
    pub(super) async fn offer_all(&self, offers: Offers, healed: &mut Healed) -> Result<(), HealError> {
        let mut deleted = Vec::new();
        let offered = self.offer(offers, healed, &mut deleted).await;
        // What was learned is of use. All at once: they have to be deleted in another order than they were offered.
        healed.taken += deleted.len();
        let applied = states::apply(&self.shared, deleted, Vec::new()).await;
        offered?;
        applied.ok_or(HealError::Lost)
    }

    async fn offer(
        &self,
        Offers { mut entries, tombstones }: Offers,
        healed: &mut Healed,
        deleted: &mut Vec<Deleting>,
    ) -> Result<(), HealError> {
        entries.sort_by_key(|(depth, _)| *depth);
        let gone = tombstones.iter().map(|gone| gone.uuid);
        let uuids: Vec<EntryUuid> = gone.chain(entries.iter().map(|(_, uuid)| *uuid)).collect();
        // That they were deleted is known from now on, to whoever asks.
        let at = crate::store::now();
        let records = tombstones.iter().map(|gone| Record::Gone { uuid: gone.uuid, csn: gone.csn, at });
        self.shared.store.write(records.collect());
        for uuids in uuids.chunks(limits::OFFERED_AT_ONCE) {
            let offer = Payload::Offer(Offer { uuids: uuids.to_vec() });
            let answer = match self.request_within(offer, limits::OFFER_TIMEOUT).await {
                Ok(Payload::Entries(answer)) => answer.deletes,
                Ok(_) => return Err(HealError::Unexpected),
                Err(HealError::Request(RequestError::Empty)) => Vec::new(),
                Err(problem) => return Err(problem),
            };
            healed.given += uuids.len().saturating_sub(answer.len());
            // What was written here meanwhile is later than what the peer knew.
            deleted.extend(answer.into_iter().map(|delete| Deleting { delete, takes_later: false }));
        }
        Ok(())
    }
}
