//! What clients asked for and what they were told, in the order in which it happened, also as JSON lines in a file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What a client asks for. A *mark* is the text by which an entry is found under whatever name, never given twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub(crate) enum Operation {
    /// A new entry.
    Add { mark: String, dn: String, value: String },
    /// The value of an entry that only this client writes to.
    Set { mark: String, value: String },
    /// The name and place of such an entry.
    Rename { mark: String, dn: String },
    /// Deletes such an entry.
    Delete { mark: String },
    /// Deletes whatever has this name; the answer says which entry that was.
    DeleteName { dn: String },
    /// Replaces the value of an entry that all clients write to.
    Write { shared: String, value: String },
    /// Adds one of many values.
    Insert { shared: String, value: String },
    /// Deletes a value that this client added.
    Remove { shared: String, value: String },
    /// Increments a number.
    Raise { shared: String, by: i64 },
    /// Renames an entry that all clients rename.
    Name { shared: String, rdn: String },
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Since the beginning.
    pub(crate) milliseconds: u64,
    /// Who; what is done to servers and network is done by `nemesis`.
    pub(crate) client: String,
    /// The server that it talks to.
    pub(crate) server: String,
    /// Joins an operation and its outcome.
    pub(crate) number: u64,
    #[serde(flatten)]
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum What {
    /// An operation begins.
    Invoke {
        #[serde(flatten)]
        operation: Operation,
    },
    /// It was acknowledged: with the CSN of the write, and the mark of the entry that was deleted.
    Ok { csn: Option<String>, mark: Option<String> },
    /// It was refused, and has no effect.
    Fail { error: String },
    /// No answer came, or one that leaves open whether it has an effect.
    Unknown { error: String },
    /// What happened to the servers.
    Nemesis { text: String },
}

/// Written to by all clients at once.
pub(crate) struct History {
    began: Instant,
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    events: Vec<Event>,
    file: File,
    operations: u64,
}

impl History {
    /// In a file of the system's temporary directory, or the one that `XMPPSYNC_HISTORY` names.
    pub(crate) fn new(name: &str, seed: u64) -> History {
        let file = format!("xmppsync-{name}-{seed}-{}.jsonl", std::process::id());
        let path = std::env::var_os("XMPPSYNC_HISTORY").map(PathBuf::from);
        let path = path.unwrap_or_else(|| std::env::temp_dir().join(file));
        let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let inner = Mutex::new(Inner { events: Vec::new(), file, operations: 0 });
        History { began: Instant::now(), path, inner }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// An operation begins; its number.
    pub(crate) fn invoke(&self, client: &str, server: &str, operation: Operation) -> u64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.operations += 1;
        let number = inner.operations;
        inner.push(self.event(client, server, number, What::Invoke { operation }));
        number
    }

    /// It ended like this.
    pub(crate) fn complete(&self, client: &str, server: &str, number: u64, outcome: What) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.push(self.event(client, server, number, outcome));
    }

    /// What was done to servers or the network.
    pub(crate) fn nemesis(&self, text: &str) {
        let what = What::Nemesis { text: text.to_owned() };
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).push(self.event("nemesis", "", 0, what));
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).events.clone()
    }

    /// How many operations were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.events.iter().filter(|event| matches!(event.what, What::Ok { .. })).count()
    }

    fn event(&self, client: &str, server: &str, number: u64, what: What) -> Event {
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Event { milliseconds, client: client.to_owned(), server: server.to_owned(), number, what }
    }
}

impl Inner {
    fn push(&mut self, event: Event) {
        let line = serde_json::to_string(&event).unwrap();
        writeln!(self.file, "{line}").unwrap();
        self.events.push(event);
    }
}

impl Drop for History {
    /// It is of use only after a failure, or where somebody asked for it.
    fn drop(&mut self) {
        if !std::thread::panicking() && std::env::var_os("XMPPSYNC_HISTORY").is_none() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
