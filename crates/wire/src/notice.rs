//! What happened in the group, for programs; the message's `<body>` says it to people.

use crate::card::words;
use crate::{Place, WireError, batch, read, schema};
use minidom::Element;
use std::fmt;
use std::str::FromStr;
use xmppsync_replica::ServerId;

words!(
    /// What happened.
    NoticeKind, "joined, left, problem, gap, healed", {
        /// The replica is in the group from now on.
        Joined = "joined",
        /// It leaves.
        Left = "left",
        /// It has a problem that a person should see.
        Problem = "problem",
        /// It missed changes and is catching up.
        Gap = "gap",
        /// It has what it had missed.
        Healed = "healed",
    }
);

/// An event of the command stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub kind: NoticeKind,
    /// To whom.
    pub sid: ServerId,
}

impl Notice {
    pub(crate) fn to_element(self) -> Result<Element, WireError> {
        batch::to_element(&schema::Event { kind: self.kind, sid: self.sid }, Place::Notice)
    }

    pub(crate) fn from_element(element: &Element) -> Result<Notice, WireError> {
        let event: schema::Event = read::element(element, Place::Notice)?;
        Ok(Notice { kind: event.kind, sid: event.sid })
    }
}
