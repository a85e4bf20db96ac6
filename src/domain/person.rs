//! People, and groups of them by id.

use super::{GroupId, Principal, Span, Timestamp};

/// How long it is good for that somebody was confirmed to be with us (R15).
const ATTESTED_FOR: Span = Span::from_days(90);
/// How far ahead of us the clock may be of whoever confirms it.
const AHEAD: Span = Span::from_secs(300);

/// A person as the directory knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The identity they act under.
    pub id: Principal,
    /// Who they are, whichever identity they use: two identities with one of these are one person.
    pub person_id: Option<Box<str>>,
    /// Whether they are still with us: who is not owns nothing and approves nothing.
    pub active: bool,
    /// When that was last confirmed, where anybody keeps account of it; until
    /// [`attested_until`](Self::attested_until) they may own exceptions.
    pub attest_time: Option<Timestamp>,
}

impl Person {
    /// Until when it is good that they were confirmed to be with us; without end where nobody keeps
    /// account of it.
    pub fn attested_until(&self) -> Option<Timestamp> {
        self.attest_time.map(|attested| attested + ATTESTED_FOR)
    }

    /// Whether it is good at `now`; what is confirmed only later is not yet.
    pub fn is_attested(&self, now: Timestamp) -> bool {
        self.attest_time
            .is_none_or(|attested| attested <= now + AHEAD && now < attested + ATTESTED_FOR)
    }
}

/// Some people, by an id and never by a name that two groups may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Who is in it.
    pub members: Vec<Member>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// A person.
    Person(Principal),
    /// Everybody in another group.
    Group(GroupId),
}
