//! What can go wrong in a lab.

use std::fmt;
use std::io;
use std::time::Duration;

/// The result of whatever the lab does.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// What went wrong. `Debug` prints the same readable text as `Display`, because what a test sees of an
/// error is what `unwrap` prints.
#[derive(thiserror::Error)]
pub enum LabError {
    /// A file, a directory or a process could not be made or used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A program is not installed.
    #[error("{0} is not there; run: cargo xtask setup")]
    Missing(String),
    /// A program ended badly, or ended when it should not have.
    #[error("{what}\n--- what it printed ---\n{output}")]
    Failed {
        /// Which program, and how it ended.
        what: String,
        /// Its log or output.
        output: String,
    },
    /// A condition did not come true in time.
    #[error("{what}: not after {waited:.1?}; last seen: {seen}")]
    Timeout {
        /// The condition.
        what: String,
        /// How long it was waited for.
        waited: Duration,
        /// What was seen instead.
        seen: String,
    },
    /// An LDAP operation was refused, or its connection failed.
    #[error("{what}: {source}")]
    Ldap {
        /// The operation.
        what: String,
        /// The result, boxed because it is large.
        source: Box<ldap3::LdapError>,
    },
    /// The management interface of an XMPP server refused something.
    #[error("{what}: the XMPP server answered {answer}")]
    Refused {
        /// The command.
        what: String,
        /// Status and body of the answer.
        answer: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Something handed to the lab makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl fmt::Debug for LabError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Names what was tried when an IO operation failed.
pub(crate) trait IoContext<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::Io { what: what(), source })
    }
}
