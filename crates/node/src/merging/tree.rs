//! The host's database as the rules see it.

mod remembered;

pub(crate) use remembered::client_move;

use remembered::busy;

use super::entry::{attribute, glue_attributes, is_glue, replace, values};
use super::{Names, Scratch, is_written_by_others};
use crate::host::{Outcome, Transaction};
use crate::shared::{Shared, lock};
use ldap3_proto::proto::{LdapAddRequest, LdapAttribute, LdapModify, LdapModifyDNRequest, LdapModifyRequest};
use std::sync::Arc;
use xmppsync_journal::Record;
use xmppsync_replica::merge::{Attributes, Node, Schema, Tree, is_stamp};
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Move, Operation, Place, Vector, names};

pub(super) struct HostTree<'a> {
    shared: &'a Shared,
    transaction: &'a mut dyn Transaction,
    scratch: &'a mut Scratch,
    applied: &'a Vector,
    /// Under whose CSN everything is done.
    change: &'a Arc<Change>,
    /// What this replica cannot hold by its schema is refused, unless several servers made it so together; once that is known.
    checked: Option<bool>,
    /// The latest change that the journal has forgotten, if any; once that is known.
    horizon: Option<Option<Csn>>,
    /// What another replica remembers of the entry, and is in it.
    history: &'a [Arc<Change>],
    /// It is a state that is taken: what of it does not stay was not lost.
    is_state: bool,
    /// It came late among the moves: those that follow are made again.
    redoes: bool,
}

/// Glue that a state brought is what it is everywhere: the database says of every entry when it was made, and by whom.
pub(super) fn make_glue(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    scratch: &mut Scratch,
    applied: &Vector,
    state: &Arc<Change>,
) -> Result<(), Outcome> {
    HostTree::new(shared, transaction, scratch, applied, state).make_glue(state.uuid, state.csn)
}

impl<'a> HostTree<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        transaction: &'a mut dyn Transaction,
        scratch: &'a mut Scratch,
        applied: &'a Vector,
        change: &'a Arc<Change>,
    ) -> HostTree<'a> {
        let (checked, horizon, history, is_state, redoes) = (None, None, &[][..], false, false);
        HostTree {
            shared,
            transaction,
            scratch,
            applied,
            change,
            checked,
            horizon,
            history,
            is_state,
            redoes,
        }
    }

    /// With what another replica remembers of the entry, and is in it.
    pub(super) fn with_history(self, history: &'a [Arc<Change>]) -> HostTree<'a> {
        HostTree { history, ..self }
    }

    /// For a state that is taken.
    pub(super) fn for_state(self) -> HostTree<'a> {
        HostTree { is_state: true, ..self }
    }

    fn read(&mut self, uuid: EntryUuid) -> Result<Option<Change>, Outcome> {
        self.transaction.read_entry(&uuid).map_err(Outcome::Temporary)
    }

    fn dn(&mut self, uuid: EntryUuid) -> Result<String, Outcome> {
        match self.read(uuid)? {
            Some(entry) => Ok(entry.operation.dn().to_owned()),
            None => Err(busy("an entry that was there is gone")),
        }
    }

    fn full_dn(
        &mut self,
        uuid: EntryUuid,
        place: &Place,
        displaced: bool,
    ) -> Result<(String, String), Outcome> {
        let rdn = if displaced { names::displaced(uuid, &place.rdn) } else { place.rdn.clone() };
        let parent = self.dn(place.parent)?;
        Ok((format!("{rdn},{parent}"), parent))
    }

    /// Does it, under the CSN of the change that is being applied.
    fn make(&mut self, uuid: EntryUuid, operation: Operation) -> Result<(), Outcome> {
        let checked = self.is_checked();
        self.make_so(uuid, operation, checked)
    }

    fn is_checked(&mut self) -> bool {
        let (shared, change) = (self.shared, self.change);
        *self.checked.get_or_insert_with(|| !is_written_by_others(shared, change))
    }

    fn make_so(&mut self, uuid: EntryUuid, operation: Operation, checked: bool) -> Result<(), Outcome> {
        let change = Change { csn: self.change.csn, uuid, parent: None, operation };
        match self.transaction.apply_merged(&change, checked) {
            Outcome::Applied => Ok(()),
            other => Err(other),
        }
    }

    fn known<T>(&self, look: impl FnOnce(&Names) -> T) -> T {
        self.scratch.known(self.shared, look)
    }

    fn note(&mut self, record: Record) {
        self.scratch.note(self.shared, record);
    }

    fn mark_displaced(&mut self, uuid: EntryUuid, place: &Place, displaced: bool) -> Result<(), Outcome> {
        let (record, mark) = if displaced {
            let mark = vec![format!("displaced {}", place.rdn).into_bytes()];
            (Record::Displaced { uuid, place: place.clone() }, mark)
        } else if self.known(|names| names.displaced.contains_key(&uuid)) {
            (Record::Named(uuid), Vec::new())
        } else {
            return Ok(());
        };
        self.note(record);
        let request = LdapModifyRequest { dn: self.dn(uuid)?, changes: vec![replace(Lost::DISPLACED, mark)] };
        // The schema wants no operational attribute in a name.
        self.make_so(uuid, Operation::Modify(request), false)
    }

    /// Glue becomes an entry again, in its place.
    fn revive(&mut self, glue: &Change, request: &LdapAddRequest) -> Result<(), Outcome> {
        let dn = glue.operation.dn().to_owned();
        let stays =
            |name: &str| request.attributes.iter().any(|wanted| wanted.atype.eq_ignore_ascii_case(name));
        let others = self.attributes(glue.uuid)?.into_iter().filter(|(name, _)| !stays(name));
        let others = others.map(|(name, _)| replace(&name, Vec::new()));
        let wanted = unmarked(request).map(|wanted| replace(&wanted.atype, wanted.vals.clone()));
        let changes = others.chain(wanted).collect();
        // Another structural class, which the schema allows nobody.
        self.make_so(glue.uuid, Operation::Modify(LdapModifyRequest { dn, changes }), false)?;
        self.note(Record::NoGlue(glue.uuid));
        Ok(())
    }

    /// Notes what a client made of the entry's name.
    pub(super) fn refresh(&mut self, uuid: EntryUuid) -> Result<(), Outcome> {
        match self.node(uuid)? {
            Some(Node { displaced, place: Some(place), .. }) => self.mark_displaced(uuid, &place, displaced),
            _ => {
                self.forget_displaced(uuid);
                Ok(())
            }
        }
    }

    fn forget_displaced(&mut self, uuid: EntryUuid) {
        if self.known(|names| names.displaced.contains_key(&uuid)) {
            self.note(Record::Named(uuid));
        }
    }
}

