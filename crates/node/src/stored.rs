//! Own changes for listed peers that are not in the room: the XMPP server keeps them.
//!
//! A help, and no more: few messages, each with many changes, and none that anybody relies on. A peer that returns
//! uses what it finds and pulls the rest.

use crate::limits;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tracing::{debug, info};
use xmpp_parsers::jid::BareJid;
use xmppsync_link::Group;
use xmppsync_replica::{Batch, BootId, Change, Csn, ServerId};

pub(crate) struct StoredMessages {
    /// Messages that one absence may cost; 0: none are sent.
    messages_max: u32,
    /// The own XMPP server, if it keeps none for its users.
    keeps_none: Option<String>,
    /// The absent peers, with the number of messages that each may still get.
    absent: BTreeMap<BareJid, u32>,
    gathered: Option<Gathered>,
}

/// Changes that wait to be sent together.
struct Gathered {
    batch: Batch,
    bytes: usize,
    due: Instant,
}

/// Where a change stands in the stream.
pub(crate) struct Place {
    pub(crate) origin: ServerId,
    pub(crate) boot: BootId,
    pub(crate) number: u64,
    pub(crate) prev: Option<Csn>,
}

impl StoredMessages {
    pub(crate) fn new(messages_max: u32) -> StoredMessages {
        StoredMessages { messages_max, keeps_none: None, absent: BTreeMap::new(), gathered: None }
    }

    /// Whether anybody is away that messages are kept for.
    pub(crate) fn is_wanted(&self) -> bool {
        self.absent.values().any(|left| *left > 0)
    }

    /// Who is away now. One that was away already keeps its count.
    pub(crate) fn set_absent(&mut self, absent: impl IntoIterator<Item = BareJid>) {
        let before = std::mem::take(&mut self.absent);
        self.absent = absent
            .into_iter()
            .map(|jid| {
                let in_vain = self.keeps_none.as_deref() == Some(jid.domain().as_str());
                let left = before.get(&jid).copied().unwrap_or(self.messages_max);
                (jid, if in_vain { 0 } else { left })
            })
            .collect();
    }

    /// The own XMPP server keeps no messages, as it was told: none are sent to its users until slapd is started again.
    pub(crate) fn handle_no_storage(&mut self, domain: String) {
        self.absent
            .iter_mut()
            .filter(|(jid, _)| jid.domain().as_str() == domain)
            .for_each(|(_, left)| *left = 0);
        self.keeps_none = Some(domain);
    }

    /// The XMPP server does not keep messages for this peer (any more): it gets none until it was here again.
    pub(crate) fn handle_not_stored(&mut self, peer: &BareJid, reason: &str) {
        if let Some(left) = self.absent.get_mut(peer).filter(|left| **left > 0) {
            *left = 0;
            info!(
                "the XMPP server keeps no more messages for {peer} ({reason}); it will ask when it returns"
            );
        }
    }

    /// A change was sent to the room.
    pub(crate) fn push(&mut self, change: &Arc<Change>, place: &Place, group: &Group, now: Instant) {
        if !self.is_wanted() {
            self.gathered = None;
            return;
        }
        let size = xmppsync_wire::encoded_size_estimate(change);
        let full = self.gathered.as_ref().is_some_and(|gathered| {
            gathered.bytes + size > limits::STORED_BYTES_MAX
                || gathered.batch.last().saturating_add(1) != place.number
                || gathered.batch.changes.len() >= limits::STORED_CHANGES_MAX
        });
        if full {
            self.flush(group);
        }
        let gathered = self.gathered.get_or_insert_with(|| Gathered {
            batch: Batch {
                origin: place.origin,
                boot: place.boot,
                first: place.number,
                prev: place.prev,
                changes: Vec::new(),
            },
            bytes: 0,
            due: now + limits::STORED_DELAY,
        });
        gathered.bytes += size;
        gathered.batch.changes.push(Change::clone(change));
    }

    /// Sends what has waited long enough. Returns when to look again.
    pub(crate) fn poll(&mut self, group: &Group, now: Instant) -> Option<Instant> {
        let due = self.gathered.as_ref()?.due;
        if now < due {
            return Some(due);
        }
        self.flush(group);
        None
    }

    /// Sends what waits, now.
    pub(crate) fn flush(&mut self, group: &Group) {
        let Some(Gathered { batch, .. }) = self.gathered.take() else { return };
        // What does not fit into one stanza is not worth the server's room.
        let elements = xmppsync_wire::split(&batch).unwrap_or_default();
        let [element] = elements.as_slice() else { return };
        for (peer, left) in self.absent.iter_mut().filter(|(_, left)| **left > 0) {
            let id = format!("s{}-{}", batch.boot, batch.last());
            match group.send_stored(id, peer.clone(), element.clone()) {
                Ok(()) => *left -= 1,
                Err(problem) => debug!("nothing is kept for {peer}: {problem}"),
            }
        }
    }
}
