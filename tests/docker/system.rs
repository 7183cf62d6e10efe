//! What tests do with the composed system.

use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xmppsync_lab::{ContextCsn, Dump, Ldap, SUFFIX, assert_equal_clients, wait_until};

use crate::PATIENCE;

/// The names of the slapds.
pub(crate) const SERVERS: [&str; 3] = ["slapd-a", "slapd-b", "slapd-c"];

/// One test at a time has the system to itself.
static TURN: Mutex<()> = Mutex::new(());

/// The system that `cargo xtask test --docker` has started.
pub(crate) struct System {
    _turn: MutexGuard<'static, ()>,
}

impl System {
    /// Waits for its turn, and until what an earlier test may have left has come to rest.
    pub(crate) fn take() -> Self {
        let system = Self { _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner) };
        for name in ["ejabberd"].iter().chain(&SERVERS) {
            docker(&["start", &system.container(name)]);
            system.wait_healthy(name);
        }
        system.wait_equal();
        system
    }

    /// Compose, on this system; what it prints on standard output.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        said(run(compose().args(arguments)))
    }

    /// The id of a service's container.
    pub(crate) fn container(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", variable("COMPOSE_PROJECT_NAME"));
        let service = format!("label=com.docker.compose.service={service}");
        let id =
            docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &project, "--filter", &service]);
        assert_eq!(id.lines().count(), 1, "containers with the {service}: {id}");
        id
    }

    /// What a command in a service's container prints.
    pub(crate) fn exec(&self, service: &str, command: &[&str]) -> String {
        said(self.try_exec(service, command))
    }

    /// The same, whatever comes of it.
    pub(crate) fn try_exec(&self, service: &str, command: &[&str]) -> Output {
        let container = self.container(service);
        run(Command::new("docker").args(["exec", &container]).args(command))
    }

    /// Whether a service's container answers its health check.
    pub(crate) fn health(&self, service: &str) -> String {
        docker(&["inspect", "--format", "{{.State.Health.Status}}", &self.container(service)])
    }

    pub(crate) fn wait_healthy(&self, service: &str) {
        wait_until(&format!("{service} is healthy"), PATIENCE, || match self.health(service).as_str() {
            "healthy" => Ok(()),
            other => Err(other.to_owned()),
        })
        .unwrap();
    }

    /// Where a server's directory is published.
    pub(crate) fn uri(&self, server: &str) -> String {
        format!("ldap://{}", docker(&["port", &self.container(server), "389"]))
    }

    /// A client of a server, bound as its rootdn.
    pub(crate) fn ldap(&self, server: &str) -> Ldap {
        let uri = self.uri(server);
        wait_until(&format!("{server} answers"), PATIENCE, || Ldap::bind(&uri, &rootdn(), &password()))
            .unwrap()
    }

    /// Waits until all hold the same, with operational attributes and contextCSN; returns it.
    pub(crate) fn wait_equal(&self) -> Dump {
        let mut clients: Vec<_> =
            SERVERS.iter().map(|server| ((*server).to_owned(), self.ldap(server))).collect();
        assert_equal_clients(&mut clients, SUFFIX, ContextCsn::Compare, PATIENCE).unwrap()
    }

    /// Makes sure that there is something to replicate.
    pub(crate) fn fill(&self) {
        let mut ldap = self.ldap(SERVERS[0]);
        if ldap.entry(SUFFIX).unwrap().is_none() {
            for record in xmppsync_lab::ldif::directory(SUFFIX, 50) {
                ldap.add_bytes(&record.dn, record.attributes).unwrap();
            }
        }
        self.wait_equal();
    }

    /// Writes on a server; all have it then.
    pub(crate) fn write(&self, server: &str, description: &str) {
        self.ldap(server).replace(SUFFIX, "description", &[description]).unwrap();
    }

    /// Waits until a server shows what was written.
    pub(crate) fn wait_description(&self, server: &str, description: &str) {
        let mut ldap = self.ldap(server);
        wait_until(&format!("{server} shows {description:?}"), PATIENCE, || {
            let values = ldap.values(SUFFIX, "description").unwrap();
            if values == [description] { Ok(()) } else { Err(format!("{values:?}")) }
        })
        .unwrap();
    }

    /// Every server tells every other something.
    pub(crate) fn assert_all_ways(&self, what: &str) {
        for from in SERVERS {
            let value = format!("{what}, from {from}");
            self.write(from, &value);
            SERVERS.iter().for_each(|to| self.wait_description(to, &value));
        }
    }

    /// What a container has printed.
    pub(crate) fn log(&self, service: &str) -> String {
        let output = run(Command::new("docker").args(["logs", &self.container(service)]));
        assert!(output.status.success());
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }
}

/// The plugin, or the program that was before it, as xtask found it.
pub(crate) fn compose() -> Command {
    let words = variable("XMPPSYNC_COMPOSE");
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command
}

/// What `docker` prints, without the end of the line.
pub(crate) fn docker(arguments: &[&str]) -> String {
    said(run(Command::new("docker").args(arguments))).trim().to_owned()
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// What a command that went well has printed.
pub(crate) fn said(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run: cargo xtask test --docker"))
}

pub(crate) fn rootdn() -> String {
    format!("cn=admin,{SUFFIX}")
}

/// The password of the rootdns.
pub(crate) fn password() -> String {
    secret("ldap-admin")
}

/// A password that xtask has made for this system.
pub(crate) fn secret(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", variable("SECRETS"))).unwrap()
}
