//! What travels between replicas.

use crate::{BootId, Csn, EntryUuid, ServerId};
use ldap3_proto::proto::{LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest};

/// One committed change with what is required to make it again elsewhere, and no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When and where it was made; unique.
    pub csn: Csn,
    /// The entry that it changes, whatever that entry's DN is by now.
    pub uuid: EntryUuid,
    /// The entry's parent: of an add or a state where the entry is, of a move where it goes, of a delete where it was. `None` where
    /// that is not known, and for everything else. The parent may have been renamed since, so its DN does not tell.
    pub parent: Option<EntryUuid>,
    /// What was done.
    pub operation: Operation,
}

/// The request, with operational attributes among the attributes and modifications. The DN in it
/// is the entry's at the time of the change, before a rename.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A new entry, whole.
    Add(LdapAddRequest),
    /// The entry as it was at the change's CSN, whole: found by a comparison of databases instead of being captured. It
    /// stands for whatever made the entry so, and means nothing to a replica whose entry is newer.
    Put(LdapAddRequest),
    /// Modifications in their order.
    Modify(LdapModifyRequest),
    /// A new RDN or superior; the whole subtree moves with it.
    ModifyDn {
        /// The rename itself.
        request: LdapModifyDNRequest,
        /// The operational attributes that it set (entryCSN, modifiersName, modifyTimestamp), and marks of losses that it took away.
        operational: Vec<LdapModify>,
    },
    /// The entry is gone.
    Delete {
        /// Its DN when it was deleted.
        dn: String,
    },
}

impl Operation {
    /// The entry's DN before the operation.
    pub fn dn(&self) -> &str {
        match self {
            Operation::Add(request) | Operation::Put(request) => &request.dn,
            Operation::Modify(request) => &request.dn,
            Operation::ModifyDn { request, .. } => &request.dn,
            Operation::Delete { dn } => dn,
        }
    }

    /// The operation's name, for a log line.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Add(_) => "add",
            Operation::Put(_) => "put",
            Operation::Modify(_) => "modify",
            Operation::ModifyDn { .. } => "modrdn",
            Operation::Delete { .. } => "delete",
        }
    }
}

impl Change {
    /// Bytes of content, near enough to bound queues and batches by.
    pub fn size(&self) -> usize {
        const FIXED: usize = 128;
        let modifications = |list: &[LdapModify]| -> usize {
            list.iter()
                .map(|change| attribute_size(&change.modification.atype, &change.modification.vals))
                .sum()
        };
        FIXED
            + self.operation.dn().len()
            + match &self.operation {
                Operation::Add(request) | Operation::Put(request) => request
                    .attributes
                    .iter()
                    .map(|attribute| attribute_size(&attribute.atype, &attribute.vals))
                    .sum(),
                Operation::Modify(request) => modifications(&request.changes),
                Operation::ModifyDn { request, operational } => {
                    request.newrdn.len()
                        + request.new_superior.as_ref().map_or(0, String::len)
                        + modifications(operational)
                }
                Operation::Delete { .. } => 0,
            }
    }
}

fn attribute_size(name: &str, values: &[Vec<u8>]) -> usize {
    const PER_VALUE: usize = 16;
    name.len() + PER_VALUE + values.iter().map(|value| value.len() + PER_VALUE).sum::<usize>()
}

/// Changes of one origin that follow each other without a hole in its stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Whose changes these are.
    pub origin: ServerId,
    /// The origin's run in which they were numbered.
    pub boot: BootId,
    /// The sequence number of the first change; the others follow by one.
    pub first: u64,
    /// The CSN of the origin's change before the first one; `None` when there is none. Who has everything of the
    /// origin up to here lacks nothing before the batch.
    pub prev: Option<Csn>,
    /// Never empty; every CSN is of `origin`, and later than the one before it.
    pub changes: Vec<Change>,
}

impl Batch {
    /// The CSN of the last change.
    pub fn last_csn(&self) -> Option<Csn> {
        self.changes.last().map(|change| change.csn)
    }

    /// The sequence number of the last change.
    pub fn last(&self) -> u64 {
        self.first.saturating_add((self.changes.len() as u64).saturating_sub(1))
    }
}
