//! What nobody remembers: a journal was deleted before others had heard what was in it.
//!
//! The database has what its clients wrote, but not how it came about. So where several servers had changed one entry meanwhile, one of the
//! states is taken whole, and that another server's entry was deleted is not known (docs/ARCHITECTURE.md, "Not covered").
//! What only the clients of one server wrote to is kept all the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, Operation, What};

const JOURNAL: &str = "JournalDeleted";

/// Until when, in milliseconds, changes that met may be lost; 0 where all that was in a deleted journal had been heard.
fn until(events: &[Event]) -> u64 {
    let (mut active, mut until) = (Vec::<&str>::new(), 0);
    let (mut is_unheard, mut is_starting) = (false, false);
    for event in events {
        let What::Nemesis { text } = &event.what else { continue };
        // The end is told before the server is there again; what follows comes after that.
        if std::mem::take(&mut is_starting) {
            until = event.milliseconds;
        }
        let Some((fault, rest)) = text.split_once(' ') else { continue };
        if rest.starts_with("begins") {
            active.push(fault);
            is_unheard |= active.len() > 1 && active.contains(&JOURNAL);
        } else if let Some(place) = active.iter().position(|other| *other == fault) {
            active.remove(place);
            is_starting = fault == JOURNAL && is_unheard;
            is_unheard &= fault != JOURNAL;
        }
    }
    if is_unheard || is_starting { u64::MAX } else { until }
}

/// What met until then may be there or not.
pub(super) fn excused(events: &[Event]) -> Vec<Event> {
    use Operation::{DeleteName, Insert, Name, Raise, Remove, Write};
    let until = until(events);
    let invoked: BTreeMap<u64, &Operation> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::Invoke { operation } => Some((event.number, operation)),
            _ => None,
        })
        .collect();
    let meets = |operation: &&&Operation| {
        matches!(
            operation,
            DeleteName { .. } | Write { .. } | Insert { .. } | Remove { .. } | Raise { .. } | Name { .. }
        )
    };
    let meeting: BTreeSet<u64> =
        invoked.iter().filter(|(_, operation)| meets(operation)).map(|(number, _)| *number).collect();
    let excuse = |event: &Event| {
        let is_one = matches!(event.what, What::Ok { .. }) && event.milliseconds < until;
        let what = match is_one && meeting.contains(&event.number) {
            true => What::Unknown { error: "in a journal that was deleted".to_owned() },
            false => event.what.clone(),
        };
        Event { what, ..event.clone() }
    };
    events.iter().map(excuse).collect()
}
