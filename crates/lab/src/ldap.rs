//! A client, for tests: operations, and whole databases to compare.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use ldap3::controls::ManageDsaIt;
use ldap3::{LdapConn, LdapConnSettings, LdapError, Mod, Scope, SearchEntry};

use crate::child::{program, run_tool};
use crate::error::{IoContext, LabError, Result};
use crate::slapd::Slapd;

/// An operation that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(120);
const NO_SUCH_OBJECT: u32 = 32;

/// The attributes of an entry with their values, operational ones too.
pub type Entry = BTreeMap<String, BTreeSet<Vec<u8>>>;

/// A connection, bound.
pub struct Ldap {
    connection: LdapConn,
    uri: String,
}

impl Ldap {
    /// Connects and binds.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub fn bind(uri: &str, dn: &str, password: &str) -> Result<Self> {
        let settings = LdapConnSettings::new().set_conn_timeout(TIMEOUT);
        let what = |error| failed(format!("bind as {dn:?} to {uri}"), error);
        let mut connection = LdapConn::with_settings(settings, uri).map_err(what)?;
        let bound = connection.with_timeout(TIMEOUT).simple_bind(dn, password);
        bound.and_then(ldap3::LdapResult::success).map_err(what)?;
        Ok(Self { connection, uri: uri.to_owned() })
    }

    /// Adds an entry; an attribute that stands several times has several values.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn add(&mut self, dn: &str, attributes: &[(&str, &str)]) -> Result<()> {
        let pairs = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        self.add_bytes(dn, pairs)
    }

    /// [`Ldap::add`] for any values.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn add_bytes(&mut self, dn: &str, pairs: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<()> {
        let mut attributes: BTreeMap<Vec<u8>, HashSet<Vec<u8>>> = BTreeMap::new();
        for (name, value) in pairs {
            attributes.entry(name.into_bytes()).or_default().insert(value);
        }
        let result = self.timed().add(dn, attributes.into_iter().collect());
        self.check(&format!("add {dn:?}"), result.and_then(ldap3::LdapResult::success))
    }

    /// Modifies an entry.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn modify(&mut self, dn: &str, changes: Vec<Mod<Vec<u8>>>) -> Result<()> {
        let result = self.timed().modify(dn, changes);
        self.check(&format!("modify {dn:?}"), result.and_then(ldap3::LdapResult::success))
    }

    /// Replaces all values of an attribute; none removes it.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn replace(&mut self, dn: &str, attribute: &str, values: &[&str]) -> Result<()> {
        let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        self.modify(dn, vec![Mod::Replace(attribute.as_bytes().to_vec(), values)])
    }

    /// Renames or moves an entry; the old RDN's values go.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn rename(&mut self, dn: &str, new_rdn: &str, new_superior: Option<&str>) -> Result<()> {
        let result = self.timed().modifydn(dn, new_rdn, true, new_superior);
        self.check(&format!("rename {dn:?}"), result.and_then(ldap3::LdapResult::success))
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn delete(&mut self, dn: &str) -> Result<()> {
        let result = self.timed().delete(dn);
        self.check(&format!("delete {dn:?}"), result.and_then(ldap3::LdapResult::success))
    }

    /// An entry with everything in it; `None` where there is none.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn entry(&mut self, dn: &str) -> Result<Option<Entry>> {
        let mut found = self.search(dn, Scope::Base, "(objectClass=*)", &["*", "+"])?;
        Ok(found.pop().map(|(_, entry)| entry))
    }

    /// The values of one attribute as text, sorted; empty where entry or attribute is not there.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn values(&mut self, dn: &str, attribute: &str) -> Result<Vec<String>> {
        let found = self.search(dn, Scope::Base, "(objectClass=*)", &[attribute])?;
        let values = found.into_iter().flat_map(|(_, entry)| entry.into_values().flatten());
        Ok(values.map(|value| String::from_utf8_lossy(&value).into_owned()).collect())
    }

    /// Entries by DN, in the order of their DNs. Referrals and glue count as the entries that they are; a
    /// base that is not there gives none.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn search(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&str],
    ) -> Result<Vec<(String, Entry)>> {
        let mut entries = Vec::new();
        self.search_each(base, scope, filter, attributes, |dn, entry| entries.push((dn, entry)))?;
        entries.sort();
        Ok(entries)
    }

    /// [`Ldap::search`] that gives one entry after the other, in the server's order, and keeps none.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn search_each(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&str],
        mut each: impl FnMut(String, Entry),
    ) -> Result<()> {
        let uri = &self.uri;
        let failed = |error| failed(format!("search {base:?} {filter} at {uri}"), error);
        let connection = self.connection.with_timeout(TIMEOUT).with_controls(ManageDsaIt);
        let mut found = connection.streaming_search(base, scope, filter, attributes).map_err(failed)?;
        while let Some(entry) = found.next().map_err(failed)? {
            if !entry.is_ref() && !entry.is_intermediate() {
                let (dn, entry) = read(SearchEntry::construct(entry));
                each(dn, entry);
            }
        }
        match found.result().success() {
            Ok(_) => Ok(()),
            Err(LdapError::LdapResult { result }) if result.rc == NO_SUCH_OBJECT => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// The connection itself, for controls and extended operations.
    pub fn raw(&mut self) -> &mut LdapConn {
        &mut self.connection
    }

    fn timed(&mut self) -> &mut LdapConn {
        self.connection.with_timeout(TIMEOUT)
    }

    fn check<T>(&self, what: &str, result: Result<T, LdapError>) -> Result<()> {
        result.map(drop).map_err(|error| failed(format!("{what} at {}", self.uri), error))
    }
}

impl Slapd {
    /// A client bound as the rootdn of the first database.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn ldap(&self) -> Result<Ldap> {
        let (dn, password) = self.root_of(None)?;
        Ldap::bind(&self.uri(), &dn, &password)
    }

    /// A client bound as the rootdn of the database with this suffix.
    ///
    /// # Errors
    /// When there is no such database, or the server cannot be reached.
    pub fn ldap_of(&self, suffix: &str) -> Result<Ldap> {
        let (dn, password) = self.root_of(Some(suffix))?;
        Ldap::bind(&self.uri(), &dn, &password)
    }

    /// A client that may change `cn=config` and read `cn=monitor`.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn ldap_config(&self) -> Result<Ldap> {
        Ldap::bind(&self.uri(), "cn=config", "secret")
    }

    /// Gives LDIF to `ldapmodify`, as the rootdn of the database with this suffix: entries are added,
    /// change records are carried out.
    ///
    /// # Errors
    /// When ldapmodify fails, with what it says.
    pub fn ldapmodify(&self, suffix: &str, ldif: &str) -> Result<()> {
        let (dn, password) = self.root_of(Some(suffix))?;
        self.ldapmodify_as(&dn, &password, ldif)
    }

    /// Gives LDIF to `ldapmodify`, to change `cn=config`.
    ///
    /// # Errors
    /// When ldapmodify fails, with what it says.
    pub fn ldapmodify_config(&self, ldif: &str) -> Result<()> {
        self.ldapmodify_as("cn=config", "secret", ldif)
    }

    fn ldapmodify_as(&self, dn: &str, password: &str, ldif: &str) -> Result<()> {
        let file = tempfile::Builder::new()
            .prefix("ldif-")
            .tempfile_in(self.dir())
            .and_then(|file| std::fs::write(file.path(), ldif).map(|()| file))
            .context(|| "cannot write LDIF".to_owned())?;
        let mut command = std::process::Command::new(program("ldapmodify")?);
        // The machine's own ldap.conf is not about this server.
        command.env("LDAPNOINIT", "1");
        command.args(["-a", "-x", "-H", &self.uri(), "-D", dn, "-w", password, "-f"]).arg(file.path());
        run_tool(&mut command).map(drop)
    }

    fn root_of(&self, suffix: Option<&str>) -> Result<(String, String)> {
        let mut databases = self.config().databases.iter();
        let database = databases.find(|database| suffix.is_none_or(|suffix| database.suffix == suffix));
        let none = || LabError::Invalid(format!("slapd {} has no database {suffix:?}", self.name()));
        database.map(|database| (database.rootdn.clone(), database.rootpw.clone())).ok_or_else(none)
    }
}

fn read(found: SearchEntry) -> (String, Entry) {
    let mut entry = Entry::new();
    for (name, values) in found.attrs {
        entry.entry(name).or_default().extend(values.into_iter().map(String::into_bytes));
    }
    for (name, values) in found.bin_attrs {
        entry.entry(name).or_default().extend(values);
    }
    (found.dn, entry)
}

fn failed(what: String, source: LdapError) -> LabError {
    LabError::Ldap { what, source: Box::new(source) }
}
