//! slapd's database, as the node uses it.

use crate::boundary::*;
use crate::generation::generation;
use crate::read::{SlapdReader, scan};
use crate::view::{Kind, Lent};
use ldap3_proto::proto::{LdapModify, LdapModifyRequest, LdapModifyType, LdapPartialAttribute};
use std::ffi::{CStr, c_char, c_int};
use std::path::PathBuf;
use tracing::warn;
use xmppsync_node::{
    ContextCsnWrite, Database, DumpEnd, Failure, Generation, Opening, Outcome, Reader, Standing, Stored,
    Transaction,
};
use xmppsync_replica::{Change, Clock, Csn, CsnError, EntryUuid, Operation, ServerId, Vector};

/// LDAP result "other", for failures that slapd gives no code for.
const OTHER: i32 = 80;
/// Room for the CSNs of as many writers as slapd has threads, by default 16.
const PENDING_MAX: usize = 256;
const TEXT_LEN: usize = 256;

/// The shim's part of a database, held as long as this lives.
pub(crate) struct DbRef {
    db: *mut xs_db,
    server_id: ServerId,
    directory: Option<PathBuf>,
}

// SAFETY: xs_db is counted atomically, and the shim's functions that this calls take any thread; they look at
// `closed` before they touch the backend.
unsafe impl Send for DbRef {}
// SAFETY: as above.
unsafe impl Sync for DbRef {}

impl DbRef {
    /// # Safety
    /// `db` is alive.
    pub(crate) unsafe fn hold(db: *mut xs_db, server_id: ServerId, directory: Option<PathBuf>) -> DbRef {
        // SAFETY: the caller's promise.
        unsafe { xs_db_hold(db) };
        DbRef { db, server_id, directory }
    }
}

impl Drop for DbRef {
    fn drop(&mut self) {
        // SAFETY: it was held in `hold`.
        unsafe { xs_db_release(self.db) }
    }
}

impl Database for DbRef {
    fn pending_csns(&self) -> Vec<Csn> {
        let mut room = vec![xs_csn { text: [0; XS_CSN_LEN as usize] }; PENDING_MAX];
        loop {
            // SAFETY: `room` has as many elements as it says, and the database is held.
            let count = unsafe {
                xs_pending_csns(self.db, self.server_id.get().into(), room.as_mut_ptr(), room.len())
            };
            if count <= room.len() {
                room.truncate(count);
                return room.iter().filter_map(|csn| csn_of(csn).ok()).collect();
            }
            room.resize(count * 2, xs_csn { text: [0; XS_CSN_LEN as usize] });
        }
    }

    fn submit_apply(&self) -> bool {
        // SAFETY: the database is held.
        unsafe { xs_submit_apply(self.db) == 0 }
    }

    fn submit_read(&self) -> bool {
        // SAFETY: the database is held.
        unsafe { xs_submit_read(self.db) == 0 }
    }

    fn set_loading(&self, on: bool) {
        // SAFETY: the database is held.
        unsafe { xs_set_loading(self.db, c_int::from(on)) }
    }

    fn generation(&self) -> Option<Generation> {
        generation(self.directory.as_deref()?)
    }
}

/// What the shim wrote.
pub(crate) fn csn_of(csn: &xs_csn) -> Result<Csn, CsnError> {
    Csn::parse(&csn.text.map(|byte| byte as u8))
}

/// An operation of slapd, for the duration of one call.
pub(crate) struct SlapdTransaction {
    op: *mut xs_op,
    exclusive: bool,
}

impl SlapdTransaction {
    /// # Safety
    /// `op` is valid until this value is dropped, in this thread; or null, and then only dropped.
    pub(crate) unsafe fn new(op: *mut xs_op) -> SlapdTransaction {
        SlapdTransaction { op, exclusive: false }
    }

