//! What nobody remembers: a journal was deleted before others had heard what was in it.
//!
//! The database has what its clients wrote, but not how it came about. So where several servers had changed one entry meanwhile, one of the
//! states is taken whole, and that another server's entry was deleted is not known (docs/ARCHITECTURE.md, "Not covered").
//! What only the clients of one server wrote to is kept all the same.

use std::collections::BTreeSet;

use crate::history::{Event, Operation, What};

const JOURNAL: &str = "JournalDeleted";
/// What the history says when all copies were found equal and right.
pub(crate) const SETTLED: &str = "all are equal";

/// Until when, in milliseconds, changes that met may be lost; 0 where all that was in a deleted journal had been heard.
///
/// What follows the fault is not safe before all are equal: an entry may still be replaced by another server's state.
fn until(events: &[Event]) -> u64 {
    let (mut active, mut until, mut is_unheard) = (Vec::<&str>::new(), 0, false);
    for event in events {
        let What::Nemesis { text } = &event.what else { continue };
        if text == SETTLED {
            until = if is_unheard { event.milliseconds } else { until };
            is_unheard = false;
            continue;
        }
        let Some((fault, rest)) = text.split_once(' ') else { continue };
        if rest.starts_with("begins") {
            active.push(fault);
            is_unheard |= active.len() > 1 && active.contains(&JOURNAL);
        } else if let Some(place) = active.iter().position(|other| *other == fault) {
            active.remove(place);
        }
    }
    if is_unheard { u64::MAX } else { until }
}

/// What met until then may be there or not.
pub(super) fn excused(events: &[Event]) -> Vec<Event> {
    let until = until(events);
    let meeting: BTreeSet<u64> =
        events.iter().filter(|event| meets(event)).map(|event| event.number).collect();
    let mut excused = events.to_vec();
    for event in &mut excused {
        let is_early = event.milliseconds < until && meeting.contains(&event.number);
        if is_early && matches!(event.what, What::Ok { .. }) {
            event.what = What::Unknown { error: "in a journal that was deleted".to_owned() };
        }
    }
    excused
}

/// Whether it begins what clients of several servers do to one entry.
fn meets(event: &Event) -> bool {
    use Operation::{DeleteName, Insert, Name, Raise, Remove, Write};
    let What::Invoke { operation } = &event.what else { return false };
    matches!(
        operation,
        DeleteName { .. } | Write { .. } | Insert { .. } | Remove { .. } | Raise { .. } | Name { .. }
    )
}
