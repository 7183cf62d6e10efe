//! How far the journal reaches: what is small, written with almost every commit, and kept in memory too.

use crate::codec::CodecError;
use crate::error::Fault;
use crate::key::{Packed, pack, unpack};
use redb::{ReadableTable, Table};
use std::collections::BTreeSet;
use xmppsync_replica::{Csn, Span, Unseen, Vector};

/// The version of the tables. A file of another one is foreign.
pub(crate) const FORMAT: u64 = 2;

/// Keys of the table: what, and of which server.
pub(crate) type StateKey = (u8, u16);
pub(crate) const KEY_FORMAT: StateKey = (0, 0);
pub(crate) const KEY_SUFFIX: StateKey = (0, 1);
/// There from a clean close to the next opening.
pub(crate) const KEY_CLEAN: StateKey = (0, 2);
/// There while an initial load is unfinished.
pub(crate) const KEY_LOADING: StateKey = (0, 3);
/// Which state of the database the journal has seen.
pub(crate) const KEY_GENERATION: StateKey = (0, 6);
/// There while it is not mended that the database was put back.
pub(crate) const KEY_PUT_BACK: StateKey = (0, 7);
/// There while the inventory is being taken from a database that is in use.
pub(crate) const KEY_INCOMPLETE: StateKey = (0, 8);
/// Bytes of all changes with their keys.
pub(crate) const KEY_BYTES: StateKey = (0, 4);
/// When something unseen was noted last, in seconds since 1970.
pub(crate) const KEY_UNSEEN_AT: StateKey = (0, 5);
const HEAD: u8 = 1;
const FLOOR: u8 = 2;
/// The spans of what was not seen.
const UNSEEN: u8 = 3;

pub(crate) type StateTable<'txn> = Table<'txn, StateKey, &'static [u8]>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    /// Everything up to here is known.
    pub(crate) head: Vector,
    /// The changes up to here are not in the journal.
    pub(crate) floor: Vector,
    /// What the database's vector covers and was not seen.
    pub(crate) unseen: Unseen,
    pub(crate) bytes: u64,
    pub(crate) unseen_at: u64,
}

impl State {
    pub(crate) fn load(table: &impl ReadableTable<StateKey, &'static [u8]>) -> Result<State, Fault> {
        let mut state = State::default();
        for item in table.iter()? {
            let (key, value) = item?;
            let value = value.value();
            match key.value() {
                KEY_BYTES => state.bytes = number(value)?,
                KEY_UNSEEN_AT => state.unseen_at = number(value)?,
                (HEAD, _) => state.head.advance(csn(value)?),
                (FLOOR, _) => state.floor.advance(csn(value)?),
                (UNSEEN, _) => spans(value)?.into_iter().for_each(|span| state.unseen.add(span)),
                _ => {}
            }
        }
        Ok(state)
    }

    /// Writes what differs from `before`.
    pub(crate) fn store(&self, before: &State, table: &mut StateTable<'_>) -> Result<(), Fault> {
        for (what, now, before) in [(HEAD, &self.head, &before.head), (FLOOR, &self.floor, &before.floor)] {
            for csn in now.iter().filter(|csn| before.get(csn.server_id()) != Some(*csn)) {
                table.insert((what, csn.server_id().get()), pack(csn).as_slice())?;
            }
        }
        let servers = self.unseen.iter().chain(before.unseen.iter()).map(|span| span.until().server_id());
        for server in servers.collect::<BTreeSet<_>>() {
            let (spans, key) = (self.unseen.of(server).collect::<Vec<_>>(), (UNSEEN, server.get()));
            if spans.is_empty() {
                table.remove(key)?;
            } else if !before.unseen.of(server).eq(spans.iter().copied()) {
                table.insert(key, packed(&spans).as_slice())?;
            }
        }
        if self.bytes != before.bytes {
            put_number(table, KEY_BYTES, self.bytes)?;
        }
        if self.unseen_at != before.unseen_at {
            put_number(table, KEY_UNSEEN_AT, self.unseen_at)?;
        }
        Ok(())
    }

    /// Whether a change may be, or may come, into the journal.
    pub(crate) fn is_above_floor(&self, csn: Csn) -> bool {
        !self.floor.covers(csn)
    }
}

pub(crate) fn put_number(table: &mut StateTable<'_>, key: StateKey, number: u64) -> Result<(), Fault> {
    table.insert(key, number.to_le_bytes().as_slice())?;
    Ok(())
}

pub(crate) fn number(value: &[u8]) -> Result<u64, CodecError> {
    value.try_into().map(u64::from_le_bytes).map_err(|_| CodecError::Short)
}

fn csn(value: &[u8]) -> Result<Csn, CodecError> {
    let packed: &Packed = value.try_into().map_err(|_| CodecError::Csn)?;
    unpack(packed)
}

/// Each as its last CSN and the one that it begins after; then, as its last one alone, that from the beginning.
fn packed(spans: &[Span]) -> Vec<u8> {
    let (parts, whole): (Vec<Span>, Vec<Span>) = spans.iter().partition(|span| span.after().is_some());
    let csns = parts.iter().chain(&whole).flat_map(|span| [Some(span.until()), span.after()]);
    csns.flatten().flat_map(pack).collect()
}

fn spans(value: &[u8]) -> Result<Vec<Span>, CodecError> {
    let span = |csns: &[u8]| {
        let (until, after) = csns.split_first_chunk().ok_or(CodecError::Short)?;
        let after = if after.is_empty() { None } else { Some(csn(after)?) };
        Span::new(after, unpack(until)?).ok_or(CodecError::Csn)
    };
    value.chunks(2 * size_of::<Packed>()).map(span).collect()
}
