//! A batch from its element, and what a batch will cost on the wire.

use crate::error::check;
use crate::text::encoded_len;
use crate::{Place, WireError, change, limits, schema};
use ldap3_proto::proto::LdapModify;
use minidom::Element;
use xmppsync_replica::{Batch, Change, Operation};

/// `<batch xmlns='urn:xmpp:ldapsync:0' …></batch>` with the longest numbers.
pub(crate) const BATCH_BYTES: usize = 210;

pub(crate) fn to_element<T: xso::AsXml>(value: &T, place: Place) -> Result<Element, WireError> {
    xso::transform(value).map_err(|error| WireError::Malformed { place, reason: error.to_string() })
}

pub(crate) fn from_schema(batch: schema::Batch) -> Result<Batch, WireError> {
    let schema::Batch { sid: origin, boot, first, last, prev, changes } = batch;
    let count = changes.len();
    check_changes(origin, count)?;
    if first == 0 || last.checked_sub(first) != Some(count as u64 - 1) {
        return Err(WireError::Sequence { first, last, changes: count });
    }
    if let Some(foreign) =
        prev.into_iter().chain(changes.iter().map(change::csn)).find(|csn| csn.server_id() != origin)
    {
        return Err(WireError::ForeignChange { origin, csn: foreign });
    }
    let changes = changes.into_iter().map(change::from_schema).collect::<Result<_, _>>()?;
    Ok(Batch { origin, boot, first, prev, changes })
}

pub(crate) fn check_changes(origin: xmppsync_replica::ServerId, count: usize) -> Result<(), WireError> {
    if count == 0 {
        return Err(WireError::EmptyBatch { origin });
    }
    check("changes", Place::Batch, count, limits::CHANGES_PER_BATCH_MAX)
}

/// How many bytes the change takes in a batch on the wire: never less than it does, and seldom a
/// few dozen more. Costs one look at every byte, no allocation.
pub fn encoded_size_estimate(change: &Change) -> usize {
    // <modrdn csn='40' uuid='36' deleteoldrdn='false'><dn></dn></modrdn>
    const CHANGE_BYTES: usize = 160;
    //  parent='36'
    const PARENT_BYTES: usize = 46;
    // <newrdn></newrdn> and <newsuperior></newsuperior>
    const NAMES_BYTES: usize = 44;
    let names = match &change.operation {
        Operation::ModifyDn { request, .. } => {
            NAMES_BYTES
                + encoded_len(request.newrdn.as_bytes())
                + request.new_superior.as_ref().map_or(0, |superior| encoded_len(superior.as_bytes()))
        }
        _ => 0,
    };
    let attributes = match &change.operation {
        Operation::Add(request) | Operation::Put(request) => {
            request.attributes.iter().map(|attribute| attribute_len(&attribute.atype, &attribute.vals)).sum()
        }
        Operation::Modify(request) => mods_len(&request.changes),
        Operation::ModifyDn { operational, .. } => mods_len(operational),
        Operation::Delete { .. } => 0,
    };
    let parent = if change.parent.is_some() { PARENT_BYTES } else { 0 };
    CHANGE_BYTES + parent + encoded_len(change.operation.dn().as_bytes()) + names + attributes
}

fn mods_len(mods: &[LdapModify]) -> usize {
    mods.iter().map(|change| attribute_len(&change.modification.atype, &change.modification.vals)).sum()
}

fn attribute_len(name: &str, values: &[Vec<u8>]) -> usize {
    // <increment attr=''></increment>
    const ATTRIBUTE_BYTES: usize = 31;
    // <v></v>
    const VALUE_BYTES: usize = 7;
    ATTRIBUTE_BYTES + name.len() + values.iter().map(|value| VALUE_BYTES + encoded_len(value)).sum::<usize>()
}

/// [`encoded_size_estimate`] of a whole batch with its element.
pub(crate) fn batch_size_estimate(batch: &Batch) -> usize {
    BATCH_BYTES + batch.changes.iter().map(encoded_size_estimate).sum::<usize>()
}
