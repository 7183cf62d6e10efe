//! What slapd notes in an entry whenever somebody binds.

use crate::merge::is_stamp;
use crate::{Change, Csn, EntryUuid, Operation};
use ldap3_proto::proto::{LdapModify, LdapModifyType};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Times of the last bind, by slapd's `lastbind` and the overlay of that name; they are replaced.
const LAST: [&str; 2] = ["pwdLastSuccess", "authTimestamp"];
/// Times of failed binds, by ppolicy, which adds and deletes single values.
const FAILURES: &str = "pwdFailureTime";
/// That too many failed. It is not held back.
const LOCKED: &str = "pwdAccountLockedTime";
/// Entries of which it is remembered when another server changed them.
const FOREIGN_MAX: usize = 10_000;

/// Holds back such updates for a moment, and makes one change of all updates of an entry.
///
/// It is fed the changes of this server in commit order and gives them out in that order: any other change takes what is held
/// along, and is not held back itself. What is made of several updates has the CSN of the last one and does what they did one
/// after the other, so no change of another server may have come in between. The first update after a pause goes at once.
#[derive(Debug)]
pub struct Bookkeeping {
    pause: Duration,
    bytes_max: usize,
    held: BTreeMap<Csn, Arc<Change>>,
    entries: HashMap<EntryUuid, Csn>,
    /// The latest changes of others.
    foreign: HashMap<EntryUuid, Csn>,
    /// Updates that became part of a later one, and that.
    absorbed: Vec<(Csn, Arc<Change>)>,
    bytes: usize,
    /// When updates went out last.
    last: Option<Instant>,
}

impl Bookkeeping {
    /// Updates go out once in a `pause`, or when there are `bytes_max` of them.
    pub fn new(pause: Duration, bytes_max: usize) -> Bookkeeping {
        Bookkeeping {
            pause,
            bytes_max,
            held: BTreeMap::new(),
            entries: HashMap::new(),
            foreign: HashMap::new(),
            absorbed: Vec::new(),
            bytes: 0,
            last: None,
        }
    }

    /// Takes the next changes, and returns what is to be sent now.
    pub fn pass(&mut self, changes: Vec<Arc<Change>>, now: Instant) -> Vec<Arc<Change>> {
        let mut ready = Vec::new();
        for change in changes {
            if is_bookkeeping(&change) {
                self.hold(change);
                if self.bytes > self.bytes_max {
                    ready.extend(self.give_up(now));
                }
            } else {
                ready.extend(self.give_up(now));
                ready.push(change);
            }
        }
        if self.poll_timeout().is_some_and(|due| now >= due) || self.last.is_none() {
            ready.extend(self.give_up(now));
        }
        ready
    }

    /// When [`pass`](Self::pass) is to be called again although nothing has come.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.last.filter(|_| !self.held.is_empty()).map(|last| last + self.pause)
    }

    /// Everything that is held.
    pub fn give_up(&mut self, now: Instant) -> impl Iterator<Item = Arc<Change>> + use<> {
        if !self.held.is_empty() {
            self.last = Some(now);
        }
        self.entries.clear();
        self.bytes = 0;
        std::mem::take(&mut self.held).into_values()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Another server has changed the entry: what was noted before stays apart from what is noted after. Returns whether something
    /// is held of the entry.
    pub fn handle_foreign(&mut self, uuid: EntryUuid, csn: Csn) -> bool {
        if self.foreign.len() == FOREIGN_MAX {
            // None of what is held can be told apart from what comes any more; so nothing is to be.
            self.foreign.clear();
            self.entries.clear();
        }
        let latest = self.foreign.entry(uuid).or_insert(csn);
        *latest = csn.max(*latest);
        self.entries.contains_key(&uuid)
    }

    /// Updates that are part of a later one since this was asked last, with that one.
    pub fn take_absorbed(&mut self) -> Vec<(Csn, Arc<Change>)> {
        std::mem::take(&mut self.absorbed)
    }

    fn hold(&mut self, change: Arc<Change>) {
        let before = self.entries.insert(change.uuid, change.csn);
        let foreign = self.foreign.get(&change.uuid).copied();
        let change =
            match before.filter(|before| foreign < Some(*before)).and_then(|csn| self.held.remove(&csn)) {
                Some(before) => {
                    self.bytes -= before.size();
                    let (csn, both) = (before.csn, Arc::new(both(Arc::unwrap_or_clone(before), &change)));
                    self.absorbed.push((csn, Arc::clone(&both)));
                    both
                }
                None => change,
            };
        self.bytes += change.size();
        self.held.insert(change.csn, change);
    }
}

