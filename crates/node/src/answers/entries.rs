//! Entries as they are, for a peer that compares, with what is remembered of their pasts; and those that it wants to be looked at.

use super::{Answers, Refusal, busy, no_journal, written};
use crate::heal::knowledge::{Looked, clamped, look};
use crate::heal::{self, HealError, Healed, Healer};
use crate::limits;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::minidom::Element;
use xmppsync_replica::{Change, Csn, EntryUuid, Known, Operation, Seen, Side};
use xmppsync_wire::limits as wire;
use xmppsync_wire::{
    Entries, Fetch, Offer, Past, Payload, encoded_size_estimate, past_size_estimate, side_size_estimate,
};

/// What an answer says of an entry.
enum State {
    Known(Change),
    /// Too large for an answer.
    Large,
    Refused,
    Absent,
}

/// An answer that is being filled, and how large it is.
struct Filling {
    entries: Entries,
    bytes: usize,
    bytes_max: usize,
    /// Of one entry with its past.
    entry_bytes_max: usize,
}

impl Filling {
    fn new(bytes_max: u32) -> Filling {
        let bytes_max = (bytes_max as usize).min(limits::PAGE_PAYLOAD_BYTES_MAX);
        let bytes = wire::ENTRIES_WRAPPING_BYTES;
        let entry_bytes_max = limits::PAGE_PAYLOAD_BYTES_MAX - bytes;
        Filling { entries: Entries::default(), bytes, bytes_max, entry_bytes_max }
    }

    fn set_side(&mut self, side: Side) {
        let bytes = side_size_estimate(&side);
        self.bytes += bytes;
        self.entry_bytes_max = self.entry_bytes_max.saturating_sub(bytes);
        self.entries.side = Some(side);
    }

    /// Makes room for so much more, if there is any; the first thing always has room.
    fn make_room(&mut self, bytes: usize, is_first: bool) -> bool {
        let has_room = is_first || self.bytes + bytes <= self.bytes_max;
        if has_room {
            self.bytes += bytes;
        } else {
            self.entries.more = true;
        }
        has_room
    }

    /// `false`: it has no room.
    fn add(&mut self, uuid: EntryUuid, looked: Looked, is_first: bool) -> bool {
        let seen = self.entries.side.as_ref().map(|side| &side.seen);
        let past = past(uuid, &looked, seen);
        let past_bytes = past.as_ref().map_or(0, past_size_estimate);
        let state = state(uuid, looked, self.entry_bytes_max.saturating_sub(past_bytes));
        let bytes = match &state {
            State::Known(change) => encoded_size_estimate(change),
            _ => wire::UUID_ELEMENT_BYTES,
        };
        if !self.make_room(bytes + past_bytes, is_first) {
            return false;
        }
        match state {
            State::Known(change) => match change.operation {
                Operation::Delete { .. } => self.entries.deletes.push(change),
                _ => self.entries.puts.push(change),
            },
            State::Large => self.entries.large.push(uuid),
            State::Refused => self.entries.refused.push(uuid),
            State::Absent => self.entries.absent.push(uuid),
        }
        self.entries.pasts.extend(past);
        true
    }
}

fn state(uuid: EntryUuid, Looked { state, known, .. }: Looked, bytes_max: usize) -> State {
    let state = state.map(heal::as_put);
    match state.or_else(|| known.tombstone.map(|csn| heal::tombstone(uuid, csn))) {
        Some(state) if encoded_size_estimate(&state) > bytes_max => State::Large,
        Some(state) => State::Known(state),
        None if known.refused => State::Refused,
        None => State::Absent,
    }
}

/// What there is to say of an entry's past.
fn past(uuid: EntryUuid, looked: &Looked, seen: Option<&Seen>) -> Option<Past> {
    let Looked { known, moves, .. } = looked;
    let Known { glue, tombstone, changes, has_many, waiting, refused, in_doubt, .. } = known;
    let has_many = *has_many;
    // Of many those are told that nothing else tells of.
    let is_told = |csn: &Csn| !has_many || !seen.is_some_and(|seen| seen.covers(*csn));
    let mut changes: Vec<Csn> = changes.iter().copied().filter(is_told).collect();
    let is_cut = changes.len() > limits::PAST_CHANGES_MAX;
    changes.truncate(limits::PAST_CHANGES_MAX);
    let past = Past {
        changes,
        has_many,
        waiting: waiting.iter().copied().take(limits::PAST_WAITING_MAX).collect(),
        deleted: tombstone.filter(|_| glue.is_some()),
        is_refused: *refused,
        in_doubt: *in_doubt || is_cut,
        // The last ones count most.
        moves: moves[moves.len().saturating_sub(limits::PAST_MOVES_MAX)..].to_vec(),
        ..Past::new(uuid)
    };
    (past != Past::new(uuid)).then_some(past)
}

