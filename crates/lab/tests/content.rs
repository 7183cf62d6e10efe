//! Content, clients and comparison, on plain servers without the overlay.

use std::time::Duration;

use xmppsync_lab::{
    ContextCsn, Database, LabDir, Slapd, SlapdConfig, SlapdOptions, assert_equal, dump, ldif,
};

const SUFFIX: &str = "dc=example,dc=com";
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn the_generated_directory_loads_online_and_offline_and_is_the_same() {
    let lab = LabDir::new().unwrap();
    let records = ldif::directory(SUFFIX, 60);
    let options = SlapdOptions::default;
    let online = Slapd::run(&lab, "online", SlapdConfig::default(), options()).unwrap();
    online.ldapmodify(SUFFIX, &ldif::text(&records)).unwrap();

    // What one server wrote with its operational attributes makes another one equal to it.
    let mut offline = Slapd::prepare(&lab, "offline", SlapdConfig::default(), options()).unwrap();
    offline.slapadd(SUFFIX, &online.slapcat(SUFFIX).unwrap(), true).unwrap();
    offline.start().unwrap();
    let all = assert_equal([&online, &offline], SUFFIX, DEADLINE).unwrap();
    assert_eq!(all.len(), records.len());
    let person = &all[&ldif::person_dn(SUFFIX, 0)];
    assert!(person.contains_key("jpegPhoto") && person.contains_key("entryCSN"));
    assert!(person.contains_key("description;lang-de"));
}

#[test]
fn servers_that_differ_are_reported_entry_by_entry() {
    let lab = LabDir::new().unwrap();
    let run = |name| Slapd::run(&lab, name, SlapdConfig::default(), SlapdOptions::default()).unwrap();
    let (a, b) = (run("a"), run("b"));
    let suffix_entry = ldif::suffix_entry(SUFFIX);
    let mut ldap = a.ldap().unwrap();
    ldap.add_bytes(&suffix_entry.dn, suffix_entry.attributes).unwrap();
    let error = assert_equal([&a, &b], SUFFIX, Duration::from_millis(50)).unwrap_err().to_string();
    assert!(error.contains("only on a: dc=example,dc=com"), "{error}");

    ldap.add("ou=x,dc=example,dc=com", &[("objectClass", "organizationalUnit"), ("ou", "x")]).unwrap();
    ldap.replace("ou=x,dc=example,dc=com", "description", &["one", "zwei"]).unwrap();
    ldap.rename("ou=x,dc=example,dc=com", "ou=y", None).unwrap();
    assert_eq!(ldap.values("ou=y,dc=example,dc=com", "description").unwrap(), ["one", "zwei"]);
    assert!(ldap.entry("ou=x,dc=example,dc=com").unwrap().is_none());
    ldap.delete("ou=y,dc=example,dc=com").unwrap();
    assert_eq!(dump(&mut ldap, SUFFIX, ContextCsn::Ignore).unwrap().len(), 1);
}

#[test]
fn each_database_has_its_own_root() {
    let lab = LabDir::new().unwrap();
    let databases = vec![Database::new(SUFFIX), Database::new("o=other")];
    let config = SlapdConfig { databases, ..SlapdConfig::default() };
    let slapd = Slapd::run(&lab, "a", config, SlapdOptions::default()).unwrap();
    slapd.ldapmodify("o=other", &ldif::text(&ldif::directory("o=other", 3))).unwrap();
    let mut other = slapd.ldap_of("o=other").unwrap();
    assert!(dump(&mut other, "o=other", ContextCsn::Compare).unwrap().len() > 3);
    assert!(slapd.ldap_of("o=none").is_err());
}
