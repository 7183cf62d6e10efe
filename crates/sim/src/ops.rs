//! What clients do: random operations that a directory server would accept.

use crate::model::{
    Entry, Model, is_counting, is_number, is_ordered, is_single, is_unmatched, keyed, normal,
};
use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation, Place, names};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const ATTRIBUTES: [&str; 5] = ["description", "mail", "cn", "uidNumber", "title"];
/// No equality rule, and an order of the values.
const SPECIAL: [&str; 2] = ["jpegPhoto", "olcAccess"];
/// Numbers, in some entries.
const COUNTERS: &str = "oncRpcNumber";
const VALUES: [&str; 5] = ["1", "2", "3", "Red", "red"];

/// Kinds of operations, with how often they come.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Adds.
    pub add: u32,
    /// Modifies.
    pub modify: u32,
    /// Renames without another parent.
    pub rename: u32,
    /// Moves.
    pub shift: u32,
    /// Deletes.
    pub delete: u32,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { add: 5, modify: 10, rename: 3, shift: 3, delete: 3 }
    }
}

/// Tries one operation on the database. `None`: a server would have refused it.
pub fn try_one(model: &mut Model, csn: Csn, mix: Mix, rng: &mut impl Rng) -> Option<Arc<Change>> {
    let sum = mix.add + mix.modify + mix.rename + mix.shift + mix.delete;
    let mut dice = rng.random_range(0..sum);
    let mut is = |weight: u32| {
        let hit = dice < weight;
        dice = dice.saturating_sub(weight);
        hit
    };
    if is(mix.add) {
        add(model, csn, rng)
    } else if is(mix.modify) {
        modify(model, csn, rng)
    } else if is(mix.rename) {
        rename(model, csn, false, rng)
    } else if is(mix.shift) {
        rename(model, csn, true, rng)
    } else {
        delete(model, csn, rng)
    }
}

/// Some entry.
fn pick(model: &Model, rng: &mut impl Rng) -> EntryUuid {
    let start = EntryUuid::from_bytes(rng.random());
    let entries = model.entries();
    let next =
        entries.range((Bound::Included(start), Bound::Unbounded)).next().or_else(|| entries.iter().next());
    next.map_or(model.suffix(), |(uuid, _)| *uuid)
}

/// Some entry that clients may change.
fn pick_own(model: &Model, rng: &mut impl Rng) -> Option<(EntryUuid, Entry)> {
    let uuid = pick(model, rng);
    let entry = model.entries().get(&uuid)?;
    (entry.place.is_some() && !entry.glue).then(|| (uuid, entry.clone()))
}

fn value(rng: &mut impl Rng) -> Vec<u8> {
    VALUES.choose(rng).copied().unwrap_or("1").as_bytes().to_vec()
}

fn number(rng: &mut impl Rng) -> Vec<u8> {
    rng.random_range(0..5u8).to_string().into_bytes()
}

fn add(model: &mut Model, csn: Csn, rng: &mut impl Rng) -> Option<Arc<Change>> {
    const ENTRIES_MAX: usize = 24;
    if model.entries().len() > ENTRIES_MAX {
        return delete(model, csn, rng);
    }
    let parent = pick(model, rng);
    let name = *NAMES.choose(rng)?;
    let rdn = format!("cn={name}");
    if model.named(parent, &rdn).is_some() {
        return None;
    }
    let uuid = EntryUuid::from_bytes(rng.random());
    let attribute =
        |name: &str, values: Vec<Vec<u8>>| LdapPartialAttribute { atype: name.to_owned(), vals: values };
    let mut attributes = vec![
        attribute("cn", vec![name.as_bytes().to_vec()]),
        attribute("description", vec![value(rng)]),
        attribute("uidNumber", vec![number(rng)]),
    ];
    if is_counting(uuid) {
        attributes.push(attribute(COUNTERS, vec![number(rng)]));
    }
    let mut stored = BTreeMap::new();
    for attribute in &attributes {
        let values = keyed(&attribute.atype, attribute.vals.clone());
        stored.insert(attribute.atype.to_ascii_lowercase(), values);
    }
    let dn = format!("{rdn},{}", model.dn(parent));
    let place = Some(Place { parent, rdn });
    model.insert(uuid, Entry { csn, place, displaced: false, glue: false, created: csn, attributes: stored });
    let operation = Operation::Add(LdapAddRequest { dn, attributes });
    let change = Arc::new(Change { csn, uuid, parent: Some(parent), operation });
    model.follow(&change, None);
    Some(change)
}

