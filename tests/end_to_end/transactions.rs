//! LDAP transactions (RFC 5805): all of it or nothing.

use crate::meanwhile::OnDrop;
use crate::steps::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use xmppsync_lab::ldap3::controls::TxnSpec;
use xmppsync_lab::ldap3::exop::{EndTxn, StartTxn};
use xmppsync_lab::ldap3::{LdapConn, Mod};
use xmppsync_lab::{Group, GroupOptions, LabDir, Ldap};

const SUCCESS: u32 = 0;
const NO_SUCH_OBJECT: u32 = 32;
const OTHER: u32 = 80;

/// A client's transaction; its parts are only taken down by slapd until it ends.
pub(crate) struct Transaction<'a>(&'a mut LdapConn);

impl<'a> Transaction<'a> {
    pub(crate) fn begin(ldap: &'a mut Ldap) -> Transaction<'a> {
        raw(ldap).extended(StartTxn).unwrap().success().unwrap();
        Transaction(raw(ldap))
    }

    fn part(&mut self) -> &mut LdapConn {
        self.0.with_controls(TxnSpec { txn_id: "" })
    }

    fn add(&mut self, uid: &str) -> String {
        let dn = format!("uid={uid},{PEOPLE}");
        let mut attributes = std::collections::HashMap::new();
        for (name, value) in person(uid) {
            attributes.entry(name).or_insert_with(std::collections::HashSet::new).insert(value);
        }
        assert_eq!(code(self.part().add(&dn, attributes.into_iter().collect())), SUCCESS);
        dn
    }

    pub(crate) fn modify(&mut self, dn: &str, change: Mod<Vec<u8>>) {
        assert_eq!(code(self.part().modify(dn, vec![change])), SUCCESS);
    }

    pub(crate) fn end(self, commit: bool) -> u32 {
        self.0.extended(EndTxn { txn_id: "", commit }).unwrap().1.rc
    }
}

#[test]
fn a_transaction_arrives_whole_or_not_at_all() {
    let group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    let victim = add_person(&mut ldap, "victim");
    a_committed_transaction_arrives_with_all_parts(&group, &mut ldap, &victim);
    an_aborted_transaction_is_invisible(&group, &mut ldap, &victim);
    a_transaction_with_a_part_that_fails_is_invisible(&group, &mut ldap, &victim);
    an_unfinished_transaction_is_invisible(&group, &victim);
    settle_smoothly(&group);
    assert_eq!(stored(&group.servers[0]), stored(&group.servers[1]));
}

/// Parts that need each other, of all kinds.
fn fill(transaction: &mut Transaction<'_>, name: &str, victim: &str) {
    let dn = transaction.add(name);
    transaction.modify(&dn, set("description", &["first"]));
    transaction.modify(victim, set("description", &[name]));
    transaction.modify(&dn, set("description", &["last"]));
    let passing = transaction.add(&format!("{name}-passing"));
    assert_eq!(code(transaction.part().delete(&passing)), SUCCESS);
    assert_eq!(code(transaction.part().modifydn(&dn, &format!("uid={name}-renamed"), true, None)), SUCCESS);
    let child = format!("uid=child,uid={name}-renamed,{PEOPLE}");
    let attributes = [("objectClass", "account"), ("uid", "child")]
        .map(|(name, value)| (name, std::collections::HashSet::from([value])));
    assert_eq!(code(transaction.part().add(&child, attributes.to_vec())), SUCCESS);
}

fn a_committed_transaction_arrives_with_all_parts(group: &Group, ldap: &mut Ldap, victim: &str) {
    let mut transaction = Transaction::begin(ldap);
    fill(&mut transaction, "committed", victim);
    assert_eq!(transaction.end(true), SUCCESS);
    let dump = settle_smoothly(group);
    let renamed = format!("uid=committed-renamed,{PEOPLE}");
    assert_eq!(dump[&renamed]["description"], [b"last".to_vec()].into());
    assert_eq!(dump[victim]["description"], [b"committed".to_vec()].into());
    assert!(dump.contains_key(&format!("uid=child,{renamed}")));
    assert!(!dump.contains_key(&format!("uid=committed-passing,{PEOPLE}")));
}

/// What was sent before the mark has come with it; nothing of the transaction may be among it.
fn assert_invisible(group: &Group, name: &str, victim: &str) {
    let marks = settle(group).len();
    mark(group, &format!("after-{name}-{marks}"));
    let dump = settle_smoothly(group);
    assert!(!dump.keys().any(|dn| dn.contains(&format!("uid={name}"))), "{:?}", dump.keys());
    assert_eq!(dump[victim]["description"], [b"committed".to_vec()].into());
}

fn an_aborted_transaction_is_invisible(group: &Group, ldap: &mut Ldap, victim: &str) {
    let mut transaction = Transaction::begin(ldap);
    fill(&mut transaction, "aborted", victim);
    assert_eq!(transaction.end(false), SUCCESS);
    assert_invisible(group, "aborted", victim);
}

fn a_transaction_with_a_part_that_fails_is_invisible(group: &Group, ldap: &mut Ldap, victim: &str) {
    let mut transaction = Transaction::begin(ldap);
    fill(&mut transaction, "failing", victim);
    transaction.modify(&format!("uid=nobody,{PEOPLE}"), set("description", &["x"]));
    // The client is told with the end only.
    let answer = transaction.end(true);
    assert!([NO_SUCH_OBJECT, 10].contains(&answer), "{answer}");
    assert_invisible(group, "failing", victim);
}

fn an_unfinished_transaction_is_invisible(group: &Group, victim: &str) {
    let mut ldap = group.servers[0].ldap().unwrap();
    let mut transaction = Transaction::begin(&mut ldap);
    fill(&mut transaction, "unfinished", victim);
    assert_invisible(group, "unfinished", victim);
    assert_eq!(transaction.end(false), SUCCESS);
    assert_invisible(group, "unfinished", victim);
}

/// back-mdb numbers an attribute that it has not seen before inside the transaction, and forgot to forget the number
/// when the transaction was aborted. The next entry with that attribute could not be read by anybody any more:
/// "internal error in mdb_entry_decode".
#[test]
fn an_attribute_first_used_in_an_aborted_transaction_can_be_used_later() {
    let mut group = group(2);
    let mut ldap = group.servers[0].ldap().unwrap();
    let dn = add_person(&mut ldap, "collector");
    for (attribute, commit) in [("carLicense", false), ("employeeType", true)] {
        let mut transaction = Transaction::begin(&mut ldap);
        transaction.modify(&dn, set(attribute, &["first"]));
        if commit {
            transaction.modify(&format!("uid=nobody,{PEOPLE}"), set("description", &["fails"]));
        }
        transaction.end(commit);
    }
    // The other way round, so that a wrong number would show as a wrong attribute.
    ldap.modify(&dn, vec![set("employeeType", &["type"])]).unwrap();
    ldap.modify(&dn, vec![set("carLicense", &["licence"]), set("roomNumber", &["room"])]).unwrap();
    settle_smoothly(&group);
    drop(ldap);
    for server in &mut group.servers {
        server.restart().unwrap();
    }
    let dump = settle(&group);
    assert_eq!(dump[&dn]["carLicense"], [b"licence".to_vec()].into());
    assert_eq!(dump[&dn]["employeeType"], [b"type".to_vec()].into());
    assert_eq!(dump[&dn]["roomNumber"], [b"room".to_vec()].into());
}

/// What makes a commit fail: the disk. The file tells whether it does.
pub(crate) fn failing_disk(lab: &LabDir) -> (PathBuf, Vec<(String, String)>) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/failing_disk.c");
    let library = lab.path().join("failing_disk.so");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(compiled.success());
    let switch = lab.path().join("disk-fails");
    let environment = [("LD_PRELOAD", &library), ("DISK_FAILS", &switch)]
        .map(|(name, path)| (name.to_owned(), path.display().to_string()));
    (switch, environment.to_vec())
}

