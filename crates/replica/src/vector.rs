//! How far a replica has come.

use crate::mutation::{self, Mutation};
use crate::{Csn, ServerId};
use std::collections::BTreeMap;

/// For every serverID the highest CSN up to which *everything* from it is applied: contextCSN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vector(BTreeMap<ServerId, Csn>);

impl Vector {
    /// The CSN up to which everything from `server` is applied.
    pub fn get(&self, server: ServerId) -> Option<Csn> {
        self.0.get(&server).copied()
    }

    /// Moves the server of `csn` forward; never back.
    pub fn advance(&mut self, csn: Csn) {
        let seen = self.0.entry(csn.server_id()).or_insert(csn);
        *seen = if mutation::is(Mutation::VectorGoesBack) { csn } else { csn.max(*seen) };
    }

    /// Whether everything up to `csn` of its server is applied.
    pub fn covers(&self, csn: Csn) -> bool {
        let less = mutation::is(Mutation::CoversLess);
        self.get(csn.server_id()).is_some_and(|seen| seen > csn || (seen == csn && !less))
    }

    /// Whether everything that `other` has is applied here too.
    pub fn dominates(&self, other: &Vector) -> bool {
        other.iter().all(|csn| self.covers(csn))
    }

    /// One CSN per server, by serverID.
    pub fn iter(&self) -> impl Iterator<Item = Csn> + '_ {
        self.0.values().copied()
    }
}

impl FromIterator<Csn> for Vector {
    fn from_iter<I: IntoIterator<Item = Csn>>(csns: I) -> Vector {
        let mut vector = Vector::default();
        csns.into_iter().for_each(|csn| vector.advance(csn));
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csn(second: u8, server: u8) -> Csn {
        format!("202611222359{second:02}.000000Z#000000#{server:03x}#000000").parse().unwrap()
    }

    #[test]
    fn a_vector_moves_forward_only() {
        let mut vector: Vector = [csn(5, 1)].into_iter().collect();
        vector.advance(csn(3, 1));
        assert_eq!(vector.get(csn(5, 1).server_id()), Some(csn(5, 1)));
        assert!(vector.covers(csn(4, 1)) && !vector.covers(csn(6, 1)) && !vector.covers(csn(1, 2)));
    }

    #[test]
    fn two_vectors_that_each_lack_something_do_not_dominate() {
        let a: Vector = [csn(5, 1), csn(1, 2)].into_iter().collect();
        let b: Vector = [csn(4, 1), csn(2, 2)].into_iter().collect();
        assert!(!a.dominates(&b) && !b.dominates(&a) && a.dominates(&Vector::default()));
    }
}
