//! Whether a database is well-formed, and whether all are alike.

use crate::ledger::{Checked, Checker, Ledger, broken};
use crate::model::Model;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation, ServerId};

/// Looks at one entry: its parents are there, and it is not below itself.
pub(crate) fn look(model: &Model, uuid: EntryUuid, server: ServerId) -> Checked {
    let entries = model.entries();
    let mut at = uuid;
    for _ in 0..=entries.len() {
        let Some(entry) = entries.get(&at) else {
            // It may be deleted, or wait.
            return if at == uuid {
                Ok(())
            } else {
                broken(Checker::Tree, format!("{uuid} is an orphan at {server}: {at} is not there"))
            };
        };
        match &entry.place {
            Some(place) => at = place.parent,
            None => return Ok(()),
        }
    }
    broken(Checker::Tree, format!("{uuid} is below itself at {server}"))
}

/// Looks at every entry's way to the top.
pub(crate) fn look_up(model: &Model, server: ServerId) -> Checked {
    model.entries().keys().try_for_each(|uuid| look(model, *uuid, server))
}

/// Looks at all of a database.
pub(crate) fn look_at_all(model: &Model, server: ServerId) -> Checked {
    let mut names: BTreeMap<String, EntryUuid> = BTreeMap::new();
    for (uuid, entry) in model.entries() {
        look(model, *uuid, server)?;
        let dn = model.dn(*uuid).to_ascii_lowercase();
        if let Some(other) = names.insert(dn.clone(), *uuid) {
            return broken(Checker::Tree, format!("{uuid} and {other} are both {dn} at {server}"));
        }
        if entry.glue && model.children(*uuid).next().is_none() {
            return broken(Checker::Tree, format!("nobody needs {uuid} at {server}, which is deleted"));
        }
        if let Some(place) = entry.place.as_ref().filter(|_| entry.displaced)
            && model.named(place.parent, &place.rdn).is_none()
        {
            return broken(Checker::Tree, format!("{uuid} could have its name at {server}: {dn}"));
        }
    }
    Ok(())
}

/// Compares databases that are to be alike with what all changes give in the order of their CSNs. An entry or value that is
/// neither there nor lost to a later change is found by that.
pub(crate) fn compare<'a>(
    models: impl Iterator<Item = (ServerId, &'a Model)> + Clone,
    ledger: &Ledger,
    fresh: Model,
    counts: impl Fn(Csn) -> bool,
) -> Checked {
    let changes = ledger.all(&counts);
    let expected = in_order(fresh, &changes);
    // Of an entry of which something was forgotten or lost nobody knows what it should be. It is to be the same everywhere.
    let vague: BTreeSet<EntryUuid> = models.clone().flat_map(|(_, model)| model.vague()).copied().collect();
    let first = models.clone().next().map(|(_, model)| model);
    { models }.try_for_each(|(server, model)| {
        look_at_all(model, server)?;
        // What it waits for may have been lost with a database that was put back, or a replica that went: then it waits in any order.
        let known = |change: &&Arc<Change>| !expected.waiting().any(|other| other.csn == change.csn);
        if let Some(change) = model.waiting().find(known) {
            return broken(Checker::Waiting, format!("{} waits for ever at {server}", change.csn));
        }
        for change in &changes {
            let is_there = || {
                let entry = model.entries().get(&change.uuid);
                entry.is_some_and(|entry| !entry.glue) && model.is_deleted(change.uuid)
            };
            if matches!(change.operation, Operation::Delete { .. }) && is_there() {
                let text = format!("{} was deleted by {} and is there at {server}", change.uuid, change.csn);
                return broken(Checker::Resurrection, text);
            }
        }
        match first.filter(|_| !vague.is_empty()) {
            None => differences(server, model, &expected),
            Some(first) => {
                differences(server, model, first)?;
                values(server, model, &expected, &vague)
            }
        }
    })
}

/// The rules as they are, also where faults were put into them.
fn in_order(mut model: Model, changes: &[&Arc<Change>]) -> Model {
    let run = || {
        changes.iter().for_each(|change| model.apply(change));
        model
    };
    #[cfg(feature = "mutations")]
    return xmppsync_replica::mutation::without(run);
    #[cfg(not(feature = "mutations"))]
    run()
}

/// Compares the values of all entries but the vague ones. The names depend on each other.
fn values(server: ServerId, model: &Model, expected: &Model, vague: &BTreeSet<EntryUuid>) -> Checked {
    let found = |uuid: &EntryUuid| model.entries().get(uuid).filter(|entry| !entry.glue);
    for (uuid, entry) in
        expected.entries().iter().filter(|(uuid, entry)| !entry.glue && !vague.contains(uuid))
    {
        if found(uuid).is_none_or(|found| found.csn != entry.csn || found.attributes != entry.attributes) {
            let text = format!("{uuid} at {server} is {:?} and not {entry:?}", found(uuid));
            return broken(Checker::Content, text);
        }
    }
    Ok(())
}

fn differences(server: ServerId, model: &Model, expected: &Model) -> Checked {
    if model.entries() == expected.entries() {
        return Ok(());
    }
    for (uuid, entry) in expected.entries() {
        let found = model.entries().get(uuid);
        if found != Some(entry) {
            let text = format!("{uuid} at {server} is {found:?} and not {entry:?}");
            return broken(Checker::Content, text);
        }
    }
    let more = model.entries().keys().find(|uuid| !expected.entries().contains_key(uuid));
    broken(Checker::Content, format!("{more:?} is there at {server}"))
}
