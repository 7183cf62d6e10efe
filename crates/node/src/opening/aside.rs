//! Entries that are displaced, or glue, as the database itself tells: a journal that is new, or that a crash has left behind, does
//! not know all of them, and nobody would give them a name that becomes free.

use crate::host::{Opening, Stored};
use crate::merging::Names;
use crate::store::now;
use std::collections::HashMap;
use xmppsync_journal::Record;
use xmppsync_replica::{Csn, EntryUuid, Place, names};

/// What a walk through the database has met of them.
#[derive(Default)]
pub(super) struct Aside {
    /// With their DNs.
    displaced: HashMap<EntryUuid, String>,
    /// The entryCSN of glue is that of the delete.
    glue: HashMap<EntryUuid, (String, Option<Csn>)>,
}

impl Aside {
    pub(super) fn note(&mut self, entry: &Stored<'_>) {
        if names::is_displaced(names::split(entry.dn).0) {
            self.displaced.insert(entry.uuid, entry.dn.to_owned());
        }
        if entry.glue {
            self.glue.insert(entry.uuid, (entry.dn.to_owned(), entry.csn));
        }
    }

    pub(super) fn is_glue(&self, uuid: EntryUuid) -> bool {
        self.glue.contains_key(&uuid)
    }

    /// What makes a journal that knows of `known` know of these. Glue is deleted, so it is none of the inventory's.
    pub(super) fn records(self, known: &Names, database: &mut dyn Opening) -> Vec<Record> {
        let mut records = Vec::new();
        let is_displaced = |uuid: &&EntryUuid| !self.displaced.contains_key(uuid);
        records.extend(known.displaced.keys().filter(is_displaced).map(|uuid| Record::Named(*uuid)));
        let is_no_glue = |uuid: &&EntryUuid| !self.glue.contains_key(uuid);
        records.extend(known.glue.iter().filter(is_no_glue).map(|uuid| Record::NoGlue(*uuid)));
        for (uuid, dn) in &self.displaced {
            let place = place(dn, database).filter(|place| known.displaced.get(uuid) != Some(place));
            records.extend(place.map(|place| Record::Displaced { uuid: *uuid, place }));
        }
        for (uuid, (dn, csn)) in self.glue {
            if known.glue.contains(&uuid) {
                continue;
            }
            records.push(Record::Forget { uuid });
            records.extend(csn.map(|csn| Record::Gone { uuid, csn, at: now() }));
            records.extend(place(&dn, database).map(|place| Record::Place { uuid, place }));
            records.push(Record::Glue(uuid));
        }
        records
    }
}

/// What the entry is meant to have. The suffix entry has none.
pub(super) fn place(dn: &str, database: &mut dyn Opening) -> Option<Place> {
    let parent = database.find(names::split(dn).1)?;
    Some(Place { parent, rdn: names::rdn(dn).into_owned() })
}
