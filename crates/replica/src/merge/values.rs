//! The values of one attribute after a change that comes late: what they would be, had it come in its turn.

use super::tree::Schema;
use crate::bookkeeping;
use crate::mutation::{self, Mutation};
use crate::{Change, Csn, Lost, Operation, ServerId, names};
use ldap3_proto::proto::{LdapModify, LdapModifyType};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) type Value = Vec<u8>;

/// What a change does to one attribute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Add(Vec<Value>),
    Delete(Vec<Value>),
    /// Nothing but these.
    Replace(Vec<Value>),
    Increment(i128),
}

/// The attributes that a change touches, as they are written, each once. Those that tell who changed the entry last and when
/// are none: the latest change has them.
pub(crate) fn attributes(change: &Change) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut note = |name: &str| {
        if !is_stamp(name) && !found.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            found.push(name.to_owned());
        }
    };
    match &change.operation {
        Operation::Add(entry) | Operation::Put(entry) => {
            entry.attributes.iter().for_each(|attribute| note(&attribute.atype));
        }
        Operation::Modify(request) => {
            request.changes.iter().for_each(|modify| note(&modify.modification.atype));
        }
        Operation::ModifyDn { .. } => rename_steps(change).iter().for_each(|(name, _)| note(name)),
        Operation::Delete { .. } => {}
    }
    found
}

/// Whether the attribute tells who changed the entry last, and when: entryCSN, modifiersName, modifyTimestamp.
pub fn is_stamp(name: &str) -> bool {
    ["entryCSN", "modifiersName", "modifyTimestamp"].iter().any(|stamp| stamp.eq_ignore_ascii_case(name))
}

/// Whether the attribute only tells of changes that met ([`Lost::MARK`], [`Lost::DISPLACED`]).
pub(crate) fn is_mark(name: &str) -> bool {
    [Lost::MARK, Lost::DISPLACED].iter().any(|mark| mark.eq_ignore_ascii_case(name))
}

/// Whether nobody misses the change: it does nothing but mark that others met, or take such marks away, or note that somebody was
/// bound.
pub(crate) fn is_bookkeeping(change: &Change) -> bool {
    let is_modify = matches!(change.operation, Operation::Modify(_));
    is_modify && attributes(change).iter().all(|name| is_mark(name) || bookkeeping::is_of_binds(name))
}

/// What a change does to this attribute, in its order.
pub(crate) fn steps(change: &Change, attribute: &str) -> Vec<Step> {
    match &change.operation {
        Operation::Add(entry) | Operation::Put(entry) => {
            let is_it = |name: &str| name.eq_ignore_ascii_case(attribute);
            let found = entry.attributes.iter().find(|candidate| is_it(&candidate.atype));
            vec![Step::Replace(found.map(|found| found.vals.clone()).unwrap_or_default())]
        }
        Operation::Modify(request) => {
            let is_it = |modify: &&LdapModify| modify.modification.atype.eq_ignore_ascii_case(attribute);
            request.changes.iter().filter(is_it).map(step).collect()
        }
        Operation::ModifyDn { .. } => {
            let steps = rename_steps(change).into_iter();
            steps.filter(|(name, _)| name.eq_ignore_ascii_case(attribute)).map(|(_, step)| step).collect()
        }
        Operation::Delete { .. } => vec![Step::Replace(Vec::new())],
    }
}

fn step(modify: &LdapModify) -> Step {
    let values = modify.modification.vals.clone();
    match modify.operation {
        LdapModifyType::Add => Step::Add(values),
        // Without values the whole attribute goes.
        LdapModifyType::Delete if values.is_empty() => Step::Replace(values),
        LdapModifyType::Delete => Step::Delete(values),
        LdapModifyType::Replace => Step::Replace(values),
        LdapModifyType::Increment => Step::Increment(values.first().and_then(|by| number(by)).unwrap_or(0)),
    }
}

