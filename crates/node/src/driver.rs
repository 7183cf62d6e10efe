//! The loop of one replica: everything that happens goes through here, one event at a time.

mod comparing;
mod doubting;
mod forgotten;
mod loading;

use crate::answers::Answers;
use crate::host::Database;
use crate::hub::Hub;
use crate::incoming::{Incoming, Want};
use crate::limits;
use crate::opening::Found;
use crate::outgoing::Outgoing;
use crate::reads::{self, Read};
use crate::replica::ReplicaConfig;
use crate::shared::{Shared, lock};
use comparing::{Comparing, Why};
use loading::Load;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::{self, Receiver, UnboundedReceiver};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Instrument, debug, error, info, warn};
use xmpp_parsers::jid::{BareJid, FullJid};
use xmpp_parsers::stanza_error::DefinedCondition;
use xmppsync_link::{Event, Group, Problem, Reply};
use xmppsync_replica::{ServerId, Vector};
use xmppsync_wire::{NoticeKind, Payload};

/// What the host tells the driver.
pub(crate) enum Command {
    Start,
    /// Answered when everything has ended.
    Stop(std::sync::mpsc::Sender<()>),
}

/// Events that are taken in one turn before what follows from them is done.
const EVENTS_PER_TURN: usize = 64;

pub(crate) struct Driver {
    config: ReplicaConfig,
    shared: Arc<Shared>,
    database: Arc<dyn Database>,
    hub: Hub,
    commands: UnboundedReceiver<Command>,
    found: Found,
}

/// The driver from `Start` on.
struct Running<'a> {
    driver: &'a Driver,
    group: Arc<Group>,
    outgoing: Outgoing,
    incoming: Incoming,
    answers: Answers,
    /// Answers that are being looked up; dropped with the driver.
    answering: JoinSet<()>,
    comparing: Comparing,
    load: Load,
    /// When to ask again for a thread that reads the database for a new journal.
    next_scan: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(
        config: ReplicaConfig,
        shared: Arc<Shared>,
        database: Arc<dyn Database>,
        hub: Hub,
        commands: UnboundedReceiver<Command>,
        found: Found,
    ) -> Driver {
        Driver { config, shared, database, hub, commands, found }
    }

    pub(crate) async fn run(mut self) {
        let mut stop = match self.commands.recv().await {
            Some(Command::Start) => self.replicate().await,
            other => other,
        };
        lock(&self.shared.captured).close();
        if stop.is_none() {
            stop = self.commands.recv().await;
        }
        if let Some(Command::Stop(done)) = stop {
            // The host may have stopped waiting.
            let _ = done.send(());
        }
    }

    /// Returns the command that ended it, if it was one.
    async fn replicate(&mut self) -> Option<Command> {
        if self.found.loading {
            self.show_loading(false);
        }
        let outgoing = Outgoing::new(&self.config, self.found.own_head);
        let card = match outgoing.card(&self.shared, &self.config).to_element() {
            Ok(card) => card,
            Err(problem) => {
                error!("the replica's card cannot be written: {problem}; nothing is replicated");
                return None;
            }
        };
        let session = self.hub.session(&self.config.session);
        let (group, events) = match session.attach(self.config.group.clone(), card).await {
            Ok(attached) => attached,
            Err(problem) => {
                error!("the room cannot be entered: {problem}; nothing is replicated");
                self.hub.release(&self.config.session.jid).await;
                return None;
            }
        };
        let group = Arc::new(group);
        info!("replicating as {}, joining {}", self.config.session.jid, self.config.group.room);
        let (pulled, pages) = mpsc::channel(limits::PULLS_MAX);
        let mut commands = std::mem::replace(&mut self.commands, mpsc::unbounded_channel().1);
        let mut running = Running {
            incoming: Incoming::new(&self.config, self.found.vector.clone(), pulled),
            answers: Answers::new(
                Arc::clone(&self.shared),
                Arc::clone(&group),
                self.config.keep.journal.clone(),
            ),
            answering: JoinSet::new(),
            comparing: Comparing::new(self.found.compare, self.first_check()),
            load: Load::new(self.found.loading),
            next_scan: None,
            driver: self,
            group,
            outgoing,
        };
        let remembered = running.driver.remembered().await;
        running.incoming.known.remember(remembered);
        let stop = running.turn_by_turn(&mut commands, events, pages).await;
        if running.outgoing.holds_back() {
            lock(&running.driver.shared.captured).set_missed();
        }
        self.commands = commands;
        self.hub.release(&self.config.session.jid).await;
        stop
    }
}

