//! Comparisons with a peer: where no journal reaches back, and now and then as a check.

use super::doubting::Doubting;
use super::{Driver, Running};
use crate::heal::{self, HealError, Healed, Healer};
use crate::limits;
use crate::shared::lock;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::task::JoinSet;
use tracing::{Instrument, debug, error, warn};
use xmpp_parsers::jid::FullJid;
use xmppsync_journal::Record;
use xmppsync_replica::{EntryUuid, ServerId};
use xmppsync_wire::NoticeKind;

/// Why two servers compare their entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// To bring this replica up to the peer, whose journal does not reach back.
    CatchUp,
    /// The database cannot be told by its vector.
    Mend,
    /// An earlier comparison gave a peer what the others lack as well, or changed what others have taken here.
    Spread,
    /// Now and then.
    Check,
    /// Some entries are in doubt, or changes wait for others: these entries only.
    Doubt,
}

/// How a comparison ended.
pub(super) struct Compared {
    pub(super) peer: FullJid,
    pub(super) server: ServerId,
    pub(super) why: Why,
    begun: Instant,
    pub(super) outcome: Result<Healed, HealError>,
}

/// What is to be compared, and why.
pub(super) struct Comparing {
    /// The comparison that runs; dropped with the driver.
    pub(super) running: JoinSet<Compared>,
    /// The database cannot be told by its vector, and no comparison has mended that yet.
    unsure: bool,
    /// A comparison went well, and what it brought is being applied.
    mending: bool,
    /// That this replica has to compare was told, and it is not done.
    catching_up: bool,
    /// Peers that have not been given what another one was, or that may have what was changed here since; also those that are away.
    spread: VecDeque<ServerId>,
    /// Before that none of them is asked again.
    spread_at: Instant,
    /// Comparisons for that in a row that changed something here.
    spread_rounds: u32,
    /// When to compare with a peer although nothing seems to be missing.
    pub(super) next_check: Option<Instant>,
    doubting: Doubting,
}

impl Comparing {
    pub(super) fn new(unsure: bool, next_check: Option<Instant>) -> Comparing {
        Comparing {
            running: JoinSet::new(),
            unsure,
            mending: false,
            catching_up: false,
            spread: VecDeque::new(),
            spread_at: Instant::now(),
            spread_rounds: 0,
            next_check,
            doubting: Doubting::default(),
        }
    }
}

impl Driver {
    /// At once where the opening found that the vector does not tell all.
    pub(super) fn first_check(&self) -> Option<Instant> {
        match self.found.compare {
            true => Some(Instant::now()),
            false => self.config.keep.check_interval.map(|interval| Instant::now() + interval),
        }
    }
}

