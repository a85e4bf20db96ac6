//! Who people are, which groups they are in, and what they deal with and decide about.

use std::collections::{BTreeSet, HashMap};

use crate::domain::{
    Group, GroupId, Incident, IncidentId, Member, Person, Principal, Proposal, Timestamp,
};

/// People, groups, incidents and proposals.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    pub(super) people: HashMap<Principal, Person>,
    pub(super) groups: HashMap<GroupId, Group>,
    pub(super) incidents: HashMap<IncidentId, Incident>,
    pub(super) proposals: HashMap<Box<str>, Proposal>,
}

impl Directory {
    /// Whether `who` is known and still with us; who is not known is not.
    pub fn is_active(&self, who: &Principal) -> bool {
        self.people.get(who).is_some_and(|person| person.active)
    }

    /// Until when it is good that `who` was confirmed to be with us; nothing where nobody keeps
    /// account of it.
    pub fn attested_until(&self, who: &Principal) -> Option<Timestamp> {
        self.people.get(who).and_then(Person::attested_until)
    }

    /// Whether `who` was confirmed to be with us lately, where anybody keeps account of it.
    pub fn is_attested(&self, who: &Principal, now: Timestamp) -> bool {
        self.people
            .get(who)
            .is_none_or(|person| person.is_attested(now))
    }

    /// Whether `who` is known, and with us no more.
    pub fn has_left(&self, who: &Principal) -> bool {
        self.people.get(who).is_some_and(|person| !person.active)
    }

    /// Which person acts as `who`: the same text for all identities of one.
    pub fn person<'a>(&'a self, who: &'a Principal) -> &'a str {
        let known = self.people.get(who);
        known
            .and_then(|person| person.person_id.as_deref())
            .unwrap_or(who.as_str())
    }

    /// The same, of who is called so.
    pub fn person_called<'a>(&'a self, who: &'a str) -> &'a str {
        let known = Principal::parse(who).ok();
        let known = known.and_then(|who| self.people.get(&who));
        known
            .and_then(|person| person.person_id.as_deref())
            .unwrap_or(who)
    }

    /// The incident called `id`.
    pub fn incident(&self, id: &str) -> Option<&Incident> {
        self.incidents.get(id)
    }

    /// The proposal called `id`.
    pub fn proposal(&self, id: &str) -> Option<&Proposal> {
        self.proposals.get(id)
    }

    /// Every proposal there is or was.
    pub fn proposals(&self) -> impl Iterator<Item = &Proposal> {
        self.proposals.values()
    }

    /// Every incident there is or was.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// The group called `id`.
    pub fn group(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    /// Everybody in a group, directly or through others.
    pub fn members<'a>(&'a self, id: &'a GroupId) -> BTreeSet<&'a Principal> {
        let (mut seen, mut open) = (BTreeSet::from([id]), vec![id]);
        let mut members = BTreeSet::new();
        while let Some(id) = open.pop() {
            let known = self.groups.get(id).into_iter();
            for member in known.flat_map(|group| &group.members) {
                match member {
                    Member::Person(who) => drop(members.insert(who)),
                    Member::Group(id) if seen.insert(id) => open.push(id),
                    Member::Group(_) => {}
                }
            }
        }
        members
    }
}
