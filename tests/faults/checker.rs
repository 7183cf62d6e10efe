//! Judges a history by what is there in the end: pure.
//!
//! What was acknowledged is there, or lost to something later that is named; what was deleted is not there; numbers add
//! up; nothing is there that nobody wrote. What nobody knows of a write without an answer is left open.

mod fold;
mod forgotten;
mod losses;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use xmppsync_lab::Dump;

use crate::history::{Event, Operation, What};
use fold::{Known, Told, entries};
pub(crate) use fold::{PLACES, rdn};
pub(crate) use forgotten::SETTLED;
pub(crate) use losses::{Loss, losses};

/// By these attributes a client's entry is found and judged.
pub(crate) const MARK: &str = "employeeNumber";
pub(crate) const VALUE: &str = "description";
pub(crate) const VALUES: &str = "mail";
pub(crate) const NUMBER: &str = "uidNumber";
/// Marks of entries that all clients write to begin with it.
pub(crate) const SHARED: &str = "shared";

/// An entry with a mark, as it is in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) dn: String,
    pub(crate) value: Vec<String>,
    pub(crate) values: BTreeSet<String>,
    pub(crate) number: i64,
}

/// The entries of a database that have a mark.
pub(crate) fn found(dump: &Dump) -> Vec<(String, Found)> {
    let texts = |entry: &xmppsync_lab::Entry, name: &str| {
        let values = entry.get(name).into_iter().flatten();
        values.map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for entry in dump.values() {
        for mark in texts(entry, MARK) {
            let number = texts(entry, NUMBER).first().and_then(|text| text.parse().ok()).unwrap_or_default();
            let dn = texts(entry, "dn").concat();
            let values = texts(entry, VALUES).into_iter().collect();
            all.push((mark, Found { dn, value: texts(entry, VALUE), values, number }));
        }
    }
    all
}

/// What the history and the database do not agree on, a line each. `losses` is what servers say was lost to what.
pub(crate) fn check(events: &[Event], found: &[(String, Found)], losses: &[Loss]) -> Vec<String> {
    let mut told = fold::told(&forgotten::excused(events));
    losses::excuse(&mut told, events, losses);
    let mut here = BTreeMap::<&str, Vec<&Found>>::new();
    for (mark, entry) in found {
        here.entry(mark).or_default().push(entry);
    }
    let mut wrong = Vec::new();
    let states = entries(&told);
    for (mark, states) in &states {
        let here = here.get(mark.as_str()).map_or(&[][..], Vec::as_slice);
        wrong.extend(check_entry(mark, states, here));
    }
    for mark in here.keys().filter(|mark| !states.contains_key(**mark)) {
        wrong.push(format!("{mark}: is there and was never written"));
    }
    for (mark, entries) in here.iter().filter(|(mark, _)| mark.starts_with(SHARED)) {
        if let [entry] = entries.as_slice() {
            wrong.extend(check_value(mark, &told, entry));
            wrong.extend(check_values(mark, &told, entry));
            wrong.extend(check_number(mark, &told, entry));
            wrong.extend(check_name(mark, &told, entry));
        }
    }
    wrong.extend(check_order(events));
    wrong
}

fn check_entry(mark: &str, states: &[Option<Known>], here: &[&Found]) -> Option<String> {
    let fits = |known: &Known, found: &Found| {
        // Others write to the value and the name of what is shared; those are judged by other rules.
        let is_own = !mark.starts_with(SHARED) && known.is_own;
        !is_own || (known.is_at(&found.dn) && found.value == [known.value.as_str()])
    };
    let possible = states.iter().any(|state| match (state, here) {
        (None, []) => true,
        (Some(known), [found]) => fits(known, found),
        _ => false,
    });
    if possible {
        return None;
    }
    let kind = match here {
        [] => "is lost",
        [_] if states.iter().all(Option::is_none) => "was deleted, or never accepted, and is there",
        [_] => "is not as it was acknowledged",
        _ => "is there more than once",
    };
    Some(format!("{mark}: {kind}; there is {here:?}, acknowledged was {states:?}"))
}

/// The replaced value is that of the acknowledged write with the latest CSN, or one of a write without an answer.
fn check_value(mark: &str, told: &[Told], found: &Found) -> Option<String> {
    let writes = told.iter().filter_map(|told| match &told.operation {
        Operation::Write { shared, value } if shared == mark => Some((value, told)),
        Operation::Add { mark: added, value, .. } if added == mark => Some((value, told)),
        _ => None,
    });
    let rule = "the value of the latest acknowledged write";
    check_latest(mark, rule, writes, |value| found.value == [value.as_str()], &format!("{:?}", found.value))
}

fn check_name(mark: &str, told: &[Told], found: &Found) -> Option<String> {
    let names: Vec<(String, &Told)> = told
        .iter()
        .filter_map(|told| match &told.operation {
            Operation::Name { shared, rdn } if shared == mark => Some((rdn.clone(), told)),
            Operation::Add { mark: added, dn, .. } if added == mark => Some((fold::rdn(dn).to_owned(), told)),
            _ => None,
        })
        .collect();
    let names = names.iter().map(|(rdn, told)| (rdn, *told));
    check_latest(mark, "the latest acknowledged name", names, |rdn| fold::rdn(&found.dn) == rdn, &found.dn)
}

fn check_latest<'a>(
    mark: &str,
    rule: &str,
    writes: impl Iterator<Item = (&'a String, &'a Told)>,
    is_there: impl Fn(&String) -> bool,
    there: &str,
) -> Option<String> {
    let mut latest: Option<(&str, &String)> = None;
    for (value, told) in writes {
        match &told.outcome {
            What::Ok { csn, .. } => {
                let csn = csn.as_deref().unwrap_or_default();
                if latest.is_none_or(|(before, _)| csn >= before) {
                    latest = Some((csn, value));
                }
            }
            What::Unknown { .. } if is_there(value) => return None,
            _ => {}
        }
    }
    match latest {
        Some((_, value)) if is_there(value) => None,
        latest => Some(format!("{mark}: {there} is not {rule}, {latest:?}")),
    }
}

