//! What was lost to the state that a killed server sent.
//!
//! slapd may be killed between the commit of a client's write and the journal. It then sends the entry as a whole, which takes
//! all earlier changes of others that it had not seen (docs/ARCHITECTURE.md, "One result whatever the order": a state and
//! changes). Each server that notices says so in its log, with both CSNs; nothing else excuses a loss.

use std::collections::BTreeSet;

use super::fold::Told;
use crate::history::{Event, What};

/// A line of a log: the CSN of what was lost, and of what it was lost to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) csn: String,
    pub(crate) against: String,
}

/// All that a log tells of.
pub(crate) fn losses(log: &str) -> Vec<Loss> {
    let lines = log.lines().filter(|line| line.contains("conflict:"));
    let csns = |line: &str| -> Vec<String> {
        let parts = line.split("(CSN ").skip(1);
        parts.filter_map(|rest| rest.split([',', ')']).next()).map(str::to_owned).collect()
    };
    lines
        .filter_map(|line| match csns(line).as_slice() {
            [csn, against] => Some(Loss { csn: csn.clone(), against: against.clone() }),
            _ => None,
        })
        .collect()
}

/// What was acknowledged and lost to a server that was killed may be there or not.
pub(super) fn excuse(told: &mut [Told], events: &[Event], losses: &[Loss]) {
    let killed: BTreeSet<String> = events.iter().filter_map(killed).collect();
    let is_of_killed = |loss: &&Loss| killed.iter().any(|id| loss.against.contains(id.as_str()));
    let excused: BTreeSet<&str> = losses.iter().filter(is_of_killed).map(|loss| loss.csn.as_str()).collect();
    for told in told {
        if let What::Ok { csn: Some(csn), .. } = &told.outcome
            && excused.contains(csn.as_str())
        {
            told.outcome = What::Unknown { error: "lost to the state of a killed server".to_owned() };
        }
    }
}

/// The serverID of a server that was killed, as it stands in a CSN.
fn killed(event: &Event) -> Option<String> {
    let What::Nemesis { text } = &event.what else { return None };
    let victim = text.strip_prefix("SlapdKilled begins, victim ")?;
    Some(format!("#{:03x}#", victim.parse::<u16>().ok()? + 1))
}
