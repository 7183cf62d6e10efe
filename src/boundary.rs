//! `include/xmppsync.h`, bound by bindgen.

#![allow(
    non_camel_case_types,
    non_upper_case_globals,
    unused,
    missing_docs,
    unreachable_pub,
    reason = "made by bindgen"
)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "made by bindgen")]

include!(concat!(env!("OUT_DIR"), "/boundary.rs"));
