//! Comparing whole databases, with everything in them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use ldap3::Scope;

use crate::error::{LabError, Result};
use crate::ldap::{Entry, Ldap};
use crate::slapd::Slapd;
use crate::wait::wait_until;

/// Differences that are shown; more would hide the first.
const SHOWN_MAX: usize = 20;
const VALUE_SHOWN_MAX: usize = 80;

/// The pseudo attribute with the DN as it is written: a copy must keep its case.
const DN: &str = "dn";

/// Names the log that this server keeps; no part of the content.
const AUDIT_CONTEXT: &str = "auditContext";

/// A database: its entries by lower-case DN, each with its DN under `dn`.
pub type Dump = BTreeMap<String, Entry>;

/// Whether contextCSN takes part in a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextCsn {
    /// It must be equal too.
    Compare,
    /// It is left out.
    Ignore,
}

/// Reads the whole database below the suffix, with all operational attributes.
///
/// # Errors
/// When the server does not answer.
pub fn dump(ldap: &mut Ldap, suffix: &str, context_csn: ContextCsn) -> Result<Dump> {
    let mut dump = Dump::new();
    for_each(ldap, suffix, context_csn, |key, entry| {
        dump.insert(key, entry);
    })?;
    Ok(dump)
}

/// Each entry below the suffix with what is compared of it, by its lower-case DN.
fn for_each(
    ldap: &mut Ldap,
    suffix: &str,
    context_csn: ContextCsn,
    mut each: impl FnMut(String, Entry),
) -> Result<()> {
    ldap.search_each(suffix, Scope::Subtree, "(objectClass=*)", &["*", "+"], |dn, mut entry| {
        entry.remove(AUDIT_CONTEXT);
        if context_csn == ContextCsn::Ignore {
            entry.remove("contextCSN");
        }
        let key = dn.to_lowercase();
        entry.insert(DN.to_owned(), BTreeSet::from([dn.into_bytes()]));
        each(key, entry);
    })
}

/// Checks once that two servers hold the same below the suffix, with contextCSN; in memory are only two numbers per
/// entry, so that millions of entries can be compared.
///
/// # Errors
/// The first differences.
pub fn check_equal(left: &Slapd, right: &Slapd, suffix: &str) -> Result<()> {
    let (mut left_ldap, mut right_ldap) = (left.ldap_of(suffix)?, right.ldap_of(suffix)?);
    let (ours, theirs) = (digests(&mut left_ldap, suffix)?, digests(&mut right_ldap, suffix)?);
    let keys: BTreeSet<u64> = ours.keys().chain(theirs.keys()).copied().collect();
    let different: BTreeSet<u64> =
        keys.into_iter().filter(|key| ours.get(key) != theirs.get(key)).take(SHOWN_MAX).collect();
    if different.is_empty() {
        return Ok(());
    }
    let only_these = |ldap: &mut Ldap| {
        let mut dump = Dump::new();
        for_each(ldap, suffix, ContextCsn::Compare, |key, entry| {
            if different.contains(&hash(&key)) {
                dump.insert(key, entry);
            }
        })?;
        Ok::<_, LabError>(dump)
    };
    let (ours, theirs) = (only_these(&mut left_ldap)?, only_these(&mut right_ldap)?);
    let lines = difference(left.name(), &ours, right.name(), &theirs);
    Err(LabError::Invalid(format!("the first of what differs: {}", shown(&lines))))
}

/// A number for each entry's DN, with one for what it holds.
fn digests(ldap: &mut Ldap, suffix: &str) -> Result<BTreeMap<u64, u64>> {
    let mut digests = BTreeMap::new();
    for_each(ldap, suffix, ContextCsn::Compare, |key, entry| {
        digests.insert(hash(&key), hash(&entry));
    })?;
    Ok(digests)
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Waits until all servers hold the same below the suffix, entry by entry with operational attributes
/// (contextCSN left out); returns it.
///
/// # Errors
/// A timeout that lists the differences.
pub fn assert_equal<'a>(
    servers: impl IntoIterator<Item = &'a Slapd>,
    suffix: &str,
    deadline: Duration,
) -> Result<Dump> {
    assert_equal_with(servers, suffix, ContextCsn::Ignore, deadline)
}

/// [`assert_equal`], with or without contextCSN.
///
/// # Errors
/// A timeout that lists the differences.
pub fn assert_equal_with<'a>(
    servers: impl IntoIterator<Item = &'a Slapd>,
    suffix: &str,
    context_csn: ContextCsn,
    deadline: Duration,
) -> Result<Dump> {
    let mut clients = Vec::new();
    for server in servers {
        clients.push((server.name().to_owned(), server.ldap_of(suffix)?));
    }
    assert_equal_clients(&mut clients, suffix, context_csn, deadline)
}

