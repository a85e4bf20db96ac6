//! Who may decide about an exception: distinct persons, and never those it is for (A1–A3).

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    ApproverRole, DomainId, Principal, PrincipalKind, Request, Seat, Target, Tier,
};

use super::{Directory, Snapshot};

/// Who has a seat's role in its domain: its owner, or whom the nearest domain names that says who
/// has it for all below.
fn holders<'a>(snapshot: &'a Snapshot, seat: &Seat) -> BTreeSet<&'a Principal> {
    let above = seat.domain.iter();
    let mut domains = above.flat_map(|id| snapshot.domains_above(id));
    let role = seat.stage.role;
    if role == ApproverRole::DomainOwner {
        return domains
            .next()
            .map(|domain| &domain.owner)
            .into_iter()
            .collect();
    }
    let named = |domain: &&'a crate::domain::Domain| {
        domain.approvers.iter().any(|(known, _)| *known == role)
    };
    let groups = domains.find(named).into_iter().flat_map(|domain| {
        let of = domain.approvers.iter();
        of.filter(|(known, _)| *known == role)
            .map(|(_, group)| group)
    });
    groups
        .flat_map(|group| snapshot.directory().members(group))
        .collect()
}

/// The persons who may fill the seats of one request.
#[derive(Debug)]
pub struct Electorate<'a> {
    snapshot: &'a Snapshot,
    request: &'a Request,
    barred: BTreeSet<&'a str>,
}

impl<'a> Electorate<'a> {
    /// For what `requester` asks in `request`, at `tier`.
    pub fn new(
        snapshot: &'a Snapshot,
        requester: &'a Principal,
        request: &'a Request,
        tier: Tier,
    ) -> Self {
        let directory = snapshot.directory();
        let behalf = request.on_behalf_of.as_ref();
        let mut barred: BTreeSet<&str> = [requester, &request.owner]
            .into_iter()
            .chain(behalf)
            .map(|who| directory.person(who))
            .collect();
        // For whom an agent or a service says that it asks nobody confirms: neither who answers for
        // it nor whom it serves decides.
        let speaks = requester.kind() != PrincipalKind::Human;
        let agent = super::parties::agent_called(requester, snapshot).filter(|_| speaks);
        let served = super::parties::scoped(snapshot, request);
        // During an incident whoever is on call begins, and others look at it afterwards as at HIGH.
        let served = served.filter(|_| (speaks && tier != Tier::Incident) || tier == Tier::High);
        let owners = agent.into_iter().chain(served);
        let owners = owners.filter_map(|subject| super::parties::owner_of(subject));
        barred.extend(owners.map(|owner| directory.person_called(owner)));
        Self {
            snapshot,
            request,
            barred,
        }
    }

