//! One result whatever the order in which changes come.
//!
//! [`apply`] takes a [`Change`](crate::Change) of any server and brings it into a [`Tree`]; [`follow`] does what a change
//! means that the host made itself. Both are pure: all that is known and done goes through the tree, which is slapd's database
//! in the overlay and a few maps in the simulator.

mod apply;
mod history;
mod moves;
mod naming;
mod placing;
mod take;
mod tree;
mod values;
mod without;
mod words;

pub use apply::{Applied, apply, follow};
pub use take::{Past, learn, make_again, take, take_glue};
pub use tree::{Attributes, Node, Schema, Tree};
pub use values::is_stamp;
pub use words::{Lost, Move, Place};
