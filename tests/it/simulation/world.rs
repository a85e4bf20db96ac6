//! Everything at once: events in the order of true time, drawn from one seed.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use exeat::{
    domain::{
        Act, Era, Exception, Head, Kind, Name, Span, Subject, SubjectId, Target, Tier, TierRules,
        Timestamp,
    },
    engine::{
        attendance::Entered,
        follow::{Beginning, Heartbeat, Nonce, Refused, Step, Take, delta_steps, removal_steps},
        planted::{Bug, planted},
    },
    registry::Interval,
    testing::{exception, noon, subject},
};

use super::{
    disk::{Batch, Objects},
    oracle::Oracle,
    registry::{Registry, sum},
    sidecar::{Job, Sidecar},
};

const MS: i64 = 1_000;
const S: i64 = 1_000_000;
/// How long a world lives; the last part is without faults.
const LIFE: i64 = 600 * S;
const CALM: i64 = 60 * S;
const PING: i64 = 5 * S;

/// A small, seeded source of choices.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: i64) -> i64 {
        i64::try_from((self.next() >> 11) % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    fn often(&mut self, of_a_thousand: i64) -> bool {
        self.below(1_000) < of_a_thousand
    }
}

/// A message on its way to a sidecar.
#[derive(Clone, Debug)]
enum Message {
    Welcome(Beginning),
    Heartbeat(Heartbeat),
    Removals(Batch),
    Delta(Era, Interval),
    Snapshot(Era, u64, Objects),
    Fenced,
}

#[derive(Clone, Debug)]
enum Event {
    Ping(usize, u64),
    Connect(usize, u64),
    /// A nonce arrives, with what the sidecar says it holds.
    Nonce(usize, u64, Nonce, Era, Head),
    /// The registry has read its head, and answers.
    Answer(usize, u64, Nonce),
    /// A sidecar asks for what it misses: from a revision, or everything.
    Watch(usize, u64, Option<u64>, u64),
    GiveBack(usize, Vec<Batch>),
    Down(usize, u64, Message),
    /// A write is durable.
    Persisted(usize, u64, usize),
    Decide(usize),
    Recheck(usize, u64, usize, i64, u64),
    Decided(usize, u64, usize, i64, u64),
    Operate,
    Fault,
    StartSidecar(usize),
    StartRegistry,
}

/// Which faults a seed has, and how often.
#[derive(Clone, Debug)]
struct Faults {
    loss: i64,
    duplicate: i64,
    hold: i64,
    crash_sidecar: bool,
    crash_registry: bool,
    restore: bool,
    suspend: bool,
    wall: bool,
    cut: bool,
    replay: bool,
    one_lane: bool,
    freeze: bool,
    slow_reader: bool,
    twin: bool,
    slow_disk: bool,
    /// Whether sums are compared, which hides what the other checks should find as well.
    sums: bool,
}

/// How often things happened that a run is worth nothing without.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) decisions: u64,
    pub(crate) honoured: u64,
    pub(crate) lapsed: u64,
    pub(crate) revoked: u64,
    pub(crate) crashes: u64,
    pub(crate) restores: u64,
    pub(crate) resyncs: u64,
    pub(crate) refused: u64,
    pub(crate) pending: u64,
    pub(crate) bounded: u64,
    pub(crate) suspended: u64,
    pub(crate) given_back: u64,
    pub(crate) expired: u64,
    pub(crate) withdrawn: u64,
    pub(crate) fenced: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) held: u64,
    pub(crate) frozen: u64,
    pub(crate) slow: u64,
    pub(crate) replayed: u64,
    pub(crate) stepped: u64,
    pub(crate) cut_both: u64,
    pub(crate) cut_one_way: u64,
    pub(crate) cut_one_lane: u64,
}

