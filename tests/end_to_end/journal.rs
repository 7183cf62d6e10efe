//! The journal's file: where it is, and what becomes of a server whose journal is gone, of no use, or fails.

use crate::PATIENCE;
use crate::meanwhile::{assert_travels, count, end_of};
use crate::steps::{add_person, group_with, settle, wait_entry};
use crate::transactions::failing_disk;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use xmppsync_lab::{Group, GroupOptions, LabDir, Slapd};

/// Servers that log what an administrator always sees, and leave no messages for one that is away.
fn options(servers: usize) -> GroupOptions {
    let mut options = GroupOptions {
        servers,
        overlay_lines: vec!["xmppsync-offline-messages 0".to_owned()],
        ..GroupOptions::default()
    };
    options.slapd.debug_level = "none".to_owned();
    options
}

fn journal(server: &Slapd) -> PathBuf {
    server.database_dir(0).join("xmppsync/journal.redb")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The overlay's lines of this run that speak of the journal.
fn lines(server: &Slapd) -> Vec<String> {
    let log = server.run_log();
    let ours = log.lines().filter(|line| line.contains("xmppsync: ") && line.contains("journal"));
    ours.map(str::to_owned).collect()
}

/// Each server gives what it wrote to the other, also while that is away.
fn assert_whole(group: &mut Group, name: &str) {
    assert_travels(&group.servers[0], &group.servers[1], &format!("{name} from a"));
    assert_travels(&group.servers[1], &group.servers[0], &format!("{name} from b"));
    for (away, here) in [(0, 1), (1, 0)] {
        group.servers[away].stop().unwrap();
        let dn = add_person(&mut group.servers[here].ldap().unwrap(), &format!("{name}{here}"));
        group.servers[away].start().unwrap();
        wait_entry(&group.servers[away], &dn, true);
    }
    settle(group);
}

#[test]
fn the_journal_is_below_the_database_and_its_owner_alone_reads_it() {
    let group = group_with(options(1));
    let file = journal(&group.servers[0]);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
}

#[test]
fn a_journal_that_was_deleted_is_made_anew_with_one_line() {
    let mut group = group_with(options(2));
    let victim = add_person(&mut group.servers[0].ldap().unwrap(), "victim");
    settle(&group);
    group.servers[0].stop().unwrap();
    fs::remove_file(journal(&group.servers[0])).unwrap();
    // The other one goes on meanwhile.
    group.servers[1].ldap().unwrap().delete(&victim).unwrap();
    group.servers[0].start().unwrap();
    settle(&group);
    let said = lines(&group.servers[0]);
    assert!(said.len() == 1 && said[0].contains("a new one is made from the database"), "{said:#?}");
    assert_eq!(mode(&journal(&group.servers[0])), 0o600);
    assert_whole(&mut group, "deleted");
}

/// Spoils the server's journal while it is stopped; the words are what the log says of it.
fn assert_set_aside(group: &mut Group, name: &str, words: &str, spoil: impl FnOnce(&Path)) {
    group.servers[0].stop().unwrap();
    spoil(&journal(&group.servers[0]));
    let missed = add_person(&mut group.servers[1].ldap().unwrap(), &format!("{name}-missed"));
    group.servers[0].start().unwrap();
    let said = lines(&group.servers[0]);
    assert!(
        said.len() == 1 && said[0].contains("set aside as") && said[0].contains(words),
        "{name}: {said:#?}"
    );
    wait_entry(&group.servers[0], &missed, true);
    assert_whole(group, name);
}

#[test]
fn a_journal_that_is_of_no_use_is_set_aside_with_one_line() {
    let suffixes = vec!["dc=example,dc=com".to_owned(), "dc=other".to_owned()];
    let mut group = group_with(GroupOptions { suffixes, ..options(2) });
    let foreign = group.servers[0].database_dir(1).join("xmppsync/journal.redb");
    assert_set_aside(&mut group, "foreign", "dc=other", |file| {
        fs::copy(&foreign, file).unwrap();
    });
    assert_set_aside(&mut group, "text", "", |file| fs::write(file, "this is no journal").unwrap());
    assert_set_aside(&mut group, "directory", "not a file", |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    });
    assert_set_aside(&mut group, "cut", "", |file| {
        let whole = fs::read(file).unwrap();
        fs::write(file, &whole[..whole.len() / 2]).unwrap();
    });
    assert_set_aside(&mut group, "zeros", "", |file| {
        let mut bytes = fs::read(file).unwrap();
        bytes[4_096..].fill(0);
        fs::write(file, bytes).unwrap();
    });
}

