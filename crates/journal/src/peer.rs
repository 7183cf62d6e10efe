//! What the journal keeps of the other replicas, and of changes that could not be applied.

use crate::codec::{CodecError, Reader, put_number};
use crate::key::{Packed, pack, unpack};
use crate::limits::{REASON_BYTES_MAX, VECTOR_CSNS_MAX};
use xmppsync_replica::{Csn, EntryUuid, ServerId, Vector};

/// A replica as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its bare JID.
    pub jid: String,
    /// Its serverID.
    pub server: ServerId,
    /// How far it had come.
    pub vector: Vector,
    /// When, in seconds since 1970.
    pub seen: u64,
}

/// A change that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The change.
    pub csn: Csn,
    /// The entry that it is about.
    pub uuid: EntryUuid,
    /// What slapd said, cut to [`REASON_BYTES_MAX`].
    pub reason: String,
}

/// The peer without its JID, which is the key.
pub(crate) fn encode(peer: &Peer) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&peer.server.get().to_le_bytes());
    bytes.extend_from_slice(&peer.seen.to_le_bytes());
    put_number(&mut bytes, peer.vector.iter().count());
    peer.vector.iter().for_each(|csn| bytes.extend_from_slice(&pack(csn)));
    bytes
}

pub(crate) fn decode(jid: &str, bytes: &[u8]) -> Result<Peer, CodecError> {
    let mut reader = Reader(bytes);
    let server = u16::from_le_bytes(reader.array()?);
    let server = ServerId::new(server.into()).map_err(|_| CodecError::Mark)?;
    let seen = u64::from_le_bytes(reader.array()?);
    let csns = reader.list(VECTOR_CSNS_MAX, |reader| {
        let packed: Packed = reader.array()?;
        unpack(&packed)
    })?;
    reader.end()?;
    Ok(Peer { jid: jid.to_owned(), server, vector: csns.into_iter().collect(), seen })
}

/// The beginning of a reason, whole characters.
pub(crate) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::any_csn;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_peer_survives_the_round_trip(
            csns in prop::collection::vec(any_csn(), 0..9), server in 1_u32..4096, seen: u64,
        ) {
            let server = ServerId::new(server).unwrap();
            let peer = Peer { jid: "a@b".to_owned(), server, vector: csns.into_iter().collect(), seen };
            prop_assert_eq!(decode("a@b", &encode(&peer)), Ok(peer));
        }

        #[test]
        fn foreign_bytes_are_no_panic(bytes: Vec<u8>) {
            let _ = decode("a@b", &bytes);
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut(&"ü".repeat(REASON_BYTES_MAX)).len(), REASON_BYTES_MAX);
        assert_eq!(cut(&format!("x{}", "ü".repeat(REASON_BYTES_MAX))).len(), REASON_BYTES_MAX - 1);
    }
}