/// Whether slapd notes in this attribute what became of binds.
pub(crate) fn is_of_binds(name: &str) -> bool {
    LAST.iter().chain([&FAILURES, &LOCKED]).any(|noted| noted.eq_ignore_ascii_case(name))
}

/// Not that an account is locked, and not what takes all failures away: some may have been added elsewhere meanwhile.
fn is_bookkeeping(change: &Change) -> bool {
    let is_it = |modify: &LdapModify| {
        let (name, values) = (&modify.modification.atype, &modify.modification.vals);
        match modify.operation {
            LdapModifyType::Replace => LAST.iter().any(|last| last.eq_ignore_ascii_case(name)),
            LdapModifyType::Add | LdapModifyType::Delete => {
                FAILURES.eq_ignore_ascii_case(name) && !values.is_empty()
            }
            LdapModifyType::Increment => false,
        }
    };
    let Operation::Modify(request) = &change.operation else { return false };
    let mut others = request.changes.iter().filter(|modify| !is_stamp(&modify.modification.atype)).peekable();
    others.peek().is_some() && others.all(is_it)
}

/// The two modifies of one entry as one.
fn both(earlier: Change, later: &Change) -> Change {
    let mut both = later.clone();
    if let (Operation::Modify(before), Operation::Modify(request)) = (earlier.operation, &mut both.operation)
    {
        let mut changes = before.changes;
        changes.retain(|modify| {
            !request.changes.iter().any(|later| {
                later.operation == LdapModifyType::Replace
                    && later.modification.atype.eq_ignore_ascii_case(&modify.modification.atype)
            })
        });
        changes.append(&mut request.changes);
        request.changes = changes;
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{csn, delete, uuid};
    use ldap3_proto::proto::{LdapModifyRequest, LdapPartialAttribute};

    const PAUSE: Duration = Duration::from_secs(1);

    fn step(operation: LdapModifyType, name: &str, values: &[&str]) -> LdapModify {
        let vals = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        LdapModify { operation, modification: LdapPartialAttribute { atype: name.to_owned(), vals } }
    }

    fn modify(second: u64, entry: u8, mut changes: Vec<LdapModify>) -> Arc<Change> {
        changes.push(step(LdapModifyType::Replace, "entryCSN", &[&second.to_string()]));
        let request = LdapModifyRequest { dn: "cn=x,dc=example".to_owned(), changes };
        Arc::new(Change {
            csn: csn(second, 1),
            uuid: uuid(entry),
            parent: None,
            operation: Operation::Modify(request),
        })
    }

    fn bind(second: u64, entry: u8) -> Arc<Change> {
        modify(second, entry, vec![step(LdapModifyType::Replace, "authTimestamp", &[&second.to_string()])])
    }

    fn failure(second: u64) -> Arc<Change> {
        modify(second, 1, vec![step(LdapModifyType::Add, "pwdFailureTime", &[&second.to_string()])])
    }

    fn csns(changes: &[Arc<Change>]) -> Vec<Csn> {
        changes.iter().map(|change| change.csn).collect()
    }

    fn empty() -> (Instant, Bookkeeping) {
        (Instant::now(), Bookkeeping::new(PAUSE, 64 * 1024))
    }

    #[test]
    fn the_first_update_goes_at_once_and_later_ones_of_an_entry_become_one() {
        let (now, mut bookkeeping) = empty();
        assert_eq!(csns(&bookkeeping.pass(vec![bind(1, 1)], now)), [csn(1, 1)]);
        assert!(bookkeeping.pass(vec![bind(2, 1), bind(3, 2)], now).is_empty());
        assert!(bookkeeping.pass(vec![bind(4, 1), bind(5, 1)], now).is_empty());
        let due = bookkeeping.poll_timeout().unwrap();
        assert_eq!(due, now + PAUSE);
        let ready = bookkeeping.pass(Vec::new(), due);
        assert_eq!(ready, [bind(3, 2), bind(5, 1)]);
        assert!(bookkeeping.is_empty() && bookkeeping.poll_timeout().is_none());
    }

    #[test]
    fn another_change_is_not_held_back_and_takes_along_what_is() {
        let (now, mut bookkeeping) = empty();
        bookkeeping.pass(vec![bind(1, 1)], now);
        let other = Arc::new(delete(csn(4, 1)));
        let ready = bookkeeping.pass(vec![bind(2, 1), bind(3, 1), other, bind(5, 1)], now);
        assert_eq!(csns(&ready), [csn(3, 1), csn(4, 1)]);
        let user = modify(6, 1, vec![step(LdapModifyType::Replace, "description", &["x"])]);
        assert_eq!(csns(&bookkeeping.pass(vec![user], now)), [csn(5, 1), csn(6, 1)]);
    }

    #[test]
    fn a_lock_or_a_mixed_change_is_none() {
        let (now, mut bookkeeping) = empty();
        bookkeeping.pass(vec![bind(1, 1)], now);
        let time = step(LdapModifyType::Add, "pwdFailureTime", &["2"]);
        let lock = step(LdapModifyType::Replace, "pwdAccountLockedTime", &["2"]);
        assert_eq!(csns(&bookkeeping.pass(vec![modify(2, 1, vec![time, lock])], now)), [csn(2, 1)]);
    }

    #[test]
    fn one_change_does_what_the_updates_did_one_after_the_other() {
        let (now, mut bookkeeping) = empty();
        bookkeeping.pass(vec![bind(1, 1)], now);
        let (plus, minus, set) = (LdapModifyType::Add, LdapModifyType::Delete, LdapModifyType::Replace);
        let next =
            modify(4, 1, vec![step(minus.clone(), FAILURES, &["2"]), step(plus.clone(), FAILURES, &["4"])]);
        bookkeeping.pass(vec![failure(2), bind(3, 1), next, bind(6, 1)], now);
        let absorbed: Vec<Csn> = bookkeeping.take_absorbed().into_iter().map(|(csn, _)| csn).collect();
        assert_eq!(absorbed, [2, 3, 4].map(|second| csn(second, 1)));
        let ready = bookkeeping.pass(Vec::new(), now + PAUSE);
        let expected = vec![
            step(plus.clone(), FAILURES, &["2"]),
            step(minus, FAILURES, &["2"]),
            step(plus, FAILURES, &["4"]),
            step(set, "authTimestamp", &["6"]),
        ];
        assert_eq!(ready, [modify(6, 1, expected)]);
    }

    #[test]
    fn updates_between_which_another_server_has_changed_the_entry_stay_apart() {
        let (now, mut bookkeeping) = empty();
        bookkeeping.pass(vec![bind(1, 1)], now);
        bookkeeping.pass(vec![failure(2)], now);
        assert!(!bookkeeping.handle_foreign(uuid(2), csn(3, 2)));
        assert!(bookkeeping.handle_foreign(uuid(1), csn(3, 2)));
        bookkeeping.pass(vec![failure(4), failure(5)], now);
        // What is earlier than both is before them either way.
        bookkeeping.handle_foreign(uuid(1), csn(2, 3));
        bookkeeping.pass(vec![failure(6)], now);
        let ready = bookkeeping.pass(Vec::new(), now + PAUSE);
        assert_eq!(csns(&ready), [csn(2, 1), csn(6, 1)]);
    }

    #[test]
    fn what_takes_all_failures_away_goes_at_once() {
        let (now, mut bookkeeping) = empty();
        bookkeeping.pass(vec![bind(1, 1)], now);
        let reset = modify(3, 1, vec![step(LdapModifyType::Delete, FAILURES, &[])]);
        let ready = bookkeeping.pass(vec![failure(2), reset, failure(4)], now);
        assert_eq!(csns(&ready), [csn(2, 1), csn(3, 1)]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let now = Instant::now();
        let mut bookkeeping = Bookkeeping::new(PAUSE, 2 * failure(1).size());
        bookkeeping.pass(vec![bind(1, 1)], now);
        let ready = bookkeeping.pass((2..40).map(failure).collect(), now);
        assert!(ready.len() > 2 && bookkeeping.bytes <= 2 * failure(1).size(), "{}", ready.len());
    }
}
