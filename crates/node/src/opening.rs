//! Where a database stands when it is opened: what its journal remembers, and what happened without the journal.
//!
//! A change is in the database before it is in the journal. So after a crash the database may be ahead of the journal, and
//! what it has more is published now. After offline tools the same holds. Only a database that was put back to an
//! earlier state is behind: what it lacks comes from the journal and from the peers, and nothing of it is published.

use crate::host::{Failure, Generation, Opening};
use crate::store::now;
use std::collections::HashSet;
use tracing::{info, warn};
use xmppsync_journal::{Journal, JournalError, Opened, Record};
use xmppsync_replica::{Change, Csn, EntryUuid, Operation, ServerId, Vector};

/// What the comparison led to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Everything up to here is in the database.
    pub(crate) vector: Vector,
    /// The last change of this server that the journal knows: what it made later follows that.
    pub(crate) own_head: Option<Csn>,
    /// Changes of this server that nobody has heard of, in the order of their CSNs.
    pub(crate) unpublished: Vec<Change>,
    /// The database cannot be told by its vector: the sets of entries have to be compared with a peer.
    pub(crate) compare: bool,
    /// An initial load was not finished.
    pub(crate) loading: bool,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The database cannot be read or written.
    #[error("the database cannot be compared with its journal: {0}")]
    Database(#[from] Failure),
}

/// Records that are written together while comparing.
const RECORDS_MAX: usize = 10_000;

pub(crate) fn compare(
    journal: &mut Journal,
    opened: &Opened,
    database: &mut dyn Opening,
    own: ServerId,
) -> Result<Found, OpeningError> {
    let vector = database.vector()?;
    let generation = database.generation();
    let mut found = Found { vector, ..Found::default() };
    match opened {
        Opened::Existing { clean: Some(clean), loading: None }
            if Generation::decode(clean).is_some_and(|clean| Some(clean) == generation) =>
        {
            // The last own change may have been a delete, which leaves no entryCSN behind.
            if let Some(head) = journal.head().get(own) {
                found.vector.advance(head);
            }
        }
        Opened::Existing { loading: Some(_), .. } => half_loaded(journal, database, own, &mut found)?,
        Opened::Existing { .. } => {
            let before = journal.generation()?.and_then(|before| Generation::decode(&before));
            let went_back = match (before, generation) {
                (Some(before), Some(now)) => now.is_before(before),
                _ => false,
            };
            if went_back {
                put_back(journal, database, &mut found)?;
            } else {
                catch_up(journal, database, own, &mut found)?;
            }
        }
        Opened::New => {
            begin(journal, database, &found.vector)?;
            let entries = journal.inventory_len()?;
            if entries > 0 {
                info!(
                    "there is no journal yet, or not any more; a new one is made from the database ({entries} entries)"
                );
            }
        }
        Opened::Replaced { aside, why } => {
            warn!(
                "the journal could not be used ({why}); it is set aside as {}, a new one is made from the database",
                aside.display()
            );
            begin(journal, database, &found.vector)?;
        }
    }
    if let Some(generation) = database.generation() {
        journal.write(&[Record::Generation(generation.encode())])?;
    }
    let latest = found.unpublished.last().map(|change| change.csn);
    found.own_head = if latest.is_some() { journal.head().get(own) } else { found.vector.get(own) };
    Ok(found)
}

/// A journal that knows nothing yet: whoever lacks something of before has to compare.
fn begin(journal: &mut Journal, database: &mut dyn Opening, vector: &Vector) -> Result<(), OpeningError> {
    let mut records: Vec<Record> = vector.iter().map(Record::Floor).collect();
    if vector.iter().next().is_some() {
        records.push(Record::TombstonesSince(now()));
    }
    take_inventory(journal, database, records)
}

fn take_inventory(
    journal: &mut Journal,
    database: &mut dyn Opening,
    mut records: Vec<Record>,
) -> Result<(), OpeningError> {
    let mut failure = Ok(());
    database.scan(&mut |uuid, csn| {
        if let Some(csn) = csn {
            records.push(Record::Put { uuid, csn });
        }
        if records.len() >= RECORDS_MAX && failure.is_ok() {
            failure = journal.write(&records);
            records.clear();
        }
    })?;
    failure?;
    journal.write(&records)?;
    Ok(())
}

