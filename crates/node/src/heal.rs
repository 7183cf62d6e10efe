//! The comparison of this database with a peer's, and the mending of what differs, in both directions.
//!
//! The side that begins learns what differs ([`Comparison`]), fetches from the peer what is newer there, and offers
//! what is newer here. An entry that one side lacks is deleted on the other one only when a tombstone says so, or when the side
//! that lacks it has seen that state of it: so it is offered to that side, which decides.

use crate::files::{self, FileError};
use crate::limits;
use crate::reads;
use crate::shared::{Incoming, Seen, Shared, lock};
use crate::states;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tracing::{debug, info, warn};
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::stanza_error::DefinedCondition;
use xmppsync_journal::Record;
use xmppsync_journal::limits::SET_ASIDES_MAX;
use xmppsync_link::{Group, RequestError};
use xmppsync_replica::{
    Change, CompareError, Comparison, Csn, Differences, EntrySet, EntryUuid, Operation, Step, Unseen, Vector,
};
use xmppsync_wire::{Entries, Fetch, FileRequest, Payload, Reconcile, Session, WireError};

/// Why a comparison came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HealError {
    #[error("the peer does not answer: {0}")]
    Request(#[from] RequestError),
    #[error("its answer cannot be used: {0}")]
    Wire(#[from] WireError),
    #[error("its answer cannot be used: {0}")]
    Compare(#[from] CompareError),
    #[error("it answered something else than was asked")]
    Unexpected,
    #[error("an entry that is too large for a message did not come: {0}")]
    File(#[from] FileError),
    #[error("this server has no journal at the moment")]
    NoJournal,
    #[error("what it brought was lost on the way into the database")]
    Lost,
    #[error("this server is being stopped")]
    Stopped,
}

impl HealError {
    fn is_busy(&self) -> bool {
        let HealError::Request(RequestError::Refused { condition, .. }) = self else { return false };
        *condition == DefinedCondition::ResourceConstraint
    }
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Healed {
    /// Everything up to here was compared.
    pub(crate) vector: Vector,
    /// What of that vector was not seen.
    unseen: Unseen,
    /// States taken from the peer, and given to it.
    pub(crate) taken: usize,
    pub(crate) given: usize,
    /// States that could not be had.
    pub(crate) left: usize,
}

/// What a comparison needs.
pub(crate) struct Healer {
    pub(crate) group: Arc<Group>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: FullJid,
    pub(crate) session: Session,
}

impl Healer {
    /// Compares and mends. With `catch_up` the vector moves to the peer's: this replica was behind, and is not any more.
    pub(crate) async fn run(self, catch_up: bool) -> Result<Healed, HealError> {
        let losses = lock(&self.shared.to_apply).losses();
        let (differences, vector, unseen) = self.compare().await?;
        let Differences { here, there } = differences;
        let all: Vec<EntryUuid> = here.union(&there).copied().collect();
        let mut healed = Healed { vector, unseen, ..Healed::default() };
        let (mut offers, mut taken) = (Offers::default(), Taken::default());
        let fetched = self.fetch_all(&all, &mut offers, &mut taken, &mut healed).await;
        // What has come is of use, whatever was to follow.
        self.apply(&mut taken).await;
        fetched?;
        self.offer(offers, &mut healed).await?;
        if lock(&self.shared.to_apply).losses() != losses {
            return Err(HealError::Lost);
        }
        if catch_up {
            self.reach(&healed).await?;
        }
        Ok(healed)
    }

    async fn fetch_all(
        &self,
        mut asked: &[EntryUuid],
        offers: &mut Offers,
        taken: &mut Taken,
        healed: &mut Healed,
    ) -> Result<(), HealError> {
        while !asked.is_empty() {
            let chunk = &asked[..asked.len().min(xmppsync_wire::limits::FETCH_UUIDS_MAX)];
            let entries = self.fetch(chunk).await?;
            let answered = self.take(&entries, offers, taken, healed).await?;
            let consumed = chunk.iter().take_while(|uuid| answered.contains(*uuid)).count();
            // An answer that says nothing of anything would be asked for for ever.
            if consumed == 0 {
                return Err(HealError::Unexpected);
            }
            asked = &asked[consumed..];
            if taken.bytes > limits::STATES_BYTES_MAX {
                self.apply(taken).await;
            }
        }
        Ok(())
    }

    async fn apply(&self, taken: &mut Taken) {
        let Taken { states, .. } = std::mem::take(taken);
        states::apply(&self.shared, states).await;
    }

    async fn compare(&self) -> Result<(Differences, Vector, Unseen), HealError> {
        let vector = lock(&self.shared.vector).clone();
        let set = inventory(&self.shared).await.ok_or(HealError::NoJournal)?;
        let (mut comparison, mut frame) = Comparison::begin(set)?;
        let (mut peer, mut unseen) = (None, Unseen::default());
        for round in 0.. {
            let own = (round == 0).then(|| vector.clone());
            let ask =
                Reconcile { session: self.session, round, vector: own, unseen: Unseen::default(), frame };
            let Payload::Reconcile(answer) = self.request(Payload::Reconcile(ask)).await? else {
                return Err(HealError::Unexpected);
            };
            if round == 0 {
                (peer, unseen) = (answer.vector, answer.unseen);
            }
            match comparison.step(&answer.frame)? {
                Step::Ask(next) => frame = next,
                Step::Done(differences) => {
                    return Ok((differences, peer.ok_or(HealError::Unexpected)?, unseen));
                }
            }
        }
        Err(HealError::Unexpected)
    }

    async fn request(&self, payload: Payload) -> Result<Payload, HealError> {
        let answer =
            self.group.request(self.peer.clone(), payload.to_element()?, limits::PULL_TIMEOUT).await?;
        Ok(Payload::decode(&answer)?)
    }

    async fn fetch(&self, uuids: &[EntryUuid]) -> Result<Entries, HealError> {
        let fetch = Fetch { uuids: uuids.to_vec(), bytes_max: limits::ENTRIES_BYTES_MAX };
        match self.request(Payload::Fetch(fetch)).await? {
            Payload::Entries(entries) => Ok(entries),
            _ => Err(HealError::Unexpected),
        }
    }

    /// Decides what becomes of each entry; returns of which ones the answer said something.
    async fn take(
        &self,
        entries: &Entries,
        offers: &mut Offers,
        taken: &mut Taken,
        healed: &mut Healed,
    ) -> Result<BTreeSet<EntryUuid>, HealError> {
        let states: Vec<Change> = entries.states().cloned().collect();
        let uuids: Vec<EntryUuid> =
            states.iter().map(|change| change.uuid).chain(entries.absent.iter().copied()).collect();
        let own = Seen::now(&self.shared);
        let known = knowledge(&self.shared, uuids.clone()).await.ok_or(HealError::NoJournal)?;
        let before = taken.states.len();
        let nothing = Known::default();
        for state in states {
            let known = known.get(&state.uuid).unwrap_or(&nothing);
            match known.judge(&state, &own) {
                Judgement::Take => taken.push(state),
                Judgement::GiveEntry => offers.entries.push(state.uuid),
                Judgement::GiveTombstone(csn) => offers.tombstones.push(tombstone(state.uuid, csn)),
                Judgement::Leave => {}
            }
        }
        for uuid in &entries.absent {
            if known.get(uuid).is_some_and(|known| known.entry.is_some()) {
                offers.entries.push(*uuid);
            }
        }
        for uuid in &entries.large {
            let what = FileRequest::Entry(*uuid);
            let state = files::fetch(&self.group, &self.shared.offers, &self.peer, what).await?;
            let known = knowledge(&self.shared, vec![*uuid]).await.ok_or(HealError::NoJournal)?;
            if known.get(uuid).unwrap_or(&nothing).judge(&state, &own) == Judgement::Take {
                taken.push(state);
            }
        }
        healed.taken += taken.states.len() - before;
        healed.left += entries.refused.len();
        Ok(uuids.into_iter().chain(entries.refused.iter().chain(&entries.large).copied()).collect())
    }

    async fn offer(&self, offers: Offers, healed: &mut Healed) -> Result<(), HealError> {
        let mut states = Vec::new();
        for chunk in offers.entries.chunks(xmppsync_wire::limits::FETCH_UUIDS_MAX) {
            let found = reads::entries(&self.shared, chunk.to_vec()).await;
            states.extend(found.ok_or(HealError::Stopped)?.into_iter().flatten().map(as_put));
        }
        // Parents before their children; the other side looks where the deleted ones are.
        states.sort_by_key(|state: &Change| states::depth(state.operation.dn()));
        let mut states = offers.tombstones.into_iter().chain(states).peekable();
        while states.peek().is_some() {
            let mut entries = Entries::default();
            let mut bytes = xmppsync_wire::limits::ENTRIES_WRAPPING_BYTES;
            while let Some(state) = states.next_if(|state| {
                bytes += xmppsync_wire::encoded_size_estimate(state);
                bytes < limits::PAGE_PAYLOAD_BYTES_MAX
                    && entries.states().count() < xmppsync_wire::limits::FETCH_UUIDS_MAX
            }) {
                match state.operation {
                    Operation::Delete { .. } => entries.deletes.push(state),
                    _ => entries.puts.push(state),
                }
            }
            let mut count = entries.states().count();
            if count == 0 {
                // Too large for a stanza even alone: the peer gets it as a file.
                entries.large.extend(states.next().map(|state| state.uuid));
                count = 1;
            }
            let deletes = match self.request(Payload::Entries(entries)).await {
                Ok(Payload::Entries(answer)) => answer.deletes,
                Ok(_) => return Err(HealError::Unexpected),
                Err(HealError::Request(RequestError::Empty)) => Vec::new(),
                Err(problem) => return Err(problem),
            };
            healed.given += count.saturating_sub(deletes.len());
            healed.taken += deletes.len();
            states::apply(&self.shared, deletes).await;
        }
        Ok(())
    }

    /// What is missing before it is in no journal here: who lacks that too has to compare as well.
    async fn reach(&self, healed: &Healed) -> Result<(), HealError> {
        self.shared.add_unseen(&healed.unseen).await.ok_or(HealError::NoJournal)?;
        self.shared.store.write(healed.vector.iter().map(Record::Reached).collect());
        states::push(&self.shared, vec![Incoming::Reached(healed.vector.clone())]).await;
        Ok(())
    }
}

/// What this side gets.
#[derive(Default)]
struct Taken {
    states: Vec<Change>,
    bytes: usize,
}

impl Taken {
    fn push(&mut self, state: Change) {
        self.bytes += state.size();
        self.states.push(state);
    }
}

/// What this side has to give.
#[derive(Default)]
struct Offers {
    entries: Vec<EntryUuid>,
    tombstones: Vec<Change>,
}

/// What the journal knows of an entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) entry: Option<Csn>,
    pub(crate) tombstone: Option<Csn>,
    pub(crate) refused: bool,
}

/// What becomes of a state that a peer has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Take,
    GiveEntry,
    GiveTombstone(Csn),
    Leave,
}

impl Known {
    /// The later one wins, entry or delete.
    pub(crate) fn judge(&self, theirs: &Change, seen: &Seen) -> Judgement {
        let delete = matches!(theirs.operation, Operation::Delete { .. });
        match (self.entry, self.tombstone) {
            (Some(entry), _) if entry > theirs.csn => Judgement::GiveEntry,
            (Some(entry), _) if entry == theirs.csn && !delete => Judgement::Leave,
            (Some(_), _) => Judgement::Take,
            (None, _) if delete => Judgement::Leave,
            (None, Some(gone)) if gone >= theirs.csn => Judgement::GiveTombstone(gone),
            (None, _) if self.refused => Judgement::Leave,
            // It was here once in just this state.
            (None, None) if seen.covers(theirs.csn) => Judgement::GiveTombstone(theirs.csn),
            (None, _) => Judgement::Take,
        }
    }
}

pub(crate) fn tombstone(uuid: EntryUuid, csn: Csn) -> Change {
    Change { csn, uuid, operation: Operation::Delete { dn: String::new() } }
}

pub(crate) fn as_put(change: Change) -> Change {
    match change.operation {
        Operation::Add(entry) => Change { operation: Operation::Put(entry), ..change },
        _ => change,
    }
}

/// The entries of the database as one set.
pub(crate) async fn inventory(shared: &Shared) -> Option<EntrySet> {
    let listed = shared.store.ask(|journal| {
        let mut entries = Vec::new();
        journal.inventory_for_each(|uuid, csn| entries.push((uuid, csn)))?;
        Ok(entries)
    });
    let entries = listed.await.ok()?;
    // Hashing takes a while; the hub's thread has other things to do.
    tokio::task::spawn_blocking(|| EntrySet::new(entries).ok()).await.ok()?
}

/// What the journal knows of these entries.
pub(crate) async fn knowledge(shared: &Shared, uuids: Vec<EntryUuid>) -> Option<BTreeMap<EntryUuid, Known>> {
    let known = shared.store.ask(move |journal| {
        let refused: BTreeSet<EntryUuid> =
            journal.set_asides()?.into_iter().map(|set_aside| set_aside.uuid).collect();
        // So many that the oldest are forgotten: it may be any.
        let forgotten = refused.len() as u64 >= SET_ASIDES_MAX;
        let mut known = BTreeMap::new();
        for uuid in uuids {
            let entry = journal.inventory_get(uuid)?;
            let tombstone = journal.tombstone(uuid)?.map(|(csn, _)| csn);
            let refused = forgotten || refused.contains(&uuid);
            known.insert(uuid, Known { entry, tombstone, refused });
        }
        Ok(known)
    });
    known.await.ok()
}

/// Tells the admin what a comparison came to; nothing of a regular check that found nothing.
pub(crate) fn report(peer: &FullJid, catch_up: bool, outcome: &Result<Healed, HealError>) {
    match outcome {
        Ok(healed) if !catch_up && healed.taken + healed.given + healed.left == 0 => {
            debug!("compared with {peer}: nothing differs");
        }
        Ok(healed) if healed.taken + healed.given + healed.left == 0 => {
            info!("compared with {peer}: nothing differs");
        }
        Ok(Healed { taken, given, left: 0, .. }) => {
            info!("compared with {peer}: {taken} entries or deletes taken from it, {given} given to it");
        }
        Ok(Healed { taken, given, left, .. }) => warn!(
            "compared with {peer}: {taken} entries or deletes taken from it, {given} given to it, {left} still differ: \
             refused on one side (see \"set aside\" in its log), or too large"
        ),
        // It is tried again, with whom has time.
        Err(problem) if problem.is_busy() => debug!("not compared with {peer}: {problem}"),
        Err(problem) => warn!("the comparison with {peer} came to nothing: {problem}"),
    }
}
