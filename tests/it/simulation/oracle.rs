//! What may never happen, judged with true time and the knowledge of everything.

use std::collections::{BTreeMap, BTreeSet};

use exeat::{
    domain::{Era, Head, Span, Target},
    engine::bound,
};

use super::disk::Objects;

/// Everything that was ever committed, and what was promised about it.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Of each exception: when it was revoked, and how long it may be honoured after that.
    revoked: BTreeMap<String, (i64, Span)>,
    /// When each exception begins and ends, and when it was withdrawn, with how long a state may be
    /// old.
    windows: BTreeMap<String, (i64, i64)>,
    withdrawn: BTreeMap<String, (i64, Span)>,
    /// Which sidecar has exposed which revocation, and when.
    exposed: BTreeMap<(usize, String), i64>,
    /// Which sidecar has acknowledged which revocation, as the registry knows it.
    acknowledged: BTreeSet<(usize, String)>,
    /// True time after which, by a receipt, nobody honours an exception.
    effective: BTreeMap<String, i64>,
    /// How far each sidecar ever was.
    floors: BTreeMap<usize, (Era, Head)>,
    pub(crate) violations: Vec<String>,
}

impl Oracle {
    fn violated(&mut self, what: String) {
        if self.violations.len() < 5 {
            self.violations.push(what);
        }
    }

    pub(crate) fn revoked(&mut self, exception: &str, at: i64, lease: Span) {
        self.revoked.entry(exception.into()).or_insert((at, lease));
    }

    pub(crate) fn granted(&mut self, exception: &str, from: i64, until: i64) {
        self.windows.insert(exception.into(), (from, until));
    }

    /// It is not among what is governed any more, without a word on the lane of removals.
    pub(crate) fn withdrawn(&mut self, exception: &str, at: i64, staleness: Span) {
        self.withdrawn
            .entry(exception.into())
            .or_insert((at, staleness));
    }

    /// A restore brought it back.
    pub(crate) fn back(&mut self, exception: &str) {
        self.withdrawn.remove(exception);
    }

    /// A restore lost a revocation: who never heard of it cannot be held to the bound, until it is
    /// given back or done again.
    pub(crate) fn lost(&mut self, exception: &str) {
        self.revoked.remove(exception);
        self.effective.remove(exception);
    }

    pub(crate) fn removal_exposed(&mut self, sidecar: usize, target: &Target, now: i64) {
        let place = (sidecar, target.id().to_owned());
        self.exposed.entry(place).or_insert(now);
    }

    /// A sidecar crashed: what it had not written it does not have.
    pub(crate) fn crashed(&mut self, sidecar: usize, durable: &BTreeSet<String>) {
        self.exposed
            .retain(|(of, target), _| *of != sidecar || durable.contains(target));
    }

    pub(crate) fn removal_acknowledged(&mut self, sidecar: usize, target: &str) {
        self.acknowledged.insert((sidecar, target.to_owned()));
    }

    pub(crate) fn receipt(&mut self, exception: &str, effective: i64) {
        let known = self.effective.entry(exception.into()).or_insert(effective);
        *known = (*known).min(effective);
    }

    /// A decision honoured an exception: it began then, and its answer leaves now.
    pub(crate) fn honoured(&mut self, sidecar: usize, exception: &str, began: i64, now: i64) {
        let id = exception.to_owned();
        if let Some((at, lease)) = self.revoked.get(&id).copied() {
            let late = now - at - bound(lease).micros();
            if late > 0 {
                self.violated(format!(
                    "S3: sidecar {sidecar} honours {id} {} s after it was revoked",
                    (now - at) / 1_000_000
                ));
            }
        }
        if let Some((at, staleness)) = self.withdrawn.get(&id).copied()
            && now - at - bound(staleness).micros() > 0
        {
            self.violated(format!(
                "S3: sidecar {sidecar} honours {id} {} s after it was withdrawn",
                (now - at) / 1_000_000
            ));
        }
        // What time it is, is judged as the decision begins.
        if let Some((from, until)) = self.windows.get(&id).copied() {
            if began >= until {
                self.violated(format!(
                    "T2: sidecar {sidecar} honours {id} {} s after it expired",
                    (began - until) / 1_000_000
                ));
            }
            if began < from {
                self.violated(format!(
                    "D1: sidecar {sidecar} honours {id} {} s before it begins",
                    (from - began) / 1_000_000
                ));
            }
        }
        let exposed = self.exposed.get(&(sidecar, id.clone()));
        if exposed.is_some_and(|exposed| began > *exposed) {
            self.violated(format!(
                "S4: sidecar {sidecar} honours {id}, whose revocation it had in force"
            ));
        }
        if self.acknowledged.contains(&(sidecar, id.clone())) {
            self.violated(format!(
                "S2: sidecar {sidecar} honours {id}, whose revocation it acknowledged"
            ));
        }
        if let Some(effective) = self.effective.get(&id).copied()
            && now > effective
        {
            self.violated(format!(
                "receipt: sidecar {sidecar} honours {id} {} s after nobody could",
                (now - effective) / 1_000_000
            ));
        }
    }

    /// A sidecar decides by `objects`, which are said to be everything at `head`.
    pub(crate) fn exposes(
        &mut self,
        sidecar: usize,
        era: Era,
        head: Head,
        objects: &Objects,
        truth: Option<&Objects>,
    ) {
        if let Some((known, floor)) = self.floors.get(&sidecar).copied() {
            let back = (era.epoch, head.revision) < (known.epoch, floor.revision)
                || head.revision < floor.revision;
            if back {
                self.violated(format!(
                    "S1: sidecar {sidecar} went from {} back to {}",
                    floor.revision, head.revision
                ));
            }
        }
        self.floors.insert(sidecar, (era, head));
        if truth.is_some_and(|truth| truth != objects) {
            self.violated(format!(
                "S5: sidecar {sidecar} at revision {} holds something else than the log says",
                head.revision
            ));
        }
    }

    /// A sidecar started anew, and this is how far its removals reach on disk.
    pub(crate) fn restarted(&mut self, sidecar: usize, told: u64, durable: u64) {
        if durable < told {
            self.violated(format!(
                "S4: sidecar {sidecar} acknowledged removal {told} and kept {durable}"
            ));
        }
    }

    pub(crate) fn froze(&mut self, sidecar: usize, frozen: bool, truth: bool) {
        if frozen != truth {
            self.violated(format!(
                "freeze: sidecar {sidecar} has it {frozen}, and the last word was {truth}"
            ));
        }
    }

    /// In the end: a revocation that any sidecar has for good and the registry has not.
    pub(crate) fn forgotten(&mut self, exception: &str) {
        self.violated(format!(
            "S4: the registry forgot the revocation of {exception}, which a sidecar holds"
        ));
    }

    /// The registry told one history.
    pub(crate) fn distrusts(&mut self, sidecar: usize) {
        self.violated(format!(
            "Y6: sidecar {sidecar} distrusts a registry that has told one history"
        ));
    }

    pub(crate) fn left_behind(&mut self, sidecar: usize, at: Head, head: Head) {
        self.violated(format!(
            "Y1: without faults sidecar {sidecar} stays at {at:?}, and the head is {head:?}"
        ));
    }
}
