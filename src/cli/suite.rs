//! Test suites: questions with a fixed time, and the answers they must get.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::{
    domain::{Decision, Dimension, Effect, Invalid, Kind, Now, Question, SubjectId, Timestamp},
    engine::{Change, Snapshot, as_seen, decide},
    manifest::{Bundle, Places, Problem, SubjectManifest, Tree, options, said, split},
    wire::{question, v1},
};

use super::asked::CheckSpec;

/// A suite of tests. Documents after the first are manifests that belong to it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Test")]
pub struct Suite {
    /// What it is about.
    pub suite: String,
    /// The folder of manifests it is run against, from the suite's own folder.
    pub bundle: Option<String>,
    /// The time at which its questions are asked.
    pub now: String,
    /// The tests.
    pub tests: Vec<Case>,
}

/// A question and what must be answered.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Why it is not run, if it is not.
    skip: Option<String>,
    /// The exceptions there are; all of the bundle, if left out.
    with: Option<Vec<String>>,
    /// Changes of governed metadata before the question is asked.
    #[serde(default)]
    change: Vec<Drift>,
    /// The question.
    check: CheckSpec,
    /// What must be answered at `now`.
    expect: Option<Expect>,
    /// What must be answered at other times.
    #[serde(default)]
    timeline: Vec<Step>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Drift {
    /// The subject that changes.
    subject: String,
    /// What changes, as a JSON merge patch of its manifest.
    set: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Step {
    /// When.
    at: String,
    /// What must be answered then.
    expect: Expect,
}

/// What an answer must be; what is left out may be anything.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    outcome: OutcomeName,
    /// A control that must not have passed.
    control: Option<String>,
    /// The exception relied on, or for a denial one that was considered.
    exception: Option<String>,
    /// A reason that must be among those given, such as `EXC_EXPIRED`.
    reason: Option<String>,
    /// The scope dimension or facet that stood against an exception.
    dimension: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum OutcomeName {
    Allow,
    AllowByException,
    Deny,
}

/// A suite with its bundle.
#[derive(Debug)]
pub struct World {
    /// The suite.
    pub suite: Suite,
    bundle: Bundle,
    snapshot: Snapshot,
    now: Timestamp,
    text: String,
}

/// One question of a case, ready to be asked.
#[derive(Debug)]
pub struct Asked {
    /// The question as a message.
    pub request: v1::CheckRequest,
    /// What it is decided from.
    pub snapshot: Snapshot,
    /// When, and what must be answered.
    pub steps: Vec<(Timestamp, Expect)>,
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not run, and why.
    Skipped(String),
    /// Otherwise than expected: what was, for people.
    Failed(Vec<String>),
}

/// What a run has exercised.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Controls that applied.
    pub failed: BTreeSet<String>,
    /// Dimensions that were missed, by exception.
    pub missed: BTreeSet<(String, &'static str)>,
}

impl World {
    /// Reads a suite and its bundle.
    ///
    /// # Errors
    ///
    /// Every problem found.
    pub fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![Problem::whole(&name, format!("cannot be read: {error}"))])?;
        let documents = split(&text);
        let (first, head) = documents
            .first()
            .copied()
            .ok_or_else(|| vec![Problem::whole(&name, "holds no suite")])?;
        let suite: Suite =
            serde_saphyr::from_str_with_options(head, options()).map_err(|error| {
                let place = error.location();
                let number = |n: u64| usize::try_from(n).unwrap_or(1);
                let (line, column) = place.map_or((1, 1), |place| {
                    (number(place.line()), number(place.column()))
                });
                vec![Problem::at(
                    &name,
                    &text,
                    line.saturating_add(first),
                    column,
                    said(&error),
                )]
            })?;
        let now = Timestamp::parse(&suite.now).map_err(|error| {
            let (line, column) = Places::of(head).find("now");
            vec![Problem::at(
                &name,
                &text,
                line.saturating_add(first),
                column,
                error.to_string(),
            )]
        })?;
        let folder = suite
            .bundle
            .as_deref()
            .map(|folder| path.parent().unwrap_or(Path::new(".")).join(folder));
        // The suite itself is blanked, so that its manifests keep their lines.
        let rest: String = match documents.get(1) {
            Some((line, _)) => text
                .split_inclusive('\n')
                .enumerate()
                .map(|(at, text)| if at < *line { "\n" } else { text })
                .collect(),
            None => String::new(),
        };
        let bundle = Bundle::read_beside(folder.as_deref(), &name, &rest)?;
        let snapshot = bundle.snapshot(1)?;
        Ok(Self {
            suite,
            bundle,
            snapshot,
            now,
            text,
        })
    }

    /// What the suite is run against.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Line of the suite's file where a case begins.
    pub fn line(&self, case: usize) -> usize {
        let documents = split(&self.text);
        documents.first().map_or(1, |(first, head)| {
            Places::of(head)
                .find(&format!("tests[{case}]"))
                .0
                .saturating_add(*first)
        })
    }

    /// A case's question with what it is decided from; nothing if the case is skipped.
    ///
    /// # Errors
    ///
    /// A case that cannot be asked.
    pub fn ask(&self, case: &Case) -> Result<Asked, Invalid> {
        let mut changes = Vec::new();
        if let Some(with) = &case.with {
            for id in with {
                if !self
                    .snapshot
                    .exceptions()
                    .any(|exception| exception.id.as_str() == id)
                {
                    return Err(Invalid::new(
                        "with",
                        format!("there is no exception `{id}`"),
                        "name one of the bundle",
                    ));
                }
            }
            let others = self
                .snapshot
                .exceptions()
                .filter(|exception| !with.iter().any(|id| id == exception.id.as_str()));
            changes.extend(others.map(|exception| Change::RemoveException(exception.id.clone())));
        }
        for drift in &case.change {
            changes.push(Change::PutSubject(
                self.drifted(drift).map_err(|e| e.under("change"))?,
            ));
        }
        let snapshot = self
            .snapshot
            .after(changes, self.snapshot.digest().clone(), 2)
            .map_err(|errors| {
                Invalid::new(
                    "change",
                    errors.first().map(ToString::to_string).unwrap_or_default(),
                    "",
                )
            })?;
        let mut steps = Vec::new();
        if let Some(expect) = &case.expect {
            steps.push((self.now, expect.clone()));
        }
        for (at, step) in case.timeline.iter().enumerate() {
            steps.push((
                Timestamp::parse(&step.at).map_err(|e| e.under(&format!("timeline[{at}].at")))?,
                step.expect.clone(),
            ));
        }
        if steps.is_empty() {
            return Err(Invalid::new(
                "expect",
                "is missing",
                "say what must be answered, in expect or timeline",
            ));
        }
        Ok(Asked {
            request: case.check.clone().into(),
            snapshot,
            steps,
        })
    }

    fn drifted(&self, drift: &Drift) -> Result<crate::domain::Subject, Invalid> {
        let document = self
            .bundle
            .document(Kind::Subject, &drift.subject)
            .ok_or_else(|| {
                Invalid::new(
                    "subject",
                    format!("there is no subject `{}`", drift.subject),
                    "name one of the bundle",
                )
            })?;
        let Tree(value) = serde_saphyr::from_str_with_options(document, options())
            .map_err(|error| Invalid::new("subject", error.to_string(), ""))?;
        let mut manifest = to_json(&value);
        merge(
            &mut manifest,
            &Json::Object(drift.set.clone().into_iter().collect()),
        );
        let manifest: SubjectManifest = serde_json::from_value(manifest)
            .map_err(|error| Invalid::new("set", error.to_string(), ""))?;
        manifest.parse().map_err(|e| e.under("set"))
    }

    /// Runs a case through `decide`.
    ///
    /// # Errors
    ///
    /// A case that cannot be asked.
    pub fn run(&self, case: &Case, coverage: &mut Coverage) -> Result<Outcome, Invalid> {
        if let Some(why) = &case.skip {
            return Ok(Outcome::Skipped(why.clone()));
        }
        let asked = self.ask(case)?;
        let mut wrong = Vec::new();
        for (at, expect) in &asked.steps {
            let question = asked.question()?;
            let decision = decide(&question, &asked.snapshot, Now::exactly(*at));
            coverage.note(&decision);
            if let Some(difference) = expect.difference(&decision) {
                wrong.push(if asked.steps.len() > 1 {
                    format!("at {at}: {difference}")
                } else {
                    difference
                });
            }
        }
        Ok(if wrong.is_empty() {
            Outcome::Passed
        } else {
            Outcome::Failed(wrong)
        })
    }
}

