//! Messages for rooms whose group is not attached yet.
//!
//! The server delivers what it stored for the account at the first presence and forgets it then; the groups
//! are attached one after the other. Whose group a message is for is known only when the group is there, and
//! with it whether the sender is a peer: up to then anybody may have sent it. Hence little is kept, not for
//! long.

use std::collections::VecDeque;
use std::time::Instant;

use xmpp_parsers::jid::BareJid;
use xmpp_parsers::minidom::Element;

use crate::event::Event;
use crate::limits::{HELD_BYTES_MAX, HELD_FOR, HELD_MAX};

/// A payload as it came out of the server's store, without the name of the room on it.
///
/// As text: a hundred full batches take 12 MB so, and 320 MB as trees.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    from: BareJid,
    payload: String,
    delayed: bool,
}

impl Stored {
    pub(crate) fn new(from: BareJid, payload: &Element, delayed: bool) -> Self {
        Self { from, payload: String::from(payload), delayed }
    }

    pub(crate) fn from(&self) -> &BareJid {
        &self.from
    }

    pub(crate) fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// For the group. `None` does not happen: what is read here was written by `new`.
    pub(crate) fn event(self) -> Option<Event> {
        let Self { from, payload, delayed } = self;
        Some(Event::Stored { from, payload: payload.parse().ok()?, delayed })
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Held {
    messages: VecDeque<Message>,
    bytes: usize,
    lost: u64,
    lost_until: Option<Instant>,
}

#[derive(Debug)]
struct Message {
    room: BareJid,
    stored: Stored,
    until: Instant,
}

impl Held {
    /// Keeps a message, or counts it as lost. The first ones are kept: what follows a hole is of less use.
    pub(crate) fn put(&mut self, room: BareJid, stored: Stored, now: Instant) {
        if self.messages.len() >= HELD_MAX || self.bytes + stored.bytes() > HELD_BYTES_MAX {
            self.lost += 1;
            self.lost_until = Some(now + HELD_FOR);
            return;
        }
        self.bytes += stored.bytes();
        self.messages.push_back(Message { room, stored, until: now + HELD_FOR });
    }

    /// The messages for a room, in the order in which they came.
    pub(crate) fn take(&mut self, room: &BareJid) -> Vec<Stored> {
        let (taken, kept) =
            std::mem::take(&mut self.messages).into_iter().partition(|message| message.room == *room);
        self.messages = kept;
        let taken: VecDeque<Message> = taken;
        self.bytes -= taken.iter().map(|message| message.stored.bytes()).sum::<usize>();
        taken.into_iter().map(|message| message.stored).collect()
    }

    /// How many did not fit lately. It is not known for whom they were.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// When [`Self::expire`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.messages.front().map(|message| message.until).into_iter().chain(self.lost_until).min()
    }

    /// Forgets what nobody came for.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(message) = self.messages.pop_front_if(|message| message.until <= now) {
            let Message { room, stored, .. } = message;
            self.bytes -= stored.bytes();
            tracing::debug!(%room, from = %stored.from, "no group came for a stored message");
        }
        if self.lost_until.is_some_and(|until| until <= now) {
            (self.lost, self.lost_until) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::NS_LDAPSYNC;

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).unwrap()
    }

    fn stored(text: &str) -> Stored {
        let payload = Element::builder("batch", NS_LDAPSYNC).append(text).build();
        Stored::new(jid("b@example.org"), &payload, true)
    }

    #[test]
    fn every_room_gets_its_messages_in_order() {
        let mut held = Held::default();
        let now = Instant::now();
        let rooms = [jid("x@conference.example.org"), jid("y@conference.example.org")];
        for n in 0..6 {
            held.put(rooms[n % 2].clone(), stored(&n.to_string()), now);
        }
        assert_eq!(held.take(&rooms[1]), [stored("1"), stored("3"), stored("5")]);
        assert_eq!(held.take(&rooms[1]), []);
        assert_eq!(held.take(&rooms[0]), [stored("0"), stored("2"), stored("4")]);
        assert_eq!((held.bytes, held.deadline()), (0, None));
    }

    #[test]
    fn what_nobody_comes_for_is_forgotten() {
        let mut held = Held::default();
        let now = Instant::now();
        let room = jid("x@conference.example.org");
        held.put(room.clone(), stored("old"), now);
        held.put(room.clone(), stored("new"), now + HELD_FOR / 2);
        assert_eq!(held.deadline(), Some(now + HELD_FOR));
        held.expire(now + HELD_FOR);
        assert_eq!(held.take(&room), [stored("new")]);
    }

    #[test]
    fn a_flood_for_rooms_that_nobody_has_does_not_grow_the_memory() {
        let mut held = Held::default();
        let now = Instant::now();
        for n in 0..2 * HELD_MAX {
            held.put(jid(&format!("{n}@conference.example.org")), stored(""), now);
        }
        assert_eq!((held.messages.len(), held.lost()), (HELD_MAX, HELD_MAX as u64));
        held.expire(now + HELD_FOR);
        assert_eq!((held.lost(), held.bytes, held.deadline()), (0, 0, None));
        let large = stored(&"x".repeat(HELD_BYTES_MAX / 10 - 100));
        for n in 0..20 {
            held.put(jid(&format!("{n}@conference.example.org")), large.clone(), now);
        }
        assert!(held.bytes <= HELD_BYTES_MAX);
        assert_eq!(held.lost(), 10);
    }
}
