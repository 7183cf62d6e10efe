//! Who can give what is missing.

use super::{Inbox, InboxLimits};
use crate::{BootId, Csn, ServerId, Vector};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A peer, as far as catching up is concerned.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) boot: BootId,
    pub(super) vector: Vector,
    pub(super) serves: bool,
    /// Of these origins its journal lacks the changes up to this CSN.
    pub(super) beyond: BTreeMap<ServerId, Csn>,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
}

/// What a look for a source found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// Nothing is missing.
    Nothing,
    /// This peer has changes of, among others, this origin that are missing here.
    Ask(ServerId, ServerId),
    /// This peer has them, but no journal does.
    Reconcile(ServerId),
    /// Nobody can be asked now; somebody may at this time, or when a card says so.
    Wait(Option<Instant>),
}

impl Peer {
    pub(super) fn new(boot: BootId) -> Peer {
        Peer {
            boot,
            vector: Vector::default(),
            serves: false,
            beyond: BTreeMap::new(),
            failures: 0,
            retry_at: None,
        }
    }

    pub(super) fn fail(&mut self, now: Instant, limits: &InboxLimits) {
        let delay = limits.retry_delay_min * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.retry_at = Some(now + delay.min(limits.retry_delay_max));
    }

    /// Whether its journal has all of the origin's changes behind `have`.
    fn reaches(&self, origin: ServerId, have: Option<Csn>) -> bool {
        self.beyond.get(&origin).is_none_or(|floor| have >= Some(*floor))
    }
}

impl Inbox {
    pub(super) fn search(&self, now: Instant) -> Search {
        let missing = self.missing();
        if missing.is_empty() {
            return Search::Nothing;
        }
        let ahead =
            |peer: &Peer, origin: &ServerId| peer.vector.get(*origin).is_some_and(|csn| self.lacks(csn));
        let useful = |peer: &Peer| {
            missing
                .iter()
                .copied()
                .filter(|origin| ahead(peer, origin) && peer.reaches(*origin, self.have.get(*origin)))
                .collect::<Vec<_>>()
        };
        let rested = |peer: &Peer| peer.retry_at.is_none_or(|retry| retry <= now);
        let serving = || self.peers.iter().filter(|(_, peer)| peer.serves);
        let best = serving()
            .filter(|(_, peer)| rested(peer))
            .map(|(server, peer)| (useful(peer), *server))
            .filter(|(useful, _)| !useful.is_empty())
            .max_by_key(|(useful, server)| (useful.len(), Reverse(self.rank(*server))));
        if let Some((useful, from)) = best {
            return Search::Ask(from, useful[0]);
        }
        let retry = serving()
            .filter(|(_, peer)| missing.iter().any(|origin| ahead(peer, origin)))
            .filter_map(|(_, peer)| peer.retry_at.filter(|retry| *retry > now))
            .min();
        let beyond = serving()
            .filter(|(_, peer)| rested(peer) && missing.iter().any(|origin| ahead(peer, origin)))
            .map(|(server, _)| *server)
            .min_by_key(|server| self.rank(*server));
        match beyond {
            Some(with) if retry.is_none() => Search::Reconcile(with),
            _ => Search::Wait(retry),
        }
    }

    /// The origins of which something is missing here.
    fn missing(&self) -> BTreeSet<ServerId> {
        let shown = self.peers.values().flat_map(|peer| peer.vector.iter());
        let waiting = self.streams.values().filter_map(|stream| stream.latest());
        shown.chain(waiting).filter(|csn| self.lacks(*csn)).map(|csn| csn.server_id()).collect()
    }

    /// An order of the peers that is another one on every server: so that not all of them ask the same.
    pub(super) fn rank(&self, peer: ServerId) -> u16 {
        peer.get().wrapping_sub(self.own.get()) & ServerId::MAX
    }
}
