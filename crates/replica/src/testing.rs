//! Small values for the tests of this crate.

use crate::{Batch, BootId, Change, Csn, EntryUuid, Operation, ServerId};

pub(crate) fn csn(second: u64, server: u16) -> Csn {
    format!("2026112223{:02}{:02}.000000Z#000000#{server:03x}#000000", second / 60, second % 60)
        .parse()
        .unwrap()
}

pub(crate) fn delete(csn: Csn) -> Change {
    Change {
        csn,
        uuid: uuid(1),
        parent: None,
        operation: Operation::Delete { dn: "cn=x,dc=example".to_owned() },
    }
}

pub(crate) fn uuid(number: u8) -> EntryUuid {
    format!("00000000-0000-0000-0000-0000000000{number:02x}").parse().unwrap()
}

pub(crate) fn server(number: u32) -> ServerId {
    ServerId::new(number).unwrap()
}

/// Changes `first..=last` of server 1, made at the second that is their sequence number.
pub(crate) fn batch(boot: u64, first: u64, last: u64) -> Batch {
    Batch {
        origin: server(1),
        boot: BootId::new(boot),
        first,
        prev: first.checked_sub(1).filter(|before| *before > 0).map(|before| csn(before, 1)),
        changes: (first..=last).map(|seq| delete(csn(seq, 1))).collect(),
    }
}