    fn directory(&self) -> &'a Directory {
        self.snapshot.directory()
    }

    /// Whether `who` may fill `seat`.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn admit(&self, who: &Principal, seat: &Seat) -> Result<(), String> {
        self.may(who)?;
        if self.holds(who, seat) {
            return Ok(());
        }
        let domain = seat.domain.as_ref().map_or("no domain", DomainId::as_str);
        Err(format!("`{who}` is not {} for {domain}", seat.stage.role))
    }

    /// Whether `who` may fill a seat whose role they have.
    fn may(&self, who: &Principal) -> Result<(), String> {
        if who.kind() != PrincipalKind::Human {
            return Err(format!("`{who}` is no person, and only people decide"));
        }
        if !self.directory().is_active(who) {
            return Err(format!(
                "`{who}` is not an active person of the directory; apply a Person manifest"
            ));
        }
        let revoked = Target::Principal(who.clone());
        if self.snapshot.removed().revokes(&revoked) {
            return Err(format!("`{who}` was revoked"));
        }
        if self.barred.contains(self.directory().person(who)) {
            return Err(format!(
                "`{who}` asked for it, answers for it or owns what it is for, and does not decide about it"
            ));
        }
        Ok(())
    }

    /// Whether `who` is an active person who has a seat's role, of whatever there may be to decide.
    pub fn serves(snapshot: &Snapshot, who: &Principal, seat: &Seat) -> bool {
        let directory = snapshot.directory();
        let revoked = snapshot.removed().revokes(&Target::Principal(who.clone()));
        directory.is_active(who) && !revoked && holders(snapshot, seat).contains(who)
    }

    /// Whether `who` is active and has the seat's role, whatever else stands against them.
    pub(super) fn has(&self, who: &Principal, seat: &Seat) -> bool {
        self.directory().is_active(who) && self.holds(who, seat)
    }

    /// Whether `who` has the seat's role.
    fn holds(&self, who: &Principal, seat: &Seat) -> bool {
        self.holders(seat).contains(who)
    }

    fn holders(&self, seat: &Seat) -> BTreeSet<&'a Principal> {
        let mut holders = holders(self.snapshot, seat);
        if seat.stage.role == ApproverRole::ControlOwner {
            holders.extend(self.owner_of_all());
        }
        holders
    }

    /// Who owns every control that is deviated from.
    fn owner_of_all(&self) -> Option<&'a Principal> {
        let controls = self.request.controls.iter();
        let mut owners = controls.map(|id| self.snapshot.control(id).map(|control| &control.owner));
        let first = owners.next()??;
        owners.all(|owner| owner == Some(first)).then_some(first)
    }

    /// Which of the open seats `who` is to take: one that leaves the others to others.
    ///
    /// # Errors
    ///
    /// Why they may take none; nothing where none is open.
    pub fn seat<'s>(&self, who: &Principal, open: &[&'s Seat]) -> Result<&'s Seat, Option<String>> {
        let mut why = None;
        let mut fits = Vec::new();
        for (at, seat) in open.iter().enumerate() {
            match self.admit(who, seat) {
                Ok(()) => fits.push((at, *seat)),
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        let person = self.directory().person(who);
        let rest = |taken: usize| {
            let places = open.iter().enumerate().map(|(at, seat)| {
                let quorum = seat.stage.quorum.get();
                let mut persons = self.persons(seat);
                persons.remove(person);
                (quorum.saturating_sub(u8::from(at == taken)), persons)
            });
            satisfiable(&places.collect::<Vec<_>>())
        };
        let best = fits.iter().find(|(at, _)| rest(*at)).or(fits.first());
        best.map(|(_, seat)| *seat).ok_or(why)
    }

    /// The persons who could fill a seat.
    pub fn persons(&self, seat: &Seat) -> BTreeSet<&'a str> {
        let holders = self.holders(seat).into_iter();
        holders
            .filter(|who| self.may(who).is_ok())
            .map(|who| self.directory().person(who))
            .collect()
    }
}

/// Whether distinct persons can fill all seats, each with as many as it wants (E: quorum).
pub fn satisfiable(seats: &[(u8, BTreeSet<&str>)]) -> bool {
    // One place a person: augmenting paths over a handful of seats.
    let places: Vec<&BTreeSet<&str>> = seats
        .iter()
        .flat_map(|(quorum, persons)| std::iter::repeat_n(persons, usize::from(*quorum)))
        .collect();
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    (0..places.len()).all(|place| seated(place, &places, &mut taken, &mut BTreeSet::new()))
}

fn seated<'a>(
    place: usize,
    places: &[&BTreeSet<&'a str>],
    taken: &mut BTreeMap<&'a str, usize>,
    asked: &mut BTreeSet<&'a str>,
) -> bool {
    let Some(persons) = places.get(place) else {
        return false;
    };
    for person in *persons {
        if !asked.insert(person) {
            continue;
        }
        let free = match taken.get(person).copied() {
            None => true,
            // Whoever sits there may sit elsewhere.
            Some(other) => seated(other, places, taken, asked),
        };
        if free {
            taken.insert(person, place);
            return true;
        }
    }
    false
}
