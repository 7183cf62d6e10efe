//! What was lost, marked at its entry: an ordinary write of the one server that always notices it ([`Lost::owner`]), which goes to
//! all others like any write, and which clients take away when they have decided.
//!
//! ```text
//! xmppSyncLost: attribute SP csn-of-what-lost SP csn-of-what-won SP value
//! value = "text:" UTF-8 / "hex:" digits / "sha256:" digits " of " number " bytes"
//! ```
//! `attribute` is [`Lost::NAME`] for a name or a place, and [`Lost::ENTRY`], at the suffix entry, for what was done to an entry that
//! was deleted.

use super::entry::{is_glue, values};
use crate::host::{Failure, Outcome, Transaction};
use crate::limits::{MARK_BYTES_MAX, MARKED_ENTRIES_MAX, MARKS_MAX};
use crate::shared::{Shared, lock};
use ldap3_proto::proto::{LdapModify, LdapModifyRequest, LdapModifyType, LdapPartialAttribute};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use tracing::warn;
use xmppsync_replica::{Change, EntryUuid, Lost, Operation};

/// Marks those of the losses that are this server's to mark, in the open transaction.
///
/// # Errors
/// The database's. The transaction has to be aborted.
pub(crate) fn write(
    shared: &Shared,
    transaction: &mut dyn Transaction,
    lost: &[&Lost],
) -> Result<(), Failure> {
    let mut by_entry: BTreeMap<EntryUuid, Vec<&Lost>> = BTreeMap::new();
    let dataset = *lock(&shared.dataset);
    for lost in lost.iter().copied().filter(|lost| lost.owner() == shared.own) {
        // Nobody decides about what slapd itself notes, such as when somebody was last bound.
        if !is_word(&lost.attribute) && !transaction.is_of_clients(&lost.attribute) {
            continue;
        }
        let at = if is_of_deleted(transaction, lost)? { dataset } else { Some(lost.uuid) };
        at.into_iter().for_each(|at| by_entry.entry(at).or_default().push(lost));
    }
    if by_entry.len() > MARKED_ENTRIES_MAX {
        warn!(
            "conflict: {} entries lost values at one time; {MARKED_ENTRIES_MAX} of them are marked, the others are in the journal and in this log only",
            by_entry.len()
        );
    }
    by_entry.into_iter().take(MARKED_ENTRIES_MAX).try_for_each(|(uuid, lost)| mark(transaction, uuid, &lost))
}

fn is_word(attribute: &str) -> bool {
    [Lost::NAME, Lost::ENTRY].contains(&attribute)
}

/// Whether it cannot be marked at the entry itself.
fn is_of_deleted(transaction: &mut dyn Transaction, lost: &Lost) -> Result<bool, Failure> {
    if lost.attribute != Lost::ENTRY {
        return Ok(false);
    }
    Ok(transaction.read_entry(&lost.uuid)?.is_none_or(|entry| is_glue(&entry)))
}

fn mark(transaction: &mut dyn Transaction, uuid: EntryUuid, lost: &[&Lost]) -> Result<(), Failure> {
    let Some(entry) = transaction.read_entry(&uuid)?.filter(|entry| !is_glue(entry)) else {
        return Ok(());
    };
    let present: Vec<String> =
        values(&entry, Lost::MARK).iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    let new = lost.iter().flat_map(|lost| texts(lost));
    let Some(changes) = changes(&present, new.collect()) else { return Ok(()) };
    let dn = entry.operation.dn().to_owned();
    let operation = Operation::Modify(LdapModifyRequest { dn, changes });
    match transaction.write(&Change { csn: entry.csn, uuid, parent: None, operation }) {
        Outcome::Applied | Outcome::Care => Ok(()),
        // Nothing was touched.
        Outcome::Refused(failure) => {
            warn!(
                "what the entry {uuid} lost is not marked at the entry {}: {failure}",
                entry.operation.dn()
            );
            Ok(())
        }
        Outcome::Failed(failure) | Outcome::Temporary(failure) | Outcome::Alone(failure) => Err(failure),
    }
}

/// What makes of these marks those and the new ones, but for the oldest where they are too many. `None`: nothing.
fn changes(present: &[String], new: Vec<String>) -> Option<Vec<LdapModify>> {
    let mut all: Vec<&String> =
        present.iter().chain(new.iter().filter(|new| !present.contains(new))).collect();
    all.sort_by_key(|mark| (when(mark), mark.as_str()));
    all.dedup();
    let kept = all.split_off(all.len().saturating_sub(MARKS_MAX));
    let added = kept.iter().copied().filter(|mark| !present.contains(mark));
    let gone = all.into_iter().filter(|mark| present.contains(mark));
    let added = change(LdapModifyType::Add, added);
    let gone = change(LdapModifyType::Delete, gone);
    let changes: Vec<LdapModify> = gone.into_iter().chain(added).collect();
    changes.iter().any(|change| change.operation == LdapModifyType::Add).then_some(changes)
}

