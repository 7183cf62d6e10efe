//! Members as their cards showed them last, also those that are away: what they lack is kept for them.

use crate::limits;
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::time::Instant;
use xmpp_parsers::jid::BareJid;
use xmppsync_journal::{Peer, Record};
use xmppsync_replica::{ServerId, Vector};
use xmppsync_wire::Card;

#[derive(Default)]
pub(crate) struct KnownPeers {
    peers: BTreeMap<BareJid, Known>,
    /// Somebody came or went since it was asked last who lacks what.
    moved: bool,
    /// Those that came back, with what they are to catch up to.
    behind: BTreeMap<BareJid, Vector>,
}

struct Known {
    server: ServerId,
    vector: Vector,
    /// When it was noted in the journal.
    noted: Option<Instant>,
}

impl KnownPeers {
    /// Whom the journal remembers.
    pub(crate) fn remember(&mut self, peers: Vec<(BareJid, ServerId, Vector)>) {
        let known = |(jid, server, vector)| (jid, Known { server, vector, noted: None });
        self.peers.extend(peers.into_iter().map(known));
        self.moved = true;
    }

    /// It came into the room, when this replica had `reached`.
    pub(crate) fn handle_joined(&mut self, jid: BareJid, reached: Vector) {
        self.behind.insert(jid, reached);
        self.moved = true;
    }

    /// Somebody left the room, or all did.
    pub(crate) fn handle_gone(&mut self) {
        self.moved = true;
    }

    /// Now and then it is noted in the journal as well.
    pub(crate) fn handle_card(&mut self, jid: &BareJid, card: &Card, shared: &Shared, now: Instant) {
        let is_level = |goal: &Vector| goal.iter().all(|csn| card.vector.covers(csn));
        if self.behind.get(jid).is_some_and(is_level) {
            self.behind.remove(jid);
            self.moved = true;
        }
        let before = self.peers.get(jid).filter(|known| known.server == card.sid);
        let noted = before.and_then(|known| known.noted);
        let is_due = noted.is_none_or(|noted| now >= noted + limits::PEER_INTERVAL);
        let noted = if is_due { Some(now) } else { noted };
        self.peers.insert(jid.clone(), Known { server: card.sid, vector: card.vector.clone(), noted });
        if is_due {
            let (jid, seen) = (jid.to_string(), crate::store::now());
            let peer = Peer { jid, server: card.sid, vector: card.vector.clone(), seen };
            shared.store.write(vec![Record::Peer(peer)]);
        }
    }

    /// The serverIDs of all that were ever here.
    pub(crate) fn servers(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.peers.values().map(|known| known.server)
    }

    /// The serverID of a member.
    pub(crate) fn server(&self, jid: &BareJid) -> Option<ServerId> {
        self.peers.get(jid).map(|known| known.server)
    }

    /// How far those of `peers` are that are away, or came back and have not caught up yet, if that has changed since this
    /// was asked last. One that was never here is not among them: it begins with a load.
    pub(crate) fn take_needed(
        &mut self,
        peers: &[BareJid],
        is_present: impl Fn(&BareJid) -> bool,
    ) -> Option<Vec<(BareJid, Vector)>> {
        if !std::mem::take(&mut self.moved) {
            return None;
        }
        let lacks = |jid: &&BareJid| !is_present(jid) || self.behind.contains_key(*jid);
        let vector = |jid: &BareJid| self.peers.get(jid).map(|known| (jid.clone(), known.vector.clone()));
        Some(peers.iter().filter(lacks).filter_map(vector).collect())
    }
}
