//! People, and groups of them by id.

use super::{GroupId, Principal};

/// A person as the directory knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The identity they act under.
    pub id: Principal,
    /// Who they are, whichever identity they use: two identities with one of these are one person.
    pub person_id: Option<Box<str>>,
    /// Whether they are still with us: who is not owns nothing and approves nothing.
    pub active: bool,
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
