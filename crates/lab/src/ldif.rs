//! Realistic content for a directory: an organisation tree, people, groups. The same every time.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

mod words;

use words::{CITIES, DEPARTMENTS, FAMILY_NAMES, GIVEN_NAMES, PHOTO, TITLES};

/// Every so many people have a photo.
const PEOPLE_PER_PHOTO: usize = 10;
const PEOPLE_PER_GROUP: usize = 25;
const GROUP_MEMBERS_MAX: usize = 40;
const TEAMS_PER_DEPARTMENT: usize = 3;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its DN.
    pub dn: String,
    /// Attributes with one value each; an attribute with several values stands several times.
    pub attributes: Vec<(String, Vec<u8>)>,
}

impl Record {
    fn new(dn: String, object_classes: &[&str]) -> Self {
        let record = Self { dn, attributes: Vec::new() };
        object_classes.iter().fold(record, |record, class| record.with("objectClass", *class))
    }

    fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.attributes.push((name.to_owned(), value.into()));
        self
    }
}

/// The entry of a suffix that begins with `dc=`, `o=` or `ou=`.
#[must_use]
pub fn suffix_entry(suffix: &str) -> Record {
    let (kind, value) =
        suffix.split(',').next().and_then(|rdn| rdn.split_once('=')).unwrap_or(("dc", suffix));
    let dn = suffix.to_owned();
    match kind.to_ascii_lowercase().as_str() {
        "o" => Record::new(dn, &["top", "organization"]).with("o", value),
        "ou" => Record::new(dn, &["top", "organizationalUnit"]).with("ou", value),
        _ => Record::new(dn, &["top", "dcObject", "organization"])
            .with("dc", value)
            .with("o", "Example Ärzte & Söhne"),
    }
}

/// A whole directory with so many people, the suffix entry first, parents before children.
#[must_use]
pub fn directory(suffix: &str, people: usize) -> Vec<Record> {
    let mut records = vec![suffix_entry(suffix)];
    for (unit, description) in [
        ("people", "Everybody who works here"),
        ("groups", "Who may do what"),
        ("organisation", "Departments and their teams"),
    ] {
        let dn = format!("ou={unit},{suffix}");
        let record = Record::new(dn, &["top", "organizationalUnit"]).with("ou", unit);
        records.push(record.with("description", description));
    }
    organisation(suffix, &mut records);
    records.extend((0..people).map(|number| person(suffix, number)));
    let groups = people.div_ceil(PEOPLE_PER_GROUP);
    records.extend((0..groups).map(|number| group(suffix, number, people)));
    records
}

/// The DN of a person of [`directory`].
#[must_use]
pub fn person_dn(suffix: &str, number: usize) -> String {
    format!("uid={},ou=people,{suffix}", user_id(number))
}

/// A small JPEG that programs can open, of at least so many bytes.
#[must_use]
pub fn photo(size: usize) -> Vec<u8> {
    const START: usize = 2;
    const SEGMENT_HEAD: usize = 4;
    const SEGMENT_MAX: usize = 65_000;
    let (start, rest) = PHOTO.split_at(START);
    let mut bytes = start.to_vec();
    // Comment segments make it as large as wanted; a decoder passes over them.
    while bytes.len() + rest.len() < size {
        let content = (size - bytes.len() - rest.len()).saturating_sub(SEGMENT_HEAD).min(SEGMENT_MAX);
        // The length counts its own two bytes. SEGMENT_MAX keeps it within 16 bits.
        let length = u16::try_from(content + 2).unwrap_or(u16::MAX);
        bytes.extend([0xff, 0xfe]);
        bytes.extend(length.to_be_bytes());
        bytes.extend((0..content).map(|index| (index % 251) as u8));
    }
    bytes.extend(rest);
    bytes
}

/// Records as LDIF.
#[must_use]
pub fn text(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        line(&mut text, "dn", record.dn.as_bytes());
        for (name, value) in &record.attributes {
            line(&mut text, name, value);
        }
        text.push('\n');
    }
    text
}

/// Writes `name: value`, in base64 where RFC 2849 wants it.
fn line(text: &mut String, name: &str, value: &[u8]) {
    let starts_safe = value.first().is_none_or(|first| !matches!(first, b' ' | b':' | b'<'));
    let safe = starts_safe && !value.ends_with(b" ");
    let plain = value.iter().all(|byte| matches!(byte, 0x20..=0x7e));
    // Writing to a String cannot fail.
    let _ = match std::str::from_utf8(value) {
        Ok(value) if safe && plain => writeln!(text, "{name}: {value}"),
        _ => writeln!(text, "{name}:: {}", STANDARD.encode(value)),
    };
}

