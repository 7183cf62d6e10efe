//! Clients of two servers give and take the same few names at once.
//!
//! A client names an entry by its DN. While its write waits for the changes of another server, that DN may come to another
//! entry; what is sent has to be about the entry that was written to.

use crate::steps::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::thread;
use xmppsync_lab::Ldap;

const NAMES: u32 = 3;
const CLIENTS_PER_SERVER: u64 = 3;
const WRITES: usize = 400;

/// A write to one of the names; what the server refuses is no matter.
fn write(ldap: &mut Ldap, rng: &mut StdRng) {
    let mut name = || format!("n{}", rng.random_range(0..NAMES));
    let (uid, other) = (name(), name());
    let dn = format!("uid={uid},{PEOPLE}");
    let value = rng.random::<u32>().to_string();
    let _ = match rng.random_range(0..10_u32) {
        0..4 => ldap.add(&dn, &person(&uid)),
        4..7 => ldap.delete(&dn),
        7..9 => ldap.rename(&dn, &format!("uid={other}"), None),
        _ => ldap.replace(&dn, "description", &[&value]),
    };
}

#[test]
fn what_is_done_to_a_name_is_done_to_the_same_entry_on_all_servers() {
    let group = group(2);
    thread::scope(|scope| {
        for (number, server) in group.servers.iter().enumerate() {
            for client in 0..CLIENTS_PER_SERVER {
                scope.spawn(move || {
                    let mut rng = StdRng::seed_from_u64(client * 2 + number as u64);
                    let mut ldap = server.ldap().unwrap();
                    (0..WRITES).for_each(|_| write(&mut ldap, &mut rng));
                });
            }
        }
    });
    settle(&group);
    for server in &group.servers {
        let log = server.log();
        for unexpected in ["set aside", "bug:", "is not replicated", "does not reach back"] {
            assert!(!log.contains(unexpected), "on {}:\n{}", server.name(), complaints(server));
        }
    }
}
