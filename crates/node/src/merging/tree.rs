//! The host's database as the rules see it.

use super::{Names, Scratch, is_written_by_others};
use crate::host::{Failure, Outcome, Transaction};
use crate::limits;
use crate::shared::{Shared, lock};
use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::warn;
use xmppsync_journal::Record;
use xmppsync_replica::merge::{Attributes, Node, Schema, Tree, is_stamp};
use xmppsync_replica::{Change, Csn, EntryUuid, Lost, Move, Operation, Place, Vector, names};

/// slapd's own object class for entries that only hold a place in the tree.
const GLUE: &str = "glue";
/// What tells that an entry is displaced.
const CONFLICT: &str = "xmppSyncConflict";

pub(super) struct HostTree<'a> {
    shared: &'a Shared,
    transaction: &'a mut dyn Transaction,
    scratch: &'a mut Scratch,
    applied: &'a Vector,
    /// Under whose CSN everything is done.
    change: &'a Arc<Change>,
    /// What this replica cannot hold by its schema is refused, unless several servers made it so together; once that is known.
    checked: Option<bool>,
}

/// Whether the entry is glue.
pub(super) fn is_glue(entry: &Change) -> bool {
    has_value(entry, "objectClass", GLUE)
}

fn values<'a>(entry: &'a Change, attribute: &str) -> &'a [Vec<u8>] {
    let (Operation::Add(request) | Operation::Put(request)) = &entry.operation else { return &[] };
    let found = request.attributes.iter().find(|candidate| candidate.atype.eq_ignore_ascii_case(attribute));
    found.map_or(&[], |found| found.vals.as_slice())
}

fn has_value(entry: &Change, attribute: &str, value: &str) -> bool {
    values(entry, attribute).iter().any(|present| present.eq_ignore_ascii_case(value.as_bytes()))
}

fn busy(text: &str) -> Outcome {
    Outcome::Temporary(Failure::busy(text))
}

fn attribute(name: &str, vals: Vec<Vec<u8>>) -> LdapPartialAttribute {
    LdapPartialAttribute { atype: name.to_owned(), vals }
}

fn replace(name: &str, vals: Vec<Vec<u8>>) -> LdapModify {
    LdapModify { operation: LdapModifyType::Replace, modification: attribute(name, vals) }
}

fn texts(values: &[&str]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.as_bytes().to_vec()).collect()
}

