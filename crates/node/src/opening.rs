//! Where a database stands when it is opened: what its journal remembers, and what happened without the journal.
//!
//! A change is in the database before it is in the journal. So after a crash the database may be ahead of the journal, and
//! what it has more is published now. After offline tools the same holds. Only a database that was put back to an
//! earlier state is behind: what it lacks comes from the peers, and nothing of it is published.

mod aside;
mod killed;
mod moves;

use crate::captured::Part;
use crate::heal::{as_put, tombstone};
use crate::host::{Failure, Generation, Opening, Standing, Stored};
use crate::merging::Names;
use crate::store::now;
use aside::Aside;
use killed::Left;
use std::collections::HashSet;
use std::path::Path;
use tracing::{error, info, warn};
use xmppsync_journal::pending::{self, Kept};
use xmppsync_journal::{Journal, JournalError, Opened, Record, loading};
use xmppsync_replica::{Change, Csn, EntryUuid, ServerId, Unseen, Vector};

/// What the comparison led to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Everything up to here is in the database.
    pub(crate) vector: Vector,
    /// What of that was not necessarily seen.
    pub(crate) unseen: Unseen,
    /// The last change of this server that the journal knows: what it made later follows that.
    pub(crate) own_head: Option<Csn>,
    /// What this server makes in this run is later, and all that it made before is not.
    pub(crate) opened: Option<Csn>,
    /// Changes of this server that nobody has heard of, in the order of their CSNs.
    pub(crate) unpublished: Vec<Part>,
    /// The database cannot be told by its vector: the sets of entries have to be compared with a peer.
    pub(crate) compare: bool,
    /// An initial load was not finished.
    pub(crate) loading: bool,
    /// What the journal would know of names, where there is none.
    pub(crate) names: Names,
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

/// Opens the journal and compares. Whatever becomes of the journal, the database is served: without one if need be.
pub(crate) fn open(
    dir: &Path,
    suffix: &str,
    database: &mut dyn Opening,
    own: ServerId,
) -> Result<(Option<Journal>, Found), OpeningError> {
    let loading = loading::is_noted(dir);
    let problem = match Journal::open(dir, suffix) {
        // Two servers, or two databases, that were given the same directory.
        Err(problem @ JournalError::InUse(_)) => return Err(problem.into()),
        Err(problem) => problem,
        Ok((mut journal, opened)) => {
            // A database that was put back is behind it.
            journal.head().iter().for_each(|csn| database.observe(csn));
            let kept = pending::read(dir);
            // A delete leaves no entryCSN behind.
            kept.iter().for_each(|kept| database.observe(kept.change.csn));
            match compare(&mut journal, &opened, loading, database, own, kept) {
                Ok(found) => {
                    if found.loading {
                        // It begins anew, and what clients change meanwhile is no news.
                        drop(pending::discard(dir));
                    }
                    return Ok((Some(journal), found));
                }
                Err(OpeningError::Journal(problem)) => {
                    // What cannot be set aside now is when the next one is made.
                    drop(journal.set_aside());
                    problem
                }
                Err(problem) => return Err(problem),
            }
        }
    };
    error!(
        "{problem}. The database is served and replicated without a journal; one is made from the database as soon as that \
         goes"
    );
    Ok((None, without_journal(loading, database, own)?))
}

/// What the database alone tells. Nobody can compare with it, so nobody is made to.
fn without_journal(loading: bool, database: &mut dyn Opening, own: ServerId) -> Result<Found, OpeningError> {
    let standing = database.standing()?;
    let mut unseen = forgotten(&standing, own);
    let vector = standing.vector;
    unseen.add_after(vector.get(own), database.new_csn()?);
    let mut found = Found { own_head: vector.get(own), vector, unseen, loading, ..Found::default() };
    if loading {
        info!("an initial load was not finished; it begins anew");
        found.vector = found.own_head.into_iter().collect();
    }
    let mut aside = Aside::default();
    database.scan(&mut |entry| aside.note(&entry))?;
    aside.records(&Names::default(), database).iter().for_each(|record| found.names.note(record));
    Ok(found)
}

