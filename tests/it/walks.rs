//! The lifecycle on random walks, beside a model that is small enough to be seen to be right (T1–T15,
//! A1–A7): it knows states, who has approved what is asked for now, and when it ends.

use std::{collections::BTreeSet, num::NonZeroU8};

use exeat::{
    domain::{
        ApproverRole, Ballot, Case, Digest, ExceptionId, ExceptionState, Fingerprint, OnChange,
        Principal, Seat, Span, Stage, Terms, Tier, Timestamp, Vote, Window,
    },
    engine::lifecycle::{Event, open, step},
    testing::{case, noon},
};
use proptest::prelude::*;

/// Whoever decides: an identity, the person who acts under it, and in which role.
const DECIDERS: [(&str, &str, ApproverRole); 5] = [
    ("user:p0", "p0", ApproverRole::ControlOwner),
    ("user:p1", "p1", ApproverRole::ControlOwner),
    ("user:p2", "p2", ApproverRole::RiskOfficer),
    ("user:p3", "p3", ApproverRole::RiskOfficer),
    // The first once more, under another name and in the other role.
    ("user:p4", "p0", ApproverRole::RiskOfficer),
];
const LASTS: Span = Span::from_hours(6);

#[derive(Clone, Copy, Debug)]
enum Move {
    Submit,
    Approve(usize),
    /// Of what it was before it changed.
    ApproveStale(usize),
    Deny(usize),
    /// What it is bound to changes.
    Change,
    Outdate,
    Withdraw,
    Lapse,
    Suspend,
    Pause,
    Resume,
    Revoke,
    Expire,
    Close,
    Wait(i64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let who = || 0..DECIDERS.len();
    let one = prop_oneof![
        4 => Just(Move::Submit),
        12 => who().prop_map(Move::Approve),
        2 => who().prop_map(Move::ApproveStale),
        1 => who().prop_map(Move::Deny),
        2 => Just(Move::Change),
        1 => Just(Move::Outdate),
        1 => Just(Move::Withdraw),
        1 => Just(Move::Lapse),
        2 => Just(Move::Suspend),
        2 => Just(Move::Pause),
        2 => Just(Move::Resume),
        1 => Just(Move::Revoke),
        1 => Just(Move::Expire),
        1 => Just(Move::Close),
        2 => (1_i64..200).prop_map(Move::Wait),
    ];
    proptest::collection::vec(one, 1..60)
}

/// What ought to be.
#[derive(Debug)]
struct Model {
    state: ExceptionState,
    paused: bool,
    /// What it is bound to, in the world and in what is asked.
    world: u32,
    asked: u32,
    /// The persons who approve that, with their roles.
    approved: BTreeSet<(&'static str, ApproverRole)>,
    ends: Option<Timestamp>,
    now: Timestamp,
}

impl Model {
    fn new() -> Self {
        Self {
            state: ExceptionState::Draft,
            paused: false,
            world: 1,
            asked: 0,
            approved: BTreeSet::new(),
            ends: None,
            now: noon(),
        }
    }

    fn is_live(&self) -> bool {
        matches!(
            self.state,
            ExceptionState::Approved | ExceptionState::Suspended
        )
    }

    fn go(&mut self, state: ExceptionState, paused: bool) -> bool {
        (self.state, self.paused) = (state, paused);
        self.approved.clear();
        true
    }

    fn open(&self) -> usize {
        if self.state == ExceptionState::Pending || self.is_live() {
            let roles: BTreeSet<_> = self.approved.iter().map(|(_, role)| *role).collect();
            2 - roles.len()
        } else {
            0
        }
    }

    fn approve(&mut self, who: usize, stale: bool) -> bool {
        use ExceptionState as S;
        let (_, person, role) = DECIDERS[who];
        if !self.is_live() && (self.state != S::Pending || self.asked != self.world) {
            return false;
        }
        if stale {
            return false;
        }
        let before = (self.asked, self.approved.clone());
        if self.asked != self.world {
            // Everybody looks anew.
            self.asked = self.world;
            self.approved.clear();
        }
        let again = self.approved.iter().any(|(known, _)| *known == person);
        self.approved.insert((person, role));
        let all = self.open() == 0;
        let late = self.is_live() && all && self.ends.is_some_and(|end| self.now >= end);
        if again || late {
            (self.asked, self.approved) = before;
            return false;
        }
        if all {
            self.ends = self.ends.or(Some(self.now + LASTS));
            self.go(S::Approved, false);
        }
        true
    }

