//! What clients have changed and the journal does not have yet, in files beside it. A change is written there in the client's thread,
//! which waits for no disk: so it outlives a process that is killed, but not a machine that loses power. There the next start
//! finds what was changed in the database itself, entry by entry.
//!
//! ```text
//! file   = record*
//! record = length:4 crc32:4 csn:17 before old-parent change        length, and what is summed: from the CSN on
//! ```
//! `before` is `0`, or `1` and the CSN of the change before it: where that was not written (too large, a full disk) what follows says nothing of how
//! entries came to be what they are. `old-parent` is `0`, or `1` and an entryUUID; [`codec`] has the change. What does not read as a record is
//! the torn end of its file.

use crate::codec::{self, CodecError, Reader, put_optional};
use crate::key::{Packed, pack, unpack};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use xmppsync_replica::{BootId, Change, Csn, EntryUuid, Vector};

const PREFIX: &str = "pending.";
const HEAD: usize = 8;

/// A file that is as large is followed by another one.
const FILE_BYTES: u64 = 1024 * 1024;
/// As long as the journal takes nothing, no more than this is written.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// One change; of a larger one the next start finds the entry as it is.
const CHANGE_BYTES_MAX: usize = 1024 * 1024;

/// A change of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The change.
    pub change: Change,
    /// The parent that its entry had before, where that matters.
    pub old_parent: Option<EntryUuid>,
    /// The change before it, which was kept too or not; none of the same process if there is none.
    pub before: Option<Csn>,
}

/// The files, in use.
#[derive(Debug)]
pub struct Pending {
    dir: PathBuf,
    /// Where changes go. Held for one write.
    current: Mutex<Current>,
    /// Files that are full, or of a process before this one, each with its last change. The journal's thread has them.
    full: Mutex<Vec<(PathBuf, Vector)>>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    file: Option<File>,
    bytes: u64,
    last: Vector,
    /// The last change, whether or not it was written.
    before: Option<Csn>,
    record: Vec<u8>,
}

impl Pending {
    /// Goes on after what was read ([`read`]), which stays until the journal has it.
    ///
    /// # Errors
    /// What the system said. Nothing is written to any file then.
    pub fn begin(dir: &Path) -> io::Result<Pending> {
        let old = files(dir)?;
        let number = old.last().map_or(0, |(number, _)| number + 1);
        let full = old.into_iter().map(|(_, path)| {
            let last = records(&path).into_values().map(|kept| kept.change.csn).collect();
            (path, last)
        });
        let full = full.collect();
        let current = Current {
            number,
            file: Some(create(dir, number)?),
            bytes: 0,
            last: Vector::default(),
            before: None,
            record: Vec::new(),
        };
        Ok(Pending { dir: dir.to_owned(), current: Mutex::new(current), full: Mutex::new(full) })
    }

    /// Writes a change of a client that is in the database.
    ///
    /// # Errors
    /// What the system said; nothing more is written before the next file is begun.
    pub fn push(&self, change: &Change, old_parent: Option<EntryUuid>) -> io::Result<()> {
        let mut current = lock(&self.current);
        let before = current.before.replace(change.csn);
        let Current { file: Some(file), bytes, last, record, .. } = &mut *current else { return Ok(()) };
        if change.size() > CHANGE_BYTES_MAX || *bytes >= BYTES_MAX {
            return Ok(());
        }
        encode(change, before, old_parent, record);
        // In one piece: what is torn ends the file.
        let written = file.write_all(record);
        *bytes += record.len() as u64;
        last.advance(change.csn);
        if written.is_err() {
            current.file = None;
        }
        written
    }

    /// Everything up to here is in the journal. Called by the one who writes the journal.
    ///
    /// # Errors
    /// What the system said.
    pub fn trim(&self, head: &Vector) -> io::Result<()> {
        let (number, is_full) = {
            let current = lock(&self.current);
            (current.number, current.bytes >= FILE_BYTES || current.file.is_none())
        };
        let mut full = lock(&self.full);
        for (path, _) in full.extract_if(.., |(_, last)| head.dominates(last)) {
            remove(&path)?;
        }
        if is_full {
            let next = create(&self.dir, number + 1)?;
            let mut current = lock(&self.current);
            let last = std::mem::take(&mut current.last);
            (current.number, current.bytes) = (number + 1, 0);
            let before = current.file.replace(next);
            // Who writes does not wait while the file is closed.
            drop(current);
            drop(before);
            full.push((self.dir.join(name(number)), last));
        }
        Ok(())
    }
}

/// What the files have, in the order of the CSNs. Of files that cannot be read, nothing.
pub fn read(dir: &Path) -> Vec<Kept> {
    let files = files(dir).unwrap_or_default();
    let all: BTreeMap<Packed, Kept> = files.iter().flat_map(|(_, path)| records(path)).collect();
    all.into_values().collect()
}

/// Removes the files.
///
/// # Errors
/// What the system said.
pub fn discard(dir: &Path) -> io::Result<()> {
    files(dir)?.iter().try_for_each(|(_, path)| remove(path))
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

fn create(dir: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(name(number)))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(problem) if problem.kind() != ErrorKind::NotFound => Err(problem),
        _ => Ok(()),
    }
}

/// With their numbers, in that order.
fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let listed = match fs::read_dir(dir) {
        Err(problem) if problem.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut files = Vec::new();
    for file in listed {
        let file = file?;
        let number =
            file.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        files.extend(number.map(|number| (u64::from(number), file.path())));
    }
    files.sort();
    Ok(files)
}

