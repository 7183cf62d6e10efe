//! From the room, the nodes and the answers of peers to the queue of changes to apply.

use crate::files;
use crate::host::Database;
use crate::known::KnownPeers;
use crate::limits;
use crate::members::{Members, Seen};
use crate::replica::ReplicaConfig;
use crate::shared::{Incoming as Work, Shared, lock};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};
use xmpp_parsers::jid::{BareJid, FullJid};
use xmpp_parsers::minidom::Element;
use xmppsync_journal::Record;
use xmppsync_link::Group;
use xmppsync_replica::{
    Action, Batch, Change, Csn, Inbox, InboxLimits, PeerCard, PullId, ServerId, Span, Vector,
};
use xmppsync_wire::{Assembler, Card, FileRequest, Large, NoticeKind, Part, Payload, Phase, Pull};

/// The question that is open.
#[derive(Clone, Debug)]
struct Asked {
    id: PullId,
    from: ServerId,
    have: Vector,
    part: Option<(Csn, u32)>,
}

/// What cannot be had by pulls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// The sets of entries have to be compared with this peer's.
    Compare(ServerId),
    /// The database is empty, and this peer's is not: it is to be loaded.
    Load(ServerId),
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

pub(crate) struct Incoming {
    pub(crate) inbox: Inbox,
    /// The database is empty: what is more than a page is loaded.
    pub(crate) empty: bool,
    load_from: Option<ServerId>,
    assembler: Assembler,
    pulled_parts: Assembler,
    members: Members,
    pulled: Sender<Pulled>,
    /// An answer that waits until there is room for what it brings.
    waiting: Option<Pulled>,
    /// Dropped with the driver, so that nothing holds on to the group.
    requests: JoinSet<()>,
    /// The last own change that was here at the start, and the first that was made since.
    own: OwnChanges,
    /// Something did not fit into the queue to apply: what comes is dropped until that is empty.
    overflowed: bool,
    /// Members whose card cannot be used, so that each is reported once.
    refused_cards: BTreeSet<BareJid>,
    pub(crate) known: KnownPeers,
    /// Payloads that were dropped because they could not be decoded or their sender had no right.
    dropped: u64,
    gaps: u64,
    /// A peer has shown own changes that are not here, and nobody was told yet.
    pub(crate) lost: bool,
}

/// Which changes of this server are here.
#[derive(Default)]
struct OwnChanges {
    /// The last one at the start, and what of it and later was found at peers since.
    known: Option<Csn>,
    /// The first one of this run.
    first: Option<Csn>,
}

impl OwnChanges {
    /// The changes up to `csn` that a peer has and this server has lost; each is told once.
    fn lost(&mut self, csn: Csn) -> Option<Span> {
        let made_now = self.first.is_some_and(|first| csn >= first);
        if made_now || Some(csn) <= self.known {
            return None;
        }
        Span::new(self.known.replace(csn), csn)
    }
}

impl Incoming {
    pub(crate) fn new(config: &ReplicaConfig, vector: Vector, pulled: Sender<Pulled>) -> Incoming {
        let own = OwnChanges { known: vector.get(config.server_id), first: None };
        Incoming {
            own,
            inbox: Inbox::new(config.server_id, vector, InboxLimits::default()),
            empty: false,
            load_from: None,
            assembler: Assembler::new(),
            pulled_parts: Assembler::new(),
            members: Members::default(),
            pulled,
            waiting: None,
            requests: JoinSet::new(),
            overflowed: false,
            refused_cards: BTreeSet::new(),
            known: KnownPeers::default(),
            dropped: 0,
            gaps: 0,
            lost: false,
        }
    }

    /// How far the listed peers are that lack something, if that may have changed since this was asked last.
    pub(crate) fn take_needed(&mut self, peers: &[BareJid]) -> Option<Vec<(BareJid, Vector)>> {
        self.known.take_needed(peers, |jid| self.members.is_present(jid))
    }

