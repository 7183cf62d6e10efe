//! The messages of SOCKS5 (RFC 1928) that bytestreams need, without IO.
//!
//! Each `read_*` says how many bytes it still needs, so that nothing behind a message is read with it: the file
//! follows at once.

use sha1::{Digest, Sha1};
use xmpp_parsers::jid::FullJid;

/// How far a message is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read<T> {
    /// So many bytes more, at least.
    More(usize),
    /// The message.
    Done(T),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SocksError {
    #[error("no SOCKS version 5")]
    Version,
    #[error("no method without authentication")]
    Method,
    #[error("the other side refuses with code {0}")]
    Refused(u8),
    #[error("not the command CONNECT")]
    Command,
    #[error("another destination")]
    Destination,
    #[error("an unknown type of address")]
    AddressType,
}

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const CONNECT: u8 = 1;
const SUCCEEDED: u8 = 0;
const IPV4: u8 = 1;
const DOMAIN: u8 = 3;
const IPV6: u8 = 4;
const PORT_BYTES: usize = 2;

/// The greeting of a client, and the answer to it.
pub(crate) const GREETING: [u8; 3] = [VERSION, 1, NO_AUTHENTICATION];
pub(crate) const CHOICE: [u8; 2] = [VERSION, NO_AUTHENTICATION];

/// XEP-0065: the address that a stream is asked for by.
pub(crate) fn destination(sid: &str, requester: &FullJid, target: &FullJid) -> String {
    let hash = Sha1::new().chain_update(sid).chain_update(requester.as_str()).chain_update(target.as_str());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The request for an address.
pub(crate) fn request(destination: &str) -> Vec<u8> {
    message(CONNECT, destination)
}

/// The answer that the stream is there.
pub(crate) fn granted(destination: &str) -> Vec<u8> {
    message(SUCCEEDED, destination)
}

fn message(code: u8, destination: &str) -> Vec<u8> {
    // A destination has 40 characters.
    let length = u8::try_from(destination.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![VERSION, code, 0, DOMAIN, length];
    bytes.extend(destination.bytes().take(length.into()));
    bytes.extend([0; PORT_BYTES]);
    bytes
}

/// A greeting.
pub(crate) fn read_greeting(bytes: &[u8]) -> Result<Read<()>, SocksError> {
    let [version, count, methods @ ..] = bytes else { return Ok(Read::More(2 - bytes.len())) };
    if *version != VERSION {
        return Err(SocksError::Version);
    }
    match usize::from(*count).checked_sub(methods.len()) {
        Some(0) | None if methods.contains(&NO_AUTHENTICATION) => Ok(Read::Done(())),
        Some(0) | None => Err(SocksError::Method),
        Some(missing) => Ok(Read::More(missing)),
    }
}

/// The answer to a greeting.
pub(crate) fn read_choice(bytes: &[u8]) -> Result<Read<()>, SocksError> {
    match bytes {
        [VERSION, NO_AUTHENTICATION, ..] => Ok(Read::Done(())),
        [VERSION, _, ..] => Err(SocksError::Method),
        [_, _, ..] => Err(SocksError::Version),
        _ => Ok(Read::More(2 - bytes.len())),
    }
}

/// A request; its destination.
pub(crate) fn read_request(bytes: &[u8]) -> Result<Read<&[u8]>, SocksError> {
    if bytes.get(1).is_some_and(|command| *command != CONNECT) {
        return Err(SocksError::Command);
    }
    read_address(bytes)
}

/// The answer to a request.
pub(crate) fn read_reply(bytes: &[u8]) -> Result<Read<()>, SocksError> {
    if let Some(&code) = bytes.get(1).filter(|code| **code != SUCCEEDED) {
        return Err(SocksError::Refused(code));
    }
    Ok(match read_address(bytes)? {
        Read::More(count) => Read::More(count),
        Read::Done(_) => Read::Done(()),
    })
}

/// Request and reply have the same form.
fn read_address(bytes: &[u8]) -> Result<Read<&[u8]>, SocksError> {
    if bytes.first().is_some_and(|version| *version != VERSION) {
        return Err(SocksError::Version);
    }
    // Five bytes are there with every type of address.
    let [_, _, _, kind, length, ..] = bytes else { return Ok(Read::More(5 - bytes.len())) };
    let (from, count) = match *kind {
        IPV4 => (4, 4),
        IPV6 => (4, 16),
        DOMAIN => (5, usize::from(*length)),
        _ => return Err(SocksError::AddressType),
    };
    match (from + count + PORT_BYTES).checked_sub(bytes.len()) {
        Some(missing) if missing > 0 => Ok(Read::More(missing)),
        _ => Ok(Read::Done(bytes.get(from..from + count).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> FullJid {
        FullJid::new(text).unwrap()
    }

    #[test]
    fn the_destination_is_the_sha_1_of_session_requester_and_target() {
        let (requester, target) = (jid("requester@example.com/foo"), jid("target@example.org/bar"));
        // printf 'vxf9n471bn46requester@example.com/footarget@example.org/bar' | sha1sum
        let expected = "98b8d688d0f5d895fd41c5e7309a2e9e33ba32ff";
        assert_eq!(destination("vxf9n471bn46", &requester, &target), expected);
    }

    #[test]
    fn messages_make_a_round_trip_byte_by_byte() {
        let destination = destination("s", &jid("a@example.org/r"), &jid("b@example.org/r"));
        assert_eq!(destination.len(), 40);
        let request = request(&destination);
        for end in 0..request.len() {
            assert!(matches!(read_request(&request[..end]), Ok(Read::More(n)) if end + n <= request.len()));
        }
        assert_eq!(read_request(&request), Ok(Read::Done(destination.as_bytes())));
        assert_eq!(read_reply(&granted(&destination)), Ok(Read::Done(())));
        assert_eq!(read_greeting(&GREETING), Ok(Read::Done(())));
        assert_eq!(read_greeting(&GREETING[..1]), Ok(Read::More(1)));
        assert_eq!(read_choice(&CHOICE), Ok(Read::Done(())));
    }

    #[test]
    fn a_reply_with_an_ip_address_is_taken_whole() {
        let reply = [5, 0, 0, IPV4, 127, 0, 0, 1, 0, 80];
        assert_eq!(read_reply(&reply[..5]), Ok(Read::More(5)));
        assert_eq!(read_reply(&reply), Ok(Read::Done(())));
        assert_eq!(read_reply(&[5, 0, 0, IPV6, 1]), Ok(Read::More(17)));
    }

    #[test]
    fn what_is_not_asked_for_is_refused() {
        assert_eq!(read_greeting(b"GET / HTTP"), Err(SocksError::Version));
        assert_eq!(read_greeting(&[5, 1, 2]), Err(SocksError::Method));
        assert_eq!(read_choice(&[5, 255]), Err(SocksError::Method));
        assert_eq!(read_request(&[5, 2]), Err(SocksError::Command));
        assert_eq!(read_request(&[5, 1, 0, 9, 0]), Err(SocksError::AddressType));
        assert_eq!(read_reply(&[5, 5]), Err(SocksError::Refused(5)));
    }
}
