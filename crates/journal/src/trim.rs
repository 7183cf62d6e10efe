//! What the journal forgets.

use crate::codec;
use crate::error::{Fault, JournalError};
use crate::journal::Journal;
use crate::key::{
    ChangeKey, KEYS_BYTES, Packed, change_key, entry_key, first_key, key_csn, key_packed, last_key, pack,
    time_key, time_packed, unpack,
};
use crate::limits::TRIM_STEP_MAX;
use crate::state::State;
use crate::store::{
    CHANGES, CHANGES_BY_ENTRY, LOST, MARK_PLACE, MARKS, MOVES, TOMBSTONES, TOMBSTONES_BY_TIME, UNDATED, Uuid,
};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;
use xmppsync_replica::{Csn, ServerId, Unseen, Vector};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Changes and tombstones are kept this long.
    pub age_seconds: u64,
    /// Changes take at most this many bytes with their keys.
    pub bytes_max: u64,
}

/// What a [`Journal::trim`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Changes that are gone.
    pub dropped: usize,
    /// Tombstones that are gone.
    pub tombstones: usize,
    /// Moves up to this one are gone.
    pub moves: Option<Csn>,
    /// Those of the changes that went because of the size alone; for the log.
    pub forced: Option<Forced>,
    /// Whether calling again may do more.
    pub more: bool,
}

/// Changes that went although they were not old, or somebody lacked them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// How many.
    pub changes: usize,
    /// The latest of them.
    pub last: Csn,
    /// Who lacked some: places in `needed`.
    pub lacking: BTreeSet<usize>,
}

/// What is going to be dropped: found by reading, so that nothing is written when there is nothing to do.
#[derive(Default)]
struct Plan {
    /// The last change of each origin that goes.
    cuts: BTreeMap<ServerId, ChangeKey>,
    changes: usize,
    bytes: u64,
    forced: Option<Forced>,
    /// Tombstones, or places without one, by the time when they were recorded.
    tombstones: Vec<(u64, Uuid)>,
    /// Places without a tombstone of which no time is known yet.
    undated: Vec<Uuid>,
    moves: usize,
    /// The last move that goes.
    last_move: Option<Csn>,
    lost: Vec<(Packed, String)>,
    /// Nothing counts as unseen any more.
    seen: bool,
}

impl Journal {
    /// Drops changes that are older than the age, by their CSN, unless one of `needed` (the vectors of listed but absent
    /// peers) lacks them; then, while there are still more bytes than allowed, the oldest by CSN whoever needs them. The
    /// floors move accordingly. Tombstones recorded before the age go too, and what was
    /// [`unseen`](Self::unseen) counts as seen if the last of it was noted before. [`moves`](Self::moves) go by
    /// their CSN, what was [`lost`](Self::lost) by when it was recorded, the [`place`](Self::place) of a deleted entry with its tombstone.
    ///
    /// One call drops at most [`TRIM_STEP_MAX`] changes and as many tombstones and moves. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn trim(&mut self, now: u64, limits: Retention, needed: &[Vector]) -> Result<Trimmed, JournalError> {
        let before = now.saturating_sub(limits.age_seconds);
        let state = &self.state;
        let plan = self.read(|transaction| {
            let mut plan = Plan::default();
            plan.find_old(transaction, state, before, needed)?;
            plan.find_oldest(transaction, state, limits.bytes_max, needed)?;
            plan.find_tombstones(transaction, before)?;
            plan.find_moves(transaction, before)?;
            plan.find_lost(transaction, before)?;
            plan.seen = !state.unseen.is_empty() && state.unseen_at < before;
            Ok(plan)
        })?;
        if plan.has_work() {
            self.write_with(|state, transaction| plan.carry_out(now, before, state, transaction))?;
        }
        let most = [plan.changes, plan.tombstones.len(), plan.moves].into_iter().max();
        Ok(Trimmed {
            dropped: plan.changes,
            tombstones: plan.tombstones.len(),
            moves: plan.last_move,
            more: most == Some(TRIM_STEP_MAX),
            forced: plan.forced,
        })
    }
}

