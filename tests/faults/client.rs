//! A client that writes to one server, and says in the history what it asked for and what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use xmppsync_lab::ldap3::controls::{PostRead, PreRead, RawControl, ReadEntryResp};
use xmppsync_lab::ldap3::{LdapError, LdapResult, Mod, Scope};
use xmppsync_lab::{Ldap, SUFFIX};

use crate::checker::{MARK, NUMBER, PLACES, SHARED, VALUE, VALUES, rdn};
use crate::history::{History, Operation, What};
use crate::traffic::Traffic;

/// Below it are the entries that all clients write to.
pub(crate) const SHARED_PLACE: &str = "ou=shared,dc=example,dc=com";
/// Below it all clients add and delete entries of the same few names, and entries below those.
pub(crate) const HOT_PLACE: &str = "ou=hot,dc=example,dc=com";
/// So few that clients meet.
pub(crate) const SHARED_ENTRIES: usize = 4;
const HOT_NAMES: usize = 6;
/// Own entries, beyond which one is deleted for each that is added.
const OWN_MAX: usize = 60;
/// A server that hangs for a minute answers afterwards.
const ANSWER_MAX: Duration = Duration::from_secs(100);
/// Before it connects once more to a server that is not there.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// LDAP results that mean that nothing was done (RFC 4511, appendix A): of what is there or not, of names in use, of
/// entries with children, of a server that takes no writes. All others leave it open.
const REFUSALS: [u32; 8] = [16, 17, 20, 32, 53, 66, 68, 71];

pub(crate) struct Client {
    name: String,
    server: String,
    uri: String,
    rng: StdRng,
    history: Arc<History>,
    /// The DNs of its entries by their marks, as far as it knows for sure.
    own: BTreeMap<String, String>,
    inserted: Vec<(String, String)>,
    count: u64,
}

/// No answer came: the connection is of no use any more.
struct Gone;

impl Client {
    pub(crate) fn new(name: &str, server: &str, uri: &str, seed: u64, history: &Arc<History>) -> Client {
        Client {
            name: name.to_owned(),
            server: server.to_owned(),
            uri: uri.to_owned(),
            rng: StdRng::seed_from_u64(seed),
            history: Arc::clone(history),
            own: BTreeMap::new(),
            inserted: Vec::new(),
            count: 0,
        }
    }

    /// Writes until the traffic ends, whenever the server is there.
    pub(crate) fn run(mut self, traffic: &Traffic) -> Client {
        while !traffic.has_ended() {
            let Ok(mut ldap) = Ldap::bind(&self.uri, &format!("cn=admin,{SUFFIX}"), "secret") else {
                thread::sleep(CONNECT_PAUSE);
                continue;
            };
            while !traffic.has_ended() {
                let turn = traffic.turn(&self.server);
                let outcome = self.any(&mut ldap);
                drop(turn);
                if outcome.is_err() {
                    break;
                }
                thread::sleep(traffic.pace());
            }
        }
        self
    }

    /// The entries that all clients write to, and the places of the others.
    pub(crate) fn prepare(&mut self, ldap: &mut Ldap) {
        for place in PLACES.into_iter().chain([SHARED_PLACE, HOT_PLACE]) {
            let name = rdn(place).trim_start_matches("ou=");
            ldap.add(place, &[("objectClass", "organizationalUnit"), ("ou", name)]).unwrap();
        }
        for number in 0..SHARED_ENTRIES {
            let mark = format!("{SHARED}-{number}");
            let added = self.add(ldap, &mark, &format!("uid={mark},{SHARED_PLACE}"));
            assert!(added.is_ok_and(|outcome| matches!(outcome, What::Ok { .. })), "{mark}");
        }
    }

    fn any(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        self.count += 1;
        match self.rng.random_range(0..100_u32) {
            0..12 => self.add_own(ldap),
            12..30 => self.set_own(ldap),
            30..40 => self.rename_own(ldap),
            40..46 => self.delete_own(ldap),
            46..58 => self.write_shared(ldap),
            58..68 => self.insert_shared(ldap),
            68..72 => self.remove_shared(ldap),
            72..82 => self.raise_shared(ldap),
            82..88 => self.name_shared(ldap),
            88..95 => self.add_hot(ldap),
            _ => self.delete_hot(ldap),
        }
    }

    fn mark(&self) -> String {
        format!("{}-{}", self.name, self.count)
    }

    fn shared(&mut self) -> String {
        format!("{SHARED}-{}", self.rng.random_range(0..SHARED_ENTRIES))
    }

    fn hot(&mut self) -> String {
        format!("uid=hot-{},{HOT_PLACE}", self.rng.random_range(0..HOT_NAMES))
    }

