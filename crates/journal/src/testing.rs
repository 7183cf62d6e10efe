//! Values for the tests of this crate, and a disk that crashes.

use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use proptest::prelude::*;
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex};
use xmppsync_replica::{BootId, Change, Csn, EntryUuid, Lost, Operation};

/// 2026-11-22 23:00:00, when the CSNs of [`csn`] begin, in seconds since 1970.
pub(crate) const START: u64 = 1_795_388_400;

pub(crate) const SUFFIX: &str = "dc=example,dc=org";

/// `tick` hundredths of a second after [`START`].
pub(crate) fn csn(tick: u64, server: u16) -> Csn {
    let (second, micros) = (tick / 100, tick % 100 * 10_000);
    let text =
        format!("2026112223{:02}{:02}.{micros:06}Z#000000#{server:03x}#000000", second / 60, second % 60);
    text.parse().unwrap()
}

pub(crate) fn uuid(number: u64) -> EntryUuid {
    EntryUuid::from_bytes(u128::from(number).to_be_bytes())
}

pub(crate) fn modify(csn: Csn) -> Change {
    let modification = LdapPartialAttribute { atype: "description".to_owned(), vals: vec![b"x".repeat(40)] };
    let changes = vec![LdapModify { operation: LdapModifyType::Replace, modification }];
    let operation =
        Operation::Modify(LdapModifyRequest { dn: "uid=ada,dc=example,dc=org".to_owned(), changes });
    Change { csn, uuid: uuid(1), parent: None, operation }
}

pub(crate) fn record(csn: Csn, boot: u64, seq: u64) -> crate::Record {
    crate::Record::Change { boot: BootId::new(boot), seq, change: Arc::new(modify(csn)) }
}

pub(crate) fn any_csn() -> impl Strategy<Value = Csn> {
    let parts =
        (0..100_000_000_000_000_u64, 0..1_000_000_u32, 0..0x100_0000_u32, 1..0x1000_u32, 0..0x100_0000_u32);
    parts.prop_map(|(date, micros, count, server, modification)| {
        let text = format!("{date:014}.{micros:06}Z#{count:06x}#{server:03x}#{modification:06x}");
        text.parse().unwrap()
    })
}

pub(crate) fn any_change() -> impl Strategy<Value = Change> {
    (any_csn(), any::<([u8; 16], Option<[u8; 16]>)>(), any_operation()).prop_map(
        |(csn, (uuid, parent), operation)| Change {
            csn,
            uuid: EntryUuid::from_bytes(uuid),
            parent: parent.map(EntryUuid::from_bytes),
            operation,
        },
    )
}

pub(crate) fn any_lost(csn: impl Strategy<Value = Csn>) -> impl Strategy<Value = Lost> {
    (csn, any::<[u8; 16]>(), any_csn(), any_attribute()).prop_map(|(csn, uuid, against, attribute)| Lost {
        csn,
        uuid: EntryUuid::from_bytes(uuid),
        against,
        attribute: attribute.atype,
        values: attribute.vals,
    })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (any::<String>(), prop::collection::vec(any_attribute(), 0..4))
            .prop_map(|(dn, attributes)| Operation::Add(LdapAddRequest { dn, attributes })),
        (any::<String>(), any_modifications())
            .prop_map(|(dn, changes)| Operation::Modify(LdapModifyRequest { dn, changes })),
        (any::<(String, String, bool, Option<String>)>(), any_modifications()).prop_map(
            |((dn, newrdn, deleteoldrdn, new_superior), operational)| Operation::ModifyDn {
                request: LdapModifyDNRequest { dn, newrdn, deleteoldrdn, new_superior },
                operational,
            }
        ),
        any::<String>().prop_map(|dn| Operation::Delete { dn }),
        (any::<String>(), prop::collection::vec(any_attribute(), 0..4))
            .prop_map(|(dn, attributes)| Operation::Put(LdapAddRequest { dn, attributes })),
    ]
}

fn any_modifications() -> impl Strategy<Value = Vec<LdapModify>> {
    let kind = prop_oneof![
        Just(LdapModifyType::Add),
        Just(LdapModifyType::Delete),
        Just(LdapModifyType::Replace),
        Just(LdapModifyType::Increment),
    ];
    let modify =
        (kind, any_attribute()).prop_map(|(operation, modification)| LdapModify { operation, modification });
    prop::collection::vec(modify, 0..4)
}

fn any_attribute() -> impl Strategy<Value = LdapPartialAttribute> {
    let value = prop::collection::vec(any::<u8>(), 0..200);
    (any::<String>(), prop::collection::vec(value, 0..4))
        .prop_map(|(atype, vals)| LdapPartialAttribute { atype, vals })
}

/// A disk in memory that fails after a number of writes, and knows what a power cut would leave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Not yet synced, in their order: place and bytes.
    pending: Vec<(usize, Vec<u8>)>,
    /// How many writes and syncs still go well.
    budget: Option<usize>,
}

impl Disk {
    pub(crate) fn of(bytes: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(Platter { synced: bytes.clone(), bytes, ..Platter::default() })))
    }

    pub(crate) fn fail_after(&self, writes: usize) {
        self.0.lock().unwrap().budget = Some(writes);
    }

    /// What is there after a power cut: what was synced, and of the rest the writes that `kept` picks, of which the last
    /// is torn.
    pub(crate) fn after_crash(&self, mut kept: impl FnMut() -> bool) -> Vec<u8> {
        let platter = self.0.lock().unwrap();
        let mut image = platter.synced.clone();
        let writes: Vec<_> = platter.pending.iter().filter(|_| kept()).collect();
        for (index, (place, bytes)) in writes.iter().enumerate() {
            let torn = if index + 1 == writes.len() { bytes.len() / 2 } else { bytes.len() };
            if image.len() < place + torn {
                image.resize(place + torn, 0);
            }
            image[*place..place + torn].copy_from_slice(&bytes[..torn]);
        }
        image
    }
}

impl Platter {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.budget {
            Some(0) => Err(io::Error::new(io::ErrorKind::StorageFull, "the disk of the test is full")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let start = offset as usize;
        let bytes = platter.bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.spend()?;
        platter.bytes.resize(len as usize, 0);
        // The length is the file system's, which journals it.
        platter.synced.resize(len as usize, 0);
        platter.pending.retain(|(place, bytes)| place + bytes.len() <= len as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.spend()?;
        platter.synced = platter.bytes.clone();
        platter.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.spend()?;
        let start = offset as usize;
        platter.bytes[start..start + data.len()].copy_from_slice(data);
        platter.pending.push((start, data.to_vec()));
        Ok(())
    }
}
