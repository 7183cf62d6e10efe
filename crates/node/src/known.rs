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

    pub(crate) fn handle_move(&mut self) {
        self.moved = true;
    }

    /// Now and then it is noted in the journal as well.
    pub(crate) fn handle_card(&mut self, jid: &BareJid, card: &Card, shared: &Shared, now: Instant) {
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

    /// The serverID of a member.
    pub(crate) fn server(&self, jid: &BareJid) -> Option<ServerId> {
        self.peers.get(jid).map(|known| known.server)
    }

    /// How far those are that are away, if somebody came or went since this was asked last. One that was never here is
    /// not among them: it begins with a load.
    pub(crate) fn take_needed(
        &mut self,
        absent: impl Iterator<Item = BareJid>,
    ) -> Option<Vec<(BareJid, Vector)>> {
        if !std::mem::take(&mut self.moved) {
            return None;
        }
        let vector = |jid: BareJid| self.peers.get(&jid).map(|known| (jid.clone(), known.vector.clone()));
        Some(absent.filter_map(vector).collect())
    }
}