#[test]
fn a_write_whose_commit_fails_is_invisible() {
    let lab = LabDir::new().unwrap();
    let (switch, environment) = failing_disk(&lab);
    let mut options = GroupOptions { servers: 2, ..GroupOptions::default() };
    options.slapd.environment = environment;
    let group = group_with(options);
    let mut ldap = group.servers[0].ldap().unwrap();
    let victim = add_person(&mut ldap, "victim");
    ldap.replace(&victim, "description", &["committed"]).unwrap();
    settle(&group);
    // Nobody else writes now.
    std::fs::write(&switch, "").unwrap();
    let mut transaction = Transaction::begin(&mut ldap);
    fill(&mut transaction, "uncommitted", &victim);
    assert_eq!(transaction.end(true), OTHER);
    let refused = ldap.replace(&victim, "description", &["uncommitted"]).unwrap_err().to_string();
    assert!(refused.contains("rc=80"), "{refused}");
    ldap.delete(&victim).unwrap_err();
    std::fs::remove_file(&switch).unwrap();
    assert_invisible(&group, "uncommitted", &victim);
    // And the next one is none the worse for it.
    let mut transaction = Transaction::begin(&mut ldap);
    fill(&mut transaction, "later", &victim);
    assert_eq!(transaction.end(true), SUCCESS);
    assert_eq!(settle_smoothly(&group)[&victim]["description"], [b"later".to_vec()].into());
}