impl Seen {
    fn all(&mut self) -> [&mut u64; 25] {
        [
            &mut self.decisions,
            &mut self.honoured,
            &mut self.lapsed,
            &mut self.revoked,
            &mut self.crashes,
            &mut self.restores,
            &mut self.resyncs,
            &mut self.refused,
            &mut self.pending,
            &mut self.bounded,
            &mut self.suspended,
            &mut self.given_back,
            &mut self.expired,
            &mut self.withdrawn,
            &mut self.fenced,
            &mut self.lost,
            &mut self.duplicated,
            &mut self.held,
            &mut self.frozen,
            &mut self.slow,
            &mut self.replayed,
            &mut self.stepped,
            &mut self.cut_both,
            &mut self.cut_one_way,
            &mut self.cut_one_lane,
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for (mine, theirs) in self.all().into_iter().zip(other.all()) {
            *mine += *theirs;
        }
    }

    pub(crate) fn every_kind(&self) -> bool {
        self.clone().all().into_iter().all(|count| *count > 0)
    }
}

pub(crate) struct World {
    now: i64,
    dice: Dice,
    faults: Faults,
    events: BinaryHeap<Reverse<(i64, u64)>>,
    bodies: std::collections::HashMap<u64, Event>,
    next: u64,
    registry: Registry,
    sidecars: Vec<Sidecar>,
    /// What the registry last sent to each: state and removals.
    sent: Vec<Head>,
    oracle: Oracle,
    subject: Subject,
    exceptions: Vec<Exception>,
    recorded: Vec<(usize, Message)>,
    /// Until when nothing passes to and from a sidecar, by direction and lane.
    cut: Vec<[[i64; 2]; 2]>,
    /// Until when what is sent to a sidecar is held, by lane.
    frozen: Vec<[i64; 2]>,
    /// Until when a sidecar reads slowly.
    slow: Vec<i64>,
    trace: DefaultHasher,
    seen: Seen,
    highest: u64,
    told: Vec<u64>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            dice.next();
        }
        let faults = Faults {
            loss: if dice.often(600) { dice.below(300) } else { 0 },
            duplicate: if dice.often(500) { dice.below(300) } else { 0 },
            hold: if dice.often(500) { dice.below(200) } else { 0 },
            crash_sidecar: dice.often(600),
            crash_registry: dice.often(400),
            restore: dice.often(250),
            suspend: dice.often(400),
            wall: dice.often(400),
            cut: dice.often(600),
            replay: dice.often(400),
            one_lane: dice.often(400),
            freeze: dice.often(400),
            slow_reader: dice.often(400),
            twin: dice.often(400),
            slow_disk: dice.often(400),
            sums: dice.often(500),
        };
        let count = 2 + usize::try_from(dice.below(3)).unwrap();
        let sidecars: Vec<_> = (0..count)
            .map(|at| {
                let drift = dice.below(901) - 450;
                let origin = dice.below(1_000_000) * S;
                let off = dice.below(200) * S - 100 * S;
                Sidecar::new(format!("s{at}"), at, drift, origin, off)
            })
            .collect();
        let mut agent = subject("agent");
        for (_, state) in &mut agent.facets {
            state.observed_time = noon();
        }
        let kept = 2 + usize::try_from(dice.below(30)).unwrap();
        let mut world = Self {
            now: 0,
            dice,
            faults,
            events: BinaryHeap::new(),
            bodies: std::collections::HashMap::new(),
            next: 0,
            registry: Registry::new(kept, count),
            sent: vec![Head::default(); count],
            told: vec![0; count],
            cut: vec![[[0; 2]; 2]; count],
            frozen: vec![[0; 2]; count],
            slow: vec![0; count],
            oracle: Oracle::default(),
            subject: agent,
            exceptions: Vec::new(),
            recorded: Vec::new(),
            trace: DefaultHasher::new(),
            seen: Seen::default(),
            highest: 0,
            sidecars,
        };
        for sidecar in 0..count {
            world.at(world.now, Event::Connect(sidecar, 0));
            world.at(100 * MS, Event::Ping(sidecar, 0));
            world.at(200 * MS, Event::Decide(sidecar));
        }
        world.at(0, Event::Operate);
        world.at(5 * S, Event::Fault);
        world
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    fn at(&mut self, time: i64, event: Event) {
        self.next += 1;
        self.events.push(Reverse((time, self.next)));
        self.bodies.insert(self.next, event);
    }

    fn calm(&self) -> bool {
        self.now > LIFE - CALM
    }

    /// Runs to the end; what was violated.
    pub(crate) fn run(&mut self) -> Vec<String> {
        while let Some(Reverse((time, number))) = self.events.pop() {
            if time > LIFE || !self.oracle.violations.is_empty() {
                break;
            }
            self.now = time;
            let event = self.bodies.remove(&number).unwrap();
            (time, std::mem::discriminant(&event), number).hash(&mut self.trace);
            self.step(event);
            self.registry.log.head.hash(&mut self.trace);
            for sidecar in &self.sidecars {
                (sidecar.follower.exposed(), sidecar.follower.acknowledged()).hash(&mut self.trace);
            }
        }
        if self.oracle.violations.is_empty() {
            self.judge_the_end();
        }
        self.oracle.violations.clone()
    }

    fn judge_the_end(&mut self) {
        let head = self.registry.log.head;
        for at in 0..self.sidecars.len() {
            let sidecar = &self.sidecars[at];
            if sidecar.follower.distrusted() {
                self.oracle.distrusts(at);
                continue;
            }
            let exposed = sidecar.follower.exposed();
            // Another has taken its place: it hears what is taken back, and is answered nothing.
            let behind = if sidecar.fenced {
                exposed.sequence != head.sequence
            } else {
                exposed != head
            };
            if behind {
                self.oracle.left_behind(at, exposed, head);
            }
            let held: Vec<Target> = sidecar
                .disk
                .removals
                .iter()
                .flat_map(|batch| &batch.removals)
                .filter(|removal| removal.act == Act::Revoke)
                .map(|removal| removal.target.clone())
                .collect();
            for target in held {
                if !self.registry.revokes(&target) {
                    self.oracle.forgotten(target.id());
                }
            }
        }
    }

    fn delay(&mut self) -> i64 {
        let held = !self.calm() && self.dice.often(self.faults.hold);
        if held {
            self.seen.held += 1;
            S + self.dice.below(150 * S)
        } else {
            MS + self.dice.below(20 * MS)
        }
    }

    /// Sends to a sidecar, as the network pleases.
    fn send(&mut self, to: usize, message: Message) {
        let lane = match message {
            Message::Welcome(_)
            | Message::Heartbeat(_)
            | Message::Removals(_)
            | Message::Fenced => 0,
            Message::Delta(..) | Message::Snapshot(..) => 1,
        };
        if self.recorded.len() < 400 {
            self.recorded.push((to, message.clone()));
        }
        let boot = self.sidecars[to].boot;
        if self.now < self.cut[to][0][lane] || self.lost() {
            return;
        }
        // A connection that stands still keeps what it was given.
        let at = self.now.max(self.frozen[to][lane]) + self.delay();
        if !self.calm() && self.dice.often(self.faults.duplicate) {
            self.seen.duplicated += 1;
            let again = at + self.dice.below(30 * S);
            self.at(again, Event::Down(to, boot, message.clone()));
        }
        self.at(at, Event::Down(to, boot, message));
    }