    /// The listed peers that are not in the room and were here once. One that never was begins with a load, and single
    /// changes are no use to it.
    pub(crate) fn absent<'a>(&'a self, peers: &'a [BareJid]) -> impl Iterator<Item = BareJid> + 'a {
        let is_absent = |jid: &&BareJid| !self.members.is_present(jid) && self.known.server(jid).is_some();
        peers.iter().filter(is_absent).cloned()
    }

    /// The peer with this serverID, while it is in the room.
    pub(crate) fn member(&self, server: ServerId) -> Option<FullJid> {
        self.members.get(server).map(|member| member.jid.clone())
    }

    /// The peer with this bare JID, while it is in the room.
    pub(crate) fn member_of(&self, jid: &BareJid) -> Option<FullJid> {
        self.members.of(jid).map(|member| member.jid.clone())
    }

    /// Changes of this server were made, from the first one to the last.
    pub(crate) fn handle_local(&mut self, first: Csn, last: Csn) {
        self.own.first.get_or_insert(first);
        self.inbox.handle_local(first);
        self.inbox.handle_local(last);
    }

    pub(crate) fn handle_offline(&mut self, now: Instant) {
        self.known.handle_gone();
        for server in self.members.clear() {
            self.inbox.handle_gone(server, now);
        }
    }

    pub(crate) fn handle_gone(&mut self, jid: &FullJid, now: Instant) {
        if let Some(server) = self.members.handle_gone(jid) {
            self.known.handle_gone();
            self.inbox.handle_gone(server, now);
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
        now: Instant,
    ) -> Option<(BareJid, String)> {
        let bare = jid.to_bare();
        let card = match self.usable_card(&bare, payload, shared, config) {
            Ok(card) => card,
            Err(problem) => {
                if self.refused_cards.insert(bare) {
                    error!("{jid} does not take part: {problem}");
                }
                return None;
            }
        };
        let serves = card.phase == Phase::Ready;
        let (node, server) = (card.node.clone(), card.sid);
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
            Seen::Joined => {
                self.known.handle_card(&bare, &card, shared, now);
                self.known.handle_joined(bare.clone(), lock(&shared.vector).clone());
                info!("server {server} ({jid}) is in the room");
            }
            Seen::Updated => self.known.handle_card(&bare, &card, shared, now),
        }
        self.refused_cards.remove(&bare);
        if let Some(lost) = card.vector.get(config.server_id).and_then(|csn| self.own.lost(csn)) {
            self.handle_lost(&jid, lost, shared);
        }
        self.inbox.handle_card(PeerCard { server, boot: card.boot, vector: card.vector, serves }, now);
        (seen == Seen::Joined).then_some((bare, node))
    }

    /// A peer has changes of this server that are not here: with a later one made, they would count as seen and deleted.
    fn handle_lost(&mut self, peer: &FullJid, lost: Span, shared: &Shared) {
        shared.add_unseen([lost].into_iter().collect());
        // One that is empty is loaded.
        if !self.empty {
            warn!(
                "{peer} has changes of this server (up to {}) that are not here: the database was put back to an earlier \
                 state; its entries are compared",
                lost.until()
            );
            self.lost = true;
        }
    }

    fn usable_card(
        &self,
        jid: &BareJid,
        payload: &Element,
        shared: &Shared,
        config: &ReplicaConfig,
    ) -> Result<Card, String> {
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
        if let Some(problem) = another_data_set(&card, shared) {
            return Err(problem);
        }
        if card.sid == config.server_id {
            return Err(format!("it has this server's serverID {}; give every server its own", card.sid));
        }
        let loading =
            card.progress.map(|at| format!(", loading {} of {}", at.done, at.total)).unwrap_or_default();
        debug!("card of {jid}: sequence {}{loading}, vector {:?}", card.seq, card.vector);
        Ok(card)
    }

