//! Entries as they are, for a peer that compares; and those that it gives.

use super::{Answers, Refusal, busy, no_journal, written};
use crate::heal::{self, Judgement, Known};
use crate::shared::Seen;
use crate::{files, limits, reads, states};
use std::collections::BTreeMap;
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::DefinedCondition;
use xmppsync_replica::{Change, EntryUuid, Operation};
use xmppsync_wire::limits as wire;
use xmppsync_wire::{Entries, Fetch, FileRequest, Payload, encoded_size_estimate};

/// What was found of entries.
#[derive(Default)]
struct Looked {
    found: BTreeMap<EntryUuid, Change>,
    known: BTreeMap<EntryUuid, Known>,
}

/// What an answer says of an entry.
enum State {
    Known(Change),
    /// Too large for an answer.
    Large,
    Refused,
    Absent,
}

impl Looked {
    fn state(&mut self, uuid: &EntryUuid) -> State {
        let known = self.known.get(uuid).copied().unwrap_or_default();
        let entry = self.found.remove(uuid).map(heal::as_put);
        let state = entry.or_else(|| known.tombstone.map(|csn| heal::tombstone(*uuid, csn)));
        let max = limits::PAGE_PAYLOAD_BYTES_MAX - wire::ENTRIES_WRAPPING_BYTES;
        match state {
            Some(state) if encoded_size_estimate(&state) > max => State::Large,
            Some(state) => State::Known(state),
            // In the inventory and not found: what reads is at fault (an index), not the entry.
            None if known.refused || known.entry.is_some() => State::Refused,
            None => State::Absent,
        }
    }

    /// In the inventory and not in the database.
    fn is_contradictory(&self, uuid: &EntryUuid) -> bool {
        let is_listed = |known: &Known| known.entry.is_some() && !known.refused;
        !self.found.contains_key(uuid) && self.known.get(uuid).is_some_and(is_listed)
    }
}

impl Answers {
    /// Entries as they are, as many as fit.
    pub(super) async fn entries(&self, fetch: Fetch) -> Result<Element, Refusal> {
        let bytes_max = (fetch.bytes_max as usize).min(limits::PAGE_PAYLOAD_BYTES_MAX);
        let mut entries = Entries::default();
        let mut bytes = wire::ENTRIES_WRAPPING_BYTES;
        // Not all that are asked for, of which a page has room for some.
        for uuids in fetch.uuids.chunks(limits::LOOKED_UP_AT_ONCE) {
            let mut looked = self.look_up(uuids).await?;
            for uuid in uuids {
                let state = looked.state(uuid);
                bytes += match &state {
                    State::Known(change) => encoded_size_estimate(change),
                    _ => wire::UUID_ELEMENT_BYTES,
                };
                if bytes > bytes_max && entries.states().next().is_some() {
                    entries.more = true;
                    return written(&Payload::Entries(entries));
                }
                match state {
                    State::Known(change) => match change.operation {
                        Operation::Delete { .. } => entries.deletes.push(change),
                        _ => entries.puts.push(change),
                    },
                    State::Large => entries.large.push(*uuid),
                    State::Refused => entries.refused.push(*uuid),
                    State::Absent => entries.absent.push(*uuid),
                }
            }
        }
        written(&Payload::Entries(entries))
    }

    /// The entries in the database, and what the journal knows of them. What is written meanwhile is in the one a moment before
    /// it is in the other, and must not look like an entry that cannot be read.
    async fn look_up(&self, uuids: &[EntryUuid]) -> Result<Looked, Refusal> {
        let mut looked = Looked::default();
        let mut open = uuids.to_vec();
        for _ in 0..limits::LOOK_AGAIN_MAX {
            let found = reads::entries(&self.shared, open.clone()).await;
            let Some(found) = found else { return busy("this server is being stopped") };
            let Some(known) = heal::knowledge(&self.shared, open.clone()).await else { return no_journal() };
            let found = open.iter().zip(found).filter_map(|(uuid, entry)| Some((*uuid, entry?)));
            looked.found.extend(found);
            looked.known.extend(known);
            open.retain(|uuid| looked.is_contradictory(uuid));
            if open.is_empty() {
                break;
            }
            tokio::time::sleep(limits::LOOK_AGAIN_PAUSE).await;
        }
        Ok(looked)
    }

    /// A peer gives states that are missing here. The answer says which of them were deleted.
    pub(super) async fn take(&self, from: &FullJid, offer: Entries) -> Result<Element, Refusal> {
        let Entries { puts, deletes, large, .. } = offer;
        let mut answer = Entries::default();
        self.take_states(from, deletes.into_iter().chain(puts).collect(), &mut answer).await?;
        // One after the other: each may take many megabytes.
        for uuid in large {
            let what = FileRequest::Entry(uuid);
            let state =
                files::fetch(&self.group, &self.shared.offers, from, what).await.map_err(|problem| {
                    let text = format!("the file of entry {uuid} did not come: {problem}");
                    (DefinedCondition::RemoteServerTimeout, text)
                })?;
            self.take_states(from, vec![state], &mut answer).await?;
        }
        written(&Payload::Entries(answer))
    }

    async fn take_states(
        &self,
        from: &FullJid,
        states: Vec<Change>,
        answer: &mut Entries,
    ) -> Result<(), Refusal> {
        let states = self.shared.clock.filter(states, from);
        let uuids = states.iter().map(|state| state.uuid).collect();
        let seen = Seen::now(&self.shared);
        let Some(known) = heal::knowledge(&self.shared, uuids).await else { return no_journal() };
        let mut taken = Vec::new();
        for state in states {
            match known.get(&state.uuid).copied().unwrap_or_default().judge(&state, &seen) {
                Judgement::Take => taken.push(state),
                Judgement::GiveTombstone(csn) => answer.deletes.push(heal::tombstone(state.uuid, csn)),
                Judgement::GiveEntry | Judgement::Leave => {}
            }
        }
        states::apply(&self.shared, taken).await.map_or_else(|| busy("the database cannot be read now"), Ok)
    }
}
