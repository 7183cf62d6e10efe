//! The elements by which two replicas tell each other what they remember of entries.

use super::{Change, OptionalText, Text, UnseenSpan, WhenSet};
use crate::NAMESPACE;
use xmppsync_replica::{Csn, EntryUuid};
use xso::{AsXml, FromXml};

/// How far a replica has come, and from where on it remembers.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "side", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Side {
    #[xml(extract(n = .., name = "csn", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) csns: Vec<Csn>,
    #[xml(child(n = ..))]
    pub(crate) unseen: Vec<UnseenSpan>,
    #[xml(extract(n = .., name = "floor", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) floor: Vec<Csn>,
}

/// What is remembered of an entry beside its state.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "past", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Past {
    #[xml(attribute(codec = Text))]
    pub(crate) uuid: EntryUuid,
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) deleted: Option<Csn>,
    #[xml(attribute(default, codec = WhenSet))]
    pub(crate) refused: bool,
    #[xml(attribute(default, codec = WhenSet))]
    pub(crate) doubt: bool,
    #[xml(attribute(default, codec = WhenSet))]
    pub(crate) many: bool,
    #[xml(extract(n = .., name = "csn", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) csns: Vec<Csn>,
    #[xml(extract(n = .., name = "waits", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) waits: Vec<Csn>,
    #[xml(child(n = ..))]
    pub(crate) moves: Vec<Move>,
}

/// A move of the entry whose past it stands in.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "move", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Move {
    #[xml(attribute(codec = Text))]
    pub(crate) csn: Csn,
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) from: Option<EntryUuid>,
    #[xml(attribute(codec = Text))]
    pub(crate) to: EntryUuid,
    #[xml(attribute)]
    pub(crate) made: bool,
}

/// Changes of any origin that were asked for.
#[derive(FromXml, Debug)]
#[xml(namespace = NAMESPACE, name = "changes", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Changes {
    #[xml(child(n = ..))]
    pub(crate) changes: Vec<Change>,
}
