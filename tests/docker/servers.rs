//! The servers as they stand: healthy, equal, apart from strangers.

use crate::system::{SERVERS, System};
use xmppsync_lab::{SUFFIX, ldif};

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn all_containers_become_healthy() {
    let system = System::take();
    for service in ["ejabberd"].iter().chain(&SERVERS) {
        assert_eq!(system.health(service), "healthy", "{service}");
    }
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn what_is_written_on_each_directory_is_on_all_of_them() {
    let system = System::take();
    system.fill();
    for (number, server) in SERVERS.iter().enumerate() {
        let mut ldap = system.ldap(server);
        for person in (number * 10)..(number * 10 + 10) {
            ldap.replace(&ldif::person_dn(SUFFIX, person), "title", &[server]).unwrap();
        }
        let names = [("ou", *server), ("objectClass", "organizationalUnit")];
        ldap.add(&format!("ou={server},{SUFFIX}"), &names).unwrap();
    }
    let all = system.wait_equal();
    for server in SERVERS {
        let written = all
            .values()
            .filter(|entry| entry.get("title").is_some_and(|values| values.contains(server.as_bytes())));
        assert_eq!(written.count(), 10, "{server}");
    }
    for server in SERVERS {
        system.ldap(server).delete(&format!("ou={server},{SUFFIX}")).unwrap();
    }
    assert_eq!(system.wait_equal().len(), all.len() - SERVERS.len());
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn the_room_is_private_and_belongs_to_the_three_servers() {
    let system = System::take();
    system.fill();
    let room = [SUFFIX, "conference.example.com"];
    let options = system.exec("ejabberd", &["ejabberdctl", "get_room_options", room[0], room[1]]);
    for option in
        ["members_only\ttrue", "public\tfalse", "anonymous\tfalse", "moderated\ttrue", "persistent\ttrue"]
    {
        assert!(options.contains(option), "not {option}:\n{options}");
    }
    let affiliations = system.exec("ejabberd", &["ejabberdctl", "get_room_affiliations", room[0], room[1]]);
    let mut owners: Vec<&str> = affiliations.lines().filter(|line| line.contains('\t')).collect();
    owners.sort_unstable();
    assert_eq!(owners.len(), SERVERS.len(), "{affiliations}");
    for (owner, server) in owners.iter().zip(SERVERS) {
        assert!(owner.starts_with(&format!("{server}\texample.com\towner")), "{affiliations}");
    }
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn clients_can_use_tls_with_the_authority_made_at_the_first_start() {
    let system = System::take();
    let search = |uri: &str, options: &[&str]| {
        let mut command =
            vec!["env", "LDAPTLS_CACERT=/run/xmppsync/ca.pem", "LDAPTLS_REQCERT=demand", "ldapsearch", "-x"];
        command.extend(["-LLL", "-H", uri, "-s", "base", "-b", "", "supportedExtension"]);
        command.extend(options);
        system.try_exec("slapd-a", &command)
    };
    for server in SERVERS {
        assert!(search(&format!("ldaps://{server}"), &[]).status.success(), "{server}");
        assert!(search(&format!("ldap://{server}"), &["-ZZ"]).status.success(), "{server}");
    }
    // A name that stands in no certificate.
    let address = system.exec("slapd-a", &["getent", "hosts", "slapd-b"]);
    let address = address.split_whitespace().next().unwrap();
    assert!(!search(&format!("ldaps://{address}"), &[]).status.success(), "any name will do");
}
