//! What differs is fetched from the peer and judged, and what is newer there goes into the database.

use super::offering::Offers;
use super::{HealError, Healed, Healer, Judgement, Known, knowledge, tombstone};
use crate::shared::Seen;
use crate::{files, limits, states};
use std::collections::BTreeSet;
use xmppsync_replica::{Change, EntryUuid, Operation};
use xmppsync_wire::limits::FETCH_UUIDS_MAX;
use xmppsync_wire::{Entries, Fetch, FileRequest, Payload};

/// What this side gets.
#[derive(Default)]
struct Taken {
    deletes: Vec<Change>,
    puts: Vec<Change>,
    /// Of `puts`.
    bytes: usize,
    /// Entries are more than can be held, with their depths in the tree: they are fetched once more, parents before their
    /// children, and go into the database as they come.
    later: Vec<(usize, EntryUuid)>,
}

impl Taken {
    fn push(&mut self, state: Change) {
        if matches!(state.operation, Operation::Delete { .. }) {
            self.deletes.push(state);
            return;
        }
        self.bytes += state.size();
        self.puts.push(state);
        if !self.later.is_empty() || self.bytes > limits::STATES_BYTES_MAX {
            let place = |put: Change| (states::depth(put.operation.dn()), put.uuid);
            self.later.extend(self.puts.drain(..).map(place));
            self.bytes = 0;
        }
    }
}

impl Healer {
    /// Fetches what is newer at the peer. Returns what is newer here, or not there.
    pub(super) async fn fetch_all(
        &self,
        asked: &[EntryUuid],
        healed: &mut Healed,
    ) -> Result<Offers, HealError> {
        let (mut taken, mut offers) = (Taken::default(), Offers::default());
        let looked = self.look_at_all(asked, &mut taken, &mut offers, healed).await;
        let Taken { mut deletes, puts, mut later, .. } = taken;
        // What has come is of use, whatever was to follow. A name is given up before another entry gets it.
        deletes.extend(puts);
        let applied = states::apply(&self.shared, deletes).await;
        looked?;
        applied.ok_or(HealError::Lost)?;
        later.sort_by_key(|(depth, _)| *depth);
        let later: Vec<EntryUuid> = later.into_iter().map(|(_, uuid)| uuid).collect();
        self.fetch_in_order(&later).await?;
        Ok(offers)
    }

    async fn look_at_all(
        &self,
        mut asked: &[EntryUuid],
        taken: &mut Taken,
        offers: &mut Offers,
        healed: &mut Healed,
    ) -> Result<(), HealError> {
        while !asked.is_empty() {
            let page = self.next_page(&mut asked).await?;
            healed.left += page.refused.len();
            let mut settle = |judged: Vec<(Change, Judgement)>| {
                for (state, judgement) in judged {
                    match judgement {
                        Judgement::Take => {
                            healed.taken += 1;
                            taken.push(state);
                        }
                        Judgement::GiveEntry => offers.entries.push(state.uuid),
                        Judgement::GiveTombstone(csn) => offers.tombstones.push(tombstone(state.uuid, csn)),
                        Judgement::Leave => {}
                    }
                }
            };
            let judged = self.judged(page.states().cloned().collect()).await?;
            healed.left += page.states().count() - judged.len();
            settle(judged);
            for uuid in page.large {
                let judged = self.judged(vec![self.fetch_large(uuid).await?]).await?;
                healed.left += usize::from(judged.is_empty());
                settle(judged);
            }
            let known = knowledge(&self.shared, page.absent).await.ok_or(HealError::NoJournal)?;
            let is_here = |(uuid, known): (EntryUuid, Known)| known.entry.map(|_| uuid);
            offers.entries.extend(known.into_iter().filter_map(is_here));
        }
        Ok(())
    }

    /// So many that they cannot all be held. What became of an entry since it was looked at first is told by the live stream.
    async fn fetch_in_order(&self, mut asked: &[EntryUuid]) -> Result<(), HealError> {
        let (mut states, mut bytes) = (Vec::new(), 0);
        while !asked.is_empty() {
            let page = self.next_page(&mut asked).await?;
            self.hold(self.judged(page.states().cloned().collect()).await?, &mut states, &mut bytes).await?;
            for uuid in page.large {
                let state = self.fetch_large(uuid).await?;
                self.hold(self.judged(vec![state]).await?, &mut states, &mut bytes).await?;
            }
        }
        states::apply(&self.shared, states).await.ok_or(HealError::Lost)
    }

