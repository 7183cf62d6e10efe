//! The elements of the protocol as types: attributes and children in the order in which they are
//! written. Nothing here knows what a change is; `change`, `card` and the others convert. What has
//! no `AsXml` is written by `encode`.
//!
//! Every policy is spelled out: the default of `xso` depends on a feature that any crate of the
//! build can switch on.

use crate::{NAMESPACE, text};
use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use xmppsync_replica::{BootId, Csn, EntryUuid, ServerId};
use xso::{AsXml, FromXml, TextCodec, error::Error};

mod catch_up;
mod past;

pub(crate) use catch_up::{
    Entries, Fetch, File, FileRequest, Frame, Large, Load, Offer, Reconcile, Snapshot, UnseenSpan,
};
pub(crate) use past::{Changes, Move, Past, Side};

/// Texts by way of `FromStr` and `Display`.
pub(crate) struct Text;

impl<T> TextCodec<T> for Text
where
    T: FromStr + Display,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    fn decode(&self, text: String) -> Result<T, Error> {
        text.parse().map_err(Error::text_parse_error)
    }

    fn encode<'x>(&self, value: &'x T) -> Result<Option<Cow<'x, str>>, Error> {
        Ok(Some(Cow::Owned(value.to_string())))
    }
}

/// A flag that is written only when it is set.
struct WhenSet;

impl TextCodec<bool> for WhenSet {
    fn decode(&self, text: String) -> Result<bool, Error> {
        xso::FromXmlText::from_xml_text(text)
    }

    fn encode<'x>(&self, value: &'x bool) -> Result<Option<Cow<'x, str>>, Error> {
        Ok(value.then_some(Cow::Borrowed("true")))
    }
}

/// An element that holds one value, as text or base64.
macro_rules! value_element {
    ($(#[$meta:meta])* $type:ident, $name:literal) => {
        $(#[$meta])*
        #[derive(FromXml, Debug)]
        #[xml(namespace = NAMESPACE, name = $name, on_unknown_attribute = Fail, on_unknown_child = Fail)]
        pub(crate) struct $type {
            #[xml(attribute(name = "b64", default, codec = WhenSet))]
            base64: bool,
            #[xml(text)]
            text: String,
        }

        impl $type {
            /// `None` when the base64 is malformed.
            pub(crate) fn into_bytes(self) -> Option<Vec<u8>> {
                text::decode(self.base64, self.text)
            }
        }
    };
}

value_element!(
    /// A value of an attribute.
    Value, "v"
);
value_element!(
    /// The DN of the changed entry.
    Dn, "dn"
);
value_element!(NewRdn, "newrdn");
value_element!(NewSuperior, "newsuperior");
value_element!(
    /// The suffix of a replica.
    #[derive(AsXml)]
    Suffix, "suffix"
);

impl Suffix {
    pub(crate) fn new(value: &[u8]) -> Suffix {
        let (base64, text) = text::encode(value);
        Suffix { base64, text }
    }
}

/// An attribute of an added entry.
#[derive(FromXml, Debug)]
#[xml(namespace = NAMESPACE, name = "attr", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Attr {
    #[xml(attribute)]
    pub(crate) name: String,
    #[xml(child(n = ..))]
    pub(crate) values: Vec<Value>,
}

/// One modification, named by what it does.
#[derive(FromXml, Debug)]
#[xml(namespace = NAMESPACE)]
pub(crate) enum Mod {
    #[xml(name = "add", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    Add {
        #[xml(attribute)]
        attr: String,
        #[xml(child(n = ..))]
        values: Vec<Value>,
    },
    #[xml(name = "delete", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    Delete {
        #[xml(attribute)]
        attr: String,
        #[xml(child(n = ..))]
        values: Vec<Value>,
    },
    #[xml(name = "replace", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    Replace {
        #[xml(attribute)]
        attr: String,
        #[xml(child(n = ..))]
        values: Vec<Value>,
    },
    #[xml(name = "increment", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    Increment {
        #[xml(attribute)]
        attr: String,
        #[xml(child(n = ..))]
        values: Vec<Value>,
    },
}

/// One change of a batch.
#[derive(FromXml, Debug)]
#[xml(namespace = NAMESPACE)]
pub(crate) enum Change {
    #[xml(name = "add", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    Add {
        #[xml(attribute(codec = Text))]
        csn: Csn,
        #[xml(attribute(codec = Text))]
        uuid: EntryUuid,
        #[xml(attribute(default, codec = OptionalText))]
        parent: Option<EntryUuid>,
        #[xml(child)]
        dn: Dn,
        #[xml(child(n = ..))]
        attrs: Vec<Attr>,
    },
    #[xml(name = "put", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    Put {
        #[xml(attribute(codec = Text))]
        csn: Csn,
        #[xml(attribute(codec = Text))]
        uuid: EntryUuid,
        #[xml(attribute(default, codec = OptionalText))]
        parent: Option<EntryUuid>,
        #[xml(child)]
        dn: Dn,
        #[xml(child(n = ..))]
        attrs: Vec<Attr>,
    },
    #[xml(name = "modify", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    Modify {
        #[xml(attribute(codec = Text))]
        csn: Csn,
        #[xml(attribute(codec = Text))]
        uuid: EntryUuid,
        #[xml(child)]
        dn: Dn,
        #[xml(child(n = ..))]
        mods: Vec<Mod>,
    },
    #[xml(name = "modrdn", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    ModRdn {
        #[xml(attribute(codec = Text))]
        csn: Csn,
        #[xml(attribute(codec = Text))]
        uuid: EntryUuid,
        #[xml(attribute(default, codec = OptionalText))]
        parent: Option<EntryUuid>,
        #[xml(attribute)]
        deleteoldrdn: bool,
        #[xml(child)]
        dn: Dn,
        #[xml(child)]
        newrdn: NewRdn,
        #[xml(child(default))]
        newsuperior: Option<NewSuperior>,
        #[xml(child(n = ..))]
        mods: Vec<Mod>,
    },
    #[xml(name = "delete", on_unknown_attribute = Fail, on_unknown_child = Fail)]
    Delete {
        #[xml(attribute(codec = Text))]
        csn: Csn,
        #[xml(attribute(codec = Text))]
        uuid: EntryUuid,
        #[xml(attribute(default, codec = OptionalText))]
        parent: Option<EntryUuid>,
        #[xml(child)]
        dn: Dn,
    },
}

