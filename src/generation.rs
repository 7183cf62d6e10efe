//! Which state of its file a database is: read from the file itself, so that it holds whoever wrote it.
//!
//! LMDB has two meta pages at the beginning of `data.mdb`, written in turns; each transaction that wrote something raises
//! the number in one of them (mdb.c, `MDB_meta`).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;
use xmppsync_node::Generation;

/// Before the meta data of a page (`MDB_page` up to `mp_ptrs`).
const PAGE_HEADER: usize = 16;
const MAGIC: u32 = 0xBEEF_C0DE;
/// `mm_magic`, `mm_version`, `mm_address`, `mm_mapsize`; then `mm_dbs[0].md_pad`, the size of a page.
const PAGE_SIZE_AT: usize = PAGE_HEADER + 24;
/// Behind two `MDB_db` of 48 bytes and `mm_last_pg`.
const TRANSACTION_AT: usize = PAGE_HEADER + 24 + 2 * 48 + 8;
const META_BYTES: usize = TRANSACTION_AT + 8;
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 256..=65_536;

/// The state of the LMDB database in the directory; `None` when there is none that can be read.
pub(crate) fn generation(directory: &Path) -> Option<Generation> {
    let mut file = File::open(directory.join("data.mdb")).ok()?;
    let mut first = [0; META_BYTES];
    file.read_exact(&mut first).ok()?;
    let page = number(&first, PAGE_SIZE_AT).filter(|bytes| PAGE_BYTES.contains(bytes))?;
    let mut second = [0; META_BYTES];
    file.read_exact_at(&mut second, u64::from(page)).ok()?;
    let transaction = transaction(&first)?.max(transaction(&second)?);
    Some(Generation { file: identity(&file)?, transaction })
}

/// A file system soon gives the number of a removed file to another one, so the time of its birth belongs to it, where the
/// file system knows that.
fn identity(file: &File) -> Option<u64> {
    let metadata = file.metadata().ok()?;
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let born = born.map_or(0, |born| born.as_nanos() as u64);
    Some(metadata.ino().rotate_left(32) ^ born)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn transaction(meta: &[u8]) -> Option<u64> {
    number(meta, PAGE_HEADER).filter(|magic| *magic == MAGIC)?;
    Some(u64::from_ne_bytes(meta.get(TRANSACTION_AT..TRANSACTION_AT + 8)?.try_into().ok()?))
}
