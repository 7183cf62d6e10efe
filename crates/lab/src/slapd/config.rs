//! The text of slapd.conf.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What a slapd of a lab serves.
#[derive(Clone, Debug)]
pub struct SlapdConfig {
    /// `serverID`; `None` leaves the directive out.
    pub server_id: Option<u16>,
    /// For `moduleload`, besides `back_mdb`: names in Debian's module directory, or paths.
    pub modules: Vec<String>,
    /// Names of Debian's schema files.
    pub schemas: Vec<String>,
    /// More lines before the databases.
    pub global_lines: Vec<String>,
    /// The databases, in this order.
    pub databases: Vec<Database>,
}

/// One mdb database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its suffix.
    pub suffix: String,
    /// The DN that may everything; below the suffix, since it has a password here.
    pub rootdn: String,
    /// Its password.
    pub rootpw: String,
    /// The size of the memory map in bytes: the most that the database can hold.
    pub maxsize: u64,
    /// Attributes with an equality index.
    pub indexed: Vec<String>,
    /// More lines of the database, such as `dbnosync`.
    pub lines: Vec<String>,
    /// The last lines of the database: `overlay …` and what belongs to it.
    pub overlay_lines: Vec<String>,
}

impl Default for SlapdConfig {
    fn default() -> Self {
        Self {
            server_id: Some(1),
            modules: Vec::new(),
            schemas: ["core", "cosine", "nis", "inetorgperson"].map(str::to_owned).to_vec(),
            global_lines: Vec::new(),
            databases: vec![Database::new("dc=example,dc=com")],
        }
    }
}

impl Database {
    /// A database with `cn=admin,SUFFIX` and the password `secret`.
    #[must_use]
    pub fn new(suffix: &str) -> Self {
        Self {
            suffix: suffix.to_owned(),
            rootdn: format!("cn=admin,{suffix}"),
            rootpw: "secret".to_owned(),
            maxsize: 4 << 30,
            indexed: ["objectClass", "entryUUID", "entryCSN", "uid", "cn", "member"]
                .map(str::to_owned)
                .to_vec(),
            lines: Vec::new(),
            overlay_lines: Vec::new(),
        }
    }
}

impl SlapdConfig {
    /// The text, with everything that slapd writes below the directory.
    ///
    /// The databases lie in `db-0`, `db-1`, … there. `cn=config` and `cn=monitor` can be used with the
    /// password `secret`, as `cn=config`.
    #[must_use]
    pub fn text(&self, dir: &Path) -> String {
        let mut lines: Vec<String> = Vec::new();
        lines.extend(self.schemas.iter().map(|name| format!("include /etc/ldap/schema/{name}.schema")));
        lines.push(format!("pidfile {}", dir.join("slapd.pid").display()));
        lines.push(format!("argsfile {}", dir.join("slapd.args").display()));
        lines.push("modulepath /usr/lib/ldap".to_owned());
        lines.push("moduleload back_mdb".to_owned());
        lines.extend(self.modules.iter().map(|module| format!("moduleload {module}")));
        lines.extend(self.server_id.map(|id| format!("serverID {id}")));
        lines.extend(self.global_lines.iter().cloned());
        lines.extend(["database config", "rootdn cn=config", "rootpw secret"].map(str::to_owned));
        for (number, database) in self.databases.iter().enumerate() {
            database.lines(&database_dir(dir, number), &mut lines);
        }
        lines.extend(["database monitor", "rootdn cn=config"].map(str::to_owned));
        lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
            text
        })
    }
}

impl Database {
    fn lines(&self, dir: &Path, lines: &mut Vec<String>) {
        lines.push(String::new());
        lines.push("database mdb".to_owned());
        lines.push(format!("suffix \"{}\"", self.suffix));
        lines.push(format!("rootdn \"{}\"", self.rootdn));
        lines.push(format!("rootpw {}", self.rootpw));
        lines.push(format!("directory {}", dir.display()));
        lines.push(format!("maxsize {}", self.maxsize));
        lines.extend(self.indexed.iter().map(|attribute| format!("index {attribute} eq")));
        lines.extend(self.lines.iter().cloned());
        lines.extend(self.overlay_lines.iter().cloned());
        lines.push(String::new());
    }
}

/// The directory of a server's database.
pub(super) fn database_dir(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("db-{number}"))
}