fn organisation(suffix: &str, records: &mut Vec<Record>) {
    let classes = &["top", "organizationalUnit"];
    for department in DEPARTMENTS {
        let dn = format!("ou={department},ou=organisation,{suffix}");
        let record = Record::new(dn.clone(), classes).with("ou", *department);
        records.push(record.with("description;lang-de", format!("Abteilung für {department}")));
        for team in 1..=TEAMS_PER_DEPARTMENT {
            let team = format!("Team {team}");
            let dn = format!("ou={team},{dn}");
            records.push(
                Record::new(dn, classes).with("ou", team).with("l", CITIES[records.len() % CITIES.len()]),
            );
        }
    }
}

fn names(number: usize) -> (&'static str, &'static str) {
    let family = FAMILY_NAMES[(number / GIVEN_NAMES.len() + number) % FAMILY_NAMES.len()];
    (GIVEN_NAMES[number % GIVEN_NAMES.len()], family)
}

fn user_id(number: usize) -> String {
    format!("user{number:05}")
}

fn person(suffix: &str, number: usize) -> Record {
    let (given, family) = names(number);
    let uid = user_id(number);
    let department = DEPARTMENTS[number % DEPARTMENTS.len()];
    let dn = person_dn(suffix, number);
    let mut record = Record::new(dn, &["top", "inetOrgPerson", "posixAccount"])
        .with("uid", uid.clone())
        .with("cn", format!("{given} {family}"))
        .with("cn", format!("{family}, {given}"))
        .with("sn", family)
        .with("givenName", given)
        .with("displayName", format!("{given} {family} ({number})"))
        .with("mail", format!("{uid}@example.com"))
        .with("title", TITLES[number % TITLES.len()])
        .with("description", format!("{department}, since {}", 1990 + number % 35))
        .with("description;lang-de", format!("{department}, seit {}", 1990 + number % 35))
        .with("ou", department)
        .with("l", CITIES[number % CITIES.len()])
        .with("telephoneNumber", format!("+49 30 {:07}", 1_000_000 + number))
        .with("employeeNumber", number.to_string())
        .with("uidNumber", (10_000 + number).to_string())
        .with("gidNumber", "10000")
        .with("homeDirectory", format!("/home/{uid}"))
        .with("loginShell", "/bin/bash")
        .with("userPassword", format!("password-of-{uid}"));
    if number > 0 {
        record = record.with("manager", person_dn(suffix, number / 8));
    }
    if number.is_multiple_of(PEOPLE_PER_PHOTO) {
        record = record.with("jpegPhoto", photo(2_000 + number % 3_000));
    }
    record
}

fn group(suffix: &str, number: usize, people: usize) -> Record {
    let name = format!("group{number:04}");
    let record = Record::new(format!("cn={name},ou=groups,{suffix}"), &["top", "groupOfNames"])
        .with("cn", name)
        .with("description", format!("Access to {}", DEPARTMENTS[number % DEPARTMENTS.len()]));
    // Steps of 7 mix the departments.
    let members = GROUP_MEMBERS_MAX.min(people);
    (0..members).fold(record, |record, member| {
        let member = (number * PEOPLE_PER_GROUP + member * 7) % people;
        let value = person_dn(suffix, member);
        if record.attributes.iter().any(|(_, present)| present == value.as_bytes()) {
            return record;
        }
        record.with("member", value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_ldif_cannot_carry_as_text_are_base64() {
        let record = Record::new("cn=Ä,dc=x".to_owned(), &["top"]).with("cn", " leading").with("sn", "plain");
        let expected = "dn:: Y249w4QsZGM9eA==\nobjectClass: top\ncn:: IGxlYWRpbmc=\nsn: plain\n\n";
        assert_eq!(text(&[record]), expected);
    }

    #[test]
    fn photos_have_the_size_that_was_asked_for_and_stay_jpeg() {
        for size in [0, 500, 2_000, 70_000, 1_000_000] {
            let photo = photo(size);
            assert!(photo.len() >= size && photo.len() < size + 300, "{} for {size}", photo.len());
            assert!(photo.starts_with(&[0xff, 0xd8, 0xff]) && photo.ends_with(&[0xff, 0xd9]));
        }
    }

    #[test]
    fn no_two_entries_have_one_name() {
        let records = directory("dc=example,dc=com", 300);
        let names: std::collections::BTreeSet<&str> =
            records.iter().map(|record| record.dn.as_str()).collect();
        assert_eq!(names.len(), records.len());
    }
}
