//! What somebody saw of a subject, beside what is governed of it (governance §6.2, U5).

use super::{Digest, Facet, SubjectId, Timestamp};

/// A facet that differs from what is governed, as a caller, hook or proxy saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Whose facet.
    pub subject: SubjectId,
    /// Which.
    pub facet: Facet,
    /// What it was.
    pub digest: Digest,
    /// When it was first seen so.
    pub first: Timestamp,
    /// When it was last seen so.
    pub last: Timestamp,
}
