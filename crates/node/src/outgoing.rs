//! From captured changes to the room and the node, and the own card.

use crate::host::Database;
use crate::limits;
use crate::replica::ReplicaConfig;
use crate::shared::{Shared, lock};
use std::time::Instant;
use tracing::{debug, error, warn};
use xmpp_parsers::minidom::Element;
use xmpp_parsers::stanza_error::DefinedCondition;
use xmppsync_link::{Group, SendError};
use xmppsync_replica::{Batch, BootId, CommitOrder, Csn, Outbox, OutboxLimits, ServerId};
use xmppsync_wire::{Card, Live, Notice, NoticeKind, Page, Payload, Phase, Pull, encoded_size_estimate};

pub(crate) struct Outgoing {
    server_id: ServerId,
    live: Live,
    order: CommitOrder,
    outbox: Outbox,
    online: bool,
    /// The room or the queue to it is full: nothing is sent before this.
    hold: Option<Instant>,
    shown: Option<(Card, Instant)>,
    /// Why the last batch was refused.
    refused: Option<String>,
    /// Changes that fell out of the log unsent, and that were made under another serverID.
    lost: u64,
    foreign: u64,
    /// The CSN behind which changes are held back, since when, and whether that was told.
    barrier: Option<(Csn, Instant, bool)>,
    /// The parts of the change that a peer is pulling.
    parts: Option<(BootId, u64, u64, Vec<Element>)>,
}

/// Why a batch was not sent.
enum Unsent {
    /// The way is full, or not there.
    Later,
    /// It cannot be encoded.
    Never(String),
}

impl Outgoing {
    pub(crate) fn new(config: &ReplicaConfig, start: Option<Csn>) -> Outgoing {
        Outgoing {
            server_id: config.server_id,
            live: config.live,
            order: CommitOrder::default(),
            outbox: Outbox::new(config.server_id, config.boot, start, OutboxLimits::default()),
            online: false,
            hold: None,
            shown: None,
            refused: None,
            lost: 0,
            foreign: 0,
            barrier: None,
            parts: None,
        }
    }

    pub(crate) fn handle_online(&mut self) {
        self.online = true;
        self.hold = None;
        self.outbox.handle_online();
    }

    pub(crate) fn handle_offline(&mut self) {
        self.online = false;
        self.outbox.handle_offline();
    }

    /// Whether something is left that can still go out.
    pub(crate) fn can_flush(&self) -> bool {
        self.online && !(self.outbox.is_settled() && self.order.is_empty())
    }

    /// Takes what was captured, in commit order. Returns when to look again for what is held back.
    pub(crate) fn collect(
        &mut self,
        shared: &Shared,
        database: &dyn Database,
        now: Instant,
    ) -> Option<Instant> {
        self.take(shared);
        let limit = self.order.latest()?;
        // Between the two looks at the queue: see `CommitOrder`.
        let mut pending = database.pending_csns();
        pending.extend(lock(&shared.captured).pending());
        self.take(shared);
        for change in self.order.release(limit, &pending) {
            lock(&shared.vector).advance(change.csn);
            let lost = self.outbox.push(change);
            if self.lost.checked_ilog2() != (self.lost + lost).checked_ilog2() {
                warn!(
                    "changes are made faster than they can be sent, or the line is down for too long: {} so far will not be sent; the peers have to catch up",
                    self.lost + lost
                );
            }
            self.lost += lost;
        }
        self.watch(&pending, now);
        (!self.order.is_empty()).then_some(now + limits::COMMIT_ORDER_PAUSE)
    }

    fn take(&mut self, shared: &Shared) {
        let taken = lock(&shared.captured).take();
        if let Some(csn) = taken.overflow {
            error!(
                "more changes than {} bytes waited to be sent and were dropped, up to CSN {csn}; the peers have to catch up",
                limits::CAPTURED_BYTES_MAX
            );
            // A new stream that begins behind the lost changes: a peer sees from its card that it lacks them.
            let boot = self.outbox.boot().next();
            self.outbox = Outbox::new(self.server_id, boot, Some(csn), OutboxLimits::default());
            if self.online {
                self.outbox.handle_online();
            }
        }
        for change in taken.changes {
            if change.csn.server_id() != self.server_id {
                self.foreign += 1;
                if self.foreign.is_power_of_two() {
                    warn!(
                        "a change with CSN {} was made under another serverID (by syncrepl?); it is not sent, {} in all",
                        change.csn, self.foreign
                    );
                }
            } else if let Err(again) = self.order.push(change) {
                warn!("two changes have the CSN {again}; the second is not sent");
            }
        }
    }