impl<'a> HostTree<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        transaction: &'a mut dyn Transaction,
        scratch: &'a mut Scratch,
        applied: &'a Vector,
        change: &'a Arc<Change>,
    ) -> HostTree<'a> {
        HostTree { shared, transaction, scratch, applied, change, checked: None }
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

    /// A client's write that is committed may not have been told yet. Others wait for this transaction.
    fn wait_for_clients(&self) -> Result<(), Outcome> {
        for _ in 0..limits::CLIENT_TRIES {
            let pending = self.shared.database.pending_csns();
            if pending.iter().all(|csn| lock(&self.shared.captured).has_taken(*csn)) {
                return Ok(());
            }
            std::thread::sleep(limits::CLIENT_PAUSE);
        }
        Err(busy("a write of this server is on its way"))
    }

    /// Asks the journal, which has all that was handed to it before.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut xmppsync_journal::Journal) -> Result<T, xmppsync_journal::JournalError>
        + Send
        + 'static,
    ) -> Result<Option<T>, Outcome> {
        self.shared
            .store
            .ask_now(question, limits::HISTORY_PATIENCE)
            .map_err(|_| busy("the journal does not answer"))
    }

    /// Whether the change is in the database.
    fn is_applied(&self, change: &Change) -> bool {
        let csn = change.csn;
        let is_here = csn.server_id() == self.shared.own || self.applied.covers(csn);
        let waits = self.scratch.is_waiting(csn) || lock(&self.shared.to_apply).is_waiting(change);
        is_here && csn != self.change.csn && !waits
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
        let request = LdapModifyRequest { dn: self.dn(uuid)?, changes: vec![replace(CONFLICT, mark)] };
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
        let wanted = request.attributes.iter().map(|wanted| replace(&wanted.atype, wanted.vals.clone()));
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
        // First what is not in the journal yet: it may get there meanwhile.
        let fresh = lock(&self.shared.captured).later(uuid, after);
        let known = self.ask(move |journal| journal.later(uuid, after))?;
        if known.is_none() && self.shared.store.is_filling() {
            return Err(busy("the journal is being made anew"));
        }
        let known = known.unwrap_or_default();
        let mut later: Vec<Arc<Change>> =
            known.into_iter().map(Arc::new).filter(|change| self.is_applied(change)).collect();
        for change in fresh {
            if !later.iter().any(|known| known.csn == change.csn) {
                later.push(change);
            }
        }
        later.sort_by_key(|change| change.csn);
        if uuid == self.change.uuid
            && later.iter().any(|change| change.csn.server_id() != self.change.csn.server_id())
        {
            self.checked = Some(false);
        }
        let Some(entry) = self.read(uuid)? else { return Ok(later) };
        let (last, is_late) =
            (later.last().map(|change| change.csn), after.is_some_and(|after| entry.csn > after));
        if is_late && last < Some(entry.csn) && !is_glue(&entry) {
            if entry.csn.server_id() == self.shared.own && !lock(&self.shared.vector).covers(entry.csn) {
                // A client's write that is committed, and that nobody was told of yet.
                return Err(busy("a write of this server is on its way"));
            }
            // Before the journal reaches back: nothing tells which values are older than the change.
            warn!(
                "conflict: the journal does not reach back to the change {} of the entry {uuid}, so that the earlier one {} has no \
                 effect; where it is wanted, write it again",
                entry.csn, self.change.csn
            );
            let Change { csn, uuid, parent, operation } = entry;
            let operation = match operation {
                Operation::Add(request) => Operation::Put(request),
                other => other,
            };
            later.push(Arc::new(Change { csn, uuid, parent, operation }));
        }
        Ok(later)
    }

    fn moves(&mut self, from: Csn) -> Result<Vec<Move>, Outcome> {
        self.wait_for_clients()?;
        let followed: Vec<Move> =
            lock(&self.shared.to_apply).to_follow.iter().filter_map(client_move).collect();
        let mut moves: BTreeMap<Csn, Move> =
            self.known(|names| names.moves.range(from..).map(|(csn, made)| (*csn, *made)).collect());
        for made in followed.into_iter().filter(|made| made.csn >= from) {
            moves.entry(made.csn).or_insert(made);
        }
        Ok(moves.into_values().collect())
    }

    fn deleted(&mut self, uuid: EntryUuid) -> Result<Option<(Csn, Option<Place>)>, Outcome> {
        let place = self.scratch.places.get(&uuid).cloned();
        let gone = self.scratch.gone.get(&uuid).copied().max(lock(&self.shared.captured).deleted.get(uuid));
        let known = self.ask(move |journal| {
            let tombstone = journal.tombstone(uuid)?.map(|(csn, _)| csn);
            Ok((tombstone, journal.place(uuid)?))
        })?;
        let (tombstone, known) = known.unwrap_or_default();
        Ok(gone.max(tombstone).map(|csn| (csn, place.or(known))))
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
                let attributes = request.attributes.clone();
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
            if !stays && !name.eq_ignore_ascii_case(CONFLICT) {
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
        let is_last = change.csn > entry.csn;
        let stamps = stamps.into_iter().filter(|stamp| is_last && is_stamp(&stamp.modification.atype));
        let values = values.into_iter().map(|(name, values)| replace(&name, values));
        let changes: Vec<LdapModify> = values.chain(stamps).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let dn = entry.operation.dn().to_owned();
        self.make(uuid, Operation::Modify(LdapModifyRequest { dn, changes }))
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

    fn note_lost(&mut self, lost: Lost) -> Result<(), Outcome> {
        self.scratch.records.push(Record::Lost { lost: lost.clone(), at: crate::store::now() });
        self.scratch.lost.push(lost);
        Ok(())
    }
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

/// A move that a client made here.
fn client_move((change, from): &(Arc<Change>, Place)) -> Option<Move> {
    let is_rename = matches!(change.operation, Operation::ModifyDn { .. });
    let to = change.parent.filter(|_| is_rename)?;
    Some(Move { csn: change.csn, child: change.uuid, from: Some(from.parent), to, made: true })
}

/// All that glue has beside its name.
fn glue_attributes(uuid: EntryUuid, csn: Csn) -> Vec<LdapPartialAttribute> {
    vec![
        attribute("objectClass", texts(&["top", GLUE, "extensibleObject"])),
        attribute("structuralObjectClass", texts(&[GLUE])),
        attribute("entryUUID", texts(&[&uuid.to_string()])),
        attribute("entryCSN", texts(&[csn.as_str()])),
    ]
}
