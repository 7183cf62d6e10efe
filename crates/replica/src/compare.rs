//! Which entries two replicas do not have alike, found by exchanging fingerprints of ranges of their sets.
//!
//! The cost grows with the number of differences and hardly with the number of entries: range-based set reconciliation
//! (the crate `negentropy`). One side begins and learns the differences; the other only answers, and keeps no state but
//! its set.

use crate::{Csn, EntryUuid, Fingerprint};
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use thiserror::Error;

/// Bytes of a frame at most, so that it fits into a stanza as base64.
pub const FRAME_BYTES_MAX: usize = 80_000;

/// Bytes of one entry in a set, about.
pub const SET_ENTRY_BYTES: usize = 40;

/// Frames after which a comparison is given up: more than any that makes progress.
const ROUNDS_MAX: u32 = 20_000;

/// Why a comparison fails.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CompareError {
    /// The other side sent something that is no frame.
    #[error("the frame cannot be read: {0}")]
    Frame(String),
    /// It does not come to an end.
    #[error("the comparison does not end")]
    Endless,
}

impl From<negentropy::Error> for CompareError {
    fn from(error: negentropy::Error) -> CompareError {
        CompareError::Frame(error.to_string())
    }
}

/// The entries of a database at one moment, ready to be compared.
#[derive(Debug)]
pub struct EntrySet(NegentropyStorageVector);

impl EntrySet {
    /// # Errors
    /// Never for a set in which no entryUUID is twice.
    pub fn new(
        entries: impl IntoIterator<Item = (EntryUuid, Csn, Fingerprint)>,
    ) -> Result<EntrySet, CompareError> {
        let mut storage = NegentropyStorageVector::new();
        for (uuid, csn, print) in entries {
            storage.insert(csn.date_number(), id(uuid, csn, print))?;
        }
        storage.seal()?;
        Ok(EntrySet(storage))
    }

    /// What the other side says to a frame.
    ///
    /// # Errors
    /// [`CompareError::Frame`] for anything that is no frame.
    pub fn answer(&self, frame: &[u8]) -> Result<Vec<u8>, CompareError> {
        Ok(Negentropy::borrowed(&self.0, FRAME_BYTES_MAX as u64)?.reconcile(frame)?)
    }
}

/// The identity of an entry in one state. The uuid stands in the clear, so that what differs can be asked for; behind
/// it a hash, because the fingerprint of a range is a sum.
fn id(uuid: EntryUuid, csn: Csn, print: Fingerprint) -> Id {
    let hash = Sha256::new().chain_update(uuid.as_bytes()).chain_update(csn.as_str());
    let hash = hash.chain_update(print.as_bytes()).finalize();
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(uuid.as_bytes());
    bytes[16..].copy_from_slice(&hash[..16]);
    Id::from_byte_array(bytes)
}

fn uuids(ids: &[Id]) -> impl Iterator<Item = EntryUuid> + '_ {
    ids.iter().map(|id| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&id[..16]);
        EntryUuid::from_bytes(bytes)
    })
}

/// What differs. An entry that both have in different states is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Entries in a state that the other side does not have.
    pub here: BTreeSet<EntryUuid>,
    /// Entries in a state that only the other side has.
    pub there: BTreeSet<EntryUuid>,
}

/// What to do after a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this frame, and give the answer to [`Comparison::step`].
    Ask(Vec<u8>),
    /// This is all that differs.
    Done(Differences),
}

/// The side that begins.
#[derive(Debug)]
pub struct Comparison {
    negentropy: Negentropy<'static, NegentropyStorageVector>,
    differences: Differences,
    rounds: u32,
}

impl Comparison {
    /// Gives the first frame.
    ///
    /// # Errors
    /// As [`EntrySet::new`].
    pub fn begin(set: EntrySet) -> Result<(Comparison, Vec<u8>), CompareError> {
        let mut negentropy = Negentropy::owned(set.0, FRAME_BYTES_MAX as u64)?;
        let frame = negentropy.initiate()?;
        Ok((Comparison { negentropy, differences: Differences::default(), rounds: 0 }, frame))
    }

