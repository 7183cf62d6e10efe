//! What the rules need of a database. All of one change happens in one transaction.

use super::{Lost, Move, Place};
use crate::{Change, Csn, EntryUuid};
use std::sync::Arc;

/// Attributes by name, with their values.
pub type Attributes = Vec<(String, Vec<Vec<u8>>)>;

/// What attributes are like.
pub trait Schema {
    /// Why the database cannot go on.
    type Error;

    /// Whether the attribute has at most one value.
    ///
    /// # Errors
    /// The database's.
    fn is_single(&mut self, attribute: &str) -> Result<bool, Self::Error>;

    /// The form in which equal values of the attribute are the same bytes; without an equality rule, the value itself.
    ///
    /// # Errors
    /// The database's.
    fn normalize(&mut self, attribute: &str, value: &[u8]) -> Result<Vec<u8>, Self::Error>;
}

/// An entry in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its entryCSN: the latest change that was made to it.
    pub csn: Option<Csn>,
    /// Where it is, with the name that it is meant to have. `None` for the suffix entry.
    pub place: Option<Place>,
    /// It has a name of its own ([`names::displaced`](crate::names::displaced)) because another entry has the one that is
    /// meant.
    pub displaced: bool,
    /// It is deleted, and only there because of its children.
    pub glue: bool,
    /// When it was made, as bytes that compare as times do. Who was made earlier keeps a name.
    pub created: Vec<u8>,
}

/// A database as the rules see it, and what they do to it.
///
/// Entries are named by their entryUUIDs. What this replica knows of the past ([`later`](Self::later),
/// [`moves`](Self::moves), [`deleted`](Self::deleted)) has in it what was applied, and nothing that only waits to be.
pub trait Tree: Schema {
    /// The entry, if it is there.
    ///
    /// # Errors
    /// The database's, as those of all that follow.
    fn node(&mut self, uuid: EntryUuid) -> Result<Option<Node>, Self::Error>;
    /// The entry with just this name. Names are equal by their matching rules.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn holder(&mut self, place: &Place) -> Result<Option<EntryUuid>, Self::Error>;
    /// The displaced entries that are meant to have this name.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn displaced(&mut self, place: &Place) -> Result<Vec<EntryUuid>, Self::Error>;
    /// Whether entries are below this one.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn has_children(&mut self, uuid: EntryUuid) -> Result<bool, Self::Error>;
    /// The entry's attributes that are replicated.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn attributes(&mut self, uuid: EntryUuid) -> Result<Attributes, Self::Error>;

    /// The applied changes of the entry after a CSN (`None`: all that are known), in the order of their CSNs.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn later(&mut self, uuid: EntryUuid, after: Option<Csn>) -> Result<Vec<Arc<Change>>, Self::Error>;
    /// Changes up to here may have been applied that [`later`](Self::later) does not know.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn horizon(&mut self) -> Result<Option<Csn>, Self::Error>;
    /// The move with this CSN, if it is known, and all later ones, in the order of their CSNs.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn moves(&mut self, from: Csn) -> Result<Vec<Move>, Self::Error>;
    /// When the entry was deleted, and where it was, as far as that is known.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn deleted(&mut self, uuid: EntryUuid) -> Result<Option<(Csn, Option<Place>)>, Self::Error>;

    /// Makes the entry of an add or put, with this name (`None`: the suffix entry), displaced or not. If it is there as glue, with just
    /// this name, the glue becomes the entry, and its children stay.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn add(&mut self, change: &Change, place: Option<&Place>, displaced: bool) -> Result<(), Self::Error>;
    /// Makes a deleted entry anew because of a child that it has. It has nothing but its name.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn add_glue(
        &mut self,
        uuid: EntryUuid,
        csn: Csn,
        place: &Place,
        displaced: bool,
    ) -> Result<(), Self::Error>;
    /// Takes everything but its name from an entry that is deleted and has children.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn make_glue(&mut self, uuid: EntryUuid, csn: Csn) -> Result<(), Self::Error>;
    /// Gives the entry just these values of these attributes, and what the change says of who changed it last and when, if no
    /// later change did.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn set(&mut self, uuid: EntryUuid, change: &Change, values: Attributes) -> Result<(), Self::Error>;
    /// Gives the entry this name, displaced or not; values of the old one stay.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn name(&mut self, uuid: EntryUuid, place: &Place, displaced: bool) -> Result<(), Self::Error>;
    /// Removes the entry, which has no children.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn remove(&mut self, uuid: EntryUuid) -> Result<(), Self::Error>;

    /// Notes a move, or what became of one that was noted before.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn note_move(&mut self, made: Move) -> Result<(), Self::Error>;
    /// Notes where an entry would be that is not there.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn note_place(&mut self, uuid: EntryUuid, place: Place) -> Result<(), Self::Error>;
    /// Notes that it is not known what later changes made of the entry, so that another replica has to be asked. It may be gone by
    /// now.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn note_doubt(&mut self, uuid: EntryUuid) -> Result<(), Self::Error>;
    /// Notes what has no effect.
    ///
    /// # Errors
    /// See [`node`](Self::node).
    fn note_lost(&mut self, lost: Lost) -> Result<(), Self::Error>;
}

/// Notes a change, or these values of it, as lost.
pub(crate) fn lose<T: Tree>(
    tree: &mut T,
    change: &Change,
    against: Csn,
    attribute: &str,
    values: Vec<Vec<u8>>,
) -> Result<(), T::Error> {
    let attribute = attribute.to_owned();
    tree.note_lost(Lost { csn: change.csn, uuid: change.uuid, against, attribute, values })
}
