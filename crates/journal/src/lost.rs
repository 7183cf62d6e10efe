//! A loss as bytes, and back; its CSN and attribute are the key.
//!
//! ```text
//! loss = uuid:16 against:17 list(bytes)
//! ```
//! As in [`codec`](crate::codec).

use crate::codec::{CodecError, Reader, put_bytes, put_number};
use crate::key::{pack, unpack};
use crate::limits::LOST_BYTES_MAX;
use xmppsync_replica::{Csn, EntryUuid, Lost};

pub(crate) fn encode(lost: &Lost) -> Vec<u8> {
    let values = cut(&lost.values);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(lost.uuid.as_bytes());
    bytes.extend_from_slice(&pack(lost.against));
    put_number(&mut bytes, values.len());
    values.iter().for_each(|value| put_bytes(&mut bytes, value));
    bytes
}

pub(crate) fn decode(csn: Csn, attribute: &str, bytes: &[u8]) -> Result<Lost, CodecError> {
    let mut reader = Reader(bytes);
    let uuid = EntryUuid::from_bytes(reader.array()?);
    let against = unpack(&reader.array()?)?;
    let values = reader.list(LOST_BYTES_MAX, |reader| reader.bytes().map(<[u8]>::to_vec))?;
    reader.end()?;
    Ok(Lost { csn, uuid, against, attribute: attribute.to_owned(), values })
}

/// The first values, the last of them perhaps not whole. Each counts one byte more, so that there are not too many empty ones.
fn cut(values: &[Vec<u8>]) -> Vec<&[u8]> {
    let (mut kept, mut left) = (Vec::new(), LOST_BYTES_MAX);
    for value in values {
        let Some(room) = left.checked_sub(1) else { break };
        let value = &value[..value.len().min(room)];
        left = room - value.len();
        kept.push(value);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_csn, any_lost, csn, uuid};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_loss_survives_the_round_trip(lost in any_lost(any_csn())) {
            prop_assert_eq!(decode(lost.csn, &lost.attribute, &encode(&lost)), Ok(lost));
        }

        #[test]
        fn foreign_bytes_are_no_panic(bytes: Vec<u8>) {
            let _ = decode(csn(1, 1), "cn", &bytes);
        }
    }

    #[test]
    fn values_are_cut_where_they_are_too_large_or_too_many() {
        let lost = |values| Lost {
            csn: csn(1, 1),
            uuid: uuid(1),
            against: csn(2, 1),
            attribute: "cn".into(),
            values,
        };
        let kept = |values| decode(csn(1, 1), "cn", &encode(&lost(values))).unwrap().values;
        assert_eq!(kept(vec![vec![1; LOST_BYTES_MAX], vec![2]]), [vec![1; LOST_BYTES_MAX - 1]]);
        assert_eq!(
            kept(vec![vec![1; 9], vec![2; LOST_BYTES_MAX]]),
            [vec![1; 9], vec![2; LOST_BYTES_MAX - 11]]
        );
        assert_eq!(kept(vec![Vec::new(); LOST_BYTES_MAX + 1]).len(), LOST_BYTES_MAX);
    }
}
