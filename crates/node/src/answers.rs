//! Answers to what peers ask: changes from the journal, entries from the database, frames of a comparison.

mod entries;

use crate::files;
use crate::heal;
use crate::limits;
use crate::shared::{Shared, lock};
use crate::snapshot::Answer;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::Semaphore;
use tracing::{Instrument, debug, info, warn};
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::DefinedCondition;
use xmppsync_link::{FileOffer, Group, Reply, ReplyLost};
use xmppsync_replica::{Batch, Csn, EntrySet, Unseen, Vector};
use xmppsync_wire::{
    FileRequest, Large, LoadRequest, Page, Payload, Pull, Reconcile, Session, encoded_size_estimate,
};

/// What cannot be answered, and why.
type Refusal = (DefinedCondition, String);

/// Gives out what peers lack.
#[derive(Clone)]
pub(crate) struct Answers {
    shared: Arc<Shared>,
    group: Arc<Group>,
    /// Where the journal is, and snapshots are put.
    dir: PathBuf,
    places: Arc<Semaphore>,
    loads: Arc<Semaphore>,
    files: Arc<Semaphore>,
    comparisons: Arc<Mutex<Vec<Open>>>,
    /// The parts of the large change that was asked for last.
    parts: Arc<Mutex<Option<Parts>>>,
}

/// A change that no page can hold, as the parts of its batch.
type Parts = (Csn, Vec<Element>);

/// A comparison that a peer has begun.
struct Open {
    session: Session,
    /// `None` while the entries are being read.
    listed: Option<Listed>,
    touched: Instant,
}

/// The entries at one moment.
#[derive(Clone)]
struct Listed {
    set: Arc<EntrySet>,
    /// What was in the database when it began to be read, and what of that was not seen.
    vector: Vector,
    unseen: Unseen,
}

impl Answers {
    pub(crate) fn new(shared: Arc<Shared>, group: Arc<Group>, dir: PathBuf) -> Answers {
        let [places, loads, files] = [limits::ANSWERS_MAX, limits::LOADS_MAX, limits::FILES_MAX]
            .map(|places| Arc::new(Semaphore::new(places)));
        let (comparisons, parts) = (Arc::default(), Arc::default());
        Answers { shared, group, dir, places, loads, files, comparisons, parts }
    }

    /// The future that answers a request.
    pub(crate) fn answer(
        &self,
        from: FullJid,
        request: Payload,
        reply: Reply,
    ) -> impl Future<Output = ()> + Send + use<> {
        let this = self.clone();
        async move {
            let places = match request {
                Payload::LoadRequest(_) => &this.loads,
                Payload::FileRequest(_) => &this.files,
                _ => &this.places,
            };
            let Ok(_place) = places.try_acquire() else {
                told(reply.error(DefinedCondition::ResourceConstraint, "too many ask at the same time"));
                return;
            };
            let answer = match request {
                Payload::LoadRequest(request) => return this.load(from, &request, reply).await,
                Payload::FileRequest(request) => return this.file(from, request, reply).await,
                Payload::Pull(pull) => this.page(pull).await,
                Payload::Reconcile(_) | Payload::Fetch(_) | Payload::Offer(_) if this.is_loading() => {
                    busy("this server is being loaded")
                }
                Payload::Reconcile(question) => this.compare(question).await,
                Payload::Fetch(fetch) => this.entries(fetch).await,
                Payload::Offer(offer) => this.look_at(&from, offer).await,
                _ => Err((DefinedCondition::FeatureNotImplemented, "this cannot be asked for".to_owned())),
            };
            told(match answer {
                Ok(element) => reply.ok(element),
                Err((condition, text)) => reply.error(condition, &text),
            });
        }
    }

    /// Its vector does not tell what is here.
    fn is_loading(&self) -> bool {
        self.shared.loading.progress().is_some()
    }

    async fn page(&self, pull: Pull) -> Result<Element, Refusal> {
        if let Some((csn, number)) = pull.part
            && let Some(part) = self.known_part(csn, number)
        {
            return Ok(part);
        }
        let bytes_max = pull.bytes_max.min(limits::PAGE_BYTES_MAX) as usize;
        let vector = pull.vector;
        let found = self.shared.store.ask(move |journal| journal.changes(&vector, bytes_max)).await;
        let Ok(found) = found else { return no_journal() };
        let batches: Vec<Batch> = found.runs.into_iter().map(|run| run.batch).collect();
        if let Some(large) = batches.first().and_then(large) {
            return written(&Payload::Large(large));
        }
        if let Some(first) = batches.first().filter(|first| !fits_page(&first.changes[..1])) {
            return self.first_part(first, pull.part.map_or(0, |(_, number)| number));
        }
        let (batches, all) = up_to_a_page(batches);
        written(&Payload::Page(Page { batches, beyond: found.beyond, more: found.more || !all }))
    }