fn modify(model: &mut Model, csn: Csn, rng: &mut impl Rng) -> Option<Arc<Change>> {
    let (uuid, mut entry) = pick_own(model, rng)?;
    let mut changes = Vec::new();
    for _ in 0..rng.random_range(1..=2) {
        let attribute = match rng.random_range(0..10u8) {
            0..5 if is_counting(uuid) => COUNTERS,
            9 => SPECIAL.choose(rng)?,
            _ => ATTRIBUTES.choose(rng)?,
        };
        changes.push(modification(attribute, &mut entry, rng)?);
    }
    let kept = entry.place.as_ref().is_some_and(|place| {
        names::avas(&place.rdn).iter().all(|(name, value)| {
            entry
                .attributes
                .get(&name.to_ascii_lowercase())
                .is_some_and(|all| all.contains_key(&normal(name, value)))
        })
    });
    if !kept {
        return None;
    }
    entry.csn = csn;
    *model.entry_mut(uuid)? = entry;
    let operation = Operation::Modify(LdapModifyRequest { dn: model.dn(uuid), changes });
    let change = Arc::new(Change { csn, uuid, parent: None, operation });
    model.follow(&change, None);
    Some(change)
}

/// One modification, made to `entry`, in the strict way in which a client's is.
fn modification(attribute: &str, entry: &mut Entry, rng: &mut impl Rng) -> Option<LdapModify> {
    let key = attribute.to_ascii_lowercase();
    let present = entry.attributes.entry(key.clone()).or_default();
    let (operation, values) =
        if is_ordered(attribute) { reorder(present, rng)? } else { change_values(attribute, present, rng)? };
    if present.is_empty() {
        entry.attributes.remove(&key);
    }
    let modification = LdapPartialAttribute { atype: attribute.to_owned(), vals: values };
    Some(LdapModify { operation, modification })
}

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

fn change_values(
    attribute: &str,
    present: &mut Values,
    rng: &mut impl Rng,
) -> Option<(LdapModifyType, Vec<Vec<u8>>)> {
    let some = |rng: &mut _| if is_number(attribute) { number(rng) } else { value(rng) };
    let takes_one = is_single(attribute) || is_unmatched(attribute);
    Some(match rng.random_range(0..6u8) {
        0 | 1 => {
            let value = some(rng);
            let key = normal(attribute, &value);
            if present.contains_key(&key) || (takes_one && !present.is_empty()) {
                return None;
            }
            present.insert(key, value.clone());
            (LdapModifyType::Add, vec![value])
        }
        2 if !is_unmatched(attribute) => {
            let (key, value) = present.iter().next().map(|(key, value)| (key.clone(), value.clone()))?;
            present.remove(&key);
            (LdapModifyType::Delete, vec![value])
        }
        3 => {
            if present.is_empty() {
                return None;
            }
            present.clear();
            (LdapModifyType::Delete, Vec::new())
        }
        4 if is_number(attribute) => {
            let by = rng.random_range(1..5i64);
            if present.is_empty() {
                return None;
            }
            let plus = |value: &Vec<u8>| {
                let old: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
                Some((old + by).to_string().into_bytes())
            };
            let raised = present.values().map(plus).collect::<Option<Vec<_>>>()?;
            *present = keyed(attribute, raised);
            (LdapModifyType::Increment, vec![by.to_string().into_bytes()])
        }
        _ => {
            let count = if is_single(attribute) { 1 } else { rng.random_range(0..3) };
            *present = keyed(attribute, (0..count).map(|_| some(rng)).collect());
            (LdapModifyType::Replace, present.values().cloned().collect())
        }
    })
}

