//! The lease and the revocation, exhaustively: one registry, two sidecars, every order of messages
//! that are lost, late or doubled, and every crash, within small bounds.
//!
//! The state machines are the program's own; what is modelled is the network, the disks and time.

use std::collections::{BTreeSet, VecDeque};

use exeat::{
    domain::{Era, Head, Lease, LogId, Span, Timestamp},
    engine::{
        Attendance, bound,
        follow::{Follower, Heartbeat, Step, removal_steps},
        planted::{Bug, plant},
    },
    testing::noon,
};
use stateright::{Checker, HasDiscoveries, Model, Property};

const SIDECARS: usize = 2;
const LEASE: Span = Span::from_secs(2);
/// The seconds at which something happens: at first, within a lease taken then, and when nobody
/// may honour what was revoked first.
const TIMES: [u8; 3] = [0, 1, 6];
/// Nonces a sidecar sends from a start on.
const NONCES: u8 = 1;
/// Who crashes, once: what one may do the other may as well.
const CRASHES: usize = 0;
const NAMES: [&str; SIDECARS] = ["a", "b"];

fn era() -> Era {
    Era {
        log: LogId([1; 16]),
        epoch: 1,
    }
}

/// Something on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Ping(usize, u8),
    Beat(usize, Heartbeat),
    Removal(usize),
    Acknowledged(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sidecar {
    follower: Follower,
    /// The removal, in force and on disk.
    removed: bool,
    durable: bool,
    steps: VecDeque<Step>,
    asked: u8,
    crashed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    /// When the one exception was revoked.
    revoked: Option<u8>,
    attendance: Attendance,
    restarted: bool,
    sidecars: [Sidecar; SIDECARS],
    network: BTreeSet<Message>,
    /// Who has acknowledged, ever.
    acknowledged: [bool; SIDECARS],
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Ask(usize),
    Revoke,
    /// A message arrives; it may arrive again.
    Deliver(Message, bool),
    Step(usize),
    Crash(usize),
    Restart,
}

struct Protocol {
    planted: Option<Bug>,
}

impl World {
    fn time(&self) -> Span {
        Span::from_secs(i64::from(self.now))
    }

    /// Elapsed time at a sidecar: no two machines started at once.
    fn elapsed(&self, at: usize) -> Span {
        Span::from_secs(i64::from(self.now) + 100 * (i64::try_from(at).unwrap() + 1))
    }

    fn wall(&self) -> Timestamp {
        noon() + self.time()
    }

    fn sequence(&self) -> u64 {
        u64::from(self.revoked.is_some())
    }

    /// Whether a decision that begins now honours the exception.
    fn honours(&self, at: usize) -> bool {
        let sidecar = &self.sidecars[at];
        let lease = sidecar.follower.contact().lease(self.elapsed(at));
        let Lease::Follows { removals, .. } = lease else {
            return true;
        };
        !sidecar.removed && removals < LEASE
    }

    fn deliver(&mut self, message: &Message) {
        match message {
            Message::Ping(from, nonce) => {
                self.attendance.answer(NAMES[*from], self.time());
                let beat = Heartbeat {
                    era: era(),
                    head: Head {
                        revision: 0,
                        sequence: self.sequence(),
                    },
                    time: self.wall(),
                    nonce: [*nonce; 16],
                    ledger: None,
                };
                self.network.insert(Message::Beat(*from, beat));
            }
            Message::Beat(to, beat) => {
                let elapsed = self.elapsed(*to);
                // What it does not believe does not count.
                let _ = self.sidecars[*to].follower.hear(beat, elapsed);
            }
            Message::Removal(to) => {
                let sidecar = &mut self.sidecars[*to];
                sidecar.removed = true;
                if sidecar.follower.removals(era(), 0, 1).is_ok() && sidecar.steps.is_empty() {
                    sidecar.steps = removal_steps().into();
                }
            }
            Message::Acknowledged(from) => {
                self.attendance.drained(NAMES[*from], 1);
                self.acknowledged[*from] = true;
            }
        }
    }

    /// Of one sidecar each step by itself, of the other all of them: what they do to each other
    /// goes by the registry alone.
    fn steps(&mut self, at: usize) {
        self.step(at);
        while at != CRASHES && !self.sidecars[at].steps.is_empty() {
            self.step(at);
        }
    }

    fn step(&mut self, at: usize) {
        let sidecar = &mut self.sidecars[at];
        match sidecar.steps.pop_front() {
            Some(Step::Expose) => sidecar.follower.expose_removals(1),
            Some(Step::Persist) => sidecar.durable = true,
            Some(Step::Acknowledge) => {
                sidecar.follower.acknowledge_removals(1);
                self.network.insert(Message::Acknowledged(at));
            }
            Some(Step::Drain) | None => {}
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let sidecar = || Sidecar {
            follower: Follower::new(Some(era()), Head::default()),
            removed: false,
            durable: false,
            steps: VecDeque::new(),
            asked: 0,
            crashed: false,
        };
        vec![World {
            now: 0,
            revoked: None,
            attendance: Attendance::new(Span::ZERO),
            restarted: false,
            sidecars: [sidecar(), sidecar()],
            network: BTreeSet::new(),
            acknowledged: [false; SIDECARS],
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < TIMES[TIMES.len() - 1] {
            actions.push(Action::Tick);
        }
        if world.revoked.is_none() && world.now == 0 {
            actions.push(Action::Revoke);
        }
        if !world.restarted && world.revoked.is_some() {
            actions.push(Action::Restart);
        }
        for (at, sidecar) in world.sidecars.iter().enumerate() {
            if sidecar.asked < NONCES {
                actions.push(Action::Ask(at));
            }
            if !sidecar.steps.is_empty() {
                actions.push(Action::Step(at));
            }
            if at == CRASHES && !sidecar.crashed {
                actions.push(Action::Crash(at));
            }
        }
        for message in &world.network {
            actions.push(Action::Deliver(message.clone(), false));
            // An answer that is heard twice is what a replay is.
            if matches!(message, Message::Beat(CRASHES, _)) {
                actions.push(Action::Deliver(message.clone(), true));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        // Checkers run in threads of their own.
        plant(self.planted);
        let mut world = world.clone();
        match action {
            Action::Tick => {
                world.now = TIMES.into_iter().find(|time| *time > world.now)?;
            }
            Action::Ask(at) => {
                let (elapsed, wall) = (world.elapsed(at), world.wall());
                let sidecar = &mut world.sidecars[at];
                sidecar.asked += 1;
                let nonce = sidecar.asked + if sidecar.crashed { NONCES } else { 0 };
                sidecar.follower.ask([nonce; 16], elapsed, wall);
                world.network.insert(Message::Ping(at, nonce));
            }
            Action::Revoke => {
                world.revoked = Some(world.now);
                for at in 0..SIDECARS {
                    world.network.insert(Message::Removal(at));
                }
            }
            Action::Deliver(message, again) => {
                if !again {
                    world.network.remove(&message);
                }
                world.deliver(&message);
            }
            Action::Step(at) => world.steps(at),
            Action::Crash(at) => {
                let sidecar = &mut world.sidecars[at];
                let held = Head {
                    revision: 0,
                    sequence: u64::from(sidecar.durable),
                };
                sidecar.follower = Follower::new(Some(era()), held);
                sidecar.removed = sidecar.durable;
                sidecar.steps.clear();
                sidecar.asked = 0;
                sidecar.crashed = true;
            }
            Action::Restart => {
                world.restarted = true;
                world.attendance = Attendance::new(world.time());
                for name in NAMES {
                    world.attendance.expect(name, true);
                }
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "S3: nobody honours it beyond the bound",
                |_, world: &World| {
                    let Some(revoked) = world.revoked else {
                        return true;
                    };
                    let since = Span::from_secs(i64::from(world.now - revoked));
                    since <= bound(LEASE) || (0..SIDECARS).all(|at| !world.honours(at))
                },
            ),
            Property::always(
                "S2, S4: who acknowledged has it for good",
                |_, world: &World| {
                    (0..SIDECARS).all(|at| {
                        !world.acknowledged[at]
                            || (world.sidecars[at].durable && !world.honours(at))
                    })
                },
            ),
            Property::always("a receipt that is complete is true", |_, world: &World| {
                if world.revoked.is_none() {
                    return true;
                }
                let receipt = world.attendance.receipt(1, Some(LEASE), world.time());
                !receipt.complete(world.time()) || (0..SIDECARS).all(|at| !world.honours(at))
            }),
            Property::always(
                "S7: no anchor ahead of what is in force",
                |_, world: &World| {
                    // Whoever was heard to be current after the revocation has it.
                    world.sidecars.iter().enumerate().all(|(at, sidecar)| {
                        let Some(revoked) = world.revoked else {
                            return true;
                        };
                        let anchor = sidecar.follower.contact().anchor();
                        let committed = Span::from_secs(
                            i64::from(revoked) + 100 * (i64::try_from(at).unwrap() + 1),
                        );
                        sidecar.removed || anchor.is_none_or(|anchor| anchor <= committed)
                    })
                },
            ),
            Property::sometimes("it is honoured", |_, world: &World| world.honours(0)),
            Property::sometimes("it is honoured after it was revoked", |_, world: &World| {
                world.revoked.is_some_and(|revoked| revoked < world.now) && world.honours(1)
            }),
            Property::sometimes("both have acknowledged", |_, world: &World| {
                world.acknowledged == [true; SIDECARS]
            }),
            Property::sometimes("a receipt completes by time alone", |_, world: &World| {
                let receipt = world.attendance.receipt(1, Some(LEASE), world.time());
                world.revoked.is_some() && receipt.lapsed == SIDECARS
            }),
        ]
    }
}

#[test]
fn every_order_of_events_keeps_the_invariants() {
    let checker = Protocol { planted: None }
        .checker()
        .threads(2)
        .spawn_dfs()
        .join();
    println!(
        "{} states, {} of them different, {} steps deep",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
    assert!(
        checker.is_done() && checker.unique_state_count() > 1_000_000,
        "the bounds are too small to mean anything"
    );
}

#[test]
fn the_model_finds_what_is_planted() {
    for (bug, property) in [
        (
            Bug::AnchorAtReceipt,
            "S7: no anchor ahead of what is in force",
        ),
        (
            Bug::HeartbeatAhead,
            "S7: no anchor ahead of what is in force",
        ),
        (
            Bug::ReplayAccepted,
            "S7: no anchor ahead of what is in force",
        ),
        (
            Bug::AckBeforeDurable,
            "S2, S4: who acknowledged has it for good",
        ),
        (Bug::NoGrace, "a receipt that is complete is true"),
    ] {
        let model = Protocol { planted: Some(bug) };
        let checker = model
            .checker()
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let found: Vec<_> = checker.discoveries().into_keys().collect();
        println!(
            "{:<50} found as {found:?} after {} states",
            bug.name(),
            checker.state_count()
        );
        assert!(found.contains(&property), "{}: {found:?}", bug.name());
    }
}