    /// Announces a snapshot and sends it.
    async fn load(&self, to: FullJid, request: &LoadRequest, reply: Reply) {
        let resume = request.resume.as_ref().map(|(id, _)| id.as_str());
        let found = match self.shared.loading.progress() {
            Some(_) => Answer::Empty,
            None => {
                let unseen = self.shared.unseen_for_peers().await;
                self.shared.snapshots.answer(&self.shared, &self.dir, unseen, resume)
            }
        };
        let (snapshot, file) = match found {
            Answer::Ready(snapshot, file) => (snapshot, file),
            Answer::Wait => {
                told(reply.error(DefinedCondition::ResourceConstraint, "the snapshot is being made"));
                return;
            }
            Answer::Empty => {
                let text = "this server has no whole database, or cannot make a snapshot of it (see its log)";
                told(reply.error(DefinedCondition::ItemNotFound, text));
                return;
            }
        };
        let offer = FileOffer {
            id: snapshot.id.clone(),
            name: format!("{}.ldif.zst", snapshot.id),
            size: snapshot.bytes,
            sha256: snapshot.sha256,
        };
        self.send(to, &Payload::Snapshot(snapshot), offer, file, reply).await;
    }

    /// Announces a single change, or an entry, and sends it.
    async fn file(&self, to: FullJid, request: FileRequest, reply: Reply) {
        match files::prepare(&self.shared, &self.dir, request).await {
            Some((announcement, offer, file)) => {
                self.send(to, &Payload::File(announcement), offer, file, reply).await;
            }
            None => told(reply.error(DefinedCondition::ItemNotFound, "it is not here (any more)")),
        }
    }

    async fn send(
        &self,
        to: FullJid,
        announcement: &Payload,
        offer: FileOffer,
        file: std::fs::File,
        reply: Reply,
    ) {
        match written(announcement) {
            Ok(element) => told(reply.ok(element)),
            Err((condition, text)) => {
                told(reply.error(condition, &text));
                return;
            }
        }
        let name = offer.name.clone();
        let sent = match self.group.offer_file(to.clone(), offer, file) {
            Ok(outgoing) => outgoing.done().await.map_err(|problem| problem.to_string()),
            Err(problem) => Err(problem.to_string()),
        };
        match sent {
            Ok(sent) => info!("the file {name} went to {to}: {} bytes by {}", sent.bytes, sent.transport),
            Err(problem) => warn!("the file {name} did not reach {to}: {problem}"),
        }
    }

    async fn compare(&self, question: Reconcile) -> Result<Element, Refusal> {
        let Reconcile { session, round, vector, frame, .. } = question;
        let is_first = vector.is_some();
        let listed = if is_first { self.open(session).await? } else { self.find(session)? };
        let frame = listed.set.answer(&frame);
        let frame = frame.map_err(|problem| (DefinedCondition::BadRequest, problem.to_string()))?;
        let (vector, unseen) =
            if is_first { (Some(listed.vector), listed.unseen) } else { (None, Unseen::default()) };
        written(&Payload::Reconcile(Reconcile { session, round, vector, unseen, frame }))
    }

    /// Lists the entries. That may take longer than the peer waits for an answer: then it asks again.
    async fn open(&self, session: Session) -> Result<Listed, Refusal> {
        if lock(&self.shared.to_apply).is_taking() {
            return busy("what another comparison brought is on its way into the database");
        }
        if !reserve(&mut lock(&self.comparisons), session) {
            let is_known = lock(&self.comparisons).iter().any(|open| open.session == session);
            return if is_known {
                self.find(session)
            } else {
                busy("other servers are comparing their entries")
            };
        }
        debug!("a server compares its entries with this one");
        let this = self.clone();
        let listing = tokio::spawn(async move { this.list(session).await }.in_current_span());
        match tokio::time::timeout(limits::LISTING_ANSWER, listing).await {
            Ok(_) => self.find(session),
            Err(_) => not_yet(),
        }
    }

    async fn list(&self, session: Session) {
        // The vector first: what it covers is in the set.
        let vector = lock(&self.shared.vector).clone();
        let unseen = self.shared.unseen_for_peers().await;
        let set = heal::inventory(&self.shared).await.map(Arc::new);
        let listed = set.map(|set| Listed { set, vector, unseen });
        let mut open = lock(&self.comparisons);
        match &listed {
            Some(_) => open.iter_mut().filter(|open| open.session == session).for_each(|open| {
                (open.listed, open.touched) = (listed.clone(), Instant::now());
            }),
            None => open.retain(|open| open.session != session),
        }
    }

    fn find(&self, session: Session) -> Result<Listed, Refusal> {
        let mut open = lock(&self.comparisons);
        let found = open.iter_mut().find(|open| open.session == session);
        let found = found.ok_or_else(|| {
            (DefinedCondition::ItemNotFound, "this comparison is not known (any more)".to_owned())
        })?;
        found.touched = Instant::now();
        found.listed.clone().map_or_else(not_yet, Ok)
    }

    fn known_part(&self, csn: Csn, number: u32) -> Option<Element> {
        let parts = lock(&self.parts);
        parts.as_ref().filter(|(known, _)| *known == csn)?.1.get(number as usize).cloned()
    }