    fn lost(&mut self) -> bool {
        let lost = !self.calm() && self.dice.often(self.faults.loss);
        self.seen.lost += u64::from(lost);
        lost
    }

    /// Whether a message from a sidecar arrives, and when.
    fn up(&mut self, from: usize, lane: usize) -> Option<i64> {
        let gone = self.now < self.cut[from][1][lane] || self.lost();
        (!gone).then(|| self.now + MS + self.dice.below(20 * MS))
    }

    fn awake(&mut self, at: usize, boot: Option<u64>) -> bool {
        let sidecar = &self.sidecars[at];
        sidecar.up && boot.is_none_or(|boot| boot == sidecar.boot)
    }

    fn step(&mut self, event: Event) {
        // A machine that sleeps does its work when it wakes.
        let sleeper = match &event {
            Event::Ping(at, _)
            | Event::Connect(at, _)
            | Event::Down(at, ..)
            | Event::Persisted(at, ..)
            | Event::Recheck(at, ..)
            | Event::Decided(at, ..)
            | Event::Decide(at) => Some(*at),
            _ => None,
        };
        if let Some(at) = sleeper
            && self.sidecars[at].suspended_until > self.now
        {
            let until = self.sidecars[at].suspended_until;
            self.at(until, event);
            return;
        }
        if let Event::Down(at, ..) = &event
            && self.slow[*at] > self.now
        {
            self.seen.slow += 1;
            let later = self.now + S + self.dice.below(10 * S);
            self.at(later, event);
            return;
        }
        match event {
            Event::Ping(at, boot) => self.ping(at, boot),
            Event::Connect(at, boot) => self.connect(at, boot),
            Event::Nonce(at, boot, nonce, era, acknowledged) => {
                self.nonce(at, boot, nonce, era, acknowledged);
            }
            Event::Answer(at, boot, nonce) => self.answer(at, boot, nonce),
            Event::Watch(at, boot, from, at_least) => self.watch(at, boot, from, at_least),
            Event::GiveBack(at, batches) => self.take_back_in(at, &batches),
            Event::Down(at, boot, message) => {
                if self.awake(at, Some(boot)) {
                    self.hear(at, message);
                }
            }
            Event::Persisted(at, boot, lane) => {
                if self.awake(at, Some(boot)) {
                    self.persisted(at, lane);
                }
            }
            Event::Decide(at) => self.decide(at),
            Event::Recheck(at, boot, which, began, exposures) => {
                let awake = self.awake(at, Some(boot));
                let now = self.sidecars[at].exposures;
                if awake && now == exposures {
                    let end = self.now + self.dice.below(400 * MS);
                    self.at(end, Event::Decided(at, boot, which, began, exposures));
                } else if awake && self.honours(at, which) {
                    // Something was taken back: decided anew on what there is.
                    let end = self.now + self.dice.below(100 * MS);
                    self.leave(at, exposures);
                    self.sidecars[at].running.push(now);
                    self.at(end, Event::Decided(at, boot, which, self.now, now));
                } else {
                    self.leave(at, exposures);
                }
            }
            Event::Decided(at, boot, which, began, exposures) => {
                if self.awake(at, Some(boot)) {
                    let id = self.exceptions[which].id.to_string();
                    let sidecar = &self.sidecars[at];
                    let took = sidecar
                        .elapsed(self.now)
                        .saturating_sub(sidecar.elapsed(began));
                    // Answers that took too long do not leave: the call has failed.
                    if took <= Span::from_secs(1) {
                        self.seen.honoured += 1;
                        self.oracle.honoured(at, &id, began, self.now);
                    }
                    self.leave(at, exposures);
                }
            }
            Event::Operate => self.operate(),
            Event::Fault => self.fault(),
            Event::StartSidecar(at) => {
                let durable = self.sidecars[at].start();
                let lane = self.sidecars[at].disk.lane();
                let told = self.told[at];
                if lane.is_none_or(|(era, _)| era == self.registry.log.beginning.era) {
                    self.oracle.restarted(at, told, durable);
                }
                self.exposed(at);
                let boot = self.sidecars[at].boot;
                self.at(self.now, Event::Connect(at, boot));
                self.at(self.now + 10 * MS, Event::Ping(at, boot));
            }
            Event::StartRegistry => {
                self.registry.start(Span::from_micros(self.now));
            }
        }
    }

    fn leave(&mut self, at: usize, exposures: u64) {
        let running = &mut self.sidecars[at].running;
        if let Some(place) = running.iter().position(|known| *known == exposures) {
            running.remove(place);
        }
        // A removal may wait for it to end.
        self.drain(at);
    }

