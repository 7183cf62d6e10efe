//! Files of all kinds in the journal's place.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers may fail a test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;
use xmppsync_journal::{Journal, JournalError, Opened, Record, loading};
use xmppsync_replica::EntryUuid;

const SUFFIX: &str = "dc=example,dc=org";

/// A journal with something in it, closed.
fn made(dir: &Path) -> Vec<u8> {
    let (mut journal, _) = Journal::open(dir, SUFFIX).unwrap();
    let csn = "20261122235959.123456Z#000000#001#000000".parse().unwrap();
    let put = |n: u128| Record::Put { uuid: EntryUuid::from_bytes(n.to_be_bytes()), csn };
    journal.write(&(0..5_000).map(put).collect::<Vec<_>>()).unwrap();
    journal.close(b"x").unwrap();
    fs::read(dir.join("journal.redb")).unwrap()
}

fn replaced(dir: &Path, suffix: &str) -> String {
    let (mut journal, opened) = Journal::open(dir, suffix).unwrap();
    let Opened::Replaced { aside, why } = opened else { panic!("{opened:?}") };
    assert!(aside.exists());
    journal.write(&[Record::PeerRemoved(String::new())]).unwrap();
    why
}

#[test]
fn a_file_of_another_kind_or_suffix_is_set_aside_and_two_of_them_are_kept() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("journal.redb");
    made(dir.path());
    assert!(replaced(dir.path(), "dc=other").contains(SUFFIX));
    fs::write(&file, "no journal at all".repeat(1_000)).unwrap();
    replaced(dir.path(), SUFFIX);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    replaced(dir.path(), SUFFIX);
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["journal.redb", "journal.redb.aside-2", "journal.redb.aside-3"]);
}

#[test]
fn a_truncated_file_is_set_aside() {
    let dir = TempDir::new().unwrap();
    let whole = made(dir.path());
    for len in [1, 100, 4_096, 5_000, whole.len() / 2, whole.len() - 1] {
        fs::write(dir.path().join("journal.redb"), &whole[..len]).unwrap();
        replaced(dir.path(), SUFFIX);
    }
}

/// The short version of what a disk may do to the file. No panic leaves the journal, whatever is in it.
#[test]
fn a_damaged_file_is_set_aside_or_fails_but_never_panics() {
    let dir = TempDir::new().unwrap();
    let whole = made(dir.path());
    for round in 0..40_usize {
        let mut bytes = whole.clone();
        let place = round * 7_919 % (bytes.len() - 512);
        bytes[place..place + 512].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(dir.path().join("journal.redb"), &bytes).unwrap();
        let (mut journal, opened) = Journal::open(dir.path(), SUFFIX).unwrap();
        let read = journal.inventory_for_each(|_, _| {});
        let written = journal.write(&[Record::PeerRemoved(String::new())]);
        let poisoned = |result| matches!(result, Err(JournalError::Poisoned(_)));
        assert!(read.is_ok() || poisoned(written), "{round}: {opened:?}");
    }
}

#[test]
fn only_the_owner_may_read() {
    let dir = TempDir::new().unwrap();
    let journal_dir = dir.path().join("a/b");
    made(&journal_dir);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&journal_dir), mode(&journal_dir.join("journal.redb"))), (0o700, 0o600));
    fs::set_permissions(journal_dir.join("journal.redb"), fs::Permissions::from_mode(0o644)).unwrap();
    drop(Journal::open(&journal_dir, SUFFIX).unwrap());
    assert_eq!(mode(&journal_dir.join("journal.redb")), 0o600);
}

#[test]
fn a_directory_that_cannot_be_used_and_a_second_owner_are_errors() {
    let dir = TempDir::new().unwrap();
    let (_journal, _) = Journal::open(dir.path(), SUFFIX).unwrap();
    assert!(matches!(Journal::open(dir.path(), SUFFIX), Err(JournalError::InUse(_))));
    let error = Journal::open(Path::new("/proc/nowhere"), SUFFIX).unwrap_err();
    assert!(error.to_string().starts_with("the journal directory /proc/nowhere cannot be used"), "{error}");
}

