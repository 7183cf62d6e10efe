//! A writer that keeps books of what a server acknowledged, to be compared with what is there in the end.
//!
//! Every writer has entries of its own, so that nobody else changes what it knows. A write without an answer may have
//! happened or not; both is right, and what is there afterwards is what counts.

use crate::steps::{PEOPLE, person};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use xmppsync_lab::ldap3::LdapError;
use xmppsync_lab::{Dump, LabError, Ldap};

/// Where entries are moved to and back from.
const OTHERS: &str = "ou=others,dc=example,dc=com";
/// By this attribute an entry is found under whatever name.
const MARK: &str = "employeeNumber";
const VALUE: &str = "description";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    dn: String,
    value: String,
}

/// What an entry may be now; `None`: it is not there.
type States = Vec<Option<Known>>;

/// One kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Add,
    Modify,
    Rename,
    Delete,
}

pub(crate) const WRITES: [Write; 4] = [Write::Add, Write::Modify, Write::Rename, Write::Delete];

/// The books of one writer.
pub(crate) struct Ledger {
    name: String,
    rng: StdRng,
    entries: BTreeMap<String, States>,
    writes: u64,
}

/// No answer came.
#[derive(Debug)]
pub(crate) struct Unanswered;

impl Ledger {
    pub(crate) fn new(name: &str, seed: u64) -> Ledger {
        let rng = StdRng::seed_from_u64(seed);
        Ledger { name: name.to_owned(), rng, entries: BTreeMap::new(), writes: 0 }
    }

    /// Adds the entry below which some entries are moved.
    pub(crate) fn prepare(ldap: &mut Ldap) {
        ldap.add(OTHERS, &[("objectClass", "organizationalUnit"), ("ou", "others")]).unwrap();
    }

    /// A write at random: many adds, few deletes.
    pub(crate) fn any(&mut self, ldap: &mut Ldap) -> Result<(), Unanswered> {
        let write = match self.rng.random_range(0..10_u32) {
            0..4 => Write::Add,
            4..7 => Write::Modify,
            7..9 => Write::Rename,
            _ => Write::Delete,
        };
        self.write(ldap, write)
    }

    /// Writes, to an entry at random; without any it adds one.
    pub(crate) fn write(&mut self, ldap: &mut Ldap, write: Write) -> Result<(), Unanswered> {
        self.writes += 1;
        let target = match write {
            Write::Add => None,
            _ => self.pick(),
        };
        let Some((mark, known)) = target else { return self.add(ldap) };
        let (outcome, after) = match write {
            Write::Delete => (ldap.delete(&known.dn), None),
            Write::Rename => {
                let superior = if known.dn.ends_with(OTHERS) { PEOPLE } else { OTHERS };
                let superior = if self.writes.is_multiple_of(2) { superior } else { parent(&known.dn) };
                let rdn = format!("uid={mark}-{}", self.writes);
                let moved = (superior != parent(&known.dn)).then_some(superior);
                let after = Known { dn: format!("{rdn},{superior}"), ..known.clone() };
                (ldap.rename(&known.dn, &rdn, moved), Some(after))
            }
            _ => {
                let value = format!("{}", self.writes);
                (ldap.replace(&known.dn, VALUE, &[&value]), Some(Known { value, ..known.clone() }))
            }
        };
        self.note(mark, Some(known), after, outcome)
    }

    fn add(&mut self, ldap: &mut Ldap) -> Result<(), Unanswered> {
        let mark = format!("{}-{}", self.name, self.writes);
        let (dn, value) = (format!("uid={mark},{PEOPLE}"), "new".to_owned());
        let mut attributes = person(&mark);
        attributes.extend([(MARK, mark.as_str()), (VALUE, "new")]);
        let outcome = ldap.add(&dn, &attributes);
        self.note(mark, None, Some(Known { dn, value }), outcome)
    }

    fn pick(&mut self) -> Option<(String, Known)> {
        let sure = self.entries.iter().filter_map(|(mark, states)| match states.as_slice() {
            [Some(known)] => Some((mark.clone(), known.clone())),
            _ => None,
        });
        let sure: Vec<_> = sure.collect();
        (!sure.is_empty()).then(|| sure[self.rng.random_range(0..sure.len())].clone())
    }

    fn note(
        &mut self,
        mark: String,
        before: Option<Known>,
        after: Option<Known>,
        outcome: xmppsync_lab::Result<()>,
    ) -> Result<(), Unanswered> {
        match outcome {
            Ok(()) => {
                self.entries.insert(mark, vec![after]);
                Ok(())
            }
            Err(LabError::Ldap { what, source }) if matches!(*source, LdapError::LdapResult { .. }) => {
                panic!("{what}: {source}; the books say {before:?}")
            }
            Err(_) => {
                self.entries.insert(mark, vec![before, after]);
                Err(Unanswered)
            }
        }
    }

    /// What does not agree with the books.
    pub(crate) fn check(&self, dump: &Dump) -> Vec<String> {
        let found = self.found(dump);
        let mut wrong = Vec::new();
        for (mark, states) in &self.entries {
            let here = found.get(mark).map_or(&[][..], Vec::as_slice);
            let fits = match here {
                [] => states.contains(&None),
                [known] => states.contains(&Some(known.clone())),
                _ => false,
            };
            if !fits {
                wrong.push(format!("{mark}: {here:?} is there, acknowledged was {states:?}"));
            }
        }
        let strangers = found.keys().filter(|mark| !self.entries.contains_key(*mark));
        wrong.extend(strangers.map(|mark| format!("{mark} was never written")));
        wrong
    }

    /// What is there now counts, of writes without an answer.
    pub(crate) fn settle(&mut self, dump: &Dump) {
        let found = self.found(dump);
        for (mark, states) in self.entries.iter_mut().filter(|(_, states)| states.len() > 1) {
            *states = vec![found.get(mark).and_then(|known| known.first().cloned())];
        }
    }

    /// How many entries there should be, about.
    pub(crate) fn len(&self) -> usize {
        self.entries.values().filter(|states| states.iter().any(Option::is_some)).count()
    }

    fn found(&self, dump: &Dump) -> BTreeMap<String, Vec<Known>> {
        let text = |entry: &xmppsync_lab::Entry, name: &str| {
            let value = entry.get(name).and_then(|values| values.first()).cloned().unwrap_or_default();
            String::from_utf8(value).unwrap()
        };
        let mut found = BTreeMap::<String, Vec<Known>>::new();
        let prefix = format!("{}-", self.name);
        for entry in dump.values() {
            let mark = text(entry, MARK);
            if mark.starts_with(&prefix) {
                let known = Known { dn: text(entry, "dn"), value: text(entry, VALUE) };
                found.entry(mark).or_default().push(known);
            }
        }
        found
    }
}

fn parent(dn: &str) -> &str {
    dn.split_once(',').map_or("", |(_, parent)| parent)
}