    fn make(&mut self, change: &Change, kind: Kind) -> Outcome {
        let lent = Lent::new(change, kind);
        let view = lent.view();
        let mut result = 0;
        let mut text = [0 as c_char; TEXT_LEN];
        // SAFETY: `op` is valid, see `new`; `view` points into `lent` and `change`, which live until the end of
        // this function.
        let outcome = unsafe {
            match kind {
                Kind::Local => xs_write_local(self.op, &view, &mut result, text.as_mut_ptr(), text.len()),
                _ => xs_apply(self.op, &view, &mut result, text.as_mut_ptr(), text.len()),
            }
        };
        let failure = || {
            // SAFETY: the shim terminates what it writes; untouched, the first byte is 0.
            let text = unsafe { CStr::from_ptr(text.as_ptr()) };
            Failure { result, text: text.to_string_lossy().into_owned() }
        };
        match outcome as u32 {
            XS_APPLIED => Outcome::Applied,
            XS_REFUSED => Outcome::Refused(failure()),
            XS_TEMPORARY => Outcome::Temporary(failure()),
            XS_ALONE => Outcome::Alone(failure()),
            XS_CARE => Outcome::Care,
            _ => Outcome::Failed(failure()),
        }
    }
}

impl Drop for SlapdTransaction {
    /// An open transaction holds back every writer of the database; also a panic must end it.
    fn drop(&mut self) {
        self.abort();
        self.set_exclusive(false);
    }
}

impl Transaction for SlapdTransaction {
    fn begin(&mut self) -> Result<bool, Failure> {
        // SAFETY: `op` is valid, see `new`.
        match unsafe { xs_txn_begin(self.op) } {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(Failure { result: OTHER, text: "slapd cannot open a transaction".to_owned() }),
        }
    }

    fn set_exclusive(&mut self, on: bool) {
        if on != self.exclusive && !self.op.is_null() {
            self.exclusive = on;
            // SAFETY: `op` is valid, see `new`; each `on` is matched by one that is not, in this thread.
            unsafe { xs_exclusive(self.op, c_int::from(on)) }
        }
    }

    fn apply(&mut self, change: &Change) -> Outcome {
        self.make(change, Kind::Change)
    }

    fn apply_state(&mut self, state: &Change) -> Outcome {
        self.make(state, Kind::State)
    }

    fn add_new(&mut self, entry: &Change) -> Outcome {
        self.make(entry, Kind::New)
    }

    fn apply_merged(&mut self, change: &Change, checked: bool) -> Outcome {
        self.make(change, if checked { Kind::Merged } else { Kind::Unchecked })
    }

    fn write(&mut self, change: &Change) -> Outcome {
        self.make(change, Kind::Local)
    }

    fn read_entry(&mut self, uuid: &EntryUuid) -> Result<Option<Change>, Failure> {
        // SAFETY: `op` is valid, see `new`.
        unsafe { SlapdReader::new(self.op) }.read_entry(uuid)
    }

    fn find(&mut self, dn: &str) -> Option<EntryUuid> {
        let text = [dn.as_bytes(), b"\0"].concat();
        let mut found = None;
        // SAFETY: `op` is valid, see `new`; `text` and `found` live until the call returns.
        unsafe { xs_uuid_of(self.op, &xs_bytes::lend(&text[..dn.len()]), (&raw mut found).cast()) };
        found.and_then(|found: Vec<u8>| EntryUuid::parse(&found).ok())
    }

