//! Which facet of a subject has changed since it was approved, from what it was then (R36).

use std::collections::BTreeMap;

use crate::{
    domain::{ControlId, Digest, Edit, Facet, Fingerprint, Kind, Name, Subject, SubjectId},
    engine::{
        Change, approved_as,
        rounds::{Round, reads_fingerprint},
    },
    manifest::change,
};

use super::{
    core::Registry,
    store::{StoreError, Stored},
    view::View,
};

/// Most subjects of one run that are looked up.
const MOST: usize = 200;
/// Most revisions of a subject that are looked through.
const PAST: usize = 100;

/// What has changed, by subject.
pub(super) type Shifts = BTreeMap<SubjectId, String>;

/// Says of each fault what has changed.
pub(super) fn name(shifts: &Shifts, round: &mut Round) {
    for (subject, _, message) in &mut round.faults {
        if let Some(shift) = shifts.get(subject) {
            *message = format!("{message}; {shift}");
        }
    }
}

fn subject_of(stored: Stored) -> Option<Subject> {
    let edit = Edit {
        name: stored.name,
        revision: stored.revision,
        manifest: stored.manifest,
    };
    match change(&edit).ok()? {
        Change::PutSubject(subject) => Some(subject),
        _ => None,
    }
}

fn named(now: &Fingerprint, then: &Fingerprint, revision: u64) -> String {
    let facets: Vec<_> = now.changed(then).map(Facet::name).collect();
    let (what, verb) = match facets.as_slice() {
        [one] => (format!("facet {one}"), "has"),
        many => (format!("facets {}", many.join(", ")), "have"),
    };
    format!("{what} {verb} changed since revision {revision}, which was approved")
}

impl Registry {
    /// What has changed of the subjects that a control fails for, if it looks at what they are as a
    /// whole.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(super) async fn shifts(
        &self,
        control: &ControlId,
        round: &Round,
        view: &View,
    ) -> Result<Shifts, StoreError> {
        let mut shifts = Shifts::new();
        if !reads_fingerprint(control, &view.snapshot) {
            return Ok(shifts);
        }
        for (id, ..) in round.faults.iter().take(MOST) {
            let Some(subject) = view.snapshot.subject(id.as_str()) else {
                continue;
            };
            let Some(approved) = approved_as(subject).and_then(|text| Digest::parse(text).ok())
            else {
                continue;
            };
            let name = Name::new(Kind::Subject, id.as_str());
            let past = self.store.history(&name, u64::MAX, PAST).await?;
            let then = past
                .into_iter()
                .filter_map(|stored| Some((stored.revision, subject_of(stored)?)))
                .find(|(_, then)| then.combined == approved);
            let shift = match then {
                Some((revision, then)) => named(&subject.fingerprint, &then.fingerprint, revision),
                None => "what was approved is none of what it has been here".to_owned(),
            };
            shifts.insert(id.clone(), shift);
        }
        Ok(shifts)
    }
}
