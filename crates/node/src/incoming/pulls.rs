//! Pulls: the question for what is missing, and its answers.

use super::{Incoming, has_room};
use crate::files;
use crate::limits;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::Instant;
use tracing::{debug, info, warn};
use xmpp_parsers::minidom::Element;
use xmppsync_link::Group;
use xmppsync_replica::{Batch, Csn, PullId, ServerId, Vector};
use xmppsync_wire::{FileRequest, Large, Part, Payload, Pull};

/// The question that is open.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) id: PullId,
    pub(super) from: ServerId,
    pub(super) have: Vector,
    pub(super) part: Option<(Csn, u32)>,
}

/// The answer to a pull.
pub(crate) struct Pulled {
    asked: Asked,
    answer: Result<Answer, String>,
}

enum Answer {
    Element(Element),
    /// A single change that came as a file.
    Batch(Batch),
}

impl Incoming {
    pub(crate) fn handle_pulled(
        &mut self,
        group: &Arc<Group>,
        pulled: Pulled,
        shared: &Arc<Shared>,
        now: Instant,
    ) {
        if pulled.answer.is_ok() && !has_room(shared) {
            self.waiting = Some(pulled);
            return;
        }
        let Pulled { asked, answer } = pulled;
        let answer = match answer {
            Ok(Answer::Batch(batch)) => {
                self.handle_change(&asked, batch, shared, now);
                return;
            }
            Ok(Answer::Element(element)) => Ok(element),
            Err(problem) => Err(problem),
        };
        match answer.map(|page| Payload::decode(&page)) {
            Ok(Ok(Payload::Page(page)))
                if self.empty && self.inbox.is_asked(asked.id) && (page.more || !page.beyond.is_empty()) =>
            {
                self.inbox.hold();
                self.load_from = Some(asked.from);
            }
            Ok(Ok(Payload::Page(page))) => {
                // What is refused is a hole like any other: whoever shows it is asked for it again, after growing pauses.
                let from = format!("server {}", asked.from);
                let batches = page.batches.into_iter().filter_map(|batch| shared.clock.cut(batch, &from));
                self.inbox.handle_page(asked.id, batches.collect(), &page.beyond, page.more, now);
            }
            Ok(Ok(Payload::Part(part))) => self.handle_pulled_part(group, asked, part, shared, now),
            Ok(Ok(Payload::Large(large))) => self.fetch(group, asked, large, shared, now),
            // A change of just the size that fits a stanza but no page.
            Ok(Ok(Payload::Batch(batch))) => self.handle_change(&asked, batch, shared, now),
            Ok(other) => {
                let problem =
                    other.err().map_or_else(|| "it is no page".to_owned(), |problem| problem.to_string());
                warn!("the answer of server {} cannot be used: {problem}", asked.from);
                self.inbox.handle_pull_failure(asked.id, now);
            }
            Err(problem) => {
                debug!("server {} does not answer: {problem}", asked.from);
                self.inbox.handle_pull_failure(asked.id, now);
            }
        }
    }

    /// A change that was too large for a page.
    fn handle_change(&mut self, asked: &Asked, batch: Batch, shared: &Shared, now: Instant) {
        let batch = shared.clock.cut(batch, &format!("server {}", asked.from));
        self.inbox.handle_page(asked.id, batch.into_iter().collect(), &[], true, now);
    }

    /// A change that is too large for a page comes part by part.
    fn handle_pulled_part(
        &mut self,
        group: &Arc<Group>,
        asked: Asked,
        part: Part,
        shared: &Arc<Shared>,
        now: Instant,
    ) {
        let number = part.n + 1;
        let csn = asked.part.map(|(csn, _)| csn).or(part.change);
        match (self.pulled_parts.handle_part(part), csn) {
            (Ok(Some(batch)), _) => self.handle_change(&asked, batch, shared, now),
            (Ok(None), Some(csn)) => {
                self.ask(group, Asked { part: Some((csn, number)), ..asked }, shared, now)
            }
            (outcome, _) => {
                debug!("part from server {}: {:?}", asked.from, outcome.err());
                self.inbox.handle_pull_failure(asked.id, now);
            }
        }
    }

    pub(super) fn ask(&mut self, group: &Arc<Group>, asked: Asked, shared: &Arc<Shared>, now: Instant) {
        let request = self.members.get(asked.from).and_then(|member| {
            let bytes_max = shared.patience.bytes(&member.jid, limits::PAGE_BYTES_MAX);
            let pull = Pull { vector: asked.have.clone(), bytes_max, part: asked.part };
            Some((member.jid.clone(), Payload::Pull(pull).to_element().ok()?))
        });
        let Some((to, request)) = request else {
            self.inbox.handle_pull_failure(asked.id, now);
            return;
        };
        debug!("asking server {} for what follows {:?}", asked.from, asked.have);
        let (group, shared, pulled) = (group.clone(), Arc::clone(shared), self.pulled.clone());
        while self.requests.try_join_next().is_some() {}
        self.requests.spawn(async move {
            let answer = shared.patience.request(&group, to, request, limits::PULL_TIMEOUT).await;
            let answer = answer.map(Answer::Element).map_err(|problem| problem.to_string());
            // The driver has ended: nobody needs the answer.
            let _ = pulled.send(Pulled { asked, answer }).await;
        });
    }

    /// A change that is too large for stanzas comes as a file.
    fn fetch(&mut self, group: &Arc<Group>, asked: Asked, large: Large, shared: &Arc<Shared>, now: Instant) {
        let Some(member) = self.members.get(asked.from) else {
            self.inbox.handle_pull_failure(asked.id, now);
            return;
        };
        info!("a change of server {} ({} bytes) comes as a file", large.origin, large.bytes);
        let (from, group, shared) = (member.jid.clone(), group.clone(), Arc::clone(shared));
        let pulled = self.pulled.clone();
        self.requests.spawn(async move {
            let Large { origin, boot, seq: first, prev, csn, .. } = large;
            let fetched = files::fetch(&group, &shared.offers, &from, FileRequest::Change(csn)).await;
            let batch = |change| Answer::Batch(Batch { origin, boot, first, prev, changes: vec![change] });
            let answer = fetched.map(batch).map_err(|problem| problem.to_string());
            let _ = pulled.send(Pulled { asked, answer }).await;
        });
    }
}
