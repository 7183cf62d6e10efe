//! The Debian package, in a container that has nothing else of the project.

use std::path::Path;

use crate::system::docker;
use xmppsync_lab::LabDir;

/// Installs, loads, reads, removes; prints what the test looks at.
const SCRIPT: &str = r#"
set -eu
say() { echo "== $1"; }
export DEBIAN_FRONTEND=noninteractive
# The paths that slim images leave out belong to the package too.
rm -f /etc/dpkg/dpkg.cfg.d/docker
apt-get update -qq > /dev/null
echo slapd slapd/no_configuration boolean true | debconf-set-selections
apt-get install --yes --no-install-recommends /packages/*.deb > /tmp/install.log 2>&1 || { cat /tmp/install.log; exit 1; }
say files
dpkg -L slapd-xmppsync | while read -r file; do [ -d "$file" ] || echo "$file"; done
say verify
dpkg --verify slapd-xmppsync
say load
mkdir /tmp/database
cat > /tmp/slapd.conf <<END
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload libxmppsync
serverID 1
database mdb
suffix dc=example,dc=com
rootdn cn=admin,dc=example,dc=com
directory /tmp/database
index entryUUID,entryCSN eq
overlay xmppsync
xmppsync-jid a@example.com
xmppsync-password x
xmppsync-peer b@example.com
END
slaptest -u -f /tmp/slapd.conf 2>&1
say remove
apt-get purge --yes slapd-xmppsync > /tmp/remove.log 2>&1 || { cat /tmp/remove.log; exit 1; }
find / -xdev \( -name '*xmppsync*' -o -name 'libxmppsync*' \) -not -path '/packages/*' -not -path '/proc/*' -not -path '/var/cache/apt/*'
dpkg -s slapd-xmppsync 2>&1 || true
dpkg -s slapd | grep ^Status
"#;

/// The lines that the script printed below a heading.
fn part<'a>(said: &'a str, heading: &str) -> &'a str {
    let rest = said.split_once(&format!("== {heading}\n")).unwrap().1;
    rest.split("== ").next().unwrap()
}

#[test]
#[ignore = "needs the images: cargo xtask test --docker"]
fn the_package_installs_in_a_clean_debian_is_loaded_by_slapd_and_goes_without_a_trace() {
    let lab = LabDir::new().unwrap();
    let packages = lab.subdir("packages").unwrap();
    let container = docker(&["create", "xmppsync-tests"]);
    let from = format!("{container}:/usr/local/lib/xmppsync/.");
    let copied = std::panic::catch_unwind(|| docker(&["cp", &from, &packages.display().to_string()]));
    docker(&["rm", "--volumes", &container]);
    copied.unwrap();

    let mount = format!("{}:/packages:ro", packages.display());
    let image = std::env::var("DEBIAN_IMAGE").unwrap_or_else(|_| "debian:bookworm-slim".to_owned());
    let said = docker(&["run", "--rm", "--volume", &mount, &image, "sh", "-c", SCRIPT]);
    let files = part(&said, "files");
    let doc = Path::new("/usr/share/doc/slapd-xmppsync");
    for file in [
        "copyright",
        "changelog.gz",
        "changelog.Debian.gz",
        "docs/CONFIGURATION.md",
        "examples/three-servers/ldap1.conf",
    ] {
        let path = doc.join(file).display().to_string();
        assert!(files.lines().any(|line| line == path), "{path} is not among:\n{files}");
    }
    for file in ["/usr/lib/ldap/libxmppsync.so", "/usr/share/man/man5/slapo-xmppsync.5.gz"] {
        assert!(files.lines().any(|line| line == file), "{file} is not among:\n{files}");
    }
    assert_eq!(part(&said, "verify"), "", "files differ from their sums");
    assert!(part(&said, "load").contains("config file testing succeeded"), "{said}");
    let removed = part(&said, "remove");
    assert!(removed.contains("package 'slapd-xmppsync' is not installed"), "{removed}");
    assert!(removed.contains("Status: install ok installed"), "slapd itself stays: {removed}");
    assert!(!removed.contains("\n/") && !removed.starts_with('/'), "left behind: {removed}");
}