/// `loading`: an initial load was begun and has not ended, whatever the journal says. `kept`: what clients changed, and the journal may
/// lack.
pub(crate) fn compare(
    journal: &mut Journal,
    opened: &Opened,
    loading: bool,
    database: &mut dyn Opening,
    own: ServerId,
    kept: Vec<Kept>,
) -> Result<Found, OpeningError> {
    let standing = database.standing()?;
    let forgotten = forgotten(&standing, own);
    let Standing { vector, guessed } = standing;
    let generation = database.generation();
    let database_own = vector.get(own);
    let mut found = Found { vector, ..Found::default() };
    match opened {
        _ if loading => half_loaded(journal, database, own, &mut found)?,
        Opened::Existing { clean: Some(clean), loading: None }
            if Generation::decode(clean).is_some_and(|clean| Some(clean) == generation) =>
        {
            know_head(journal, own, &mut found)?;
        }
        Opened::Existing { loading: Some(_), .. } => half_loaded(journal, database, own, &mut found)?,
        Opened::Existing { clean, .. } => {
            // What is noted now and then is older than what a clean end noted.
            let last = clean.as_deref().and_then(Generation::decode);
            let noted = journal.generation()?.and_then(|noted| Generation::decode(&noted));
            let went_back = match (last.or(noted), generation) {
                (Some(before), Some(now)) => now.is_before(before),
                _ => false,
            };
            let differences = differences(journal, database)?;
            if went_back || differences.older {
                put_back(journal, database, &mut found)?;
                let unseen = if guessed { Unseen::all(&found.vector) } else { Unseen::default() };
                begin_span(journal, database, own, unseen, &mut found)?;
                journal.write(&[Record::Incomplete(false)])?;
            } else {
                let tools = clean.as_ref().is_some_and(|clean| !clean.is_empty());
                let left = match tools {
                    true => Left::default(),
                    false => Left::new(kept, own, journal.head(), &differences, journal)?,
                };
                catch_up(journal, database, (own, tools), differences, left, &mut found)?;
                know_head(journal, own, &mut found)?;
                unsure_of_own(journal, own, database_own)?;
            }
        }
        Opened::New => {
            begin(journal, database, own, forgotten, &mut found)?;
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
            begin(journal, database, own, forgotten, &mut found)?;
        }
    }
    if let Some(generation) = database.generation() {
        journal.write(&[Record::Generation(generation.encode())])?;
    }
    let latest = found.unpublished.last().map(|(change, _)| change.csn);
    found.unseen = journal.unseen().clone();
    found.own_head = if latest.is_some() { journal.head().get(own) } else { found.vector.get(own) };
    Ok(found)
}

/// The last own change may have been a delete, which leaves no entryCSN behind. It is still to be mended, perhaps, that the
/// database was put back.
fn know_head(journal: &Journal, own: ServerId, found: &mut Found) -> Result<(), OpeningError> {
    found.compare |= journal.is_put_back()?;
    journal.head().get(own).into_iter().for_each(|head| found.vector.advance(head));
    Ok(())
}

/// After an unclean end: own changes that came back from a peer are in the journal before they are in the database.
fn unsure_of_own(journal: &mut Journal, own: ServerId, database: Option<Csn>) -> Result<(), OpeningError> {
    let mut unseen = Unseen::default();
    journal.head().get(own).into_iter().for_each(|head| unseen.add_after(database, head));
    if !unseen.is_empty() {
        journal.write(&[Record::Unseen { unseen, at: now() }])?;
    }
    Ok(())
}

/// A journal that knows nothing yet: whoever lacks something of before has to compare.
fn begin(
    journal: &mut Journal,
    database: &mut dyn Opening,
    own: ServerId,
    unseen: Unseen,
    found: &mut Found,
) -> Result<(), OpeningError> {
    let floors = found.vector.iter().map(Record::Floor);
    let is_empty = found.vector.iter().next().is_none();
    take_inventory(journal, database, [Record::Incomplete(true)].into_iter().chain(floors).collect())?;
    if !is_empty || journal.inventory_len()? > 0 {
        begin_span(journal, database, own, unseen, found)?;
    }
    journal.write(&[Record::Incomplete(false)])?;
    Ok(())
}

/// What counts as unseen without the journal, which knew what of others was refused. What this server made itself up to where its
/// database stands was in there, and what of that it lacks was deleted.
fn forgotten(Standing { vector, guessed }: &Standing, own: ServerId) -> Unseen {
    Unseen::all(&vector.iter().filter(|csn| *guessed || csn.server_id() != own).collect())
}

