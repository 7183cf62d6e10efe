//! What the rules remember beside the entries themselves.

use crate::{Csn, EntryUuid, ServerId};

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
    /// What was lost: an attribute, [`NAME`](Self::NAME) or [`ENTRY`](Self::ENTRY).
    pub attribute: String,
    /// The values that it would have given: of [`NAME`](Self::NAME) an RDN or a parent's entryUUID, of [`ENTRY`](Self::ENTRY) the
    /// entry's DN.
    pub values: Vec<Vec<u8>>,
}

impl Lost {
    /// In [`attribute`](Self::attribute): a name, a place, or that the entry is deleted.
    pub const NAME: &str = "dn";
    /// In [`attribute`](Self::attribute): all that the change did to an entry that was deleted.
    pub const ENTRY: &str = "entry";
    /// The attribute by which an entry shows what was lost in it. What becomes of its values is not told of.
    pub const MARK: &str = "xmppSyncLost";
    /// The attribute by which an entry shows that another one has its name.
    pub const DISPLACED: &str = "xmppSyncConflict";

    /// The server that marks the loss. Of the two changes it made the later one, or the delete. Where it did so without knowing of the
    /// other one, that one comes to it late, so that it notices; where it knew, it decided, and nothing is to be marked.
    pub fn owner(&self) -> ServerId {
        if self.attribute == Lost::ENTRY {
            self.against.server_id()
        } else {
            self.csn.max(self.against).server_id()
        }
    }
}