/// Two servers; as long as the file exists, the first one's journal cannot be written. The directory goes with its guard.
fn group_with_failing_disk() -> (LabDir, PathBuf, Group) {
    let lab = LabDir::new().unwrap();
    let (switch, mut environment) = failing_disk(&lab);
    environment.push(("DISK_FAILS_FOR".to_owned(), "/a/db-0/xmppsync/".to_owned()));
    let mut options = options(2);
    options.slapd.environment = environment;
    (lab, switch, group_with(options))
}

#[test]
fn a_journal_that_fails_takes_no_write_and_no_replication_with_it() {
    let (_disk, switch, mut group) = group_with_failing_disk();
    fs::write(&switch, "").unwrap();
    let mut ldap = group.servers[0].ldap().unwrap();
    let written: Vec<String> = (0..100).map(|number| add_person(&mut ldap, &format!("p{number}"))).collect();
    wait_entry(&group.servers[1], &written[99], true);
    assert_travels(&group.servers[1], &group.servers[0], "from b");
    ldap.delete(&written[0]).unwrap();
    wait_entry(&group.servers[1], &written[0], false);
    settle(&group);
    let log = group.servers[0].run_log();
    assert_eq!(lines(&group.servers[0]).len(), 1, "{}", end_of(&log));
    assert_eq!(count(&log, "the journal failed"), 1, "{}", end_of(&log));
    fs::remove_file(&switch).unwrap();
    group.servers[0].restart().unwrap();
    settle(&group);
    assert_whole(&mut group, "after");
}

/// What the log says when a journal was made from a database in use.
const AGAIN: &str = "there is a journal again";

#[test]
fn a_journal_that_failed_is_made_anew_while_slapd_runs() {
    let (_disk, switch, mut group) = group_with_failing_disk();
    let mut ldap = group.servers[0].ldap().unwrap();
    let [victim, changed] = ["victim", "changed"].map(|name| add_person(&mut ldap, name));
    settle(&group);
    group.servers[1].stop().unwrap();
    fs::write(&switch, "").unwrap();
    for number in 0..20 {
        add_person(&mut ldap, &format!("without{number}"));
    }
    ldap.delete(&victim).unwrap();
    group.servers[0].wait_log("the journal failed", PATIENCE).unwrap();
    fs::remove_file(&switch).unwrap();
    // No moment is without a write until it is there, and after that.
    let mut number = 0;
    while !group.servers[0].run_log().contains(AGAIN) {
        if number % 20 == 0 {
            add_person(&mut ldap, &format!("meanwhile{number}"));
        }
        ldap.replace(&changed, "description", &[&number.to_string()]).unwrap();
        number += 1;
        assert!(number < 100_000, "{}", end_of(&group.servers[0].run_log()));
    }
    add_person(&mut ldap, "with");
    group.servers[1].start().unwrap();
    settle(&group);
    assert_eq!(lines(&group.servers[0]).len(), 2, "{:#?}", lines(&group.servers[0]));
    assert_eq!(mode(&journal(&group.servers[0])), 0o600);
    // It is one like any other.
    group.servers[0].restart().unwrap();
    settle(&group);
    assert_eq!(lines(&group.servers[0]), Vec::<String>::new());
    assert_whole(&mut group, "after");
}

#[test]
fn a_server_whose_journal_cannot_be_made_starts_without_and_has_one_later() {
    let mut group = group_with(options(2));
    let directory = journal(&group.servers[0]).parent().unwrap().to_owned();
    group.servers[0].stop().unwrap();
    // Nothing can be made below a file.
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "").unwrap();
    let missed = add_person(&mut group.servers[1].ldap().unwrap(), "missed");
    group.servers[0].start().unwrap();
    let said = lines(&group.servers[0]);
    assert!(said.len() == 1 && said[0].contains("served and replicated without a journal"), "{said:#?}");
    wait_entry(&group.servers[0], &missed, true);
    assert_travels(&group.servers[0], &group.servers[1], "from a");
    assert_travels(&group.servers[1], &group.servers[0], "from b");
    settle(&group);
    fs::remove_file(&directory).unwrap();
    group.servers[0].wait_log(AGAIN, PATIENCE).unwrap();
    assert_whole(&mut group, "after");
}
