//! From the room, the nodes and the answers of peers to the queue of changes to apply.

use crate::host::Database;
use crate::limits;
use crate::members::{Members, Seen};
use crate::replica::ReplicaConfig;
use crate::shared::{Shared, lock};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};
use xmpp_parsers::jid::{BareJid, FullJid};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::DefinedCondition;
use xmppsync_link::{Group, RequestError};
use xmppsync_replica::{Action, Batch, BootId, Inbox, InboxLimits, PullFailure, ServerId, StreamCard};
use xmppsync_wire::{Assembler, Card, NoticeKind, Part, Payload, Pull};

/// What was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    origin: ServerId,
    after: Option<(BootId, u64)>,
    part: Option<u32>,
}

/// The answer to a pull.
pub(crate) struct Pulled {
    asked: Asked,
    answer: Result<Element, RequestError>,
}

pub(crate) struct Incoming {
    inbox: Inbox,
    assembler: Assembler,
    pulled_parts: Assembler,
    members: Members,
    pulled: Sender<Pulled>,
    /// Dropped with the driver, so that nothing holds on to the group.
    requests: JoinSet<()>,
    /// Origins whose batches did not fit into the queue to apply.
    overflowed: BTreeSet<ServerId>,
    /// Members whose card cannot be used, so that each is reported once.
    refused_cards: BTreeSet<BareJid>,
    /// Payloads that were dropped because they could not be decoded or their sender had no right.
    dropped: u64,
    gaps: u64,
}

impl Incoming {
    pub(crate) fn new(_config: &ReplicaConfig, pulled: Sender<Pulled>) -> Incoming {
        Incoming {
            inbox: Inbox::new(InboxLimits::default()),
            assembler: Assembler::new(),
            pulled_parts: Assembler::new(),
            members: Members::default(),
            pulled,
            requests: JoinSet::new(),
            overflowed: BTreeSet::new(),
            refused_cards: BTreeSet::new(),
            dropped: 0,
            gaps: 0,
        }
    }

    pub(crate) fn handle_offline(&mut self) {
        self.members.clear();
    }

    pub(crate) fn handle_gone(&mut self, jid: &FullJid) {
        if let Some(server) = self.members.handle_gone(jid) {
            info!("server {server} ({jid}) left the room");
        }
    }

    /// Returns the peer's node to subscribe to, when the peer is new.
    pub(crate) fn handle_card(
        &mut self,
        jid: FullJid,
        payload: &Element,
        shared: &Shared,
        config: &ReplicaConfig,
    ) -> Option<(BareJid, String)> {
        let bare = jid.to_bare();
        let card = match self.usable_card(&bare, payload, config) {
            Ok(card) => card,
            Err(problem) => {
                if self.refused_cards.insert(bare) {
                    error!("{jid} does not take part: {problem}");
                }
                return None;
            }
        };
        let stream =
            StreamCard { origin: card.sid, boot: card.boot, seq: card.seq, csn: card.vector.get(card.sid) };
        let (node, server) = (card.node, card.sid);
        let seen = self.members.handle_card(jid.clone(), server);
        match &seen {
            Seen::ServerIdTaken(owner) => {
                if self.refused_cards.insert(bare) {
                    error!(
                        "{jid} does not take part: {owner} has the same serverID {server}; give every server its own"
                    );
                }
                return None;
            }
            Seen::Joined => info!("server {server} ({jid}) is in the room"),
            Seen::Updated => {}
        }
        self.refused_cards.remove(&bare);
        let covered = lock(&shared.vector).get(server);
        self.inbox.handle_card(stream, covered);
        (seen == Seen::Joined).then_some((bare, node))
    }

    fn usable_card(&self, jid: &BareJid, payload: &Element, config: &ReplicaConfig) -> Result<Card, String> {
        let card = match Payload::decode(payload) {
            Ok(Payload::Card(card)) => card,
            Ok(_) => return Err("its presence carries no card".to_owned()),
            Err(problem) => return Err(problem.to_string()),
        };
        if card.suffix != config.nsuffix {
            return Err(format!(
                "it has the database \"{}\" in the room of \"{}\"; give every database its own room, see xmppsync-room",
                card.suffix, config.nsuffix
            ));
        }
        if card.sid == config.server_id {
            return Err(format!("it has this server's serverID {}; give every server its own", card.sid));
        }
        debug!("card of {jid}: sequence {}, vector {:?}", card.seq, card.vector);
        Ok(card)
    }