    /// Whether it happens.
    fn step(&mut self, step: Move) -> bool {
        use ExceptionState as S;
        let over = self.ends.is_some_and(|end| self.now >= end);
        match (step, self.state) {
            (Move::Submit, S::Draft) => {
                self.asked = self.world;
                self.go(S::Pending, false)
            }
            (Move::Approve(who), _) => self.approve(who, false),
            (Move::ApproveStale(who), _) => self.approve(who, true),
            (Move::Deny(_), S::Pending) if self.asked == self.world => self.go(S::Denied, false),
            (Move::Outdate, S::Pending) => self.go(S::Draft, false),
            (Move::Withdraw, S::Draft | S::Pending) => self.go(S::Withdrawn, false),
            (Move::Lapse, S::Pending) => self.go(S::Lapsed, false),
            (Move::Suspend, S::Approved) => self.go(S::Suspended, false),
            (Move::Suspend, S::Suspended) if self.paused => self.go(S::Suspended, false),
            (Move::Pause, S::Approved) => self.go(S::Suspended, true),
            (Move::Resume, S::Suspended) if self.paused => self.go(S::Approved, false),
            (Move::Revoke, S::Approved | S::Suspended) => self.go(S::Revoked, false),
            (Move::Expire, S::Approved | S::Suspended) if over => self.go(S::Expired, false),
            (Move::Close, S::Approved | S::Suspended) => self.go(S::Closed, false),
            _ => false,
        }
    }
}

fn digest(of: u32) -> Digest {
    Digest::parse(&format!("sha256:{of}")).unwrap()
}

fn terms(of: u32, now: Timestamp) -> Terms {
    let seat = |role| Seat {
        stage: Stage {
            role,
            quorum: NonZeroU8::MIN,
        },
        domain: None,
        step_up: false,
    };
    Terms {
        digest: digest(of),
        submitted: now,
        tier: Tier::High,
        inputs: vec![],
        seats: vec![
            seat(ApproverRole::ControlOwner),
            seat(ApproverRole::RiskOfficer),
        ],
        after: vec![],
        review_evidence: false,
        deadline: None,
        controls: vec![],
        meanings: vec![],
        bound: Fingerprint::default(),
        revalidation: None,
        on_change: OnChange::Suspend,
        lineage: ExceptionId::parse("EX-1").unwrap(),
        renewal_count: 0,
        latest: None,
        owners: vec![],
        policies: vec![],
    }
}

fn vote(who: usize, approves: bool, of: u32, model: &Model) -> Event {
    let (identity, person, role) = DECIDERS[who];
    let vote = Vote {
        approver: Principal::parse(identity).unwrap(),
        person: person.into(),
        role,
        domain: None,
        approves,
        comment: "looked at all of it".into(),
        reviewed: vec![],
        digest: digest(of),
        time: model.now,
        viewed: None,
        assurance: None,
        trace: None,
        ballot: if model.state == ExceptionState::Pending {
            Ballot::Initial
        } else {
            Ballot::Revalidation
        },
    };
    Event::Vote(vote, terms(model.world, model.now))
}

fn event(step: Move, model: &Model) -> Option<Event> {
    Some(match step {
        Move::Submit => Event::Submit(terms(model.world, model.now)),
        Move::Approve(who) => vote(who, true, model.world, model),
        Move::ApproveStale(who) => vote(who, true, model.world - 1, model),
        Move::Deny(who) => vote(who, false, model.world, model),
        Move::Outdate => Event::Outdate("it changed".into()),
        Move::Withdraw => Event::Withdraw,
        Move::Lapse => Event::Lapse,
        Move::Suspend => Event::Suspend("odd".into()),
        Move::Pause => Event::Pause("gate".into()),
        Move::Resume => Event::Resume("gone".into()),
        Move::Revoke => Event::Revoke("gone".into()),
        Move::Expire => Event::Expire,
        Move::Close => Event::Close("done".into()),
        Move::Change | Move::Wait(_) => return None,
    })
}

fn draft() -> Case {
    let mut draft = case("EX-1", &["CT-A"], "agent");
    draft.request.window = Window::OnApproval { duration: LASTS };
    draft
}

proptest! {
    #[test]
    fn the_lifecycle_is_its_model_on_every_walk(walk in moves()) {
        let (mut model, mut case) = (Model::new(), draft());
        let person = |vote: &Vote| Some(vote.person.clone());
        for step_ in walk {
            // No two things happen at one instant.
            model.now = model.now + Span::from_secs(1);
            let Some(event) = event(step_, &model) else {
                match step_ {
                    Move::Change => model.world += 1,
                    Move::Wait(minutes) => model.now = model.now + Span::from_secs(minutes * 60),
                    _ => {}
                }
                continue;
            };
            let done = step(&case, event, model.now, person);
            let wanted = model.step(step_);
            prop_assert_eq!(done.is_ok(), wanted, "{:?} of {:?}: {:?}", step_, model, done);
            let Ok(next) = done else {
                continue;
            };
            let ended = |case: &Case| case.granted.map(|granted| granted.expire);
            if let (Some(before), Some(after)) = (ended(&case), ended(&next)) {
                prop_assert!(after <= before, "nothing extends it");
            }
            case = next;
            prop_assert_eq!(case.state, model.state, "{:?}", step_);
            prop_assert_eq!(case.paused.is_some(), model.paused, "{:?}", step_);
            prop_assert_eq!(ended(&case), model.ends, "{:?}", step_);
            prop_assert_eq!(open(&case, &person).len(), model.open(), "{:?} {:?}", step_, model);
            if case.state.is_final() {
                prop_assert_eq!(model.open(), 0);
            }
        }
    }
}
