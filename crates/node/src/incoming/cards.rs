//! Cards: who is in the room, with which database, and how far it is.

use super::Incoming;
use crate::members::Seen;
use crate::replica::ReplicaConfig;
use crate::shared::{Shared, lock};
use std::time::Instant;
use tracing::{debug, error, info, warn};
use xmpp_parsers::jid::{BareJid, FullJid};
use xmpp_parsers::minidom::Element;
use xmppsync_replica::{Csn, PeerCard, Span};
use xmppsync_wire::{Card, Payload, Phase};

/// Which changes of this server are here.
#[derive(Default)]
pub(super) struct OwnChanges {
    /// The last one at the start, and what of it and later was found at peers since.
    pub(super) known: Option<Csn>,
    /// The last one that came from peers since.
    pub(super) pulled: Option<Csn>,
    /// The first one of this run.
    pub(super) first: Option<Csn>,
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
        shared.clock.observe([lost.until()]);
        shared.add_unseen([lost].into_iter().collect());
        self.lost = Some(lost.until());
        if !self.is_filled_by_others() {
            warn!(
                "{peer} has changes of this server (up to {}) that are not here: the database was put back to an earlier \
                 state; its entries are compared",
                lost.until()
            );
        }
    }

    /// Of what this server made before, nothing up to here is asked for any more: it comes by comparisons.
    pub(crate) fn begin_after(&mut self, csn: Csn) {
        self.own.known = self.own.known.max(Some(csn));
        self.inbox.handle_forgotten(csn);
    }

    /// The database was empty, and what others have is, or will be, on its way into it.
    pub(crate) fn is_filled_by_others(&self) -> bool {
        self.empty || self.own_awaited
    }

    /// The last change of this server that came from peers.
    pub(crate) fn own_pulled(&self) -> Option<Csn> {
        self.own.pulled
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