impl Schema for HostTree<'_> {
    type Error = Outcome;

    fn is_single(&mut self, attribute: &str) -> Result<bool, Outcome> {
        Ok(self.transaction.is_single(attribute))
    }

    fn normalize(&mut self, attribute: &str, value: &[u8]) -> Result<Vec<u8>, Outcome> {
        Ok(self.transaction.normalize(attribute, value))
    }
}

impl Tree for HostTree<'_> {
    fn node(&mut self, uuid: EntryUuid) -> Result<Option<Node>, Outcome> {
        let Some(entry) = self.read(uuid)? else { return Ok(None) };
        let (rdn, parent) = names::split(entry.operation.dn());
        let displaced = names::is_displaced(rdn);
        let rdn = names::intended(rdn).into_owned();
        let is_suffix = *lock(&self.shared.dataset) == Some(uuid);
        let parent = if is_suffix { None } else { self.transaction.find(parent) };
        Ok(Some(Node {
            csn: Some(entry.csn),
            place: parent.map(|parent| Place { parent, rdn }),
            displaced,
            glue: is_glue(&entry),
            created: values(&entry, "createTimestamp").first().cloned().unwrap_or_default(),
        }))
    }

    fn holder(&mut self, place: &Place) -> Result<Option<EntryUuid>, Outcome> {
        let parent = self.dn(place.parent)?;
        Ok(self.transaction.find(&format!("{},{parent}", place.rdn)))
    }

    fn displaced(&mut self, place: &Place) -> Result<Vec<EntryUuid>, Outcome> {
        let meant: Vec<(EntryUuid, Place)> = self.known(|names| {
            let below = names.displaced.iter().filter(|(_, other)| other.parent == place.parent);
            below.map(|(uuid, other)| (*uuid, other.clone())).collect()
        });
        let mut found = Vec::new();
        let wanted = if meant.is_empty() { Vec::new() } else { self.rdn_key(&place.rdn) };
        for (uuid, other) in meant {
            if self.rdn_key(&other.rdn) != wanted {
                continue;
            }
            // A client may have given it another name.
            match self.node(uuid)? {
                Some(Node { displaced: true, place: Some(now), .. }) if now == other => found.push(uuid),
                _ => self.refresh(uuid)?,
            }
        }
        Ok(found)
    }

    fn has_children(&mut self, uuid: EntryUuid) -> Result<bool, Outcome> {
        let dn = self.dn(uuid)?;
        self.transaction.has_children(&dn).map_err(Outcome::Temporary)
    }

    fn attributes(&mut self, uuid: EntryUuid) -> Result<Attributes, Outcome> {
        let Some(Change { operation: Operation::Add(request) | Operation::Put(request), .. }) =
            self.read(uuid)?
        else {
            return Ok(Attributes::new());
        };
        Ok(request.attributes.into_iter().map(|attribute| (attribute.atype, attribute.vals)).collect())
    }

    fn later(&mut self, uuid: EntryUuid, after: Option<Csn>) -> Result<Vec<Arc<Change>>, Outcome> {
        self.remembered_later(uuid, after)
    }

    fn horizon(&mut self) -> Result<Option<Csn>, Outcome> {
        self.remembered_horizon()
    }

    fn moves(&mut self, from: Csn) -> Result<Vec<Move>, Outcome> {
        self.remembered_moves(from)
    }

    fn deleted(&mut self, uuid: EntryUuid) -> Result<Option<(Csn, Option<Place>)>, Outcome> {
        self.remembered_delete(uuid)
    }

    fn add(&mut self, change: &Change, place: Option<&Place>, displaced: bool) -> Result<(), Outcome> {
        let (Operation::Add(request) | Operation::Put(request)) = &change.operation else { return Ok(()) };
        match self.read(change.uuid)? {
            Some(glue) => self.revive(&glue, request)?,
            None => {
                let dn = match place {
                    Some(place) => self.full_dn(change.uuid, place, displaced)?.0,
                    None => request.dn.clone(),
                };
                let attributes = unmarked(request).cloned().collect();
                // The schema wants no operational attribute in a name.
                let checked = !displaced && self.is_checked();
                self.make_so(change.uuid, Operation::Add(LdapAddRequest { dn, attributes }), checked)?;
            }
        }
        if self.known(|names| names.orphans.contains(&change.uuid)) {
            self.note(Record::Adopted(change.uuid));
        }
        match place {
            Some(place) if displaced => self.mark_displaced(change.uuid, place, true),
            _ => Ok(()),
        }
    }

    fn add_glue(&mut self, uuid: EntryUuid, csn: Csn, place: &Place, displaced: bool) -> Result<(), Outcome> {
        let (dn, _) = self.full_dn(uuid, place, displaced)?;
        let mut attributes = glue_attributes(uuid, csn);
        for (name, value) in names::avas(&place.rdn) {
            attributes.push(attribute(&name, vec![value]));
        }
        self.make_so(uuid, Operation::Add(LdapAddRequest { dn, attributes }), false)?;
        // The database says of every entry when it was made, and by whom.
        self.make_glue(uuid, csn)?;
        if displaced { self.mark_displaced(uuid, place, true) } else { Ok(()) }
    }

    fn make_glue(&mut self, uuid: EntryUuid, csn: Csn) -> Result<(), Outcome> {
        let Some(entry) = self.read(uuid)? else { return Ok(()) };
        let dn = entry.operation.dn().to_owned();
        let mut wanted = glue_attributes(uuid, csn);
        for (name, value) in names::avas(&names::rdn(&dn)) {
            wanted.push(attribute(&name, vec![value]));
        }
        let mut changes = Vec::new();
        for (name, _) in self.attributes(uuid)? {
            let stays = wanted.iter().any(|other| other.atype.eq_ignore_ascii_case(&name));
            if !stays && !is_mark_of_name(&name) {
                changes.push(replace(&name, Vec::new()));
            }
        }
        changes.extend(wanted.into_iter().map(|wanted| replace(&wanted.atype, wanted.vals)));
        // Another structural class, which the schema allows nobody.
        self.make_so(uuid, Operation::Modify(LdapModifyRequest { dn, changes }), false)?;
        self.note(Record::Glue(uuid));
        Ok(())
    }

    fn set(&mut self, uuid: EntryUuid, change: &Change, values: Attributes) -> Result<(), Outcome> {
        let stamps: Vec<LdapModify> = match &change.operation {
            Operation::Modify(request) => request.changes.clone(),
            Operation::ModifyDn { operational, .. } => operational.clone(),
            Operation::Put(request) => {
                request.attributes.iter().map(|stamp| replace(&stamp.atype, stamp.vals.clone())).collect()
            }
            _ => Vec::new(),
        };
        let Some(entry) = self.read(uuid)? else { return Ok(()) };
        // A state that is taken may have the same CSN.
        let is_state = matches!(change.operation, Operation::Put(_));
        let is_last = change.csn > entry.csn || (is_state && change.csn == entry.csn);
        let stamps = stamps.into_iter().filter(|stamp| is_last && is_stamp(&stamp.modification.atype));
        let values = values.into_iter().filter(|(name, _)| !(is_state && is_mark_of_name(name)));
        let values = values.map(|(name, values)| replace(&name, values));
        let changes: Vec<LdapModify> = values.chain(stamps).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let dn = entry.operation.dn().to_owned();
        self.make(uuid, Operation::Modify(LdapModifyRequest { dn: dn.clone(), changes }))?;
        if !self.is_checked() {
            match self.transaction.schema_problem(&dn) {
                Some(problem) => self.scratch.forbidden.insert(uuid, problem),
                None => self.scratch.forbidden.remove(&uuid),
            };
        }
        Ok(())
    }

    fn name(&mut self, uuid: EntryUuid, place: &Place, displaced: bool) -> Result<(), Outcome> {
        let dn = self.dn(uuid)?;
        let (_, parent) = self.full_dn(uuid, place, displaced)?;
        let newrdn = if displaced { names::displaced(uuid, &place.rdn) } else { place.rdn.clone() };
        let new_superior = (names::split(&dn).1 != parent).then_some(parent);
        let request = LdapModifyDNRequest { dn, newrdn, deleteoldrdn: false, new_superior };
        let checked = !displaced && self.is_checked();
        self.make_so(uuid, Operation::ModifyDn { request, operational: Vec::new() }, checked)?;
        self.mark_displaced(uuid, place, displaced)
    }

    fn remove(&mut self, uuid: EntryUuid) -> Result<(), Outcome> {
        let dn = self.dn(uuid)?;
        self.make(uuid, Operation::Delete { dn })?;
        if self.known(|names| names.glue.contains(&uuid)) {
            self.note(Record::NoGlue(uuid));
        }
        self.forget_displaced(uuid);
        Ok(())
    }

    fn note_move(&mut self, made: Move) -> Result<(), Outcome> {
        self.note(Record::Move(made));
        Ok(())
    }

    fn note_place(&mut self, uuid: EntryUuid, place: Place) -> Result<(), Outcome> {
        self.scratch.place(uuid, place);
        Ok(())
    }

    fn note_doubt(&mut self, uuid: EntryUuid) -> Result<(), Outcome> {
        self.scratch.doubts.insert(uuid, self.change.csn);
        Ok(())
    }

    fn note_lost(&mut self, lost: Lost) -> Result<(), Outcome> {
        if !self.is_state {
            self.scratch.lost.push(lost);
        }
        Ok(())
    }
}

/// Whether the attribute tells that the entry has another name here than it is meant to have. Where a state comes from, that may be
/// otherwise.
fn is_mark_of_name(name: &str) -> bool {
    name.eq_ignore_ascii_case(Lost::DISPLACED)
}

fn unmarked(request: &LdapAddRequest) -> impl Iterator<Item = &LdapAttribute> {
    request.attributes.iter().filter(|attribute| !is_mark_of_name(&attribute.atype))
}

impl HostTree<'_> {
    /// The form in which equal RDNs are equal.
    fn rdn_key(&mut self, rdn: &str) -> Vec<(String, Vec<u8>)> {
        let mut key: Vec<(String, Vec<u8>)> = names::avas(rdn)
            .into_iter()
            .map(|(name, value)| {
                let value = self.transaction.normalize(&name, &value);
                (name.to_ascii_lowercase(), value)
            })
            .collect();
        key.sort();
        key
    }
}
