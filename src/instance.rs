//! One configured database, and the functions by which slapd uses it.

use crate::boundary::*;
use crate::database::{DbRef, OpeningDatabase, Seen, SlapdTransaction, csn_of};
use crate::guard::guard;
use crate::read::SlapdReader;
use crate::settings::{DatabaseFacts, Settings};
use crate::view::{CaptureError, copy_in};
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tracing::error;
use xmpp_parsers::jid::BareJid;
use xmppsync_node::{FailPoint, HubError, Replica, Transaction, fail_point};
use xmppsync_replica::{BootId, Change, Csn, EntryUuid};

/// The rooms of the databases that a tool such as slaptest has opened. Each is opened once, and the process
/// ends with its work.
static CHECKED_ROOMS: Mutex<BTreeSet<BareJid>> = Mutex::new(BTreeSet::new());

/// The journal directories of the open databases.
static JOURNALS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A journal directory that is this database's alone, as long as this lives.
struct JournalClaim(PathBuf);

impl JournalClaim {
    fn take(journal: &Path, suffix: &str) -> Result<JournalClaim, String> {
        let place = std::fs::canonicalize(journal).unwrap_or_else(|_| journal.to_owned());
        match JOURNALS.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone()) {
            true => Ok(JournalClaim(place)),
            false => Err(format!(
                "database \"{suffix}\": the journal directory {} is that of another database; set xmppsync-journal",
                journal.display()
            )),
        }
    }
}

