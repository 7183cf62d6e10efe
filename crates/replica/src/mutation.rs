//! Faults that can be put into the rules one by one, to see whether the simulator finds them. Without the feature `mutations`,
//! which no build that serves has, there are none.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutations"), allow(unreachable_pub))]
pub enum Mutation {
    /// An add does not look for a tombstone.
    TombstoneForgotten,
    /// Changes that are later are not looked for.
    LaterForgotten,
    /// A delete does not take what was changed later.
    DeleteLosesToLater,
    /// A deleted entry with children goes.
    GlueForgotten,
    /// Deleted entries stay when the last child is gone.
    GlueStays,
    /// A move may put an entry below itself.
    CycleAllowed,
    /// Moves that are later are not made again around one that comes late.
    MovesNotRedone,
    /// Of two renames the one that comes last holds.
    RenameOutOfOrder,
    /// Of two entries with one name the one that was made later has it.
    NameToTheLater,
    /// A name that was given up stays free.
    NameStaysFree,
    /// An increment that comes late is not counted.
    IncrementForgotten,
    /// What was done to several numbers before an increment is not looked for.
    EarlierForgotten,
    /// A single value that comes late holds.
    SingleValueOutOfOrder,
    /// A replace that is later spares the values of earlier changes.
    ReplaceSparesValues,
    /// A value that was decided on later is decided on anew.
    LaterValueForgotten,
    /// The first spelling of a value stays.
    FirstSpellingStays,
    /// The value of the RDN may go.
    NameValueForgotten,
    /// A batch behind a hole is taken.
    HoleTaken,
    /// Changes that were seen are taken again.
    RepetitionTaken,
    /// A card that shows more is passed over.
    CardForgotten,
    /// A question that got no answer is waited for.
    FailureForgotten,
    /// A change of which it is known that it is here is missing.
    CoversLess,
    /// A vector may go back.
    VectorGoesBack,
    /// Batches do not name the change before them.
    PrevForgotten,
    /// What was on its way and got lost does not come again.
    ResetForgotten,
    /// A database that was put back is taken to have seen everything.
    UnseenForgotten,
    /// What the other one has not seen is not made again after its state was taken.
    NotMadeAgain,
    /// What waits at one side is not passed on by a comparison.
    WaitingForgotten,
    /// What a side has forgotten is taken to be nothing.
    FloorForgotten,
}

#[cfg(feature = "mutations")]
mod active {
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        static CURRENT: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    impl Mutation {
        /// All of them.
        pub const ALL: [Mutation; 29] = [
            Mutation::TombstoneForgotten,
            Mutation::LaterForgotten,
            Mutation::DeleteLosesToLater,
            Mutation::GlueForgotten,
            Mutation::GlueStays,
            Mutation::CycleAllowed,
            Mutation::MovesNotRedone,
            Mutation::RenameOutOfOrder,
            Mutation::NameToTheLater,
            Mutation::NameStaysFree,
            Mutation::IncrementForgotten,
            Mutation::EarlierForgotten,
            Mutation::SingleValueOutOfOrder,
            Mutation::ReplaceSparesValues,
            Mutation::LaterValueForgotten,
            Mutation::FirstSpellingStays,
            Mutation::NameValueForgotten,
            Mutation::HoleTaken,
            Mutation::RepetitionTaken,
            Mutation::CardForgotten,
            Mutation::FailureForgotten,
            Mutation::CoversLess,
            Mutation::VectorGoesBack,
            Mutation::PrevForgotten,
            Mutation::ResetForgotten,
            Mutation::UnseenForgotten,
            Mutation::NotMadeAgain,
            Mutation::WaitingForgotten,
            Mutation::FloorForgotten,
        ];

        /// Whether it is in what only comparisons by states do.
        pub fn is_of_states(self) -> bool {
            matches!(self, Mutation::NotMadeAgain | Mutation::WaitingForgotten | Mutation::FloorForgotten)
        }
    }

    /// Puts the fault into what this thread runs.
    pub fn set(mutation: Option<Mutation>) {
        CURRENT.set(mutation);
    }

    /// Runs something as it should be.
    pub fn without<R>(run: impl FnOnce() -> R) -> R {
        let before = CURRENT.replace(None);
        let result = run();
        CURRENT.set(before);
        result
    }

    pub(crate) fn is(mutation: Mutation) -> bool {
        CURRENT.get() == Some(mutation)
    }
}

#[cfg(feature = "mutations")]
pub(crate) use active::is;
#[cfg(feature = "mutations")]
pub use active::{set, without};

#[cfg(not(feature = "mutations"))]
pub(crate) const fn is(_: Mutation) -> bool {
    false
}