/// [`assert_equal_with`] for servers that are no [`Slapd`] of a lab: their names, and clients bound as their rootdns.
///
/// # Errors
/// A timeout that lists the differences.
pub fn assert_equal_clients(
    clients: &mut [(String, Ldap)],
    suffix: &str,
    context_csn: ContextCsn,
    deadline: Duration,
) -> Result<Dump> {
    let names: Vec<&str> = clients.iter().map(|(name, _)| name.as_str()).collect();
    let what = format!("{} hold the same below {suffix}", names.join(", "));
    wait_until(&what, deadline, || {
        let mut first: Option<(&str, Dump)> = None;
        for (name, ldap) in &mut *clients {
            let dump = dump(ldap, suffix, context_csn).map_err(|error| error.to_string())?;
            match &first {
                None => first = Some((name, dump)),
                Some((first_name, expected)) => {
                    let different = difference(first_name, expected, name, &dump);
                    if !different.is_empty() {
                        return Err(shown(&different));
                    }
                }
            }
        }
        Ok(first.map(|(_, dump)| dump).unwrap_or_default())
    })
}

/// What differs between two databases, a line each; nothing when they are equal.
#[must_use]
pub fn difference(left_name: &str, left: &Dump, right_name: &str, right: &Dump) -> Vec<String> {
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let mut lines = Vec::new();
    for key in keys {
        match (left.get(key), right.get(key)) {
            (Some(_), None) => lines.push(format!("only on {left_name}: {key}")),
            (None, Some(_)) => lines.push(format!("only on {right_name}: {key}")),
            (Some(left), Some(right)) if left != right => {
                entry_difference(key, (left_name, left), (right_name, right), &mut lines);
            }
            _ => {}
        }
    }
    lines
}

fn entry_difference(key: &str, left: (&str, &Entry), right: (&str, &Entry), lines: &mut Vec<String>) {
    let names: BTreeSet<&String> = left.1.keys().chain(right.1.keys()).collect();
    let none = BTreeSet::new();
    for name in names {
        let (ours, theirs) = (left.1.get(name).unwrap_or(&none), right.1.get(name).unwrap_or(&none));
        let only = |here: &BTreeSet<Vec<u8>>, there: &BTreeSet<Vec<u8>>| {
            here.difference(there).map(|value| value_shown(value)).collect::<Vec<_>>().join(", ")
        };
        if ours != theirs {
            lines.push(format!(
                "{key}: {name}: only on {}: [{}], only on {}: [{}]",
                left.0,
                only(ours, theirs),
                right.0,
                only(theirs, ours)
            ));
        }
    }
}

fn value_shown(value: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(value).chars().take(VALUE_SHOWN_MAX).collect();
    if value.len() > VALUE_SHOWN_MAX {
        format!("{text:?}… ({} bytes)", value.len())
    } else {
        format!("{text:?}")
    }
}

fn shown(lines: &[String]) -> String {
    let more = lines.len().saturating_sub(SHOWN_MAX);
    let mut text = format!("{} differences\n", lines.len());
    text.push_str(&lines[..lines.len() - more].join("\n"));
    if more > 0 {
        text.push_str(&format!("\n… and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(entries: &[(&str, &[(&str, &str)])]) -> Dump {
        let entry = |attributes: &[(&str, &str)]| {
            let mut entry = Entry::new();
            for (name, value) in attributes {
                entry.entry((*name).to_owned()).or_default().insert(value.as_bytes().to_vec());
            }
            entry
        };
        entries.iter().map(|(dn, attributes)| ((*dn).to_owned(), entry(attributes))).collect()
    }

    #[test]
    fn equal_databases_have_no_difference() {
        let left = database(&[("dc=x", &[("cn", "a"), ("cn", "b")])]);
        assert!(difference("a", &left, "b", &left.clone()).is_empty());
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let left = database(&[("dc=x", &[]), ("cn=1,dc=x", &[("sn", "Ä"), ("cn", "1")])]);
        let right = database(&[("cn=1,dc=x", &[("sn", "B"), ("cn", "1")]), ("cn=2,dc=x", &[])]);
        let expected = [
            r#"cn=1,dc=x: sn: only on a: ["Ä"], only on b: ["B"]"#,
            "only on b: cn=2,dc=x",
            "only on a: dc=x",
        ];
        assert_eq!(difference("a", &left, "b", &right), expected);
    }
}
