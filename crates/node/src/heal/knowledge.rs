//! What this replica knows of entries, for a comparison: how they are, and what it remembers of their pasts.

use crate::limits;
use crate::merging;
use crate::reads::{self, Moment, OutOfTurn};
use crate::shared::{Shared, lock};
use std::collections::{BTreeMap, BTreeSet};
use xmppsync_journal::limits::SET_ASIDES_MAX;
use xmppsync_journal::{Journal, JournalError};
use xmppsync_replica::merge::Attributes;
use xmppsync_replica::{
    Change, Csn, EntryUuid, Fingerprint, Known, Lost, Move, Operation, Seen, Side, Vector, names,
};

/// An entry, and all that is known of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looked {
    /// As it is in the database, if it is there.
    pub(crate) state: Option<Change>,
    pub(crate) known: Known,
    /// What may be in it or not, because the database was put back or ended uncleanly: in no list of `known`.
    pub(crate) unclear: BTreeSet<Csn>,
    pub(crate) moves: Vec<Move>,
}

/// What the journal knows of an entry.
#[derive(Default)]
struct Recorded {
    is_listed: bool,
    tombstone: Option<Csn>,
    changes: Vec<Csn>,
    refused: bool,
}

struct Records {
    floor: Vector,
    entries: BTreeMap<EntryUuid, Recorded>,
}

/// Looks at entries. Returns how far this replica had come at the first of them: of those that were looked at later what came
/// since is in the list of their changes. `None`: there is no journal, or the replica is being stopped.
pub(crate) async fn look(
    shared: &Shared,
    uuids: &[EntryUuid],
) -> Option<(Side, BTreeMap<EntryUuid, Looked>)> {
    let mut attempts = 0;
    let (mut side, mut looked, mut count) = look_at_once(shared, uuids, &mut attempts).await?;
    while count < uuids.len() {
        let (later, some, more) = look_at_once(shared, &uuids[count..], &mut attempts).await?;
        // What is forgotten since the first of them is in the list of those.
        side.floor = clamped(&later.floor, &side.seen.vector);
        looked.extend(some);
        count += more;
    }
    Some((side, looked))
}

/// The first of these, and how many. What clients write meanwhile is in the database a moment before it is in the journal, and must not
/// look like an entry that cannot be read: such a one is looked at again, by itself.
async fn look_at_once(
    shared: &Shared,
    uuids: &[EntryUuid],
    attempts: &mut u32,
) -> Option<(Side, BTreeMap<EntryUuid, Looked>, usize)> {
    loop {
        let uuids = &uuids[..uuids.len().min(limits::LOOKED_UP_AT_ONCE)];
        let Moment { seen, states, asides } = reads::entries_now(shared, uuids.to_vec()).await?;
        let asked = uuids[..states.len()].to_vec();
        let Records { floor, mut entries } =
            shared.store.ask(move |journal| records(journal, &asked)).await.ok()?;
        let is_odd = |(uuid, state): (&EntryUuid, &Option<Change>)| {
            state.is_none() && entries.get(uuid).is_some_and(|recorded| recorded.is_listed)
        };
        let count = match uuids.iter().zip(&states).position(is_odd) {
            Some(0) if *attempts < limits::LOOK_AGAIN_MAX => {
                *attempts += 1;
                tokio::time::sleep(limits::LOOK_AGAIN_PAUSE).await;
                continue;
            }
            Some(odd) if *attempts < limits::LOOK_AGAIN_MAX => odd,
            _ => states.len(),
        };
        let mut moves = moves(shared, &uuids[..count]);
        let mut looked = BTreeMap::new();
        for ((uuid, state), aside) in uuids.iter().zip(states).zip(asides).take(count) {
            let recorded = entries.remove(uuid).unwrap_or_default();
            let moves = moves.remove(uuid).unwrap_or_default();
            looked.insert(*uuid, together(shared, &seen, (*uuid, state, recorded, aside, moves)));
        }
        let floor = clamped(&floor, &seen.vector);
        return Some((Side { seen, floor }, looked, count));
    }
}

/// The journal is told of what a comparison brought before that is in the database: until then the floor says nothing of it.
pub(crate) fn clamped(floor: &Vector, vector: &Vector) -> Vector {
    let reached = |csn: Csn| if vector.covers(csn) { Some(csn) } else { vector.get(csn.server_id()) };
    floor.iter().filter_map(reached).collect()
}

/// The moves of these entries that are known, those of clients among them that were not followed yet.
fn moves(shared: &Shared, uuids: &[EntryUuid]) -> BTreeMap<EntryUuid, Vec<Move>> {
    let wanted: BTreeSet<EntryUuid> = uuids.iter().copied().collect();
    let mut moves: BTreeMap<Csn, Move> = lock(&shared.to_apply)
        .to_follow
        .iter()
        .filter_map(merging::client_move)
        .map(|made| (made.csn, made))
        .collect();
    moves.extend(&lock(&shared.names).moves);
    let mut by_entry: BTreeMap<EntryUuid, Vec<Move>> = BTreeMap::new();
    for made in moves.into_values().filter(|made| wanted.contains(&made.child)) {
        by_entry.entry(made.child).or_default().push(made);
    }
    by_entry
}