    fn has_children(&mut self, dn: &str) -> Result<bool, Failure> {
        let text = [dn.as_bytes(), b"\0"].concat();
        // SAFETY: `op` is valid, see `new`; `text` lives until the call returns.
        match unsafe { xs_has_children(self.op, &xs_bytes::lend(&text[..dn.len()])) } {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Failure { result: OTHER, text: "the entry's children cannot be looked for".to_owned() }),
        }
    }

    fn schema_problem(&mut self, dn: &str) -> Option<String> {
        let text = [dn.as_bytes(), b"\0"].concat();
        let mut problem = None;
        // SAFETY: `op` is valid, see `new`; `text` and `problem` live until the call returns.
        unsafe {
            xs_schema_problem(self.op, &xs_bytes::lend(&text[..dn.len()]), (&raw mut problem).cast());
        }
        problem.map(|problem: Vec<u8>| String::from_utf8_lossy(&problem).into_owned())
    }

    fn is_single(&mut self, attribute: &str) -> bool {
        // SAFETY: it reads the name only.
        unsafe { xs_is_single(&xs_bytes::lend(attribute.as_bytes())) == 1 }
    }

    fn is_of_clients(&mut self, attribute: &str) -> bool {
        // SAFETY: it reads the name only.
        unsafe { xs_is_of_clients(&xs_bytes::lend(attribute.as_bytes())) != 0 }
    }

    fn normalize(&mut self, attribute: &str, value: &[u8]) -> Vec<u8> {
        let text = [value, b"\0"].concat();
        let mut normal: Option<Vec<u8>> = None;
        // SAFETY: `op` is valid, see `new`; all else lives until the call returns.
        unsafe {
            let name = xs_bytes::lend(attribute.as_bytes());
            xs_normalize(self.op, &name, &xs_bytes::lend(&text[..value.len()]), (&raw mut normal).cast());
        }
        // What the syntax does not allow is equal to itself only.
        normal.unwrap_or_else(|| value.to_vec())
    }

    fn write_context_csn(&mut self, vector: &Vector) -> ContextCsnWrite {
        // slapd copies the values, and prints them as terminated texts when it debugs.
        let texts: Vec<Vec<u8>> =
            vector.iter().map(|csn| [csn.as_str().as_bytes(), b"\0"].concat()).collect();
        let csns: Vec<xs_bytes> = texts.iter().map(|text| xs_bytes::lend(&text[..text.len() - 1])).collect();
        // SAFETY: `op` is valid, see `new`; `csns` and `texts` live until the end of this function.
        match unsafe { xs_write_context_csn(self.op, csns.as_ptr(), csns.len()) } {
            0 => ContextCsnWrite::Written,
            1 => ContextCsnWrite::NoSuffixEntry,
            _ => ContextCsnWrite::Failed,
        }
    }

    fn commit(&mut self) -> Result<(), Failure> {
        // SAFETY: `op` is valid, see `new`.
        match unsafe { xs_txn_commit(self.op) } {
            0 => Ok(()),
            _ => Err(Failure { result: OTHER, text: "the transaction cannot be committed".to_owned() }),
        }
    }

    fn abort(&mut self) {
        if !self.op.is_null() {
            // SAFETY: `op` is valid, see `new`. Without an open transaction it does nothing.
            unsafe { xs_txn_abort(self.op) }
        }
    }

    fn must_yield(&self) -> bool {
        // SAFETY: `op` is valid, see `new`.
        unsafe { xs_must_yield(self.op) != 0 }
    }
}

/// A database that is being opened.
pub(crate) struct OpeningDatabase<'a> {
    op: *mut xs_op,
    transaction: SlapdTransaction,
    server_id: ServerId,
    suffix: &'a str,
    directory: Option<PathBuf>,
    /// Makes the new CSNs later than what was found.
    clock: Clock,
    /// Entries that were touched in the open transaction.
    touched: usize,
}

impl<'a> OpeningDatabase<'a> {
    /// # Safety
    /// `op` is valid until this value is dropped, and nobody else uses the database meanwhile.
    pub(crate) unsafe fn new(
        op: *mut xs_op,
        server_id: ServerId,
        suffix: &'a str,
        directory: Option<PathBuf>,
    ) -> OpeningDatabase<'a> {
        // SAFETY: the caller's promise.
        let transaction = unsafe { SlapdTransaction::new(op) };
        OpeningDatabase { op, transaction, server_id, suffix, directory, clock: Clock::default(), touched: 0 }
    }
}

