//! Many random writes on four servers whose lines are cut and mended: one result.

use crate::steps::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::time::Instant;
use xmppsync_lab::ldap3::{Mod, Scope};
use xmppsync_lab::{ContextCsn, Group, GroupOptions, Ldap, Line, SUFFIX, assert_equal_with};

const SERVERS: usize = 4;
/// Operations, some of which are refused where they are tried; `XMPPSYNC_OPERATIONS` has another number.
const OPERATIONS: usize = 1_000;
/// The lines change after so many.
const OPERATIONS_PER_LINE: usize = 60;
const UNITS_MAX: usize = 40;

fn seed() -> u64 {
    std::env::var("XMPPSYNC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random)
}

fn operations() -> usize {
    let given = std::env::var("XMPPSYNC_OPERATIONS").ok();
    given.and_then(|operations| operations.parse().ok()).unwrap_or(OPERATIONS)
}

/// A group in which each server has a line of its own to the XMPP server.
fn group_with_lines(options: GroupOptions) -> (Group, Vec<Line>) {
    let mut group = Group::prepare(GroupOptions { servers: SERVERS, ..options }).unwrap();
    let mut lines = Vec::new();
    for number in 0..SERVERS {
        let line = Line::to(group.xmpp.lab(), group.xmpp.client_address()).unwrap();
        let mut config = group.config(number).unwrap();
        for text in &mut config.databases[0].overlay_lines {
            if text.starts_with("xmppsync-server ") {
                *text = format!("xmppsync-server {}", line.address());
            }
        }
        group.servers[number].set_config(config).unwrap();
        lines.push(line);
    }
    group.start().unwrap();
    populate(&group);
    (group, lines)
}

/// Some entry of the server, by DN.
fn pick(ldap: &mut Ldap, filter: &str, rng: &mut StdRng) -> Option<String> {
    let found = ldap.search(SUFFIX, Scope::Subtree, filter, &["1.1"]).unwrap();
    found.choose(rng).map(|(dn, _)| dn.clone())
}

/// One write; what the server refuses is no matter.
fn write(ldap: &mut Ldap, rng: &mut StdRng) -> bool {
    let unit = "(objectClass=organizationalUnit)";
    let own = "(&(objectClass=organizationalUnit)(!(ou=people)))";
    let name = format!("u{}", rng.random_range(0..8));
    let value = format!("v{}", rng.random_range(0..6));
    let units = ldap.search(SUFFIX, Scope::Subtree, own, &["1.1"]).unwrap().len();
    let result = match rng.random_range(0..20) {
        0..5 if units < UNITS_MAX => {
            let parent = pick(ldap, unit, rng).unwrap();
            ldap.add(
                &format!("ou={name},{parent}"),
                &[
                    ("objectClass", "organizationalUnit"),
                    ("objectClass", "extensibleObject"),
                    ("ou", &name),
                    ("uidNumber", "1"),
                ],
            )
        }
        0..8 => match pick(ldap, own, rng) {
            Some(dn) => ldap.delete(&dn),
            None => return false,
        },
        8..11 => match (pick(ldap, own, rng), pick(ldap, unit, rng)) {
            (Some(dn), Some(parent)) => {
                let (rdn, _) = dn.split_once(',').unwrap();
                let rdn = if rng.random_bool(0.5) { rdn.to_owned() } else { format!("ou={name}") };
                ldap.rename(&dn, &rdn, Some(&parent))
            }
            _ => return false,
        },
        11..13 => match pick(ldap, own, rng) {
            Some(dn) => ldap.rename(&dn, &format!("ou={name}"), None),
            None => return false,
        },
        kind => match pick(ldap, own, rng) {
            Some(dn) => {
                let modification = match kind {
                    13 | 14 => plus("description", &[&value]),
                    15 => minus("description", &[&value]),
                    16 => set("description", &[&value]),
                    17 => set("title", &[]),
                    18 => set("st", &[&value, "other"]),
                    _ => Mod::Increment("uidNumber".into(), b"1".to_vec()),
                };
                ldap.modify(&dn, vec![modification])
            }
            None => return false,
        },
    };
    result.is_ok()
}

#[test]
fn random_writes_on_four_servers_whose_lines_are_cut_and_mended_have_one_result() {
    have_one_result(GroupOptions::default());
}

/// Everything meets everything at the end.
#[test]
fn random_writes_beside_a_server_that_is_apart_all_the_time_have_one_result() {
    storm(GroupOptions::default(), 1);
}

pub(crate) fn have_one_result(options: GroupOptions) {
    storm(options, 0);
}

/// So many servers are `apart` from the first write to the last.
fn storm(options: GroupOptions, apart: usize) {
    let seed = seed();
    println!("XMPPSYNC_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (group, lines) = group_with_lines(options);
    let mut clients: Vec<Ldap> = group.servers.iter().map(|server| server.ldap().unwrap()).collect();
    let (mut made, begin) = (0, Instant::now());
    let (unsteady, apart) = lines.split_at(SERVERS - apart);
    apart.iter().for_each(Line::cut);
    for operation in 0..operations() {
        if operation % OPERATIONS_PER_LINE == 0 {
            let line = unsteady.choose(&mut rng).unwrap();
            if rng.random_bool(0.6) { line.cut() } else { line.mend() }
        }
        let server = rng.random_range(0..SERVERS);
        made += usize::from(write(&mut clients[server], &mut rng));
    }
    lines.iter().for_each(Line::mend);
    let (writing, begin) = (begin.elapsed(), Instant::now());
    let dump = assert_equal_with(&group.servers, SUFFIX, ContextCsn::Compare, crate::PATIENCE)
        .unwrap_or_else(|different| {
            for server in &group.servers {
                let log = server.log();
                if let Ok(dir) = std::env::var("XMPPSYNC_LOGS") {
                    std::fs::write(format!("{dir}/{}.log", server.name()), &log).unwrap();
                }
                let lines: Vec<&str> = log
                    .lines()
                    .filter(|line| {
                        line.contains("xmppsync")
                            && !line.contains(" card of ")
                            && !line.contains("conflict:")
                    })
                    .collect();
                println!("---- {}\n{}", server.name(), lines[lines.len().saturating_sub(25)..].join("\n"));
            }
            panic!("seed {seed}: {different}")
        });
    let settling = begin.elapsed();
    println!("{made} writes in {writing:.1?}, equal after {settling:.1?}, {} entries", dump.len());
    for server in &group.servers {
        assert!(
            !server.log().contains("set aside"),
            "seed {seed}, on {}:\n{}",
            server.name(),
            complaints(server)
        );
        assert!(!server.log().contains("bug:"), "seed {seed}, on {}:\n{}", server.name(), complaints(server));
    }
}
