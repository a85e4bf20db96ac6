//! Incidents, and what an override during one owes afterwards.

use super::{DomainId, IncidentId, Principal, Seat, Span, Timestamp};

/// How long people have to look at an override that one of them let happen (T9).
pub const LOOK_BACK: Span = Span::from_hours(24);
/// How long its owner has to write down how it was undone (T9).
pub const CLOSE: Span = Span::from_hours(72);

/// Something that went wrong and is being dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Its id where it is dealt with.
    pub id: IncidentId,
    /// The domain it happens in; those below are part of it.
    pub domain: DomainId,
    /// What people call it.
    pub title: Box<str>,
    /// Who said that it began.
    pub opened_by: Box<str>,
    /// When.
    pub opened: Timestamp,
    /// Who said that it is over, and when; nothing while it is not.
    pub resolved: Option<(Box<str>, Timestamp)>,
}

impl Incident {
    /// Whether it goes on.
    pub fn is_open(&self) -> bool {
        self.resolved.is_none()
    }
}

/// How an override was undone (R37).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closure {
    /// Who wrote it.
    pub by: Principal,
    /// When.
    pub time: Timestamp,
    /// What was relaxed, and what was done with it.
    pub relaxed: Box<str>,
    /// How things were put back.
    pub restored: Box<str>,
    /// What is learnt from it.
    pub lessons: Box<str>,
}

/// What an override owes once it has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// Who has to look at it afterwards.
    pub seats: Vec<Seat>,
    /// Until when.
    pub look_due: Timestamp,
    /// What they said, and when; nothing until they have.
    pub looked: Option<(bool, Timestamp)>,
    /// Until when it is to be written down how it was undone.
    pub closure_due: Timestamp,
    /// How it was.
    pub closure: Option<Closure>,
}

impl Debt {
    /// What is overdue at `now`, in words; nothing if nothing is.
    pub fn overdue(&self, now: Timestamp) -> Option<&'static str> {
        if self.looked.is_none() && now >= self.look_due {
            return Some("its retroactive approval");
        }
        (self.closure.is_none() && now >= self.closure_due).then_some("its closure record")
    }
}