    /// An operation that does not end holds back everything after it: that must not go unnoticed.
    fn watch(&mut self, pending: &[Csn], now: Instant) {
        let Some(oldest) = pending.iter().min().copied().filter(|_| !self.order.is_empty()) else {
            self.barrier = None;
            return;
        };
        match &mut self.barrier {
            Some((csn, since, told)) if *csn == oldest => {
                if !*told && now >= *since + limits::BARRIER_PATIENCE {
                    warn!(
                        "the operation with CSN {oldest} does not end (a long transaction?); later changes wait for it"
                    );
                    *told = true;
                }
            }
            barrier => *barrier = Some((oldest, now, false)),
        }
    }

    /// Sends what may be sent now. Returns when to look again.
    pub(crate) fn send(&mut self, group: &Group, config: &ReplicaConfig, now: Instant) -> Option<Instant> {
        if let Some(hold) = self.hold.filter(|hold| now < *hold) {
            return self.online.then_some(hold);
        }
        self.hold = None;
        while let Some(batch) = self.outbox.poll_batch(now) {
            match self.send_batch(group, config, &batch) {
                Ok(()) => {}
                Err(Unsent::Later) => {
                    self.outbox.handle_loss();
                    self.hold = Some(now + limits::FULL_PAUSE);
                    return self.hold;
                }
                Err(Unsent::Never(_)) if batch.changes.len() > 1 => self.outbox.handle_unsendable(&batch),
                Err(Unsent::Never(problem)) => {
                    for change in &batch.changes {
                        error!(
                            "the {} of \"{}\" (CSN {}) cannot be sent: {problem} The peers have to be loaded anew.",
                            change.operation.name(),
                            change.operation.dn(),
                            change.csn
                        );
                    }
                    self.outbox.begin_behind(&batch);
                }
            }
        }
        self.outbox.poll_timeout()
    }

