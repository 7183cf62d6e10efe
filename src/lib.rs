//! The overlay: slapd on one side, the replica's [node](xmppsync_node) on the other.
//!
//! All `unsafe` code of the project is here, and all of it is about the boundary in `include/xmppsync.h`.
//!
//! Reading order: [`entry`] (what slapd calls when it loads the module), [`boundary`] (the C side as Rust
//! sees it), [`guard`] (no panic leaves), [`instance`] (one configured database), [`settings`] (its
//! directives), [`view`] (changes across the boundary), [`database`] (what the node needs of slapd), [`log`].

mod boundary;
mod database;
mod entry;
mod generation;
mod guard;
mod instance;
mod log;
mod quantity;
mod read;
mod settings;
mod view;
