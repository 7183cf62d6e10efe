//! What tests of several modules need.

use crate::host::{Database, Generation};
use xmppsync_replica::Csn;

/// A database that does nothing.
pub(crate) struct Nothing;

impl Database for Nothing {
    fn pending_csns(&self) -> Vec<Csn> {
        Vec::new()
    }
    fn submit_apply(&self) -> bool {
        true
    }
    fn submit_read(&self) -> bool {
        true
    }
    fn set_loading(&self, _on: bool) {}
    fn generation(&self) -> Option<Generation> {
        None
    }
}