    /// Holds what is taken until it is so much that it is put into the database.
    async fn hold(
        &self,
        judged: Vec<(Change, Judgement)>,
        states: &mut Vec<Change>,
        bytes: &mut usize,
    ) -> Result<(), HealError> {
        for (state, _) in judged.into_iter().filter(|(_, what)| *what == Judgement::Take) {
            *bytes += state.size();
            states.push(state);
        }
        if *bytes > limits::STATES_BYTES_MAX {
            *bytes = 0;
            states::apply(&self.shared, std::mem::take(states)).await.ok_or(HealError::Lost)?;
        }
        Ok(())
    }

    /// As many of the entries as the peer puts into one answer; `asked` is what is left.
    async fn next_page(&self, asked: &mut &[EntryUuid]) -> Result<Entries, HealError> {
        let chunk = &asked[..asked.len().min(FETCH_UUIDS_MAX)];
        let fetch = Fetch { uuids: chunk.to_vec(), bytes_max: limits::ENTRIES_BYTES_MAX };
        let Payload::Entries(entries) = self.request(Payload::Fetch(fetch)).await? else {
            return Err(HealError::Unexpected);
        };
        let named = [&entries.absent, &entries.refused, &entries.large].into_iter().flatten().copied();
        let answered: BTreeSet<EntryUuid> = entries.states().map(|state| state.uuid).chain(named).collect();
        let consumed = chunk.iter().take_while(|uuid| answered.contains(*uuid)).count();
        // An answer that says nothing of anything would be asked for for ever.
        if consumed == 0 {
            return Err(HealError::Unexpected);
        }
        *asked = &asked[consumed..];
        Ok(entries)
    }

    /// An entry that is too large for an answer. One after the other, for each may take many megabytes.
    async fn fetch_large(&self, uuid: EntryUuid) -> Result<Change, HealError> {
        let what = FileRequest::Entry(uuid);
        Ok(files::fetch(&self.group, &self.shared.offers, &self.peer, what).await?)
    }

    /// What becomes of each of the peer's states, but for those that are too far ahead of this server's clock.
    async fn judged(&self, states: Vec<Change>) -> Result<Vec<(Change, Judgement)>, HealError> {
        let states = self.shared.clock.filter(states, &self.peer);
        let seen = Seen::now(&self.shared);
        let uuids = states.iter().map(|state| state.uuid).collect();
        let known = knowledge(&self.shared, uuids).await.ok_or(HealError::NoJournal)?;
        let judge = |state: Change| {
            let judgement = known.get(&state.uuid).copied().unwrap_or_default().judge(&state, &seen);
            (state, judgement)
        };
        Ok(states.into_iter().map(judge).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ldap3_proto::proto::LdapAddRequest;
    use xmppsync_replica::Csn;

    fn put(number: u8, dn: &str, bytes: usize) -> Change {
        let csn: Csn = "20261122235959.000000Z#000000#001#000000".parse().unwrap();
        let attributes = vec![ldap3_proto::proto::LdapPartialAttribute {
            atype: "description".to_owned(),
            vals: vec![vec![b'x'; bytes]],
        }];
        let entry = LdapAddRequest { dn: dn.to_owned(), attributes };
        Change {
            csn,
            uuid: EntryUuid::from_bytes([number; 16]),
            parent: None,
            operation: Operation::Put(entry),
        }
    }

    #[test]
    fn entries_that_are_more_than_can_be_held_are_noted_with_their_place_in_the_tree() {
        let mut taken = Taken::default();
        taken.push(put(1, "cn=b,cn=a,dc=x", limits::STATES_BYTES_MAX / 2));
        assert!(taken.later.is_empty());
        taken.push(put(2, "cn=a,dc=x", limits::STATES_BYTES_MAX / 2));
        taken.push(put(3, "cn=c,cn=b,cn=a,dc=x", 1));
        assert!(taken.puts.is_empty() && taken.bytes == 0);
        let depths: Vec<usize> = taken.later.iter().map(|(depth, _)| *depth).collect();
        assert_eq!(depths, [3, 2, 4]);
    }
}
