//! What the rules remember beside the entries themselves.

use crate::{Csn, EntryUuid};

/// Where an entry is, or was when it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The parent's entryUUID.
    pub parent: EntryUuid,
    /// The RDN that the entry is meant to have. Another entry may have it meanwhile.
    pub rdn: String,
}

/// A change of an entry's parent, as the log of moves has it (Kleppmann et al., "A highly-available move operation for replicated
/// trees"): those that came later can be undone and made again around one that comes late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// When it was made.
    pub csn: Csn,
    /// The entry that moves.
    pub child: EntryUuid,
    /// Its parent before, in the order of the CSNs; `None` while the entry itself has not come.
    pub from: Option<EntryUuid>,
    /// Where it goes.
    pub to: EntryUuid,
    /// It was made; otherwise it would have put an entry below itself, and falls away.
    pub made: bool,
}

/// A change, or a part of one, that has no effect because of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The change.
    pub csn: Csn,
    /// The entry that it was to change.
    pub uuid: EntryUuid,
    /// What it lost to.
    pub against: Csn,
    /// What was lost: an attribute, or `dn` for a name, a place or the whole entry.
    pub attribute: String,
    /// The values that it would have given.
    pub values: Vec<Vec<u8>>,
}
