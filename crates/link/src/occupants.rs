//! Who sits in the room, from presence alone.
//!
//! Servers relay a forged `<x><item jid>` in *messages*; only in presence does the room itself write it.

use std::collections::{BTreeSet, HashMap};

use xmpp_parsers::jid::FullJid;
use xmpp_parsers::minidom::Element;
use xmpp_parsers::ns;

use crate::limits::OCCUPANTS_MAX;

/// The `<x xmlns='…muc#user'>` of a presence or message, read leniently: the typed parser of xmpp-parsers
/// refuses the whole element for one status code that it does not know.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct MucUser {
    pub(crate) statuses: BTreeSet<u16>,
    pub(crate) jid: Option<FullJid>,
    pub(crate) affiliation: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) nick: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) destroyed: bool,
}

impl MucUser {
    /// Reads the first such element; `None` when there is none.
    pub(crate) fn find(payloads: &[Element]) -> Option<Self> {
        let x = payloads.iter().find(|payload| payload.is("x", ns::MUC_USER))?;
        let mut user = Self::default();
        for child in x.children().filter(|child| child.has_ns(ns::MUC_USER)) {
            match child.name() {
                "status" => {
                    user.statuses.extend(child.attr("code").and_then(|code| code.parse::<u16>().ok()))
                }
                "item" => user.item(child),
                "destroy" => {
                    user.destroyed = true;
                    user.reason = text_of(child, "reason");
                }
                _ => {}
            }
        }
        Some(user)
    }

    fn item(&mut self, item: &Element) {
        let attr = |name: &str| item.attr(name).map(str::to_owned);
        self.jid = item.attr("jid").and_then(|jid| FullJid::new(jid).ok());
        self.affiliation = attr("affiliation");
        self.role = attr("role");
        self.nick = attr("nick");
        self.reason = text_of(item, "reason");
    }

    pub(crate) fn has(&self, status: u16) -> bool {
        self.statuses.contains(&status)
    }

    /// Why the own seat was taken away, in words.
    pub(crate) fn farewell(&self) -> String {
        let cause = if self.destroyed {
            "the room was destroyed"
        } else {
            match self.statuses.iter().find(|code| (301..=333).contains(*code)) {
                Some(301) => "banned",
                Some(307) => "kicked",
                Some(321) => "no longer a member",
                Some(322) => "the room became members-only and this server is not listed",
                Some(332) => "the MUC service shuts down",
                Some(333) => "the connection was taken for dead",
                _ => "left",
            }
        };
        match &self.reason {
            Some(reason) => format!("{cause}: {reason}"),
            None => cause.to_owned(),
        }
    }
}

fn text_of(parent: &Element, name: &str) -> Option<String> {
    parent.get_child(name, ns::MUC_USER).map(Element::text).filter(|text| !text.trim().is_empty())
}

/// An occupant of the room.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Occupant {
    /// Real JID, if the room shows it.
    pub(crate) jid: Option<FullJid>,
    /// The payload of its presence, kept for peers only.
    pub(crate) card: Option<Element>,
}

/// Nick → occupant.
#[derive(Debug, Default)]
pub(crate) struct Occupants {
    by_nick: HashMap<String, Occupant>,
}

impl Occupants {
    /// Notes presence; `false` when there are more occupants than are remembered.
    pub(crate) fn here(&mut self, nick: &str, occupant: Occupant) -> bool {
        if self.by_nick.len() >= OCCUPANTS_MAX && !self.by_nick.contains_key(nick) {
            return false;
        }
        self.by_nick.insert(nick.to_owned(), occupant);
        true
    }

    pub(crate) fn gone(&mut self, nick: &str) -> Option<Occupant> {
        self.by_nick.remove(nick)
    }

    pub(crate) fn get(&self, nick: &str) -> Option<&Occupant> {
        self.by_nick.get(nick)
    }

    pub(crate) fn clear(&mut self) {
        self.by_nick.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Occupant)> {
        self.by_nick.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(xml: &str) -> MucUser {
        let x = format!("<x xmlns='http://jabber.org/protocol/muc#user'>{xml}</x>");
        MucUser::find(&[x.parse().unwrap()]).unwrap()
    }

    #[test]
    fn unknown_status_codes_do_not_hide_the_rest() {
        let user = user(
            "<status code='999'/><status code='110'/><status code='x'/>\
             <item affiliation='owner' role='moderator' jid='a@example.org/r'/>",
        );
        assert!(user.has(110) && user.has(999));
        assert_eq!(user.jid, Some(FullJid::new("a@example.org/r").unwrap()));
        assert_eq!(user.affiliation.as_deref(), Some("owner"));
    }

    #[test]
    fn the_cause_of_a_removal_is_told_in_words() {
        let kicked = user("<status code='307'/><item role='none'><reason>flood</reason></item>");
        assert_eq!(kicked.farewell(), "kicked: flood");
        assert_eq!(user("<item role='none'/><destroy/>").farewell(), "the room was destroyed");
        assert_eq!(user("<item role='none'/>").farewell(), "left");
    }

    #[test]
    fn a_bare_jid_names_no_occupant() {
        assert_eq!(user("<item jid='a@example.org'/>").jid, None);
    }

    #[test]
    fn occupants_are_bounded() {
        let mut occupants = Occupants::default();
        let nobody = Occupant { jid: None, card: None };
        for n in 0..OCCUPANTS_MAX {
            assert!(occupants.here(&n.to_string(), nobody.clone()));
        }
        assert!(!occupants.here("one more", nobody.clone()));
        assert!(occupants.here("7", nobody));
        assert!(occupants.gone("7").is_some() && occupants.get("7").is_none());
    }
}
