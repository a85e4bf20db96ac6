//! `decide(question, snapshot, now)`: the decision, pure and total (governance §7.5).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::domain::{
    Completeness, ControlResult, Decision, Dimension, Effect, Enforcement, ExceptionResult,
    Fingerprint, Lifecycle, NextAction, Now, Outcome, Pattern, Question, Reached, Reason, Ref,
    Subject, SubjectId, Timestamp, Trouble, TroubleKind, UsageLimits, Value, Verdict,
    WhenUngoverned,
};

use super::{
    condition::{Condition, Frame},
    effective::{Standing, edges, effective, fresh},
    index::{Entry, Grant, Grants, Rule},
    snapshot::Snapshot,
};

/// Parts of the request's context by slot.
pub(super) type Slots<'a> = SmallVec<[Option<&'a Value>; 16]>;

/// The one answer to `question` at `now`, from one snapshot.
///
/// Every control that applies is evaluated before any exception is looked at. What cannot be told
/// counts as failed; nothing is ever allowed by accident.
pub fn decide(question: &Question, snapshot: &Snapshot, now: Now) -> Decision {
    let Some((subject, entry)) = known(question, snapshot) else {
        return refuse(Reason::SubjectUnknown, NextAction::Retry);
    };
    let removed = snapshot.removed();
    if subject.lock.is_some() || removed.locks(subject) {
        return refuse(Reason::SubjectLocked, NextAction::None);
    }
    if subject.lifecycle == Lifecycle::Retired || removed.retires(subject) {
        return refuse(Reason::SubjectRetired, NextAction::None);
    }
    let slots = slots(question, snapshot);
    let frame = frame(question, subject, snapshot, &slots, now);
    let class = subject
        .class
        .as_ref()
        .and_then(|class| snapshot.class_grants(class));
    let mut asked = Asked {
        question,
        snapshot,
        subject,
        frame: &frame,
        now,
        entry,
        class,
        weighed: SmallVec::new(),
        baseline: None,
    };

    let (mut applied, mut passed) = (0_u32, 0_u32);
    let mut failed: SmallVec<[ControlResult; 2]> = SmallVec::new();
    let mut bare: SmallVec<[&Arc<Rule>; 2]> = SmallVec::new();
    for rule in snapshot
        .rules
        .for_action(&question.action)
        .filter(|rule| applies(rule, question, &frame))
    {
        applied = applied.saturating_add(1);
        let verdict = judge(rule, subject, &frame, now);
        if verdict == Verdict::Pass {
            passed = passed.saturating_add(1);
            if asked.has_grants() {
                asked.weigh(rule, false);
            }
        } else {
            if asked.baseline.is_none() && rule.control.baseline_gate {
                asked.baseline = Some(true);
            }
            failed.push(ControlResult {
                control: Arc::clone(&rule.control),
                verdict,
            });
            bare.push(rule);
        }
    }
    if applied == 0 {
        return match snapshot.when_ungoverned(subject.domain.as_ref()) {
            WhenUngoverned::Deny => refuse(Reason::NoControl, NextAction::None),
            WhenUngoverned::Allow => Decision {
                outcome: Outcome::Allow,
                reasons: SmallVec::from_slice(&[Reason::Ok]),
                next_action: NextAction::None,
                ..refuse(Reason::Ok, NextAction::None)
            },
        };
    }
    for rule in bare {
        if rule.control.enforcement != Enforcement::HardMandatory {
            asked.weigh(rule, true);
        }
    }
    conclude(&asked, passed, failed)
}

/// What is governed about the question's subject.
pub(super) fn known<'a>(
    question: &Question,
    snapshot: &'a Snapshot,
) -> Option<(&'a Arc<Subject>, &'a Entry)> {
    let entry = snapshot.entry(&question.subject)?;
    Some((entry.subject.as_ref()?, entry))
}

fn refuse(reason: Reason, next_action: NextAction) -> Decision {
    Decision {
        outcome: Outcome::Deny,
        reasons: SmallVec::from_slice(&[reason]),
        passed: 0,
        failed: SmallVec::new(),
        exceptions: SmallVec::new(),
        drift: Vec::new(),
        valid_until: Timestamp::MAX,
        next_action,
    }
}

