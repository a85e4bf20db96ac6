//! What a follower of the registry may believe: where it is, and how long ago it knew everything.
//!
//! Pure: messages and elapsed time in, verdicts out. Who follows does the IO, in the order that
//! [`delta_steps`] and [`removal_steps`] name (reliability §4).

use std::collections::VecDeque;

use crate::domain::{Era, Hash, Head, Now, Span, Timestamp};

use super::{
    contact::{Bounds, drift, stretched},
    planted::{Bug, planted},
};

pub use super::contact::{Contact, DRIFT};

/// How far wall time may leave elapsed time between two looks before the clock counts as set.
const STEP: Span = Span::from_secs(2);
/// Most nonces that wait for their answer.
const OUTSTANDING: usize = 64;
/// Most that revisions, removals or epochs may be ahead: beyond it somebody means to exhaust the
/// numbers (reliability §4.6).
const FAR: u64 = 1 << 32;
/// Most that registry time may be ahead of ours.
pub const FUTURE: Span = Span::from_hours(48);

/// A number used once.
pub type Nonce = [u8; 16];

/// What the registry says, signed, in answer to a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Heartbeat {
    /// Of which history it speaks.
    pub era: Era,
    /// The head, read from the store after the nonce arrived.
    pub head: Head,
    /// The registry's time.
    pub time: Timestamp,
    /// The nonce it answers.
    pub nonce: Nonce,
    /// How many leaves the ledger has, and their root; nothing where the registry keeps none.
    pub ledger: Option<(u64, Hash)>,
}

/// The beginning of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The epoch.
    pub era: Era,
    /// The head it began at: beyond everything anyone was seen to hold.
    pub base: Head,
}

/// Why a message is not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The heartbeat answers no nonce that is waited for: late, replayed or made up.
    Unasked,
    /// It is of another log.
    OtherLog,
    /// It is of an epoch that is over.
    OldEpoch,
    /// It is of an epoch whose beginning was not shown, or does not fit.
    NewEpoch,
    /// It is older than what is known, as a replica behind the others may be.
    Behind,
    /// It claims less, later, than was claimed before: there are two histories.
    Forked,
    /// Its numbers or time are beyond reason.
    FarAhead,
    /// Its time is before what the registry said it was (T1).
    EarlierTime,
    /// The registry is no longer trusted.
    Distrusted,
}

impl Refused {
    /// A stable name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::OtherLog => "other_log",
            Self::OldEpoch => "old_epoch",
            Self::NewEpoch => "new_epoch",
            Self::Behind => "behind",
            Self::Forked => "forked",
            Self::FarAhead => "far_ahead",
            Self::EarlierTime => "earlier_time",
            Self::Distrusted => "distrusted",
        }
    }
}

/// What to do with an interval of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Take it.
    Fresh,
    /// It is known already.
    Known,
}

/// Why everything is to be fetched anew, while what is known stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resync {
    /// The interval does not begin where the last one ended (S5).
    Gap,
    /// It is of another epoch or log.
    Era,
    /// What came out is not what the registry says comes out.
    Digest,
    /// It is older than what is in force (S1).
    Rollback,
    /// Its numbers are beyond reason.
    FarAhead,
}

impl Resync {
    /// A stable name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Era => "era",
            Self::Digest => "digest",
            Self::Rollback => "rollback",
            Self::FarAhead => "far_ahead",
        }
    }
}

/// The steps of taking something in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Write it and wait until it is durable.
    Persist,
    /// Decide by it.
    Expose,
    /// Wait until every decision that was under way has ended.
    Drain,
    /// Tell the registry.
    Acknowledge,
}

/// A snapshot or delta: durable first, so that no restart goes back behind what was seen (S1, S8).
pub fn delta_steps() -> [Step; 3] {
    if planted(Bug::FloorAfterExposure) {
        return [Step::Expose, Step::Acknowledge, Step::Persist];
    }
    [Step::Persist, Step::Expose, Step::Acknowledge]
}

/// Removals: at once, as they only remove; told when none of ours can be forgotten (S2, S4).
pub fn removal_steps() -> [Step; 4] {
    if planted(Bug::AckBeforeDurable) {
        return [Step::Expose, Step::Drain, Step::Acknowledge, Step::Persist];
    }
    if planted(Bug::AckBeforeDrained) {
        return [Step::Expose, Step::Persist, Step::Acknowledge, Step::Drain];
    }
    [Step::Expose, Step::Persist, Step::Drain, Step::Acknowledge]
}