    /// Takes the other side's answer.
    ///
    /// # Errors
    /// [`CompareError`] for an answer that cannot be read, or too many of them.
    pub fn step(&mut self, answer: &[u8]) -> Result<Step, CompareError> {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Err(CompareError::Endless);
        }
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let next = self.negentropy.reconcile_with_ids(answer, &mut here, &mut there)?;
        self.differences.here.extend(uuids(&here));
        self.differences.there.extend(uuids(&there));
        Ok(match next {
            Some(frame) => Step::Ask(frame),
            None => Step::Done(std::mem::take(&mut self.differences)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Entries = BTreeMap<u32, u32>;

    /// Two states each have one CSN.
    fn entry(number: u32, state: u32) -> (EntryUuid, Csn, Fingerprint) {
        // Spread, as random uuids are.
        let uuid = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let print = Fingerprint::from_bytes([(state % 2) as u8; Fingerprint::BYTES]);
        let (second, micros) = (state / 2 % 60, state / 120);
        let csn = format!("202611222359{second:02}.{micros:06}Z#{:06x}#001#000000", number & 0xff_ffff);
        (EntryUuid::from_bytes(uuid.to_be_bytes()), csn.parse().unwrap(), print)
    }

    fn set(entries: &Entries) -> EntrySet {
        EntrySet::new(entries.iter().map(|(number, state)| entry(*number, *state))).unwrap()
    }

    /// What was found, and how many frames and bytes that took.
    fn compare(here: &Entries, there: &Entries) -> (Differences, u32, usize) {
        let other = set(there);
        let (mut comparison, mut frame) = Comparison::begin(set(here)).unwrap();
        let mut bytes = 0;
        loop {
            let answer = other.answer(&frame).unwrap();
            assert!(frame.len() <= FRAME_BYTES_MAX && answer.len() <= FRAME_BYTES_MAX);
            bytes += frame.len() + answer.len();
            match comparison.step(&answer).unwrap() {
                Step::Ask(next) => frame = next,
                Step::Done(differences) => return (differences, comparison.rounds, bytes),
            }
        }
    }

    fn expected(here: &Entries, there: &Entries) -> Differences {
        let only = |one: &Entries, other: &Entries| {
            let differ = one.iter().filter(|(number, state)| other.get(number) != Some(state));
            differ.map(|(number, state)| entry(*number, *state).0).collect()
        };
        Differences { here: only(here, there), there: only(there, here) }
    }

    proptest! {
        #[test]
        fn exactly_what_differs_is_found(
            common in prop::collection::btree_map(0_u32..500, 0_u32..100, 0..300),
            here in prop::collection::btree_map(0_u32..500, 0_u32..100, 0..30),
            there in prop::collection::btree_map(0_u32..500, 0_u32..100, 0..30),
        ) {
            let (mut a, mut b) = (common.clone(), common);
            a.extend(here);
            b.extend(there);
            prop_assert_eq!(compare(&a, &b).0, expected(&a, &b));
        }

        #[test]
        fn bytes_that_are_no_frame_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let entries = (0..50).map(|number| (number, 1)).collect();
            let _ = set(&entries).answer(&bytes);
            let (mut comparison, _) = Comparison::begin(set(&entries)).unwrap();
            let _ = comparison.step(&bytes);
        }
    }

    #[test]
    fn a_hundred_differences_among_many_entries_cost_little() {
        let here: Entries = (0..20_000).map(|number| (number, 1)).collect();
        let mut there = here.clone();
        there.extend((0..100).map(|number| (number * 200, 2)));
        let (differences, rounds, bytes) = compare(&here, &there);
        assert_eq!(differences, expected(&here, &there));
        assert!(rounds < 10 && bytes < 250_000, "{rounds} rounds, {bytes} bytes");
        assert_eq!(compare(&here, &here).1, 1);
    }
}
