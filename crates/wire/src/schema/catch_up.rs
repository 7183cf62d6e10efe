//! The elements of catching up other than from a journal.

use super::{Change, Changes, OptionalText, Past, Side, Text};
use crate::{NAMESPACE, Session, text};
use std::borrow::Cow;
use xmppsync_replica::{BootId, Csn, EntryUuid, ServerId};
use xso::{AsXml, FromXml, TextCodec, error::Error};

/// A SHA-256 as 64 lower-case hexadecimal digits.
struct Hex;

impl TextCodec<[u8; 32]> for Hex {
    fn decode(&self, text: String) -> Result<[u8; 32], Error> {
        text::from_hex(&text).ok_or_else(|| Error::Other("not 64 lower-case hexadecimal digits"))
    }

    fn encode<'x>(&self, value: &'x [u8; 32]) -> Result<Option<Cow<'x, str>>, Error> {
        Ok(Some(Cow::Owned(text::to_hex(value))))
    }
}

/// One round of a comparison of two databases.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "reconcile", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Reconcile {
    #[xml(attribute(codec = Text))]
    pub(crate) session: Session,
    #[xml(attribute)]
    pub(crate) round: u32,
    #[xml(extract(n = .., name = "csn", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) csns: Vec<Csn>,
    #[xml(child(n = ..))]
    pub(crate) unseen: Vec<UnseenSpan>,
    #[xml(child(default))]
    pub(crate) frame: Option<Frame>,
}

/// CSNs that a vector covers and that were not seen.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "unseen", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct UnseenSpan {
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) after: Option<Csn>,
    #[xml(attribute(codec = Text))]
    pub(crate) until: Csn,
}

/// A frame of the reconciliation, always as base64.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "frame", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Frame {
    #[xml(text)]
    pub(crate) base64: String,
}

/// The question for entries as they are, and for changes.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "fetch", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Fetch {
    #[xml(attribute = "max-bytes")]
    pub(crate) bytes_max: u32,
    #[xml(extract(n = .., name = "uuid", fields(text(type_ = EntryUuid, codec = Text))))]
    pub(crate) uuids: Vec<EntryUuid>,
    #[xml(extract(n = .., name = "csn", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) csns: Vec<Csn>,
}

/// Entries that the other side is to look at.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "offer", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Offer {
    #[xml(extract(n = .., name = "uuid", fields(text(type_ = EntryUuid, codec = Text))))]
    pub(crate) uuids: Vec<EntryUuid>,
}

/// Entries as they are, with what is remembered of them, and changes.
#[derive(FromXml, Debug)]
#[xml(namespace = NAMESPACE, name = "entries", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Entries {
    #[xml(attribute)]
    pub(crate) more: bool,
    #[xml(child(n = ..))]
    pub(crate) states: Vec<Change>,
    #[xml(extract(n = .., name = "absent", fields(text(type_ = EntryUuid, codec = Text))))]
    pub(crate) absent: Vec<EntryUuid>,
    #[xml(extract(n = .., name = "refused", fields(text(type_ = EntryUuid, codec = Text))))]
    pub(crate) refused: Vec<EntryUuid>,
    #[xml(extract(n = .., name = "large", fields(text(type_ = EntryUuid, codec = Text))))]
    pub(crate) large: Vec<EntryUuid>,
    #[xml(child(default))]
    pub(crate) side: Option<Side>,
    #[xml(child(n = ..))]
    pub(crate) pasts: Vec<Past>,
    #[xml(child(default))]
    pub(crate) changes: Option<Changes>,
    #[xml(extract(n = .., name = "forgotten", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) forgotten: Vec<Csn>,
}

/// The question for a snapshot of the database.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "load", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Load {
    #[xml(attribute(default))]
    pub(crate) id: Option<String>,
    #[xml(attribute(default))]
    pub(crate) resume: Option<u64>,
}

/// A snapshot that is about to be sent.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "snapshot", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Snapshot {
    #[xml(attribute)]
    pub(crate) id: String,
    #[xml(attribute)]
    pub(crate) size: u64,
    #[xml(attribute(codec = Hex))]
    pub(crate) sha256: [u8; 32],
    #[xml(attribute)]
    pub(crate) entries: u64,
    #[xml(attribute(codec = Text))]
    pub(crate) dataset: EntryUuid,
    #[xml(extract(n = .., name = "csn", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) csns: Vec<Csn>,
    #[xml(child(n = ..))]
    pub(crate) unseen: Vec<UnseenSpan>,
}

/// The question for the file of one change or entry.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "file", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct FileRequest {
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) csn: Option<Csn>,
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) uuid: Option<EntryUuid>,
}

/// The file of one change or entry that is about to be sent.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "file", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct File {
    #[xml(attribute)]
    pub(crate) id: String,
    #[xml(attribute(codec = Text))]
    pub(crate) csn: Csn,
    #[xml(attribute)]
    pub(crate) size: u64,
    #[xml(attribute(codec = Hex))]
    pub(crate) sha256: [u8; 32],
}

/// A change that is too large for a batch.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "large", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Large {
    #[xml(attribute(codec = Text))]
    pub(crate) sid: ServerId,
    #[xml(attribute(codec = Text))]
    pub(crate) boot: BootId,
    #[xml(attribute)]
    pub(crate) seq: u64,
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) prev: Option<Csn>,
    #[xml(attribute(codec = Text))]
    pub(crate) csn: Csn,
    #[xml(attribute)]
    pub(crate) bytes: u64,
}
