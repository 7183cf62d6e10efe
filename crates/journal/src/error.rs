//! What can go wrong, for the caller ([`JournalError`]) and within a transaction ([`Fault`]).

use crate::codec::CodecError;
use std::{io, path::PathBuf};
use thiserror::Error;
use xmppsync_replica::Csn;

/// Why the journal could not do as it was told.
#[derive(Debug, Error)]
pub enum JournalError {
    /// No permission, read-only, full: nothing that a new file could mend.
    #[error("the journal directory {path} cannot be used: {source}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another database of this one, has the file open.
    #[error("the journal {path} is in use by somebody else", path = .0.display())]
    InUse(PathBuf),
    /// The store failed now; whether the last write is in it is not known. From here on every call is refused.
    #[error("the journal failed: {0}")]
    Failed(String),
    /// The store failed in an earlier call, with this cause.
    #[error("the journal failed before: {0}")]
    Poisoned(String),
    /// Nothing of the call was written; the journal goes on.
    #[error("the change {csn} takes {bytes} bytes, more than the journal keeps")]
    TooLarge {
        /// The change.
        csn: Csn,
        /// Its size as stored.
        bytes: usize,
    },
}

/// Why a transaction came to nothing.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Store(Box<redb::Error>),
    #[error("the file is damaged: {0}")]
    Damaged(#[from] CodecError),
    #[error("the file is damaged: {0}")]
    Panicked(String),
    #[error("{0}")]
    Foreign(String),
    /// The caller's fault: the store is as good as before.
    #[error("{bytes} bytes are too many")]
    TooLarge { csn: Csn, bytes: usize },
}

/// Each kind of error of the store, one for each of its calls, is a fault of the store.
macro_rules! store_faults {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Fault {
                Fault::Store(Box::new(error.into()))
            }
        }
    )*};
}

store_faults!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);