/// A heartbeat whose events have not all been taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    anchor: Span,
    head: Head,
}

/// Whether a number is beyond reason, after `known`.
fn far(number: u64, known: u64) -> bool {
    number > known.saturating_add(FAR)
}

/// A follower of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Follower {
    era: Option<Era>,
    /// What decisions are made by.
    exposed: Head,
    /// What is durable, and for removals drained: what may be told.
    acknowledged: Head,
    /// The furthest head heard of in this epoch, and when the registry said so.
    heard: Option<(Head, Timestamp)>,
    /// The ledger as last told in this epoch: what is told again is to be the same (L2).
    ledger: Option<(u64, Hash)>,
    sent: VecDeque<(Nonce, Span)>,
    pending: VecDeque<Pending>,
    contact: Contact,
    look: Option<(Timestamp, Span)>,
    distrusted: bool,
}

impl Follower {
    /// A follower that holds what was read back from disk, if anything.
    pub fn new(era: Option<Era>, head: Head) -> Self {
        Self {
            era,
            exposed: head,
            acknowledged: head,
            ..Self::default()
        }
    }

    /// Which history is followed.
    pub fn era(&self) -> Option<Era> {
        self.era
    }

    /// What decisions are made by.
    pub fn exposed(&self) -> Head {
        self.exposed
    }

    /// What may be told the registry.
    pub fn acknowledged(&self) -> Head {
        self.acknowledged
    }

    /// How decisions see the registry.
    pub fn contact(&self) -> Contact {
        self.contact
    }

    /// Whether two histories were seen: no exception is honoured until an operator acts (S12).
    pub fn distrusted(&self) -> bool {
        self.distrusted
    }

    /// Takes the registry to have told two histories, as it was seen before.
    pub fn distrust(&mut self) {
        self.distrusted = true;
        self.forget_contact();
    }

    /// Notes that `nonce` is sent at `elapsed`, when wall time is `wall`. False if the clock was
    /// set since the last look, or time was lost: then nothing heard before counts (T4).
    pub fn ask(&mut self, nonce: Nonce, elapsed: Span, wall: Timestamp) -> bool {
        let steady = self.look.is_none_or(|(then, at)| {
            let (walked, passed) = (wall - then, elapsed.saturating_sub(at));
            let off = walked.micros().abs_diff(passed.micros());
            off <= STEP.micros().unsigned_abs()
        });
        self.look = Some((wall, elapsed));
        if !steady {
            self.forget_contact();
        }
        if self.sent.len() >= OUTSTANDING {
            self.sent.pop_front();
        }
        self.sent.push_back((nonce, elapsed));
        steady
    }

    /// Another has taken this sidecar's place: whatever was answered here counts no more. Tells
    /// whether anything did.
    pub fn fence(&mut self) -> bool {
        let counted = self.contact.removals.is_some() || self.contact.state.is_some();
        self.forget_contact();
        counted
    }

    /// Anchors go; what the registry's time was no earlier than stays true.
    fn forget_contact(&mut self) {
        self.contact.removals = None;
        self.contact.state = None;
        self.pending.clear();
        self.sent.clear();
    }

    /// Enters an epoch; the first one seen, or a later one that begins beyond what is held. Tells
    /// whether it is another than before: then everything is to be fetched.
    ///
    /// # Errors
    ///
    /// Another log, an epoch that is over, or one that would lose what is held.
    pub fn enter(&mut self, beginning: &Beginning) -> Result<bool, Refused> {
        if self.distrusted {
            return Err(Refused::Distrusted);
        }
        let base = beginning.base;
        let epoch = self.era.map_or(0, |era| era.epoch);
        if far(beginning.era.epoch, epoch) || far(base.revision, self.exposed.revision) {
            return Err(Refused::FarAhead);
        }
        let Some(era) = self.era else {
            self.era = Some(beginning.era);
            return Ok(true);
        };
        if beginning.era == era {
            return Ok(false);
        }
        if beginning.era.log != era.log {
            return Err(Refused::OtherLog);
        }
        if beginning.era.epoch < era.epoch {
            return Err(Refused::OldEpoch);
        }
        if base.revision < self.exposed.revision {
            return Err(Refused::NewEpoch);
        }
        self.era = Some(beginning.era);
        // Removals are numbered anew; those that are held stay.
        self.exposed.sequence = 0;
        self.acknowledged.sequence = 0;
        self.heard = None;
        self.ledger = None;
        self.forget_contact();
        // A registry whose clock was ahead once is set right by an epoch, which people begin.
        self.contact = Contact::default();
        Ok(true)
    }