/// The CSN of what was lost.
fn when(mark: &str) -> &str {
    mark.split(' ').nth(1).unwrap_or_default()
}

fn change<'a>(operation: LdapModifyType, marks: impl Iterator<Item = &'a String>) -> Option<LdapModify> {
    let vals: Vec<Vec<u8>> = marks.map(|mark| mark.clone().into_bytes()).collect();
    let modification = LdapPartialAttribute { atype: Lost::MARK.to_owned(), vals };
    (!modification.vals.is_empty()).then_some(LdapModify { operation, modification })
}

/// The marks of a loss, one for each value.
fn texts(lost: &Lost) -> Vec<String> {
    let Lost { csn, against, attribute, values, .. } = lost;
    let none = [Vec::new()];
    let values = if values.is_empty() { &none[..] } else { &values[..] };
    values.iter().map(|value| format!("{attribute} {csn} {against} {}", shown(value))).collect()
}

fn shown(value: &[u8]) -> String {
    let is_text = |text: &&str| !text.chars().any(char::is_control);
    match std::str::from_utf8(value).ok().filter(is_text) {
        Some(text) if text.len() <= MARK_BYTES_MAX => format!("text:{text}"),
        _ if value.len() * 2 <= MARK_BYTES_MAX => format!("hex:{}", hex(value)),
        _ => format!("sha256:{} of {} bytes", hex(&Sha256::digest(value)), value.len()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Into a text it does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmppsync_replica::Csn;

    fn csn(number: u64, server: u16) -> Csn {
        format!("20261122230000.{number:06}Z#000000#{server:03x}#000000").parse().unwrap()
    }

    fn lost(number: u64, values: &[&[u8]]) -> Lost {
        let values = values.iter().map(|value| value.to_vec()).collect();
        let uuid = EntryUuid::from_bytes([1; 16]);
        Lost { csn: csn(number, 1), uuid, against: csn(900, 2), attribute: "mail".to_owned(), values }
    }

    fn counts(changes: Option<Vec<LdapModify>>) -> Vec<(LdapModifyType, usize)> {
        let changes = changes.unwrap_or_default().into_iter();
        changes.map(|change| (change.operation, change.modification.vals.len())).collect()
    }

    #[test]
    fn a_mark_tells_the_attribute_both_changes_and_the_value() {
        let long = vec![b'x'; MARK_BYTES_MAX + 1];
        let marks = texts(&lost(1, &[b"a@example.com", b"\x00\xff", &long]));
        let begin = format!("mail {} {} ", csn(1, 1), csn(900, 2));
        assert_eq!(marks[0], format!("{begin}text:a@example.com"));
        assert_eq!(marks[1], format!("{begin}hex:00ff"));
        assert!(marks[2].starts_with(&format!("{begin}sha256:")) && marks[2].ends_with(" of 513 bytes"));
    }

    #[test]
    fn a_loss_is_marked_once_and_the_oldest_marks_go() {
        let marks = |numbers: std::ops::Range<u64>| -> Vec<String> {
            numbers.flat_map(|number| texts(&lost(number, &[b"x"]))).collect()
        };
        assert_eq!(counts(changes(&marks(0..3), marks(1..3))), []);
        assert_eq!(counts(changes(&marks(0..3), marks(2..5))), [(LdapModifyType::Add, 2)]);
        let full = marks(100..100 + MARKS_MAX as u64);
        let expected = [(LdapModifyType::Delete, 3), (LdapModifyType::Add, 3)];
        assert_eq!(counts(changes(&full, marks(500..503))), expected);
        // What is older than all of them, and more than there is room for.
        assert_eq!(counts(changes(&full, marks(1..2))), []);
        let many = MARKS_MAX as u64 * 2;
        assert_eq!(counts(changes(&[], marks(0..many))), [(LdapModifyType::Add, MARKS_MAX)]);
    }

    #[test]
    fn who_made_the_later_change_or_the_delete_marks_the_loss() {
        let server = |lost: &Lost| lost.owner().get();
        assert_eq!(server(&lost(1, &[])), 2);
        // Of two moves the later one falls away.
        assert_eq!(server(&Lost { csn: csn(901, 1), ..lost(1, &[]) }), 1);
        assert_eq!(server(&Lost { csn: csn(901, 1), attribute: Lost::ENTRY.to_owned(), ..lost(1, &[]) }), 2);
    }
}
