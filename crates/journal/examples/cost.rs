//! What a group commit costs: `cargo run --release --example cost -- DIRECTORY [ENTRIES]`.
//!
//! Modifies of random entries, each with its entry in the inventory, in transactions of 1, 10, 50 and 500. Then they are read: in
//! pages, and by entry; and half of them is trimmed.

use ldap3_proto::proto::{LdapModify, LdapModifyRequest, LdapModifyType, LdapPartialAttribute};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xmppsync_journal::pending::Pending;
use xmppsync_journal::{Journal, Record, Retention};
use xmppsync_replica::{BootId, Change, Csn, EntryUuid, Operation, Vector};

/// Of each size of transaction, so that two runs compare.
const CHANGES: [(u64, u64); 4] = [(1, 2_000), (10, 20_000), (50, 100_000), (500, 200_000)];
const PAGE_BYTES: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: cost DIRECTORY [ENTRIES]")?;
    let entries: u64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let dir = Path::new(&dir).join("xmppsync-journal-cost");
    let (mut journal, _) = Journal::open(&dir, "dc=example,dc=org")?;
    let start = csn(0)?;
    for from in (0..entries).step_by(10_000) {
        let puts =
            (from..entries.min(from + 10_000)).map(|entry| Record::Put { uuid: uuid(entry), csn: start });
        journal.write(&puts.collect::<Vec<_>>())?;
    }
    println!("{entries} entries in the inventory");
    let mut seq = 0;
    for (size, changes) in CHANGES {
        group_commits(&mut journal, size, changes, entries, &mut seq)?;
    }
    keep(&dir, entries, seq)?;
    println!("{seq} changes: {} bytes, file {} bytes", journal.bytes(), journal.file_bytes()?);
    read_back(&journal)?;
    read_by_entry(&journal, entries)?;
    // As kill -9 leaves it.
    let copy = dir.join("crashed");
    std::fs::create_dir_all(&copy)?;
    std::fs::copy(dir.join("journal.redb"), copy.join("journal.redb"))?;
    let begun = Instant::now();
    drop(Journal::open(&copy, "dc=example,dc=org")?);
    println!("opening after a crash: {:?}", begun.elapsed());
    drop(journal);
    let begun = Instant::now();
    let (mut journal, _) = Journal::open(&dir, "dc=example,dc=org")?;
    println!("opening after a close: {:?}", begun.elapsed());
    trim(&mut journal)?;
    drop(journal);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Beside the journal, as a client's thread does before it answers.
fn keep(dir: &Path, entries: u64, from: u64) -> Result<(), Box<dyn Error>> {
    const KEPT: u64 = 100_000;
    let pending = Pending::begin(dir)?;
    let changes = (from + 1..=from + KEPT).map(|seq| modify(seq, entries)).collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    for change in &changes {
        pending.push(change, None)?;
    }
    println!("kept beside it: {:7.1} us per change", begun.elapsed().as_secs_f64() * 1e6 / KEPT as f64);
    Ok(())
}

fn group_commits(
    journal: &mut Journal,
    size: u64,
    changes: u64,
    entries: u64,
    seq: &mut u64,
) -> Result<(), Box<dyn Error>> {
    let (begun, cpu_before, first) = (Instant::now(), cpu()?, *seq);
    while *seq < first + changes {
        let mut records = Vec::new();
        for _ in 0..size {
            *seq += 1;
            let change = modify(*seq, entries)?;
            records.push(Record::Put { uuid: change.uuid, csn: change.csn });
            records.push(Record::Change { boot: BootId::new(1), seq: *seq, change: Arc::new(change) });
        }
        records.push(Record::Head(csn(*seq)?));
        journal.write(&records)?;
    }
    let changes = (*seq - first) as f64;
    let rate = changes / begun.elapsed().as_secs_f64();
    let cpu = (cpu()? - cpu_before).as_secs_f64() * 1e6 / changes;
    println!("{size:4} per commit: {rate:8.0} changes/s, {cpu:7.1} us of CPU per change");
    Ok(())
}

fn read_back(journal: &Journal) -> Result<(), Box<dyn Error>> {
    let (begun, mut after, mut count) = (Instant::now(), Vector::default(), 0);
    loop {
        let page = journal.changes(&after, PAGE_BYTES)?;
        for run in &page.runs {
            count += run.batch.changes.len();
            run.batch.changes.iter().for_each(|change| after.advance(change.csn));
        }
        if !page.more {
            break;
        }
    }
    println!("read in pages: {:.0} changes/s", count as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// All changes of some entries.
fn read_by_entry(journal: &Journal, entries: u64) -> Result<(), Box<dyn Error>> {
    const ENTRIES: u64 = 10_000;
    let (begun, first, mut count) = (Instant::now(), csn(0)?, 0);
    for entry in 0..ENTRIES {
        count += journal.later(uuid(entry * 7 % entries), Some(first), |_| false)?.len();
    }
    let micros = begun.elapsed().as_secs_f64() * 1e6;
    println!(
        "by entry: {:.1} us per entry with {:.1} changes",
        micros / ENTRIES as f64,
        count as f64 / ENTRIES as f64
    );
    Ok(())
}

fn trim(journal: &mut Journal) -> Result<(), Box<dyn Error>> {
    let limits = Retention { age_seconds: u64::MAX, bytes_max: journal.bytes() / 2 };
    let (begun, cpu_before, mut dropped) = (Instant::now(), cpu()?, 0);
    loop {
        let trimmed = journal.trim(0, limits, &[])?;
        dropped += trimmed.dropped;
        if !trimmed.more {
            break;
        }
    }
    let cpu = (cpu()? - cpu_before).as_secs_f64() * 1e6 / dropped as f64;
    let rate = dropped as f64 / begun.elapsed().as_secs_f64();
    println!("trimmed: {rate:.0} changes/s, {cpu:.1} us of CPU per change");
    Ok(())
}

fn modify(seq: u64, entries: u64) -> Result<Change, Box<dyn Error>> {
    let replace = |name: &str, value: &str| LdapModify {
        operation: LdapModifyType::Replace,
        modification: LdapPartialAttribute { atype: name.to_owned(), vals: vec![value.into()] },
    };
    let csn = csn(seq)?;
    let changes = vec![
        replace("description", "a text of the usual length, as people write them"),
        replace("entryCSN", csn.as_str()),
        replace("modifiersName", "cn=admin,dc=example,dc=org"),
        replace("modifyTimestamp", "20261122230000Z"),
    ];
    let dn = format!("uid=user{seq},ou=people,dc=example,dc=org");
    let entry = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) % entries;
    let operation = Operation::Modify(LdapModifyRequest { dn, changes });
    Ok(Change { csn, uuid: uuid(entry), parent: None, operation })
}

fn csn(tick: u64) -> Result<Csn, Box<dyn Error>> {
    let (second, micros) = (tick / 10_000, tick % 10_000);
    let text = format!(
        "202611{:02}{:02}{:02}{:02}",
        second / 86_400 + 1,
        second / 3_600 % 24,
        second / 60 % 60,
        second % 60
    );
    Ok(format!("{text}.{micros:06}Z#000000#001#000000").parse()?)
}

/// Scattered, as the time-based ones of slapd are over a day.
fn uuid(entry: u64) -> EntryUuid {
    EntryUuid::from_bytes(
        u128::from(entry).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes(),
    )
}

/// Time of this process on a processor, in user and system mode.
fn cpu() -> Result<Duration, Box<dyn Error>> {
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields.get(11..13).ok_or("stat")?.iter().map(|ticks| ticks.parse().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}
