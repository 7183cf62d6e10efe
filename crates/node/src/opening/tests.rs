use super::*;
use ldap3_proto::proto::{LdapModifyDNRequest, LdapModifyRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use xmppsync_journal::pending::Pending;
use xmppsync_replica::{BootId, Move, Operation, ServerId};

/// A database of entries without content.
#[derive(Clone)]
struct Fake {
    entries: Vec<(EntryUuid, Option<Csn>)>,
    vector: Vector,
    guessed: bool,
    generation: Generation,
    minted: u32,
    /// DNs of entries that are displaced or glue.
    aside: BTreeMap<EntryUuid, &'static str>,
}

const GLUE: &str = "ou=glue,dc=x";
const DISPLACED: &str = "entryUUID=02020202-0202-0202-0202-020202020202+cn=b,dc=x";

impl Opening for Fake {
    fn standing(&mut self) -> Result<Standing, Failure> {
        Ok(Standing { vector: self.vector.clone(), guessed: self.guessed })
    }

    fn scan(&mut self, each: &mut dyn FnMut(Stored<'_>)) -> Result<(), Failure> {
        for (uuid, csn) in &self.entries {
            let aside = self.aside.get(uuid).copied();
            each(Stored {
                dn: aside.unwrap_or("cn=x,dc=x"),
                uuid: *uuid,
                csn: *csn,
                glue: aside == Some(GLUE),
            });
        }
        Ok(())
    }

    fn find(&mut self, dn: &str) -> Option<EntryUuid> {
        (dn == "dc=x").then(|| uuid(9))
    }

    fn read_entry(&mut self, uuid: &EntryUuid) -> Result<Option<Change>, Failure> {
        let found = self.entries.iter().find(|(here, _)| here == uuid);
        let state = |csn| Change {
            csn,
            uuid: *uuid,
            parent: None,
            operation: Operation::Delete { dn: String::new() },
        };
        Ok(found.and_then(|(_, csn)| csn.map(state)))
    }

    fn observe(&mut self, _csn: Csn) {}

    fn new_csn(&mut self) -> Result<Csn, Failure> {
        self.minted += 1;
        Ok(csn(100 + self.minted, OWN))
    }

    fn touch(&mut self, _dn: &str, uuid: &EntryUuid, csn: Csn) -> Result<(), Failure> {
        self.entries.iter_mut().filter(|(here, _)| here == uuid).for_each(|(_, here)| *here = Some(csn));
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn generation(&mut self) -> Option<Generation> {
        Some(self.generation)
    }
}

const OWN: u32 = 1;

fn csn(second: u32, server: u32) -> Csn {
    let text =
        format!("20261122{:02}{:02}{:02}.000000Z#000000#", second / 3600, second / 60 % 60, second % 60);
    Csn::parse_stored(format!("{text}{server:03x}#000000").as_bytes()).unwrap()
}

fn uuid(number: u8) -> EntryUuid {
    EntryUuid::from_bytes([number; 16])
}

/// What servers 1, 2 and none made, at the seconds 1 to 3.
fn three() -> Fake {
    Fake {
        entries: vec![(uuid(1), Some(csn(1, OWN))), (uuid(2), Some(csn(2, 2))), (uuid(3), Some(csn(3, 0)))],
        vector: [csn(1, OWN), csn(2, 2)].into_iter().collect(),
        guessed: false,
        generation: Generation { file: 7, transaction: 10 },
        minted: 10,
        aside: BTreeMap::new(),
    }
}

/// A journal that was begun with [`three`].
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Lab {
        let lab = Lab(tempfile::tempdir().unwrap());
        let found = lab.open(&mut Fake { minted: 0, ..three() }, true);
        assert!(found.unpublished.is_empty() && !found.compare);
        lab
    }

    /// What was unseen so far counts as seen.
    fn expire(&self) {
        let (mut journal, _) = Journal::open(self.0.path(), "dc=x").unwrap();
        let all = xmppsync_journal::Retention { age_seconds: 1, bytes_max: u64::MAX };
        journal.trim(now() + 10, all, &[]).unwrap();
        journal.close(&three().generation.encode()).unwrap();
    }

    fn unseen(&self) -> Unseen {
        Journal::open(self.0.path(), "dc=x").unwrap().0.unseen().clone()
    }

    /// Opens the database, and closes the journal again, cleanly or not.
    fn open(&self, database: &mut Fake, clean: bool) -> Found {
        self.open_with(database, clean, &[])
    }

    /// And writes something down before that.
    fn open_with(&self, database: &mut Fake, clean: bool, records: &[Record]) -> Found {
        let (mut journal, opened) = Journal::open(self.0.path(), "dc=x").unwrap();
        let found = compare(
            &mut journal,
            &opened,
            false,
            database,
            ServerId::new(OWN).unwrap(),
            pending::read(self.0.path()),
        )
        .unwrap();
        journal.write(records).unwrap();
        if clean {
            journal.close(&database.generation.encode()).unwrap();
        }
        found
    }
}

fn sent(found: &Found) -> Vec<EntryUuid> {
    found.unpublished.iter().map(|(change, _)| change.uuid).collect()
}

#[test]
fn a_crash_after_which_nothing_differs_sends_nothing() {
    let lab = Lab::new();
    for _ in 0..2 {
        let found = lab.open(&mut three(), false);
        assert_eq!((sent(&found), found.compare), (vec![], false));
    }
}

#[test]
fn own_changes_and_deletes_that_the_journal_lacks_are_sent_after_a_crash() {
    let lab = Lab::new();
    let mut database = three();
    lab.open(&mut database, false);
    database.entries[0].1 = Some(csn(105, OWN));
    database.entries.remove(1);
    database.vector.advance(csn(105, OWN));
    let found = lab.open(&mut database, false);
    assert_eq!(sent(&found), [uuid(1), uuid(2)]);
    assert_eq!((found.own_head, found.compare), (Some(csn(101, OWN)), false), "what the journal began with");
}

#[test]
fn a_state_that_a_comparison_brought_before_a_crash_is_compared_again_and_not_sent() {
    let lab = Lab::new();
    let mut database = three();
    lab.open(&mut database, false);
    database.entries.push((uuid(4), Some(csn(9, 3))));
    let found = lab.open(&mut database, false);
    assert_eq!((sent(&found), found.compare), (vec![], true));
}

#[test]
fn what_offline_tools_brought_is_sent_whatever_its_csn() {
    let lab = Lab::new();
    let mut database = three();
    database.generation.transaction = 12;
    // Of no server, of one that nobody knows, and one that was deleted here.
    database.entries.extend([
        (uuid(4), Some(csn(9, 0))),
        (uuid(5), Some(csn(9, 3))),
        (uuid(6), Some(csn(1, 2))),
        (uuid(7), None),
    ]);
    let mut found = lab.open(&mut database, true);
    found.unpublished.sort_by_key(|(change, _)| change.uuid);
    assert_eq!(sent(&found), [uuid(4), uuid(5), uuid(6), uuid(7)]);
    // They did not get into the journal.
    assert_eq!(sent(&lab.open(&mut database, false)).len(), 0, "the last end was a clean one");
    assert_eq!(sent(&lab.open(&mut database, false)).len(), 4);
}

#[test]
fn another_file_is_a_database_that_was_put_back_however_many_transactions_it_had() {
    let lab = Lab::new();
    let mut database = three();
    database.generation = Generation { file: 8, transaction: 1_000 };
    database.entries.remove(0);
    let found = lab.open(&mut database, true);
    assert_eq!((sent(&found), found.compare), (vec![], true));
}

/// The journal notes once a second where the database is. What was written after that, and was not in the copy, was taken
/// for deleted by offline tools, and deleted everywhere.
#[test]
fn a_copy_from_just_before_a_clean_end_is_a_database_that_was_put_back() {
    let lab = Lab::new();
    let (mut journal, _) = Journal::open(lab.0.path(), "dc=x").unwrap();
    journal.write(&[Record::Put { uuid: uuid(4), csn: csn(5, OWN) }]).unwrap();
    let end = Generation { transaction: 11, ..three().generation };
    journal.close(&end.encode()).unwrap();
    let found = lab.open(&mut three(), true);
    assert_eq!((sent(&found), found.compare), (vec![], true));
}

#[test]
fn an_entry_older_than_the_journal_saw_it_is_a_database_that_was_put_back() {
    let lab = Lab::new();
    let mut database = three();
    lab.open_with(&mut database, true, &[Record::Put { uuid: uuid(2), csn: csn(8, 2) }]);
    database.generation.transaction = 11;
    database.entries.remove(0);
    let found = lab.open(&mut database, true);
    assert_eq!((sent(&found), found.compare), (vec![], true));
}

#[test]
fn that_a_database_was_put_back_is_remembered_until_it_is_mended() {
    let lab = Lab::new();
    let mut database = three();
    lab.open_with(&mut database, true, &[Record::Head(csn(50, OWN))]);
    database.generation.file = 8;
    for clean in [false, true, true] {
        assert!(lab.open(&mut database, clean).compare);
    }
    lab.open_with(&mut database, true, &[Record::PutBack(false)]);
    assert!(!lab.open(&mut database, true).compare);
}

/// What this server made and lost counts as unseen, whatever it makes later; and all the others get to know.
#[test]
fn what_a_database_that_was_put_back_lacks_of_its_own_is_unseen_for_good() {
    let lab = Lab::new();
    lab.expire();
    let mut database = three();
    lab.open_with(&mut database, true, &[Record::Head(csn(50, OWN))]);
    database.generation.file = 8;
    let own = csn(1, OWN).server_id();
    let first = lab.open(&mut database, true);
    assert_eq!((first.vector.get(own), first.own_head), (Some(csn(111, OWN)), Some(csn(111, OWN))));
    database.vector.advance(csn(200, OWN));
    for clean in [false, true] {
        assert_eq!(lab.open(&mut database, clean).vector.get(own), Some(csn(200, OWN)));
        let unseen = lab.unseen();
        assert!(unseen.contains(csn(50, OWN)) && unseen.contains(csn(111, OWN)));
        assert!(!unseen.contains(csn(112, OWN)) && !unseen.contains(csn(2, 2)));
    }
}

/// What was refused is forgotten with the journal, and must not look deleted.
#[test]
fn a_database_without_a_journal_has_seen_nothing_but_what_its_server_made() {
    let unseen = Lab::new().unseen();
    assert!(unseen.contains(csn(2, 2)), "it may have been refused");
    assert!(!unseen.contains(csn(1, OWN)), "what of that is not there was deleted");
    assert!(unseen.contains(csn(2, OWN)), "it may have made more, and been put back");
    assert!(!unseen.contains(csn(102, OWN)), "that is made from now on");
}

#[test]
fn a_database_put_back_without_a_context_csn_has_seen_nothing() {
    let lab = Lab::new();
    lab.expire();
    assert_eq!(lab.unseen(), Unseen::default());
    let mut database = Fake { guessed: true, ..three() };
    database.generation.file = 8;
    lab.open(&mut database, true);
    let unseen = lab.unseen();
    assert!(unseen.contains(csn(1, OWN)) && unseen.contains(csn(1, 2)) && unseen.contains(csn(2, 2)));
}

/// What a peer gave back is in the journal before it is in the database.
#[test]
fn own_changes_that_only_the_journal_has_after_a_crash_are_unseen() {
    let lab = Lab::new();
    lab.expire();
    lab.open_with(&mut three(), false, &[Record::Head(csn(120, OWN))]);
    lab.open(&mut three(), false);
    let unseen = lab.unseen();
    assert!(unseen.contains(csn(120, OWN)) && !unseen.contains(csn(121, OWN)) && !unseen.contains(csn(2, 2)));
}

#[test]
fn an_empty_database_begins_without_anything_unseen() {
    let lab = Lab(tempfile::tempdir().unwrap());
    let mut database = Fake { entries: vec![], vector: Vector::default(), ..three() };
    assert_eq!(lab.open(&mut database, true).vector, Vector::default());
    assert_eq!(lab.unseen(), Unseen::default());
}

#[test]
fn a_database_without_a_journal_tells_by_itself_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing can be made below a file.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (journal, found) = open(&file, "dc=x", &mut three(), ServerId::new(OWN).unwrap()).unwrap();
    assert!(journal.is_none() && !found.loading && !found.compare);
    assert_eq!((found.vector, found.own_head), (three().vector, Some(csn(1, OWN))));
}

#[test]
fn a_journal_that_is_in_use_is_not_gone_without() {
    let dir = tempfile::tempdir().unwrap();
    let _other = Journal::open(dir.path(), "dc=x").unwrap();
    let opened = open(dir.path(), "dc=x", &mut three(), ServerId::new(OWN).unwrap());
    assert!(matches!(opened, Err(OpeningError::Journal(JournalError::InUse(_)))));
}

/// The journal was lost, or made from the half filled database, while that was loaded.
#[test]
fn an_unfinished_load_is_begun_anew_whatever_became_of_the_journal() {
    let own = ServerId::new(OWN).unwrap();
    for spoil in ["", "lost", "made anew"] {
        let lab = Lab::new();
        loading::note(lab.0.path()).unwrap();
        match spoil {
            "lost" => std::fs::remove_file(lab.0.path().join("journal.redb")).unwrap(),
            "made anew" => drop(Journal::anew(lab.0.path(), "dc=x").unwrap()),
            _ => {}
        }
        for _ in 0..2 {
            let (journal, found) = open(lab.0.path(), "dc=x", &mut three(), own).unwrap();
            assert!(found.loading, "{spoil}");
            assert!(found.vector.iter().all(|csn| csn.server_id() == own), "{spoil}");
            drop(journal);
        }
    }
}

/// Of what is aside the journal knows: who is displaced, who is glue, and who is in the inventory.
fn aside(lab: &Lab) -> (Vec<EntryUuid>, Vec<EntryUuid>, Vec<EntryUuid>) {
    let (journal, _) = Journal::open(lab.0.path(), "dc=x").unwrap();
    let displaced = journal.displaced().unwrap();
    assert!(
        displaced.iter().all(|(_, place)| place.parent == uuid(9) && place.rdn == "cn=b"),
        "{displaced:?}"
    );
    let mut inventory = Vec::new();
    journal.inventory_for_each(|uuid, _| inventory.push(uuid)).unwrap();
    (displaced.into_iter().map(|(uuid, _)| uuid).collect(), journal.glue().unwrap(), inventory)
}

#[test]
fn what_is_displaced_or_glue_is_known_from_the_entries_with_a_new_journal_and_after_a_crash() {
    let lab = Lab::new();
    let mut database = three();
    database.aside = [(uuid(2), DISPLACED), (uuid(3), GLUE)].into();
    let expected = (vec![uuid(2)], vec![uuid(3)], vec![uuid(1), uuid(2)]);
    lab.open(&mut three(), false);
    let found = lab.open(&mut database, false);
    assert_eq!((sent(&found), found.compare), (vec![], false));
    assert_eq!(aside(&lab), expected);
    // A new one.
    let new = Lab(tempfile::tempdir().unwrap());
    new.open(&mut database, false);
    assert_eq!(aside(&new), expected);
    // Both were mended before the next crash; the entry of the glue is gone.
    let mut mended = three();
    mended.entries.pop();
    let found = lab.open(&mut mended, false);
    assert_eq!((sent(&found), found.compare), (vec![], false));
    assert_eq!(aside(&lab), (vec![], vec![], vec![uuid(1), uuid(2)]));
}

#[test]
fn what_clients_changed_before_the_process_was_killed_is_sent_as_they_changed_it() {
    let lab = Lab::new();
    let mut database = three();
    lab.open(&mut database, false);
    let change = |second, number, operation: Operation| Change {
        csn: csn(second, OWN),
        uuid: uuid(number),
        parent: Some(uuid(9)),
        operation,
    };
    let modify = || Operation::Modify(LdapModifyRequest { dn: "cn=x,dc=x".to_owned(), changes: Vec::new() });
    let delete = || Operation::Delete { dn: "cn=x,dc=x".to_owned() };
    let kept = [
        (change(105, 1, modify()), None),
        (change(106, 1, modify()), None),
        (change(107, 2, delete()), Some(uuid(9))),
        (change(108, 3, modify()), None),
    ];
    // The last one was not on disk when the power went.
    let lost = (change(110, 1, modify()), None);
    let pending = Pending::begin(lab.0.path()).unwrap();
    kept.iter().chain([&lost]).for_each(|(change, parent)| pending.push(change, *parent).unwrap());
    database.entries[0].1 = Some(csn(106, OWN));
    database.entries.remove(1);
    // That change was not kept.
    database.entries[1].1 = Some(csn(109, OWN));
    database.vector.advance(csn(109, OWN));
    let found = lab.open(&mut database, false);
    assert_eq!(found.unpublished[..4], kept);
    let csns: Vec<Csn> = found.unpublished.iter().map(|(change, _)| change.csn).collect();
    assert_eq!(csns[4..], [csn(109, OWN)], "the third entry as it is");
}

#[test]
fn what_follows_a_change_that_was_not_kept_is_sent_as_the_entries_are() {
    let lab = Lab::new();
    let mut database = three();
    lab.open(&mut database, false);
    let modify = |second, number| {
        let dn = "x".repeat(if second == 106 { 2 << 20 } else { 1 });
        let operation = Operation::Modify(LdapModifyRequest { dn, changes: Vec::new() });
        Change { csn: csn(second, OWN), uuid: uuid(number), parent: None, operation }
    };
    let pending = Pending::begin(lab.0.path()).unwrap();
    for change in [modify(105, 1), modify(106, 2), modify(107, 2)] {
        pending.push(&change, None).unwrap();
    }
    (database.entries[0].1, database.entries[1].1) = (Some(csn(105, OWN)), Some(csn(107, OWN)));
    database.vector.advance(csn(107, OWN));
    let found = lab.open(&mut database, false);
    let is_modify = |change: &Change| matches!(change.operation, Operation::Modify(_));
    let sent: Vec<(Csn, bool)> =
        found.unpublished.iter().map(|(change, _)| (change.csn, is_modify(change))).collect();
    assert_eq!(sent, [(csn(105, OWN), true), (csn(107, OWN), false)]);
}

#[test]
fn moves_that_were_not_noted_are_known_from_the_changes() {
    let lab = Lab::new();
    let mut database = three();
    let request = LdapModifyDNRequest {
        dn: "cn=x,dc=x".to_owned(),
        newrdn: "cn=x".to_owned(),
        deleteoldrdn: false,
        new_superior: Some("ou=y,dc=x".to_owned()),
    };
    let made = Change {
        csn: csn(150, OWN),
        uuid: uuid(4),
        parent: Some(uuid(8)),
        operation: Operation::ModifyDn { request, operational: Vec::new() },
    };
    let record = Record::Change { boot: BootId::new(1), seq: 1, change: Arc::new(made) };
    lab.open_with(&mut database, false, &[record, Record::Head(csn(150, OWN))]);
    lab.open(&mut database, false);
    let (journal, _) = Journal::open(lab.0.path(), "dc=x").unwrap();
    let moves = journal.moves().unwrap();
    let known = Move { csn: csn(150, OWN), child: uuid(4), from: None, to: uuid(8), made: true };
    assert_eq!(moves, [known], "the entry is not there any more");
}
