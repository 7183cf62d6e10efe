//! An LDAP client that costs little: it shares the processors with the servers that it measures.
//!
//! One blocking connection, one operation at a time. It knows bind, modify and the search of one entry.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xmppsync_lab::Slapd;

use super::ber::{constructed, element, elements, number, split, value};

/// An operation that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(120);
const READ_SIZE: usize = 4096;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const MODIFY_REQUEST: u8 = 0x66;
const MODIFY_RESPONSE: u8 = 0x67;
const SIMPLE_PASSWORD: u8 = 0x80;
const FILTER_PRESENT: u8 = 0x87;
const REPLACE: u32 = 2;

/// A connection, bound as the rootdn of the server's first database.
pub(super) struct Client {
    name: String,
    stream: TcpStream,
    last_id: u32,
    received: Vec<u8>,
}

impl Client {
    /// Connects and binds.
    pub(super) fn connect(server: &Slapd) -> Result<Self> {
        let uri = server.uri();
        let address: SocketAddr = uri.trim_start_matches("ldap://").parse().context(uri.clone())?;
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {uri}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let name = server.name().to_owned();
        let mut client = Self { name, stream, last_id: 0, received: Vec::new() };
        let database = server.config().databases.first().context("a slapd without a database")?;
        let version = number(INTEGER, 3);
        let dn = element(OCTETS, database.rootdn.as_bytes());
        let password = element(SIMPLE_PASSWORD, database.rootpw.as_bytes());
        client.send(constructed(BIND_REQUEST, [version, dn, password]))?;
        client.finish(BIND_RESPONSE, "bind")?;
        Ok(client)
    }

    /// Gives attributes one new value each.
    pub(super) fn replace(&mut self, dn: &str, attributes: &[(&str, &str)]) -> Result<()> {
        let mut changes = Vec::new();
        for (name, value) in attributes {
            let values = element(SET, &element(OCTETS, value.as_bytes()));
            let attribute = constructed(SEQUENCE, [element(OCTETS, name.as_bytes()), values]);
            changes.extend(constructed(SEQUENCE, [number(ENUMERATED, REPLACE), attribute]));
        }
        let entry = element(OCTETS, dn.as_bytes());
        self.send(constructed(MODIFY_REQUEST, [entry, element(SEQUENCE, &changes)]))?;
        self.finish(MODIFY_RESPONSE, dn).map(drop)
    }

    /// The values of an attribute of an entry.
    pub(super) fn values(&mut self, dn: &str, attribute: &str) -> Result<Vec<String>> {
        let zero = |tag| number(tag, 0);
        self.send(constructed(
            SEARCH_REQUEST,
            [
                element(OCTETS, dn.as_bytes()),
                // The entry itself; aliases are not followed; no limit of size or time.
                zero(ENUMERATED),
                zero(ENUMERATED),
                zero(INTEGER),
                zero(INTEGER),
                // Values too, not only the names of attributes.
                element(0x01, &[0]),
                element(FILTER_PRESENT, b"objectClass"),
                element(SEQUENCE, &element(OCTETS, attribute.as_bytes())),
            ],
        ))?;
        let found = self.finish(SEARCH_DONE, dn)?;
        Ok(found.iter().flat_map(|entry| entry_values(entry)).collect())
    }

    fn send(&mut self, operation: Vec<u8>) -> Result<()> {
        self.last_id += 1;
        let message = constructed(SEQUENCE, [number(INTEGER, self.last_id), operation]);
        self.stream.write_all(&message).with_context(|| format!("sending to {}", self.name))
    }

    /// Waits for the end of the operation; the entries that came before it.
    fn finish(&mut self, wanted: u8, what: &str) -> Result<Vec<Vec<u8>>> {
        let mut entries = Vec::new();
        loop {
            let (tag, content) = self.receive().with_context(|| format!("{what} at {}", self.name))?;
            if tag == SEARCH_ENTRY {
                entries.push(content);
                continue;
            }
            let mut parts = elements(&content);
            let code = parts.next().map(|(_, code)| value(code));
            if tag != wanted || code != Some(0) {
                let text = parts.nth(1).map(|(_, text)| String::from_utf8_lossy(text).into_owned());
                bail!("{what} at {}: result {code:?} {}", self.name, text.unwrap_or_default());
            }
            return Ok(entries);
        }
    }

    /// The next answer to the last operation: its tag and content.
    fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some((_, message, rest)) = split(&self.received) {
                let mut parts = elements(message);
                let id = parts.next().map(|(_, id)| value(id));
                let operation = parts.next().map(|(tag, content)| (tag, content.to_vec()));
                let used = self.received.len() - rest.len();
                drop(parts);
                self.received.drain(..used);
                match operation {
                    Some(operation) if id == Some(self.last_id) => return Ok(operation),
                    _ => bail!("an answer that was not asked for"),
                }
            }
            let mut buffer = [0; READ_SIZE];
            match self.stream.read(&mut buffer)? {
                0 => bail!("the server closed the connection"),
                length => self.received.extend(&buffer[..length]),
            }
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "slapd {}", self.name)
    }
}

/// The values in an entry of which one attribute was asked for: options such as `;lang-de` count too.
fn entry_values(entry: &[u8]) -> Vec<String> {
    let attributes = elements(entry).nth(1).map(|(_, attributes)| attributes).unwrap_or_default();
    let sets = elements(attributes).filter_map(|(_, attribute)| elements(attribute).nth(1));
    let values = sets.flat_map(|(_, set)| elements(set));
    values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}