/// A rename says of the values of the old name whether they go or stay, and of those of the new one that they are there; and it takes
/// away marks.
fn rename_steps(change: &Change) -> Vec<(String, Step)> {
    let Operation::ModifyDn { request, operational } = &change.operation else { return Vec::new() };
    let beside = operational.iter().filter(|modify| is_mark(&modify.modification.atype));
    let beside = beside.map(|modify| (modify.modification.atype.clone(), step(modify)));
    let (old, _) = names::split(&request.dn);
    let Some(new) = names::new_rdn(&request.dn, &request.newrdn) else { return beside.collect() };
    let of_old = |value| if request.deleteoldrdn { Step::Delete(value) } else { Step::Add(value) };
    let old = names::avas(names::intended(old).as_ref()).into_iter();
    let old = old.map(|(name, value)| (name, of_old(vec![value])));
    let new = names::avas(&new).into_iter().map(|(name, value)| (name, Step::Add(vec![value])));
    old.chain(new).chain(beside).collect()
}

/// What is known of an attribute beside a change that comes late, in the order of the CSNs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Around<'a> {
    /// The changes before it; looked at only where [`reaches_back`] says so.
    pub(crate) earlier: &'a [Vec<Step>],
    /// Those after it.
    pub(crate) later: &'a [Vec<Step>],
}

/// Whether it takes the earlier changes of an attribute with several values to tell what a change means for it. An increment
/// makes other values of all that are there: what a later change says of a value depends on what the earlier ones left. Increments
/// alone need nothing but what is there.
pub(crate) fn reaches_back(steps: &[Step], later: &[Vec<Step>]) -> bool {
    let after = || later.iter().flatten();
    let any = |is: fn(&Step) -> bool| steps.iter().chain(after()).any(is);
    after().next().is_some()
        && any(|step| matches!(step, Step::Increment(_)))
        && any(|step| matches!(step, Step::Add(_) | Step::Delete(_)))
        && !any(|step| matches!(step, Step::Replace(_)))
}

/// An attribute with its rules.
pub(crate) struct Attribute<'a, S> {
    pub(crate) name: &'a str,
    pub(crate) single: bool,
    pub(crate) schema: &'a mut S,
}

/// A value, with the form in which equal ones are equal.
type Keyed = (Vec<u8>, Value);