/// The request's context matched once against what conditions read of it.
pub(super) fn slots<'a>(question: &'a Question, snapshot: &Snapshot) -> Slots<'a> {
    super::world::slots(question, snapshot.rules.names())
}

pub(super) fn frame<'a>(
    question: &'a Question,
    subject: &'a Subject,
    snapshot: &'a Snapshot,
    slots: &'a [Option<&'a Value>],
    now: Now,
) -> Frame<'a> {
    let mut frame = Frame::new(now.latest);
    frame.subject = fields(&subject.attributes);
    if snapshot.rules.reads_resource {
        frame.resource = snapshot
            .resource(question)
            .and_then(|resource| fields(&resource.attributes));
    }
    frame.question = Some(question);
    frame.tool = question.resource.tool();
    frame.slots = slots;
    frame
}

pub(super) fn fields(value: &Value) -> Option<&[Option<Value>]> {
    if let Ref::Record(fields) = value.as_ref() {
        Some(fields)
    } else {
        None
    }
}

/// Whether a control is held against the question; where that cannot be told, it is.
pub(super) fn applies(rule: &Rule, question: &Question, frame: &Frame<'_>) -> bool {
    let in_reach = || {
        let reach = &rule.control.applies_to;
        reach
            .resource_types
            .holds(|kind| **kind == *question.resource.kind)
            && (reach
                .resources
                .holds(|pattern| pattern.matches(&question.resource.id))
                || Pattern::is_ambiguous(&question.resource.id))
    };
    (rule.anywhere || in_reach())
        && rule
            .reach
            .as_ref()
            .is_none_or(|reach| reach.holds(frame) != Ok(false))
}

/// What a control says: its evidence first, then its condition.
pub(super) fn judge(rule: &Rule, subject: &Subject, frame: &Frame<'_>, now: Now) -> Verdict {
    let trouble = |kind| Verdict::Indeterminate(Trouble { kind, at: 0 });
    if rule.control.stands_in {
        return trouble(TroubleKind::NotRead);
    }
    for need in &rule.needs {
        let Some(state) = subject.facet(need.facet) else {
            return trouble(TroubleKind::FacetMissing(need.facet));
        };
        if need.complete && state.completeness != Completeness::Complete {
            return trouble(TroubleKind::FacetIncomplete(need.facet));
        }
        if let Some(max_age) = need.max_age {
            if !fresh(state.observed_time, now, max_age) {
                return trouble(TroubleKind::FacetStale(need.facet));
            }
            frame.note_edge(state.observed_time + max_age);
        }
    }
    match rule.fails.holds(frame) {
        Ok(false) => Verdict::Pass,
        Ok(true) => Verdict::Fail,
        Err(trouble) => Verdict::Indeterminate(trouble),
    }
}

/// One exception that names a control which applies.
struct Weighed<'a> {
    grant: &'a Arc<Grant>,
    /// What stands against it; nothing if it is ready.
    against: Option<Effect>,
    /// Whether any control it names has failed.
    needed: bool,
}

/// A question with everything gathered about it so far.
struct Asked<'a> {
    question: &'a Question,
    snapshot: &'a Snapshot,
    subject: &'a Subject,
    frame: &'a Frame<'a>,
    now: Now,
    entry: &'a Entry,
    class: Option<&'a Grants>,
    weighed: SmallVec<[Weighed<'a>; 2]>,
    baseline: Option<bool>,
}

impl<'a> Asked<'a> {
    fn has_grants(&self) -> bool {
        !self.entry.grants.is_empty() || self.class.is_some_and(|grants| !grants.is_empty())
    }

    fn naming(&self, rule: &Rule) -> SmallVec<[&'a Arc<Grant>; 4]> {
        let own = self.entry.grants.naming(rule);
        own.chain(
            self.class
                .into_iter()
                .flat_map(|grants| grants.naming(rule)),
        )
        .filter(|grant| grant.exception.controls.contains(&rule.control.id))
        .collect()
    }

    /// Weighs every exception that names `rule`, once each.
    fn weigh(&mut self, rule: &Rule, needed: bool) {
        for grant in self.naming(rule) {
            if let Some(known) = self
                .weighed
                .iter_mut()
                .find(|known| Arc::ptr_eq(known.grant, grant))
            {
                known.needed |= needed;
                continue;
            }
            let against = self.against(grant);
            self.weighed.push(Weighed {
                grant,
                against,
                needed,
            });
        }
    }