#[test]
fn a_journal_that_was_set_aside_makes_room_for_another() {
    let dir = TempDir::new().unwrap();
    made(dir.path());
    let (journal, _) = Journal::open(dir.path(), SUFFIX).unwrap();
    assert_eq!(journal.set_aside().unwrap(), dir.path().join("journal.redb.aside-1"));
    assert_eq!(Journal::open(dir.path(), SUFFIX).unwrap().1, Opened::New);
}

#[test]
fn a_file_as_kill_leaves_it_has_everything() {
    let dir = TempDir::new().unwrap();
    made(dir.path());
    let (journal, _) = Journal::open(dir.path(), SUFFIX).unwrap();
    let crashed = TempDir::new().unwrap();
    fs::copy(dir.path().join("journal.redb"), crashed.path().join("journal.redb")).unwrap();
    let (copy, opened) = Journal::open(crashed.path(), SUFFIX).unwrap();
    assert_eq!(opened, Opened::Existing { clean: None, loading: None });
    assert_eq!(copy.inventory_len().unwrap(), journal.inventory_len().unwrap());
}

#[test]
fn a_journal_made_anew_sets_aside_what_is_there_and_a_failed_attempt_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    made(dir.path());
    let journal = Journal::anew(dir.path(), SUFFIX).unwrap();
    assert_eq!(journal.inventory_len().unwrap(), 0);
    assert!(dir.path().join("journal.redb.aside-1").exists());
    journal.discard().unwrap();
    assert!(!dir.path().join("journal.redb").exists());
    fs::write(dir.path().join("file"), "").unwrap();
    Journal::anew(&dir.path().join("file"), SUFFIX).unwrap_err();
}

#[test]
fn a_journal_that_was_left_before_it_was_whole_is_of_no_use() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::anew(dir.path(), SUFFIX).unwrap();
    journal.write(&[Record::Incomplete(true), Record::PeerRemoved(String::new())]).unwrap();
    drop(journal);
    assert!(replaced(dir.path(), SUFFIX).contains("not whole"));
    let (mut journal, _) = Journal::open(dir.path(), SUFFIX).unwrap();
    journal.write(&[Record::Incomplete(true)]).unwrap();
    journal.write(&[Record::Incomplete(false)]).unwrap();
    drop(journal);
    assert_eq!(Journal::open(dir.path(), SUFFIX).unwrap().1, Opened::Existing { clean: None, loading: None });
}

#[test]
fn what_was_reached_without_its_changes_moves_the_floor_only_where_the_head_is_behind() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), SUFFIX).unwrap();
    let csn = |second: u32, server: u32| {
        let text = format!("202611222359{second:02}.000000Z#000000#{server:03x}#000000");
        text.parse::<xmppsync_replica::Csn>().unwrap()
    };
    journal.write(&[Record::Head(csn(5, 1))]).unwrap();
    journal.write(&[Record::Reached(csn(4, 1)), Record::Reached(csn(4, 2))]).unwrap();
    assert_eq!(journal.floor().iter().collect::<Vec<_>>(), [csn(4, 2)]);
    assert_eq!(journal.head().iter().collect::<Vec<_>>(), [csn(5, 1), csn(4, 2)]);
}

#[test]
fn an_unfinished_load_is_known_without_a_journal() {
    let dir = TempDir::new().unwrap();
    assert!(!loading::is_noted(dir.path()));
    loading::forget(dir.path()).unwrap();
    loading::note(dir.path()).unwrap();
    loading::note(dir.path()).unwrap();
    assert!(loading::is_noted(dir.path()));
    loading::forget(dir.path()).unwrap();
    assert!(!loading::is_noted(dir.path()));
    loading::note(&dir.path().join("missing")).unwrap_err();
}
