//! What comparing two databases costs: `cargo run --release -p xmppsync-replica --example compare_cost`.
//!
//! Rounds are questions with their answers, bytes are those of the frames before base64, and the time is that of the
//! processor for both sides together: "set" for reading both inventories into sets, "compare" for all frames.

use std::error::Error;
use std::fs;
use xmppsync_replica::{Comparison, Csn, EntrySet, EntryUuid, Fingerprint, Step};

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "{:>9} {:>11} {:>6} {:>11} {:>9} {:>11}",
        "entries", "differences", "rounds", "bytes", "set", "compare"
    );
    for (entries, differences) in [(100_000, 0), (100_000, 100), (100_000, 10_000), (1_000_000, 100)] {
        measure(entries, differences)?;
    }
    Ok(())
}

/// `differences` entries were changed on the other side, evenly spread.
fn measure(entries: u32, differences: u32) -> Result<(), Box<dyn Error>> {
    let begin = processor_seconds()?;
    let here = set(entries, |_| false)?;
    let every = entries.checked_div(differences).unwrap_or(u32::MAX);
    let there = set(entries, |number| number % every == every / 2)?;
    let made = processor_seconds()?;
    let (mut comparison, mut frame) = Comparison::begin(here)?;
    let (mut rounds, mut bytes) = (0, 0);
    let found = loop {
        let answer = there.answer(&frame)?;
        rounds += 1;
        bytes += frame.len() + answer.len();
        match comparison.step(&answer)? {
            Step::Ask(next) => frame = next,
            Step::Done(found) => break found,
        }
    };
    let compared = processor_seconds()?;
    if (found.here.len(), found.there.len()) != (differences as usize, differences as usize) {
        return Err(format!("{} and {} were found", found.here.len(), found.there.len()).into());
    }
    println!(
        "{entries:>9} {differences:>11} {rounds:>6} {bytes:>11} {:>7.2} s {:>9.3} s",
        made - begin,
        compared - made
    );
    Ok(())
}

fn set(entries: u32, changed: impl Fn(u32) -> bool) -> Result<EntrySet, Box<dyn Error>> {
    let entries = (0..entries).map(|number| entry(number, changed(number)));
    Ok(EntrySet::new(entries.collect::<Result<Vec<_>, _>>()?)?)
}

/// Uuids are spread as random ones are; a thousand entries were written in each second.
fn entry(number: u32, changed: bool) -> Result<(EntryUuid, Csn, Fingerprint), Box<dyn Error>> {
    let uuid = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let (second, micros) = (number / 1_000, number % 1_000 * 1_000);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let day = if changed { 2 } else { 1 };
    let csn = format!("202611{day:02}{hour:02}{minute:02}{second:02}.{micros:06}Z#000000#001#000000");
    let print = Fingerprint::from_bytes([0; Fingerprint::BYTES]);
    Ok((EntryUuid::from_bytes(uuid.to_be_bytes()), csn.parse()?, print))
}

/// Of this thread; the machine does other things too.
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("no figure")?.parse()?;
    Ok(nanoseconds / 1e9)
}
