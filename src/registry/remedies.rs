//! Who remedies what fails, how and by when: it is disposed of for so long, and no longer than it may
//! stay.

use std::sync::Arc;

use crate::domain::{ControlId, Finding, Invalid, Principal, Remedy, SubjectId, Timestamp};

use super::{
    authn::Caller, core::Registry, ledger::bare, permission::answers_for_finding, role::Role,
    uncovered::put_findings, workflow::Refused,
};

/// Fewest characters of a plan.
const WORDS: usize = 20;

impl Registry {
    /// Writes down how and by when a finding is remedied.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub(super) async fn remedy(
        &self,
        caller: &Caller,
        control: &ControlId,
        subject: &SubjectId,
        plan: &str,
        until: Timestamp,
    ) -> Result<Arc<Finding>, Refused> {
        let by = Principal::parse(&caller.identity).map_err(Refused::Invalid)?;
        if plan.trim().chars().count() < WORDS {
            let what = format!("is shorter than {WORDS} characters");
            let plan = Invalid::new("plan", what, "say what is done about it");
            return Err(Refused::Invalid(plan));
        }
        self.write(|view, draft| {
            let key = Finding::key(control, subject);
            let known = view.findings.get(&key);
            let open = known.filter(|known| known.satisfied.is_none());
            let finding = open.ok_or_else(|| {
                Refused::NotFound(format!("`{control}` is not found to fail for `{subject}`"))
            })?;
            if caller.role != Role::Admin && !answers_for_finding(&caller.identity, view, finding) {
                return Err(Refused::Forbidden(format!(
                    "`{by}` answers neither for `{control}` nor for `{subject}`: its owner, a domain's above it or an administrator says how it is remedied"
                )));
            }
            if until <= draft.time {
                let until = Invalid::new("until", "is over", "name a time that is to come");
                return Err(Refused::Invalid(until));
            }
            if until > finding.due {
                return Err(Refused::Precondition(format!(
                    "it is to be remedied by {}, and a plan does not move that: name an earlier time, or ask for an exception",
                    finding.due
                )));
            }
            let remedy = Remedy {
                by: by.clone(),
                plan: plan.into(),
                until,
                time: draft.time,
            };
            let next = Finding {
                remedy: Some(remedy),
                ..(**finding).clone()
            };
            let told = Arc::new(next.clone());
            let mut planned = bare(view, draft, &caller.identity, "finding remedy");
            put_findings(view, vec![next], &mut planned);
            Ok((Some(planned), told))
        })
        .await
    }
}
