//! What the journal forgets.

use crate::error::{Fault, JournalError};
use crate::journal::Journal;
use crate::key::{ChangeKey, Packed, change_key, first_key, key_csn, key_packed, last_key, time_key, unpack};
use crate::limits::TRIM_STEP_MAX;
use crate::state::State;
use crate::store::{CHANGES, TOMBSTONES, TOMBSTONES_BY_TIME, Uuid};
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
    tombstones: Vec<(u64, Uuid)>,
    /// Nothing counts as unseen any more.
    seen: bool,
}

impl Journal {
    /// Drops changes that are older than the age, by their CSN, unless one of `needed` (the vectors of listed but absent
    /// peers) lacks them; then, while there are still more bytes than allowed, the oldest by CSN whoever needs them. The
    /// floors move accordingly. Tombstones recorded before the age go too, and what was
    /// [`unseen`](Self::unseen) counts as seen if the last of it was noted before.
    ///
    /// One call drops at most [`TRIM_STEP_MAX`] changes and as many tombstones. `now` is in seconds since 1970.
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
            plan.seen = !state.unseen.is_empty() && state.unseen_at < before;
            Ok(plan)
        })?;
        if plan.changes > 0 || !plan.tombstones.is_empty() || plan.seen {
            self.write_with(|state, transaction| plan.carry_out(state, transaction))?;
        }
        Ok(Trimmed {
            dropped: plan.changes,
            tombstones: plan.tombstones.len(),
            more: plan.changes == TRIM_STEP_MAX || plan.tombstones.len() == TRIM_STEP_MAX,
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
        for item in transaction.open_table(TOMBSTONES_BY_TIME)?.iter()? {
            let (key, _) = item?;
            let (at, uuid) = key.value();
            if at >= before || self.tombstones.len() == TRIM_STEP_MAX {
                break;
            }
            self.tombstones.push((at, *uuid));
        }
        Ok(())
    }

    fn carry_out(&self, state: &mut State, transaction: &WriteTransaction) -> Result<(), Fault> {
        let mut changes = transaction.open_table(CHANGES)?;
        for (server, cut) in &self.cuts {
            changes.retain_in::<&ChangeKey, _>(&first_key(*server)..=cut, |_, _| false)?;
            // The head stays: when changes beyond it go, what is before them is as unknown as it was.
            state.floor.advance(unpack(&key_packed(cut))?);
        }
        state.bytes = state.bytes.saturating_sub(self.bytes);
        if self.seen {
            state.unseen = Unseen::default();
        }
        let mut tombstones = transaction.open_table(TOMBSTONES)?;
        let mut by_time = transaction.open_table(TOMBSTONES_BY_TIME)?;
        for (at, uuid) in &self.tombstones {
            tombstones.remove(uuid)?;
            by_time.remove((*at, uuid))?;
        }
        Ok(())
    }

    fn drop_change(&mut self, server: ServerId, key: &ChangeKey, len: usize) {
        self.cuts.insert(server, *key);
        self.changes += 1;
        self.bytes += (key.len() + len) as u64;
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