impl Asked {
    /// The question itself.
    ///
    /// # Errors
    ///
    /// A question that cannot be asked.
    pub fn question(&self) -> Result<Question, Invalid> {
        let subject =
            SubjectId::parse(&self.request.subject).map_err(|e| e.under("check.subject"))?;
        let question = question(self.request.clone(), subject).map_err(|e| e.under("check"))?;
        Ok(as_seen(question, &self.snapshot))
    }
}

impl Coverage {
    fn note(&mut self, decision: &Decision) {
        self.failed.extend(
            decision
                .failed
                .iter()
                .map(|result| result.control.id.to_string()),
        );
        for result in &decision.exceptions {
            if let Effect::OutOfScope(dimension) = result.effect {
                self.missed
                    .insert((result.exception.id.to_string(), dimension.name()));
            }
        }
    }

    /// Dimensions of an exception's scope that could have been missed and never were.
    pub fn unmissed(&self, exception: &crate::domain::Exception) -> Vec<&'static str> {
        let any: Vec<_> = exception.scope.any().collect();
        let scope = &exception.scope;
        Dimension::ALL
            .into_iter()
            .filter(|dimension| match dimension {
                // An exception is only looked at for the subjects it names.
                Dimension::Subject => false,
                Dimension::DataSensitivity => scope.data_sensitivity_max.is_some(),
                Dimension::Condition => scope.match_condition.is_some(),
                Dimension::Action
                | Dimension::Resource
                | Dimension::Environment
                | Dimension::Purpose => !any.contains(dimension),
            })
            .map(Dimension::name)
            .filter(|name| !self.missed.contains(&(exception.id.to_string(), *name)))
            .collect()
    }
}

