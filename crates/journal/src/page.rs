//! What somebody lacks.

use crate::codec::{self, Stored};
use crate::error::{Fault, JournalError};
use crate::journal::Journal;
use crate::key::{ChangeKey, change_key, first_key, key_csn};
use crate::state::State;
use crate::store::CHANGES;
use redb::ReadOnlyTable;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Bound;
use xmppsync_replica::{Batch, Csn, ServerId, Vector};

/// Changes in the order in which to apply them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The changes of all origins by CSN. A run ends where another origin's change comes between, or where the
    /// sequence numbers do not go on.
    pub runs: Vec<Run>,
    /// Whether asking again, with what these bring, gives more.
    pub more: bool,
    /// The floors of the origins of which the asker is below the floor. Nothing of them is in `runs`.
    pub beyond: Vec<Csn>,
}

/// Changes of one origin that follow each other in one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The changes; never empty.
    pub batch: Batch,
    /// The CSN before the first one's in this origin: nothing of it lies between. None: it is the origin's very first.
    pub prev: Option<Csn>,
}

type Entries<'a> = redb::Range<'a, &'static ChangeKey, &'static [u8]>;

/// The changes of one origin, from what the asker has up to the head.
struct Cursor<'a> {
    server: ServerId,
    range: Entries<'a>,
    prev: Option<Csn>,
    next: Option<Stored>,
}

impl Journal {
    /// What somebody at `after` lacks, up to the [`head`](Self::head), as far as `bytes_max` bytes of content
    /// ([`xmppsync_replica::Change::size`]) go, but at least one change. It costs what the page holds and one look-up per
    /// origin.
    ///
    /// Changes beyond an origin's head are not given: there is a hole before them.
    ///
    /// # Errors
    /// See [`Journal`].
    pub fn changes(&self, after: &Vector, bytes_max: usize) -> Result<Page, JournalError> {
        self.read(|transaction| {
            let table = transaction.open_table(CHANGES)?;
            let mut page = Page::default();
            let mut cursors = cursors(&table, &self.state, after, &mut page.beyond)?;
            fill(&mut page, &mut cursors, bytes_max)?;
            Ok(page)
        })
    }
}

fn cursors<'a>(
    table: &'a ReadOnlyTable<&'static ChangeKey, &'static [u8]>,
    state: &State,
    after: &Vector,
    beyond: &mut Vec<Csn>,
) -> Result<Vec<Cursor<'a>>, Fault> {
    let known = state.head.iter().chain(state.floor.iter());
    let servers: BTreeSet<ServerId> = known.map(|csn| csn.server_id()).collect();
    let mut cursors = Vec::new();
    for server in servers {
        let prev = after.get(server);
        if let Some(floor) = state.floor.get(server).filter(|floor| prev < Some(*floor)) {
            beyond.push(floor);
            continue;
        }
        let Some(head) = state.head.get(server).filter(|head| prev < Some(*head)) else { continue };
        let (from, to) = (prev.map(change_key), change_key(head));
        let start = first_key(server);
        let from = from.as_ref().map_or(Bound::Included(&start), Bound::Excluded);
        let range = table.range::<&ChangeKey>((from, Bound::Included(&to)))?;
        let mut cursor = Cursor { server, range, prev, next: None };
        cursor.advance()?;
        cursors.push(cursor);
    }
    Ok(cursors)
}

fn fill(page: &mut Page, cursors: &mut [Cursor<'_>], bytes_max: usize) -> Result<(), Fault> {
    let waiting = cursors.iter().enumerate().filter_map(|(index, cursor)| Some((cursor.csn()?, index)));
    let mut waiting: BinaryHeap<Reverse<(Csn, usize)>> = waiting.map(Reverse).collect();
    let mut bytes: usize = 0;
    while let Some(Reverse((csn, index))) = waiting.pop() {
        let cursor = &mut cursors[index];
        let Some(stored) = cursor.next.take() else { continue };
        bytes = bytes.saturating_add(stored.change.size());
        if bytes > bytes_max && !page.runs.is_empty() {
            page.more = true;
            return Ok(());
        }
        page.push(cursor.server, cursor.prev.replace(csn), stored);
        cursor.advance()?;
        waiting.extend(cursor.csn().map(|csn| Reverse((csn, index))));
    }
    Ok(())
}

impl Cursor<'_> {
    fn advance(&mut self) -> Result<(), Fault> {
        self.next = match self.range.next() {
            Some(item) => {
                let (key, value) = item?;
                Some(codec::decode(key_csn(key.value())?, value.value())?)
            }
            None => None,
        };
        Ok(())
    }

    fn csn(&self) -> Option<Csn> {
        self.next.as_ref().map(|stored| stored.change.csn)
    }
}

impl Page {
    fn push(&mut self, origin: ServerId, prev: Option<Csn>, stored: Stored) {
        let Stored { boot, seq, change } = stored;
        match self.runs.last_mut().map(|run| &mut run.batch) {
            Some(batch)
                if (batch.origin, batch.boot) == (origin, boot)
                    && batch.last().checked_add(1) == Some(seq) =>
            {
                batch.changes.push(change);
            }
            _ => {
                let batch = Batch { origin, boot, first: seq, prev, changes: vec![change] };
                self.runs.push(Run { batch, prev });
            }
        }
    }
}
