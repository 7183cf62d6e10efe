//! Entries read out of slapd's database.

use crate::boundary::*;
use crate::guard::guard;
use crate::view::copy_state;
use std::ffi::{c_int, c_void};
use tracing::warn;
use xmppsync_node::{DumpEnd, Failure, Reader, Stored};
use xmppsync_replica::{Change, Csn, EntryUuid};

/// A reading operation of slapd, for the duration of one call.
pub(crate) struct SlapdReader {
    op: *mut xs_op,
}

impl SlapdReader {
    /// # Safety
    /// `op` is valid until this value is dropped, in this thread.
    pub(crate) unsafe fn new(op: *mut xs_op) -> SlapdReader {
        SlapdReader { op }
    }
}

impl SlapdReader {
    /// `all` gets what `xsr_seen_state` wants, for the duration of the call.
    fn walk(
        &mut self,
        each: &mut dyn FnMut(Change) -> bool,
        all: impl FnOnce(*mut xs_op, *mut c_void) -> c_int,
    ) -> Result<DumpEnd, Failure> {
        let mut states = States { each, unusable: 0 };
        let end = all(self.op, (&raw mut states).cast());
        if states.unusable > 0 {
            warn!("{} entries have no entryUUID or no entryCSN, and were left out", states.unusable);
        }
        walked(end).map_err(failure)
    }
}

/// What `xsr_seen_state` gets.
struct States<'a> {
    each: &'a mut dyn FnMut(Change) -> bool,
    /// Entries without entryUUID or entryCSN.
    unusable: u64,
}

impl Reader for SlapdReader {
    fn read_entry(&mut self, uuid: &EntryUuid) -> Result<Option<Change>, Failure> {
        let text = [uuid.to_string().as_bytes(), b"\0"].concat();
        let uuid = xs_bytes::lend(&text[..text.len() - 1]);
        let mut found = None;
        let mut keep = |change| {
            found = Some(change);
            false
        };
        let mut states = States { each: &mut keep, unusable: 0 };
        // SAFETY: `op` is valid, see `new`; `text` and `states` live until the call returns.
        let result = unsafe { xs_read_entry(self.op, &uuid, (&raw mut states).cast()) };
        match result {
            0 => Ok(found),
            result => Err(failure(result)),
        }
    }

    fn dump(&mut self, each: &mut dyn FnMut(Change) -> bool) -> Result<DumpEnd, Failure> {
        // SAFETY: `op` is valid, see `new`.
        self.walk(each, |op, states| unsafe { xs_dump(op, states) })
    }

    fn read_all(&mut self, each: &mut dyn FnMut(Change) -> bool) -> Result<DumpEnd, Failure> {
        // SAFETY: `op` is valid, see `new`.
        self.walk(each, |op, states| unsafe { xs_read_all(op, states) })
    }

    fn scan(&mut self, each: &mut dyn FnMut(EntryUuid, Csn) -> bool) -> Result<DumpEnd, Failure> {
        // SAFETY: `op` is valid, see `new`.
        let end = unsafe {
            scan(self.op, true, &mut |Stored { uuid, csn, .. }| csn.is_none_or(|csn| each(uuid, csn)))
        };
        end.map_err(failure)
    }

    fn must_yield(&self) -> bool {
        // SAFETY: `op` is valid, see `new`.
        unsafe { xs_must_yield(self.op) != 0 }
    }
}

fn failure(result: i32) -> Failure {
    Failure { result, text: "the database cannot be read".to_owned() }
}

/// What `xsr_seen_entry` gets.
type Each<'a> = &'a mut dyn FnMut(Stored<'_>) -> bool;

/// Shows every entry, until `each` returns `false`. Those without entryUUID are left out. `in_pool`: on a thread of slapd's
/// pool, which it may want back.
///
/// # Safety
/// `op` is valid.
pub(crate) unsafe fn scan(op: *mut xs_op, in_pool: bool, mut each: Each<'_>) -> Result<DumpEnd, i32> {
    // SAFETY: the caller's promise; `each` is only used by xsr_seen_entry during the call.
    walked(unsafe { xs_scan_entries(op, c_int::from(in_pool), (&raw mut each).cast()) })
}

fn walked(end: c_int) -> Result<DumpEnd, i32> {
    match end {
        0 => Ok(DumpEnd::Whole),
        XS_DUMP_STOPPED => Ok(DumpEnd::Stopped),
        XS_DUMP_YIELDED => Ok(DumpEnd::Yielded),
        result => Err(result),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_seen_entry(
    seen: *mut c_void,
    dn: *const xs_bytes,
    uuid: *const xs_bytes,
    csn: *const xs_bytes,
    glue: c_int,
) -> c_int {
    guard("xsr_seen_entry", 1, || {
        // SAFETY: `seen` is what `scan` passed in, used by nobody else during the call; the values are valid
        // during the call.
        let (each, dn, uuid, csn) = unsafe {
            (&mut *seen.cast::<Each<'_>>(), (*dn).as_slice(), (*uuid).as_slice(), (*csn).as_slice())
        };
        match (EntryUuid::parse(uuid), std::str::from_utf8(dn)) {
            (Ok(uuid), Ok(dn)) => {
                let csn = Csn::parse_stored(csn).ok();
                c_int::from(!each(Stored { dn, uuid, csn, glue: glue != 0 }))
            }
            _ => 0,
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_seen_state(seen: *mut c_void, state: *const xs_change) -> c_int {
    guard("xsr_seen_state", 1, || {
        // SAFETY: `seen` is what the reader passed in, used by nobody else during the call; the state is valid
        // during the call.
        let (states, state) = unsafe { (&mut *seen.cast::<States<'_>>(), copy_state(&*state)) };
        match state {
            Ok(change) => c_int::from(!(states.each)(change)),
            Err(_) => {
                states.unusable += 1;
                0
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn xsr_seen_bytes(seen: *mut c_void, bytes: *const xs_bytes) {
    guard("xsr_seen_bytes", (), || {
        // SAFETY: `seen` is what SlapdTransaction passed in, used by nobody else during the call; the bytes are valid during
        // the call.
        unsafe { *seen.cast::<Option<Vec<u8>>>() = Some((*bytes).as_slice().to_vec()) };
    });
}
