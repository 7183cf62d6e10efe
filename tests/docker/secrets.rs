//! Who can read what.

use crate::system::{SERVERS, System, docker, secret};

const SECRETS: [&str; 4] = ["ldap-admin", "slapd-a", "slapd-b", "slapd-c"];
const IMAGES: [&str; 3] = ["xmppsync-slapd", "xmppsync-ejabberd", "xmppsync-tests"];

/// Each path with mode, owner's and group's number, as `MODE UID GID`.
fn modes(system: &System, service: &str, path: &str) -> Vec<(String, String)> {
    let listed = system.exec(service, &["sh", "-c", &format!("stat -c '%n %a %u' {path}")]);
    let words = listed.lines().filter_map(|line| line.split_once(' '));
    words.map(|(path, rest)| (path.to_owned(), rest.to_owned())).collect()
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn no_password_is_in_an_image_or_in_the_environment_of_a_container() {
    let system = System::take();
    let mut texts = Vec::new();
    for image in IMAGES {
        texts.push(docker(&["history", "--no-trunc", image]));
        texts.push(docker(&["image", "inspect", image]));
        // Whatever it is called: a directory of secrets or keys would be the project's own.
        let list = "find / -xdev \\( -path /run/secrets -o -path '*/docker/secrets' -o -path '/keys/*' -o -name 'ldap-admin*' \\) | head";
        texts.push(docker(&["run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", list]));
        assert_eq!(texts.last().unwrap(), "", "{image}");
    }
    for service in ["ejabberd"].iter().chain(&SERVERS) {
        texts.push(docker(&["inspect", &system.container(service)]));
        texts.push(system.log(service));
    }
    for name in SECRETS {
        let password = secret(name);
        assert_eq!(password.len(), 32);
        assert!(texts.iter().all(|text| !text.contains(&password)), "the password {name} can be read");
    }
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn passwords_and_keys_can_be_read_by_their_servers_only() {
    let system = System::take();
    for server in SERVERS {
        let openldap = system.exec(server, &["id", "-u", "openldap"]).trim().to_owned();
        let files = modes(&system, server, "/run/xmppsync/*");
        let names: Vec<&str> = files.iter().map(|(path, _)| path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["ca.pem", "slapd.conf", "slapd.pem", "xmpp-password"]);
        for (path, mode) in &files {
            assert_eq!(*mode, format!("400 {openldap}"), "{server}: {path}");
        }
        assert_eq!(modes(&system, server, "/keys/slapd.pem")[0].1, "400 0", "{server}");
        // slapd itself, which is the first process.
        let who = system.exec(server, &["stat", "-c", "%u", "/proc/1"]);
        assert_eq!(who.trim(), openldap, "{server}");
        assert_eq!(system.exec(server, &["cat", "/proc/1/comm"]).trim(), "slapd");
        // The rootdn's password is there as a hash only.
        let configuration = system.exec(server, &["cat", "/run/xmppsync/slapd.conf"]);
        assert!(configuration.contains("rootpw {SSHA}"), "{server}");
        // The key of the authority is in no server's reach.
        assert!(!system.try_exec(server, &["test", "-e", "/ca"]).status.success(), "{server}");
    }
    for (path, mode) in modes(&system, "ejabberd", "/keys/server.pem /keys/accounts/*") {
        assert_eq!(mode, "400 9000", "{path}");
    }
    assert_eq!(modes(&system, "ejabberd", "/keys/accounts")[0].1, "700 9000");
    assert_eq!(system.exec("ejabberd", &["stat", "-c", "%u", "/proc/1"]).trim(), "9000");
}
