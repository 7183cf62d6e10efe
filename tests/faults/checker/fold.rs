//! From a history to what each entry may be.

use std::collections::BTreeMap;

use crate::history::{Event, Operation, What};

/// An operation with its outcome; one that nobody heard of again is unknown.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) operation: Operation,
    pub(super) outcome: What,
}

/// What is known of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    dn: String,
    pub(super) value: String,
    /// Whether only the client that added it writes to it.
    pub(super) is_own: bool,
}

impl Known {
    /// Whether the entry has this name. Its parent may have been displaced or moved, unless it never is.
    pub(super) fn is_at(&self, dn: &str) -> bool {
        let is_fixed = |parent: &str| PLACES.iter().any(|place| parent.eq_ignore_ascii_case(place));
        let (ours, theirs) = (parent(&self.dn), parent(dn));
        rdn(&self.dn) == rdn(dn) && (ours.eq_ignore_ascii_case(theirs) || !is_fixed(ours))
    }
}

/// Where entries are that nobody deletes or renames.
pub(crate) const PLACES: [&str; 2] = ["ou=people,dc=example,dc=com", "ou=others,dc=example,dc=com"];

pub(crate) fn rdn(dn: &str) -> &str {
    dn.split_once(',').map_or(dn, |(rdn, _)| rdn)
}

fn parent(dn: &str) -> &str {
    dn.split_once(',').map_or("", |(_, parent)| parent)
}

/// All operations in the order in which they began.
pub(super) fn told(events: &[Event]) -> Vec<Told> {
    let mut told = BTreeMap::<u64, Told>::new();
    for event in events {
        match &event.what {
            What::Invoke { operation } => {
                let outcome = What::Unknown { error: "it never ended".to_owned() };
                told.insert(event.number, Told { operation: operation.clone(), outcome });
            }
            What::Nemesis { .. } => {}
            outcome => {
                if let Some(told) = told.get_mut(&event.number) {
                    told.outcome = outcome.clone();
                }
            }
        }
    }
    told.into_values().collect()
}

/// What each entry that was ever added may be: `None` is that it is not there.
pub(super) fn entries(told: &[Told]) -> BTreeMap<String, Vec<Option<Known>>> {
    let mut states = BTreeMap::<String, Vec<Option<Known>>>::new();
    let mut names = BTreeMap::<&str, Vec<&str>>::new();
    // Adds first: who deletes by name may meet an entry whose add began later.
    for told in told {
        if let Operation::Add { mark, dn, value } = &told.operation {
            let known = Some(Known { dn: dn.clone(), value: value.clone(), is_own: true });
            let possible = match told.outcome {
                What::Ok { .. } => vec![known],
                What::Fail { .. } => vec![None],
                _ => vec![None, known],
            };
            states.insert(mark.clone(), possible);
            names.entry(dn).or_default().push(mark);
        }
    }
    for told in told {
        match &told.operation {
            Operation::Set { mark, value } => {
                follow(&mut states, mark, &told.outcome, |known| {
                    Some(Known { value: value.clone(), ..known })
                });
            }
            Operation::Rename { mark, dn } => {
                follow(&mut states, mark, &told.outcome, |known| Some(Known { dn: dn.clone(), ..known }));
            }
            Operation::Delete { mark } => follow(&mut states, mark, &told.outcome, |_| None),
            Operation::DeleteName { dn } => match &told.outcome {
                What::Ok { mark: Some(mark), .. } => follow(&mut states, mark, &told.outcome, |_| None),
                What::Fail { .. } => {}
                // It may have met any that was ever given this name.
                _ => {
                    let unknown = What::Unknown { error: String::new() };
                    for mark in names.get(dn.as_str()).into_iter().flatten() {
                        follow(&mut states, mark, &unknown, |_| None);
                    }
                }
            },
            _ => {}
        }
    }
    // Under names that are given again and again stands whoever was first; the others are displaced.
    for marks in names.values().filter(|marks| marks.len() > 1) {
        for mark in marks {
            let known = states.get_mut(*mark).into_iter().flatten().flatten();
            known.for_each(|known| known.is_own = false);
        }
    }
    states
}

fn follow(
    states: &mut BTreeMap<String, Vec<Option<Known>>>,
    mark: &str,
    outcome: &What,
    change: impl Fn(Known) -> Option<Known>,
) {
    let Some(states) = states.get_mut(mark) else { return };
    let changed: Vec<_> = states.iter().flatten().cloned().map(change).collect();
    match outcome {
        // What was changed or deleted was there; two servers may have deleted it at once.
        What::Ok { .. } if changed.is_empty() => {}
        What::Ok { .. } => *states = changed,
        What::Unknown { .. } => states.extend(changed),
        _ => {}
    }
}
