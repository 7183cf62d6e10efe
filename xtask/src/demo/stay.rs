//! After the show: the servers stay, and whatever the user changes is seen arriving.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use xmppsync_lab::ldap3::Scope;
use xmppsync_lab::{Group, Ldap, SUFFIX, ldif};

use super::{heading, interrupted};

const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Entries by entryUUID: DN and entryCSN.
type Seen = BTreeMap<Vec<u8>, (String, Vec<u8>)>;

/// Prints commands to try, then every change on any server, until Ctrl-C.
pub(super) fn until_interrupted(group: &Group) -> Result<()> {
    print_commands(group);
    let mut watched = Vec::new();
    for server in &group.servers {
        let mut ldap = server.ldap()?;
        let seen = look(&mut ldap)?;
        watched.push((server.name(), ldap, seen));
    }
    let begin = Instant::now();
    while !interrupted() {
        for (name, ldap, seen) in &mut watched {
            let now = look(ldap)?;
            for line in news(seen, &now) {
                println!("  {:>8.1?}  {name} ({} entries)  {line}", begin.elapsed(), now.len());
            }
            *seen = now;
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

fn print_commands(group: &Group) {
    let person = ldif::person_dn(SUFFIX, 1);
    heading("Now you. In another terminal, on any of the servers, for example:");
    for server in &group.servers {
        println!(
            "\n  ldapmodify -x -H {} -D cn=admin,{SUFFIX} -w secret <<'.'\n  dn: {person}\n  changetype: \
             modify\n  replace: description\n  description: written on {}\n  .",
            server.uri(),
            server.name()
        );
    }
    if let (Some(first), Some(last)) = (group.servers.first(), group.servers.last()) {
        let bind = format!("-D cn=admin,{SUFFIX} -w secret");
        println!("\n  ldapdelete -x -H {} {bind} {}", last.uri(), ldif::person_dn(SUFFIX, 299));
        println!("  ldapsearch -x -LLL -H {} {bind} -b {SUFFIX} uid=user00001 '*' +", first.uri());
        println!("\nWhat changes where (Ctrl-C ends):");
    }
}

fn look(ldap: &mut Ldap) -> Result<Seen> {
    let found = ldap.search(SUFFIX, Scope::Subtree, "(objectClass=*)", &["entryUUID", "entryCSN"])?;
    let first = |entry: &xmppsync_lab::Entry, name: &str| {
        entry.get(name).and_then(|values| values.first().cloned()).unwrap_or_default()
    };
    let pairs =
        found.into_iter().map(|(dn, entry)| (first(&entry, "entryUUID"), (dn, first(&entry, "entryCSN"))));
    Ok(pairs.collect())
}

/// What changed between two looks, a line each.
fn news(before: &Seen, now: &Seen) -> Vec<String> {
    let mut lines = Vec::new();
    for (uuid, (dn, csn)) in now {
        match before.get(uuid) {
            None => lines.push(format!("new       {dn}")),
            Some((old, _)) if old != dn => lines.push(format!("renamed   {old} → {dn}")),
            Some((_, old)) if old != csn => lines.push(format!("modified  {dn}")),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|(uuid, _)| !now.contains_key(*uuid));
    lines.extend(gone.map(|(_, (dn, _))| format!("deleted   {dn}")));
    lines
}
