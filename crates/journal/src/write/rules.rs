//! What the rules by which changes meet remember.
//!
//! The marks are in a table that the inventory has open when it writes, and a table cannot be open twice: both use that one.

use super::Writer;
use crate::error::Fault;
use crate::key::pack;
use crate::limits::{CONFLICTS_MAX, ORPHANS_MAX};
use crate::lost;
use crate::store::{LOST, MOVES, ORPHANS};
use redb::ReadableTableMetadata;
use xmppsync_replica::{EntryUuid, Lost, Move, Place};

impl Writer<'_> {
    pub(super) fn movement(&mut self, movement: &Move) -> Result<(), Fault> {
        let Move { csn, child, from, to, made } = movement;
        let from = from.as_ref().map(EntryUuid::as_bytes);
        let value = (child.as_bytes(), from, to.as_bytes(), *made);
        self.transaction.open_table(MOVES)?.insert(&pack(*csn), value)?;
        Ok(())
    }

    pub(super) fn lost(&mut self, lost: &Lost, at: u64) -> Result<(), Fault> {
        let mut table = self.transaction.open_table(LOST)?;
        let key = (&pack(lost.csn), lost.attribute.as_str());
        table.insert(key, (at, lost::encode(lost).as_slice()))?;
        if table.len()? > CONFLICTS_MAX {
            table.pop_first()?;
        }
        Ok(())
    }

    pub(super) fn mark_entry(
        &mut self,
        mark: u8,
        uuid: EntryUuid,
        place: Option<&Place>,
    ) -> Result<(), Fault> {
        let value = place.map(|place| (place.parent.as_bytes(), place.rdn.as_str()));
        self.inventory()?.marks.insert((mark, uuid.as_bytes()), value)?;
        Ok(())
    }

    pub(super) fn unmark_entry(&mut self, mark: u8, uuid: EntryUuid) -> Result<(), Fault> {
        self.inventory()?.marks.remove((mark, uuid.as_bytes()))?;
        Ok(())
    }

    pub(super) fn orphan(&mut self, uuid: EntryUuid) -> Result<(), Fault> {
        let mut table = self.transaction.open_table(ORPHANS)?;
        if table.len()? < ORPHANS_MAX {
            table.insert(uuid.as_bytes(), ())?;
        }
        Ok(())
    }

    pub(super) fn adopted(&mut self, uuid: EntryUuid) -> Result<(), Fault> {
        self.transaction.open_table(ORPHANS)?.remove(uuid.as_bytes())?;
        Ok(())
    }
}
