//! Changes across the boundary: copied in, lent out.

use crate::boundary::*;
use ldap3_proto::proto::{
    LdapAddRequest, LdapModify, LdapModifyDNRequest, LdapModifyRequest, LdapModifyType, LdapPartialAttribute,
};
use std::ffi::{c_char, c_ulong};
use std::marker::PhantomData;
use xmppsync_replica::{Change, Csn, CsnError, EntryUuid, IdError, Operation};

/// Why a captured change cannot be replicated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error("its CSN is not usable: {0}")]
    Csn(#[from] CsnError),
    #[error("its entry has no usable entryUUID: {0}")]
    Uuid(#[from] IdError),
    #[error("its {0} is not UTF-8")]
    Text(&'static str),
    #[error("operation {0} is unknown")]
    Operation(i32),
}

impl xs_bytes {
    /// # Safety
    /// `ptr` is null or points to `len` bytes that stay as they are for `'a`.
    pub(crate) unsafe fn as_slice<'a>(&self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: the caller's promise; a length of the host's memory fits usize.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.len as usize) }
    }

    /// Lends bytes to a call of the shim, which only reads them.
    pub(crate) fn lend(bytes: &[u8]) -> xs_bytes {
        xs_bytes { len: bytes.len() as c_ulong, ptr: bytes.as_ptr().cast::<c_char>().cast_mut() }
    }
}

/// # Safety
/// `start` points to `len` values that stay as they are for `'a`; null is allowed for a `len` of 0.
unsafe fn slice<'a, T>(start: *const T, len: usize) -> &'a [T] {
    if start.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Copies a change out of slapd's memory.
///
/// # Safety
/// `change` and everything that it points to is valid until this returns, as the shim promises for
/// `xsr_captured`.
pub(crate) unsafe fn copy_in(change: &xs_change) -> Result<Change, CaptureError> {
    // SAFETY: the caller's promise.
    unsafe { copy(change, Csn::parse) }
}

/// As [`copy_in`], for an entry as it is stored: it may be of no server.
///
/// # Safety
/// As [`copy_in`].
pub(crate) unsafe fn copy_state(state: &xs_change) -> Result<Change, CaptureError> {
    // SAFETY: the caller's promise.
    unsafe { copy(state, Csn::parse_stored) }
}

/// # Safety
/// As [`copy_in`].
unsafe fn copy(
    change: &xs_change,
    parse: fn(&[u8]) -> Result<Csn, CsnError>,
) -> Result<Change, CaptureError> {
    // SAFETY: all fields are covered by the caller's promise.
    let (csn, uuid, dn, mods) = unsafe {
        (
            change.csn.as_slice(),
            change.uuid.as_slice(),
            change.dn.as_slice(),
            slice(change.mods, change.mods_len),
        )
    };
    // SAFETY: as above.
    let parent = EntryUuid::parse(unsafe { change.parent.as_slice() }).ok();
    // SAFETY: as above.
    let mods = mods.iter().map(|modification| unsafe { copy_modification(modification) });
    let dn = text(dn, "DN")?;
    let operation = match change.operation as u32 {
        XS_ADD => Operation::Add(LdapAddRequest {
            dn,
            attributes: mods
                .map(|modification| Ok(modification?.modification))
                .collect::<Result<_, CaptureError>>()?,
        }),
        XS_MODIFY => Operation::Modify(LdapModifyRequest { dn, changes: mods.collect::<Result<_, _>>()? }),
        XS_MODRDN => {
            // SAFETY: as above.
            let (newrdn, superior) = unsafe { (change.new_rdn.as_slice(), change.new_superior.as_slice()) };
            let stays = change.new_superior.ptr.is_null();
            Operation::ModifyDn {
                request: LdapModifyDNRequest {
                    dn,
                    newrdn: text(newrdn, "new RDN")?,
                    deleteoldrdn: change.delete_old_rdn != 0,
                    new_superior: if stays { None } else { Some(text(superior, "new superior")?) },
                },
                operational: mods.collect::<Result<_, _>>()?,
            }
        }
        XS_DELETE => Operation::Delete { dn },
        _ => return Err(CaptureError::Operation(change.operation)),
    };
    Ok(Change { csn: parse(csn)?, uuid: EntryUuid::parse(uuid)?, parent, operation })
}

fn text(bytes: &[u8], what: &'static str) -> Result<String, CaptureError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| CaptureError::Text(what))
}

/// # Safety
/// As [`copy_in`].
unsafe fn copy_modification(from: &xs_modification) -> Result<LdapModify, CaptureError> {
    // SAFETY: the caller's promise.
    let (name, values) = unsafe { (from.attribute.as_slice(), slice(from.values, from.values_len)) };
    Ok(LdapModify {
        operation: match from.op as u32 {
            XS_MOD_DELETE => LdapModifyType::Delete,
            XS_MOD_REPLACE => LdapModifyType::Replace,
            XS_MOD_INCREMENT => LdapModifyType::Increment,
            _ => LdapModifyType::Add,
        },
        modification: LdapPartialAttribute {
            atype: text(name, "attribute description")?,
            // SAFETY: the caller's promise.
            vals: values.iter().map(|value| unsafe { value.as_slice() }.to_vec()).collect(),
        },
    })
}

/// What a change is to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The next one of its origin.
    Change,
    /// What a comparison brought: nothing to an entry that is later.
    State,
    /// An entry whose entryUUID is not in the database.
    New,
    /// What the rules for conflicts came to.
    Merged,
    /// The same, whatever the schema says.
    Unchecked,
    /// None that another server made: a write of this one.
    Local,
}

/// A change lent to the shim: the arrays that C wants, pointing into the change.
///
/// slapd's functions for DNs and CSNs expect terminated texts, so those are copied.
pub(crate) struct Lent<'a> {
    csn: Terminated,
    uuid: Terminated,
    dn: Terminated,
    new_rdn: Option<Terminated>,
    new_superior: Option<Terminated>,
    parent: Option<Terminated>,
    /// What `mods` points into; not read, only kept.
    _values: Vec<xs_bytes>,
    mods: Vec<xs_modification>,
    operation: u32,
    kind: Kind,
    delete_old_rdn: bool,
    _change: PhantomData<&'a Change>,
}

