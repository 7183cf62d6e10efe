//! An LDAP client that costs little: it shares the processors with the servers that it measures.
//!
//! One blocking connection, one operation at a time. It knows bind, add, modify, delete and the search of one
//! entry.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xmppsync_lab::Slapd;
use xmppsync_lab::ldif::Record;

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
const ADD_REQUEST: u8 = 0x68;
const ADD_RESPONSE: u8 = 0x69;
const DELETE_REQUEST: u8 = 0x4a;
const DELETE_RESPONSE: u8 = 0x6b;
const SIMPLE_PASSWORD: u8 = 0x80;
const FILTER_PRESENT: u8 = 0x87;
const REPLACE: u32 = 2;

/// RFC 4511, 4.1.9.
const SUCCESS: u32 = 0;
const NO_SUCH_OBJECT: u32 = 32;
const BUSY: u32 = 51;

/// A connection, bound.
pub(super) struct Client {
    name: String,
    stream: TcpStream,
    last_id: u32,
    received: Vec<u8>,
}

impl Client {
    /// Connects and binds as the rootdn of the server's first database.
    pub(super) fn connect(server: &Slapd) -> Result<Self> {
        let database = server.config().databases.first().context("a slapd without a database")?;
        Self::connect_as(server, &database.rootdn, &database.rootpw)
    }

    /// Connects and binds.
    pub(super) fn connect_as(server: &Slapd, dn: &str, password: &str) -> Result<Self> {
        let uri = server.uri();
        let address: SocketAddr = uri.trim_start_matches("ldap://").parse().context(uri.clone())?;
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {uri}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let name = server.name().to_owned();
        let mut client = Self { name, stream, last_id: 0, received: Vec::new() };
        let version = number(INTEGER, 3);
        let dn = element(OCTETS, dn.as_bytes());
        let password = element(SIMPLE_PASSWORD, password.as_bytes());
        client.send(constructed(BIND_REQUEST, [version, dn, password]))?;
        client.finish(BIND_RESPONSE, "bind")?;
        Ok(client)
    }

    /// Gives attributes one new value each.
    pub(super) fn replace(&mut self, dn: &str, attributes: &[(&str, &str)]) -> Result<()> {
        let mut changes = Vec::new();
        for (name, value) in attributes {
            let attribute = attribute(name, &[value.as_bytes()]);
            changes.extend(constructed(SEQUENCE, [number(ENUMERATED, REPLACE), attribute]));
        }
        let entry = element(OCTETS, dn.as_bytes());
        self.send(constructed(MODIFY_REQUEST, [entry, element(SEQUENCE, &changes)]))?;
        self.finish(MODIFY_RESPONSE, dn).map(drop)
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        let mut values: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
        for (name, value) in &record.attributes {
            values.entry(name).or_default().push(value);
        }
        let attributes: Vec<u8> = values.iter().flat_map(|(name, values)| attribute(name, values)).collect();
        let entry = element(OCTETS, record.dn.as_bytes());
        self.send(constructed(ADD_REQUEST, [entry, element(SEQUENCE, &attributes)]))?;
        self.finish(ADD_RESPONSE, &record.dn).map(drop)
    }

    /// Deletes an entry.
    pub(super) fn delete(&mut self, dn: &str) -> Result<()> {
        self.send(element(DELETE_REQUEST, dn.as_bytes()))?;
        self.finish(DELETE_RESPONSE, dn).map(drop)
    }

    /// The values of an attribute of an entry.
    pub(super) fn values(&mut self, dn: &str, attribute: &str) -> Result<Vec<String>> {
        self.search(dn, attribute)?;
        let found = self.finish(SEARCH_DONE, dn)?;
        Ok(found.iter().flat_map(|entry| entry_values(entry)).collect())
    }