    /// Hears a heartbeat at `elapsed`.
    ///
    /// # Errors
    ///
    /// Why it does not count.
    pub fn hear(&mut self, heartbeat: &Heartbeat, elapsed: Span) -> Result<(), Refused> {
        if self.distrusted {
            return Err(Refused::Distrusted);
        }
        let era = self.era.ok_or(Refused::NewEpoch)?;
        if heartbeat.era.log != era.log {
            return Err(Refused::OtherLog);
        }
        if heartbeat.era.epoch < era.epoch {
            return Err(Refused::OldEpoch);
        }
        if heartbeat.era.epoch > era.epoch {
            return Err(Refused::NewEpoch);
        }
        let asked = self
            .sent
            .iter()
            .position(|(nonce, _)| *nonce == heartbeat.nonce);
        let sent = match asked.and_then(|at| self.sent.remove(at)) {
            Some((_, sent)) => sent,
            None if planted(Bug::ReplayAccepted) => elapsed,
            None => return Err(Refused::Unasked),
        };
        let known = self.heard.map_or(self.exposed, |(head, _)| head);
        if far(heartbeat.head.revision, known.revision)
            || far(heartbeat.head.sequence, known.sequence)
        {
            return Err(Refused::FarAhead);
        }
        if let Some((wall, at)) = self.look {
            let ours = wall + elapsed.saturating_sub(at);
            if heartbeat.time - ours > FUTURE && self.contact.time.is_some() {
                return Err(Refused::FarAhead);
            }
        }
        if let Some((head, time)) = self.heard
            && (heartbeat.head.revision < head.revision || heartbeat.head.sequence < head.sequence)
        {
            if heartbeat.time <= time {
                return Err(Refused::Behind);
            }
            self.distrust();
            return Err(Refused::Forked);
        }
        if heartbeat.head.revision < self.exposed.revision
            || heartbeat.head.sequence < self.exposed.sequence
        {
            return Err(Refused::Behind);
        }
        if self.contradicts(heartbeat.time, sent, elapsed) {
            return Err(Refused::EarlierTime);
        }
        if let (Some((size, root)), Some((again, other))) = (self.ledger, heartbeat.ledger)
            && size == again
            && root != other
        {
            self.distrust();
            return Err(Refused::Forked);
        }
        self.ledger = heartbeat.ledger.or(self.ledger);
        let latest = self.heard.map_or(heartbeat.time, |(_, time)| time);
        self.heard = Some((heartbeat.head, heartbeat.time.max(latest)));
        self.tell_time(heartbeat.time, sent, elapsed);
        let anchor = if planted(Bug::AnchorAtReceipt) {
            elapsed
        } else {
            sent
        };
        if self.pending.len() >= OUTSTANDING {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending {
            anchor,
            head: heartbeat.head,
        });
        self.promote();
        Ok(())
    }

    /// Takes the registry's time to have come to `time`, as it said to an earlier start: no clock
    /// goes behind that, ours or the registry's (T1).
    pub fn remember(&mut self, time: Timestamp) {
        self.contact.floor = self.contact.floor.max(Some(time));
    }

    /// Whether `time`, said between `sent` and `heard`, is earlier than what was said before: a
    /// clock that was set back revives nothing (T1).
    fn contradicts(&self, time: Timestamp, sent: Span, heard: Span) -> bool {
        let most = time + stretched(heard.saturating_sub(sent));
        let known = self.contact.time.map(|known| {
            let (lower, at) = known.earliest;
            let passed = heard.saturating_sub(at);
            lower + Span::from_micros(passed.micros().saturating_sub(drift(passed)))
        });
        let least = known.max(self.contact.floor);
        least.is_some_and(|least| least - most > STEP)
    }

