//! What cannot be had from the database again, kept in memory for the next journal.

use crate::merging::Names;
use crate::to_apply::Ahead;
use std::collections::BTreeMap;
use xmppsync_journal::limits::SET_ASIDES_MAX;
use xmppsync_journal::{Journal, Peer, Record, SetAside};
use xmppsync_replica::{Csn, EntryUuid, Seen, Unseen};

/// Who the peers are, what was not seen, which changes could not be applied (an entry that was refused here must not look
/// deleted) or are in the database before their turn, and what the rules for changes that meet know of names and moves.
#[derive(Default)]
pub(super) struct Remembered {
    peers: BTreeMap<String, Peer>,
    set_asides: BTreeMap<Csn, SetAside>,
    unseen: Unseen,
    unseen_at: u64,
    put_back: bool,
    names: Names,
    ahead: Ahead,
}

impl Remembered {
    /// What is in a journal, as far as it can be read.
    pub(super) fn of(journal: &Journal) -> Remembered {
        let mut remembered = Remembered::default();
        let peers = journal.peers().unwrap_or_default().into_iter().map(Record::Peer);
        let set_asides = journal.set_asides().unwrap_or_default().into_iter().map(Record::SetAside);
        let put_back = journal.is_put_back().unwrap_or_default();
        let unseen = Record::Unseen { unseen: journal.unseen().clone(), at: journal.unseen_at() };
        let state = [unseen, Record::PutBack(put_back)];
        remembered.names = Names::read(journal).unwrap_or_default();
        remembered.ahead = Ahead::read(journal, &Seen::default()).unwrap_or_default();
        remembered.note(&peers.chain(set_asides).chain(state).collect::<Vec<_>>());
        remembered
    }

    pub(super) fn note(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Peer(peer) => drop(self.peers.insert(peer.jid.clone(), peer.clone())),
                Record::PeerRemoved(jid) => drop(self.peers.remove(jid)),
                Record::SetAside(set_aside) => {
                    self.set_asides.insert(set_aside.csn, set_aside.clone());
                    if self.set_asides.len() as u64 > SET_ASIDES_MAX {
                        self.set_asides.pop_first();
                    }
                }
                Record::ClearedAside(csn) => drop(self.set_asides.remove(csn)),
                Record::Unseen { unseen, at } => {
                    self.unseen.extend(unseen);
                    self.unseen_at = self.unseen_at.max(*at);
                }
                Record::PutBack(yes) => self.put_back = *yes,
                Record::Ahead { .. } | Record::InTurn(_) => self.ahead.note(record),
                other => self.names.note(other),
            }
        }
    }

    /// Whether the entry is deleted, and only there because of its children.
    pub(super) fn is_glue(&self, uuid: EntryUuid) -> bool {
        self.names.glue.contains(&uuid)
    }

    /// The journal has forgotten the moves up to this one.
    pub(super) fn forget_moves(&mut self, until: Csn) {
        self.names.forget_moves(until);
    }

    /// It counts as seen from now on.
    pub(super) fn take_unseen(&mut self) -> Unseen {
        std::mem::take(&mut self.unseen)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let peers = self.peers.values().cloned().map(Record::Peer);
        let set_asides = self.set_asides.values().cloned().map(Record::SetAside);
        let put_back = self.put_back.then_some(Record::PutBack(true));
        let unseen = Record::Unseen { unseen: self.unseen.clone(), at: self.unseen_at };
        peers
            .chain(set_asides)
            .chain([unseen])
            .chain(put_back)
            .chain(self.ahead.records())
            .chain(self.names.records())
    }
}