    /// The same of a server that may not have the entry yet, or be busy because it does not have all; then
    /// there are none.
    pub(super) fn values_so_far(&mut self, dn: &str, attribute: &str) -> Result<Vec<String>> {
        self.search(dn, attribute)?;
        let answer = self.answer(SEARCH_DONE, dn)?;
        match answer.code {
            NO_SUCH_OBJECT | BUSY => Ok(Vec::new()),
            _ => Ok(self.succeeded(answer, dn)?.iter().flat_map(|entry| entry_values(entry)).collect()),
        }
    }

    fn search(&mut self, dn: &str, attribute: &str) -> Result<()> {
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
        ))
    }

    fn send(&mut self, operation: Vec<u8>) -> Result<()> {
        self.last_id += 1;
        let message = constructed(SEQUENCE, [number(INTEGER, self.last_id), operation]);
        self.stream.write_all(&message).with_context(|| format!("sending to {}", self.name))
    }

    /// Waits for the end of the operation, which must be a good one; the entries that came before it.
    fn finish(&mut self, wanted: u8, what: &str) -> Result<Vec<Vec<u8>>> {
        let answer = self.answer(wanted, what)?;
        self.succeeded(answer, what)
    }

    fn succeeded(&self, answer: Answer, what: &str) -> Result<Vec<Vec<u8>>> {
        let Answer { code, text, entries } = answer;
        if code != SUCCESS {
            bail!("{what} at {}: result {code} {text}", self.name);
        }
        Ok(entries)
    }

    /// Waits for the end of the operation.
    fn answer(&mut self, wanted: u8, what: &str) -> Result<Answer> {
        let mut entries = Vec::new();
        loop {
            let (tag, content) = self.receive().with_context(|| format!("{what} at {}", self.name))?;
            if tag == SEARCH_ENTRY {
                entries.push(content);
                continue;
            }
            let mut parts = elements(&content);
            let code = parts.next().map(|(_, code)| value(code));
            let text = parts.nth(1).map(|(_, text)| String::from_utf8_lossy(text).into_owned());
            return match code {
                Some(code) if tag == wanted => Ok(Answer { code, text: text.unwrap_or_default(), entries }),
                _ => bail!("{what} at {}: an answer of another kind, {tag:#x}", self.name),
            };
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

/// What a server said at the end of an operation.
struct Answer {
    code: u32,
    text: String,
    /// Those that it sent before.
    entries: Vec<Vec<u8>>,
}

/// Runs each client's part in a thread of its own, all beginning together; when that was, and what they
/// returned.
pub(super) fn at_once<T: Send>(
    clients: &mut [Client],
    part: impl Fn(usize, &mut Client) -> Result<T> + Sync,
) -> Result<(Instant, Vec<T>)> {
    let barrier = Barrier::new(clients.len() + 1);
    let (barrier, part) = (&barrier, &part);
    thread::scope(|scope| {
        let run = |(number, client)| {
            scope.spawn(move || {
                barrier.wait();
                part(number, client)
            })
        };
        let threads: Vec<_> = clients.iter_mut().enumerate().map(run).collect();
        barrier.wait();
        let begin = Instant::now();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a client panicked"),
        });
        // All are waited for before the first error is told.
        let results: Vec<Result<T>> = joined.collect();
        Ok((begin, results.into_iter().collect::<Result<_>>()?))
    })
}

/// An attribute with its values.
fn attribute(name: &str, values: &[&[u8]]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| element(OCTETS, value)).collect();
    constructed(SEQUENCE, [element(OCTETS, name.as_bytes()), element(SET, &values)])
}

/// The values in an entry of which one attribute was asked for: options such as `;lang-de` count too.
fn entry_values(entry: &[u8]) -> Vec<String> {
    let attributes = elements(entry).nth(1).map(|(_, attributes)| attributes).unwrap_or_default();
    let sets = elements(attributes).filter_map(|(_, attribute)| elements(attribute).nth(1));
    let values = sets.flat_map(|(_, set)| elements(set));
    values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}