    fn nonce_bytes(&mut self) -> Nonce {
        let (a, b) = (self.dice.next(), self.dice.next());
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&a.to_be_bytes());
        nonce[8..].copy_from_slice(&b.to_be_bytes());
        nonce
    }

    fn ping(&mut self, at: usize, boot: u64) {
        if !self.awake(at, Some(boot)) {
            return;
        }
        self.at(self.now + PING, Event::Ping(at, boot));
        if !self.sidecars[at].connected || self.now - self.sidecars[at].heard_at > 3 * PING {
            self.sidecars[at].connected = false;
            self.connect(at, boot);
        }
        let nonce = self.nonce_bytes();
        let (now, start) = (self.now, noon());
        let sidecar = &mut self.sidecars[at];
        if sidecar.fenced {
            return;
        }
        let (elapsed, wall) = (sidecar.elapsed(now), sidecar.wall(now, start));
        sidecar.follower.ask(nonce, elapsed, wall);
        let Some(era) = sidecar.follower.era() else {
            return;
        };
        let acknowledged = sidecar.follower.acknowledged();
        if let Some(arrives) = self.up(at, 0) {
            self.at(arrives, Event::Nonce(at, boot, nonce, era, acknowledged));
        }
    }

    /// Greets the registry; both lanes take up where the sidecar says it is.
    fn connect(&mut self, at: usize, boot: u64) {
        if !self.awake(at, Some(boot)) || !self.registry.up {
            return;
        }
        let Some(_) = self.up(at, 0) else { return };
        let beginning = self.registry.log.beginning;
        let sidecar = &mut self.sidecars[at];
        sidecar.connected = true;
        sidecar.heard_at = self.now;
        let held = sidecar.follower.acknowledged();
        let same = sidecar.follower.era() == Some(beginning.era);
        let (name, start) = (sidecar.name.clone(), sidecar.start);
        let over = sidecar.over.clone();
        let entered = self.registry.enter(&name, start, &over);
        if entered == Entered::Fencing {
            self.seen.fenced += 1;
        }
        // One connection to a name; a start that another has taken the place of has its own.
        if entered != Entered::Fenced {
            for other in 0..self.sidecars.len() {
                if other != at && self.sidecars[other].name == name {
                    self.sidecars[other].connected = false;
                }
            }
        }
        self.sent[at].sequence = if same { held.sequence } else { 0 };
        self.send(at, Message::Welcome(beginning));
        if entered == Entered::Fenced {
            self.send(at, Message::Fenced);
        }
        self.push(at);
    }

    /// Sends every removal that was not sent yet.
    fn push(&mut self, at: usize) {
        if !self.registry.up || !self.sidecars[at].connected {
            return;
        }
        if self.registry.log.head.sequence > self.sent[at].sequence {
            let batch = self.registry.removals_after(self.sent[at].sequence);
            self.sent[at].sequence = batch.through;
            self.send(at, Message::Removals(batch));
        }
        let era = self.registry.log.beginning.era;
        if let Some(interval) = self.registry.window.since(self.sent[at].revision) {
            self.sent[at].revision = interval.through;
            self.send(at, Message::Delta(era, interval));
        }
    }

    fn nonce(&mut self, at: usize, boot: u64, nonce: Nonce, era: Era, acknowledged: Head) {
        if !self.registry.up {
            return;
        }
        let (name, start) = (self.sidecars[at].name.clone(), self.sidecars[at].start);
        if self.registry.attendance.fenced(&name, &start) {
            self.send(at, Message::Fenced);
            return;
        }
        let elapsed = Span::from_micros(self.now);
        self.registry.attendance.answer(&name, elapsed);
        if era == self.registry.log.beginning.era {
            self.registry
                .attendance
                .drained(&name, acknowledged.sequence);
            self.told[at] = self.told[at].max(acknowledged.sequence);
            for removal in &self.registry.log.removals {
                if removal.act == Act::Revoke && removal.sequence <= acknowledged.sequence {
                    self.oracle.removal_acknowledged(at, removal.target.id());
                }
            }
        }
        let read = self.now + self.dice.below(5 * MS);
        self.at(read, Event::Answer(at, boot, nonce));
    }

    fn answer(&mut self, at: usize, _: u64, nonce: Nonce) {
        if !self.registry.up {
            return;
        }
        let head = if planted(Bug::HeadBeforeNonce) {
            let stale = self.registry.stale_head;
            if self.dice.often(50) {
                self.registry.stale_head = self.registry.log.head;
            }
            stale
        } else {
            self.registry.log.head
        };
        let heartbeat = Heartbeat {
            era: self.registry.log.beginning.era,
            head,
            time: Timestamp::from_micros(noon().micros() + self.now),
            nonce,
            ledger: None,
        };
        self.send(at, Message::Heartbeat(heartbeat));
        self.push(at);
    }

    fn watch(&mut self, at: usize, _: u64, from: Option<u64>, at_least: u64) {
        if !self.registry.up || at_least > self.registry.log.head.revision {
            return;
        }
        let era = self.registry.log.beginning.era;
        let head = self.registry.log.head.revision;
        let interval = from.and_then(|from| self.registry.window.since(from));
        match (interval, from) {
            (Some(interval), _) => {
                self.sent[at].revision = interval.through;
                self.send(at, Message::Delta(era, interval));
            }
            (None, Some(from)) if from == head => self.sent[at].revision = head,
            (None, _) => {
                self.sent[at].revision = head;
                let objects = self.registry.log.objects.clone();
                self.send(at, Message::Snapshot(era, head, objects));
            }
        }
    }

    fn take_back_in(&mut self, at: usize, batches: &[Batch]) {
        if !self.registry.up || planted(Bug::NoGiveBack) {
            return;
        }
        let mut lost: Vec<(Act, Target)> = Vec::new();
        for removal in batches.iter().flat_map(|batch| &batch.removals) {
            let known = (removal.act, removal.target.clone());
            if removal.act == Act::Revoke
                && !self.registry.revokes(&removal.target)
                && !lost.contains(&known)
            {
                lost.push(known);
            }
        }
        if lost.is_empty() {
            return;
        }
        self.seen.given_back += 1;
        for (_, target) in &lost {
            let lease = self.lease_of(target.id());
            self.oracle.revoked(target.id(), self.now, lease);
        }
        let time = Timestamp::from_micros(noon().micros() + self.now);
        self.registry.commit(None, lost, time);
        self.highest = self.highest.max(self.registry.log.head.revision);
        for to in 0..self.sidecars.len() {
            self.push(to);
        }
        let _ = at;
    }

    fn lease_of(&self, id: &str) -> Span {
        let known = self.exceptions.iter().find(|e| e.id.as_str() == id);
        known.map_or(Span::from_secs(300), |e| {
            TierRules::standard(e.tier).lease()
        })
    }

    fn staleness_of(&self, id: &str) -> Span {
        let known = self.exceptions.iter().find(|e| e.id.as_str() == id);
        let tier = known.map_or(Tier::Low, |exception| exception.tier);
        TierRules::standard(tier).max_staleness
    }

    fn hear(&mut self, at: usize, message: Message) {
        let now = self.now;
        self.sidecars[at].heard_at = now;
        let boot = self.sidecars[at].boot;
        match message {
            Message::Fenced => {
                self.sidecars[at].fenced = true;
                self.sidecars[at].follower.fence();
            }
            Message::Welcome(beginning) => {
                let before = self.sidecars[at].follower.era();
                let Ok(other) = self.sidecars[at].follower.enter(&beginning) else {
                    self.seen.refused += 1;
                    return;
                };
                if other {
                    self.told[at] = 0;
                }
                if other && before.is_some() {
                    self.sidecars[at].jobs = Default::default();
                    self.sidecars[at].draining.clear();
                }
                // At each greeting: nothing says that an earlier one arrived.
                let signed = self.sidecars[at].signed.clone();
                if beginning.era.epoch > 1 && !signed.is_empty() {
                    if let Some(arrives) = self.up(at, 0) {
                        self.at(arrives, Event::GiveBack(at, signed));
                    } else {
                        // What does not arrive ends the connection, and the next one greets again.
                        self.sidecars[at].connected = false;
                    }
                }
                self.ask_for_state(at, false);
            }
            Message::Heartbeat(heartbeat) => {
                let elapsed = self.sidecars[at].elapsed(now);
                let before = self.sidecars[at].follower.contact();
                match self.sidecars[at].follower.hear(&heartbeat, elapsed) {
                    Ok(()) => {
                        self.sidecars[at].disk.time = Some(heartbeat.time);
                        let after = self.sidecars[at].follower.contact();
                        if before.anchor() == after.anchor() {
                            self.seen.pending += 1;
                        }
                        let exposed = self.sidecars[at].follower.exposed();
                        if heartbeat.head.revision > exposed.revision {
                            self.ask_for_state(at, false);
                        }
                        if heartbeat.head.sequence > exposed.sequence {
                            // What was sent and did not come is sent again on a new connection.
                            self.connect(at, boot);
                        }
                    }
                    // As the program does: late answers are ordinary, others end the connection.
                    Err(Refused::Unasked | Refused::Behind) => self.seen.refused += 1,
                    Err(_) => {
                        self.seen.refused += 1;
                        self.sidecars[at].connected = false;
                    }
                }
            }
            Message::Removals(batch) => {
                let mut changed = false;
                for removal in &batch.removals {
                    let sidecar = &mut self.sidecars[at];
                    changed |= sidecar.removed.add(batch.era.epoch, removal);
                    sidecar.came.push(removal.clone());
                    if removal.act == Act::Revoke {
                        self.oracle.removal_exposed(at, &removal.target, now);
                    }
                }
                if changed {
                    self.sidecars[at].exposures += 1;
                }
                self.judge_freeze(at);
                let take =
                    self.sidecars[at]
                        .follower
                        .removals(batch.era, batch.after, batch.through);
                match take {
                    Ok(Take::Known) => {}
                    Ok(Take::Fresh) => {
                        let steps = VecDeque::from(removal_steps());
                        self.sidecars[at].jobs[0].push_back((Job::Removals(batch), steps));
                        self.advance(at, 0);
                    }
                    Err(_) => {
                        self.seen.resyncs += 1;
                        self.connect(at, boot);
                    }
                }
            }
            Message::Delta(era, interval) => {
                let follower = &self.sidecars[at].follower;
                match follower.delta(era, interval.after, interval.through) {
                    Ok(Take::Known) => {}
                    Ok(Take::Fresh) => {
                        let Some((_, held)) = &self.sidecars[at].held else {
                            self.ask_for_state(at, true);
                            return;
                        };
                        let mut objects = held.clone();
                        for edit in &interval.edits {
                            match &edit.manifest {
                                Some(manifest) => drop(objects.insert(
                                    edit.name.clone(),
                                    (edit.revision, Arc::clone(manifest)),
                                )),
                                None => drop(objects.remove(&edit.name)),
                            }
                        }
                        if self.faults.sums && sum(&objects) != interval.sum {
                            self.seen.resyncs += 1;
                            self.ask_for_state(at, true);
                            return;
                        }
                        self.take(at, era, interval.through, objects);
                    }
                    Err(_) => {
                        self.seen.resyncs += 1;
                        self.ask_for_state(at, true);
                    }
                }
            }
            Message::Snapshot(era, revision, objects) => {
                match self.sidecars[at].follower.snapshot(era, revision) {
                    Ok(_) => self.take(at, era, revision, objects),
                    Err(_) => self.seen.refused += 1,
                }
            }
        }
    }

    fn judge_freeze(&mut self, at: usize) {
        let id = &self.subject.id;
        let frozen = self.sidecars[at].frozen(id);
        // Across epochs numbers begin anew; the last word is only clear within one.
        if self.registry.log.beginning.era.epoch == 1 {
            let truth = Registry::froze(&self.sidecars[at].came, id);
            self.oracle.froze(at, frozen, truth);
        }
    }

    fn take(&mut self, at: usize, era: Era, revision: u64, objects: Objects) {
        // One at a time: what comes meanwhile is asked for again.
        if !self.sidecars[at].jobs[1].is_empty() {
            return;
        }
        let steps = VecDeque::from(delta_steps());
        let job = Job::State {
            era,
            revision,
            objects,
        };
        self.sidecars[at].jobs[1].push_back((job, steps));
        self.advance(at, 1);
    }

    fn ask_for_state(&mut self, at: usize, anew: bool) {
        let boot = self.sidecars[at].boot;
        let follower = &self.sidecars[at].follower;
        let exposed = follower.exposed().revision;
        let held = self.sidecars[at].held.is_some();
        let same = follower.era() == Some(self.registry.log.beginning.era);
        let from = (held && same && !anew).then_some(exposed);
        if let Some(arrives) = self.up(at, 1) {
            self.at(arrives, Event::Watch(at, boot, from, exposed));
        }
    }

    /// Does the next steps of a lane's first job, as far as they need no waiting.
    fn advance(&mut self, at: usize, lane: usize) {
        loop {
            let Some((job, steps)) = self.sidecars[at].jobs[lane].front() else {
                return;
            };
            let Some(step) = steps.front().copied() else {
                self.sidecars[at].jobs[lane].pop_front();
                continue;
            };
            let job = job.clone();
            match step {
                Step::Persist => {
                    let slow = if self.faults.slow_disk {
                        2 * S
                    } else {
                        30 * MS
                    };
                    let done = self.now + MS + self.dice.below(slow);
                    let boot = self.sidecars[at].boot;
                    self.at(done, Event::Persisted(at, boot, lane));
                    if let Some((_, steps)) = self.sidecars[at].jobs[lane].front_mut() {
                        // Waits for that event.
                        steps.pop_front();
                        steps.push_front(Step::Drain);
                        steps.push_front(Step::Persist);
                    }
                    return;
                }
                Step::Expose => self.expose(at, &job),
                Step::Drain => {
                    let sidecar = &mut self.sidecars[at];
                    if let Job::Removals(batch) = &job {
                        let waits = (batch.through, sidecar.exposures);
                        sidecar.draining.push_back(waits);
                    }
                }
                Step::Acknowledge => {
                    let sidecar = &mut self.sidecars[at];
                    match &job {
                        Job::State { revision, .. } => {
                            sidecar.follower.acknowledge_state(*revision);
                        }
                        Job::Removals(batch) if sidecar.draining.is_empty() => {
                            sidecar.follower.acknowledge_removals(batch.through);
                        }
                        Job::Removals(_) => self.drain(at),
                    }
                }
            }
            if let Some((_, steps)) = self.sidecars[at].jobs[lane].front_mut() {
                steps.pop_front();
            }
        }
    }

    /// Acknowledges the removals that no decision under way is behind.
    fn drain(&mut self, at: usize) {
        let sidecar = &mut self.sidecars[at];
        while let Some((through, exposures)) = sidecar.draining.front().copied() {
            if sidecar.running.iter().any(|began| *began < exposures) {
                return;
            }
            sidecar.follower.acknowledge_removals(through);
            sidecar.draining.pop_front();
        }
    }

    fn expose(&mut self, at: usize, job: &Job) {
        let sidecar = &mut self.sidecars[at];
        match job {
            Job::State {
                revision, objects, ..
            } => {
                sidecar.held = Some((*revision, objects.clone()));
                sidecar.follower.expose_state(*revision);
                self.exposed(at);
            }
            Job::Removals(batch) => sidecar.follower.expose_removals(batch.through),
        }
    }

    fn exposed(&mut self, at: usize) {
        let sidecar = &self.sidecars[at];
        let (Some((revision, objects)), Some(era)) = (&sidecar.held, sidecar.follower.era()) else {
            return;
        };
        let head = Head {
            revision: *revision,
            sequence: 0,
        };
        let truth = self.registry.log.past.get(revision).cloned();
        let same = era == self.registry.log.beginning.era;
        let truth = truth.filter(|_| same);
        self.oracle
            .exposes(at, era, head, objects, truth.as_deref());
    }

    fn persisted(&mut self, at: usize, lane: usize) {
        let Some((job, steps)) = self.sidecars[at].jobs[lane].front_mut() else {
            return;
        };
        // The mark that it was waited for.
        if steps.front() == Some(&Step::Persist) {
            steps.pop_front();
            steps.pop_front();
        }
        let job = job.clone();
        let floor = self.sidecars[at].floor(&job);
        let sidecar = &mut self.sidecars[at];
        match job {
            Job::State {
                era,
                revision,
                objects,
            } => sidecar.disk.state = Some((era, revision, objects)),
            Job::Removals(batch) => {
                sidecar.disk.removals.push(batch.clone());
                sidecar.signed.push(batch);
            }
        }
        sidecar.disk.floor = floor;
        self.advance(at, lane);
    }

    fn honours(&self, at: usize, which: usize) -> bool {
        let exception = &self.exceptions[which];
        let rules = TierRules::standard(exception.tier);
        self.sidecars[at].honours(exception, &self.subject, &rules, self.now, noon())
    }

    fn decide(&mut self, at: usize) {
        let next = self.now + 50 * MS + self.dice.below(S);
        self.at(next, Event::Decide(at));
        if !self.awake(at, None) || self.exceptions.is_empty() {
            return;
        }
        self.seen.decisions += 1;
        let which = usize::try_from(
            self.dice
                .below(i64::try_from(self.exceptions.len()).unwrap()),
        )
        .unwrap();
        if !self.honours(at, which) {
            self.seen.lapsed += 1;
            let ends = self.exceptions[which].expire_time;
            let now = Timestamp::from_micros(noon().micros() + self.now);
            self.seen.expired += u64::from(ends <= now);
            return;
        }
        let sidecar = &mut self.sidecars[at];
        let (boot, exposures) = (sidecar.boot, sidecar.exposures);
        sidecar.running.push(exposures);
        let recheck = self.now + self.dice.below(300 * MS);
        self.at(
            recheck,
            Event::Recheck(at, boot, which, self.now, exposures),
        );
    }

    fn operate(&mut self) {
        let next = self.now + 200 * MS + self.dice.below(8 * S);
        if next < LIFE - CALM / 2 {
            self.at(next, Event::Operate);
        }
        if !self.registry.up {
            return;
        }
        let time = Timestamp::from_micros(noon().micros() + self.now);
        let agent = Target::Subject(SubjectId::parse("agent").unwrap());
        self.look_at_a_receipt();
        match self.dice.below(10) {
            0..=3 => {
                let id = format!("EX-{}", self.exceptions.len());
                let mut made = exception(&id, &["CT-1"], "agent");
                made.tier = if self.dice.often(700) {
                    Tier::High
                } else {
                    Tier::Low
                };
                let from = self.now + self.dice.below(60 * S) - 30 * S;
                let until = from + 40 * S + self.dice.below(600 * S);
                made.effective_time = Timestamp::from_micros(noon().micros() + from);
                made.expire_time = Timestamp::from_micros(noon().micros() + until);
                self.oracle.granted(&id, from, until);
                self.exceptions.push(made);
                let name = Name::new(Kind::Exception, &id);
                self.registry
                    .commit(Some((name, Some(Sidecar::manifest()))), Vec::new(), time);
            }
            4 if !self.exceptions.is_empty() => {
                let name = self.registry.log.objects.keys().next().cloned();
                if let Some(name) = name {
                    let kept = self.dice.often(500).then(Sidecar::manifest);
                    if kept.is_none() {
                        self.seen.withdrawn += 1;
                        let staleness = self.staleness_of(&name.id);
                        self.oracle.withdrawn(&name.id, self.now, staleness);
                    }
                    self.registry.commit(Some((name, kept)), Vec::new(), time);
                }
            }
            5..=8 if !self.exceptions.is_empty() => {
                let count = i64::try_from(self.exceptions.len()).unwrap();
                let which = usize::try_from(self.dice.below(count)).unwrap();
                let id = self.exceptions[which].id.clone();
                let target = Target::Exception(id.clone());
                if self.registry.revokes(&target) {
                    return;
                }
                self.seen.revoked += 1;
                self.registry
                    .commit(None, vec![(Act::Revoke, target)], time);
                let lease = self.lease_of(id.as_str());
                self.oracle.revoked(id.as_str(), self.now, lease);
                self.receipt(id.as_str(), self.registry.log.head.sequence);
            }
            _ => {
                let frozen = Registry::froze(&self.registry.log.removals, &self.subject.id);
                // Frozen for a short while, or nothing would ever be honoured.
                let act = if frozen { Act::Thaw } else { Act::Freeze };
                if frozen || self.dice.often(300) {
                    self.registry.commit(None, vec![(act, agent)], time);
                }
            }
        }
        self.highest = self.highest.max(self.registry.log.head.revision);
        for to in 0..self.sidecars.len() {
            self.push(to);
        }
    }

    /// Asks how far a revocation has come: what is promised holds, whenever it is asked.
    fn receipt(&mut self, id: &str, sequence: u64) {
        let lease = self.lease_of(id);
        let elapsed = Span::from_micros(self.now);
        let attendance = &self.registry.attendance;
        let receipt = attendance.receipt(sequence, Some(lease), elapsed);
        if let Some(effective) = receipt.effective {
            self.seen.bounded += 1;
            let effective = effective.micros().max(self.now);
            self.oracle.receipt(id, effective);
        }
    }

    fn look_at_a_receipt(&mut self) {
        let revoked = self.registry.log.removals.iter().rev();
        let revoked = revoked.filter(|removal| removal.act == Act::Revoke).take(3);
        let revoked: Vec<_> = revoked
            .map(|removal| (removal.target.id().to_owned(), removal.sequence))
            .collect();
        for (id, sequence) in revoked {
            self.receipt(&id, sequence);
        }
    }

    /// Another process under the name of one that goes on, which may be cut off from the registry.
    fn twin(&mut self, of: usize) {
        let one_is_there = self.sidecars.iter().enumerate();
        let one_is_there = one_is_there
            .filter(|(at, other)| *at != of && other.name == self.sidecars[of].name)
            .count();
        if one_is_there > 0 {
            return;
        }
        if self.dice.often(700) {
            let until = (self.now + S + self.dice.below(200 * S)).min(LIFE - CALM);
            self.cut[of] = [[until; 2]; 2];
        }
        let place = self.sidecars.len();
        let name = self.sidecars[of].name.clone();
        let (drift, origin) = (self.dice.below(901) - 450, self.dice.below(1_000_000) * S);
        let twin = Sidecar::new(name, place, drift, origin, 0);
        self.sidecars.push(twin);
        self.sent.push(Head::default());
        self.told.push(0);
        self.cut.push([[0; 2]; 2]);
        self.frozen.push([0; 2]);
        self.slow.push(0);
        self.at(self.now, Event::Connect(place, 0));
        self.at(self.now + 100 * MS, Event::Ping(place, 0));
        self.at(self.now + 200 * MS, Event::Decide(place));
    }

    fn fault(&mut self) {
        let next = self.now + S + self.dice.below(30 * S);
        if next < LIFE - CALM {
            self.at(next, Event::Fault);
        }
        if self.dice.often(300) && self.registry.up {
            self.registry.backup = Some(self.registry.log.clone());
        }
        let count = i64::try_from(self.sidecars.len()).unwrap();
        let at = usize::try_from(self.dice.below(count)).unwrap();
        match self.dice.below(11) {
            0 if self.faults.crash_sidecar && self.sidecars[at].up => {
                self.seen.crashes += 1;
                self.sidecars[at].crash();
                let batches = &self.sidecars[at].disk.removals;
                let removals = batches.iter().flat_map(|batch| &batch.removals);
                let durable = removals.map(|removal| removal.target.id().to_owned());
                self.oracle.crashed(at, &durable.collect());
                let back = self.now + self.dice.below(20 * S);
                self.at(back, Event::StartSidecar(at));
            }
            1 if self.faults.crash_registry && self.registry.up => {
                self.seen.crashes += 1;
                self.registry.up = false;
                for sidecar in &mut self.sidecars {
                    sidecar.connected = false;
                }
                let back = (self.now + self.dice.below(90 * S)).min(LIFE - CALM);
                self.at(back, Event::StartRegistry);
            }
            2 if self.faults.restore && self.registry.up => {
                if let Some(old) = self.registry.backup.take()
                    && old.beginning == self.registry.log.beginning
                {
                    self.seen.restores += 1;
                    let elapsed = Span::from_micros(self.now);
                    let before = self.registry.log.objects.clone();
                    for removal in self.registry.restore(old, self.highest, elapsed) {
                        self.oracle.lost(removal.target.id());
                    }
                    let after = self.registry.log.objects.clone();
                    for name in after.keys() {
                        self.oracle.back(&name.id);
                    }
                    for name in before.keys().filter(|name| !after.contains_key(*name)) {
                        let staleness = self.staleness_of(&name.id);
                        self.oracle.withdrawn(&name.id, self.now, staleness);
                    }
                    self.highest = self.highest.max(self.registry.log.head.revision);
                    for sidecar in &mut self.sidecars {
                        sidecar.connected = false;
                    }
                    for told in &mut self.told {
                        *told = 0;
                    }
                }
            }
            3 if self.faults.suspend && self.sidecars[at].up => {
                self.seen.suspended += 1;
                let span = S + self.dice.below(200 * S);
                let until = (self.now + span).min(LIFE - CALM);
                let sidecar = &mut self.sidecars[at];
                if sidecar.suspended_until <= self.now {
                    sidecar.suspended += until - self.now;
                    sidecar.suspended_until = until;
                    if self.dice.often(500) {
                        // The network is slower to wake than the machine.
                        let deaf = (until + 10 * S).min(LIFE - CALM);
                        self.cut[at] = [[deaf; 2]; 2];
                    }
                }
            }
            4 if self.faults.wall => {
                self.seen.stepped += 1;
                let step = self.dice.below(4_000 * S) - 2_000 * S;
                self.sidecars[at].wall_off += step;
            }
            5 if self.faults.cut => {
                let until = (self.now + self.dice.below(200 * S)).min(LIFE - CALM);
                // To it, from it, or both.
                match self.dice.below(3) {
                    0 => {
                        self.seen.cut_both += 1;
                        self.cut[at] = [[until; 2]; 2];
                    }
                    way => {
                        self.seen.cut_one_way += 1;
                        self.cut[at][usize::from(way == 2)] = [until; 2];
                    }
                }
            }
            6 if self.faults.one_lane => {
                let until = (self.now + self.dice.below(200 * S)).min(LIFE - CALM);
                let lane = usize::from(self.dice.often(500));
                self.seen.cut_one_lane += 1;
                self.cut[at][0][lane] = until;
                self.cut[at][1][lane] = until;
            }
            8 if self.faults.freeze => {
                self.seen.frozen += 1;
                let until = (self.now + self.dice.below(200 * S)).min(LIFE - CALM);
                let lane = usize::from(self.dice.often(500));
                self.frozen[at][lane] = until;
            }
            9 if self.faults.slow_reader => {
                self.slow[at] = (self.now + self.dice.below(100 * S)).min(LIFE - CALM);
            }
            10 if self.faults.twin => self.twin(at),
            7 if self.faults.replay && !self.recorded.is_empty() => {
                self.seen.replayed += 1;
                let many = i64::try_from(self.recorded.len()).unwrap();
                for _ in 0..6 {
                    let which = usize::try_from(self.dice.below(many)).unwrap();
                    let (to, message) = self.recorded[which].clone();
                    let boot = self.sidecars[to].boot;
                    let when = self.now + self.dice.below(30 * S);
                    self.at(when, Event::Down(to, boot, message));
                }
            }
            _ => {}
        }
    }
}