/// An initial load was not finished: the vector tells nothing of what is there.
fn half_loaded(
    journal: &mut Journal,
    database: &mut dyn Opening,
    own: ServerId,
    found: &mut Found,
) -> Result<(), OpeningError> {
    info!("an initial load was not finished; it begins anew");
    found.loading = true;
    found.vector = journal.head().get(own).into_iter().collect();
    take_inventory(journal, database, Vec::new())
}

/// The database was put back to an earlier state, by slapadd of an older LDIF or a copy of its files.
fn put_back(
    journal: &mut Journal,
    database: &mut dyn Opening,
    found: &mut Found,
) -> Result<(), OpeningError> {
    warn!(
        "the database was put back to an earlier state (up to {}); what it lacks is fetched, nothing of it is sent",
        found.vector.iter().map(|csn| csn.to_string()).max().unwrap_or_else(|| "the beginning".to_owned())
    );
    let mut here = HashSet::new();
    let mut records = Vec::new();
    database.scan(&mut |uuid, csn| {
        here.insert(uuid);
        records.extend(csn.map(|csn| Record::Is { uuid, csn }));
    })?;
    journal.inventory_for_each(|uuid, _| {
        if !here.contains(&uuid) {
            records.push(Record::Forget { uuid });
        }
    })?;
    for records in records.chunks(RECORDS_MAX) {
        journal.write(records)?;
    }
    found.compare = true;
    Ok(())
}

/// An unclean end, or offline tools: the database has what the journal does not know of.
fn catch_up(
    journal: &mut Journal,
    database: &mut dyn Opening,
    own: ServerId,
    found: &mut Found,
) -> Result<(), OpeningError> {
    let head = journal.head().clone();
    let mut here = HashSet::new();
    let mut newer: Vec<(EntryUuid, Option<Csn>)> = Vec::new();
    let mut failure = Ok(());
    database.scan(&mut |uuid, csn| {
        here.insert(uuid);
        match journal.inventory_get(uuid) {
            Ok(known) if known.is_some() && known == csn => {}
            Ok(_) => newer.push((uuid, csn)),
            Err(problem) => failure = Err(problem),
        }
    })?;
    failure?;
    let mut gone: Vec<EntryUuid> = Vec::new();
    journal.inventory_for_each(|uuid, _| {
        if !here.contains(&uuid) {
            gone.push(uuid);
        }
    })?;
    // What others sent was applied, and its vector stored with it, before the end: the journal lacks it.
    let mut records: Vec<Record> = found
        .vector
        .iter()
        .filter(|csn| csn.server_id() != own && !head.covers(*csn))
        .map(Record::Floor)
        .collect();
    let (mut published, mut foreign) = (Vec::new(), 0);
    for (uuid, csn) in newer {
        match csn {
            Some(csn) if csn.server_id() != own && found.vector.covers(csn) => {
                foreign += 1;
                records.push(Record::Put { uuid, csn });
            }
            Some(csn) if csn.server_id() == own && !head.covers(csn) => published.push((csn, uuid)),
            // Its CSN says nothing to others: slapadd makes such ones.
            _ => {
                let csn = database.new_csn()?;
                database.touch(&uuid, csn)?;
                published.push((csn, uuid));
            }
        }
    }
    journal.write(&records)?;
    published.sort_unstable();
    for (csn, uuid) in published {
        if let Some(mut change) = database.read_entry(&uuid)? {
            change.csn = csn;
            change.operation = match change.operation {
                Operation::Add(entry) => Operation::Put(entry),
                other => other,
            };
            found.unpublished.push(change);
        }
    }
    for uuid in gone {
        let csn = database.new_csn()?;
        found.unpublished.push(Change { csn, uuid, operation: Operation::Delete { dn: String::new() } });
    }
    if let Some(head) = head.get(own) {
        found.vector.advance(head);
    }
    let (own_changes, others) = (found.unpublished.len(), foreign);
    if own_changes + others > 0 {
        info!(
            "the database was changed without the journal (an unclean end, or offline tools): {own_changes} changes are \
             sent now, {others} of other servers are noted"
        );
    }
    Ok(())
}