impl Driver {
    /// Whom the journal remembers.
    async fn remembered(&self) -> Vec<(BareJid, ServerId, Vector)> {
        let peers = self.shared.store.ask(|journal| journal.peers()).await.unwrap_or_default();
        let known =
            |peer: xmppsync_journal::Peer| Some((BareJid::new(&peer.jid).ok()?, peer.server, peer.vector));
        peers.into_iter().filter_map(known).collect()
    }
}

impl Drop for Driver {
    /// Also when a bug ends it: nobody will ever take what is captured.
    fn drop(&mut self) {
        lock(&self.shared.captured).close();
    }
}

impl Running<'_> {
    async fn turn_by_turn(
        &mut self,
        commands: &mut UnboundedReceiver<Command>,
        mut events: Receiver<Event>,
        mut pages: Receiver<crate::incoming::Pulled>,
    ) -> Option<Command> {
        let driver = self.driver;
        let mut ending = driver.hub.ending();
        loop {
            let timeout = self.work();
            tokio::select! {
                biased;
                () = ended(&mut ending) => {
                    self.flush(&mut events).await;
                    return None;
                }
                command = commands.recv() => {
                    self.flush(&mut events).await;
                    return command;
                }
                event = events.recv() => {
                    let Some(event) = event else {
                        error!("the XMPP session has ended; replication stops until slapd is started again");
                        return None;
                    };
                    self.handle_event(event);
                    for _ in 0..EVENTS_PER_TURN {
                        match events.try_recv() {
                            Ok(event) => self.handle_event(event),
                            Err(_) => break,
                        }
                    }
                }
                Some(pulled) = pages.recv() => {
                    self.incoming.handle_pulled(&self.group, pulled, &driver.shared, Instant::now());
                }
                Some(compared) = self.comparing.running.join_next() => self.handle_compared(compared),
                Some(loaded) = self.load.running.join_next() => self.handle_loaded(loaded),
                () = driver.shared.wake.notified() => {}
                () = sleep_until(timeout) => {}
            }
        }
    }

    /// Does everything that can be done now; returns when to look again although nothing happens.
    fn work(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let driver = self.driver;
        let collect = self.outgoing.collect(&driver.shared, &*driver.database, now);
        if let Some((first, last)) = self.outgoing.take_released() {
            self.incoming.handle_local(first, last);
        }
        let send = self.outgoing.send(&self.group, &driver.config, now);
        let mut behind = Vec::new();
        self.incoming.empty = self.is_empty();
        let pull = self.incoming.act(&self.group, &driver.shared, &driver.config, now, &mut behind);
        self.outgoing.handle_queued(&std::mem::take(&mut self.incoming.queued), &driver.shared, now);
        for want in behind {
            match want {
                Want::Compare(peer) => self.compare(peer, Why::CatchUp, now),
                Want::Load(peer) => self.load.wanted = Some((peer, now)),
            }
        }
        self.settle_load();
        let load = self.begin_load(now);
        driver.shared.snapshots.expire();
        let scan = self.fill_journal(now);
        if let Some(last) = self.incoming.lost.take() {
            if !self.incoming.is_filled_by_others() {
                self.handle_lost(now);
            }
            self.handle_forgotten(last);
        }
        self.follow_forgotten();
        let check = self.check(now);
        if let Some(needed) = self.incoming.take_needed(&driver.config.group.peers) {
            driver.shared.store.set_needed(needed);
        }
        self.mend();
        let absent = self.incoming.absent(&driver.config.group.peers);
        let stored = self.outgoing.store_for(absent, &self.group, now);
        let apply = self.incoming.submit(&driver.shared, &*driver.database, now);
        let card = self.outgoing.refresh_card(&self.group, &driver.shared, &driver.config, now);
        [collect, send, pull, load, check, stored, apply, card, scan].into_iter().flatten().min()
    }

    /// Has the database read for a new journal. Returns when to look again: the host may have had no thread.
    fn fill_journal(&mut self, now: Instant) -> Option<Instant> {
        let shared = &self.driver.shared;
        if let Some(scan) = shared.store.take_scan() {
            reads::submit(shared, Read::Inventory(scan));
        } else if self.next_scan.is_none_or(|due| now < due) {
            return self.next_scan;
        } else {
            reads::ask_again(shared);
        }
        self.next_scan = shared.store.is_filling().then(|| now + limits::READ_PATIENCE);
        self.next_scan
    }

    fn handle_event(&mut self, event: Event) {
        let (config, now) = (&self.driver.config, Instant::now());
        match event {
            Event::Online => {
                info!("in room {}", config.group.room);
                self.outgoing.handle_online();
                let body = format!("server {} joined", config.server_id);
                self.outgoing.say(&self.group, config, NoticeKind::Joined, body);
            }
            Event::Offline { reason } => {
                // Why, an administrator reads in the `Problem` beside it.
                debug!("not in room {}: {reason}", config.group.room);
                self.outgoing.handle_offline();
                self.incoming.handle_offline(now);
            }
            Event::Card { jid, payload, .. } => {
                let node = self.incoming.handle_card(jid, &payload, &self.driver.shared, config, now);
                if let Some((peer, node)) = node {
                    self.outgoing.handle_joined();
                    if let Err(problem) = self.group.subscribe(peer, node) {
                        debug!("subscription is not asked for: {problem}");
                    }
                }
            }
            Event::Stored { from, payload, .. } => {
                self.incoming.handle_stored(&from, &payload, &self.driver.shared, now);
            }
            Event::FileOffered { from, offer, incoming } => match &self.load.source {
                Some((source, files)) if *source == from => drop(files.try_send((offer, incoming))),
                _ => self.driver.shared.offers.offered(from, offer, incoming),
            },
            Event::NotStored { to, reason, .. } => self.outgoing.stored.handle_not_stored(&to, &reason),
            Event::Gone { jid, .. } => self.incoming.handle_gone(&jid, now),
            Event::Live { from, payload, .. } => {
                self.incoming.handle_live(&from, &payload, &self.driver.shared, now);
            }
            Event::Echo { id } => self.outgoing.handle_echo(&id, now),
            Event::Refused { reason, .. } => self.outgoing.handle_refused(&reason, now),
            Event::Published { id, result } => self.outgoing.handle_published(&id, result, now),
            Event::Request { from, payload, reply } => self.answer(from, &payload, reply),
            Event::Lost { count } => {
                warn!("{count} events of the room were lost because too many came at once; catching up");
            }
            Event::Problem(problem) => {
                error!("{problem}");
                if let Problem::NoOfflineStorage { domain } = problem {
                    self.outgoing.stored.handle_no_storage(domain);
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, from: FullJid, payload: &xmpp_parsers::minidom::Element, reply: Reply) {
        while self.answering.try_join_next().is_some() {}
        match Payload::decode(payload) {
            Ok(request) => {
                let answer = self.answers.answer(from, request, reply);
                drop(self.answering.spawn(answer.in_current_span()));
            }
            Err(problem) => {
                if let Err(lost) = reply.error(DefinedCondition::BadRequest, &problem.to_string()) {
                    debug!("{lost}");
                }
            }
        }
    }

    /// What was committed last still goes out, if the line is up.
    async fn flush(&mut self, events: &mut Receiver<Event>) {
        let deadline = Instant::now() + limits::FLUSH_TIMEOUT;
        self.outgoing.handle_end();
        loop {
            let timeout = self.work();
            let now = Instant::now();
            if now >= deadline || !self.outgoing.can_flush() {
                break;
            }
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle_event(event),
                    None => return,
                },
                () = self.driver.shared.wake.notified() => {}
                () = sleep_until(Some(timeout.unwrap_or(deadline).min(deadline))) => {}
            }
        }
        let config = &self.driver.config;
        self.outgoing.stored.flush(&self.group);
        let body = format!("server {} leaves", config.server_id);
        self.outgoing.say(&self.group, config, NoticeKind::Left, body);
    }
}

async fn ended(ending: &mut watch::Receiver<bool>) {
    let hub_is_gone = ending.wait_for(|ending| *ending).await.is_err();
    if hub_is_gone {
        std::future::pending().await
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