fn records(journal: &Journal, uuids: &[EntryUuid]) -> Result<Records, JournalError> {
    let set_asides = journal.set_asides()?;
    // So many that the oldest are forgotten: it may be any.
    let forgotten = set_asides.len() as u64 >= SET_ASIDES_MAX;
    let refused = set_asides.iter().filter(|set_aside| !set_aside.reason.starts_with(merging::WAITS_FOR));
    let refused: BTreeSet<EntryUuid> = refused.map(|set_aside| set_aside.uuid).collect();
    let not_in: BTreeSet<Csn> = set_asides.iter().map(|set_aside| set_aside.csn).collect();
    let mut entries = BTreeMap::new();
    for uuid in uuids {
        let changes = journal.later(*uuid, None, |_| true)?.into_iter().map(|(csn, _)| csn);
        let recorded = Recorded {
            is_listed: journal.inventory_get(*uuid)?.is_some(),
            tombstone: journal.tombstone(*uuid)?.map(|(csn, _)| csn),
            changes: changes.filter(|csn| !not_in.contains(csn)).collect(),
            refused: forgotten || refused.contains(uuid),
        };
        entries.insert(*uuid, recorded);
    }
    Ok(Records { floor: journal.floor().clone(), entries })
}

fn together(
    shared: &Shared,
    seen: &Seen,
    (uuid, state, recorded, aside, moves): (EntryUuid, Option<Change>, Recorded, OutOfTurn, Vec<Move>),
) -> Looked {
    let (fresh, deleted) = {
        let captured = lock(&shared.captured);
        (captured.later(uuid, None), captured.deleted.get(uuid))
    };
    let OutOfTurn { waiting, is_awaited, ahead } = aside;
    let is_doubted = lock(&shared.names).doubts.contains(&uuid);
    let is_in = |csn: &Csn| csn.server_id() == shared.own || seen.vector.covers(*csn);
    let changes = recorded.changes.into_iter().filter(is_in);
    let changes = changes.chain(fresh.iter().map(|change| change.csn)).filter(|csn| !waiting.contains(csn));
    let (unclear, mut changes): (_, BTreeSet<Csn>) = changes.partition(|csn| seen.unseen.contains(*csn));
    changes.extend(ahead);
    let (entry, glue) = prints(state.as_ref());
    let known = Known {
        tombstone: recorded.tombstone.max(deleted).filter(|_| entry.is_none()),
        has_many: changes.len() > limits::PAST_CHANGES_MAX,
        changes,
        waiting,
        // In the inventory and not found: what reads is at fault (an index), not the entry.
        refused: recorded.refused || (recorded.is_listed && state.is_none()),
        in_doubt: is_doubted || is_awaited,
        entry,
        glue,
    };
    Looked { state, known, unclear, moves }
}

/// What tells whether an entry is like another replica's: entryCSN and fingerprint.
pub(crate) type Likeness = (Csn, Fingerprint);

/// That of an entry, and that of one that is glue.
pub(crate) fn prints(state: Option<&Change>) -> (Option<Likeness>, Option<Likeness>) {
    let print = state.map(|state| (state.csn, print(state)));
    match state.is_some_and(merging::is_glue) {
        true => (None, print),
        false => (print, None),
    }
}

/// Whether an entry is displaced follows from others: it counts as if it had the name that it is meant to have.
pub(crate) fn print(state: &Change) -> Fingerprint {
    let (Operation::Add(request) | Operation::Put(request)) = &state.operation else {
        return Fingerprint::new(None, "", &Attributes::new());
    };
    let attributes: Attributes = request
        .attributes
        .iter()
        .filter(|attribute| !attribute.atype.eq_ignore_ascii_case(Lost::DISPLACED))
        .map(|attribute| (attribute.atype.clone(), attribute.vals.clone()))
        .collect();
    Fingerprint::new(state.parent, &names::rdn(&request.dn), &attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csn(second: u8, server: u16) -> Csn {
        format!("202611222359{second:02}.000000Z#000000#{server:03x}#000000").parse().unwrap()
    }

    #[test]
    fn a_floor_says_nothing_of_what_is_not_in_the_database_yet() {
        let vector = [csn(5, 1), csn(5, 2)].into_iter().collect();
        let floor = [csn(3, 1), csn(9, 2), csn(1, 3)].into_iter().collect();
        assert_eq!(clamped(&floor, &vector), [csn(3, 1), csn(5, 2)].into_iter().collect());
    }
}