    fn add(&mut self, ldap: &mut Ldap, mark: &str, dn: &str) -> Result<What, Gone> {
        let (operation, uid) = (
            Operation::Add { mark: mark.to_owned(), dn: dn.to_owned(), value: "new".to_owned() },
            rdn(dn).trim_start_matches("uid=").to_owned(),
        );
        let attributes = [
            ("objectClass", "inetOrgPerson"),
            ("objectClass", "extensibleObject"),
            ("uid", uid.as_str()),
            ("cn", mark),
            ("sn", "Test"),
            (NUMBER, "0"),
            (MARK, mark),
            (VALUE, "new"),
        ];
        let mut all = BTreeMap::<Vec<u8>, std::collections::HashSet<Vec<u8>>>::new();
        for (name, value) in attributes {
            all.entry(name.into()).or_default().insert(value.into());
        }
        let all = all.into_iter().collect();
        self.done(operation, || ldap.raw().with_timeout(ANSWER_MAX).with_controls(csn_after()).add(dn, all))
    }

    /// An entry of its own, sometimes below one that others delete.
    fn add_own(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        if self.own.len() >= OWN_MAX {
            return self.delete_own(ldap);
        }
        let mark = self.mark();
        let parent = if self.rng.random_bool(0.15) { self.hot() } else { self.place() };
        let dn = format!("uid={mark},{parent}");
        let outcome = self.add(ldap, &mark, &dn)?;
        if let What::Ok { .. } = outcome {
            self.own.insert(mark, dn);
        }
        Ok(outcome)
    }

    fn place(&mut self) -> String {
        PLACES[self.rng.random_range(0..PLACES.len())].to_owned()
    }

    /// An entry of its own, taken out: it is put back where the outcome is known.
    fn take(&mut self) -> Option<(String, String)> {
        let marks: Vec<&String> = self.own.keys().collect();
        let mark = marks.choose(&mut self.rng).map(|mark| (*mark).clone())?;
        let own = self.own.remove(&mark)?;
        Some((mark, own))
    }

    fn set_own(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let Some((mark, own)) = self.take() else { return self.add_own(ldap) };
        let value = self.mark();
        let operation = Operation::Set { mark: mark.clone(), value: value.clone() };
        let outcome = self.modify(ldap, operation, &own, replace(VALUE, &value))?;
        if let What::Ok { .. } | What::Fail { .. } = outcome {
            self.own.insert(mark, own);
        }
        Ok(outcome)
    }

    fn rename_own(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let Some((mark, own)) = self.take() else { return self.add_own(ldap) };
        let (rdn, parent) = (format!("uid={}", self.mark()), self.place());
        let dn = format!("{rdn},{parent}");
        let operation = Operation::Rename { mark: mark.clone(), dn: dn.clone() };
        let outcome = self.done(operation, || {
            let ldap = ldap.raw().with_timeout(ANSWER_MAX);
            ldap.with_controls(csn_after()).modifydn(&own, &rdn, true, Some(&parent))
        })?;
        match outcome {
            What::Ok { .. } => drop(self.own.insert(mark, dn)),
            What::Fail { .. } => drop(self.own.insert(mark, own)),
            _ => {}
        }
        Ok(outcome)
    }

    fn delete_own(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let Some((mark, own)) = self.take() else { return self.add_own(ldap) };
        let operation = Operation::Delete { mark: mark.clone() };
        let outcome = self.done(operation, || ldap.raw().with_timeout(ANSWER_MAX).delete(&own))?;
        if let What::Fail { .. } = outcome {
            self.own.insert(mark, own);
        }
        Ok(outcome)
    }

    fn write_shared(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let (shared, value) = (self.shared(), self.mark());
        let operation = Operation::Write { shared: shared.clone(), value: value.clone() };
        self.modify_shared(ldap, operation, &shared, replace(VALUE, &value))
    }

    fn insert_shared(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let (shared, value) = (self.shared(), self.mark());
        let operation = Operation::Insert { shared: shared.clone(), value: value.clone() };
        let change = Mod::Add(VALUES.into(), [value.clone().into_bytes()].into());
        let outcome = self.modify_shared(ldap, operation, &shared, change)?;
        if let What::Ok { .. } = outcome {
            self.inserted.push((shared, value));
        }
        Ok(outcome)
    }