    fn against(&mut self, grant: &'a Grant) -> Option<Effect> {
        let baseline_failing = self.baseline_failing();
        let exception = &grant.exception;
        let domain = self.subject.domain.as_ref();
        let rules = self.snapshot.tier_within(exception.tier, domain);
        for edge in edges(exception, rules, self.subject, self.now) {
            self.frame.note_edge(edge);
        }
        let exhausted = self.snapshot.is_exhausted(&exception.id);
        let standing = Standing {
            revoked: self.snapshot.is_revoked(exception, self.subject),
            baseline_failing,
            exhausted,
        };
        effective(
            exception,
            rules,
            self.subject,
            &self.question.observed,
            self.now,
            standing,
        )
        .or_else(|| self.outside(grant).map(Effect::OutOfScope))
        .or_else(|| {
            let frame = self
                .frame
                .with_exception(grant.record.as_ref().and_then(fields));
            let unmet = (0..=u8::MAX)
                .zip(&*grant.compensates)
                .find(|(_, condition)| {
                    !reported(condition, self.subject) || condition.holds(&frame) != Ok(true)
                });
            self.frame.absorb(&frame);
            unmet.map(|(at, _)| Effect::CompensationFailed(at))
        })
    }

    /// The first dimension of the scope that does not match, if any.
    fn outside(&self, grant: &'a Grant) -> Option<Dimension> {
        outside(grant, self.question, self.subject, self.frame)
    }

    /// Whether any baseline gate that applies to the subject fails, whichever action was asked for.
    fn baseline_failing(&mut self) -> bool {
        *self.baseline.get_or_insert_with(|| {
            self.snapshot.rules.gates().any(|rule| {
                // A gate that reads the request or resource speaks only of the questions it is held against.
                let here = !(rule.fails.reads_request() || rule.fails.reads_resource())
                    || rule
                        .control
                        .applies_to
                        .actions
                        .holds(|action| **action == *self.question.action)
                        && applies(rule, self.question, self.frame);
                here && rule
                    .reach
                    .as_ref()
                    .is_none_or(|reach| reach.holds(self.frame) != Ok(false))
                    && judge(rule, self.subject, self.frame, self.now) != Verdict::Pass
            })
        })
    }
}

/// Whether somebody reported everything a condition walks over: an empty list that nobody
/// reported proves nothing (R3).
fn reported(condition: &Condition, subject: &Subject) -> bool {
    condition.facets().all(|facet| {
        subject
            .facet(facet)
            .is_some_and(|state| state.completeness == Completeness::Complete)
    })
}

/// The first dimension of an exception's scope that a question misses: AND across dimensions, OR
/// inside one.
pub(super) fn outside<'a>(
    grant: &'a Grant,
    question: &'a Question,
    subject: &Subject,
    frame: &Frame<'a>,
) -> Option<Dimension> {
    let scope = &grant.exception.scope;
    let reached = Reached {
        subject: &subject.id,
        class: subject.class.as_ref(),
        action: &question.action,
        resource: &question.resource.id,
        environment: &subject.environment,
        purpose: question.purpose.as_deref(),
        sensitivity: subject.data_sensitivity,
    };
    scope.missed(&reached).or_else(|| {
        let condition = grant.matches.as_ref()?;
        let own = frame.with_exception(grant.record.as_ref().and_then(fields));
        let holds = reported(condition, subject) && condition.holds(&own) == Ok(true);
        frame.absorb(&own);
        (!holds).then_some(Dimension::Condition)
    })
}

fn lacks_resource(verdict: Verdict) -> bool {
    let Verdict::Indeterminate(trouble) = verdict else {
        return false;
    };
    trouble.kind == TroubleKind::ResourceUnknown
}

/// Whether a subject may say anything at all: it is known, and neither frozen nor out of use.
pub fn may_speak(subject: &SubjectId, snapshot: &Snapshot) -> bool {
    let removed = snapshot.removed();
    snapshot.subject(subject.as_str()).is_some_and(|subject| {
        subject.lock.is_none()
            && !removed.locks(subject)
            && subject.lifecycle != Lifecycle::Retired
            && !removed.retires(subject)
    })
}

