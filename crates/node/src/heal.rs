//! The comparison of this database with a peer's, and the mending of what differs, in both directions.
//!
//! The side that begins learns which entries differ ([`Comparison`]), asks the peer what it knows of them, and judges what becomes of
//! each here ([`Sides::judge`](xmppsync_replica::Sides::judge)). What the peer is to look at is offered to it: it does the same.

mod fetching;
mod judging;
pub(crate) mod knowledge;
mod offering;

use crate::files::FileError;
use crate::limits;
use crate::reads;
use crate::shared::{Shared, lock};
use crate::states;
use crate::to_apply::Incoming;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::stanza_error::DefinedCondition;
use xmppsync_journal::Record;
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
}

impl HealError {
    fn is_busy(&self) -> bool {
        self.is_refused_for(DefinedCondition::ResourceConstraint)
    }

    /// The peer is reading its entries.
    fn is_not_yet(&self) -> bool {
        self.is_refused_for(DefinedCondition::UnexpectedRequest)
    }

    fn is_refused_for(&self, why: DefinedCondition) -> bool {
        let HealError::Request(RequestError::Refused { condition, .. }) = self else { return false };
        *condition == why
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
    /// Entries that are left alone, because something comes to them in its turn.
    pub(crate) coming: usize,
}

/// What a comparison needs.
pub(crate) struct Healer {
    pub(crate) group: Arc<Group>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: FullJid,
    /// The vector moves to the peer's: this replica was behind, and is not any more.
    pub(crate) catches_up: bool,
}

impl Healer {
    /// Compares and mends all entries, or looks at these only.
    pub(crate) async fn run(self, only: Option<Vec<EntryUuid>>) -> Result<Healed, HealError> {
        let Some(uuids) = only else { return self.mend_all().await };
        let mut healed = Healed::default();
        self.mend(&uuids, &mut healed).await?;
        Ok(healed)
    }

    async fn mend_all(&self) -> Result<Healed, HealError> {
        let losses = lock(&self.shared.to_apply).losses();
        let (differences, vector, unseen) = self.compare().await?;
        let Differences { here, there } = differences;
        let mut all: BTreeSet<EntryUuid> = here.union(&there).copied().collect();
        all.extend(in_question(&self.shared));
        let mut healed = Healed { vector, unseen, ..Healed::default() };
        self.mend(&all.into_iter().collect::<Vec<_>>(), &mut healed).await?;
        if lock(&self.shared.to_apply).losses() != losses {
            return Err(HealError::Lost);
        }
        if self.catches_up {
            self.reach(&healed).await?;
        }
        Ok(healed)
    }

    async fn mend(&self, uuids: &[EntryUuid], healed: &mut Healed) -> Result<(), HealError> {
        let offers = self.look_at(uuids, healed).await?;
        self.offer_all(offers, healed).await
    }

    async fn compare(&self) -> Result<(Differences, Vector, Unseen), HealError> {
        let vector = lock(&self.shared.vector).clone();
        let set = inventory(&self.shared).await.ok_or(HealError::NoJournal)?;
        let (mut comparison, mut frame) = Comparison::begin(set)?;
        let session = Session::new(rand::random());
        let (mut peer, mut unseen) = (None, Unseen::default());
        for round in 0.. {
            let own = (round == 0).then(|| vector.clone());
            let ask = Reconcile { session, round, vector: own, unseen: Unseen::default(), frame };
            let answer = match round {
                0 => self.begin(Payload::Reconcile(ask)).await?,
                _ => self.request(Payload::Reconcile(ask)).await?,
            };
            let Payload::Reconcile(answer) = answer else { return Err(HealError::Unexpected) };
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

    /// The peer reads all of its entries first, which may take longer than an answer.
    async fn begin(&self, ask: Payload) -> Result<Payload, HealError> {
        let until = Instant::now() + limits::LISTING_PATIENCE;
        loop {
            match self.request(ask.clone()).await {
                Err(problem) if problem.is_not_yet() && Instant::now() < until => {
                    tokio::time::sleep(limits::LISTING_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn request(&self, payload: Payload) -> Result<Payload, HealError> {
        self.request_within(payload, limits::PULL_TIMEOUT).await
    }

    async fn request_within(&self, payload: Payload, timeout: Duration) -> Result<Payload, HealError> {
        let (peer, payload) = (self.peer.clone(), payload.to_element()?);
        let answer = self.shared.patience.request(&self.group, peer, payload, timeout).await?;
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

/// Entries in doubt, entries that changes wait for, and those whose changes wait.
pub(crate) fn in_question(shared: &Shared) -> BTreeSet<EntryUuid> {
    let mut all = lock(&shared.names).doubts.clone();
    all.extend(lock(&shared.to_apply).waiting.entries());
    all
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
    let entries = reads::prints(shared).await?;
    // Hashing takes a while; the hub's thread has other things to do.
    tokio::task::spawn_blocking(|| EntrySet::new(entries).ok()).await.ok()?
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
             refused on one side (see \"set aside\" in its log), too large, or written without a pause"
        ),
        // It is tried again, with whom has time.
        Err(problem) if problem.is_busy() => debug!("not compared with {peer}: {problem}"),
        // Whose clock it is, and how far ahead, was told when it was found.
        Err(problem @ HealError::Drift) => debug!("the comparison with {peer} moves nothing: {problem}"),
        Err(problem) => warn!("the comparison with {peer} came to nothing: {problem}"),
    }
}
