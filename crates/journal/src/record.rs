//! What can be written.

use crate::peer::{Peer, SetAside};
use std::sync::Arc;
use xmppsync_replica::{BootId, Change, Csn, EntryUuid, Lost, Move, Place, Unseen};

/// One thing to write down.
#[derive(Clone, Debug)]
pub enum Record {
    /// A change of any origin, with its place in the origin's stream. One that is not above the floor is passed over;
    /// the same one again replaces itself.
    Change {
        /// The origin's run.
        boot: BootId,
        /// The sequence number in that run.
        seq: u64,
        /// The change.
        change: Arc<Change>,
    },
    /// The entry is in the database with this entryCSN. Passed over when a later one is known, or a delete that is not
    /// earlier; an earlier delete is forgotten.
    Put {
        /// The entry.
        uuid: EntryUuid,
        /// Its entryCSN.
        csn: Csn,
    },
    /// The entry was deleted. Passed over when the inventory or a tombstone has a later CSN.
    Gone {
        /// The entry.
        uuid: EntryUuid,
        /// The CSN of the delete.
        csn: Csn,
        /// Now, in seconds since 1970.
        at: u64,
    },
    /// The entry is in the database in just this state, whatever was known of it: the database was put back.
    Is {
        /// The entry.
        uuid: EntryUuid,
        /// Its entryCSN.
        csn: Csn,
    },
    /// The entry is not in the database, and was not deleted either: the database was put back.
    Forget {
        /// The entry.
        uuid: EntryUuid,
    },
    /// Whether the database was put back and lacks what the journal knows, see [`Journal::is_put_back`].
    PutBack(bool),
    /// Which state of the database the journal has seen: opaque, see [`Journal::generation`].
    Generation(Vec<u8>),
    /// Everything of this CSN's origin up to it is known: what is not yet in the journal is in the same call. Never
    /// moves back.
    Head(Csn),
    /// Everything up to this CSN is known, by a load or reconciliation, and not as changes: moves floor and head, never
    /// back. Changes below it stay in the file until they are trimmed.
    Floor(Csn),
    /// The database's vector covers these CSNs, which were not necessarily seen. They count as seen when no tombstone is
    /// as old any more as the last of these records.
    Unseen {
        /// Which ones.
        unseen: Unseen,
        /// Now, in seconds since 1970.
        at: u64,
    },
    /// [`Floor`](Record::Floor), unless the head has come that far: the changes are here then.
    Reached(Csn),
    /// A replica as it was seen now.
    Peer(Peer),
    /// This bare JID is no replica any more.
    PeerRemoved(String),
    /// A change could not be applied.
    SetAside(SetAside),
    /// It could after all, or was given up.
    ClearedAside(Csn),
    /// A change is in the database before its turn, with a state that was taken or because its entry came late. The same CSN again
    /// replaces itself.
    Ahead {
        /// The change.
        csn: Csn,
        /// Its entry.
        uuid: EntryUuid,
    },
    /// Its turn has come, or it is not in the database any more.
    InTurn(Csn),
    /// The parent of an entry changed, or would have. The same CSN again replaces itself.
    Move(Move),
    /// Where a deleted entry was. Goes with the entry's tombstone; without one it is kept for as long as a tombstone would be, from the
    /// next [`trim`](crate::Journal::trim) on.
    Place {
        /// The entry.
        uuid: EntryUuid,
        /// Where it was.
        place: Place,
    },
    /// A change had no effect, or not all of it. The same CSN and attribute again replaces itself; of the values
    /// [`LOST_BYTES_MAX`](crate::limits::LOST_BYTES_MAX) are kept, and beyond
    /// [`CONFLICTS_MAX`](crate::limits::CONFLICTS_MAX) the losses of the earliest CSNs are forgotten.
    Lost {
        /// What was lost.
        lost: Lost,
        /// Now, in seconds since 1970.
        at: u64,
    },
    /// The entry has not the name or place that it is meant to have.
    Displaced {
        /// The entry.
        uuid: EntryUuid,
        /// What it is meant to have.
        place: Place,
    },
    /// The entry has the name and place that it is meant to have, or is gone.
    Named(EntryUuid),
    /// The entry only holds its place in the tree, for those below it.
    Glue(EntryUuid),
    /// It is an entry like others, or is gone.
    NoGlue(EntryUuid),
    /// The entry may lack something, or have what should have lost.
    Doubt(EntryUuid),
    /// It is as it is to be, or is gone.
    Certain(EntryUuid),
    /// Changes of the entry came before the entry. Passed over while there are
    /// [`ORPHANS_MAX`](crate::limits::ORPHANS_MAX) of such entries.
    Orphan(EntryUuid),
    /// The entry has come, or will not any more.
    Adopted(EntryUuid),
    /// An initial load goes on, and how to resume it; or it is finished.
    Loading(Option<Vec<u8>>),
    /// The inventory is being taken, or is whole. A journal that was left before that is of no use at the next opening.
    Incomplete(bool),
}