/// From what every control and exception said to the outcome and its reasons.
fn conclude(asked: &Asked<'_>, passed: u32, mut failed: SmallVec<[ControlResult; 2]>) -> Decision {
    let mut relied: SmallVec<[&Arc<Grant>; 2]> = SmallVec::new();
    let mut reasons: SmallVec<[Reason; 4]> = SmallVec::new();
    let mut say = |reason| {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    let (mut denied, mut requestable, mut retry) = (false, true, false);
    for result in failed.iter().filter(|result| result.blocks()) {
        let control = &result.control;
        if control.enforcement == Enforcement::HardMandatory {
            denied = true;
            // What is not here yet may be on its way; else nothing helps.
            if asked.snapshot.fetches() && lacks_resource(result.verdict) {
                retry = true;
            } else {
                requestable = false;
            }
            say(Reason::HardMandatory);
            if control.baseline_gate {
                say(Reason::BaselineBreach);
            }
            if result.verdict != Verdict::Fail {
                say(Reason::ControlError);
            }
            continue;
        }
        let naming = || {
            asked
                .weighed
                .iter()
                .filter(|weighed| weighed.grant.exception.controls.contains(&control.id))
        };
        // No union of scopes: one exception covers the control alone, or it is not covered (D10).
        let best = naming()
            .filter(|weighed| weighed.against.is_none())
            .map(|weighed| weighed.grant)
            .min_by(|a, b| {
                let rank = |grant: &Grant| (grant.width, grant.exception.expire_time);
                rank(a)
                    .cmp(&rank(b))
                    .then_with(|| a.exception.id.cmp(&b.exception.id))
            });
        let Some(grant) = best else {
            denied = true;
            say(if result.verdict == Verdict::Fail {
                Reason::ControlFailed
            } else {
                Reason::ControlError
            });
            let awaits = asked.snapshot.fetches() && lacks_resource(result.verdict);
            retry |= awaits || asked.snapshot.is_reading();
            for reason in naming().filter_map(|weighed| weighed.against?.reason()) {
                retry |= matches!(
                    reason,
                    Reason::ExcLeaseLapsed | Reason::ClockSkew | Reason::ExcEvidenceUnavailable
                );
                say(reason);
            }
            continue;
        };
        // A use that is counted is for one answer.
        if grant.exception.usage_limits != UsageLimits::default() {
            asked.frame.note_edge(asked.now.latest);
        }
        relied.push(grant);
    }
    let outcome = match (denied, relied.is_empty()) {
        (true, _) => Outcome::Deny,
        (false, true) => Outcome::Allow,
        (false, false) => Outcome::AllowByException,
    };
    if !denied {
        say(Reason::Ok);
    }
    reasons.sort_unstable();
    let mut exceptions: SmallVec<[ExceptionResult; 2]> = asked
        .weighed
        .iter()
        .filter_map(|weighed| {
            let chosen = || {
                outcome == Outcome::AllowByException
                    && relied.iter().any(|grant| Arc::ptr_eq(grant, weighed.grant))
            };
            let effect = match weighed.against {
                None if chosen() => Effect::ReliedOn,
                None => Effect::NotNeeded,
                // Of an exception that was not needed only a match is worth telling.
                Some(against) if weighed.needed => against,
                Some(_) => return None,
            };
            Some(ExceptionResult {
                exception: Arc::clone(&weighed.grant.exception),
                effect,
            })
        })
        .collect();
    exceptions.sort_unstable_by(|a, b| a.exception.id.cmp(&b.exception.id));
    failed.sort_by(|a, b| a.control.id.cmp(&b.control.id));
    let drift = drift(&asked.question.observed, asked.subject);
    Decision {
        outcome,
        reasons,
        passed,
        failed,
        exceptions,
        drift,
        valid_until: asked.frame.edge(),
        next_action: match (denied, retry, requestable) {
            (true, true, true) => NextAction::Retry,
            (true, false, true) => NextAction::Request,
            (false, ..) | (true, _, false) => NextAction::None,
        },
    }
}

/// Facets the caller saw to differ from what is governed (R9).
fn drift(observed: &Fingerprint, subject: &Subject) -> Vec<crate::domain::Facet> {
    if observed.is_empty() {
        Vec::new()
    } else {
        observed.changed(&subject.fingerprint).collect()
    }
}