impl Expect {
    /// How `decision` differs from what is expected, if it does.
    pub fn difference(&self, decision: &Decision) -> Option<String> {
        let outcome = match self.outcome {
            OutcomeName::Allow => "allow",
            OutcomeName::AllowByException => "allow_by_exception",
            OutcomeName::Deny => "deny",
        };
        let control = self.control.as_ref().is_none_or(|id| {
            decision
                .failed
                .iter()
                .any(|result| result.control.id.as_str() == id)
        });
        let exception = self.exception.as_ref().is_none_or(|id| {
            let relied = !decision.allows()
                || decision
                    .relied_on()
                    .any(|exception| exception.id.as_str() == id);
            relied
                && decision
                    .exceptions
                    .iter()
                    .any(|result| result.exception.id.as_str() == id)
        });
        let reason = self
            .reason
            .as_ref()
            .is_none_or(|name| decision.reasons.iter().any(|reason| reason.name() == name));
        let dimension = self.dimension.as_ref().is_none_or(|name| {
            decision
                .exceptions
                .iter()
                .any(|result| stood(result.effect) == Some(name))
        });
        if outcome == decision.outcome.name() && control && exception && reason && dimension {
            return None;
        }
        let named = |label: &str, value: &Option<String>| {
            value
                .as_ref()
                .map_or_else(String::new, |value| format!(" {label} {value}"))
        };
        let expected = format!(
            "{outcome}{}{}{}{}",
            named("control", &self.control),
            named("exception", &self.exception),
            named("reason", &self.reason),
            named("dimension", &self.dimension)
        );
        Some(format!(
            "expected {expected}\n      actual {}",
            describe(decision)
        ))
    }
}

fn stood(effect: Effect) -> Option<&'static str> {
    match effect {
        Effect::OutOfScope(dimension) => Some(dimension.name()),
        Effect::ContextChanged(facet) => Some(facet.name()),
        _ => None,
    }
}

fn describe(decision: &Decision) -> String {
    let reasons: Vec<_> = decision
        .reasons
        .iter()
        .map(|reason| reason.name())
        .collect();
    let controls: Vec<_> = decision
        .failed
        .iter()
        .map(|result| result.control.id.as_str())
        .collect();
    let exceptions: Vec<_> = decision
        .exceptions
        .iter()
        .map(|result| {
            format!(
                "{} {}{}",
                result.exception.id,
                result.effect.name(),
                stood(result.effect)
                    .map(|d| format!(" ({d})"))
                    .unwrap_or_default()
            )
        })
        .collect();
    format!(
        "{} {} controls [{}] exceptions [{}]",
        decision.outcome.name(),
        reasons.join(","),
        controls.join(", "),
        exceptions.join(", ")
    )
}

fn to_json(value: &crate::domain::Value) -> Json {
    use crate::domain::Value;
    match value {
        Value::Null | Value::Record(_) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(i) => Json::from(*i),
        Value::Double(d) => Json::from(*d),
        Value::Str(s) => Json::from(&**s),
        Value::Time(t) => Json::from(t.to_string()),
        Value::Span(s) => Json::from(s.to_string()),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|(name, value)| (name.to_string(), to_json(value)))
                .collect(),
        ),
    }
}

/// RFC 7386.
fn merge(target: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Json::Object(serde_json::Map::new());
    }
    if let Json::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.shift_remove(name);
            } else {
                merge(target.entry(name.clone()).or_insert(Json::Null), value);
            }
        }
    }
}
