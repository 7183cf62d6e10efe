//! Local changes in the order in which slapd committed them.

use crate::{Change, Csn};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Holds the local changes back until every earlier one is known.
///
/// A write gets its CSN just before its write transaction, and no other one in between; slapd commits, calls the
/// response callbacks of the operation, and only then strikes the CSN off its list of pending ones. So commits are in
/// CSN order, callbacks are not. The caller repeats: [`push`](Self::push) everything that was captured, read slapd's
/// pending CSNs, `push` again what came meanwhile, [`release`](Self::release). Whatever was committed
/// before a change of the first round is then either pushed or pending.
#[derive(Debug, Default)]
pub struct CommitOrder {
    held: BTreeMap<Csn, Arc<Change>>,
    released: Option<Csn>,
}

impl CommitOrder {
    /// Takes a captured change.
    ///
    /// # Errors
    /// Its CSN, when another change had it; the first is kept.
    pub fn push(&mut self, change: impl Into<Arc<Change>>) -> Result<(), Csn> {
        let change = change.into();
        let csn = change.csn;
        if self.released == Some(csn) || self.held.contains_key(&csn) {
            return Err(csn);
        }
        self.held.insert(csn, change);
        Ok(())
    }

    /// The latest change of the first round, which is what [`release`](Self::release) may go up to.
    pub fn latest(&self) -> Option<Csn> {
        self.held.last_key_value().map(|(csn, _)| *csn)
    }

    /// Whether anything is held back.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Gives out, in order, the changes up to `limit` before which nothing is `pending` that is not
    /// known. `limit` is [`latest`](Self::latest) as it was before `pending` was read.
    pub fn release(&mut self, limit: Csn, pending: &[Csn]) -> Vec<Arc<Change>> {
        let unknown =
            |csn: &&Csn| !self.held.contains_key(csn) && self.released.is_none_or(|last| **csn > last);
        let barrier = pending.iter().filter(unknown).min().copied();
        let mut ready = Vec::new();
        while let Some(entry) = self.held.first_entry() {
            let csn = *entry.key();
            if csn > limit || barrier.is_some_and(|barrier| csn > barrier) {
                break;
            }
            self.released = self.released.max(Some(csn));
            ready.push(entry.remove());
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{csn, delete};

    fn seconds(changes: &[Arc<Change>]) -> Vec<Csn> {
        changes.iter().map(|change| change.csn).collect()
    }

    #[test]
    fn a_change_waits_for_an_earlier_one_that_is_still_pending() {
        let mut order = CommitOrder::default();
        order.push(delete(csn(2, 1))).unwrap();
        assert!(order.release(csn(2, 1), &[csn(1, 1), csn(2, 1)]).is_empty());
        order.push(delete(csn(1, 1))).unwrap();
        let ready = order.release(csn(2, 1), &[csn(1, 1), csn(2, 1)]);
        assert_eq!(seconds(&ready), [csn(1, 1), csn(2, 1)]);
    }

    #[test]
    fn a_failed_operation_holds_back_only_until_its_csn_is_struck_off() {
        let mut order = CommitOrder::default();
        order.push(delete(csn(2, 1))).unwrap();
        assert!(order.release(csn(2, 1), &[csn(1, 1)]).is_empty());
        assert_eq!(seconds(&order.release(csn(2, 1), &[])), [csn(2, 1)]);
    }

    #[test]
    fn what_was_released_but_is_not_yet_struck_off_holds_nothing_back() {
        let mut order = CommitOrder::default();
        order.push(delete(csn(1, 1))).unwrap();
        order.release(csn(1, 1), &[csn(1, 1)]);
        order.push(delete(csn(2, 1))).unwrap();
        assert_eq!(seconds(&order.release(csn(2, 1), &[csn(1, 1), csn(2, 1)])), [csn(2, 1)]);
    }

    #[test]
    fn a_change_that_came_after_the_pending_ones_were_read_waits_for_the_next_round() {
        let mut order = CommitOrder::default();
        order.push(delete(csn(1, 1))).unwrap();
        let limit = order.latest().unwrap();
        order.push(delete(csn(3, 1))).unwrap();
        assert_eq!(seconds(&order.release(limit, &[])), [csn(1, 1)]);
        assert!(!order.is_empty());
    }
}