    pub(crate) fn handle_live(&mut self, from: &BareJid, payload: &Element, now: Instant) {
        let batch = match Payload::decode(payload) {
            Ok(Payload::Batch(batch)) => Some(batch),
            Ok(Payload::Large(large)) if self.members.may_send(from, large.origin) => {
                // It stands in the journal of whoever has it.
                self.inbox.handle_large(large.csn, now);
                None
            }
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
            Some(batch) if self.members.may_send(from, batch.origin) => self.inbox.handle_batch(batch, now),
            Some(_) => self.drop_payload(from, &"it is not the server whose changes these claim to be"),
            None => {}
        }
    }

    /// Changes that the XMPP server kept while this replica was away. Their origin may be away itself by now, so its
    /// serverID is what its card said last.
    pub(crate) fn handle_stored(&mut self, from: &BareJid, payload: &Element, now: Instant) {
        match Payload::decode(payload) {
            Ok(Payload::Batch(batch))
                if self.known.server(from) == Some(batch.origin)
                    || self.members.may_send(from, batch.origin) =>
            {
                self.inbox.handle_stored(batch, now);
            }
            Ok(Payload::Batch(_)) => {
                debug!("changes of {from} were kept for this server, which does not know it yet")
            }
            Ok(_) => {}
            Err(problem) => self.drop_payload(from, &problem),
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
                self.inbox.handle_page(asked.id, vec![batch], &[], true, now);
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
                self.inbox.handle_page(asked.id, page.batches, &page.beyond, page.more, now);
            }
            Ok(Ok(Payload::Part(part))) => self.handle_pulled_part(group, asked, part, now),
            Ok(Ok(Payload::Large(large))) => self.fetch(group, asked, large, shared, now),
            // A change of just the size that fits a stanza but no page.
            Ok(Ok(Payload::Batch(batch))) => self.inbox.handle_page(asked.id, vec![batch], &[], true, now),
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

    /// A change that is too large for a page comes part by part.
    fn handle_pulled_part(&mut self, group: &Arc<Group>, asked: Asked, part: Part, now: Instant) {
        let number = part.n + 1;
        let csn = asked.part.map(|(csn, _)| csn).or(part.change);
        match (self.pulled_parts.handle_part(part), csn) {
            (Ok(Some(batch)), _) => self.inbox.handle_page(asked.id, vec![batch], &[], true, now),
            (Ok(None), Some(csn)) => self.ask(group, Asked { part: Some((csn, number)), ..asked }, now),
            (outcome, _) => {
                debug!("part from server {}: {:?}", asked.from, outcome.err());
                self.inbox.handle_pull_failure(asked.id, now);
            }
        }
    }

    /// Carries out what the inbox wants. Returns when to look again.
    /// What else there is to do is put into `wanted`.
    pub(crate) fn act(
        &mut self,
        group: &Arc<Group>,
        shared: &Arc<Shared>,
        config: &ReplicaConfig,
        now: Instant,
        wanted: &mut Vec<Want>,
    ) -> Option<Instant> {
        if self.waiting.is_some()
            && has_room(shared)
            && let Some(pulled) = self.waiting.take()
        {
            self.handle_pulled(group, pulled, shared, now);
        }
        self.resume(shared, now);
        self.inbox.handle_timeout(now);
        while let Some(action) = self.inbox.poll_action() {
            match action {
                Action::Apply(batch) => self.queue(batch, shared),
                Action::Pull { id, from, have } => {
                    self.ask(group, Asked { id, from, have, part: None }, now);
                }
                Action::Reconcile { with } if self.empty => {
                    self.inbox.hold();
                    self.load_from = Some(with);
                }
                Action::Reconcile { with } => wanted.push(Want::Compare(with)),
                Action::Gap { origin, from, to } => self.tell_gap(group, config, origin, from, to),
                Action::Healed => info!("everything that was missing is here"),
            }
        }
        wanted.extend(self.load_from.take().map(Want::Load));
        self.inbox.poll_timeout()
    }

    fn tell_gap(&mut self, group: &Group, config: &ReplicaConfig, origin: ServerId, from: u64, to: u64) {
        if from == 0 {
            info!("this server lacks changes of server {origin}; asking for them");
            return;
        }
        self.gaps += 1;
        warn!(
            "changes {from} to {to} of server {origin} are missing; asking for them ({} holes so far)",
            self.gaps
        );
        let body = format!("server {} lacks changes {from} to {to} of server {origin}", config.server_id);
        say(group, config, NoticeKind::Gap, body);
    }

    /// Into the journal and into the database, at the same time: what is in only one of them is found at the next start.
    fn queue(&mut self, batch: Batch, shared: &Shared) {
        if self.overflowed {
            return;
        }
        let Some(last) = batch.last_csn() else { return };
        let (origin, boot, first) = (batch.origin, batch.boot, batch.first);
        let changes: Vec<Arc<Change>> = batch.changes.into_iter().map(Arc::new).collect();
        let work = changes.iter().cloned().map(Work::Change).collect();
        if !shared.store.has_room() || !lock(&shared.to_apply).push(work) {
            warn!(
                "more changes come than can be applied, or noted in the journal; those of server {origin} are asked for again later"
            );
            self.overflowed = true;
            return;
        }
        let records = (first..).zip(changes).map(|(seq, change)| Record::Change { boot, seq, change });
        shared.store.write(records.chain([Record::Head(last)]).collect());
    }

    /// Once everything that did fit is applied, the vector tells where to go on.
    fn resume(&mut self, shared: &Shared, now: Instant) {
        self.overflowed |= lock(&shared.to_apply).take_lost();
        if self.overflowed && shared.store.has_room() && lock(&shared.to_apply).is_idle() {
            self.overflowed = false;
            self.waiting = None;
            if self.inbox.is_held() {
                // The load notices by itself, and begins anew.
                return;
            }
            self.inbox.handle_reset(lock(&shared.vector).clone(), now);
        }
    }

    fn ask(&mut self, group: &Arc<Group>, asked: Asked, now: Instant) {
        let pull = Pull { vector: asked.have.clone(), bytes_max: limits::PAGE_BYTES_MAX, part: asked.part };
        let (Some(member), Ok(request)) = (self.members.get(asked.from), Payload::Pull(pull).to_element())
        else {
            self.inbox.handle_pull_failure(asked.id, now);
            return;
        };
        debug!("asking server {} for what follows {:?}", asked.from, asked.have);
        let (to, group, pulled) = (member.jid.clone(), group.clone(), self.pulled.clone());
        while self.requests.try_join_next().is_some() {}
        self.requests.spawn(async move {
            let answer = group.request(to, request, limits::PULL_TIMEOUT).await;
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

/// For what another page brings, in the queue to apply and in that to the journal. Every write to either wakes the driver.
fn has_room(shared: &Shared) -> bool {
    shared.store.has_room() && lock(&shared.to_apply).has_room()
}

/// Two databases that were begun apart never mix. One whose suffix entry was made anew knows all that the older one
/// does, or the other way round.
fn another_data_set(card: &Card, shared: &Shared) -> Option<String> {
    let (own, theirs) = ((*lock(&shared.dataset))?, card.dataset?);
    let vector = lock(&shared.vector).clone();
    if own == theirs || vector.dominates(&card.vector) || card.vector.dominates(&vector) {
        return None;
    }
    Some(format!(
        "its database is another one than this (the suffix entries have the entryUUIDs {theirs} and {own}); choose the one \
         to keep, and on the other server stop slapd, remove the database's files and its journal, and start it: it is loaded then"
    ))
}

fn say(group: &Group, config: &ReplicaConfig, kind: NoticeKind, body: String) {
    let notice = Payload::Notice(xmppsync_wire::Notice { kind, sid: config.server_id }).to_element().ok();
    if let Err(problem) = group.say(body, notice) {
        debug!("not said: {problem}");
    }
}