/// What this server made before may be gone, and others may have it: between the last of it that is here and what it makes from
/// now on nothing counts as seen. The CSN in between is nobody's change; who lacks it has to compare, and learns of the
/// span by that.
fn begin_span(
    journal: &mut Journal,
    database: &mut dyn Opening,
    own: ServerId,
    mut unseen: Unseen,
    found: &mut Found,
) -> Result<(), OpeningError> {
    let until = database.new_csn()?;
    unseen.add_after(found.vector.get(own), until);
    journal.write(&[Record::Unseen { unseen, at: now() }, Record::Floor(until)])?;
    found.vector.advance(until);
    Ok(())
}

fn take_inventory(
    journal: &mut Journal,
    database: &mut dyn Opening,
    mut records: Vec<Record>,
) -> Result<(), OpeningError> {
    let mut failure = Ok(());
    let mut aside = Aside::default();
    database.scan(&mut |entry| {
        aside.note(&entry);
        if let Stored { uuid, csn: Some(csn), glue: false, .. } = entry {
            records.push(Record::Put { uuid, csn });
        }
        if records.len() >= RECORDS_MAX && failure.is_ok() {
            failure = journal.write(&records);
            records.clear();
        }
    })?;
    failure?;
    records.extend(aside.records(&Names::read(journal)?, database));
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
    found.vector = journal.head().get(own).or(found.vector.get(own)).into_iter().collect();
    let vector = found.vector.clone();
    let noted = vector.iter().map(Record::Reached).chain([Record::Loading(Some(Vec::new()))]);
    let noted = noted.chain(nothing_ahead(journal)?).collect();
    take_inventory(journal, database, noted)
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
    // Left half done, the inventory would tell that entries were deleted.
    journal.write(&[Record::Incomplete(true), Record::PutBack(true)])?;
    let mut here = HashSet::new();
    let beyond = found.vector.iter().filter(|csn| !journal.head().covers(*csn));
    let mut records: Vec<Record> = beyond.map(Record::Floor).collect();
    records.extend(nothing_ahead(journal)?);
    let mut aside = Aside::default();
    database.scan(&mut |entry| {
        aside.note(&entry);
        if !entry.glue {
            here.insert(entry.uuid);
            records.extend(entry.csn.map(|csn| Record::Is { uuid: entry.uuid, csn }));
        }
    })?;
    journal.inventory_for_each(|uuid, _| {
        if !here.contains(&uuid) {
            records.push(Record::Forget { uuid });
        }
    })?;
    records.extend(aside.records(&Names::read(journal)?, database));
    for records in records.chunks(RECORDS_MAX) {
        journal.write(records)?;
    }
    found.compare = true;
    Ok(())
}

/// What came into the database before its turn may not be in this one.
fn nothing_ahead(journal: &Journal) -> Result<impl Iterator<Item = Record>, OpeningError> {
    Ok(journal.ahead()?.into_iter().map(|(csn, _)| Record::InTurn(csn)))
}

/// An entry whose state the journal does not know.
struct Newer {
    dn: String,
    uuid: EntryUuid,
    csn: Option<Csn>,
}

/// Such an entry, with the change of another server that it has.
struct Noted {
    dn: String,
    uuid: EntryUuid,
    csn: Csn,
}

/// What the database and the inventory do not have alike.
#[derive(Default)]
struct Differences {
    newer: Vec<Newer>,
    /// In the inventory only.
    gone: Vec<EntryUuid>,
    /// An entry is in an earlier state than the journal has seen: whatever happened, this is not what came after it.
    older: bool,
    aside: Aside,
}

/// What becomes of an entry whose state the journal does not know.
enum Verdict {
    /// Sent under the CSN that it has.
    Send(Csn),
    /// Sent under a new CSN: its own says nothing to others. slapadd makes such ones.
    SendAnew,
    /// Others have it.
    Note(Csn),
    /// It is the state of somebody else, who may have a later one by now.
    Compare(Csn),
}

/// With `tools` the last end was a clean one, so that the inventory was whole.
fn judge(csn: Option<Csn>, own: ServerId, tools: bool, head: &Vector, vector: &Vector) -> Verdict {
    let Some(csn) = csn.filter(|csn| csn.server_id() != ServerId::NONE) else { return Verdict::SendAnew };
    let is_own = csn.server_id() == own;
    if is_own && !head.covers(csn) {
        Verdict::Send(csn)
    } else if !is_own && vector.covers(csn) && !(tools && head.covers(csn)) {
        Verdict::Note(csn)
    } else if tools {
        // An entry that was gone already, or one of a server that is none of the group.
        Verdict::SendAnew
    } else {
        // What a comparison brings does not move the vector.
        Verdict::Compare(csn)
    }
}