impl<S: Schema> Attribute<'_, S> {
    /// The values after the change whose `steps` come late: `current` has those before, with everything that came later in it.
    pub(crate) fn merge(
        &mut self,
        current: Vec<Value>,
        steps: &[Step],
        around: Around<'_>,
    ) -> Result<Vec<Value>, S::Error> {
        if self.single {
            Ok(merge_single(current, steps, around.later))
        } else if reaches_back(steps, around.later) {
            self.merge_raised(current, steps, around)
        } else {
            self.merge_set(current, steps, around.later)
        }
    }

    /// The values before the change, and from there everything once more.
    fn merge_raised(
        &mut self,
        current: Vec<Value>,
        steps: &[Step],
        around: Around<'_>,
    ) -> Result<Vec<Value>, S::Error> {
        let earlier: Vec<&Step> = around.earlier.iter().flatten().collect();
        let mut all = match earlier.iter().rposition(|step| matches!(step, Step::Replace(_))) {
            Some(at) => self.follow_all(Vec::new(), earlier[at..].iter().copied())?,
            None => self.before(current, around.later)?,
        };
        all = self.follow_all(all, steps.iter().chain(around.later.iter().flatten()))?;
        Ok(all.into_iter().map(|(_, value)| value).collect())
    }

    /// The values before these steps, none of which replaces all: who adds a value saw none, and who deletes one saw it.
    fn before(&mut self, current: Vec<Value>, later: &[Vec<Step>]) -> Result<Vec<Keyed>, S::Error> {
        let mut all = self.keyed_all(&current)?;
        for step in later.iter().flatten().rev() {
            let undone = match step {
                Step::Add(values) => Step::Delete(values.clone()),
                Step::Delete(values) => Step::Add(values.clone()),
                Step::Increment(by) => Step::Increment(by.saturating_neg()),
                Step::Replace(_) => continue,
            };
            all = self.follow(all, &undone)?;
        }
        Ok(all)
    }

    /// Value by value, where no increment meets changes of single values.
    fn merge_set(
        &mut self,
        current: Vec<Value>,
        steps: &[Step],
        later: &[Vec<Step>],
    ) -> Result<Vec<Value>, S::Error> {
        if later.iter().all(Vec::is_empty) {
            let all = self.keyed_all(&current)?;
            let all = self.follow_all(all, steps)?;
            return Ok(all.into_iter().map(|(_, value)| value).collect());
        }
        // All values, once something has replaced them; before that, what becomes of the values that are named.
        let mut known: Option<Vec<Keyed>> = None;
        let mut touched: Vec<(Vec<u8>, Option<Value>)> = Vec::new();
        let mut by = 0;
        for step in steps {
            match (step, known.take()) {
                (Step::Replace(_), _) => known = Some(self.follow(Vec::new(), step)?),
                (_, Some(all)) => known = Some(self.follow(all, step)?),
                (Step::Increment(more), None) => by += more,
                (Step::Add(values) | Step::Delete(values), None) => {
                    let stays = matches!(step, Step::Add(_));
                    for (key, value) in self.keyed_all(values)? {
                        touched.retain(|(other, _)| *other != key);
                        touched.push((key, stays.then_some(value)));
                    }
                }
            }
        }
        for step in later.iter().flatten() {
            match (step, known.take()) {
                (_, Some(all)) => known = Some(self.follow(all, step)?),
                (Step::Replace(_), None) if mutation::is(Mutation::ReplaceSparesValues) => {}
                (Step::Replace(_), None) => return Ok(current),
                (Step::Increment(_), None) => {}
                (Step::Add(values) | Step::Delete(values), None) => {
                    let decided: Vec<Vec<u8>> =
                        self.keyed_all(values)?.into_iter().map(|(key, _)| key).collect();
                    touched.retain(|(key, _)| {
                        mutation::is(Mutation::LaterValueForgotten) || !decided.contains(key)
                    });
                }
            }
        }
        let all = match known {
            Some(all) => all,
            None => {
                let all = self.keyed_all(&current)?;
                let mut all = self.raised(all, by)?;
                for (key, value) in touched {
                    match value {
                        Some(value) => all = put_all(all, vec![(key, value)]),
                        None => all.retain(|(other, _)| *other != key),
                    }
                }
                all
            }
        };
        Ok(all.into_iter().map(|(_, value)| value).collect())
    }

    fn follow_all<'s>(
        &mut self,
        mut all: Vec<Keyed>,
        steps: impl IntoIterator<Item = &'s Step>,
    ) -> Result<Vec<Keyed>, S::Error> {
        for step in steps {
            all = self.follow(all, step)?;
        }
        Ok(all)
    }

    /// All values after a step.
    fn follow(&mut self, mut all: Vec<Keyed>, step: &Step) -> Result<Vec<Keyed>, S::Error> {
        match step {
            Step::Replace(values) => Ok(put_all(Vec::new(), self.keyed_all(values)?)),
            Step::Add(values) => Ok(put_all(all, self.keyed_all(values)?)),
            Step::Delete(values) => {
                let gone = self.keyed_all(values)?;
                all.retain(|(key, _)| !gone.iter().any(|(other, _)| other == key));
                Ok(all)
            }
            Step::Increment(by) => self.raised(all, *by),
        }
    }

    /// Drops the value if the last of all steps that tells of it deletes it. Returns whether any does.
    pub(crate) fn drop_deleted(
        &mut self,
        value: &Value,
        steps: &[Step],
        values: &mut Vec<Value>,
    ) -> Result<bool, S::Error> {
        let key = self.schema.normalize(self.name, value)?;
        let mut stays = None;
        for step in steps {
            stays = match step {
                Step::Add(added) if self.has(added, &key)? => Some(true),
                Step::Delete(deleted) if self.has(deleted, &key)? => Some(false),
                Step::Replace(all) => Some(self.has(all, &key)?),
                _ => stays,
            };
        }
        if stays == Some(false) {
            let all = self.keyed_all(values)?;
            *values = all.into_iter().filter(|(other, _)| *other != key).map(|(_, value)| value).collect();
        }
        Ok(stays.is_some())
    }

    /// The values that the change with these `steps` gives and that are not there `after` all `later` ones, each with the first
    /// change of each server that takes it. A value that is there in another spelling is not lost.
    pub(crate) fn lost(
        &mut self,
        steps: &[Step],
        later: &[Arc<Change>],
        after: &[Value],
    ) -> Result<Vec<(Value, Csn)>, S::Error> {
        let mut given = Vec::new();
        for step in steps {
            given = self.follow(given, step)?;
        }
        let mut taken: Vec<BTreeMap<ServerId, Csn>> = vec![BTreeMap::new(); given.len()];
        for change in later {
            for step in self::steps(change, self.name) {
                let (gives, named) = match &step {
                    Step::Add(values) => (true, self.keyed_all(values)?),
                    Step::Replace(values) => (true, self.keyed_all(values)?),
                    Step::Delete(values) => (false, self.keyed_all(values)?),
                    Step::Increment(_) => continue,
                };
                let takes_all = self.single || matches!(step, Step::Replace(_));
                for ((key, _), taken) in given.iter().zip(&mut taken) {
                    match (named.iter().any(|(other, _)| other == key), gives) {
                        (true, true) => taken.clear(),
                        (false, _) if !takes_all => {}
                        _ => drop(taken.entry(change.csn.server_id()).or_insert(change.csn)),
                    }
                }
            }
        }
        let mut lost = Vec::new();
        for ((key, value), taken) in given.into_iter().zip(taken) {
            if !taken.is_empty() && !self.has(after, &key)? {
                lost.extend(taken.into_values().map(|csn| (value.clone(), csn)));
            }
        }
        Ok(lost)
    }

    /// Each value so much more.
    fn raised(&mut self, all: Vec<Keyed>, by: i128) -> Result<Vec<Keyed>, S::Error> {
        if by == 0 {
            return Ok(all);
        }
        let raised: Vec<Value> = all.into_iter().map(|(_, value)| plus(&value, by)).collect();
        self.keyed_all(&raised)
    }

    fn has(&mut self, values: &[Value], key: &[u8]) -> Result<bool, S::Error> {
        Ok(self.keyed_all(values)?.iter().any(|(other, _)| other == key))
    }

    fn keyed_all(&mut self, values: &[Value]) -> Result<Vec<Keyed>, S::Error> {
        values.iter().map(|value| Ok((self.schema.normalize(self.name, value)?, value.clone()))).collect()
    }
}

