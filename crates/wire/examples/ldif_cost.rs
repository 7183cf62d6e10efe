//! What a snapshot costs per entry: `cargo run --release -p xmppsync-wire --example ldif_cost`.

use ldap3_proto::proto::{LdapAddRequest, LdapPartialAttribute};
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};
use xmppsync_replica::{Change, Operation};
use xmppsync_wire::ldif::{LdifReader, LdifWriter};

const ENTRIES: u32 = 100_000;
const ROUNDS: u32 = 5;
/// As a transfer hands them over.
const PIECE_BYTES: usize = 16 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let people = (0..ENTRIES).map(person).collect::<Result<Vec<_>, _>>()?;
    let (mut write, mut read) = (Duration::MAX, Duration::MAX);
    let mut bytes = 0;
    // The best of some rounds: the machine does other things too.
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut writer = LdifWriter::new(Vec::new(), &["people"])?;
        for person in &people {
            writer.write(black_box(person))?;
        }
        write = write.min(start.elapsed());
        let ldif = writer.into_inner();
        bytes = ldif.len();

        let start = Instant::now();
        let mut reader = LdifReader::new();
        let mut entries = 0;
        for piece in ldif.chunks(PIECE_BYTES) {
            reader.push(black_box(piece))?;
            for entry in reader.by_ref() {
                black_box(entry?);
                entries += 1;
            }
        }
        reader.finish();
        entries += reader.count();
        read = read.min(start.elapsed());
        if entries != people.len() {
            return Err(format!("{entries} entries were read").into());
        }
    }
    println!("{ENTRIES} people of 14 attributes, {} bytes each", bytes / people.len());
    for (name, time) in [("write", write), ("read", read)] {
        let seconds = time.as_secs_f64();
        println!(
            "{name:<6} {:>9.0} entries/s {:>6.0} MB/s",
            f64::from(ENTRIES) / seconds,
            bytes as f64 / seconds / 1e6
        );
    }
    Ok(())
}

fn person(number: u32) -> Result<Change, Box<dyn Error>> {
    let attribute = |name: &str, values: &[&str]| LdapPartialAttribute {
        atype: name.into(),
        vals: values.iter().map(|value| (*value).into()).collect(),
    };
    let csn = format!("20261122235959.123456Z#{number:06x}#001#000000");
    let uuid = format!("0f2b1c3d-4e5f-1a6b-8c7d-9e0f{number:08x}");
    let uid = format!("ada{number}");
    let attributes = vec![
        attribute("objectClass", &["top", "person", "organizationalPerson", "inetOrgPerson"]),
        attribute("uid", &[&uid]),
        attribute("cn", &["Ada Lovelace"]),
        attribute("sn", &["Müller"]),
        attribute("givenName", &["Ada"]),
        attribute("mail", &["ada@example.org"]),
        attribute("userPassword", &["{SSHA}MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"]),
        attribute("structuralObjectClass", &["inetOrgPerson"]),
        attribute("entryUUID", &[&uuid]),
        attribute("creatorsName", &["cn=admin,dc=example,dc=org"]),
        attribute("createTimestamp", &["20261122235959Z"]),
        attribute("entryCSN", &[&csn]),
        attribute("modifiersName", &["cn=admin,dc=example,dc=org"]),
        attribute("modifyTimestamp", &["20261122235959Z"]),
    ];
    let dn = format!("uid={uid},ou=people,dc=example,dc=org");
    Ok(Change {
        csn: csn.parse()?,
        uuid: uuid.parse()?,
        parent: None,
        operation: Operation::Put(LdapAddRequest { dn, attributes }),
    })
}