    /// The registry said `time` somewhere between `sent` and `heard`.
    fn tell_time(&mut self, time: Timestamp, sent: Span, heard: Span) {
        let new = Bounds {
            earliest: (time, heard),
            latest: (time, sent),
        };
        let bounds = self.contact.time.map_or(new, |known| {
            // All lower lines rise alike, and so do all upper ones: the better one stays better.
            let lower = |(time, at): (Timestamp, Span)| {
                let passed = heard.saturating_sub(at);
                time + Span::from_micros(passed.micros().saturating_sub(drift(passed)))
            };
            let upper = |(time, at): (Timestamp, Span)| time + stretched(heard.saturating_sub(at));
            Bounds {
                earliest: if lower(known.earliest) > lower(new.earliest) {
                    known.earliest
                } else {
                    new.earliest
                },
                latest: if upper(known.latest) < upper(new.latest) {
                    known.latest
                } else {
                    new.latest
                },
            }
        });
        let at = Contact {
            time: Some(bounds),
            ..Contact::default()
        }
        .now(Now::exactly(time), heard);
        if at.earliest > at.latest {
            // No time fits everything that was said: a clock is wrong, ours or theirs.
            self.contact = Contact {
                time: Some(new),
                floor: self.contact.floor,
                ..Contact::default()
            };
            self.pending.clear();
        } else {
            self.contact.time = Some(bounds);
        }
    }

    /// Anchors move only once everything a heartbeat speaks of is in force (S7).
    fn promote(&mut self) {
        let ahead = planted(Bug::HeartbeatAhead);
        for pending in &self.pending {
            if ahead || pending.head.sequence <= self.exposed.sequence {
                self.contact.removals = self.contact.removals.max(Some(pending.anchor));
            }
            if ahead || pending.head.revision <= self.exposed.revision {
                self.contact.state = self.contact.state.max(Some(pending.anchor));
            }
        }
        let exposed = self.exposed;
        self.pending.retain(|pending| {
            pending.head.sequence > exposed.sequence || pending.head.revision > exposed.revision
        });
    }

    /// What to do with the changes after revision `after` up to `through`.
    ///
    /// # Errors
    ///
    /// Why they cannot be taken, and everything is to be fetched.
    pub fn delta(&self, era: Era, after: u64, through: u64) -> Result<Take, Resync> {
        if self.era != Some(era) {
            return Err(Resync::Era);
        }
        if through <= self.exposed.revision {
            return Ok(Take::Known);
        }
        if after != self.exposed.revision && !planted(Bug::GapAccepted) {
            return Err(Resync::Gap);
        }
        if far(through, self.exposed.revision) {
            return Err(Resync::FarAhead);
        }
        Ok(Take::Fresh)
    }

    /// What to do with everything as it was at `revision`.
    ///
    /// # Errors
    ///
    /// Why it may not replace what is held.
    pub fn snapshot(&self, era: Era, revision: u64) -> Result<Take, Resync> {
        if self.era != Some(era) {
            return Err(Resync::Era);
        }
        if revision < self.exposed.revision && !planted(Bug::RollbackAccepted) {
            return Err(Resync::Rollback);
        }
        if far(revision, self.exposed.revision) {
            return Err(Resync::FarAhead);
        }
        Ok(Take::Fresh)
    }

    /// What to do with the removals after `after` up to `through`: what they remove is removed
    /// whatever this says; it tells whether they count as everything up to there.
    ///
    /// # Errors
    ///
    /// Why they do not.
    pub fn removals(&self, era: Era, after: u64, through: u64) -> Result<Take, Resync> {
        if self.era != Some(era) {
            return Err(Resync::Era);
        }
        // What is in force and not yet durable is taken once more.
        if through <= self.acknowledged.sequence {
            return Ok(Take::Known);
        }
        if after > self.exposed.sequence && !planted(Bug::GapAccepted) {
            return Err(Resync::Gap);
        }
        if far(through, self.exposed.sequence) {
            return Err(Resync::FarAhead);
        }
        Ok(Take::Fresh)
    }

    /// Notes that decisions are made by everything up to `revision`.
    pub fn expose_state(&mut self, revision: u64) {
        self.exposed.revision = revision;
        self.promote();
    }

    /// Notes that decisions are made by every removal up to `sequence`.
    pub fn expose_removals(&mut self, sequence: u64) {
        self.exposed.sequence = self.exposed.sequence.max(sequence);
        self.promote();
    }

    /// Notes that `revision` is durable.
    pub fn acknowledge_state(&mut self, revision: u64) {
        self.acknowledged.revision = revision;
    }

    /// Notes that the removals up to `sequence` are durable and drained.
    pub fn acknowledge_removals(&mut self, sequence: u64) {
        self.acknowledged.sequence = self.acknowledged.sequence.max(sequence);
    }
}
