//! The changes that the demo makes, one after the other, on all three servers.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use xmppsync_lab::ldap3::Mod;
use xmppsync_lab::ldap3::exop::PasswordModify;
use xmppsync_lab::{Group, Ldap, SUFFIX, Slapd, ldif};

use super::observer::{View, joined, measure};
use super::{go_on, heading};

/// Larger than one stanza may carry.
const LARGE_PHOTO_SIZE: usize = 200_000;
/// By each server; all together not more than there are people.
const WRITES_AT_ONCE: usize = 100;
const HOLDS_WIDTH: usize = 66;

type Write = Box<dyn FnOnce(&mut Ldap) -> Result<()>>;

/// One change: which server gets what written, and how it shows.
struct Change {
    server: usize,
    does: &'static str,
    view: View,
    write: Write,
}

/// Makes each change on its server and prints when each of them showed it.
pub(super) fn show(group: &Group) -> Result<()> {
    heading("Writing on all three; times count from the moment the client sends its change");
    let mut slowest = Vec::new();
    for change in person().into_iter().chain(tree()) {
        go_on()?;
        slowest.push(make(group, change)?);
    }
    slowest.sort();
    if let Some(median) = slowest.get(slowest.len() / 2) {
        println!("\n  {} changes; the median was everywhere after {median:.1?}", slowest.len());
    }
    go_on()?;
    at_once(group)
}

/// Makes one change; how long it took to be seen everywhere.
fn make(group: &Group, change: Change) -> Result<Duration> {
    let writer = &group.servers[change.server];
    let mut ldap = writer.ldap()?;
    println!("\n  {} {}", writer.name(), change.does);
    let mut took = Duration::ZERO;
    let sightings = measure(group, &change.view, || {
        let begin = Instant::now();
        let written = (change.write)(&mut ldap);
        took = begin.elapsed();
        written
    })?;
    for sighting in &sightings {
        let holds: String = sighting.holds.chars().take(HOLDS_WIDTH).collect();
        let wrote = if sighting.server == writer.name() {
            format!("  (written in {took:.1?})")
        } else {
            String::new()
        };
        println!("    {}  {:>8.1?}  {holds}{wrote}", sighting.server, sighting.after);
    }
    Ok(sightings.iter().map(|sighting| sighting.after).max().unwrap_or_default())
}

fn change(
    server: usize,
    does: &'static str,
    view: View,
    write: impl FnOnce(&mut Ldap) -> Result<()> + 'static,
) -> Change {
    Change { server, does, view, write: Box::new(write) }
}

fn dn(relative: &str) -> String {
    format!("{relative},{SUFFIX}")
}

fn value(text: &str) -> HashSet<Vec<u8>> {
    HashSet::from([text.as_bytes().to_vec()])
}

/// The life of an entry.
fn person() -> Vec<Change> {
    let before = || dn("uid=zoe,ou=people");
    let after = || dn("uid=zoë.müller,ou=people");
    vec![
        change(0, "adds a person", View::Entry(before()), move |ldap| {
            let names = [("uid", "zoe"), ("cn", "Zoë Müller"), ("sn", "Müller"), ("mail", "zoe@example.com")];
            Ok(ldap.add(&before(), &[&[("objectClass", "inetOrgPerson")], &names[..]].concat())?)
        }),
        change(
            1,
            "writes titles in two languages",
            View::Values(before(), "title;lang-de", vec!["Geschäftsführerin".to_owned()]),
            move |ldap| {
                let title = Mod::Replace(b"title".to_vec(), value("Managing director"));
                let german = Mod::Replace(b"title;lang-de".to_vec(), value("Geschäftsführerin"));
                Ok(ldap.modify(&before(), vec![title, german])?)
            },
        ),
        change(2, "renames the person", View::Entry(after()), move |ldap| {
            Ok(ldap.rename(&before(), "uid=zoë.müller", None)?)
        }),
        change(
            0,
            "adds a photo, too large for one stanza",
            View::Size(after(), "jpegPhoto", LARGE_PHOTO_SIZE),
            move |ldap| {
                let photo = HashSet::from([ldif::photo(LARGE_PHOTO_SIZE)]);
                Ok(ldap.modify(&after(), vec![Mod::Add(b"jpegPhoto".to_vec(), photo)])?)
            },
        ),
        change(1, "sets a new password", View::Password(after(), "correct horse"), move |ldap| {
            let user = after();
            let new =
                PasswordModify { user_id: Some(&user), old_pass: None, new_pass: Some("correct horse") };
            ldap.raw().extended(new)?.success()?;
            Ok(())
        }),
        change(2, "deletes the person", View::Gone(after()), move |ldap| Ok(ldap.delete(&after())?)),
    ]
}

/// What concerns more than one entry.
fn tree() -> Vec<Change> {
    let department = || dn("ou=Support,ou=organisation");
    let moved = || dn("ou=Hilfe & Beratung,ou=Research,ou=organisation");
    let team = dn("ou=Team 2,ou=Hilfe & Beratung,ou=Research,ou=organisation");
    let group = || dn("cn=group0000,ou=groups");
    vec![
        change(0, "moves a department with its teams below another", View::Entry(team), move |ldap| {
            let superior = dn("ou=Research,ou=organisation");
            Ok(ldap.rename(&department(), "ou=Hilfe & Beratung", Some(&superior))?)
        }),
        change(1, "deletes one of the teams", View::Gone(format!("ou=Team 3,{}", moved())), move |ldap| {
            Ok(ldap.delete(&format!("ou=Team 3,{}", moved()))?)
        }),
        change(
            2,
            "replaces the members of a group",
            View::Values(group(), "member", (1..=3).map(|number| ldif::person_dn(SUFFIX, number)).collect()),
            move |ldap| {
                let members = (1..=3).map(|number| ldif::person_dn(SUFFIX, number).into_bytes()).collect();
                Ok(ldap.modify(&group(), vec![Mod::Replace(b"member".to_vec(), members)])?)
            },
        ),
    ]
}

/// Clients write on all servers at the same moment.
fn at_once(group: &Group) -> Result<()> {
    let servers = group.servers.len();
    let writes = servers * WRITES_AT_ONCE;
    let names = group.servers.iter().map(Slapd::name).collect::<Vec<_>>();
    println!("\n  {} write {WRITES_AT_ONCE} changes each, all at the same moment", names.join(", "));
    let mut took = Duration::ZERO;
    let sightings = measure(group, &View::Count("(employeeType=at once)", writes), || {
        let begin = Instant::now();
        let written = thread::scope(|scope| {
            let write = |(number, server)| scope.spawn(move || write_share(number, servers, server));
            let writers: Vec<_> = group.servers.iter().enumerate().map(write).collect();
            writers.into_iter().try_for_each(joined)
        });
        took = begin.elapsed();
        written
    })?;
    for sighting in &sightings {
        println!("    {}  {:>8.1?}  {}", sighting.server, sighting.after, sighting.holds);
    }
    let slowest = sightings.iter().map(|sighting| sighting.after).max().unwrap_or_default();
    let rate = |time: Duration| writes as f64 / time.as_secs_f64();
    println!("  {writes} changes: {:.0} written, {:.0} everywhere per second", rate(took), rate(slowest));
    Ok(())
}

/// Each server's share is people that no other one writes.
fn write_share(number: usize, servers: usize, server: &Slapd) -> Result<()> {
    let mut ldap = server.ldap()?;
    (0..WRITES_AT_ONCE).map(|write| ldif::person_dn(SUFFIX, write * servers + number)).try_for_each(|dn| {
        ldap.replace(&dn, "employeeType", &["at once"])?;
        Ok(())
    })
}
