//! Instances of classes: workloads that come and go faster than anybody governs them one by one.
//!
//! A registration is a lease, not a fact: it is in memory alone, ends by itself, and after a
//! restart those that still run are registered again by their sidecars (R31).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::{ClassId, Instances as Permitted, Span, Subject, SubjectId, Timestamp},
    engine::Snapshot,
};

use super::{core::Registry, scope::Scope, view::View};

/// Most instances at a time, and of one sidecar.
const MOST: usize = 100_000;
const EACH: usize = 10_000;
/// How often those that are over are looked for.
const SWEEP: Span = Span::from_secs(1);

/// One registered instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// What it is an instance of.
    pub class: ClassId,
    /// The sidecar that vouches for it.
    pub sidecar: Box<str>,
    /// Until when, unless it registers again.
    pub expire: Timestamp,
}

impl Registry {
    /// Under which subject a sidecar's words about `id` are kept: itself, or the class it is an
    /// instance of; nothing if the sidecar may know neither.
    pub(super) fn kept_under(
        &self,
        scope: &Scope,
        id: &SubjectId,
        view: &View,
    ) -> Option<SubjectId> {
        let now = self.clock.now().latest;
        let known = |id: &str| {
            let subject = view.snapshot.subject(id)?;
            let may = scope.may_know(subject, &view.snapshot);
            may.then(|| subject.id.clone())
        };
        known(id.as_str()).or_else(|| {
            let class = self.instances.class_of(id.as_str(), now)?;
            known(class.as_str())
        })
    }
}

/// Everybody who is registered.
#[derive(Debug, Default)]
pub(super) struct Instances {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    instances: BTreeMap<SubjectId, Instance>,
    /// How many each sidecar vouches for.
    counts: BTreeMap<Box<str>, usize>,
    swept: Option<Timestamp>,
}

impl Known {
    /// Forgets those that are over; at most once a second, as there may be many.
    fn sweep(&mut self, now: Timestamp) {
        if self.swept.is_some_and(|swept| now - swept < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.instances.retain(|_, instance| instance.expire > now);
        self.counts.clear();
        for instance in self.instances.values() {
            let count = self.counts.entry(instance.sidecar.clone()).or_default();
            *count = count.saturating_add(1);
        }
    }
}

impl Instances {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers `id` as an instance of `class`, or renews it; tells until when. Nothing if there
    /// are as many as there may be.
    pub(super) fn register(
        &self,
        id: &SubjectId,
        class: (&Subject, &Permitted),
        sidecar: &str,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let (class, permitted) = class;
        let mut known = self.known();
        let full = |known: &Known| {
            let own = known.counts.get(sidecar).copied().unwrap_or(0);
            known.instances.len() >= MOST || own >= EACH
        };
        let new = !known.instances.contains_key(id);
        if new && full(&known) {
            known.sweep(now);
            if full(&known) {
                tracing::error!(sidecar, most = EACH, "no more instances are registered");
                return None;
            }
        }
        let expire = now + permitted.lease;
        let instance = Instance {
            class: ClassId::parse(class.id.as_str()).ok()?,
            sidecar: sidecar.into(),
            expire,
        };
        if known.instances.insert(id.clone(), instance).is_none() {
            let count = known.counts.entry(sidecar.into()).or_default();
            *count = count.saturating_add(1);
            tracing::info!(instance = %id, class = %class.id, sidecar, "registered");
        }
        Some(expire)
    }

    /// Those that are registered now; the others are forgotten.
    pub(super) fn live(&self, now: Timestamp) -> BTreeMap<SubjectId, Instance> {
        let mut known = self.known();
        known.sweep(now);
        let live = known.instances.iter();
        live.filter(|(_, instance)| instance.expire > now)
            .map(|(id, instance)| (id.clone(), instance.clone()))
            .collect()
    }

    /// Whether `id` is registered now, and for which class.
    pub(super) fn class_of(&self, id: &str, now: Timestamp) -> Option<ClassId> {
        let known = self.known();
        let instance = known.instances.get(id)?;
        (instance.expire > now).then(|| instance.class.clone())
    }
}

/// The class that permits `id` as an instance of it: the one that means it most exactly. Where two
/// mean it alike, none does.
pub(super) fn class_of<'a>(
    id: &SubjectId,
    classes: impl Iterator<Item = &'a str>,
    view: &'a Snapshot,
) -> Option<(&'a Subject, &'a Permitted)> {
    let mut best: Option<(usize, &Subject, &Permitted)> = None;
    let mut twice = false;
    for class in classes.filter_map(|class| view.subject(class)) {
        let Some(permitted) = &class.instances else {
            continue;
        };
        let Some(fit) = permitted.fit(id) else {
            continue;
        };
        let known = best.map_or(0, |(known, ..)| known);
        twice = fit == known || (twice && fit < known);
        if fit > known {
            best = Some((fit, class, permitted));
        }
    }
    if twice {
        tracing::warn!(instance = %id, "two classes claim it alike, so it is an instance of neither");
        return None;
    }
    best.map(|(_, class, permitted)| (class, permitted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Pattern;
    use crate::engine::Change;
    use crate::testing::{noon, subject};

    fn class(id: &str, identities: &[&str]) -> Subject {
        let mut class = subject(id);
        class.instances = Some(Permitted {
            identities: identities
                .iter()
                .map(|text| Pattern::parse(text).unwrap())
                .collect(),
            lease: Span::from_secs(60),
        });
        class
    }

    #[test]
    fn r31_the_class_that_means_an_identity_most_exactly_has_it() {
        let classes = [
            class("wide", &["spiffe://acme.example/"]),
            class("narrow", &["spiffe://acme.example/agent/"]),
            class("also", &["spiffe://acme.example/batch/"]),
            class("twin", &["spiffe://acme.example/batch/"]),
        ];
        let changes = classes.iter().cloned().map(Change::PutSubject).collect();
        let digest = crate::domain::Digest::parse("sha256:0").unwrap();
        let view = Snapshot::empty(digest.clone())
            .after(changes, digest, 1)
            .unwrap();
        let names = ["wide", "narrow", "also", "twin"];
        let of = |id: &str| {
            let id = SubjectId::parse(id).unwrap();
            let forth =
                class_of(&id, names.into_iter(), &view).map(|(class, _)| class.id.to_string());
            let back = class_of(&id, names.into_iter().rev(), &view)
                .map(|(class, _)| class.id.to_string());
            assert_eq!(forth, back, "the order does not matter");
            forth
        };
        assert_eq!(
            of("spiffe://acme.example/agent/a-1").as_deref(),
            Some("narrow")
        );
        assert_eq!(of("spiffe://acme.example/other").as_deref(), Some("wide"));
        assert_eq!(of("spiffe://acme.example/batch/b-1"), None, "two claim it");
        assert_eq!(of("spiffe://evil.example/agent/a-1"), None);
    }

    #[test]
    fn r31_a_registration_ends_by_itself() {
        let instances = Instances::default();
        let class = class("c", &["a/"]);
        let permitted = class.instances.clone().unwrap();
        let id = SubjectId::parse("a/1").unwrap();
        let until = instances.register(&id, (&class, &permitted), "s", noon());
        assert_eq!(until, Some(noon() + Span::from_secs(60)));
        assert!(
            instances
                .class_of("a/1", noon() + Span::from_secs(59))
                .is_some()
        );
        assert!(
            instances
                .class_of("a/1", noon() + Span::from_secs(60))
                .is_none()
        );
        assert_eq!(instances.live(noon() + Span::from_secs(60)).len(), 0);
    }
}