/// A value is put in somewhere, or goes; the others are numbered anew, and all of them travel.
fn reorder(present: &mut Values, rng: &mut impl Rng) -> Option<(LdapModifyType, Vec<Vec<u8>>)> {
    const VALUES_MAX: usize = 5;
    let bare = |value: &Vec<u8>| value.splitn(2, |byte| *byte == b'}').nth(1).map(<[u8]>::to_vec);
    let mut all = present.values().map(bare).collect::<Option<Vec<_>>>()?;
    if all.len() < VALUES_MAX && (all.is_empty() || rng.random_bool(0.6)) {
        all.insert(rng.random_range(0..=all.len()), value(rng));
    } else {
        all.remove(rng.random_range(0..all.len()));
    }
    let numbered = all.iter().enumerate();
    let numbered = numbered.map(|(at, value)| [format!("{{{at}}}").as_bytes(), value].concat()).collect();
    *present = keyed("olcAccess", numbered);
    Some((LdapModifyType::Replace, present.values().cloned().collect()))
}

fn rename(model: &mut Model, csn: Csn, shift: bool, rng: &mut impl Rng) -> Option<Arc<Change>> {
    let (uuid, entry) = pick_own(model, rng)?;
    let from = entry.place.clone()?;
    let same_name = shift && rng.random_bool(0.7);
    let old_rdn = if entry.displaced { names::displaced(uuid, &from.rdn) } else { from.rdn.clone() };
    let newrdn = if same_name { old_rdn.clone() } else { format!("cn={}", NAMES.choose(rng)?) };
    let parent = if shift { pick(model, rng) } else { from.parent };
    let mut above = Some(parent);
    while let Some(at) = above {
        if at == uuid {
            return None;
        }
        above = model.entries().get(&at)?.place.as_ref().map(|place| place.parent);
    }
    let displaced = names::is_displaced(&newrdn);
    let rdn = names::intended(&newrdn).into_owned();
    let place = Place { parent, rdn };
    if place == from || (!displaced && model.named(parent, &place.rdn).is_some_and(|holder| holder != uuid)) {
        return None;
    }
    let dn = model.dn(uuid);
    let deleteoldrdn = rng.random_bool(0.7);
    let mut entry = model.take(uuid)?;
    if !same_name {
        if deleteoldrdn {
            for (name, value) in names::avas(&from.rdn) {
                if let Some(all) = entry.attributes.get_mut(&name.to_ascii_lowercase()) {
                    all.remove(&normal(&name, &value));
                }
            }
        }
        for (name, value) in names::avas(&place.rdn) {
            let all = entry.attributes.entry(name.to_ascii_lowercase()).or_default();
            all.insert(normal(&name, &value), value);
        }
    }
    entry.place = Some(place);
    entry.displaced = displaced;
    entry.csn = csn;
    model.insert(uuid, entry);
    let new_superior = shift.then(|| model.dn(parent));
    let request = LdapModifyDNRequest { dn, newrdn, deleteoldrdn, new_superior };
    let operation = Operation::ModifyDn { request, operational: Vec::new() };
    let change = Arc::new(Change { csn, uuid, parent: shift.then_some(parent), operation });
    model.follow(&change, Some(from));
    Some(change)
}

fn delete(model: &mut Model, csn: Csn, rng: &mut impl Rng) -> Option<Arc<Change>> {
    let (uuid, entry) = pick_own(model, rng)?;
    if model.children(uuid).next().is_some() {
        return None;
    }
    let dn = model.dn(uuid);
    model.take(uuid);
    let parent = entry.place.as_ref().map(|place| place.parent);
    let change = Arc::new(Change { csn, uuid, parent, operation: Operation::Delete { dn } });
    model.follow(&change, entry.place);
    Some(change)
}
