//! What a directory server provides to have its database replicated.

use xmppsync_replica::{Change, Csn, EntryUuid, Vector};

/// A database, as the driver sees it from its own thread.
pub trait Database: Send + Sync + 'static {
    /// The local CSNs that were handed out and whose operations have not ended.
    fn pending_csns(&self) -> Vec<Csn>;
    /// Asks for one call of [`Replica::apply`](crate::Replica::apply) on a thread of the host. `false`: it does
    /// not take the work now.
    fn submit_apply(&self) -> bool;
    /// Asks for one call of [`Replica::read`](crate::Replica::read) on a thread of the host. `false`: not now.
    fn submit_read(&self) -> bool;
    /// While `on`, clients are answered "busy".
    fn set_loading(&self, on: bool);
    /// Which state of the database this is. Any thread.
    fn generation(&self) -> Option<Generation>;
}

/// A database that is being opened: nobody else reads or writes. Valid within one call of
/// [`Replica::open`](crate::Replica::open).
pub trait Opening {
    /// How far the database is, as far as it tells by itself.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn standing(&mut self) -> Result<Standing, Failure>;
    /// Shows every entry.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn scan(&mut self, each: &mut dyn FnMut(Stored<'_>)) -> Result<(), Failure>;
    /// The entry as it is, as the change that would add it.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn read_entry(&mut self, uuid: &EntryUuid) -> Result<Option<Change>, Failure>;
    /// The entry with this DN.
    fn find(&mut self, dn: &str) -> Option<EntryUuid>;
    /// What [`new_csn`](Self::new_csn) gives from now on is later than this.
    fn observe(&mut self, csn: Csn);
    /// A CSN of this server that is later than all before: those that it gave, that were observed, and that [`standing`](Self::standing)
    /// has found.
    ///
    /// # Errors
    /// When the host makes none.
    fn new_csn(&mut self) -> Result<Csn, Failure>;
    /// Sets the entryCSN of the entry with this DN and entryUUID, and enters both in the indexes, which slapmodify does not
    /// do. It is durable after [`settle`](Self::settle).
    ///
    /// # Errors
    /// When the database cannot be written.
    fn touch(&mut self, dn: &str, uuid: &EntryUuid, csn: Csn) -> Result<(), Failure>;
    /// Makes durable what was touched.
    ///
    /// # Errors
    /// When the database cannot be written.
    fn settle(&mut self) -> Result<(), Failure>;
    /// Which state of the database this is; `None` where that cannot be told.
    fn generation(&mut self) -> Option<Generation>;
}

/// How far a database is.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Everything up to here is in the database: contextCSN, and what was written here since.
    pub vector: Vector,
    /// It has no contextCSN: the vector is the latest of the CSNs of its entries, and tells nothing of what it lacks.
    pub guessed: bool,
}

/// An entry that was found in a database.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its DN.
    pub dn: &'a str,
    /// Its entryUUID.
    pub uuid: EntryUuid,
    /// Its entryCSN, if it has one; see [`Csn::parse_stored`].
    pub csn: Option<Csn>,
    /// It is deleted, and only there because of its children.
    pub glue: bool,
}

/// A state of a database's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Which file it is (made from inode and birth): another one was put in its place when this differs.
    pub file: u64,
    /// The number of its last transaction.
    pub transaction: u64,
}

impl Generation {
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.file.to_be_bytes(), self.transaction.to_be_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Generation> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Generation { file: number(0)?, transaction: number(8)? })
    }

    /// Whether the file was put back to what it was before `other`.
    pub(crate) fn is_before(self, other: Generation) -> bool {
        self.file != other.file || self.transaction < other.transaction
    }
}

/// A thread of the host, ready to read. Valid within one call of [`Replica::read`](crate::Replica::read).
pub trait Reader {
    /// The entry as it is now, as the change that would add it, with its parent; `None` when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn read_entry(&mut self, uuid: &EntryUuid) -> Result<Option<Change>, Failure>;
    /// Shows every entry, as [`read_entry`](Self::read_entry) does, until `each` returns `false`. Parents nearly
    /// always come before their children, some entries are shown twice, and what is written meanwhile may be seen or not.
    ///
    /// # Errors
    /// When the database cannot be read to its end.
    fn dump(&mut self, each: &mut dyn FnMut(Change) -> bool) -> Result<DumpEnd, Failure>;
    /// Shows every entry once, with its parent, in any order, until `each` returns `false`. What is written meanwhile may be seen or
    /// not.
    ///
    /// # Errors
    /// When the database cannot be read to its end.
    fn read_all(&mut self, each: &mut dyn FnMut(Change) -> bool) -> Result<DumpEnd, Failure>;
    /// Shows every entry that has an entryCSN, until `each` returns `false`. What is written meanwhile may be seen or not.
    ///
    /// # Errors
    /// When the database cannot be read to its end.
    fn scan(&mut self, each: &mut dyn FnMut(EntryUuid, Csn) -> bool) -> Result<DumpEnd, Failure>;
    /// The host wants its thread back.
    fn must_yield(&self) -> bool;
}