/// slapd's thread that answers a part was not yet done with it when another thread, at the end of the transaction,
/// carried it out and freed it: slapd ended by a segmentation fault.
#[test]
fn hundreds_of_transactions_among_the_writes_of_others_arrive() {
    const TRANSACTIONS: usize = 200;
    let group = group_with(GroupOptions {
        servers: 3,
        database_lines: vec!["dbnosync".to_owned()],
        ..GroupOptions::default()
    });
    let mut ldap = group.servers[0].ldap().unwrap();
    let victim = add_person(&mut ldap, "victim");
    let done = AtomicBool::new(false);
    let others: usize = thread::scope(|scope| {
        let others: Vec<_> = (0..3)
            .map(|client| {
                // Two on the same server, one on another.
                let server = &group.servers[client / 2];
                let done = &done;
                scope.spawn(move || {
                    let mut ldap = server.ldap().unwrap();
                    let mut written = 0;
                    while !done.load(Ordering::Relaxed) {
                        let dn = add_person(&mut ldap, &format!("other{client}-{written}"));
                        ldap.replace(&dn, "description", &["changed"]).unwrap();
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        let end = OnDrop(|| done.store(true, Ordering::Relaxed));
        for number in 0..TRANSACTIONS {
            let mut transaction = Transaction::begin(&mut ldap);
            let name = format!("transaction{number}");
            let dn = transaction.add(&name);
            transaction.modify(&dn, set("description", &["in the transaction"]));
            transaction.modify(&victim, set("description", &[&name]));
            // Every fifth comes to nothing, in turn for another reason.
            let nobody = format!("uid=nobody,{PEOPLE}");
            match number % 10 {
                4 => assert_eq!(transaction.end(false), SUCCESS),
                9 => {
                    transaction.modify(&nobody, set("description", &["x"]));
                    assert_ne!(transaction.end(true), SUCCESS);
                }
                _ => assert_eq!(transaction.end(true), SUCCESS),
            }
        }
        drop(end);
        others.into_iter().map(|other| other.join().unwrap()).sum()
    });
    let dump = settle_smoothly(&group);
    println!("{others} entries written and changed by others meanwhile");
    assert_eq!(dump.len(), 2 + 1 + TRANSACTIONS * 8 / 10 + others);
    let last = format!("transaction{}", TRANSACTIONS - 2);
    assert_eq!(dump[&victim]["description"], [last.into_bytes()].into());
}