/// An unclean end, or offline tools: the database has what the journal does not know of.
fn catch_up(
    journal: &mut Journal,
    database: &mut dyn Opening,
    (own, tools): (ServerId, bool),
    differences: Differences,
    left: Left,
    found: &mut Found,
) -> Result<(), OpeningError> {
    let head = journal.head().clone();
    // What others sent was applied, and its vector stored with it, before the end: the journal lacks it.
    let missed = found.vector.iter().filter(|csn| csn.server_id() != own && !head.covers(*csn));
    let mut records: Vec<Record> = missed.map(Record::Floor).collect();
    let names = Names::read(journal)?;
    records.extend(differences.aside.records(&names, database));
    // Changes are sent in the order of their CSNs, and a name may have been used again: slapmodify gives an entry that it
    // changes a new entryUUID. So the deletes get theirs first.
    for uuid in differences.gone.into_iter().filter(|uuid| !left.deletes(*uuid)) {
        found.unpublished.push((tombstone(uuid, database.new_csn()?), None));
    }
    let (mut sent, mut noted) = (Vec::new(), Vec::new());
    for Newer { dn, uuid, csn } in differences.newer {
        if left.explains(uuid, csn) {
            continue;
        }
        match judge(csn, own, tools, &head, &found.vector) {
            Verdict::Send(csn) => sent.extend(state(database, Some(csn), uuid, &dn)?),
            Verdict::SendAnew => sent.extend(state(database, None, uuid, &dn)?),
            Verdict::Note(csn) => noted.push(Noted { uuid, dn, csn }),
            Verdict::Compare(csn) => {
                found.compare = true;
                noted.push(Noted { uuid, dn, csn });
            }
        }
    }
    database.settle()?;
    found.unpublished.extend(sent.into_iter().map(|state| (state, None)));
    found.unpublished.extend(left.changes);
    found.unpublished.sort_by_key(|(change, _)| change.csn);
    records.extend(moves::unknown(journal, &names, found, &noted, own, database)?);
    records.extend(noted.iter().map(|noted| Record::Put { uuid: noted.uuid, csn: noted.csn }));
    journal.write(&records)?;
    let (own_changes, others) = (found.unpublished.len(), noted.len());
    if own_changes + others > 0 {
        info!(
            "the database was changed without the journal (an unclean end, or offline tools): {own_changes} changes are \
             sent now, {others} of other servers are noted"
        );
    }
    Ok(())
}

fn differences(journal: &Journal, database: &mut dyn Opening) -> Result<Differences, OpeningError> {
    let mut here = HashSet::new();
    let mut found = Differences::default();
    let mut failure = Ok(());
    database.scan(&mut |entry| {
        found.aside.note(&entry);
        let Stored { dn, uuid, csn, glue } = entry;
        here.insert(uuid);
        match journal.inventory_get(uuid) {
            // Deleted, and only there because of its children.
            _ if glue => {}
            Ok(known) if known.is_some() && known == csn => {}
            Ok(known) => {
                let placed = csn.filter(|csn| csn.server_id() != ServerId::NONE);
                found.older |= placed.is_some_and(|csn| known > Some(csn));
                found.newer.push(Newer { dn: dn.to_owned(), uuid, csn });
            }
            Err(problem) => failure = Err(problem),
        }
    })?;
    failure?;
    journal.inventory_for_each(|uuid, _| {
        if !here.contains(&uuid) {
            found.gone.push(uuid);
        }
    })?;
    Ok(found)
}

/// The entry as it is, to be sent under this CSN, or under a new one.
fn state(
    database: &mut dyn Opening,
    csn: Option<Csn>,
    uuid: EntryUuid,
    dn: &str,
) -> Result<Option<Change>, OpeningError> {
    if let Some(csn) = csn
        && let Some(found) = database.read_entry(&uuid)?
    {
        return Ok(Some(Change { csn, ..as_put(found) }));
    }
    // Without a CSN to be sent under, or in no index.
    let csn = database.new_csn()?;
    database.touch(dn, &uuid, csn)?;
    Ok(database.read_entry(&uuid)?.map(|found| Change { csn, ..as_put(found) }))
}

#[cfg(test)]
mod tests;
