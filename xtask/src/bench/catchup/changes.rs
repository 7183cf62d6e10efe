//! What is written to a server while the other one is down.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use xmppsync_lab::ldif::{self, Record};
use xmppsync_lab::{SUFFIX, Slapd, wait_until};

use crate::bench::arrival::{Holding, Watched};
use crate::bench::client::{Client, at_once};
use crate::bench::options::STRIDE;

/// contextCSN may be behind what the server has answered for.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// How much shall be written, by whom.
pub(super) struct Changes {
    /// People who are there; the last ones are deleted, the others modified.
    pub(super) people: usize,
    pub(super) modifies: usize,
    pub(super) deletes: usize,
    /// New people, with numbers from `people` on.
    pub(super) adds: usize,
    pub(super) clients: usize,
    /// Stands in the values.
    pub(super) name: &'static str,
}

/// One of them; people are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Modify { person: usize, write: usize },
    Delete { person: usize },
    Add { person: usize },
}

impl Change {
    fn person(self) -> usize {
        match self {
            Change::Modify { person, .. } | Change::Delete { person } | Change::Add { person } => person,
        }
    }
}

impl Changes {
    /// Writes all; what the server holds then.
    pub(super) fn write(&self, server: &Slapd) -> Result<Holding> {
        let new_people = self.new_people();
        let mut clients = (0..self.clients).map(|_| Client::connect(server)).collect::<Result<Vec<_>>>()?;
        let mut parts: Vec<Vec<Change>> = (0..self.clients).map(|number| self.of_client(number)).collect();
        // Where two changes end at the same moment, a contextCSN of stock slapd may stay at the earlier one until
        // somebody writes again. So the last one of all, a modify, is made when nobody else writes.
        let last = parts.first_mut().and_then(Vec::pop).context("no changes")?;
        at_once(&mut clients, |number, client| {
            parts[number].iter().try_for_each(|change| self.make(*change, number, client, &new_people))
        })?;
        let client = clients.first_mut().context("no clients")?;
        self.make(last, 0, client, &new_people)?;
        let last_csns = client.values(&ldif::person_dn(SUFFIX, last.person()), "entryCSN")?;
        let last_csn = last_csns.into_iter().max().context("an entry without an entryCSN")?;
        let mut watched = Watched::connect(server)?;
        let holding = wait_until("contextCSN has the last change", SETTLE_DEADLINE, || {
            let holding = watched.holding().map_err(|error| format!("{error:#}"))?;
            if holding.context_csn.contains(&last_csn) { Ok(holding) } else { Err(holding.to_string()) }
        })?;
        Ok(holding)
    }

    fn make(
        &self,
        change: Change,
        number: usize,
        client: &mut Client,
        new_people: &BTreeMap<String, Record>,
    ) -> Result<()> {
        let dn = ldif::person_dn(SUFFIX, change.person());
        match change {
            Change::Modify { write, .. } => {
                let title = format!("{} {number} {write}", self.name);
                let telephone = format!("+49 30 {number}{write:07}");
                client.replace(&dn, &[("title", &title), ("telephoneNumber", &telephone)])
            }
            Change::Delete { .. } => client.delete(&dn),
            Change::Add { .. } => {
                client.add(new_people.get(&dn).with_context(|| format!("no {dn} in the content"))?)
            }
        }
    }

    /// One client's part, in its order: of every kind, well mixed, a modify at the end. No two clients write to
    /// the same entry.
    fn of_client(&self, number: usize) -> Vec<Change> {
        let share = |count: usize| count / self.clients + usize::from(number < count % self.clients);
        let own = |first: usize, index: usize| first + number + index * self.clients;
        let stay = self.people - self.deletes;
        let own_people = stay / self.clients;
        let modify = |write| Change::Modify { person: own(0, write * STRIDE % own_people), write };
        let delete = |index| Change::Delete { person: own(stay, index) };
        let add = |index| Change::Add { person: own(self.people, index) };
        let (modifies, deletes, adds) = (share(self.modifies), share(self.deletes), share(self.adds));
        let mut changes: Vec<(f64, Change)> = Vec::with_capacity(modifies + deletes + adds);
        // Where each of so many stands between the beginning, 0, and the end, 1.
        let at = |index: usize, count: usize| (index + 1) as f64 / (count + 1) as f64;
        changes.extend((0..deletes).map(|index| (at(index, deletes), delete(index))));
        changes.extend((0..adds).map(|index| (at(index, adds), add(index))));
        // The last modify stands at the very end.
        changes.extend((0..modifies).map(|index| (at(index, modifies.saturating_sub(1)), modify(index))));
        changes.sort_by(|(left, _), (right, _)| left.total_cmp(right));
        changes.into_iter().map(|(_, change)| change).collect()
    }

    /// The entries to be added, by their DN.
    fn new_people(&self) -> BTreeMap<String, Record> {
        let dns = (self.people..self.people + self.adds).map(|person| ldif::person_dn(SUFFIX, person));
        let mut records: BTreeMap<String, Record> = BTreeMap::new();
        if self.adds > 0 {
            let all = ldif::directory(SUFFIX, self.people + self.adds);
            records.extend(all.into_iter().map(|record| (record.dn.clone(), record)));
        }
        dns.filter_map(|dn| records.remove_entry(&dn)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CHANGES: Changes =
        Changes { people: 60, modifies: 103, deletes: 10, adds: 7, clients: 4, name: "test" };

    #[test]
    fn clients_together_make_as_many_changes_as_were_asked_for() {
        let all: Vec<Change> = (0..4).flat_map(|number| CHANGES.of_client(number)).collect();
        assert_eq!(all.len(), 120);
        let deleted: BTreeSet<usize> = all.iter().filter_map(|change| deleted(*change)).collect();
        assert_eq!(deleted, (50..60).collect());
        let added = |change: &Change| match change {
            Change::Add { person } => Some(*person),
            _ => None,
        };
        assert_eq!(all.iter().filter_map(added).collect::<BTreeSet<_>>(), (60..67).collect());
    }

    #[test]
    fn nobody_is_modified_by_two_clients_or_deleted_too() {
        let mut modified_by_others = BTreeSet::new();
        for number in 0..4 {
            let changes = CHANGES.of_client(number);
            let modified: BTreeSet<usize> = changes.iter().filter_map(|change| modified(*change)).collect();
            assert!(modified.iter().all(|person| *person < 50));
            assert!(modified.is_disjoint(&modified_by_others));
            modified_by_others.extend(modified);
        }
    }

    #[test]
    fn a_client_ends_with_a_modify() {
        for number in 0..4 {
            let last = CHANGES.of_client(number).pop();
            assert!(last.and_then(modified).is_some(), "{last:?}");
        }
    }

    #[test]
    fn every_added_person_has_an_entry() {
        let people = CHANGES.new_people();
        assert_eq!(people.len(), 7);
        assert!(people.contains_key(&ldif::person_dn(SUFFIX, 66)));
    }

    fn modified(change: Change) -> Option<usize> {
        match change {
            Change::Modify { person, .. } => Some(person),
            _ => None,
        }
    }

    fn deleted(change: Change) -> Option<usize> {
        match change {
            Change::Delete { person } => Some(person),
            _ => None,
        }
    }
}