impl Plan {
    /// What is old and nobody lacks, and what a floor that was moved by its owner has left behind.
    fn find_old(
        &mut self,
        transaction: &ReadTransaction,
        state: &State,
        before: u64,
        needed: &[Vector],
    ) -> Result<(), Fault> {
        let table = transaction.open_table(CHANGES)?;
        for server in servers(&table)? {
            let floor = state.floor.get(server).map(change_key);
            let old = time_key(server, before);
            // None, that somebody has nothing of this origin, is the smallest.
            let had_by_all = needed.iter().map(|vector| vector.get(server).map(change_key)).min();
            let goes = |key: &ChangeKey| {
                let nobody_lacks = had_by_all.is_none_or(|had| Some(*key) <= had);
                Some(*key) <= floor || (*key < old && nobody_lacks)
            };
            for item in table.range::<&ChangeKey>(&first_key(server)..=&last_key(server))? {
                let (key, value) = item?;
                if self.changes == TRIM_STEP_MAX || !goes(key.value()) {
                    break;
                }
                self.drop_change(server, key.value(), value.value().len());
            }
        }
        Ok(())
    }

    /// What has to go for the size, the oldest of all origins first.
    fn find_oldest(
        &mut self,
        transaction: &ReadTransaction,
        state: &State,
        bytes_max: u64,
        needed: &[Vector],
    ) -> Result<(), Fault> {
        let is_enough = |plan: &Plan| {
            plan.changes == TRIM_STEP_MAX || state.bytes.saturating_sub(plan.bytes) <= bytes_max
        };
        if is_enough(self) {
            return Ok(());
        }
        let table = transaction.open_table(CHANGES)?;
        let mut ranges = Vec::new();
        for server in servers(&table)? {
            let (start, end) = (first_key(server), last_key(server));
            let start = self.cuts.get(&server).map_or(Bound::Included(&start), Bound::Excluded);
            ranges.push((server, table.range::<&ChangeKey>((start, Bound::Included(&end)))?));
        }
        let mut oldest: BinaryHeap<Reverse<(Packed, ChangeKey, usize, usize)>> = BinaryHeap::new();
        let mut take = (0..ranges.len()).collect::<Vec<usize>>();
        loop {
            for index in take.drain(..) {
                if let Some(item) = ranges[index].1.next() {
                    let (key, value) = item?;
                    let key = *key.value();
                    oldest.push(Reverse((key_packed(&key), key, value.value().len(), index)));
                }
            }
            let Some(Reverse((_, key, len, index))) = oldest.pop() else { return Ok(()) };
            if is_enough(self) {
                return Ok(());
            }
            self.drop_change(ranges[index].0, &key, len);
            self.force(key_csn(&key)?, needed);
            take.push(index);
        }
    }

    fn find_tombstones(&mut self, transaction: &ReadTransaction, before: u64) -> Result<(), Fault> {
        let table = transaction.open_table(TOMBSTONES_BY_TIME)?;
        for item in table.iter()? {
            let (key, _) = item?;
            let (at, uuid) = key.value();
            if at >= before || self.tombstones.len() == TRIM_STEP_MAX {
                break;
            }
            self.tombstones.push((at, *uuid));
        }
        for item in table.range((UNDATED, &[0; 16])..)?.take(TRIM_STEP_MAX) {
            self.undated.push(*item?.0.value().1);
        }
        Ok(())
    }

    fn find_moves(&mut self, transaction: &ReadTransaction, before: u64) -> Result<(), Fault> {
        let table = transaction.open_table(MOVES)?;
        for item in table.range::<&Packed>(..&time_packed(before))?.take(TRIM_STEP_MAX) {
            self.last_move = Some(unpack(item?.0.value())?);
            self.moves += 1;
        }
        Ok(())
    }

