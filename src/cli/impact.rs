//! What an exception would have changed of what was decided before it: whoever approves one sees which
//! denials it ends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use serde_json::{Value as Json, json};

use crate::{
    domain::{
        Case, ControlState, Decision, Digest, Effect, Exception, ExceptionState, Kind, Now,
        Question, Reached, Reason, Span, Timestamp, UsageLimits,
    },
    engine::{Change, Snapshot, SnapshotError, as_seen},
    manifest::{exception_of, read_case, read_json},
    wire::{sync::kind_message, v1},
};

use super::{
    against::{Against, Reads},
    logged::{Flaws, Made, each, since},
    reach::{Registry, refused},
    review::plain,
    run::Exit,
    screen::{BAD, DIM, GOOD, styled},
};

/// Most kinds of calls that are listed.
const LISTED: usize = 5;
/// Reasons that lay in the sidecar's own state, in which it would have relied on nothing.
const STATE: [Reason; 4] = [
    Reason::SnapshotStale,
    Reason::ClockSkew,
    Reason::ExcLeaseLapsed,
    Reason::ExcEvidenceUnavailable,
];
/// What decisions are made from.
const KINDS: [Kind; 5] = [
    Kind::Domain,
    Kind::TierPolicy,
    Kind::Control,
    Kind::Subject,
    Kind::Exception,
];

/// What was decided before.
#[derive(Debug, Args)]
pub struct Before {
    /// A sidecar's decision log: say which of its denials this one would have ended.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// From when on: a length of time before now, or a time.
    #[arg(long, value_name = "SPAN|TIME", default_value = "24h")]
    pub since: String,
    /// When it would have been approved, RFC 3339 [now].
    #[arg(long, value_name = "TIME")]
    pub now: Option<String>,
}

/// Calls that are alike: who, what.
type Calls = (String, String);

/// What one exception would have changed.
#[derive(Debug, Default)]
pub(super) struct Impact {
    log: PathBuf,
    since: Option<Timestamp>,
    /// Denials by a control that it is from.
    denials: u64,
    /// Denials that it would have ended.
    ended: u64,
    calls: BTreeMap<Calls, (u64, String)>,
    /// Denials within its scope that it would not have ended, by why.
    stays: BTreeMap<String, u64>,
    /// Denials that cannot be asked again, by why.
    untold: BTreeMap<String, u64>,
    /// How often it may be used at all, and within an hour.
    limits: UsageLimits,
    flaws: Flaws,
}

/// An exception among what is governed, and what its own conditions read.
struct World {
    exception: Arc<Exception>,
    snapshot: Snapshot,
    now: Now,
    /// The same where just these controls fail: with it, and without.
    failing: HashMap<BTreeSet<String>, [Against; 2]>,
}

/// What a case would have changed of what a log tells, if it had been approved; nothing without a log.
pub(super) async fn impact(
    registry: &mut Registry,
    record: &str,
    before: &Before,
    now: Timestamp,
) -> Result<Option<Impact>, Exit> {
    let Some(log) = &before.log else {
        return Ok(None);
    };
    let now = match &before.now {
        Some(text) => {
            Timestamp::parse(text).map_err(|error| Exit::Usage(format!("--now: {error}")))?
        }
        None => now,
    };
    let since = since(&before.since, now)?;
    let case = read_case(record).map_err(|error| Exit::Unexpected(error.to_string()))?;
    let governed = governed(registry).await?;
    let mut world = World::of(&case, governed, now)?;
    let mut impact = Impact {
        log: log.clone(),
        since: Some(since),
        limits: case.request.usage_limits,
        ..Impact::default()
    };
    let mut trouble = Ok(());
    impact.flaws = each(log, since, |made, _, asked| {
        if trouble.is_ok() {
            trouble = impact.add(made, &mut world, asked);
        }
    })?;
    trouble?;
    Ok(Some(impact))
}