impl Running<'_> {
    /// Compares now and then although nothing seems to be missing. Returns when to look again.
    pub(super) fn check(&mut self, now: Instant) -> Option<Instant> {
        let due = self.comparing.next_check;
        let is_due = due.is_some_and(|due| now >= due);
        if self.incoming.inbox.is_busy() || !self.comparing.running.is_empty() {
            return due.filter(|_| !is_due);
        }
        self.comparing.doubting.look(&self.driver.shared, now);
        if self.driver.shared.was_given.swap(false, Ordering::Relaxed) {
            self.spread(self.incoming.known.servers().collect::<Vec<_>>());
        }
        if let Some(peer) = self.next_to_spread(now) {
            self.compare(peer, Why::Spread, now);
        } else if self.comparing.doubting.is_due(now) && !self.incoming.inbox.is_behind() {
            self.ask_in_doubt(now);
        } else if is_due && (self.comparing.unsure || !self.incoming.inbox.is_behind()) {
            let peer = self.incoming.inbox.some_peer()?;
            self.comparing.next_check = self.driver.config.keep.check_interval.map(|interval| now + interval);
            let why = if self.comparing.unsure { Why::Mend } else { Why::Check };
            self.compare(peer, why, now);
        }
        let spread = (!self.comparing.spread.is_empty()).then_some(self.comparing.spread_at);
        [spread, self.comparing.doubting.due, self.comparing.next_check]
            .into_iter()
            .flatten()
            .filter(|due| now < *due)
            .min()
    }

    /// One after the other, as they are there.
    fn next_to_spread(&mut self, now: Instant) -> Option<ServerId> {
        if now < self.comparing.spread_at {
            return None;
        }
        let serves =
            |server: &ServerId| self.incoming.inbox.serving_peers().any(|serving| serving == *server);
        let place = self.comparing.spread.iter().position(serves)?;
        self.comparing.spread.remove(place)
    }

    /// The database lacks own changes that a peer has.
    pub(super) fn handle_lost(&mut self, now: Instant) {
        self.comparing.unsure = true;
        self.comparing.next_check = Some(now);
    }

    fn spread(&mut self, servers: impl IntoIterator<Item = ServerId>) {
        for server in servers {
            if !self.comparing.spread.contains(&server) {
                self.comparing.spread.push_back(server);
            }
        }
    }

    /// What a comparison brought is in the database: it is not to be told any more that it was put back.
    pub(super) fn mend(&mut self) {
        let shared = &self.driver.shared;
        if self.comparing.mending && lock(&shared.to_apply).is_idle() {
            (self.comparing.mending, self.comparing.unsure) = (false, false);
            shared.store.write(vec![Record::PutBack(false)]);
        }
    }

    /// Begins to compare this database with a peer's.
    pub(super) fn compare(&mut self, server: ServerId, why: Why, now: Instant) {
        let Some(peer) = self.incoming.member(server) else {
            self.incoming.inbox.handle_reconcile_failure(now);
            return;
        };
        if why == Why::CatchUp && !std::mem::replace(&mut self.comparing.catching_up, true) {
            warn!(
                "nobody's journal reaches back to where this server was; its entries are compared with those of server {server}"
            );
            let own = self.driver.config.server_id;
            let body = format!("server {own} compares its entries with those of server {server}");
            self.outgoing.say(&self.group, &self.driver.config, NoticeKind::Problem, body);
        } else {
            debug!("comparing with server {server}");
        }
        self.start(peer, server, why, None);
    }

    /// Compares the entries in doubt with a peer's.
    fn ask_in_doubt(&mut self, now: Instant) {
        let peers: Vec<ServerId> = self.incoming.inbox.serving_peers().collect();
        let asked = self.comparing.doubting.ask(&self.driver.shared, &peers, now);
        let Some((server, uuids)) = asked else { return };
        let Some(peer) = self.incoming.member(server) else { return };
        debug!("{} entries are in doubt or waited for; server {server} is asked for them", uuids.len());
        self.start(peer, server, Why::Doubt, Some(uuids.into_iter().collect()));
    }

    fn start(&mut self, peer: FullJid, server: ServerId, why: Why, only: Option<Vec<EntryUuid>>) {
        let healer = Healer {
            group: Arc::clone(&self.group),
            shared: Arc::clone(&self.driver.shared),
            peer: peer.clone(),
            catches_up: why == Why::CatchUp,
        };
        let begun = Instant::now();
        let run = async move {
            let outcome = healer.run(only).await;
            Compared { peer, server, why, begun, outcome }
        };
        self.comparing.running.spawn(run.in_current_span());
    }

    pub(super) fn handle_compared(&mut self, compared: Result<Compared, tokio::task::JoinError>) {
        let now = Instant::now();
        let Ok(Compared { peer, server, why, begun, outcome }) = compared else {
            error!("bug: a comparison ended before it was done");
            self.incoming.inbox.handle_reconcile_failure(now);
            return;
        };
        heal::report(&peer, matches!(why, Why::CatchUp | Why::Mend), &outcome);
        if why == Why::Doubt {
            // They are asked for again as long as there are some.
            return;
        }
        if let Ok(healed) = &outcome {
            let is_whole = healed.left == 0 && healed.coming == 0;
            self.comparing.mending |= is_whole;
            if self.comparing.unsure && !is_whole {
                self.comparing.next_check = Some(now + limits::CHECK_RETRY);
            }
            // Who catches up becomes like the peer, which sees to it that the others do as well.
            if healed.given > 0 || (healed.taken > 0 && why != Why::CatchUp) {
                let others = self.incoming.known.servers().filter(|other| *other != server);
                self.spread(others.collect::<Vec<_>>());
            }
            if why == Why::Spread {
                let has_changed = healed.given + healed.taken > 0;
                if has_changed {
                    self.comparing.spread_rounds += 1;
                } else if self.comparing.spread.is_empty() {
                    self.comparing.spread_rounds = 0;
                }
                // Others want the processors too, and what goes round for ever must not take much.
                let pause = begun.elapsed() * 2_u32.saturating_pow(self.comparing.spread_rounds);
                self.comparing.spread_at = now + pause.min(limits::SPREAD_PAUSE_MAX);
            }
        }
        match outcome {
            Ok(healed) if why == Why::CatchUp => {
                self.comparing.catching_up = false;
                self.incoming.inbox.handle_state(&healed.vector, now);
            }
            Ok(healed) if self.load.again && !self.load.unfinished && healed.left == 0 => {
                self.load.settling = true;
            }
            Ok(_) => {}
            Err(_) if why == Why::CatchUp => self.incoming.inbox.handle_reconcile_failure(now),
            // Sooner than the next time.
            Err(_) => {
                if why == Why::Spread {
                    self.spread([server]);
                    self.comparing.spread_at = now + limits::SPREAD_RETRY;
                } else {
                    self.comparing.next_check = Some(now + limits::CHECK_RETRY);
                }
            }
        }
    }
}
