//! The comparison of this database with a peer's, and the mending of what differs, in both directions.
//!
//! The side that begins learns what differs ([`Comparison`]), fetches from the peer what is newer there, and offers
//! what is newer here. An entry that one side lacks is deleted on the other one only when a tombstone says so, or when the side
//! that lacks it has seen that state of it: so it is offered to that side, which decides.

mod fetching;
mod offering;

use crate::files::FileError;
use crate::limits;
use crate::shared::{Seen, Shared, lock};
use crate::states;
use crate::to_apply::Incoming;
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
use xmppsync_wire::{Payload, Reconcile, Session, WireError};

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
    #[error("it has changes that are further ahead of this server's clock than xmppsync-max-drift allows")]
    Drift,
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
        let offers = self.fetch_all(&all, &mut healed).await?;
        self.offer_all(offers, &mut healed).await?;
        if lock(&self.shared.to_apply).losses() != losses {
            return Err(HealError::Lost);
        }
        if catch_up {
            self.reach(&healed).await?;
        }
        Ok(healed)
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

    /// What is missing before it is in no journal here: who lacks that too has to compare as well.
    async fn reach(&self, healed: &Healed) -> Result<(), HealError> {
        if self.shared.clock.refuses_any(&healed.vector, &self.peer) {
            return Err(HealError::Drift);
        }
        // What the peer could not give tells nothing of whether it was deleted.
        let unseen = if healed.left > 0 { &Unseen::all(&healed.vector) } else { &healed.unseen };
        self.shared.take_over_unseen(unseen).await.ok_or(HealError::NoJournal)?;
        self.shared.store.write(healed.vector.iter().map(Record::Reached).collect());
        states::push(&self.shared, vec![Incoming::Reached(healed.vector.clone())]).await;
        Ok(())
    }
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
    Change { csn, uuid, parent: None, operation: Operation::Delete { dn: String::new() } }
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
        // Whose clock it is, and how far ahead, was told when it was found.
        Err(problem @ HealError::Drift) => debug!("the comparison with {peer} moves nothing: {problem}"),
        Err(problem) => warn!("the comparison with {peer} came to nothing: {problem}"),
    }
}