/// Everything that decisions are made from, as the registry holds it.
async fn governed(registry: &mut Registry) -> Result<Vec<Change>, Exit> {
    let mut changes = Vec::new();
    for kind in KINDS {
        let mut page_token = String::new();
        loop {
            let request = v1::ListObjectsRequest {
                kind: kind_message(kind),
                page_size: 1_000,
                page_token,
                ..v1::ListObjectsRequest::default()
            };
            let answer = registry.objects.list_objects(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            for object in &answer.objects {
                let change = read_json(kind, object.revision, &object.manifest);
                changes.push(change.map_err(|error| {
                    Exit::Unexpected(format!("{} {}: {error}", kind.name(), object.id))
                })?);
            }
            if answer.next_page_token.is_empty() {
                break;
            }
            page_token = answer.next_page_token;
        }
    }
    Ok(changes)
}

/// What there is after `changes`, and what of them does not fit.
fn taken(before: &Snapshot, changes: Vec<Change>) -> Result<(Snapshot, Vec<SnapshotError>), Exit> {
    let digest = Digest::parse("impact:world");
    let digest = digest.map_err(|error| Exit::Unexpected(error.to_string()))?;
    let revision = before.revision().saturating_add(1);
    Ok(before.taking(changes, digest, revision))
}

/// The same, where all of it has to fit: what cannot be read stands in for itself and denies, and
/// nothing could be told of that.
fn taken_whole(before: &Snapshot, changes: Vec<Change>) -> Result<Snapshot, Exit> {
    let (snapshot, errors) = taken(before, changes)?;
    match errors.first() {
        Some(error) => Err(Exit::Unexpected(error.to_string())),
        None => Ok(snapshot),
    }
}

impl World {
    fn of(case: &Case, mut governed: Vec<Change>, now: Timestamp) -> Result<Self, Exit> {
        let unfit = |why: String| Exit::Unexpected(format!("{}: {why}", case.id));
        // What is to be decided on: of one that was granted, as it is now.
        let case = &Case {
            terms: case.open_terms().cloned(),
            request: case.asked().clone(),
            ..case.clone()
        };
        let granted = exception_of(case, now).ok_or_else(|| {
            Exit::Invalid(format!(
                "{} has no terms yet that a log could be held against; submit it first",
                case.id
            ))
        })?;
        let granted = read_json(Kind::Exception, 1, &granted);
        let granted = granted.map_err(|error| unfit(error.to_string()))?;
        let Change::PutException(mut exception) = granted else {
            return Err(unfit("it is no exception".into()));
        };
        exception.state = ExceptionState::Approved;
        // Held against what is governed now, as if it were in force now: also one that is still to
        // begin, and one that is over.
        exception.effective_time = now;
        exception.expire_time = now + Span::from_secs(1);
        exception.next_revalidation_time = None;
        exception.revalidated_time = None;
        let now = Now::exactly(now);
        governed.retain(|change| !matches!(change, Change::PutException(of) if of.id == case.id));
        governed.push(Change::PutException(exception));
        let empty = Digest::parse("impact:empty").map_err(|error| unfit(error.to_string()))?;
        // What fits no longer grants nothing there either.
        let (snapshot, errors) = taken(&Snapshot::empty(empty), governed)?;
        let own = |error: &&SnapshotError| {
            error.source.kind == Kind::Exception.name() && error.source.id == case.id.as_str()
        };
        if let Some(error) = errors.iter().find(own) {
            return Err(unfit(error.to_string()));
        }
        let exception = snapshot.exception(case.id.as_str()).map(Arc::clone);
        let exception = exception.ok_or_else(|| unfit("it cannot be taken in".into()))?;
        Ok(Self {
            exception,
            snapshot,
            now,
            failing: HashMap::new(),
        })
    }

    /// What is governed, but that of the controls just these fail: a log says which did, and not
    /// always of what. A baseline gate that asks nothing of a call speaks of all of them, so one that did
    /// not fail is asked.
    fn where_fail(&mut self, controls: &BTreeSet<String>) -> Result<&[Against; 2], Exit> {
        if !self.failing.contains_key(controls) {
            let mut changes = Vec::new();
            for control in self.snapshot.controls() {
                let fails = controls.contains(control.id.as_str());
                let asks = |root: &str| control.failure_condition.contains(root);
                if control.baseline_gate && !fails && !asks("request.") && !asks("resource.") {
                    continue;
                }
                let mut control = (**control).clone();
                control.failure_condition = if fails { "true" } else { "false" }.into();
                control.applies_to.condition = None;
                control.stands_in = false;
                control.vectors = Vec::new();
                // What is active has to have vectors.
                if control.state == ControlState::Active {
                    control.state = ControlState::Deprecated;
                }
                for need in &mut control.evidence {
                    (need.facets, need.max_age, need.complete) = (Vec::new(), None, false);
                }
                changes.push(Change::PutControl(control));
            }
            let with = taken_whole(&self.snapshot, changes)?;
            let gone = vec![Change::RemoveException(self.exception.id.clone())];
            let without = taken_whole(&with, gone)?;
            let both = [with, without].map(|snapshot| {
                let reads = Reads::of_exception(&self.exception);
                Against::reading(snapshot, reads, self.now)
            });
            self.failing.insert(controls.clone(), both);
        }
        self.failing
            .get(controls)
            .ok_or_else(|| Exit::Unexpected("what was put in is gone".into()))
    }
}

/// Why a decision does not rest on an exception whose scope it is in.
fn against(exception: &Exception, decision: &Decision) -> String {
    let mut own = decision.exceptions.iter();
    let own = own.find(|result| result.exception.id == exception.id);
    if let Some(result) = own
        && let Some(reason) = result.effect.reason()
    {
        let why = match result.effect {
            Effect::ContextChanged(facet) => format!(" ({})", facet.name()),
            _ => String::new(),
        };
        return format!("it would be {}{why}", reason.name());
    }
    let mut others = decision.failed.iter().filter(|failed| failed.blocks());
    let other = others.find(|failed| !exception.controls.contains(&failed.control.id));
    other.map_or_else(
        || format!("it is {} whatever is excepted", decision.reason().name()),
        |failed| format!("{} denies it as well", failed.control.id),
    )
}

impl Impact {
    fn add(&mut self, made: &Made, world: &mut World, asked: Question) -> Result<(), Exit> {
        let exception = Arc::clone(&world.exception);
        let mut failed = made.controls.iter();
        let by = |id: &String| exception.controls.iter().any(|known| known.as_str() == id);
        if made.outcome != "deny" || !failed.any(by) {
            return Ok(());
        }
        self.denials = self.denials.saturating_add(1);
        let asked = as_seen(asked, &world.snapshot);
        let Some(subject) = world.snapshot.subject(asked.subject.as_str()) else {
            self.cannot_tell("the subject is not known any more".into());
            return Ok(());
        };
        let reached = Reached {
            subject: &subject.id,
            class: subject.class.as_ref(),
            action: &asked.action,
            resource: &asked.resource.id,
            environment: &subject.environment,
            purpose: asked.purpose.as_deref(),
            sensitivity: subject.data_sensitivity,
        };
        // Beyond its scope nothing changes, whatever the log leaves out.
        if exception.scope.missed(&reached).is_some() {
            return Ok(());
        }
        let own = |reason: &&String| STATE.iter().any(|it| it.name() == **reason);
        if let Some(reason) = made.reasons.iter().find(own) {
            self.cannot_tell(format!("it was {reason}, which lay in the sidecar"));
            return Ok(());
        }
        let controls = made.controls.iter().cloned().collect();
        let [with, without] = world.where_fail(&controls)?;
        let (with, without) = match (with.decides(made, &asked), without.decides(made, &asked)) {
            (Ok(with), Ok(without)) => (with, without),
            (Err(why), _) | (_, Err(why)) => {
                self.cannot_tell(why);
                return Ok(());
            }
        };
        if with.failed.is_empty() {
            let why = with.reason().name();
            self.cannot_tell(format!("it would be {why} by now, whatever is excepted"));
            return Ok(());
        }
        let gone = |id: &&String| {
            let mut failed = with.failed.iter();
            !failed.any(|failed| failed.control.id.as_str() == **id)
        };
        if let Some(id) = made.controls.iter().find(gone) {
            self.cannot_tell(format!("{id} is not what it was"));
            return Ok(());
        }
        if let Some(other) = without.relied_on().next() {
            let other = &other.id;
            self.cannot_tell(format!("{other} covers it by now, if it may still be used"));
            return Ok(());
        }
        if !with.relied_on().any(|known| known.id == exception.id) {
            let count = self.stays.entry(against(&exception, &with)).or_default();
            *count = count.saturating_add(1);
            return Ok(());
        }
        self.ended = self.ended.saturating_add(1);
        let what = format!("{} {}", made.action, made.resource);
        let calls = self.calls.entry((made.subject.clone(), what));
        let (count, _) = calls.or_insert_with(|| (0, made.id.clone()));
        *count = count.saturating_add(1);
        Ok(())
    }

    fn cannot_tell(&mut self, why: String) {
        let count = self.untold.entry(why).or_default();
        *count = count.saturating_add(1);
    }

    /// One line and what belongs to it, as a screen shows it.
    pub(super) fn lines(&self) -> Vec<String> {
        let since = self.since.map_or(String::new(), |at| at.to_string());
        let of = format!("of {} denials by its controls", self.denials);
        let mut lines = vec![format!(
            "would have ended {} {of} since {since}",
            styled(GOOD, &self.ended.to_string())
        )];
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by(|(a, (many, _)), (b, (few, _))| few.cmp(many).then_with(|| a.cmp(b)));
        for ((subject, what), (count, first)) in calls.iter().take(LISTED) {
            // What a caller said was logged as it came.
            let [subject, what, first] = [subject, what, first].map(|text| plain(text));
            let first = styled(DIM, &format!("first {first}"));
            lines.push(format!("{count:>6}  {subject}  {what}  {first}"));
        }
        let more = calls.iter().skip(LISTED).map(|(_, (count, _))| count);
        if calls.len() > LISTED {
            lines.push(format!("{:>6}  others", more.sum::<u64>()));
        }
        let limits = [
            self.limits.max_uses.map(|most| format!("{most} times")),
            self.limits
                .max_uses_per_hour
                .map(|most| format!("{most} times an hour")),
        ];
        let limits: Vec<_> = limits.into_iter().flatten().collect();
        if !limits.is_empty() && self.ended > 0 {
            let limits = limits.join(" and ");
            lines.push(format!(
                "{:>6}  but it may be used {limits} at the most",
                ""
            ));
        }
        for (why, count) in &self.stays {
            lines.push(format!("{count:>6}  would stay: {}", plain(why)));
        }
        for (why, count) in &self.untold {
            lines.push(format!("{count:>6}  cannot be told: {}", plain(why)));
        }
        if self.flaws.missed > 0 {
            lines.push(format!("{:>6}  were not logged", self.flaws.missed));
        }
        if let Some(place) = &self.flaws.first_torn {
            let torn = self.flaws.torn;
            let why = format!("{torn:>6}  lines cannot be read, the first is {place}");
            lines.push(styled(BAD, &why));
        }
        lines
    }

    /// The same, for programs.
    pub(super) fn json(&self) -> Json {
        let calls = self.calls.iter().map(|((subject, what), (count, first))| {
            json!({"subject": subject, "what": what, "count": count, "first": first})
        });
        json!({
            "log": self.log.display().to_string(),
            "since": self.since.map(|at| at.to_string()),
            "denials": self.denials,
            "ended": self.ended,
            "calls": calls.collect::<Json>(),
            "stays": self.stays,
            "untold": self.untold,
            "maxUses": self.limits.max_uses,
            "maxUsesPerHour": self.limits.max_uses_per_hour,
            "missed": self.flaws.missed,
            "unreadable": self.flaws.torn,
        })
    }
}