    /// One part of a change that no page can hold. A peer asks for one after the other.
    fn first_part(&self, batch: &Batch, number: u32) -> Result<Element, Refusal> {
        let alone = Batch { changes: batch.changes[..1].to_vec(), ..*batch };
        let parts = xmppsync_wire::split(&alone)
            .map_err(|problem| (DefinedCondition::ResourceConstraint, problem.to_string()))?;
        let part = parts.get(number as usize).cloned();
        *lock(&self.parts) = Some((alone.changes[0].csn, parts));
        part.ok_or_else(|| (DefinedCondition::BadRequest, format!("there is no part {number}")))
    }
}

/// Takes a place for a comparison, before the set of entries is: that takes a while, and others ask meanwhile. `false`: there is
/// none, or the comparison has it.
fn reserve(open: &mut Vec<Open>, session: Session) -> bool {
    if open.iter().any(|open| open.session == session) {
        return false;
    }
    let patience = |open: &Open| match open.listed {
        Some(_) => limits::COMPARISON_TIMEOUT,
        None => limits::LISTING_PATIENCE,
    };
    open.retain(|open| open.touched.elapsed() < patience(open));
    // Who has learned all that differs does not say so; somebody else needs the place.
    let idle = |open: &Open| open.listed.is_some() && open.touched.elapsed() > limits::COMPARISON_PAUSE;
    if open.len() >= limits::COMPARISONS_MAX
        && let Some(place) = open.iter().position(idle)
    {
        open.remove(place);
    }
    if open.len() >= limits::COMPARISONS_MAX {
        return false;
    }
    open.push(Open { session, listed: None, touched: Instant::now() });
    true
}

/// The reference to a batch's first change, if that is too large even for parts.
pub(crate) fn large(batch: &Batch) -> Option<Large> {
    let change = batch.changes.first()?;
    let bytes = encoded_size_estimate(change);
    (bytes > limits::PARTS_BYTES_MAX).then_some(Large {
        origin: batch.origin,
        boot: batch.boot,
        seq: batch.first,
        prev: batch.prev,
        csn: change.csn,
        bytes: bytes as u64,
    })
}

fn written(payload: &Payload) -> Result<Element, Refusal> {
    payload.to_element().map_err(|problem| (DefinedCondition::ResourceConstraint, problem.to_string()))
}

fn no_journal<T>() -> Result<T, Refusal> {
    busy("this server has no journal at the moment")
}

/// The peer asks again in a moment.
fn not_yet<T>() -> Result<T, Refusal> {
    Err((DefinedCondition::UnexpectedRequest, "the entries are being listed".to_owned()))
}

fn busy<T>(text: &str) -> Result<T, Refusal> {
    Err((DefinedCondition::ResourceConstraint, text.to_owned()))
}

fn told(result: Result<(), ReplyLost>) {
    if let Err(problem) = result {
        debug!("{problem}");
    }
}

fn fits_page(changes: &[xmppsync_replica::Change]) -> bool {
    changes.iter().map(encoded_size_estimate).sum::<usize>() < limits::PAGE_PAYLOAD_BYTES_MAX
}

/// Cuts off what makes the page too large once it is written as XML. Returns whether everything is in it.
fn up_to_a_page(batches: Vec<Batch>) -> (Vec<Batch>, bool) {
    const BATCH_BYTES: usize = 256;
    let mut room = limits::PAGE_PAYLOAD_BYTES_MAX;
    let mut taken = Vec::new();
    for mut batch in batches {
        room = room.saturating_sub(BATCH_BYTES);
        let fit = batch
            .changes
            .iter()
            .take_while(|change| {
                let size = encoded_size_estimate(change);
                let fits = size <= room;
                room = room.saturating_sub(if fits { size } else { room });
                fits
            })
            .count();
        let whole = fit == batch.changes.len() && taken.len() < xmppsync_wire::limits::BATCHES_PER_PAGE_MAX;
        batch.changes.truncate(fit);
        if fit > 0 && taken.len() < xmppsync_wire::limits::BATCHES_PER_PAGE_MAX {
            taken.push(batch);
        }
        if !whole {
            return (taken, false);
        }
    }
    (taken, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_has_its_place_before_its_entries_are_listed() {
        let listed = || {
            let set = Arc::new(EntrySet::new(Vec::new()).unwrap());
            Some(Listed { set, vector: Vector::default(), unseen: Unseen::default() })
        };
        let [first, second, third] = [1, 2, 3].map(Session::new);
        let mut open = Vec::new();
        assert!(reserve(&mut open, first) && reserve(&mut open, second));
        assert!(!reserve(&mut open, third), "all places are taken");
        assert!(!reserve(&mut open, first), "it is being listed already");
        open[0].listed = listed();
        // Only one that was listed can be idle.
        let long_ago = Instant::now().checked_sub(limits::COMPARISON_PAUSE * 2).unwrap();
        open[1].touched = long_ago;
        assert!(!reserve(&mut open, third));
        open[0].touched = long_ago;
        assert!(reserve(&mut open, third) && open.len() == limits::COMPARISONS_MAX);
    }
}