    pub(crate) fn handle_live(&mut self, from: &BareJid, payload: &Element) {
        let batch = match Payload::decode(payload) {
            Ok(Payload::Batch(batch)) => Some(batch),
            Ok(Payload::Part(part)) => {
                if !self.members.may_send(from, part.origin) {
                    self.drop_payload(from, &"it is not the server whose changes these claim to be");
                    return;
                }
                match self.assembler.handle_part(part) {
                    Ok(whole) => whole,
                    Err(problem) => {
                        // A lost part is a hole in the stream like any other.
                        debug!("part from {from}: {problem}");
                        None
                    }
                }
            }
            Ok(_) => None,
            Err(problem) => {
                self.drop_payload(from, &problem);
                None
            }
        };
        match batch {
            Some(batch) if self.members.may_send(from, batch.origin) => self.inbox.handle_batch(batch),
            Some(_) => self.drop_payload(from, &"it is not the server whose changes these claim to be"),
            None => {}
        }
    }

    fn drop_payload(&mut self, from: &BareJid, why: &dyn std::fmt::Display) {
        self.dropped += 1;
        // Powers of two: a flood shows without flooding the log.
        if self.dropped.is_power_of_two() {
            warn!("a message from {from} was dropped: {why}; {} in all", self.dropped);
        }
    }

    pub(crate) fn handle_pulled(
        &mut self,
        group: &Arc<Group>,
        pulled: Pulled,
        shared: &Shared,
        now: Instant,
    ) {
        let Pulled { asked, answer } = pulled;
        let origin = asked.origin;
        let failure = match answer.map(|page| Payload::decode(&page)) {
            // Asked again when there is room.
            Ok(Ok(_)) if !lock(&shared.to_apply).has_room() => PullFailure::Unreachable,
            Ok(Ok(Payload::Page(page))) => {
                self.inbox.handle_page(origin, asked.after, page.batches, page.more, now);
                return;
            }
            Ok(Ok(Payload::Part(part))) if part.origin == origin => {
                self.handle_pulled_part(group, asked, part, shared, now);
                return;
            }
            // A change of just the size that fits a stanza but no page.
            Ok(Ok(Payload::Batch(batch))) => {
                self.inbox.handle_page(origin, asked.after, vec![batch], true, now);
                return;
            }
            Ok(Ok(_)) => PullFailure::Unreachable,
            Ok(Err(problem)) => {
                warn!("the answer of server {origin} cannot be used: {problem}");
                PullFailure::Unreachable
            }
            Err(RequestError::Refused { condition: DefinedCondition::ItemNotFound, .. }) => {
                PullFailure::OutOfReach
            }
            Err(problem) => {
                debug!("server {origin} does not answer: {problem}");
                PullFailure::Unreachable
            }
        };
        self.inbox.handle_pull_failure(origin, asked.after, failure, now);
    }

    /// A change that is too large for a page comes part by part.
    fn handle_pulled_part(
        &mut self,
        group: &Arc<Group>,
        asked: Asked,
        part: Part,
        shared: &Shared,
        now: Instant,
    ) {
        let next = Asked { part: Some(part.n + 1), ..asked };
        match self.pulled_parts.handle_part(part) {
            Ok(Some(batch)) => self.inbox.handle_page(asked.origin, asked.after, vec![batch], true, now),
            Ok(None) => self.ask(group, shared, next, now),
            Err(problem) => {
                debug!("part from server {}: {problem}", asked.origin);
                self.inbox.handle_pull_failure(asked.origin, asked.after, PullFailure::Unreachable, now);
            }
        }
    }

