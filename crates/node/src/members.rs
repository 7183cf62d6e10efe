//! Who is in the group, by their cards.

use std::collections::BTreeMap;
use xmpp_parsers::jid::{BareJid, FullJid};
use xmppsync_replica::ServerId;

/// The members that have shown a card and have not gone.
#[derive(Debug, Default)]
pub(crate) struct Members {
    present: BTreeMap<ServerId, Member>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) jid: FullJid,
}

/// What a card changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The member was not there before.
    Joined,
    /// It was, and is.
    Updated,
    /// Its serverID belongs to somebody else, who keeps it.
    ServerIdTaken(BareJid),
}

impl Members {
    pub(crate) fn handle_card(&mut self, jid: FullJid, server: ServerId) -> Seen {
        let taken = self.present.get(&server).map(|member| member.jid.to_bare());
        match taken {
            Some(owner) if owner != jid.to_bare() => Seen::ServerIdTaken(owner),
            known => {
                self.present.insert(server, Member { jid });
                if known.is_some() { Seen::Updated } else { Seen::Joined }
            }
        }
    }

    pub(crate) fn handle_gone(&mut self, jid: &FullJid) -> Option<ServerId> {
        let gone = self.present.iter().find(|(_, member)| member.jid == *jid).map(|(id, _)| *id)?;
        self.present.remove(&gone);
        Some(gone)
    }

    /// The line is lost, and with it who is there: those who were.
    pub(crate) fn clear(&mut self) -> Vec<ServerId> {
        std::mem::take(&mut self.present).into_keys().collect()
    }

    /// The peer with this JID is in the room.
    pub(crate) fn is_present(&self, jid: &BareJid) -> bool {
        self.of(jid).is_some()
    }

    pub(crate) fn of(&self, jid: &BareJid) -> Option<&Member> {
        self.present.values().find(|member| member.jid.to_bare() == *jid)
    }

    pub(crate) fn get(&self, server: ServerId) -> Option<&Member> {
        self.present.get(&server)
    }

    /// Whether what comes from `jid` may be a change of `origin`.
    pub(crate) fn may_send(&self, jid: &BareJid, origin: ServerId) -> bool {
        self.present.get(&origin).is_some_and(|member| member.jid.to_bare() == *jid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn server(id: u32) -> ServerId {
        ServerId::new(id).unwrap()
    }

    fn jid(text: &str) -> FullJid {
        FullJid::new(text).unwrap()
    }

    #[test]
    fn a_member_sends_changes_of_its_own_server_only() {
        let mut members = Members::default();
        members.handle_card(jid("a@x/r"), server(1));
        members.handle_card(jid("b@x/r"), server(2));
        assert!(members.may_send(&jid("a@x/r").to_bare(), server(1)));
        assert!(!members.may_send(&jid("a@x/r").to_bare(), server(2)));
    }

    #[test]
    fn the_first_to_show_a_server_id_keeps_it_until_it_goes() {
        let mut members = Members::default();
        members.handle_card(jid("a@x/r"), server(1));
        assert_eq!(members.handle_card(jid("b@x/r"), server(1)), Seen::ServerIdTaken(jid("a@x/r").to_bare()));
        members.handle_gone(&jid("a@x/r"));
        assert_eq!(members.handle_card(jid("b@x/r"), server(1)), Seen::Joined);
    }
}