impl Drop for JournalClaim {
    fn drop(&mut self) {
        JOURNALS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// What the shim knows as `xsr_instance`.
struct Instance {
    db: *mut xs_db,
    settings: Mutex<Settings>,
    /// The settings with which the database was opened last.
    used: Mutex<Option<Settings>>,
    replica: RwLock<Option<Replica>>,
    /// Of the open database.
    journal: Mutex<Option<JournalClaim>>,
    started: AtomicBool,
}

/// What `open` led to.
enum Opened {
    Replicating,
    /// `xmppsync-replicated off`.
    Silent,
}

impl Instance {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, Option<Settings>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replica(&self) -> RwLockReadGuard<'_, Option<Replica>> {
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Option<JournalClaim>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_replica(&self) -> Option<Replica> {
        self.replica.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// # Safety
    /// `op` is null or valid, and nobody writes to the database meanwhile.
    unsafe fn open(&self, facts: &DatabaseFacts, op: *mut xs_op) -> Result<Opened, String> {
        let settings = self.settings().clone();
        if !settings.replicated() {
            *self.used() = Some(settings);
            return Ok(Opened::Silent);
        }
        let config = settings.complete(facts, BootId::new(rand::random()))?;
        let claim = JournalClaim::take(&config.keep.journal, &facts.suffix)?;
        if op.is_null() {
            // The process ends with its work, and so does its claim.
            *self.journal() = Some(claim);
            // slapadd, slapcat and the like: checked, nothing more.
            let mut rooms = CHECKED_ROOMS.lock().unwrap_or_else(PoisonError::into_inner);
            return match rooms.insert(config.group.room.clone()) {
                true => Ok(Opened::Replicating),
                false => Err(HubError::RoomTaken(config.group.room).to_string()),
            };
        }
        let (server_id, directory) = (config.server_id, facts.directory.clone());
        // SAFETY: the caller's promise, and the database is alive, it is being opened.
        let (database, mut opening) = unsafe {
            (
                DbRef::hold(self.db, server_id, directory.clone()),
                OpeningDatabase::new(op, server_id, &facts.suffix, directory),
            )
        };
        let replica = Replica::open(config, Arc::new(database), &mut opening)
            .map_err(|problem| format!("database \"{}\": {problem}", facts.suffix))?;
        replica.suffix_entry(facts.suffix_uuid);
        *self.journal() = Some(claim);
        *self.replica.write().unwrap_or_else(PoisonError::into_inner) = Some(replica);
        *self.used() = Some(settings);
        Ok(Opened::Replicating)
    }

    fn captured(&self, change: Result<Change, CaptureError>, take: impl FnOnce(&Replica, Change)) {
        let replica = self.replica();
        let Some(replica) = replica.as_ref() else { return };
        match change {
            Ok(change) => take(replica, change),
            Err(problem) => error!("a change is not replicated: {problem}"),
        }
    }
}

/// # Safety
/// `instance` came from `xsr_new` and was not given to `xsr_free`.
unsafe fn instance<'a>(instance: *mut xsr_instance) -> &'a Instance {
    // SAFETY: the caller's promise; Instance is only used by shared reference.
    unsafe { &*instance.cast::<Instance>() }
}

/// # Safety
/// `text` is terminated.
unsafe fn copy_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Copies as much of `text` as fits, terminated.
///
/// # Safety
/// `out` has room for `out_len` bytes.
unsafe fn write_text(text: &str, out: *mut c_char, out_len: usize) {
    if out.is_null() || out_len == 0 {
        return;
    }
    let mut len = text.len().min(out_len - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    // SAFETY: `len` bytes and the terminator fit, by the caller's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, len);
        *out.add(len) = 0;
    }
}

#[unsafe(no_mangle)]
extern "C" fn xsr_new(db: *mut xs_db) -> *mut xsr_instance {
    guard("xsr_new", std::ptr::null_mut(), || {
        let instance = Instance {
            db,
            settings: Mutex::default(),
            used: Mutex::default(),
            replica: RwLock::default(),
            journal: Mutex::default(),
            started: AtomicBool::new(false),
        };
        Box::into_raw(Box::new(instance)).cast()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_free(pointer: *mut xsr_instance) {
    guard("xsr_free", (), || {
        if !pointer.is_null() {
            // SAFETY: it came from xsr_new, and the shim forgets it now.
            drop(unsafe { Box::from_raw(pointer.cast::<Instance>()) });
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_config_set(
    pointer: *mut xsr_instance,
    key: c_int,
    value: *const c_char,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    guard("xsr_config_set", -1, || {
        // SAFETY: the shim passes a live instance, a terminated value and room for the error.
        unsafe {
            match instance(pointer).settings().set(key as u32, &copy_text(value)) {
                Ok(()) => 0,
                Err(problem) => {
                    write_text(&problem, error, error_len);
                    -1
                }
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_config_get(
    pointer: *mut xsr_instance,
    key: c_int,
    index: usize,
    out: *mut c_char,
    out_len: usize,
) -> c_long {
    guard("xsr_config_get", -1, || {
        // SAFETY: the shim passes a live instance and room for the value.
        unsafe {
            let settings = instance(pointer).settings();
            let Some(value) = settings.get(key as u32, index) else { return -1 };
            write_text(value, out, out_len);
            value.len() as c_long
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_config_delete(pointer: *mut xsr_instance, key: c_int, index: c_int) {
    guard("xsr_config_delete", (), || {
        // SAFETY: the shim passes a live instance.
        unsafe { instance(pointer) }.settings().delete(key as u32, usize::try_from(index).ok());
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_config_dirty(pointer: *mut xsr_instance) -> c_int {
    guard("xsr_config_dirty", 0, || {
        // SAFETY: the shim passes a live instance.
        let instance = unsafe { instance(pointer) };
        c_int::from(instance.used().as_ref() != Some(&*instance.settings()))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_config_revert(pointer: *mut xsr_instance) {
    guard("xsr_config_revert", (), || {
        // SAFETY: the shim passes a live instance.
        let instance = unsafe { instance(pointer) };
        if let Some(used) = instance.used().clone() {
            *instance.settings() = used;
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_open(
    pointer: *mut xsr_instance,
    database: *const xs_database,
    op: *mut xs_op,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    guard("xsr_open", -1, || {
        // SAFETY: the shim passes a live instance, a filled structure with terminated texts, and room for the
        // error; `op` is null or valid, and the database is not in use yet.
        unsafe {
            let facts = DatabaseFacts {
                suffix: copy_text((*database).suffix),
                nsuffix: copy_text((*database).nsuffix),
                server_id: (*database).server_id,
                has_rootdn: (*database).has_rootdn != 0,
                has_lastmod: (*database).has_lastmod != 0,
                has_uuid_index: (*database).has_uuid_index != 0,
                directory: (!(*database).directory.is_null())
                    .then(|| PathBuf::from(copy_text((*database).directory))),
                suffix_uuid: EntryUuid::parse((*database).suffix_uuid.as_slice()).ok(),
            };
            match instance(pointer).open(&facts, op) {
                Ok(Opened::Replicating) => 0,
                Ok(Opened::Silent) => 1,
                Err(problem) => {
                    write_text(&problem, error, error_len);
                    -1
                }
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_start(pointer: *mut xsr_instance) {
    guard("xsr_start", (), || {
        // SAFETY: the shim passes a live instance.
        let instance = unsafe { instance(pointer) };
        if let Some(replica) = instance.replica().as_ref() {
            instance.started.store(true, Ordering::Release);
            replica.start();
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_stop(pointer: *mut xsr_instance, op: *mut xs_op, ends: c_int) {
    guard("xsr_stop", (), || {
        // SAFETY: the shim passes a live instance.
        let instance = unsafe { instance(pointer) };
        let Some(replica) = instance.take_replica() else { return };
        let started = instance.started.swap(false, Ordering::AcqRel);
        // SAFETY: the shim passes a valid operation.
        let mut transaction = unsafe { SlapdTransaction::new(op) };
        // What was never started has not read its vector, and must not write an empty one.
        replica
            .stop((started && !op.is_null()).then_some(&mut transaction as &mut dyn Transaction), ends != 0);
        instance.journal().take();
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_mint_csn(pointer: *mut xsr_instance, csn: *mut xs_csn) {
    guard("xsr_mint_csn", (), || {
        // SAFETY: the shim passes a live instance and a filled CSN that nobody else uses.
        let (instance, csn) = unsafe { (instance(pointer), &mut *csn) };
        // One that is none stays, as it does after a failure here: slapd takes what it would have made itself.
        if let (Some(replica), Ok(wall)) = (instance.replica().as_ref(), csn_of(csn)) {
            let minted = replica.mint_csn(wall);
            csn.text.iter_mut().zip(minted.as_str().bytes()).for_each(|(out, byte)| *out = byte as c_char);
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_captured(pointer: *mut xsr_instance, change: *const xs_change) {
    guard("xsr_captured", (), || {
        // SAFETY: the shim passes a live instance and a change that is valid during the call.
        let (instance, old, change) =
            unsafe { (instance(pointer), (*change).old_parent.as_slice(), copy_in(&*change)) };
        fail_point(FailPoint::Committed);
        let old = EntryUuid::parse(old).ok();
        instance.captured(change, |replica, change| replica.captured(change, old));
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_captured_in_txn(
    pointer: *mut xsr_instance,
    txn: *const c_void,
    change: *const xs_change,
) {
    guard("xsr_captured_in_txn", (), || {
        // SAFETY: the shim passes a live instance and a change that is valid during the call.
        let (instance, old, change) =
            unsafe { (instance(pointer), (*change).old_parent.as_slice(), copy_in(&*change)) };
        let old = EntryUuid::parse(old).ok();
        instance.captured(change, |replica, change| {
            replica.captured_in_transaction(txn.addr(), change, old);
        });
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_txn_end(pointer: *mut xsr_instance, txn: *const c_void, committed: c_int) {
    guard("xsr_txn_end", (), || {
        // SAFETY: the shim passes a live instance.
        let instance = unsafe { instance(pointer) };
        if let Some(replica) = instance.replica().as_ref() {
            replica.transaction_ended(txn.addr(), committed != 0);
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_apply(pointer: *mut xsr_instance, op: *mut xs_op) {
    guard("xsr_apply", (), || {
        // SAFETY: the shim passes a live instance and an operation of this thread.
        let (instance, mut transaction) = unsafe { (instance(pointer), SlapdTransaction::new(op)) };
        if let Some(replica) = instance.replica().as_ref() {
            replica.apply(&mut transaction);
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_read(pointer: *mut xsr_instance, op: *mut xs_op) {
    guard("xsr_read", (), || {
        // SAFETY: the shim passes a live instance and an operation of this thread.
        let (instance, mut reader) = unsafe { (instance(pointer), SlapdReader::new(op)) };
        if let Some(replica) = instance.replica().as_ref() {
            replica.read(&mut reader);
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_suffix(pointer: *mut xsr_instance, uuid: *const xs_bytes) {
    guard("xsr_suffix", (), || {
        // SAFETY: the shim passes a live instance, and null or a value that is valid during the call.
        let (instance, uuid) = unsafe { (instance(pointer), uuid.as_ref().map(|uuid| uuid.as_slice())) };
        if let Some(replica) = instance.replica().as_ref() {
            replica.suffix_entry(uuid.and_then(|uuid| EntryUuid::parse(uuid).ok()));
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_context_csn(pointer: *mut xsr_instance, out: *mut xs_csn, max: usize) -> usize {
    guard("xsr_context_csn", 0, || {
        // SAFETY: the shim passes a live instance.
        let instance = unsafe { instance(pointer) };
        if !instance.started.load(Ordering::Acquire) {
            return 0;
        }
        let replica = instance.replica();
        let csns: Vec<Csn> =
            replica.as_ref().map(|replica| replica.vector().iter().collect()).unwrap_or_default();
        for (index, csn) in csns.iter().take(max).enumerate() {
            // SAFETY: `out` has room for `max` of them.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    csn.as_str().as_ptr().cast(),
                    (*out.add(index)).text.as_mut_ptr(),
                    Csn::LEN,
                )
            };
        }
        csns.len()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_seen_csn(seen: *mut c_void, csn: *const xs_bytes) {
    guard("xsr_seen_csn", (), || {
        // SAFETY: `seen` is what read_state passed in, alive and used by nobody else during the call; the value
        // is valid during the call.
        let (seen, csn) = unsafe { (&mut *seen.cast::<Seen>(), (*csn).as_slice()) };
        match Csn::parse(csn) {
            Ok(csn) => seen.vector.advance(csn),
            Err(_) => seen.unusable += 1,
        }
    });
}
