//! What the codec costs per change: `cargo run --release -p xmppsync-wire --example codec_cost`.
//!
//! Encode is from changes to serialised bytes, decode from bytes to changes, both by way of the
//! elements that the XMPP stack hands over, in batches of 50 as senders make them.

use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;
use xmppsync_replica::{Batch, BootId, Change, Operation, ServerId};
use xmppsync_wire::{Payload, decode_bytes, encoded_size_estimate, split};

const CHANGES: usize = 50;
const ROUNDS: u32 = 400;

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "{:<22} {:>7} {:>12} {:>10} {:>14} {:>10}",
        "", "bytes", "to element", "encode", "from element", "decode"
    );
    measure("modify, 2 attributes", modify())?;
    measure("add of a person", person())?;
    Ok(())
}

fn measure(name: &str, operation: Operation) -> Result<(), Box<dyn Error>> {
    let changes = (0..CHANGES)
        .map(|count| {
            let csn = format!("20261122235959.123456Z#{count:06x}#001#000000").parse()?;
            let uuid = "0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d".parse()?;
            Ok(Change { csn, uuid, parent: None, operation: operation.clone() })
        })
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let estimate = changes.first().map(encoded_size_estimate);
    let batch = Batch { origin: ServerId::new(1)?, boot: BootId::new(7), first: 1, prev: None, changes };
    let elements = split(&batch)?;
    let element = elements.first().ok_or("nothing was encoded")?;
    let bytes = xso::to_vec(element)?;

    let to_element = per_change(|| split(black_box(&batch)).map(|_| ()))?;
    let encode = per_change(|| -> Result<(), Box<dyn Error>> {
        for element in split(black_box(&batch))? {
            black_box(xso::to_vec(&element)?);
        }
        Ok(())
    })?;
    let from_element = per_change(|| Payload::decode(black_box(element)).map(|_| ()))?;
    let decode = per_change(|| decode_bytes(black_box(&bytes)).map(|_| ()))?;
    println!(
        "{name:<22} {:>7} {to_element:>9.2} µs {encode:>7.2} µs {from_element:>11.2} µs {decode:>7.2} µs   (estimate {estimate:?})",
        bytes.len() / CHANGES
    );
    Ok(())
}

/// The best of some rounds, in microseconds per change: the machine does other things too.
fn per_change<E>(mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best * 1e6 / CHANGES as f64)
}

fn attribute(name: &str, values: &[&str]) -> LdapPartialAttribute {
    LdapPartialAttribute { atype: name.into(), vals: values.iter().map(|value| (*value).into()).collect() }
}

fn modify() -> Operation {
    let replace = |name, value| LdapModify {
        operation: LdapModifyType::Replace,
        modification: attribute(name, &[value]),
    };
    let changes = vec![replace("mail", "ada@example.org"), replace("telephoneNumber", "+49 30 123456")];
    Operation::Modify(LdapModifyRequest { dn: "uid=ada,ou=people,dc=example,dc=org".into(), changes })
}

fn person() -> Operation {
    Operation::Add(LdapAddRequest {
        dn: "uid=ada,ou=people,dc=example,dc=org".into(),
        attributes: vec![
            attribute("objectClass", &["top", "person", "organizationalPerson", "inetOrgPerson"]),
            attribute("uid", &["ada"]),
            attribute("cn", &["Ada Lovelace"]),
            attribute("sn", &["Lovelace"]),
            attribute("givenName", &["Ada"]),
            attribute("mail", &["ada@example.org"]),
            attribute("userPassword", &["{SSHA}MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"]),
            attribute("structuralObjectClass", &["inetOrgPerson"]),
            attribute("entryUUID", &["0f2b1c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d"]),
            attribute("creatorsName", &["cn=admin,dc=example,dc=org"]),
            attribute("createTimestamp", &["20261122235959Z"]),
            attribute("entryCSN", &["20261122235959.123456Z#000000#001#000000"]),
            attribute("modifiersName", &["cn=admin,dc=example,dc=org"]),
            attribute("modifyTimestamp", &["20261122235959Z"]),
        ],
    })
}
