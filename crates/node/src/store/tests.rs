//! What becomes of a journal that fails while the database is in use.

use super::*;
use crate::host::{DumpEnd, Failure, Reader};
use crate::testing::Nothing;
use std::time::Instant;
use tempfile::TempDir;
use xmppsync_journal::{Peer, SetAside};
use xmppsync_replica::{Change, ServerId};

/// A database with these entries; the host wants its thread back so many times.
struct Entries(Vec<(EntryUuid, Csn)>, usize);

impl Reader for Entries {
    fn read_entry(&mut self, _uuid: &EntryUuid) -> Result<Option<Change>, Failure> {
        Ok(None)
    }
    fn dump(&mut self, _each: &mut dyn FnMut(Change) -> bool) -> Result<DumpEnd, Failure> {
        Ok(DumpEnd::Whole)
    }
    fn read_all(&mut self, _each: &mut dyn FnMut(Change) -> bool) -> Result<DumpEnd, Failure> {
        Ok(DumpEnd::Whole)
    }
    fn scan(&mut self, each: &mut dyn FnMut(EntryUuid, Csn) -> bool) -> Result<DumpEnd, Failure> {
        for (uuid, csn) in &self.0 {
            if !each(*uuid, *csn) {
                return Ok(DumpEnd::Stopped);
            }
        }
        if self.1 == 0 {
            return Ok(DumpEnd::Whole);
        }
        self.1 -= 1;
        Ok(DumpEnd::Yielded)
    }
    fn must_yield(&self) -> bool {
        false
    }
}

fn csn(second: u32) -> Csn {
    format!("202611222359{second:02}.000000Z#000000#001#000000").parse().unwrap()
}

fn uuid(number: u8) -> EntryUuid {
    EntryUuid::from_bytes([number; 16])
}

fn put(number: u8, second: u32) -> Record {
    Record::Put { uuid: uuid(number), csn: csn(second) }
}

struct Rig {
    store: Store,
    dir: TempDir,
}

