//! Every limit of the journal in one place.

/// One change as it is stored, in bytes. More than any request that slapd takes by default (16 MiB), whatever it holds.
pub const CHANGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Attributes of an added entry, or modifications of one modify, as the wire has it.
pub const ATTRIBUTES_PER_CHANGE_MAX: usize = 400_000;

/// Values of one attribute, as the wire has it.
pub const VALUES_PER_ATTRIBUTE_MAX: usize = 1_500_000;

/// Memory that the store keeps of its file, in bytes. The host is slapd, whose own caches need it more.
pub const CACHE_BYTES: usize = 24 * 1024 * 1024;

/// Changes, tombstones, and moves, that one [`trim`](crate::Journal::trim) drops of each.
pub const TRIM_STEP_MAX: usize = 10_000;

/// Changes that are remembered as not applied. The oldest are forgotten beyond it.
pub const SET_ASIDES_MAX: u64 = 10_000;

/// The reason why a change was not applied, in bytes; it is cut.
pub const REASON_BYTES_MAX: usize = 512;

/// Losses that are remembered. Those of the earliest CSNs are forgotten beyond it.
pub const CONFLICTS_MAX: u64 = 10_000;

/// The values of one loss, in bytes, each counted with one byte more; what is beyond is cut.
pub const LOST_BYTES_MAX: usize = 64 * 1024;

/// Entries that are remembered because changes of them came first. Others are passed over while there are as many.
pub const ORPHANS_MAX: u64 = 100_000;

/// CSNs of one vector: one for each serverID that there can be.
pub const VECTOR_CSNS_MAX: usize = 4_095;

/// Changes of each server among which a start after an unclean end looks for moves.
pub const MOVES_LOOKED_AT_MAX: usize = 100_000;

/// Files that are kept after they were set aside.
pub const ASIDE_FILES_MAX: usize = 2;
