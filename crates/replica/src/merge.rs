//! One result whatever the order in which changes come.

mod words;

pub use words::{Lost, Move, Place};