impl Answers {
    /// Entries as they are, as many as fit; and changes.
    pub(super) async fn entries(&self, fetch: Fetch) -> Result<Element, Refusal> {
        let mut filling = Filling::new(fetch.bytes_max);
        // Not all that are asked for, of which a page has room for some.
        for uuids in fetch.uuids.chunks(limits::LOOKED_UP_AT_ONCE) {
            let Some((mut side, mut looked)) = look(&self.shared, uuids).await else { return no_journal() };
            match &mut filling.entries.side {
                // What was forgotten since is in the list of those before.
                Some(told) => {
                    let forgotten = clamped(&side.floor, &told.seen.vector);
                    forgotten.iter().for_each(|csn| told.floor.advance(csn));
                }
                None => {
                    side.seen.unseen = self.shared.unseen_for_peers().await;
                    filling.set_side(side);
                }
            }
            for (at, uuid) in uuids.iter().enumerate() {
                let is_first = at == 0 && *uuids == fetch.uuids[..uuids.len()];
                if !filling.add(*uuid, looked.remove(uuid).unwrap_or_default(), is_first) {
                    return written(&Payload::Entries(filling.entries));
                }
            }
        }
        self.changes(&fetch.changes, &mut filling).await?;
        written(&Payload::Entries(filling.entries))
    }

    /// Changes that a peer knows to be remembered here.
    async fn changes(&self, csns: &[Csn], filling: &mut Filling) -> Result<(), Refusal> {
        for (at, csn) in csns.iter().copied().enumerate() {
            let found = self.shared.store.ask(move |journal| journal.change(csn)).await;
            let Ok(found) = found else { return no_journal() };
            match found {
                Some(change) => {
                    let bytes = encoded_size_estimate(&change);
                    if bytes > limits::PAGE_PAYLOAD_BYTES_MAX - wire::ENTRIES_WRAPPING_BYTES {
                        // Not spoken of: it is asked for as a file.
                        return Ok(());
                    }
                    if !filling.make_room(bytes, at == 0 && filling.entries.side.is_none()) {
                        return Ok(());
                    }
                    filling.entries.changes.push(change);
                }
                None if filling.make_room(wire::CSN_ELEMENT_BYTES, false) => {
                    filling.entries.forgotten.push(csn);
                }
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// A peer has what this side should look at. The answer says what of it was deleted.
    pub(super) async fn look_at(&self, from: &FullJid, offer: Offer) -> Result<Element, Refusal> {
        let healer = Healer {
            group: Arc::clone(&self.group),
            shared: Arc::clone(&self.shared),
            peer: from.clone(),
            catches_up: false,
        };
        let mut healed = Healed::default();
        let looked = healer.look_at(&offer.uuids, &mut healed).await;
        if healed.taken > 0 {
            self.shared.was_given.store(true, Ordering::Relaxed);
            self.shared.wake.notify_one();
        }
        match looked {
            Ok(offers) => {
                let answer = Entries { deletes: offers.tombstones, ..Entries::default() };
                written(&Payload::Entries(answer))
            }
            Err(HealError::NoJournal) => no_journal(),
            Err(problem) => busy(&problem.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csn(number: usize) -> Csn {
        format!("20261122235959.{number:06}Z#000000#001#000000").parse().unwrap()
    }

    fn told(changes: usize, seen: usize) -> Past {
        let has_many = changes > limits::PAST_CHANGES_MAX;
        let known = Known { changes: (1..=changes).map(csn).collect(), has_many, ..Known::default() };
        let looked = Looked { known, ..Looked::default() };
        let seen = Seen { vector: [csn(seen)].into_iter().collect(), ..Seen::default() };
        past(EntryUuid::from_bytes([1; 16]), &looked, Some(&seen)).unwrap()
    }

    #[test]
    fn of_many_changes_those_are_told_that_the_vector_does_not_tell_of() {
        let most = told(limits::PAST_CHANGES_MAX, 3);
        assert_eq!((most.has_many, most.changes.len()), (false, limits::PAST_CHANGES_MAX));
        let many = told(limits::PAST_CHANGES_MAX + 1, limits::PAST_CHANGES_MAX - 1);
        let last = [limits::PAST_CHANGES_MAX, limits::PAST_CHANGES_MAX + 1].map(csn);
        assert_eq!((many.has_many, many.changes.as_slice(), many.in_doubt), (true, &last[..], false));
        // Not even those have room: nobody is to rely on the entry.
        let too_many = told(2 * limits::PAST_CHANGES_MAX, 3);
        assert_eq!((too_many.changes.len(), too_many.in_doubt), (limits::PAST_CHANGES_MAX, true));
    }
}