    /// What was recorded before the age has a CSN from before it too, unless a clock was wrong; then it goes later.
    fn find_lost(&mut self, transaction: &ReadTransaction, before: u64) -> Result<(), Fault> {
        let table = transaction.open_table(LOST)?;
        for item in table.range::<(&Packed, &str)>(..(&time_packed(before), ""))? {
            let (key, value) = item?;
            let ((packed, attribute), (at, _)) = (key.value(), value.value());
            if at < before {
                self.lost.push((*packed, attribute.to_owned()));
            }
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        let rows = [self.changes, self.tombstones.len(), self.undated.len(), self.moves, self.lost.len()];
        self.seen || rows.into_iter().any(|rows| rows > 0)
    }

    fn carry_out(
        &self,
        now: u64,
        before: u64,
        state: &mut State,
        transaction: &WriteTransaction,
    ) -> Result<(), Fault> {
        self.drop_changes(state, transaction)?;
        state.bytes = state.bytes.saturating_sub(self.bytes);
        if self.seen {
            state.unseen = Unseen::default();
        }
        self.drop_tombstones(now, before, transaction)?;
        if let Some(last) = self.last_move {
            transaction.open_table(MOVES)?.retain_in::<&Packed, _>(..=&pack(last), |_, _| false)?;
        }
        let mut lost = transaction.open_table(LOST)?;
        for (packed, attribute) in &self.lost {
            lost.remove((packed, attribute.as_str()))?;
        }
        Ok(())
    }

    fn drop_changes(&self, state: &mut State, transaction: &WriteTransaction) -> Result<(), Fault> {
        let mut changes = transaction.open_table(CHANGES)?;
        let mut indexed = Vec::with_capacity(self.changes);
        for (server, cut) in &self.cuts {
            changes.retain_in::<&ChangeKey, _>(&first_key(*server)..=cut, |key, bytes| {
                indexed.push(codec::uuid(bytes).map(|uuid| entry_key(&uuid, &key_packed(key))));
                false
            })?;
            // The head stays: when changes beyond it go, what is before them is as unknown as it was.
            state.floor.advance(unpack(&key_packed(cut))?);
        }
        let mut indexed = indexed.into_iter().collect::<Result<Vec<_>, _>>()?;
        // What lies together goes together.
        indexed.sort_unstable();
        let mut by_entry = transaction.open_table(CHANGES_BY_ENTRY)?;
        for key in &indexed {
            by_entry.remove(key)?;
        }
        Ok(())
    }

    fn drop_tombstones(&self, now: u64, before: u64, transaction: &WriteTransaction) -> Result<(), Fault> {
        let mut tombstones = transaction.open_table(TOMBSTONES)?;
        let mut by_time = transaction.open_table(TOMBSTONES_BY_TIME)?;
        let mut marks = transaction.open_table(MARKS)?;
        for (at, uuid) in &self.tombstones {
            by_time.remove((*at, uuid))?;
            // A place that was recorded without a tombstone may have got one since, which is not old yet.
            let is_kept = tombstones.get(uuid)?.is_some_and(|tombstone| tombstone.value().1 >= before);
            if !is_kept {
                tombstones.remove(uuid)?;
                marks.remove((MARK_PLACE, uuid))?;
            }
        }
        for uuid in &self.undated {
            by_time.remove((UNDATED, uuid))?;
            by_time.insert((now, uuid), ())?;
        }
        Ok(())
    }

    fn drop_change(&mut self, server: ServerId, key: &ChangeKey, len: usize) {
        self.cuts.insert(server, *key);
        self.changes += 1;
        self.bytes += KEYS_BYTES + len as u64;
    }

    fn force(&mut self, csn: Csn, needed: &[Vector]) {
        let nothing = Forced { changes: 0, last: csn, lacking: BTreeSet::new() };
        let forced = self.forced.get_or_insert(nothing);
        forced.changes += 1;
        forced.last = csn;
        forced.lacking.extend((0..needed.len()).filter(|place| !needed[*place].covers(csn)));
    }
}

/// The origins of which there are changes, found by skipping from one to the next.
fn servers(table: &impl ReadableTable<&'static ChangeKey, &'static [u8]>) -> Result<Vec<ServerId>, Fault> {
    let mut servers = Vec::new();
    let mut from = [0; 19];
    while let Some(item) = table.range::<&ChangeKey>(&from..)?.next() {
        let server = key_csn(item?.0.value())?.server_id();
        servers.push(server);
        from = last_key(server);
    }
    Ok(servers)
}
