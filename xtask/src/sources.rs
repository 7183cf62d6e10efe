//! Where this machine gets its Debian packages from, as a list of where their sources are.
//!
//! Most machines have no `deb-src` entry, and theirs must stay as it is: the same mirrors, suites and keys
//! are written to a list of our own, which asks for sources.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::Privilege;
use crate::process;

/// One suite of a Debian archive.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suite {
    uri: String,
    suite: String,
    component: String,
    /// Lines of the `Signed-By` field, a path or a whole key; `None` where apt's common keys hold.
    signed_by: Option<String>,
}

/// The text of a deb822 list with the sources of every Debian suite that this machine uses.
pub(crate) fn list() -> Result<String> {
    let mut suites = suites()?;
    if suites.is_empty() {
        // Images of containers come without the lists.
        let Some(privilege) = Privilege::available() else {
            bail!("apt has no package lists of a Debian archive. As root, run:\napt-get update");
        };
        process::run(privilege.command("apt-get").arg("update"))?;
        suites = self::suites()?;
    }
    if suites.is_empty() {
        bail!(
            "this machine gets no packages from a Debian archive; set OPENLDAP_SRC and OPENLDAP_BUILD instead"
        );
    }
    Ok(suites.iter().map(stanza).collect::<Vec<_>>().join("\n"))
}

/// Where this machine finds a release of Debian, as URIs and suites such as `bookworm-security`; nothing, if it is not its own.
pub(crate) fn of_release(release: &str) -> Result<Vec<(String, String)>> {
    let suites = suites()?.into_iter().filter(|suite| suite.suite.starts_with(release));
    Ok(suites.map(|suite| (suite.uri, suite.suite)).collect())
}

fn suites() -> Result<BTreeSet<Suite>> {
    // What apt has understood, so it is the same for deb822 and for classic configuration.
    let format = "$(CREATED_BY)\t$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(SOURCESENTRY)";
    let targets = process::output(Command::new("apt-get").args(["indextargets", "--format", format]))
        .context("asking apt for this machine's mirrors")?;
    Ok(targets.lines().filter_map(suite).collect())
}

/// Reads one line of `apt-get indextargets`; `None` for what is no list of Debian packages.
fn suite(line: &str) -> Option<Suite> {
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    let (created_by, origin, uri, suite, component) = (next()?, next()?, next()?, next()?, next()?);
    if created_by != "Packages" || origin != "Debian" || component != "main" {
        return None;
    }
    let signed_by = next().and_then(|entry| {
        // FILE:LINE, the place of the entry in the configuration
        let (file, _) = entry.rsplit_once(':')?;
        let text = std::fs::read_to_string(file).ok()?;
        if Path::new(file).extension().is_some_and(|extension| extension == "sources") {
            signed_by_deb822(&text, uri)
        } else {
            signed_by_classic(&text, uri)
        }
    });
    let (uri, suite, component) = (uri.to_owned(), suite.to_owned(), component.to_owned());
    Some(Suite { uri, suite, component, signed_by })
}

fn stanza(suite: &Suite) -> String {
    let Suite { uri, suite, component, signed_by } = suite;
    let signed_by = signed_by.as_ref().map(|value| format!("Signed-By:{value}\n")).unwrap_or_default();
    format!("Types: deb-src\nURIs: {uri}\nSuites: {suite}\nComponents: {component}\n{signed_by}")
}

/// The `Signed-By` field of the stanza that names the URI, with its continuation lines.
fn signed_by_deb822(text: &str, uri: &str) -> Option<String> {
    let mut value: Option<String> = None;
    let mut names_uri = false;
    let mut in_field = false;
    for line in text.lines().chain(std::iter::once("")) {
        if line.trim().is_empty() {
            if names_uri && value.is_some() {
                return value;
            }
            (value, names_uri, in_field) = (None, false, false);
        } else if line.starts_with([' ', '\t']) {
            if let (true, Some(value)) = (in_field, value.as_mut()) {
                value.push('\n');
                value.push_str(line);
            }
            names_uri |= !in_field && has_uri(line, uri);
        } else if let Some((name, rest)) = line.split_once(':') {
            in_field = name.eq_ignore_ascii_case("signed-by");
            if in_field {
                value = Some(rest.to_owned());
            }
            names_uri |= name.eq_ignore_ascii_case("uris") && has_uri(rest, uri);
        }
    }
    None
}

/// The `signed-by` option of a line such as `deb [signed-by=/path] URI SUITE main`.
fn signed_by_classic(text: &str, uri: &str) -> Option<String> {
    text.lines().filter(|line| !line.trim_start().starts_with('#') && has_uri(line, uri)).find_map(|line| {
        let (_, options) = line.split_once('[')?;
        let (options, _) = options.split_once(']')?;
        let path = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="))?;
        Some(format!(" {path}"))
    })
}

fn has_uri(words: &str, uri: &str) -> bool {
    words.split_whitespace().any(|word| word.trim_end_matches('/') == uri.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "http://deb.example.org/debian/";

    #[test]
    fn the_key_of_a_deb822_entry_is_found_by_its_uri() {
        let text = "Types: deb\nURIs: http://deb.example.org/other\nSigned-By: /other.gpg\n\n\
                    Types: deb\nURIs: http://deb.example.org/debian\nSuites: bookworm\nSigned-By: /debian.gpg\n";
        assert_eq!(signed_by_deb822(text, URI).as_deref(), Some(" /debian.gpg"));
    }

    #[test]
    fn a_key_written_into_the_entry_itself_is_taken_over_whole() {
        let text = "URIs: http://deb.example.org/debian\nSigned-By:\n -----BEGIN-----\n .\n abc\nSuites: x\n";
        assert_eq!(signed_by_deb822(text, URI).as_deref(), Some("\n -----BEGIN-----\n .\n abc"));
    }

    #[test]
    fn the_key_of_a_classic_line_is_found_and_comments_are_not_read() {
        let text = "# deb [signed-by=/no.gpg] http://deb.example.org/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/yes.gpg] http://deb.example.org/debian bookworm main\n";
        assert_eq!(signed_by_classic(text, URI).as_deref(), Some(" /yes.gpg"));
        assert_eq!(signed_by_classic("deb http://deb.example.org/debian bookworm main", URI), None);
    }

    #[test]
    fn only_lists_of_debian_packages_count() {
        let line = format!("Packages\tDebian\t{URI}\tbookworm\tmain\t/nowhere.sources:1");
        let expected =
            "Types: deb-src\nURIs: http://deb.example.org/debian/\nSuites: bookworm\nComponents: main\n";
        assert_eq!(suite(&line).as_ref().map(stanza).as_deref(), Some(expected));
        assert_eq!(suite(&line.replace("Packages", "DEP-11")), None);
        assert_eq!(suite(&line.replace("Debian", "Elsewhere")), None);
    }
}