    fn remove_shared(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        if self.inserted.is_empty() {
            return self.insert_shared(ldap);
        }
        let (shared, value) = self.inserted.swap_remove(self.rng.random_range(0..self.inserted.len()));
        let operation = Operation::Remove { shared: shared.clone(), value: value.clone() };
        let change = Mod::Delete(VALUES.into(), [value.clone().into_bytes()].into());
        let outcome = self.modify_shared(ldap, operation, &shared, change)?;
        if let What::Fail { .. } = outcome {
            self.inserted.push((shared, value));
        }
        Ok(outcome)
    }

    fn raise_shared(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let (shared, by) = (self.shared(), self.rng.random_range(1..=3));
        let operation = Operation::Raise { shared: shared.clone(), by };
        let change = Mod::Increment(NUMBER.into(), by.to_string().into_bytes());
        self.modify_shared(ldap, operation, &shared, change)
    }

    fn name_shared(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let (shared, rdn) = (self.shared(), format!("uid={}", self.mark()));
        let dn = self.find(ldap, &shared)?;
        let operation = Operation::Name { shared, rdn: rdn.clone() };
        self.done(operation, || {
            let ldap = ldap.raw().with_timeout(ANSWER_MAX);
            ldap.with_controls(csn_after()).modifydn(&dn, &rdn, true, None)
        })
    }

    fn add_hot(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let (mark, dn) = (self.mark(), self.hot());
        self.add(ldap, &mark, &dn)
    }

    fn delete_hot(&mut self, ldap: &mut Ldap) -> Result<What, Gone> {
        let dn = self.hot();
        let before: RawControl = PreRead::new(vec![MARK]);
        self.done(Operation::DeleteName { dn: dn.clone() }, || {
            ldap.raw().with_timeout(ANSWER_MAX).with_controls(before).delete(&dn)
        })
    }

    fn modify_shared(
        &mut self,
        ldap: &mut Ldap,
        operation: Operation,
        shared: &str,
        change: Mod<Vec<u8>>,
    ) -> Result<What, Gone> {
        let dn = self.find(ldap, shared)?;
        self.modify(ldap, operation, &dn, change)
    }

    fn modify(
        &mut self,
        ldap: &mut Ldap,
        operation: Operation,
        dn: &str,
        change: Mod<Vec<u8>>,
    ) -> Result<What, Gone> {
        self.done(operation, || {
            let ldap = ldap.raw().with_timeout(ANSWER_MAX);
            ldap.with_controls(csn_after()).modify(dn, vec![change])
        })
    }

    /// The name of an entry by now; where it is not there (yet, in an empty database), one that is refused.
    fn find(&mut self, ldap: &mut Ldap, mark: &str) -> Result<String, Gone> {
        let found = ldap.search(SUFFIX, Scope::Subtree, &format!("({MARK}={mark})"), &["1.1"]);
        let found = found.map_err(|_| Gone)?;
        Ok(found.into_iter().next().map_or_else(|| format!("uid={mark},{SHARED_PLACE}"), |(dn, _)| dn))
    }

    /// Does it, between two lines of the history.
    fn done(
        &mut self,
        operation: Operation,
        ask: impl FnOnce() -> Result<LdapResult, LdapError>,
    ) -> Result<What, Gone> {
        let number = self.history.invoke(&self.name, &self.server, operation);
        let (outcome, gone) = match ask() {
            Ok(result) if result.rc == 0 => (ok(&result), false),
            Ok(result) => {
                let error = format!("{} {}", result.rc, result.text);
                let is_refusal = REFUSALS.contains(&result.rc);
                (if is_refusal { What::Fail { error } } else { What::Unknown { error } }, false)
            }
            Err(error) => (What::Unknown { error: error.to_string() }, true),
        };
        self.history.complete(&self.name, &self.server, number, outcome.clone());
        // Of an own entry whose state is unknown nobody speaks any more: it was taken out.
        match outcome {
            What::Unknown { .. } if gone => Err(Gone),
            outcome => Ok(outcome),
        }
    }
}

fn csn_after() -> RawControl {
    PostRead::new(vec!["entryCSN"])
}

fn replace(attribute: &str, value: &str) -> Mod<Vec<u8>> {
    Mod::Replace(attribute.into(), [value.as_bytes().to_vec()].into())
}

/// What the controls of an answer tell.
fn ok(result: &LdapResult) -> What {
    let read = result.ctrls.iter().find_map(|control| {
        let is_read = control.1.ctype.starts_with("1.3.6.1.1.13.");
        is_read.then(|| control.1.parse::<ReadEntryResp>())
    });
    let first = |name: &str| {
        let read = read.as_ref()?;
        let values = read.attrs.iter().find(|(attribute, _)| attribute.eq_ignore_ascii_case(name));
        values.and_then(|(_, values)| values.first().cloned())
    };
    What::Ok { csn: first("entryCSN"), mark: first(MARK) }
}