/// Each value that was added and not deleted is there, and no other.
fn check_values(mark: &str, told: &[Told], found: &Found) -> Vec<String> {
    let mut may = BTreeMap::<&str, BTreeSet<bool>>::new();
    for told in told {
        let (value, after) = match &told.operation {
            Operation::Insert { shared, value } if shared == mark => (value.as_str(), true),
            Operation::Remove { shared, value } if shared == mark => (value.as_str(), false),
            _ => continue,
        };
        match told.outcome {
            What::Ok { .. } => drop(may.insert(value, BTreeSet::from([after]))),
            What::Unknown { .. } => drop(may.entry(value).or_insert_with(|| [false].into()).insert(after)),
            _ => {}
        }
    }
    let wrong = may.iter().filter(|(value, may)| !may.contains(&found.values.contains(**value)));
    let mut wrong: Vec<String> = wrong
        .map(|(value, may)| {
            let (is, should) = (found.values.contains(*value), may.contains(&true));
            format!("{mark}: value {value} is there: {is}, acknowledged: {should}")
        })
        .collect();
    let strangers = found.values.iter().filter(|value| !may.contains_key(value.as_str()));
    wrong.extend(strangers.map(|value| format!("{mark}: value {value} was never accepted")));
    wrong
}

/// The number lies between what was acknowledged and that with all that is unknown.
fn check_number(mark: &str, told: &[Told], found: &Found) -> Option<String> {
    let (mut least, mut most) = (0, 0);
    for told in told {
        if let Operation::Raise { shared, by } = &told.operation
            && shared == mark
        {
            match told.outcome {
                What::Ok { .. } => (least, most) = (least + by, most + by),
                What::Unknown { .. } => most += by,
                _ => {}
            }
        }
    }
    let number = found.number;
    (!(least..=most).contains(&number)).then(|| {
        format!("{mark}: the number is {number}; {least} is acknowledged, with what has no answer {most}")
    })
}

/// Of writes to one server one after the other each has a later CSN.
fn check_order(events: &[Event]) -> Vec<String> {
    let (mut wrong, mut latest) = (Vec::new(), BTreeMap::<&str, &str>::new());
    let mut begun = BTreeMap::<u64, Option<&str>>::new();
    for event in events {
        match &event.what {
            What::Invoke { .. } => drop(begun.insert(event.number, latest.get(&*event.server).copied())),
            What::Ok { csn: Some(csn), .. } => {
                let before = begun.get(&event.number).copied().flatten();
                if before.is_some_and(|before| csn.as_str() <= before) {
                    let server = &event.server;
                    wrong.push(format!("{server}: {csn} was given after {before:?} was acknowledged"));
                }
                let known = latest.entry(&event.server).or_insert(csn);
                *known = (*known).max(csn);
            }
            _ => {}
        }
    }
    wrong
}