/// A text with a NUL behind it that its length does not count.
struct Terminated(Vec<u8>);

impl Terminated {
    fn new(text: &str) -> Terminated {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        Terminated(bytes)
    }

    fn lend(&self) -> xs_bytes {
        xs_bytes::lend(&self.0[..self.0.len() - 1])
    }
}

impl<'a> Lent<'a> {
    pub(crate) fn new(change: &'a Change, kind: Kind) -> Lent<'a> {
        let (operation, mods): (u32, Vec<(u32, &LdapPartialAttribute)>) = match &change.operation {
            Operation::Put(request) => {
                (XS_PUT, request.attributes.iter().map(|attribute| (XS_MOD_ADD, attribute)).collect())
            }
            Operation::Add(request) => {
                (XS_ADD, request.attributes.iter().map(|attribute| (XS_MOD_ADD, attribute)).collect())
            }
            Operation::Modify(request) => (XS_MODIFY, request.changes.iter().map(modification).collect()),
            Operation::ModifyDn { operational, .. } => {
                (XS_MODRDN, operational.iter().map(modification).collect())
            }
            Operation::Delete { .. } => (XS_DELETE, Vec::new()),
        };
        let rename = match &change.operation {
            Operation::ModifyDn { request, .. } => Some(request),
            _ => None,
        };
        let values: Vec<xs_bytes> = mods
            .iter()
            .flat_map(|(_, attribute)| &attribute.vals)
            .map(|value| xs_bytes::lend(value))
            .collect();
        let mut start = 0;
        let mods = mods
            .into_iter()
            .map(|(op, attribute)| {
                let own = &values[start..start + attribute.vals.len()];
                start += own.len();
                xs_modification {
                    op: op as i32,
                    attribute: xs_bytes::lend(attribute.atype.as_bytes()),
                    values: own.as_ptr(),
                    values_len: own.len(),
                }
            })
            .collect();
        Lent {
            csn: Terminated::new(change.csn.as_str()),
            uuid: Terminated::new(&change.uuid.to_string()),
            dn: Terminated::new(change.operation.dn()),
            new_rdn: rename.map(|request| Terminated::new(&request.newrdn)),
            new_superior: rename.and_then(|request| request.new_superior.as_deref()).map(Terminated::new),
            parent: change.parent.map(|parent| Terminated::new(&parent.to_string())),
            _values: values,
            mods,
            operation,
            kind,
            delete_old_rdn: rename.is_some_and(|request| request.deleteoldrdn),
            _change: PhantomData,
        }
    }

    /// The view; valid as long as `self`.
    pub(crate) fn view(&self) -> xs_change {
        xs_change {
            operation: self.operation as i32,
            delete_old_rdn: i32::from(self.delete_old_rdn),
            is_new: i32::from(self.kind == Kind::New),
            is_state: i32::from(self.kind == Kind::State),
            is_merged: match self.kind {
                Kind::Merged => XS_MERGED,
                Kind::Unchecked => XS_UNCHECKED,
                _ => XS_PLAIN,
            } as i32,
            csn: self.csn.lend(),
            uuid: self.uuid.lend(),
            dn: self.dn.lend(),
            new_rdn: self.new_rdn.as_ref().map_or_else(xs_bytes::default, Terminated::lend),
            new_superior: self.new_superior.as_ref().map_or_else(xs_bytes::default, Terminated::lend),
            parent: self.parent.as_ref().map_or_else(xs_bytes::default, Terminated::lend),
            old_parent: xs_bytes::default(),
            mods: self.mods.as_ptr(),
            mods_len: self.mods.len(),
        }
    }
}

fn modification(change: &LdapModify) -> (u32, &LdapPartialAttribute) {
    let op = match change.operation {
        LdapModifyType::Add => XS_MOD_ADD,
        LdapModifyType::Delete => XS_MOD_DELETE,
        LdapModifyType::Replace => XS_MOD_REPLACE,
        LdapModifyType::Increment => XS_MOD_INCREMENT,
    };
    (op, &change.modification)
}
