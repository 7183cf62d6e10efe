//! From the room, the nodes and the answers of peers to the queue of changes to apply.

mod cards;
mod pulls;

pub(crate) use pulls::Pulled;

use crate::host::Database;
use crate::known::KnownPeers;
use crate::limits;
use crate::members::Members;
use crate::replica::ReplicaConfig;
use crate::shared::{Shared, lock};
use crate::to_apply::Incoming as Work;
use cards::OwnChanges;
use pulls::Asked;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};
use xmpp_parsers::jid::{BareJid, FullJid};
use xmpp_parsers::minidom::Element;
use xmppsync_journal::Record;
use xmppsync_link::Group;
use xmppsync_replica::{Action, Batch, Change, Csn, EntryUuid, Inbox, InboxLimits, ServerId, Vector};
use xmppsync_wire::{Assembler, NoticeKind, Payload};

/// What cannot be had by pulls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// The sets of entries have to be compared with this peer's.
    Compare(ServerId),
    /// The database is empty, and this peer's is not: it is to be loaded.
    Load(ServerId),
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
    /// The changes that were queued since the driver looked, and their entries.
    pub(crate) queued: Vec<(EntryUuid, Csn)>,
    /// Members whose card cannot be used, so that each is reported once.
    refused_cards: BTreeSet<BareJid>,
    pub(crate) known: KnownPeers,
    /// Payloads that were dropped because they could not be decoded or their sender had no right.
    dropped: u64,
    gaps: u64,
    /// A peer has shown own changes that are not here, up to this one, and nobody was told yet.
    pub(crate) lost: Option<Csn>,
    /// What others have of what this server made before is on its way into the empty database,
    pub(crate) own_awaited: bool,
    /// and nothing that anybody has shown is missing any more.
    pub(crate) healed: bool,
}

impl Incoming {
    pub(crate) fn new(config: &ReplicaConfig, vector: Vector, pulled: Sender<Pulled>) -> Incoming {
        let own = OwnChanges { known: vector.get(config.server_id), ..OwnChanges::default() };
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
            queued: Vec::new(),
            refused_cards: BTreeSet::new(),
            known: KnownPeers::default(),
            dropped: 0,
            gaps: 0,
            lost: None,
            own_awaited: false,
            healed: false,
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

    pub(crate) fn handle_live(&mut self, from: &BareJid, payload: &Element, shared: &Shared, now: Instant) {
        let batch = match Payload::decode(payload) {
            Ok(Payload::Batch(batch)) => Some(batch),
            Ok(Payload::Large(large)) if self.members.may_send(from, large.origin) => {
                // It stands in the journal of whoever has it.
                if !shared.clock.refuses(large.csn, from) {
                    self.inbox.handle_large((large.boot, large.seq), large.csn, now);
                }
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
            Some(batch) if self.members.may_send(from, batch.origin) => {
                if let Some(batch) = shared.clock.cut(batch, from) {
                    self.inbox.handle_batch(batch, now);
                }
            }
            Some(_) => self.drop_payload(from, &"it is not the server whose changes these claim to be"),
            None => {}
        }
    }

    /// Changes that the XMPP server kept while this replica was away. Their origin may be away itself by now, so its
    /// serverID is what its card said last.
    pub(crate) fn handle_stored(&mut self, from: &BareJid, payload: &Element, shared: &Shared, now: Instant) {
        match Payload::decode(payload) {
            Ok(Payload::Batch(batch))
                if self.known.server(from) == Some(batch.origin)
                    || self.members.may_send(from, batch.origin) =>
            {
                if let Some(batch) = shared.clock.cut(batch, from) {
                    self.inbox.handle_stored(batch, now);
                }
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
                    self.ask(group, Asked { id, from, have, part: None }, shared, now);
                }
                Action::Reconcile { with } if self.empty => {
                    self.inbox.hold();
                    self.load_from = Some(with);
                }
                Action::Reconcile { with } => wanted.push(Want::Compare(with)),
                Action::Gap { origin, from, to } => self.tell_gap(group, config, origin, from, to),
                Action::Healed => {
                    info!("everything that was missing is here");
                    self.healed = self.own_awaited;
                }
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
        shared.clock.observe([last]);
        let (origin, boot, first) = (batch.origin, batch.boot, batch.first);
        let changes: Vec<Arc<Change>> = batch.changes.into_iter().map(Arc::new).collect();
        let work = changes.iter().cloned().map(Work::Change).collect();
        self.queued.extend(changes.iter().map(|change| (change.uuid, change.csn)));
        let mut to_apply = lock(&shared.to_apply);
        if !shared.store.has_room() || !to_apply.push(work) {
            warn!(
                "more changes come than can be applied, or noted in the journal; those of server {origin} are asked for again later"
            );
            self.overflowed = true;
            return;
        }
        if origin == shared.own {
            self.own.pulled = self.own.pulled.max(Some(last));
        }
        let records = (first..).zip(changes).map(|(seq, change)| Record::Change { boot, seq, change });
        // On its way into the journal before it can be in the database.
        shared.store.write(records.chain([Record::Head(last)]).collect());
        drop(to_apply);
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

fn say(group: &Group, config: &ReplicaConfig, kind: NoticeKind, body: String) {
    let notice = Payload::Notice(xmppsync_wire::Notice { kind, sid: config.server_id }).to_element().ok();
    if let Err(problem) = group.say(body, notice) {
        debug!("not said: {problem}");
    }
}
