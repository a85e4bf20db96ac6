//! A sidecar: the program's own follower, over a simulated disk and clock.

use std::{collections::VecDeque, sync::Arc};

use exeat::{
    domain::{
        Effect, Era, Exception, Fingerprint, Head, Now, Removal, Span, Subject, SubjectId, Target,
        TierRules, Timestamp,
    },
    engine::{
        Removed, Standing,
        attendance::Start,
        effective,
        follow::{Follower, Step},
        planted::{Bug, planted},
    },
};

use super::disk::{Batch, Disk, Objects};

/// Something that is taken in, step by step.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    State {
        era: Era,
        revision: u64,
        objects: Objects,
    },
    Removals(Batch),
}

#[derive(Debug)]
pub(crate) struct Sidecar {
    /// Who it is to the registry; a twin has the same.
    pub(crate) name: String,
    /// Which of the processes it is.
    pub(crate) place: usize,
    pub(crate) start: Start,
    /// Starts before it that are over.
    pub(crate) over: Vec<Start>,
    /// Whether it was told that another has taken its place.
    pub(crate) fenced: bool,
    pub(crate) disk: Disk,
    pub(crate) up: bool,
    /// Until when nothing runs here, though time passes.
    pub(crate) suspended_until: i64,
    pub(crate) suspended: i64,
    pub(crate) drift_ppm: i64,
    pub(crate) origin: i64,
    pub(crate) wall_off: i64,
    pub(crate) follower: Follower,
    pub(crate) held: Option<(u64, Objects)>,
    pub(crate) removed: Removed,
    /// Every removal that came, for the last word about a freeze.
    pub(crate) came: Vec<Removal>,
    pub(crate) signed: Vec<Batch>,
    /// The steps still to do, for the state and for the removals.
    pub(crate) jobs: [VecDeque<(Job, VecDeque<Step>)>; 2],
    /// Decisions under way: which removals they loaded, by count of exposures.
    pub(crate) running: Vec<u64>,
    pub(crate) exposures: u64,
    /// Durable removals that wait for decisions which loaded fewer exposures than this.
    pub(crate) draining: VecDeque<(u64, u64)>,
    /// Whether a connection stands, and since when nothing has come.
    pub(crate) connected: bool,
    pub(crate) heard_at: i64,
    pub(crate) boot: u64,
}

impl Sidecar {
    pub(crate) fn new(
        name: String,
        place: usize,
        drift_ppm: i64,
        origin: i64,
        wall_off: i64,
    ) -> Self {
        let mut sidecar = Self {
            name,
            place,
            start: Start::default(),
            over: Vec::new(),
            fenced: false,
            disk: Disk::default(),
            up: true,
            suspended_until: 0,
            suspended: 0,
            drift_ppm,
            origin,
            wall_off,
            follower: Follower::default(),
            held: None,
            removed: Removed::default(),
            came: Vec::new(),
            signed: Vec::new(),
            jobs: Default::default(),
            running: Vec::new(),
            exposures: 0,
            draining: VecDeque::new(),
            connected: false,
            heard_at: 0,
            boot: 0,
        };
        sidecar.begin();
        sidecar
    }

    /// Another start, with those before it on its disk.
    fn begin(&mut self) {
        self.start = Start::default();
        self.start[..8].copy_from_slice(&self.place.to_be_bytes());
        self.start[8..].copy_from_slice(&self.boot.to_be_bytes());
        self.over.clone_from(&self.disk.starts);
        self.disk.starts.push(self.start);
        self.fenced = false;
    }

    /// Elapsed time here when it is `now`: it goes on while the machine sleeps.
    pub(crate) fn elapsed(&self, now: i64) -> Span {
        let asleep = if planted(Bug::SuspendedClock) {
            self.suspended
        } else {
            0
        };
        let passed = now - asleep;
        Span::from_micros(self.origin + passed + passed / 1_000_000 * self.drift_ppm)
    }

    pub(crate) fn wall(&self, now: i64, start: Timestamp) -> Timestamp {
        Timestamp::from_micros(start.micros() + now + self.wall_off)
    }

    /// A crash: what is not on disk is gone.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.connected = false;
        self.held = None;
        self.jobs = Default::default();
        self.running.clear();
        self.draining.clear();
        self.boot += 1;
    }

    /// Starts and reads back what is on disk, as the program does; tells how far removals reach.
    pub(crate) fn start(&mut self) -> u64 {
        self.up = true;
        self.begin();
        self.removed = Removed::default();
        self.came.clear();
        for batch in &self.disk.removals {
            for removal in &batch.removals {
                self.removed.add(batch.era.epoch, removal);
                self.came.push(removal.clone());
            }
        }
        self.signed = self.disk.removals.clone();
        let Some((era, floor)) = self.disk.floor else {
            self.follower = Follower::default();
            self.remember();
            return 0;
        };
        let lane = self.disk.lane().filter(|(of, _)| *of == era);
        let sequence = lane.map_or(0, |(_, reach)| reach);
        self.follower = Follower::new(Some(era), Head { sequence, ..floor });
        if let Some((of, revision, objects)) = &self.disk.state
            && *of == era
            && (*revision >= floor.revision || planted(Bug::FloorAfterExposure))
            && sequence >= floor.sequence
        {
            self.follower = Follower::new(
                Some(era),
                Head {
                    revision: *revision,
                    sequence,
                },
            );
            self.held = Some((*revision, objects.clone()));
        }
        self.remember();
        sequence
    }

    fn remember(&mut self) {
        if let Some(time) = self.disk.time {
            self.follower.remember(time);
        }
    }

    /// Whether an exception is honoured now, by the program's own rule.
    pub(crate) fn honours(
        &self,
        exception: &Exception,
        subject: &Subject,
        rules: &TierRules,
        now: i64,
        start: Timestamp,
    ) -> bool {
        let Some((_, objects)) = &self.held else {
            return false;
        };
        if !objects
            .keys()
            .any(|name| *name.id == *exception.id.as_str())
        {
            return false;
        }
        let elapsed = self.elapsed(now);
        let at = Now::exactly(self.wall(now, start));
        let standing = Standing {
            revoked: self
                .removed
                .revokes(&Target::Exception(exception.id.clone())),
            ..Standing::default()
        };
        let seen = self.follower.contact().now(at, elapsed);
        let against: Option<Effect> = effective(
            exception,
            rules,
            subject,
            &Fingerprint::default(),
            seen,
            standing,
        );
        against.is_none() && !self.removed.freezes(&subject.id)
    }

    pub(crate) fn frozen(&self, subject: &SubjectId) -> bool {
        self.removed.freezes(subject)
    }

    /// The floor that is written with a job.
    pub(crate) fn floor(&self, job: &Job) -> Option<(Era, Head)> {
        let era = self.follower.era()?;
        let mut head = self.follower.acknowledged();
        match job {
            Job::State { revision, .. } => head.revision = *revision,
            Job::Removals(batch) => head.sequence = batch.through,
        }
        Some((era, head))
    }

    /// The manifest of an exception.
    pub(crate) fn manifest() -> Arc<str> {
        "{}".into()
    }
}
