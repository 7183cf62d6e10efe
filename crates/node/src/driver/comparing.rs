//! Comparisons with a peer: where no journal reaches back, and now and then as a check.

use super::{Driver, Running};
use crate::heal::{self, HealError, Healed, Healer};
use crate::limits;
use crate::shared::lock;
use std::sync::Arc;
use std::time::Instant;
use tracing::{Instrument, debug, error, warn};
use xmpp_parsers::jid::FullJid;
use xmppsync_journal::Record;
use xmppsync_replica::ServerId;
use xmppsync_wire::{NoticeKind, Session};

/// How a comparison ended.
pub(super) struct Compared {
    pub(super) peer: FullJid,
    /// Whether it was to bring this replica up to the peer.
    pub(super) catch_up: bool,
    pub(super) outcome: Result<Healed, HealError>,
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
        let due = self.next_check?;
        if now < due || self.incoming.inbox.is_behind() || !self.comparing.is_empty() {
            return (now < due).then_some(due);
        }
        let peer = self.incoming.inbox.some_peer()?;
        self.next_check = self.driver.config.keep.check_interval.map(|interval| now + interval);
        self.compare(peer, false, now);
        self.next_check
    }

    /// What a comparison brought is in the database: it is not to be told any more that it was put back.
    pub(super) fn mend(&mut self) {
        let shared = &self.driver.shared;
        if self.mending && lock(&shared.to_apply).is_idle() {
            self.mending = false;
            shared.store.write(vec![Record::PutBack(false)]);
        }
    }

    /// Begins to compare this database with a peer's.
    pub(super) fn compare(&mut self, server: ServerId, catch_up: bool, now: Instant) {
        let Some(peer) = self.incoming.member(server) else {
            self.incoming.inbox.handle_reconcile_failure(now);
            return;
        };
        if catch_up && !std::mem::replace(&mut self.catching_up, true) {
            warn!(
                "nobody's journal reaches back to where this server was; its entries are compared with those of server {server}"
            );
            let own = self.driver.config.server_id;
            let body = format!("server {own} compares its entries with those of server {server}");
            self.outgoing.say(&self.group, &self.driver.config, NoticeKind::Problem, body);
        } else {
            debug!("comparing with server {server}");
        }
        let healer = Healer {
            group: Arc::clone(&self.group),
            shared: Arc::clone(&self.driver.shared),
            peer: peer.clone(),
            session: Session::new(rand::random()),
        };
        let run = async move { Compared { peer, catch_up, outcome: healer.run(catch_up).await } };
        self.comparing.spawn(run.in_current_span());
    }

    pub(super) fn handle_compared(&mut self, compared: Result<Compared, tokio::task::JoinError>) {
        let now = Instant::now();
        let Ok(Compared { peer, catch_up, outcome }) = compared else {
            error!("bug: a comparison ended before it was done");
            self.incoming.inbox.handle_reconcile_failure(now);
            return;
        };
        heal::report(&peer, catch_up, &outcome);
        self.mending |= outcome.is_ok();
        match outcome {
            Ok(healed) if catch_up => {
                self.catching_up = false;
                self.incoming.inbox.handle_state(&healed.vector, now);
            }
            Ok(_) if self.load.again && !self.load.unfinished => self.load.settling = true,
            Ok(_) => {}
            Err(_) if catch_up => self.incoming.inbox.handle_reconcile_failure(now),
            // Sooner than the next time.
            Err(_) => self.next_check = Some(now + limits::CHECK_RETRY),
        }
    }
}