    fn send_batch(&mut self, group: &Group, config: &ReplicaConfig, batch: &Batch) -> Result<(), Unsent> {
        let elements = xmppsync_wire::split(batch).map_err(|problem| Unsent::Never(problem.to_string()))?;
        let outsiders = group.outsiders() > 0 && group.node_is_ready();
        let last = elements.len() - 1;
        for (index, element) in elements.into_iter().enumerate() {
            // Only the last part confirms; the boot id keeps a late echo from confirming another stream.
            let kind = if index == last { "b" } else { "p" };
            let id = format!("{kind}{}-{}-{index}", batch.boot, batch.last());
            let sent = match config.live {
                Live::Pubsub if group.node_is_ready() => group.publish(id, element),
                // Without a node everybody is reached by the room.
                Live::Muc | Live::Pubsub => {
                    if outsiders {
                        // Nobody's convergence depends on it, so a full queue loses only this copy.
                        let _ = group.publish(format!("o{id}"), element.clone());
                    }
                    group.send_room(id, element)
                }
            };
            match sent {
                Ok(()) => {}
                Err(problem @ (SendError::TooLarge | SendError::NotXml)) => {
                    return Err(Unsent::Never(format!("{problem}.")));
                }
                Err(problem) => {
                    debug!("batch {} to {} waits: {problem}", batch.first, batch.last());
                    return Err(Unsent::Later);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn handle_echo(&mut self, id: &str) {
        let confirmed = || {
            let (boot, rest) = id.strip_prefix('b')?.split_once('-')?;
            let (last, _) = rest.split_once('-')?;
            (boot.parse() == Ok(self.outbox.boot())).then(|| last.parse().ok())?
        };
        if let Some(last) = confirmed() {
            self.outbox.handle_echo(last);
            self.refused = None;
        }
    }

    pub(crate) fn handle_refused(&mut self, reason: &str, now: Instant) {
        if self.refused.as_deref() != Some(reason) {
            warn!(
                "changes are refused by the XMPP server ({reason}); they wait, and are sent again every second"
            );
            self.refused = Some(reason.to_owned());
        }
        self.outbox.handle_loss();
        self.hold = Some(now + limits::REFUSED_PAUSE);
    }

    pub(crate) fn handle_published(&mut self, id: &str, result: Result<(), String>, now: Instant) {
        match result {
            // The copy for outsiders.
            _ if id.starts_with('o') => {}
            Ok(()) => self.handle_echo(id),
            Err(reason) => self.handle_refused(&reason, now),
        }
    }

    /// What the others see of this replica.
    pub(crate) fn card(&self, shared: &Shared, config: &ReplicaConfig) -> Payload {
        Payload::Card(self.make_card(shared, config))
    }

    fn make_card(&self, shared: &Shared, config: &ReplicaConfig) -> Card {
        // Cards go by the room. Batches on another way may be slower, and must not look lost.
        let (seq, sent) = if self.live == Live::Muc { self.outbox.sent() } else { self.outbox.confirmed() };
        // The own entry says what was sent, so that it fits the sequence number.
        let others = lock(&shared.vector).clone();
        let others = others.iter().filter(|csn| csn.server_id() != self.server_id);
        Card {
            sid: self.server_id,
            boot: self.outbox.boot(),
            seq,
            phase: Phase::Ready,
            live: config.live,
            node: config.group.node.clone(),
            suffix: config.nsuffix.clone(),
            software: concat!("xmppsync ", env!("CARGO_PKG_VERSION")).to_owned(),
            vector: others.chain(sent).collect(),
        }
    }

    /// Shows a new card if it differs and the last one is old enough. Returns when that will be.
    pub(crate) fn refresh_card(
        &mut self,
        group: &Group,
        shared: &Shared,
        config: &ReplicaConfig,
        now: Instant,
    ) -> Option<Instant> {
        if !self.online {
            return None;
        }
        let due = self.shown.as_ref().map(|(_, at)| *at + limits::CARD_INTERVAL);
        if due.is_some_and(|due| now < due) {
            return due;
        }
        let card = self.make_card(shared, config);
        if self.shown.as_ref().is_some_and(|(shown, _)| *shown == card) {
            return None;
        }
        match Payload::Card(card.clone()).to_element() {
            Ok(element) => {
                if let Err(problem) = group.set_card(element) {
                    debug!("the card waits: {problem}");
                }
            }
            Err(problem) => error!("the replica's card cannot be written: {problem}"),
        }
        self.shown = Some((card, now));
        Some(now + limits::CARD_INTERVAL)
    }

    /// The answer to a peer that lacks changes of this server.
    pub(crate) fn page(&mut self, pull: &Pull) -> Result<Element, (DefinedCondition, String)> {
        if pull.origin != self.server_id {
            let text = format!("this is server {}, ask server {} itself", self.server_id, pull.origin);
            return Err((DefinedCondition::BadRequest, text));
        }
        let bytes_max = pull.bytes_max.min(limits::PAGE_BYTES_MAX) as usize;
        let batch = self
            .outbox
            .page(pull.after, pull.vector.get(self.server_id), bytes_max)
            .map_err(|problem| (DefinedCondition::ItemNotFound, problem.to_string()))?;
        if let Some(large) = batch.as_ref().filter(|batch| !fits_page(batch)) {
            return self.part(large, pull.part.unwrap_or(0));
        }
        let more = batch.as_ref().is_some_and(|batch| batch.last() < self.outbox.last());
        let page = Page { batches: batch.into_iter().collect(), more };
        Payload::Page(page)
            .to_element()
            .map_err(|problem| (DefinedCondition::ResourceConstraint, problem.to_string()))
    }

    /// One part of a batch that no page can hold. A peer asks for one after the other.
    fn part(&mut self, batch: &Batch, number: u32) -> Result<Element, (DefinedCondition, String)> {
        let this = (batch.boot, batch.first, batch.last());
        let known = self.parts.as_ref().is_some_and(|(boot, first, last, _)| (*boot, *first, *last) == this);
        if !known {
            let parts = xmppsync_wire::split(batch)
                .map_err(|problem| (DefinedCondition::ResourceConstraint, problem.to_string()))?;
            self.parts = Some((batch.boot, batch.first, batch.last(), parts));
        }
        let parts = self.parts.as_ref().map_or(&[][..], |(_, _, _, parts)| parts);
        let part = parts.get(number as usize).cloned().ok_or_else(|| {
            let text = format!("there are {} parts, none has the number {number}", parts.len());
            (DefinedCondition::BadRequest, text)
        });
        if number as usize + 1 >= parts.len() {
            self.parts = None;
        }
        part
    }

    /// A line for people in the room.
    pub(crate) fn say(&self, group: &Group, config: &ReplicaConfig, kind: NoticeKind, body: String) {
        let notice = Payload::Notice(Notice { kind, sid: config.server_id }).to_element().ok();
        if let Err(problem) = group.say(body, notice) {
            debug!("not said: {problem}");
        }
    }
}

fn fits_page(batch: &Batch) -> bool {
    let bytes: usize = batch.changes.iter().map(encoded_size_estimate).sum();
    bytes < limits::PAGE_PAYLOAD_BYTES_MAX
}