/// How a walk through the database ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpEnd {
    /// Every entry was shown.
    Whole,
    /// No more were wanted.
    Stopped,
    /// The host wanted its thread back.
    Yielded,
}

/// A thread of the host, ready to write. Valid within one call of [`Replica::apply`](crate::Replica::apply).
pub trait Transaction {
    /// Opens a transaction. `Ok(false)`: the database has none, each change commits by itself.
    ///
    /// # Errors
    /// When the database cannot open one now.
    fn begin(&mut self) -> Result<bool, Failure>;
    /// While `on`, no client writes: for changes that belong together and commit each by itself. Ends with the transaction at the
    /// latest.
    fn set_exclusive(&mut self, on: bool);
    /// Makes one change.
    fn apply(&mut self, change: &Change) -> Outcome;
    /// Makes an entry as a comparison or a load found it elsewhere, nothing where it is later here; or deletes it, which asks for care
    /// where it is later here.
    fn apply_state(&mut self, state: &Change) -> Outcome;
    /// Adds an entry ([`Operation::Put`](xmppsync_replica::Operation::Put)) whose entryUUID is not in the database, so
    /// that nothing has to be looked for.
    fn add_new(&mut self, entry: &Change) -> Outcome;
    /// Does just what the change says to its entry, whatever that one's entryCSN. `checked`: unless the schema forbids it.
    fn apply_merged(&mut self, change: &Change, checked: bool) -> Outcome;
    /// Makes a modify as a write of this server: under a new CSN instead of the change's, unless the transaction is aborted told to
    /// [`Replica::captured`](crate::Replica::captured) or its like, and whatever the schema says.
    fn write(&mut self, change: &Change) -> Outcome;
    /// The entry as it is in the open transaction, as the change that would add it.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn read_entry(&mut self, uuid: &EntryUuid) -> Result<Option<Change>, Failure>;
    /// The entry with this DN.
    fn find(&mut self, dn: &str) -> Option<EntryUuid>;
    /// Whether entries are below the one with this DN.
    ///
    /// # Errors
    /// When that cannot be told.
    fn has_children(&mut self, dn: &str) -> Result<bool, Failure>;
    /// What the schema has against the entry with this DN, if anything.
    fn schema_problem(&mut self, dn: &str) -> Option<String>;
    /// Whether the attribute has at most one value.
    fn is_single(&mut self, attribute: &str) -> bool;
    /// Whether clients may write the attribute. Others are the host's own bookkeeping.
    fn is_of_clients(&mut self, attribute: &str) -> bool;
    /// The form in which equal values of the attribute are equal bytes.
    fn normalize(&mut self, attribute: &str, value: &[u8]) -> Vec<u8>;
    /// Stores the vector with the data.
    fn write_context_csn(&mut self, vector: &Vector) -> ContextCsnWrite;
    /// Ends the transaction for good.
    ///
    /// # Errors
    /// When nothing of it is durable.
    fn commit(&mut self) -> Result<(), Failure>;
    /// Ends the transaction as if it had never been.
    fn abort(&mut self);
    /// The host wants its thread back.
    fn must_yield(&self) -> bool;
}

/// What became of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is made, or was made before.
    Applied,
    /// It cannot be made; the transaction can go on without it.
    Refused(Failure),
    /// It cannot be made, and the transaction has to be aborted.
    Failed(Failure),
    /// As `Failed`, but it may go well later.
    Temporary(Failure),
    /// As `Failed`, but it will go well without a transaction.
    Alone(Failure),
    /// Nothing was touched: it meets other changes, see [`merge`](xmppsync_replica::merge).
    Care,
}

impl Outcome {
    /// Why it was not made.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Outcome::Refused(failure)
            | Outcome::Failed(failure)
            | Outcome::Temporary(failure)
            | Outcome::Alone(failure) => Some(failure),
            Outcome::Applied | Outcome::Care => None,
        }
    }
}

/// What became of the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextCsnWrite {
    /// It is part of the transaction.
    Written,
    /// There is no suffix entry yet that could hold it.
    NoSuffixEntry,
    /// The database refused it.
    Failed,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({result})")]
pub struct Failure {
    /// LDAP result code (RFC 4511).
    pub result: i32,
    /// The database's words.
    pub text: String,
}

/// LDAP result "busy".
const BUSY: i32 = 51;

impl Failure {
    /// Something else has to happen first, and will.
    pub(crate) fn busy(text: &str) -> Failure {
        Failure { result: BUSY, text: text.to_owned() }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.result == BUSY
    }

    /// noSuchObject: the entry or its parent is missing, and may come.
    pub(crate) fn is_missing_entry(&self) -> bool {
        const NO_SUCH_OBJECT: i32 = 32;
        const REFERRAL: i32 = 10; // what back-mdb answers for a missing entry
        matches!(self.result, NO_SUCH_OBJECT | REFERRAL)
    }

    /// The schema forbids it: undefinedAttributeType, constraintViolation, invalidAttributeSyntax, namingViolation,
    /// objectClassViolation, objectClassModsProhibited.
    pub(crate) fn is_of_schema(&self) -> bool {
        matches!(self.result, 17 | 19 | 21 | 64 | 65 | 69)
    }
}
