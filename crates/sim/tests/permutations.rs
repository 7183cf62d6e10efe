//! Any order in which the changes of some servers come, with any of them repeated, gives one tree.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers may fail a test.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use xmppsync_replica::{Change, Csn, EntryUuid, Operation};
use xmppsync_sim::{Model, ops};

fn csn(count: u64, server: usize) -> Csn {
    format!("20261122000000.{count:06}Z#000000#{server:03x}#000000").parse().unwrap()
}

fn fresh() -> Model {
    Model::new(EntryUuid::from_bytes([1; 16]), csn(0, 1))
}

/// Servers that write, and now and then read what the others wrote: all of an origin's up to somewhere.
fn history(rng: &mut StdRng, servers: usize, writes: usize) -> Vec<Vec<Arc<Change>>> {
    let mut models = vec![fresh(); servers];
    let mut written: Vec<Vec<Arc<Change>>> = vec![Vec::new(); servers];
    let mut read = vec![vec![0; servers]; servers];
    let mut clocks = vec![1u64; servers];
    for _ in 0..writes {
        let server = rng.random_range(0..servers);
        if rng.random_bool(0.4) {
            let origin = rng.random_range(0..servers);
            let upto = rng.random_range(read[server][origin]..=written[origin].len());
            if origin != server {
                for change in &written[origin][read[server][origin]..upto] {
                    models[server].apply(change);
                    let count: u64 = change.csn.as_str()[15..21].parse().unwrap();
                    clocks[server] = clocks[server].max(count);
                }
                read[server][origin] = upto;
            }
        }
        clocks[server] += rng.random_range(1..3);
        let made =
            ops::try_one(&mut models[server], csn(clocks[server], server + 1), ops::Mix::default(), rng);
        written[server].extend(made);
    }
    written
}

fn shuffled(rng: &mut StdRng, written: &[Vec<Arc<Change>>]) -> Vec<Arc<Change>> {
    let mut all: Vec<Arc<Change>> = written.iter().flatten().cloned().collect();
    all.shuffle(rng);
    all
}

fn is_idempotent(change: &Change) -> bool {
    let Operation::Modify(request) = &change.operation else { return true };
    !request.changes.iter().any(|modify| modify.operation == ldap3_proto::proto::LdapModifyType::Increment)
}

#[test]
fn any_order_and_any_repetition_gives_one_tree() {
    let start: u64 = std::env::var("XMPPSYNC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("XMPPSYNC_SEEDS").ok().and_then(|seed| seed.parse().ok()).unwrap_or(300);
    for seed in start..start + count {
        let mut rng = StdRng::seed_from_u64(seed);
        let servers = rng.random_range(2..=4);
        let writes = rng.random_range(2..=if seed % 3 == 0 { 12 } else { 60 });
        let written = history(&mut rng, servers, writes);
        let mut first: Option<(Model, Vec<Arc<Change>>)> = None;
        for _ in 0..4 {
            let order = shuffled(&mut rng, &written);
            let mut model = fresh();
            for (at, change) in order.iter().enumerate() {
                model.apply(change);
                if at > 0 && rng.random_bool(0.1) && is_idempotent(&order[at - 1]) {
                    model.apply(&order[at - 1]);
                }
            }
            let waiting: Vec<_> = model.waiting().map(|change| format!("{change:?}")).collect();
            assert!(waiting.is_empty(), "seed {seed}: waiting for ever: {waiting:#?}");
            match &first {
                None => first = Some((model, order)),
                Some((other, before)) => {
                    if other.entries() != model.entries() {
                        let show = |order: &[Arc<Change>]| {
                            order
                                .iter()
                                .map(|c| {
                                    format!(
                                        "  {} {} {:?} {:?}\n",
                                        &c.csn.as_str()[15..36],
                                        &c.uuid.to_string()[..4],
                                        c.parent.map(|p| p.to_string()[..4].to_owned()),
                                        c.operation
                                    )
                                })
                                .collect::<String>()
                        };
                        for (uuid, entry) in other.entries() {
                            if model.entries().get(uuid) != Some(entry) {
                                println!("{uuid} one: {entry:?}\n  other: {:?}", model.entries().get(uuid));
                            }
                        }
                        for (uuid, entry) in model.entries() {
                            if !other.entries().contains_key(uuid) {
                                println!("{uuid} only other: {entry:?}");
                            }
                        }
                        panic!(
                            "seed {seed}: divergence\none order:\n{}other order:\n{}",
                            show(before),
                            show(&order)
                        );
                    }
                }
            }
        }
    }
}
