//! What a replica remembers of entries beside their states, and how far it has come: what the rules for comparisons
//! ([`xmppsync_replica::Sides`]) judge by.

use crate::card::{CSN_BYTES, UNSEEN_BYTES, unseen, unseen_elements, vector};
use crate::error::check;
use crate::{Place, WireError, batch, limits, schema};
use minidom::Element;
use xmppsync_replica::{Csn, EntryUuid, Move, Seen, Side};

/// What a replica remembers of an entry beside its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The entry.
    pub uuid: EntryUuid,
    /// The changes that are in it, as far as they are remembered; [`limits::PAST_CHANGES_MAX`] at most.
    pub changes: Vec<Csn>,
    /// There are too many to be told: those that were seen are in it, and `changes` are others.
    pub has_many: bool,
    /// Those that wait for it or for another entry, and are not in it; as many at most.
    pub waiting: Vec<Csn>,
    /// When it was deleted, for one that is only there because of its children: the state then is glue.
    pub deleted: Option<Csn>,
    /// It could not be applied once.
    pub is_refused: bool,
    /// It may have what should have lost, because changes came late of which it was not known which later ones there are.
    pub in_doubt: bool,
    /// Its moves; [`limits::PAST_MOVES_MAX`] at most.
    pub moves: Vec<Move>,
}

impl Past {
    /// One of which nothing is remembered yet.
    pub fn new(uuid: EntryUuid) -> Past {
        let (changes, waiting, moves) = (Vec::new(), Vec::new(), Vec::new());
        let (has_many, is_refused, in_doubt) = (false, false, false);
        Past { uuid, changes, has_many, waiting, deleted: None, is_refused, in_doubt, moves }
    }

    pub(crate) fn to_element(&self) -> Result<Element, WireError> {
        self.check()?;
        let moved =
            |step: &Move| schema::Move { csn: step.csn, from: step.from, to: step.to, made: step.made };
        let past = schema::Past {
            uuid: self.uuid,
            deleted: self.deleted,
            refused: self.is_refused,
            doubt: self.in_doubt,
            many: self.has_many,
            csns: self.changes.clone(),
            waits: self.waiting.clone(),
            moves: self.moves.iter().map(moved).collect(),
        };
        batch::to_element(&past, Place::Past(self.uuid))
    }

    pub(crate) fn from_schema(past: schema::Past) -> Result<Past, WireError> {
        let uuid = past.uuid;
        let moved = |schema::Move { csn, from, to, made }| Move { csn, child: uuid, from, to, made };
        let past = Past {
            uuid,
            changes: past.csns,
            has_many: past.many,
            waiting: past.waits,
            deleted: past.deleted,
            is_refused: past.refused,
            in_doubt: past.doubt,
            moves: past.moves.into_iter().map(moved).collect(),
        };
        past.check()?;
        Ok(past)
    }

    fn check(&self) -> Result<(), WireError> {
        for (what, found, max) in [
            ("changes", self.changes.len(), limits::PAST_CHANGES_MAX),
            ("waiting changes", self.waiting.len(), limits::PAST_CHANGES_MAX),
            ("moves", self.moves.len(), limits::PAST_MOVES_MAX),
        ] {
            check(what, Place::Past(self.uuid), found, max)?;
        }
        match self.moves.iter().find(|step| step.child != self.uuid) {
            Some(stray) => Err(WireError::ForeignMove { uuid: self.uuid, child: stray.child }),
            None => Ok(()),
        }
    }
}

/// How many bytes the past takes in `<entries>` on the wire: never less than it does.
pub fn past_size_estimate(past: &Past) -> usize {
    // <past uuid='36' deleted='40' refused='true' doubt='true' many='true'></past>
    const PAST_BYTES: usize = 148;
    // <waits>40</waits>
    const WAITS_BYTES: usize = Csn::LEN + 15;
    // <move csn='40' from='36' to='36' made='false'></move>
    const MOVE_BYTES: usize = 159;
    PAST_BYTES
        + past.changes.len() * CSN_BYTES
        + past.waiting.len() * WAITS_BYTES
        + past.moves.len() * MOVE_BYTES
}

pub(crate) fn side_to_element(side: &Side) -> Result<Element, WireError> {
    let element = schema::Side {
        csns: side.seen.vector.iter().collect(),
        unseen: unseen_elements(&side.seen.unseen),
        floor: side.floor.iter().collect(),
    };
    batch::to_element(&element, Place::Entries)
}

pub(crate) fn side_from_schema(side: &schema::Side) -> Result<Side, WireError> {
    let seen =
        Seen { vector: vector(&side.csns, Place::Entries)?, unseen: unseen(&side.unseen, Place::Entries)? };
    Ok(Side { seen, floor: vector(&side.floor, Place::Entries)? })
}

/// How many bytes the side takes in `<entries>` on the wire: never less than it does. There is no useful constant: of a group of
/// all servers that there can be it is more than a stanza holds.
pub fn side_size_estimate(side: &Side) -> usize {
    // <side></side>
    const SIDE_BYTES: usize = 13;
    // <floor>40</floor>
    const FLOOR_BYTES: usize = Csn::LEN + 15;
    SIDE_BYTES
        + side.seen.vector.iter().count() * CSN_BYTES
        + side.seen.unseen.iter().count() * UNSEEN_BYTES
        + side.floor.iter().count() * FLOOR_BYTES
}
