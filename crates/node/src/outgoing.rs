//! From captured changes to the room and the node, and the own card.

use crate::answers;
use crate::fail::{FailPoint, fail_point};
use crate::host::Database;
use crate::limits;
use crate::replica::ReplicaConfig;
use crate::shared::{Shared, deleted_place, inventory_record, lock};
use crate::store::Ticket;
use crate::stored::{Place, StoredMessages};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tracing::{debug, error, warn};
use xmpp_parsers::jid::BareJid;
use xmppsync_journal::Record;
use xmppsync_link::{Group, SendError};
use xmppsync_replica::{
    Batch, Bookkeeping, Change, CommitOrder, Csn, EntryUuid, Outbox, OutboxLimits, ServerId,
};
use xmppsync_wire::{Card, Live, Notice, NoticeKind, Payload, Phase};

pub(crate) struct Outgoing {
    server_id: ServerId,
    live: Live,
    order: CommitOrder,
    /// Released, and held back to become fewer.
    bookkeeping: Bookkeeping,
    /// Nothing is held back any more for that.
    ends: bool,
    /// Released, and on their way into the journal: what others know of is in it.
    unwritten: VecDeque<(Ticket, Arc<Change>)>,
    /// The last change that went to the outbox, in this run or before.
    last_csn: Option<Csn>,
    outbox: Outbox,
    online: bool,
    /// The card does not show own changes: nobody can be given what is missing before them yet.
    pub(crate) hides_own: bool,
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
    /// The first and last change that was released since this was asked last.
    released: Option<(Csn, Csn)>,
    pub(crate) stored: StoredMessages,
    /// Changes that went to the outbox and not yet to those who are away.
    for_absent: Vec<(Arc<Change>, Place)>,
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
            bookkeeping: Bookkeeping::new(limits::BOOKKEEPING_PAUSE, limits::BOOKKEEPING_BYTES_MAX),
            ends: false,
            unwritten: VecDeque::new(),
            last_csn: start,
            outbox: Outbox::new(config.server_id, config.boot, start, OutboxLimits::default()),
            online: false,
            hides_own: false,
            hold: None,
            shown: None,
            refused: None,
            lost: 0,
            foreign: 0,
            barrier: None,
            released: None,
            stored: StoredMessages::new(config.keep.offline_messages),
            for_absent: Vec::new(),
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
        self.online && !(self.outbox.is_settled() && !self.holds_back() && self.unwritten.is_empty())
    }

    /// Whether changes were taken that are not on their way into the journal yet.
    pub(crate) fn holds_back(&self) -> bool {
        !(self.order.is_empty() && self.bookkeeping.is_empty())
    }

    /// What this server makes in this run follows this, and not what it knows to have made before.
    pub(crate) fn begin_after(&mut self, csn: Csn) {
        let is_later = self.unwritten.front().is_none_or(|(_, change)| change.csn > csn);
        if is_later && self.outbox.begin_after(csn) {
            self.last_csn = self.last_csn.max(Some(csn));
        }
    }

    /// slapd stops: what is held back only to become less goes out.
    pub(crate) fn handle_end(&mut self) {
        self.ends = true;
    }

    /// Takes what was captured, in commit order. Returns when to look again for what is held back.
    pub(crate) fn collect(
        &mut self,
        shared: &Shared,
        database: &dyn Database,
        now: Instant,
    ) -> Option<Instant> {
        self.hand_to_outbox(shared);
        if !shared.store.has_room() {
            return None; // every write to the journal wakes the driver
        }
        self.take(shared);
        let released = self.release(shared, database, now);
        let mut ready = self.bookkeeping.pass(released, now);
        if self.ends {
            ready.extend(self.bookkeeping.give_up(now));
        }
        lock(&shared.captured).handle_absorbed(self.bookkeeping.take_absorbed());
        self.write_down(ready, shared);
        let again = (!self.order.is_empty()).then_some(now + limits::COMMIT_ORDER_PAUSE);
        again.into_iter().chain(self.bookkeeping.poll_timeout()).min()
    }

    /// Changes of others to these entries are on their way into the database. Once they are there an entryCSN does not tell any more,
    /// after a crash, that something is held back.
    pub(crate) fn handle_queued(&mut self, queued: &[(EntryUuid, Csn)], shared: &Shared, now: Instant) {
        let mut holds = false;
        for (uuid, csn) in queued {
            holds |= self.bookkeeping.handle_foreign(*uuid, *csn);
        }
        if holds {
            let held = self.bookkeeping.give_up(now).collect();
            self.write_down(held, shared);
        }
    }

    /// What was committed before everything that may still come.
    fn release(&mut self, shared: &Shared, database: &dyn Database, now: Instant) -> Vec<Arc<Change>> {
        let Some(limit) = self.order.latest() else { return Vec::new() };
        // Between the two looks at the queue: see `CommitOrder`.
        let mut pending = database.pending_csns();
        pending.extend(lock(&shared.captured).pending());
        self.take(shared);
        let released = self.order.release(limit, &pending);
        self.watch(&pending, now);
        released
    }

    /// First into the journal: who loses power after a change was sent must still know of it.
    fn write_down(&mut self, changes: Vec<Arc<Change>>, shared: &Shared) {
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return };
        fail_point(FailPoint::Captured);
        let (first, last) = (first.csn, last.csn);
        self.released = Some((self.released.map_or(first, |(first, _)| first), last));
        lock(&shared.vector).advance(last);
        let seq = self.outbox.last() + self.unwritten.len() as u64 + 1;
        let records = (seq..).zip(&changes).flat_map(|(seq, change)| {
            let written = Record::Change { boot: self.outbox.boot(), seq, change: Arc::clone(change) };
            let place = deleted_place(change).map(|place| Record::Place { uuid: change.uuid, place });
            [written, inventory_record(change)].into_iter().chain(place)
        });
        let ticket = shared.store.write(records.chain([Record::Head(last)]).collect());
        lock(&shared.captured).handle_written(last);
        self.unwritten.extend(changes.into_iter().map(|change| (ticket, change)));
        self.hand_to_outbox(shared);
    }

    fn hand_to_outbox(&mut self, shared: &Shared) {
        while let Some((_, change)) = self.unwritten.pop_front_if(|(ticket, _)| shared.store.is_done(*ticket))
        {
            fail_point(FailPoint::Journalled);
            let (number, prev) = (self.outbox.last() + 1, self.last_csn.replace(change.csn));
            if self.online && self.stored.is_wanted() {
                let place = Place { origin: self.server_id, boot: self.outbox.boot(), number, prev };
                self.for_absent.push((Arc::clone(&change), place));
            }
            let lost = self.outbox.push(change);
            if self.lost.checked_ilog2() != (self.lost + lost).checked_ilog2() {
                warn!(
                    "changes are made faster than they can be sent, or the line is down: {} so far are left for the peers to ask for",
                    self.lost + lost
                );
            }
            self.lost += lost;
        }
    }

    /// Lets the XMPP server keep what was sent for those who are away. Returns when to look again.
    pub(crate) fn store_for(
        &mut self,
        absent: impl Iterator<Item = BareJid>,
        group: &Group,
        now: Instant,
    ) -> Option<Instant> {
        if !self.online {
            self.for_absent.clear();
            return None;
        }
        self.stored.set_absent(absent);
        for (change, place) in std::mem::take(&mut self.for_absent) {
            self.stored.push(&change, &place, group, now);
        }
        self.stored.poll(group, now)
    }

    /// The first and last change that was released since the last call.
    pub(crate) fn take_released(&mut self) -> Option<(Csn, Csn)> {
        self.released.take()
    }

    fn take(&mut self, shared: &Shared) {
        let taken = lock(&shared.captured).take();
        if let Some(csn) = taken.overflow {
            let held = self.bookkeeping.give_up(Instant::now()).map(|change| inventory_record(&change));
            self.skip(csn, held.chain(taken.skipped).collect(), shared);
        }
        for change in taken.changes {
            if Some(change.csn) <= taken.overflow {
                shared.store.write(vec![inventory_record(&change)]);
            } else if change.csn.server_id() != self.server_id {
                shared.store.write(vec![inventory_record(&change)]);
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

    /// Too many changes waited; those up to `csn` are not sent and not in the journal.
    fn skip(&mut self, csn: Csn, inventory: Vec<Record>, shared: &Shared) {
        error!(
            "more changes than {} bytes waited to be sent and were dropped, up to CSN {csn}; the peers have to compare their entries",
            limits::CAPTURED_BYTES_MAX
        );
        shared.store.write(inventory.into_iter().chain([Record::Floor(csn)]).collect());
        lock(&shared.vector).advance(csn);
        self.unwritten.clear();
        self.last_csn = Some(csn);
        self.outbox.skip_to(csn);
        self.released = Some((self.released.map_or(csn, |(first, _)| first), csn));
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
                        warn!(
                            "the {} of \"{}\" (CSN {}) does not fit into messages ({problem}); the peers ask for it",
                            change.operation.name(),
                            change.operation.dn(),
                            change.csn
                        );
                    }
                    self.outbox.pass_over(&batch);
                }
            }
        }
        self.outbox.poll_timeout()
    }

    fn send_batch(&mut self, group: &Group, config: &ReplicaConfig, batch: &Batch) -> Result<(), Unsent> {
        let elements = match answers::large(batch) {
            Some(large) => Payload::Large(large).to_element().map(|element| vec![element]),
            None => xmppsync_wire::split(batch),
        };
        let elements = elements.map_err(|problem| Unsent::Never(problem.to_string()))?;
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

    pub(crate) fn handle_echo(&mut self, id: &str, now: Instant) {
        let confirmed = || {
            let (boot, rest) = id.strip_prefix('b')?.split_once('-')?;
            let (last, _) = rest.split_once('-')?;
            (boot.parse() == Ok(self.outbox.boot())).then(|| last.parse().ok())?
        };
        if let Some(last) = confirmed() {
            fail_point(FailPoint::Sent);
            self.outbox.handle_echo(last, now);
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
            Ok(()) => self.handle_echo(id, now),
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
        let progress = shared.loading.progress();
        let others = lock(&shared.vector).clone();
        let others = others.iter().filter(|csn| csn.server_id() != self.server_id);
        Card {
            sid: self.server_id,
            boot: self.outbox.boot(),
            seq,
            phase: if progress.is_some() { Phase::Loading } else { Phase::Ready },
            live: config.live,
            node: config.group.node.clone(),
            suffix: config.nsuffix.clone(),
            software: concat!("xmppsync ", env!("CARGO_PKG_VERSION")).to_owned(),
            vector: others.chain(sent.filter(|_| !self.hides_own)).collect(),
            dataset: *lock(&shared.dataset),
            progress,
        }
    }

    /// Somebody came who has seen the card as it was shown last.
    pub(crate) fn handle_joined(&mut self) {
        if let Some((_, at)) = &mut self.shown
            && let Some(earlier) = at.checked_sub(limits::CARD_INTERVAL)
        {
            *at = earlier;
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

    /// A line for people in the room.
    pub(crate) fn say(&self, group: &Group, config: &ReplicaConfig, kind: NoticeKind, body: String) {
        let notice = Payload::Notice(Notice { kind, sid: config.server_id }).to_element().ok();
        if let Err(problem) = group.say(body, notice) {
            debug!("not said: {problem}");
        }
    }
}
