//! The directives in slapd.conf and in cn=config, and what slapd says when they are wrong.

use crate::PATIENCE;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use xmppsync_lab::certificates::Authority;
use xmppsync_lab::ldap3::Scope;
use xmppsync_lab::{Database, LabDir, LabError, Slapd, SlapdConfig, SlapdOptions, module_path, wait_for};

const PEOPLE: &str = "ou=people,dc=example,dc=com";
const MACHINES: &str = "ou=machines,dc=example,dc=com";

/// What a configuration needs of the world around, none of it an XMPP server.
struct Bed {
    lab: LabDir,
    /// Where the servers are told to find their XMPP server.
    xmpp: TcpListener,
}

impl Bed {
    fn new() -> Bed {
        let lab = LabDir::new().unwrap();
        let xmpp = TcpListener::bind((lab.ip(), 0)).unwrap();
        xmpp.set_nonblocking(true).unwrap();
        lab.write("ca.pem", Authority::new("authority").unwrap().pem()).unwrap();
        lab.write("empty.pem", "nothing\n").unwrap();
        lab.write("open.password", "hunter2\n").unwrap();
        for (name, text) in [("password", "hunter2\n"), ("empty.password", "\n")] {
            let path = lab.write(name, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Bed { lab, xmpp }
    }

    fn path(&self, name: &str) -> String {
        self.lab.path().join(name).display().to_string()
    }

    /// The directives that the overlay cannot do without, and where there is a listener to connect to.
    fn needed(&self) -> Vec<String> {
        vec![
            "overlay xmppsync".to_owned(),
            "xmppsync-jid a@xmpp.test".to_owned(),
            format!("xmppsync-password-file {}", self.path("password")),
            format!("xmppsync-server {}", self.xmpp.local_addr().unwrap()),
            "xmppsync-peer b@xmpp.test".to_owned(),
        ]
    }

    fn config(&self, overlays: &[(&str, Vec<String>)]) -> SlapdConfig {
        let database = |(suffix, lines): &(&str, Vec<String>)| {
            let mut database = Database::new(suffix);
            database.overlay_lines = lines.clone();
            database
        };
        SlapdConfig {
            modules: vec![module_path().unwrap().display().to_string()],
            databases: overlays.iter().map(database).collect(),
            ..SlapdConfig::default()
        }
    }

    fn slapd(&self, name: &str, config: SlapdConfig) -> Slapd {
        Slapd::prepare(&self.lab, name, config, SlapdOptions::default()).unwrap()
    }

    fn was_connected_to(&self) -> bool {
        self.xmpp.accept().is_ok()
    }
}

/// Every directive there is, with a value that is not the default, in two databases because there are two ways
/// to give a password.
fn everything(bed: &Bed) -> (SlapdConfig, BTreeSet<(String, String)>) {
    let (server, ca) = (bed.xmpp.local_addr().unwrap().to_string(), bed.path("ca.pem"));
    let (password_file, journal) = (bed.path("password"), bed.path("journal"));
    let people = [
        ("Replicated", "off"),
        ("Jid", "a@xmpp.test/people"),
        ("Password", r#"say "friend" \ and enter"#),
        ("Server", &server),
        ("Tls", "direct"),
        ("TlsCa", &ca),
        ("Muc", "rooms.xmpp.test"),
        ("Pubsub", "nodes.xmpp.test"),
        ("Room", "the people"),
        ("Peer", "b@xmpp.test"),
        ("Peer", "c@elsewhere.test"),
        ("Live", "pubsub"),
        ("Journal", &journal),
        ("Retention", "36h"),
        ("JournalSize", "64m"),
        ("OfflineMessages", "0"),
        ("CheckInterval", "0"),
        ("LoadFrom", "c@elsewhere.test"),
        ("ServeWhileLoading", "off"),
        ("MaxDrift", "90m"),
    ];
    let machines = [
        ("Replicated", "on"),
        ("Jid", "a@xmpp.test"),
        ("PasswordFile", &*password_file),
        ("Server", &server),
        ("Tls", "insecure-plaintext"),
        ("Peer", "b@xmpp.test"),
        ("Live", "muc"),
    ];
    let lines = |directives: &[(&str, &str)]| {
        let quoted = |value: &str| value.replace('\\', r"\\").replace('"', r#"\""#);
        let line = |(name, value): &(&str, &str)| format!("{} \"{}\"", directive(name), quoted(value));
        std::iter::once("overlay xmppsync".to_owned()).chain(directives.iter().map(line)).collect()
    };
    let attributes = people.iter().chain(&machines).map(|(name, value)| {
        let value = match *value {
            "on" => "TRUE",
            "off" => "FALSE",
            other => other,
        };
        (format!("olcXmppSync{name}"), value.to_owned())
    });
    let attributes = attributes.collect();
    (bed.config(&[(PEOPLE, lines(&people)), (MACHINES, lines(&machines))]), attributes)
}

/// `TlsCa` is `xmppsync-tls-ca`.
fn directive(name: &str) -> String {
    let mut directive = "xmppsync".to_owned();
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            directive.push('-');
        }
        directive.push(character.to_ascii_lowercase());
    }
    directive
}

/// The overlay's attributes in LDIF, of all databases together.
fn of_ldif(ldif: &str) -> BTreeSet<(String, String)> {
    let unfolded = ldif.replace("\n ", "");
    let pairs = unfolded.lines().filter_map(|line| line.split_once(": "));
    let ours = pairs.filter(|(name, _)| name.starts_with("olcXmppSync"));
    ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The same, asked of the running server.
fn of_server(slapd: &Slapd) -> BTreeSet<(String, String)> {
    let mut ldap = slapd.ldap_config().unwrap();
    let found = ldap.search("cn=config", Scope::Subtree, "(objectClass=olcXmppSyncConfig)", &["*"]).unwrap();
    let names: Vec<_> = found.iter().map(|(dn, _)| dn.to_lowercase()).collect();
    assert_eq!(names, [1, 2].map(|n| format!("olcoverlay={{0}}xmppsync,olcdatabase={{{n}}}mdb,cn=config")));
    let values = found.into_iter().flat_map(|(_, entry)| entry).flat_map(|(name, values)| {
        values.into_iter().map(move |value| (name.clone(), String::from_utf8(value).unwrap()))
    });
    values.filter(|(name, _)| name.starts_with("olcXmppSync")).collect()
}

#[test]
fn every_directive_is_read_back_by_slapcat_and_by_ldapsearch() {
    let bed = Bed::new();
    let (config, expected) = everything(&bed);
    let mut slapd = bed.slapd("a", config);
    assert_eq!(of_ldif(&slapd.slapcat_config().unwrap()), expected);
    slapd.start().unwrap();
    assert_eq!(of_server(&slapd), expected);
}

#[test]
fn a_configuration_directory_made_from_slapd_conf_keeps_every_directive() {
    let bed = Bed::new();
    let (config, expected) = everything(&bed);
    let mut slapd = bed.slapd("a", config);
    slapd.use_config_directory().unwrap();
    assert_eq!(of_ldif(&slapd.slapcat_config().unwrap()), expected, "slapcat before the first start");
    slapd.start().unwrap();
    assert_eq!(of_server(&slapd), expected, "ldapsearch");
    slapd.restart().unwrap();
    assert_eq!(of_server(&slapd), expected, "ldapsearch after a restart");
}

#[test]
fn slapadd_slapcat_and_slaptest_never_connect() {
    let bed = Bed::new();
    let mut slapd = bed.slapd("a", bed.config(&[(PEOPLE, bed.needed())]));
    let entry = "dn: ou=people,dc=example,dc=com\nobjectClass: organizationalUnit\nou: people\n";
    slapd.slapadd(PEOPLE, entry, false).unwrap();
    assert!(slapd.slapcat(PEOPLE).unwrap().contains("dn: ou=people,dc=example,dc=com"));
    slapd.slaptest().unwrap();
    slapd.slaptest_databases().unwrap();
    assert!(!bed.was_connected_to(), "a tool connected to the XMPP server");
    slapd.start().unwrap();
    wait_for("slapd connects to the XMPP server", PATIENCE, || bed.was_connected_to()).unwrap();
}

#[test]
fn the_tools_work_where_only_a_listening_slapd_can_know_its_server_id() {
    // slapd picks its own of several serverIDs by the URL that it listens on, which no tool does: slapcat
    // refused to open the database because serverID was 0.
    let bed = Bed::new();
    let mut config = bed.config(&[(PEOPLE, bed.needed())]);
    config.server_id = None;
    config.global_lines = ["serverID 1 ldap://ldap1.example.com", "serverID 2 ldap://ldap2.example.com"]
        .map(str::to_owned)
        .into();
    let slapd = bed.slapd("a", config);
    let entry = "dn: ou=people,dc=example,dc=com\nobjectClass: organizationalUnit\nou: people\n";
    slapd.slapadd(PEOPLE, entry, false).unwrap();
    assert!(slapd.slapcat(PEOPLE).unwrap().contains("dn: ou=people,dc=example,dc=com"));
    slapd.slaptest_databases().unwrap();
}

#[test]
fn a_database_that_is_not_replicated_needs_no_other_directive() {
    let bed = Bed::new();
    let lines = ["overlay xmppsync", "xmppsync-replicated off"].map(str::to_owned).to_vec();
    let mut config = bed.config(&[(PEOPLE, lines)]);
    config.server_id = None;
    bed.slapd("a", config).start().unwrap();
    assert!(!bed.was_connected_to());
}

#[test]
fn a_password_file_that_others_can_read_is_a_warning() {
    let bed = Bed::new();
    let path = bed.lab.path().join("open.password");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let lines = with(&bed.needed(), "xmppsync-password-file", Some(&bed.path("open.password")));
    let mut slapd = bed.slapd("a", bed.config(&[(PEOPLE, lines)]));
    slapd.start().unwrap();
    let line = slapd.wait_log("can be read by every user", PATIENCE).unwrap();
    assert!(line.contains(&bed.path("open.password")) && line.contains("chmod"), "{line}");
}

/// The lines with another value for a directive, added where it is not there, or without it.
fn with(lines: &[String], directive: &str, value: Option<&str>) -> Vec<String> {
    let others = lines.iter().filter(|line| !line.starts_with(&format!("{directive} "))).cloned();
    others.chain(value.map(|value| format!("{directive} {value}"))).collect()
}

/// Something wrong, and what slapd has to say of it.
struct Wrong {
    what: &'static str,
    config: SlapdConfig,
    /// The line of slapd.conf that is to be named, by its beginning; the first of several.
    line: Option<String>,
    words: Vec<String>,
}

/// Values that are wrong by themselves.
fn wrong_values(bed: &Bed) -> Vec<Wrong> {
    let absent = bed.path("absent");
    let directory = bed.path("");
    let without = bed.path("empty.pem");
    let cases: Vec<(&'static str, &'static str, &str, Vec<&str>)> = vec![
        ("no boolean", "xmppsync-replicated", "perhaps", vec!["perhaps"]),
        ("JID without local part", "xmppsync-jid", "xmpp.test", vec!["no local part", "user@domain"]),
        ("no JID", "xmppsync-jid", "a@@xmpp.test", vec!["a@@xmpp.test", "user@domain"]),
        ("absent password file", "xmppsync-password-file", &absent, vec![&absent, "No such file"]),
        ("a directory as password file", "xmppsync-password-file", &directory, vec!["cannot be read"]),
        ("server without port", "xmppsync-server", "xmpp.test:", vec!["no port", "xmpp.test:5222"]),
        ("server with a word as port", "xmppsync-server", "xmpp.test:xmpp", vec!["host:port"]),
        ("port 0", "xmppsync-server", "xmpp.test:0", vec!["host:port"]),
        ("unknown TLS", "xmppsync-tls", "on", vec!["starttls", "direct", "insecure-plaintext"]),
        ("absent authority", "xmppsync-tls-ca", &absent, vec![&absent, "No such file"]),
        ("authority without certificate", "xmppsync-tls-ca", &without, vec!["no certificate", "PEM"]),
        ("MUC service with a space", "xmppsync-muc", "\"a b\"", vec!["a b", "conference.example.com"]),
        ("pubsub service with two @", "xmppsync-pubsub", "a@b@c", vec!["a@b@c"]),
        ("empty room", "xmppsync-room", "\"\"", vec!["is empty"]),
        ("peer without local part", "xmppsync-peer", "xmpp.test", vec!["no account", "user@domain"]),
        ("peer with resource", "xmppsync-peer", "c@xmpp.test/x", vec!["resource", "c@xmpp.test"]),
        ("unknown live stream", "xmppsync-live", "mail", vec!["mail", "muc", "pubsub"]),
        ("retention without unit", "xmppsync-retention", "7", vec!["no time", "7d"]),
        ("no retention", "xmppsync-retention", "0", vec!["no time", "7d"]),
        ("retention beyond all clocks", "xmppsync-retention", "99999999999999w", vec!["520 weeks"]),
        ("journal of 1 kB", "xmppsync-journal-size", "1k", vec!["at least 1m", "1g"]),
        ("negative size", "xmppsync-journal-size", "-1g", vec!["-1g", "no size"]),
        ("too many messages", "xmppsync-offline-messages", "10001", vec!["10001", "0 to 10000"]),
        ("check interval as a word", "xmppsync-check-interval", "daily", vec!["daily", "0 for never"]),
        ("source with resource", "xmppsync-load-from", "b@xmpp.test/x", vec!["resource", "b@xmpp.test"]),
        ("no boolean for serving", "xmppsync-serve-while-loading", "perhaps", vec!["perhaps"]),
        ("no drift", "xmppsync-max-drift", "0", vec!["no time", "7d"]),
        ("relative journal", "xmppsync-journal", "here", vec!["here", "absolute"]),
    ];
    let wrong = |(what, directive, value, words): (&'static str, &'static str, &str, Vec<&str>)| {
        let line = format!("{directive} {value}");
        let mut lines = bed.needed();
        lines.retain(|other| directive == "xmppsync-peer" || !other.starts_with(&format!("{directive} ")));
        lines.push(line.clone());
        let words = words.into_iter().chain([directive]).map(str::to_owned).collect();
        Wrong { what, config: bed.config(&[(PEOPLE, lines)]), line: Some(line), words }
    };
    cases.into_iter().map(wrong).collect()
}

/// What is wrong with a database as a whole.
fn wrong_databases(bed: &Bed) -> Vec<Wrong> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let one = |lines: Vec<String>| bed.config(&[(PEOPLE, lines)]);
    let needed = bed.needed();
    let first = |lines: &[String]| lines.get(1).cloned();
    let lines_of = |what, lines: Vec<String>, said: &[&str]| Wrong {
        what,
        line: first(&lines),
        config: one(lines),
        words: words(said),
    };
    let changed = |what, change: &dyn Fn(&mut SlapdConfig), said: &[&str]| {
        let mut config = one(needed.clone());
        change(&mut config);
        Wrong { what, config, line: first(&needed), words: words(said) }
    };
    let empty = bed.path("empty.password");
    let room = |lines: &[String]| with(lines, "xmppsync-room", Some("same"));
    let both = with(&needed, "xmppsync-password", Some("x"));
    // A database is named by its first directive; that of the second one has to be told from the other's.
    let only_there = "xmppsync-live pubsub".to_owned();
    let mut second = room(&needed);
    second.insert(1, only_there.clone());
    vec![
        lines_of("no JID", with(&needed, "xmppsync-jid", None), &["xmppsync-jid is missing", "user@domain"]),
        lines_of(
            "no password",
            with(&needed, "xmppsync-password-file", None),
            &["xmppsync-password", "missing"],
        ),
        lines_of("two passwords", both, &["xmppsync-password", "xmppsync-password-file", "one of the two"]),
        lines_of(
            "empty password file",
            with(&needed, "xmppsync-password-file", Some(&empty)),
            &["xmppsync-password-file", &empty, "first line"],
        ),
        lines_of("nothing", vec!["overlay xmppsync".to_owned()], &["xmppsync-jid is missing", PEOPLE]),
        changed("serverID unset", &|config| config.server_id = None, &["serverID", "1 to 4094", PEOPLE]),
        changed("serverID 0", &|config| config.server_id = Some(0), &["serverID", "1 to 4094", PEOPLE]),
        changed(
            "lastmod off",
            &|config| config.databases[0].lines.push("lastmod off".to_owned()),
            &["lastmod", "lastmod on", PEOPLE],
        ),
        lines_of(
            "source that is no peer",
            with(&needed, "xmppsync-load-from", Some("x@xmpp.test")),
            &["xmppsync-load-from", "x@xmpp.test", "xmppsync-peer"],
        ),
        Wrong {
            what: "two databases with one journal",
            config: bed.config(&[
                (PEOPLE, with(&needed, "xmppsync-journal", Some(&bed.path("journal")))),
                (MACHINES, with(&needed, "xmppsync-journal", Some(&bed.path("journal")))),
            ]),
            line: None,
            words: words(&["journal", "another database", "xmppsync-journal", "slapd.conf"]),
        },
        Wrong {
            what: "two databases with one room",
            config: bed.config(&[(PEOPLE, room(&needed)), (MACHINES, second)]),
            line: Some(only_there),
            words: words(&["same@conference.xmpp.test", "another database", "xmppsync-room", "slapd.conf"]),
        },
    ]
}

/// What is missing in an output, a line each.
fn missing(wrong: &Wrong, program: &str, file: &Path, output: &str) -> Vec<String> {
    let said: String = output.lines().filter(|line| line.contains("xmppsync")).collect::<Vec<_>>().join("\n");
    let place = wrong.line.as_ref().map(|line| {
        let text = fs::read_to_string(file).unwrap();
        let number = text.lines().position(|other| other == line).unwrap() + 1;
        format!("slapd.conf: line {number}:")
    });
    let wanted = wrong.words.iter().chain(&place).filter(|word| !said.contains(*word));
    wanted.map(|word| format!("{}: {program} does not say {word:?} but\n{said}", wrong.what)).collect()
}

/// Prepares the databases' files with a right configuration, then tries each wrong one.
fn assert_refused(bed: &Bed, cases: Vec<Wrong>, slaptest: impl Fn(&Slapd) -> Result<String, LabError>) {
    let mut slapd = bed.slapd("a", bed.config(&[(PEOPLE, Vec::new()), (MACHINES, Vec::new())]));
    slapd.start().unwrap();
    slapd.stop().unwrap();
    let file: PathBuf = slapd.dir().join("slapd.conf");
    let mut problems = Vec::new();
    for wrong in cases {
        slapd.set_config(wrong.config.clone()).unwrap();
        match slaptest(&slapd) {
            Ok(_) => problems.push(format!("{}: slaptest is content", wrong.what)),
            Err(error) => problems.extend(missing(&wrong, "slaptest", &file, &error.to_string())),
        }
        match slapd.start() {
            Ok(()) => {
                problems.push(format!("{}: slapd starts", wrong.what));
                slapd.stop().unwrap();
            }
            Err(error) => problems.extend(missing(&wrong, "slapd", &file, &error.to_string())),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_wrong_value_is_refused_with_file_line_directive_and_what_would_be_right() {
    let bed = Bed::new();
    assert_refused(&bed, wrong_values(&bed), Slapd::slaptest);
}

#[test]
fn an_incomplete_database_is_refused_with_its_place_and_what_is_missing() {
    let bed = Bed::new();
    assert_refused(&bed, wrong_databases(&bed), Slapd::slaptest_databases);
}

#[test]
fn a_database_without_rootdn_is_refused() {
    // Not in the table: slapd itself takes a rootpw without rootdn as an error.
    let bed = Bed::new();
    let config = bed.config(&[(PEOPLE, bed.needed())]);
    let dir = bed.lab.path().join("a");
    let text: Vec<_> = config.text(&dir).lines().map(str::to_owned).collect();
    let begin = text.iter().position(|line| line.starts_with("suffix")).unwrap();
    let kept = text
        .iter()
        .enumerate()
        .filter(|(number, line)| !(begin..begin + 4).contains(number) || !line.starts_with("root"));
    let text: String = kept.map(|(_, line)| format!("{line}\n")).collect();
    let mut slapd = Slapd::prepare_text(&bed.lab, "a", &text, config, SlapdOptions::default()).unwrap();
    let error = slapd.start().unwrap_err().to_string();
    assert!(error.contains("rootdn is missing") && error.contains(PEOPLE), "{error}");
}