/// Changes of one origin that follow each other.
#[derive(FromXml, Debug)]
#[xml(namespace = NAMESPACE, name = "batch", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Batch {
    #[xml(attribute(codec = Text))]
    pub(crate) sid: ServerId,
    #[xml(attribute(codec = Text))]
    pub(crate) boot: BootId,
    #[xml(attribute)]
    pub(crate) first: u64,
    #[xml(attribute)]
    pub(crate) last: u64,
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) prev: Option<Csn>,
    #[xml(child(n = ..))]
    pub(crate) changes: Vec<Change>,
}

/// A piece of a batch's XML.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "part", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Part {
    #[xml(attribute(codec = Text))]
    pub(crate) sid: ServerId,
    #[xml(attribute(codec = Text))]
    pub(crate) boot: BootId,
    #[xml(attribute)]
    pub(crate) first: u64,
    #[xml(attribute)]
    pub(crate) last: u64,
    // xso prefixes field names with `f`, and `fn` is a keyword.
    #[xml(attribute = "n")]
    pub(crate) number: u32,
    #[xml(attribute)]
    pub(crate) of: u32,
    #[xml(attribute)]
    pub(crate) bytes: u32,
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) change: Option<Csn>,
    #[xml(text)]
    pub(crate) text: String,
}

/// What a replica says of itself. Later versions may say more in it, hence the tolerance.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "replica", on_unknown_attribute = Discard, on_unknown_child = Discard)]
pub(crate) struct Replica {
    #[xml(attribute)]
    pub(crate) version: u32,
    #[xml(attribute(codec = Text))]
    pub(crate) sid: ServerId,
    #[xml(attribute(codec = Text))]
    pub(crate) boot: BootId,
    #[xml(attribute)]
    pub(crate) seq: u64,
    #[xml(attribute(codec = Text))]
    pub(crate) phase: crate::Phase,
    #[xml(attribute(codec = Text))]
    pub(crate) live: crate::Live,
    #[xml(attribute)]
    pub(crate) node: String,
    #[xml(attribute)]
    pub(crate) software: String,
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) dataset: Option<EntryUuid>,
    #[xml(attribute(default))]
    pub(crate) done: Option<u64>,
    #[xml(attribute(default))]
    pub(crate) of: Option<u64>,
    #[xml(child)]
    pub(crate) suffix: Suffix,
    #[xml(extract(n = .., name = "csn", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) csns: Vec<Csn>,
}

/// The question for what the asker lacks.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "pull", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Pull {
    #[xml(attribute(default, codec = OptionalText))]
    pub(crate) change: Option<Csn>,
    #[xml(attribute(default))]
    pub(crate) part: Option<u32>,
    #[xml(attribute = "max-bytes")]
    pub(crate) bytes_max: u32,
    #[xml(extract(n = .., name = "csn", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) csns: Vec<Csn>,
}

/// [`Text`] for what may be absent.
struct OptionalText;

impl<T> TextCodec<Option<T>> for OptionalText
where
    Text: TextCodec<T>,
{
    fn decode(&self, text: String) -> Result<Option<T>, Error> {
        Text.decode(text).map(Some)
    }

    fn encode<'x>(&self, value: &'x Option<T>) -> Result<Option<Cow<'x, str>>, Error> {
        value.as_ref().map_or(Ok(None), |value| Text.encode(value))
    }
}

/// The answer to a pull.
#[derive(FromXml, Debug)]
#[xml(namespace = NAMESPACE, name = "page", on_unknown_attribute = Fail, on_unknown_child = Fail)]
pub(crate) struct Page {
    #[xml(attribute)]
    pub(crate) more: bool,
    #[xml(extract(n = .., name = "beyond", fields(text(type_ = Csn, codec = Text))))]
    pub(crate) beyond: Vec<Csn>,
    #[xml(child(n = ..))]
    pub(crate) batches: Vec<Batch>,
}

/// Something that happened in the group.
#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = NAMESPACE, name = "event", on_unknown_attribute = Discard, on_unknown_child = Discard)]
pub(crate) struct Event {
    #[xml(attribute(codec = Text))]
    pub(crate) kind: crate::NoticeKind,
    #[xml(attribute(codec = Text))]
    pub(crate) sid: ServerId,
}