fn merge_single(current: Vec<Value>, steps: &[Step], later: &[Vec<Step>]) -> Vec<Value> {
    let mut register = Register::default();
    steps.iter().for_each(|step| register.follow(step));
    if register.known.is_some() {
        let later = if mutation::is(Mutation::SingleValueOutOfOrder) { &[] } else { later };
        later.iter().flatten().for_each(|step| register.follow(step));
        return register.known.flatten().into_iter().collect();
    }
    let mut after = Register::default();
    later.iter().flatten().for_each(|step| after.follow(step));
    match after.known {
        Some(_) => current,
        None if mutation::is(Mutation::IncrementForgotten) && !later.is_empty() => current,
        None => current.iter().map(|value| plus(value, register.by)).collect(),
    }
}

/// A single value, as far as steps tell of it.
#[derive(Default)]
struct Register {
    /// It is this, or none, whatever was before.
    known: Option<Option<Value>>,
    /// Otherwise it is so much more than before.
    by: i128,
}

impl Register {
    fn follow(&mut self, step: &Step) {
        match (step, &mut self.known) {
            (Step::Add(values) | Step::Replace(values), known) => *known = Some(values.last().cloned()),
            // There was no other one where it was deleted.
            (Step::Delete(_), known) => *known = Some(None),
            (Step::Increment(by), Some(known)) => *known = known.take().map(|value| plus(&value, *by)),
            (Step::Increment(by), None) => self.by += by,
        }
    }
}

fn put_all(mut all: Vec<Keyed>, values: Vec<Keyed>) -> Vec<Keyed> {
    for (key, value) in values {
        match all.iter_mut().find(|(other, _)| *other == key) {
            // Equal by the matching rule, not byte for byte: the later one is the one that stays.
            Some(_) if mutation::is(Mutation::FirstSpellingStays) => {}
            Some(found) => found.1 = value,
            None => all.push((key, value)),
        }
    }
    all
}

fn number(value: &[u8]) -> Option<i128> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// What is no number stays as it is.
fn plus(value: &[u8], by: i128) -> Value {
    match number(value).and_then(|number| number.checked_add(by)) {
        Some(sum) if by != 0 => sum.to_string().into_bytes(),
        _ => value.to_vec(),
    }
}
