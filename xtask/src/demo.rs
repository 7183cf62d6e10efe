//! `cargo xtask demo`: three servers that keep each other equal, to watch and to try.

mod changes;
mod observer;
mod stay;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xmppsync_lab::{Group, GroupOptions, SUFFIX, Slapd, ldif};

use crate::{setup, workspace};

const SERVERS: usize = 3;
const PEOPLE: usize = 300;
const LOAD_DEADLINE: Duration = Duration::from_secs(60);
const SHOW_INTERVAL: Duration = Duration::from_millis(250);
const EQUAL_DEADLINE: Duration = Duration::from_secs(30);

/// Set by Ctrl-C, SIGTERM and SIGHUP. Whoever waits looks at it and returns, so that servers and files go
/// the same way as at the ordinary end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Sets up, builds, and shows. With `once` it ends by itself, well only if all servers are equal.
pub(crate) fn run(once: bool) -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("catching Ctrl-C")?;
    setup::run()?;
    let module = workspace::build_overlay()?;
    let mut group = start(GroupOptions {
        servers: SERVERS,
        module: Some(module),
        // A lab's servers say much about synchronisation; here that would only slow them.
        slapd: xmppsync_lab::SlapdOptions { debug_level: "none".to_owned(), ..Default::default() },
        ..GroupOptions::default()
    })?;
    let shown = show(&group);
    if shown.is_err() && !interrupted() {
        print_logs(&group);
    }
    shown?;
    if !once {
        stay::until_interrupted(&group)?;
        println!("\nstopping");
    }
    for server in &mut group.servers {
        let stopped = server.stop()?;
        println!("slapd {} stopped in {:.2?} with {}", server.name(), stopped.took, stopped.status);
    }
    Ok(())
}

/// Whether the user wants it to end.
fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn go_on() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

fn start(options: GroupOptions) -> Result<Group> {
    heading("Starting one ejabberd and three slapds, with empty databases");
    let mut group = Group::prepare(options)?;
    go_on()?;
    let xmpp = &group.xmpp;
    println!("  {}  {}  ready after {:.1?}", xmpp.program(), xmpp.client_address(), xmpp.start_took());
    for server in &mut group.servers {
        let begin = Instant::now();
        server.start()?;
        println!("  slapd {}   {}  ready after {:.1?}", server.name(), server.uri(), begin.elapsed());
    }
    println!("  all files are in {} and go away at the end", group.lab.path().display());
    Ok(group)
}

/// Everything that ends by itself.
fn show(group: &Group) -> Result<()> {
    load(group)?;
    changes::show(group)?;
    compare(group)
}

/// Loads the directory on the first server and shows it arriving on the others.
fn load(group: &Group) -> Result<()> {
    let records = ldif::directory(SUFFIX, PEOPLE);
    let first = &group.servers[0];
    heading(&format!("Loading {} entries into {}", records.len(), first.name()));
    let begin = Instant::now();
    first.ldapmodify(SUFFIX, &ldif::text(&records))?;
    println!("  written on {} in {:.2?}", first.name(), begin.elapsed());
    let mut shown = String::new();
    let mut shown_at = begin;
    loop {
        go_on()?;
        let counts = group.servers.iter().map(entry_count).collect::<Result<Vec<_>>>()?;
        let names = group.servers.iter().map(Slapd::name);
        let line = names.zip(&counts).map(|(name, count)| format!("{name} {count:>5}")).collect::<Vec<_>>();
        let line = line.join("   ");
        let complete = counts.iter().all(|count| *count == records.len());
        if line != shown && (complete || shown_at.elapsed() > SHOW_INTERVAL) {
            println!("  {:>8.2?}   entries:   {line}", begin.elapsed());
            (shown, shown_at) = (line, Instant::now());
        }
        if complete {
            println!("  everywhere after {:.2?}", begin.elapsed());
            return Ok(());
        }
        if begin.elapsed() > LOAD_DEADLINE {
            bail!("the entries did not arrive everywhere in {LOAD_DEADLINE:.0?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Compares everything, operational attributes too.
fn compare(group: &Group) -> Result<()> {
    heading("Comparing all servers, entry by entry with operational attributes");
    let all = xmppsync_lab::assert_equal(&group.servers, SUFFIX, EQUAL_DEADLINE)?;
    let attributes = all.values().flatten();
    let values: usize = attributes.map(|(_, values)| values.len()).sum();
    let names = group.servers.iter().map(Slapd::name).collect::<Vec<_>>();
    println!("  {} are equal: {} entries, {values} values on each", names.join(", "), all.len());
    Ok(())
}

fn entry_count(server: &Slapd) -> Result<usize> {
    let mut ldap = server.ldap()?;
    Ok(ldap.search(SUFFIX, xmppsync_lab::ldap3::Scope::Subtree, "(objectClass=*)", &["1.1"])?.len())
}

/// The ends of the logs: the files go away.
fn print_logs(group: &Group) {
    for server in &group.servers {
        print_end(&format!("slapd {}", server.name()), &server.log());
    }
    print_end("ejabberd", &group.xmpp.log());
}

fn print_end(name: &str, log: &str) {
    const LINES_MAX: usize = 30;
    let lines: Vec<&str> = log.lines().collect();
    eprintln!("\n--- log of {name}, last lines ---");
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().for_each(|line| eprintln!("{line}"));
}

fn heading(text: &str) {
    println!("\n{text}");
}