fn encode(change: &Change, before: Option<Csn>, old_parent: Option<EntryUuid>, record: &mut Vec<u8>) {
    record.clear();
    record.extend_from_slice(&[0; HEAD]);
    record.extend_from_slice(&pack(change.csn));
    put_optional(record, before.map(pack).as_ref());
    put_optional(record, old_parent.as_ref().map(EntryUuid::as_bytes));
    codec::encode(BootId::new(0), 0, change, record);
    let length = u32::try_from(record.len() - HEAD).unwrap_or_default();
    let sum = crc32fast::hash(&record[HEAD..]);
    record[..4].copy_from_slice(&length.to_le_bytes());
    record[4..HEAD].copy_from_slice(&sum.to_le_bytes());
}

fn records(path: &Path) -> BTreeMap<Packed, Kept> {
    let bytes = fs::read(path).unwrap_or_default();
    decode_all(&bytes)
}

/// Takes any bytes: what follows something that is no record is not looked at.
fn decode_all(mut bytes: &[u8]) -> BTreeMap<Packed, Kept> {
    let mut found = BTreeMap::new();
    while let Some((kept, rest)) = decode_one(bytes) {
        found.insert(pack(kept.change.csn), kept);
        bytes = rest;
    }
    found
}

fn decode_one(bytes: &[u8]) -> Option<(Kept, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (body, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let is_whole = crc32fast::hash(body) == u32::from_le_bytes(*sum);
    Some((decode(body).ok().filter(|_| is_whole)?, rest))
}

/// What a record's sum is about. Takes any bytes.
///
/// # Errors
/// [`CodecError`] for what no record has.
pub fn decode(body: &[u8]) -> Result<Kept, CodecError> {
    let mut reader = Reader(body);
    let csn = unpack(&reader.array()?)?;
    let before = reader.optional()?.as_ref().map(unpack).transpose()?;
    let old_parent = reader.optional()?.map(EntryUuid::from_bytes);
    let change = codec::decode(csn, reader.0)?.change;
    Ok(Kept { change, old_parent, before })
}

/// A panic elsewhere leaves whole records.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use proptest::prelude::*;
    use xmppsync_replica::Operation;

    fn changes(count: u32) -> Vec<Change> {
        (1..=count).map(|tick| modify(csn(tick.into(), 1))).collect()
    }

    fn csns(kept: &[Kept]) -> Vec<Csn> {
        kept.iter().map(|kept| kept.change.csn).collect()
    }

    #[test]
    fn what_was_written_is_read_after_the_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let pending = Pending::begin(dir.path()).unwrap();
        let changes = changes(3);
        pending.push(&changes[0], None).unwrap();
        pending.push(&changes[2], Some(uuid(9))).unwrap();
        drop(pending);
        // The next process is killed too.
        let pending = Pending::begin(dir.path()).unwrap();
        pending.push(&changes[1], None).unwrap();
        pending.push(&changes[2], Some(uuid(9))).unwrap();
        drop(pending);
        let read = read(dir.path());
        let kept = |at: usize, old_parent, before: Option<usize>| Kept {
            change: changes[at].clone(),
            old_parent,
            before: before.map(|before| changes[before].csn),
        };
        assert_eq!(read, [kept(0, None, None), kept(1, None, None), kept(2, Some(uuid(9)), Some(1))]);
    }

    #[test]
    fn a_torn_end_takes_nothing_else_along() {
        let dir = tempfile::tempdir().unwrap();
        let pending = Pending::begin(dir.path()).unwrap();
        let changes = changes(2);
        changes.iter().for_each(|change| pending.push(change, None).unwrap());
        let path = dir.path().join(name(0));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(csns(&read(dir.path())), [changes[0].csn]);
    }

    #[test]
    fn what_the_journal_has_goes_with_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let pending = Pending::begin(dir.path()).unwrap();
        let changes = changes(2);
        pending.push(&changes[0], None).unwrap();
        drop(pending);
        let pending = Pending::begin(dir.path()).unwrap();
        pending.push(&changes[1], None).unwrap();
        pending.trim(&Vector::default()).unwrap();
        assert_eq!(csns(&read(dir.path())), [changes[0].csn, changes[1].csn]);
        pending.trim(&[changes[0].csn].into_iter().collect()).unwrap();
        assert_eq!(csns(&read(dir.path())), [changes[1].csn]);
        discard(dir.path()).unwrap();
        assert!(read(dir.path()).is_empty() && files(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_full_file_is_followed_by_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let pending = Pending::begin(dir.path()).unwrap();
        let all = changes(60);
        let dn = "x".repeat(FILE_BYTES as usize / 2);
        let large = Change { operation: Operation::Delete { dn }, ..all[0].clone() };
        for csn in all.iter().map(|change| change.csn) {
            pending.push(&Change { csn, ..large.clone() }, None).unwrap();
            // As the journal's thread does after every write.
            pending.trim(&[csn].into_iter().collect()).unwrap();
            assert!(files(dir.path()).unwrap().len() <= 2);
        }
        // Without a journal it is bounded.
        for _ in 0..2 * BYTES_MAX / FILE_BYTES {
            pending.push(&large, None).unwrap();
        }
        let bytes: u64 =
            files(dir.path()).unwrap().iter().map(|(_, path)| fs::metadata(path).unwrap().len()).sum();
        assert!(bytes < BYTES_MAX + 2 * FILE_BYTES, "{bytes}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            decode_all(&bytes);
            let _ = decode(&bytes);
        }
    }
}