impl Rig {
    /// With a journal, or in a place where none can be made.
    fn new(with_journal: bool) -> Rig {
        let dir = TempDir::new().unwrap();
        let place = dir.path().join("journal");
        let journal = match with_journal {
            true => Some(Journal::open(&place, "dc=x").unwrap().0),
            false => {
                std::fs::write(&place, "").unwrap();
                None
            }
        };
        let retention = Retention { age_seconds: u64::MAX, bytes_max: u64::MAX };
        let rebuild_pause = Duration::from_millis(20);
        let config = StoreConfig { dir: place, nsuffix: "dc=x".to_owned(), retention, rebuild_pause };
        let vector = [csn(1)].into_iter().collect();
        let store =
            Store::start(journal, config, &vector, &Arc::default(), Arc::new(Nothing), Arc::default())
                .unwrap();
        Rig { store, dir }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn fail(&self) {
        let asked = self.store.ask(|_| Err::<(), _>(JournalError::Failed("as told".to_owned())));
        assert!(asked.blocking_recv().is_err());
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Option<T> {
        self.store.ask(question).blocking_recv().ok()
    }

    fn inventory(&self) -> Option<Vec<(EntryUuid, Csn)>> {
        self.ask(|journal| {
            let mut entries = Vec::new();
            journal.inventory_for_each(|uuid, csn| entries.push((uuid, csn)))?;
            Ok(entries)
        })
    }

    fn scan(&self) -> Scan {
        wait(|| self.store.take_scan())
    }
}

fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_journal_that_failed_is_made_from_the_database_and_from_what_happens_meanwhile() {
    let rig = Rig::new(true);
    let server = ServerId::new(2).unwrap();
    let peer = Peer { jid: "b@x".to_owned(), server, vector: Vector::default(), seen: 1 };
    let refused = SetAside { csn: csn(2), uuid: uuid(8), reason: "refused".to_owned() };
    rig.store.write(vec![put(1, 3), Record::Head(csn(3)), Record::Peer(peer), Record::SetAside(refused)]);
    rig.fail();
    // Nobody keeps this.
    rig.store.write(vec![Record::Head(csn(5)), put(4, 5)]);
    let scan = rig.scan();
    assert!(rig.inventory().is_none() && rig.store.is_filling());
    // Later than what is read: seen before it, and after it.
    rig.store.write(vec![put(1, 7), Record::Gone { uuid: uuid(2), csn: csn(8), at: 9 }]);
    let mut database = Entries(vec![(uuid(1), csn(3)), (uuid(2), csn(4)), (uuid(3), csn(5))], 1);
    let scan = scan.run(&mut database).unwrap();
    assert!(scan.run(&mut database).is_none());
    rig.store.write(vec![put(3, 9), Record::Head(csn(9))]);
    let inventory = wait(|| rig.inventory());
    assert_eq!(inventory, [(uuid(1), csn(7)), (uuid(3), csn(9))]);
    assert!(!rig.store.is_filling() && rig.store.queued_bytes() == 0);
    let (floor, head, gone, peers, refused) = rig
        .ask(|journal| {
            let gone = journal.tombstone(uuid(2))?;
            let (floor, head) = (journal.floor().clone(), journal.head().clone());
            Ok((floor, head, gone, journal.peers()?, journal.set_asides()?))
        })
        .unwrap();
    assert_eq!((floor, head), ([csn(5)].into_iter().collect(), [csn(9)].into_iter().collect()));
    assert_eq!((gone, peers.len(), refused.len()), (Some((csn(8), 9)), 1, 1));
    assert!(rig.place().join("journal.redb.aside-1").exists());
    rig.store.close(b"clean".to_vec(), Duration::from_secs(60));
    let (_, opened) = Journal::open(&rig.place(), "dc=x").unwrap();
    let clean = Some(b"clean".to_vec());
    assert_eq!(opened, xmppsync_journal::Opened::Existing { clean, loading: None });
}

#[test]
fn a_reading_that_did_not_come_to_its_end_is_asked_for_again_and_a_late_one_is_of_no_use() {
    let rig = Rig::new(true);
    rig.fail();
    drop(rig.scan());
    let late = rig.scan();
    assert!(rig.inventory().is_none());
    // The new journal fails as well; the entry is deleted before the next one is there.
    let failing = rig.place().join("journal.redb");
    assert!(failing.exists());
    rig.store.state.filling.store(0, Ordering::Release);
    assert!(late.run(&mut Entries(vec![(uuid(1), csn(3))], 0)).is_none());
    assert!(rig.scan().run(&mut Entries(vec![(uuid(2), csn(3))], 0)).is_none());
    assert_eq!(wait(|| rig.inventory()).len(), 1);
}

#[test]
fn a_store_without_a_journal_has_one_as_soon_as_it_can_be_made() {
    let rig = Rig::new(false);
    let ticket = rig.store.write(vec![put(1, 2), Record::Head(csn(2))]);
    wait(|| rig.store.is_done(ticket).then_some(()));
    assert!(rig.inventory().is_none() && rig.store.take_scan().is_none());
    std::fs::remove_file(rig.place()).unwrap();
    assert!(rig.scan().run(&mut Entries(vec![(uuid(1), csn(2))], 0)).is_none());
    assert_eq!(wait(|| rig.inventory()), [(uuid(1), csn(2))]);
    assert_eq!(rig.ask(|journal| Ok(journal.floor().clone())).unwrap(), [csn(2)].into_iter().collect());
}

#[test]
fn a_new_journal_that_is_not_whole_at_the_end_is_not_left_behind() {
    let rig = Rig::new(true);
    rig.fail();
    let _scan = rig.scan();
    rig.store.close(b"clean".to_vec(), Duration::from_secs(60));
    assert!(!rig.place().join("journal.redb").exists());
}

#[test]
fn a_load_is_noted_beside_the_journal_until_it_ends_whatever_becomes_of_that() {
    let rig = Rig::new(true);
    rig.store.note_loading().blocking_recv().unwrap();
    assert!(loading::is_noted(&rig.place()));
    rig.fail();
    assert!(rig.store.note_loading().blocking_recv().is_err(), "a load needs a journal");
    assert!(loading::is_noted(&rig.place()));
    let ticket = rig.store.write(vec![Record::Loading(None)]);
    wait(|| rig.store.is_done(ticket).then_some(()));
    assert!(!loading::is_noted(&rig.place()));
}

#[test]
fn while_the_disk_is_slow_no_more_is_taken_than_may_wait() {
    let rig = Rig::new(true);
    let (goes_on, waits) = mpsc::channel::<()>();
    let slow = rig.store.ask(move |_| Ok(waits.recv().is_ok()));
    assert!(rig.store.has_room());
    // So large that the journal does not take its time to write it.
    let operation =
        xmppsync_replica::Operation::Delete { dn: "x".repeat(limits::JOURNAL_QUEUE_BYTES_MAX + 1) };
    let change = Arc::new(Change { csn: csn(1), uuid: uuid(1), parent: None, operation });
    rig.store.write(vec![Record::Change { boot: xmppsync_replica::BootId::new(1), seq: 1, change }]);
    assert!(!rig.store.has_room());
    goes_on.send(()).unwrap();
    assert!(slow.blocking_recv().unwrap());
    wait(|| rig.store.has_room().then_some(()));
}