impl Opening for OpeningDatabase<'_> {
    fn standing(&mut self) -> Result<Standing, Failure> {
        // SAFETY: see `new`.
        let seen = unsafe { read_state(self.op, self.server_id) }
            .map_err(|result| Failure { result, text: "its entryCSNs cannot be read".to_owned() })?;
        if seen.unusable > 0 {
            warn!(
                "{} entries or values of \"{}\" have a CSN of serverID 0: they were written without one, and are \
                 taken for what all servers had at first",
                seen.unusable, self.suffix
            );
        }
        seen.vector.iter().for_each(|csn| self.clock.observe(csn));
        Ok(Standing { vector: seen.vector, guessed: seen.guessed })
    }

    fn scan(&mut self, each: &mut dyn FnMut(Stored<'_>)) -> Result<(), Failure> {
        // SAFETY: see `new`.
        let end = unsafe {
            scan(self.op, false, &mut |stored| {
                each(stored);
                true
            })
        };
        match end {
            Ok(DumpEnd::Whole) => Ok(()),
            Ok(_) => {
                Err(Failure { result: OTHER, text: "its entries cannot be read to their end".to_owned() })
            }
            Err(result) => Err(Failure { result, text: "its entries cannot be read".to_owned() }),
        }
    }

    fn read_entry(&mut self, uuid: &EntryUuid) -> Result<Option<Change>, Failure> {
        // SAFETY: see `new`.
        unsafe { SlapdReader::new(self.op) }.read_entry(uuid)
    }

    fn find(&mut self, dn: &str) -> Option<EntryUuid> {
        self.transaction.find(dn)
    }

    fn observe(&mut self, csn: Csn) {
        self.clock.observe(csn);
    }

    fn new_csn(&mut self) -> Result<Csn, Failure> {
        let mut csn = xs_csn { text: [0; XS_CSN_LEN as usize] };
        // SAFETY: it fills the CSN, and takes any thread.
        unsafe { xs_new_csn(&mut csn) };
        let wall = csn_of(&csn)
            .map_err(|problem| Failure { result: OTHER, text: format!("slapd makes no CSN: {problem}") })?;
        Ok(self.clock.mint(wall))
    }

    fn touch(&mut self, dn: &str, uuid: &EntryUuid, csn: Csn) -> Result<(), Failure> {
        let replace = |name: &str, value: String| {
            let modification =
                LdapPartialAttribute { atype: name.to_owned(), vals: vec![value.into_bytes()] };
            LdapModify { operation: LdapModifyType::Replace, modification }
        };
        let changes = vec![replace("entryCSN", csn.to_string()), replace("entryUUID", uuid.to_string())];
        let operation = Operation::Modify(LdapModifyRequest { dn: dn.to_owned(), changes });
        // Each commit waits for the disk: many in one.
        const TOUCHED_MAX: usize = 1_000;
        let together = self.touched > 0 || self.transaction.begin()?;
        match self.transaction.apply_merged(&Change { csn, uuid: *uuid, parent: None, operation }, true) {
            Outcome::Applied => {
                self.touched += usize::from(together);
                if self.touched >= TOUCHED_MAX { self.settle() } else { Ok(()) }
            }
            Outcome::Refused(failure)
            | Outcome::Failed(failure)
            | Outcome::Temporary(failure)
            | Outcome::Alone(failure) => Err(failure),
            Outcome::Care => {
                Err(Failure { result: OTHER, text: format!("the entry \"{dn}\" is not what was read") })
            }
        }
    }

    fn settle(&mut self) -> Result<(), Failure> {
        match std::mem::take(&mut self.touched) {
            0 => Ok(()),
            _ => self.transaction.commit(),
        }
    }

    fn generation(&mut self) -> Option<Generation> {
        generation(self.directory.as_deref()?)
    }
}

/// What `xs_read_context_csn` and `xs_scan_entry_csn` report.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) vector: Vector,
    /// There is no contextCSN: the entries' own CSNs make the vector.
    pub(crate) guessed: bool,
    /// CSNs that are none, or of serverID 0.
    pub(crate) unusable: u64,
}

/// Where a database stands: its contextCSN, and what was written since without being noted there.
///
/// # Safety
/// `op` is valid, and nobody writes to the database meanwhile.
pub(crate) unsafe fn read_state(op: *mut xs_op, server_id: ServerId) -> Result<Seen, i32> {
    let mut seen = Seen::default();
    let target = (&raw mut seen).cast();
    // SAFETY: `op` is valid; `target` is only used by xsr_seen_csn during the call.
    let stored = unsafe { xs_read_context_csn(op, target) };
    // The own CSN on the suffix entry is only as new as the last checkpoint. The others are written together
    // with the changes they cover.
    let own = seen.vector.get(server_id).map(|csn| [csn.as_str().as_bytes(), b"\0"].concat());
    let from = own.as_ref().map(|text| xs_bytes::lend(&text[..text.len() - 1]));
    let mut scanned = Seen::default();
    // SAFETY: as above; `from` points into `own`.
    let result = unsafe {
        let from = from.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        xs_scan_entry_csn(op, from, (&raw mut scanned).cast())
    };
    if result != 0 {
        return Err(result);
    }
    // Without any contextCSN (slapadd without -w) every entry tells; otherwise only for this server.
    let tells = |csn: &Csn| stored == 0 || csn.server_id() == server_id;
    scanned.vector.iter().filter(tells).for_each(|csn| seen.vector.advance(csn));
    seen.guessed = stored == 0;
    seen.unusable += scanned.unusable;
    Ok(seen)
}
