//! The log of moves after an unclean end: a move is noted a moment after its change.

use super::aside::place;
use super::{Found, Noted, OpeningError};
use crate::host::Opening;
use crate::merging::Names;
use std::collections::{BTreeSet, HashMap};
use xmppsync_journal::{Journal, Record};
use xmppsync_replica::{Csn, EntryUuid, Move, Operation, ServerId};

/// The moves that are made, by child.
struct Log {
    made: HashMap<EntryUuid, Vec<Move>>,
    new: Vec<Move>,
}

impl Log {
    fn new(known: &Names) -> Log {
        let mut made: HashMap<EntryUuid, Vec<Move>> = HashMap::new();
        known
            .moves
            .values()
            .filter(|known| known.made)
            .for_each(|known| made.entry(known.child).or_default().push(*known));
        Log { made, new: Vec::new() }
    }

    /// Where the entry was before that, if an earlier move tells.
    fn before(&self, child: EntryUuid, csn: Csn) -> Option<EntryUuid> {
        let moves = self.made.get(&child)?;
        moves.iter().rev().find(|known| known.csn < csn).map(|known| known.to)
    }

    /// The same, or where it was added.
    fn before_or_added(
        &self,
        journal: &Journal,
        child: EntryUuid,
        csn: Csn,
    ) -> Result<Option<EntryUuid>, OpeningError> {
        match self.before(child, csn) {
            None => added_below(journal, child),
            before => Ok(before),
        }
    }

    /// From where the next move after that took it.
    fn after(&self, child: EntryUuid, csn: Csn) -> Option<EntryUuid> {
        self.made.get(&child)?.iter().find(|known| known.csn > csn)?.from
    }

    fn note(&mut self, new: Move) {
        if new.made {
            let moves = self.made.entry(new.child).or_default();
            let at = moves.partition_point(|known| known.csn < new.csn);
            moves.insert(at, new);
        }
        self.new.push(new);
    }
}

/// What the log of moves lacks.
///
/// * Moves among the journal's changes that are in the database.
/// * A state that is sent puts its entry where it is, on all servers and whether or not it is there already (`merge::apply`): here as well.
/// * An entry that is `noted` only, and is elsewhere than its last known move has put it: nobody remembers which change did that, so it
///   counts as the last one. Without it the others, made again, would put the entry back.
pub(super) fn unknown(
    journal: &Journal,
    names: &Names,
    found: &Found,
    noted: &[Noted],
    own: ServerId,
    database: &mut dyn Opening,
) -> Result<Vec<Record>, OpeningError> {
    let mut log = Log::new(names);
    let waiting: BTreeSet<Csn> = journal.set_asides()?.into_iter().map(|set_aside| set_aside.csn).collect();
    let unnoted = journal.unnoted_moves()?;
    let last: HashMap<EntryUuid, Csn> = unnoted.iter().map(|(csn, child, _)| (*child, *csn)).collect();
    for (csn, child, to) in unnoted {
        let is_here = csn.server_id() == own || found.vector.covers(csn);
        if !is_here || waiting.contains(&csn) {
            continue;
        }
        let is_last = last.get(&child) == Some(&csn);
        let now = match log.after(child, csn) {
            None if is_last => database.read_entry(&child)?.map_or(Some(to), |entry| entry.parent),
            None => Some(to),
            after => after,
        };
        let from = log.before_or_added(journal, child, csn)?;
        log.note(Move { csn, child, from, to, made: now == Some(to) });
    }
    for (change, _) in &found.unpublished {
        if let (Operation::Put(_), Some(to)) = (&change.operation, change.parent) {
            let (csn, child) = (change.csn, change.uuid);
            let from = log.before_or_added(journal, child, csn)?.or(Some(to));
            log.note(Move { csn, child, from, to, made: true });
        }
    }
    for Noted { uuid, dn, csn } in noted {
        let (child, csn) = (*uuid, *csn);
        if let (Some(from), Some(place)) = (log.before(child, csn), place(dn, database))
            && place.parent != from
        {
            log.note(Move { csn, child, from: Some(from), to: place.parent, made: true });
        }
    }
    Ok(log.new.into_iter().map(Record::Move).collect())
}

/// Where the entry was added, if the journal remembers.
fn added_below(journal: &Journal, uuid: EntryUuid) -> Result<Option<EntryUuid>, OpeningError> {
    let changes = journal.later(uuid, None, |_| false)?.into_iter().filter_map(|(_, change)| change);
    let mut adds = changes.filter(|change| matches!(change.operation, Operation::Add(_)));
    Ok(adds.next().and_then(|add| add.parent))
}
