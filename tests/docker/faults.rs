//! What happens to containers: they are killed, recreated, restarted, without their passwords.

use std::process::Command;

use crate::PATIENCE;
use crate::system::{SERVERS, System, compose, docker, run, said, secret, variable};
use xmppsync_lab::{SUFFIX, wait_until};

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn a_killed_container_catches_up_when_it_is_started_again() {
    let system = System::take();
    system.fill();
    docker(&["kill", &system.container("slapd-b")]);
    system.write("slapd-a", "written while b was dead");
    system.wait_description("slapd-c", "written while b was dead");
    docker(&["start", &system.container("slapd-b")]);
    system.wait_description("slapd-b", "written while b was dead");
    system.assert_all_ways("after b was killed");
    system.wait_equal();
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn a_container_with_an_empty_volume_is_loaded_anew() {
    let system = System::take();
    system.fill();
    let container = system.container("slapd-c");
    let format = r#"{{range .Mounts}}{{if eq .Destination "/var/lib/ldap"}}{{.Name}}{{end}}{{end}}"#;
    let volume = docker(&["inspect", "--format", format, &container]);
    system.compose(&["rm", "--stop", "--force", "slapd-c"]);
    docker(&["volume", "rm", &volume]);
    system.compose(&["up", "--detach", "--no-build", "--no-deps", "slapd-c"]);
    assert_ne!(system.container("slapd-c"), container);
    system.wait_healthy("slapd-c");
    wait_until("c has the suffix entry", PATIENCE, || {
        system.ldap("slapd-c").entry(SUFFIX).unwrap().map(drop).ok_or("it has not")
    })
    .unwrap();
    system.wait_equal();
    system.assert_all_ways("after c began anew");
    system.wait_equal();
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn what_is_written_while_the_xmpp_server_restarts_arrives() {
    let system = System::take();
    system.fill();
    docker(&["stop", &system.container("ejabberd")]);
    for server in SERVERS {
        let description = format!("written on {server} without ejabberd");
        system.ldap(server).replace(&format!("ou=people,{SUFFIX}"), "description", &[&description]).unwrap();
    }
    docker(&["start", &system.container("ejabberd")]);
    system.wait_healthy("ejabberd");
    system.assert_all_ways("after the restart");
    system.wait_equal();
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn an_xmpp_server_that_lost_its_accounts_and_rooms_has_them_again() {
    let system = System::take();
    system.fill();
    system.exec("ejabberd", &["find", "/opt/ejabberd/database", "-mindepth", "1", "-delete"]);
    docker(&["kill", &system.container("ejabberd")]);
    docker(&["start", &system.container("ejabberd")]);
    system.wait_healthy("ejabberd");
    system.assert_all_ways("with new accounts");
    system.wait_equal();
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn a_server_without_its_password_refuses_to_start_and_says_why() {
    let _system = System::take();
    let start = |mounts: &[String]| {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--network", "none"]);
        for variable in
            ["LDAP_SUFFIX=dc=example,dc=com", "SERVER_ID=1", "XMPP_JID=a@x.test", "XMPP_PEERS=b@x.test"]
        {
            command.args(["--env", variable]);
        }
        for mount in mounts {
            command.args(["--volume", mount]);
        }
        let output = run(command.arg("xmppsync-slapd"));
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let secrets = variable("SECRETS");
    let mount = |from: &str, to: &str| format!("{secrets}/{from}:/run/secrets/{to}:ro");
    let nothing = start(&[]);
    assert!(nothing.contains("/run/secrets/xmpp-password is missing or empty"), "{nothing}");
    assert!(nothing.contains("the password of a@x.test; docker/make-secrets makes"), "{nothing}");
    let one = start(&[mount("slapd-a", "xmpp-password")]);
    assert!(one.contains("/run/secrets/ldap-admin-password is missing or empty"), "{one}");
    let no_keys = start(&[mount("slapd-a", "xmpp-password"), mount("ldap-admin", "ldap-admin-password")]);
    assert!(no_keys.contains("/keys/ca.pem is missing or empty"), "{no_keys}");
    for said in [nothing, one, no_keys] {
        assert!(!said.contains(&secret("slapd-a")) && !said.contains(&secret("ldap-admin")));
    }
}

/// Removes a project, whatever became of the test.
struct Other(String);

impl Other {
    fn compose(&self) -> Command {
        let mut command = compose();
        command.env("COMPOSE_PROJECT_NAME", &self.0);
        command
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Where the test went well there is nothing to do.
        let _ = run(self.compose().args(["down", "--volumes", "--remove-orphans", "--timeout", "10"]));
    }
}

#[test]
#[ignore = "needs the composed system: cargo xtask test --docker"]
fn down_with_the_volumes_leaves_nothing_behind() {
    let other = Other(format!("{}-other", variable("COMPOSE_PROJECT_NAME")));
    said(run(other.compose().args(["up", "--detach", "--no-build", "slapd-a"])));
    let left = || {
        let filter = format!("label=com.docker.compose.project={}", other.0);
        ["container", "volume", "network"].map(|kind| {
            let all: &[&str] = if kind == "container" { &["--all"] } else { &[] };
            let list = [&[kind, "ls", "--quiet", "--filter", &filter], all].concat();
            docker(&list).lines().count()
        })
    };
    // setup, ejabberd and slapd-a, with the volumes of theirs, and a network.
    let [containers, volumes, networks] = left();
    assert_eq!((containers, networks), (3, 1));
    assert!(volumes >= 7, "{volumes}");
    said(run(other.compose().args(["down", "--volumes", "--timeout", "10"])));
    assert_eq!(left(), [0, 0, 0]);
}