    /// Carries out what the inbox wants. Returns when to look again.
    pub(crate) fn act(
        &mut self,
        group: &Arc<Group>,
        shared: &Shared,
        config: &ReplicaConfig,
        now: Instant,
    ) -> Option<Instant> {
        self.inbox.handle_timeout(now);
        self.resume(shared);
        while let Some(action) = self.inbox.poll_action() {
            match action {
                Action::Apply { batch, contiguous } => self.queue(batch, contiguous, shared),
                Action::Pull { origin, after } => {
                    self.ask(group, shared, Asked { origin, after, part: None }, now)
                }
                Action::Gap { origin, from, to } => {
                    self.gaps += 1;
                    if from == 0 {
                        info!("this server lacks changes of server {origin}; asking for them");
                    } else {
                        warn!(
                            "changes {from} to {to} of server {origin} are missing; asking for them ({} holes so far)",
                            self.gaps
                        );
                        let body = format!(
                            "server {} lacks changes {from} to {to} of server {origin}",
                            config.server_id
                        );
                        say(group, config, NoticeKind::Gap, body);
                    }
                }
                Action::Healed { origin } => info!("all changes of server {origin} are here"),
                Action::Incomplete { origin } => {
                    error!(
                        "server {origin} does not have the changes any more that this server lacks; \
                        this copy stays incomplete until it is loaded anew"
                    );
                    let body = format!(
                        "server {} cannot get the changes of server {origin} that it lacks",
                        config.server_id
                    );
                    say(group, config, NoticeKind::Problem, body);
                }
            }
        }
        self.inbox.poll_timeout()
    }

    fn queue(&mut self, batch: Batch, contiguous: bool, shared: &Shared) {
        let origin = batch.origin;
        if self.overflowed.contains(&origin) {
            return;
        }
        if !lock(&shared.to_apply).push(batch, contiguous) {
            warn!(
                "more changes come than can be applied; those of server {origin} are asked for again later"
            );
            self.overflowed.insert(origin);
        }
    }

    /// Once everything that did fit is applied, the vector tells where to go on.
    fn resume(&mut self, shared: &Shared) {
        if lock(&shared.to_apply).take_lost() {
            self.overflowed.extend(self.inbox.origins());
        }
        if !self.overflowed.is_empty() && lock(&shared.to_apply).is_idle() {
            for origin in std::mem::take(&mut self.overflowed) {
                self.inbox.handle_overflow(origin);
            }
        }
    }

    fn ask(&mut self, group: &Arc<Group>, shared: &Shared, asked: Asked, now: Instant) {
        let Asked { origin, after, part } = asked;
        let vector = lock(&shared.vector).get(origin).into_iter().collect();
        let pull = Pull { origin, vector, after, part, bytes_max: limits::PAGE_BYTES_MAX };
        let (Some(member), Ok(request)) = (self.members.get(origin), Payload::Pull(pull).to_element()) else {
            self.inbox.handle_pull_failure(origin, after, PullFailure::Unreachable, now);
            return;
        };
        let (to, group, pulled) = (member.jid.clone(), group.clone(), self.pulled.clone());
        while self.requests.try_join_next().is_some() {}
        self.requests.spawn(async move {
            let answer = group.request(to, request, limits::PULL_TIMEOUT).await;
            // The driver has ended: nobody needs the answer.
            let _ = pulled.send(Pulled { asked, answer }).await;
        });
    }

    /// Asks the host for a thread when there is something to apply. Returns when to ask again.
    pub(crate) fn submit(
        &mut self,
        shared: &Shared,
        database: &dyn Database,
        now: Instant,
    ) -> Option<Instant> {
        let mut to_apply = lock(&shared.to_apply);
        if to_apply.is_empty() || to_apply.running {
            return None;
        }
        if let Some(until) = to_apply.pause_until(now) {
            return Some(until);
        }
        to_apply.running = true;
        drop(to_apply);
        if database.submit_apply() {
            return None;
        }
        lock(&shared.to_apply).running = false;
        Some(now + limits::TEMPORARY_PAUSE)
    }
}

fn say(group: &Group, config: &ReplicaConfig, kind: NoticeKind, body: String) {
    let notice = Payload::Notice(xmppsync_wire::Notice { kind, sid: config.server_id }).to_element().ok();
    if let Err(problem) = group.say(body, notice) {
        debug!("not said: {problem}");
    }
}
