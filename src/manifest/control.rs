//! `kind: Control`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::{
    Control, ControlId, ControlState, Digest, Enforcement, EvidenceNeed, Facet, Invalid, OnError,
    Pattern, Principal, Reach, Schedule, Set, Severity, Span, Vector,
};

use super::{
    Tree,
    fingerprint::{canonical, digest_of},
    format, frameworks,
};

/// A rule with a failure condition, owner, schedule, evidence requirement and framework references.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Control")]
pub struct ControlManifest {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion")]
    pub(super) _api_version: super::document::ApiVersion,
    /// `Control`.
    #[serde(rename = "kind")]
    pub(super) _kind: ControlKind,
    /// Capitals and digits in parts, such as `ACME-PII-01`.
    #[schemars(with = "format::AControl")]
    pub(super) id: String,
    /// Grows by one with each change.
    #[serde(default = "one")]
    pub(super) revision: u64,
    /// What it demands, in a line.
    #[schemars(length(max = 128))]
    #[schemars(with = "format::AName")]
    pub(super) title: String,
    /// Why.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub(super) description: String,
    /// What to do when it fails.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub(super) remediation: String,
    /// CEL; true means the control fails.
    #[schemars(length(max = 2048))]
    pub(super) failure_condition: String,
    /// Which questions it is held against; all, if left out.
    #[serde(default)]
    pub(super) applies_to: ReachManifest,
    /// Constants the condition reads as `params`.
    #[serde(default)]
    pub(super) params: Tree,
    /// RUNTIME: as questions are asked. SCHEDULED: by itself.
    #[serde(default = "runtime")]
    pub(super) evaluation_modes: Vec<Mode>,
    /// When it runs by itself; demanded by SCHEDULED.
    pub(super) schedule: Option<ScheduleManifest>,
    /// The person who answers for it: `user:NAME`.
    #[schemars(with = "format::APerson")]
    pub(super) owner: String,
    /// In which role.
    #[serde(default)]
    pub(super) owner_role: String,
    /// What must be known before it may pass.
    #[schemars(length(min = 1))]
    pub(super) evidence_requirements: Vec<EvidenceManifest>,
    /// How bad a failure is.
    pub(super) severity: SeverityName,
    /// What a failure does.
    pub(super) enforcement: EnforcementName,
    /// Whether its failure makes every exception of the subject ineffective.
    #[serde(default)]
    pub(super) baseline_gate: bool,
    /// What counts where it cannot be told.
    #[serde(default)]
    pub(super) on_error: OnErrorName,
    /// What it answers to.
    #[serde(default)]
    pub(super) framework_refs: Vec<FrameworkManifest>,
    /// Worlds it is tried on each time it is loaded; at least one PASS and one FAIL.
    #[serde(default)]
    pub(super) test_vectors: Vec<VectorManifest>,
    /// Where it is in its life.
    #[serde(default)]
    pub(super) state: StateName,
}

/// What a control is told, owned and tried by, and when it runs by itself: of all else it decides by each.
const ASIDE: [&str; 10] = [
    "revision",
    "title",
    "description",
    "remediation",
    "owner",
    "owner_role",
    "framework_refs",
    "test_vectors",
    "schedule",
    "state",
];

/// The digest over everything by which a control decides, as its manifest says it: a default that is
/// written out counts as another.
pub(super) fn meaning(json: &str) -> Result<Digest, Invalid> {
    let read = serde_json::from_str(json);
    let mut said: serde_json::Map<String, serde_json::Value> =
        read.map_err(|error| Invalid::new("", error.to_string(), "send a JSON object"))?;
    said.retain(|name, _| !ASIDE.contains(&name.as_str()));
    // Whether it runs by itself as well is beside what it decides.
    let modes = said.remove("evaluation_modes");
    let runtime = modes.is_none_or(|modes| {
        let mut modes = modes.as_array().into_iter().flatten();
        modes.any(|mode| mode.as_str() == Some("RUNTIME"))
    });
    said.insert("runtime".into(), runtime.into());
    let mut text = String::new();
    canonical(&said.into(), &mut text);
    digest_of(text.as_bytes())
}

/// The kind's name.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum ControlKind {
    Control,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReachManifest {
    /// Actions by name, or ANY.
    #[schemars(with = "Option<Vec<format::AName>>")]
    pub(super) actions: Option<Vec<String>>,
    /// Types of resources, or ANY.
    #[schemars(with = "Option<Vec<format::AName>>")]
    resource_types: Option<Vec<String>>,
    /// Resources by id, or by a prefix ending in `/`.
    #[schemars(with = "Option<Vec<format::APattern>>")]
    resources: Option<Vec<String>>,
    /// CEL over `subject`; where it cannot tell, the control applies.
    condition: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Mode {
    Runtime,
    Scheduled,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleManifest {
    /// Five fields.
    cron: String,
    /// An IANA time zone.
    #[serde(default = "utc")]
    time_zone: String,
    /// How much later a run may start.
    #[serde(default = "no_time")]
    #[schemars(with = "format::ASpan")]
    jitter: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EvidenceManifest {
    /// Where the evidence comes from.
    source: String,
    /// The facets the control reads.
    #[serde(default)]
    #[schemars(with = "Vec<format::AFacet>")]
    facets: Vec<String>,
    /// How old they may be.
    #[schemars(with = "Option<format::ASpan>")]
    max_age: Option<String>,
    /// Whether their source must have reported everything.
    #[serde(default)]
    completeness: CompletenessNeed,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum CompletenessNeed {
    #[default]
    Complete,
    Any,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum SeverityName {
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum EnforcementName {
    Advisory,
    SoftMandatory,
    HardMandatory,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum OnErrorName {
    #[default]
    Fail,
    FindingOnly,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FrameworkManifest {
    /// `CSF_2_0`, `AI_RMF_1_0` or `OWASP_NHI_2025`.
    framework: String,
    /// The id within it.
    r#ref: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VectorManifest {
    /// What it shows.
    name: String,
    /// `now_time`, `subject`, `resource`, `exception` and `request`.
    world: Tree,
    /// What the control must say.
    expect: Expect,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum Expect {
    Pass,
    Fail,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum StateName {
    Draft,
    #[default]
    Active,
    Deprecated,
    Retired,
}

fn one() -> u64 {
    1
}

fn runtime() -> Vec<Mode> {
    vec![Mode::Runtime]
}

fn utc() -> String {
    "UTC".into()
}

fn no_time() -> String {
    "0s".into()
}

/// Texts as a set: left out or the one word ANY means any.
pub(super) fn set<T>(
    texts: Option<&[String]>,
    parse: impl Fn(&str) -> Result<T, Invalid>,
) -> Result<Set<T>, Invalid> {
    match texts {
        None => Ok(Set::Any),
        Some([any]) if any == "ANY" => Ok(Set::Any),
        Some(texts) => {
            let items: Result<Vec<T>, Invalid> = texts
                .iter()
                .enumerate()
                .map(|(at, text)| {
                    let item = if text == "ANY" {
                        Err(Invalid::new(
                            "",
                            "is ANY among others",
                            "write ANY alone, or leave it out",
                        ))
                    } else {
                        parse(text)
                    };
                    item.map_err(|e| e.under(&format!("[{at}]")))
                })
                .collect();
            Set::of(items?)
        }
    }
}

/// A name that is not empty.
pub(super) fn name(text: &str) -> Result<Box<str>, Invalid> {
    if text.trim().is_empty() {
        Err(Invalid::new("", "is empty", "give a name"))
    } else {
        Ok(text.into())
    }
}

impl ControlManifest {
    /// The control it describes.
    pub fn parse(&self) -> Result<Control, Invalid> {
        for (field, text, most) in [
            ("title", &self.title, 128),
            ("description", &self.description, 4_096),
            ("remediation", &self.remediation, 2_048),
        ] {
            if text.len() > most {
                return Err(Invalid::new(
                    field,
                    format!("is {} bytes long", text.len()),
                    format!("use at most {most}"),
                ));
            }
        }
        let scheduled = self.evaluation_modes.contains(&Mode::Scheduled);
        if scheduled != self.schedule.is_some() {
            let (what, fix) = if scheduled {
                ("is missing", "SCHEDULED needs one")
            } else {
                (
                    "is given",
                    "add SCHEDULED to evaluation_modes, or leave it out",
                )
            };
            return Err(Invalid::new("schedule", what, fix));
        }
        let control = Control {
            id: ControlId::parse(&self.id).map_err(|e| e.under("id"))?,
            revision: self.revision,
            meaning: None,
            title: name(&self.title).map_err(|e| e.under("title"))?,
            description: self.description.as_str().into(),
            remediation: self.remediation.as_str().into(),
            failure_condition: self.failure_condition.as_str().into(),
            applies_to: self.applies_to.parse().map_err(|e| e.under("applies_to"))?,
            params: self.params.0.clone(),
            runtime: self.evaluation_modes.contains(&Mode::Runtime),
            schedule: self
                .schedule
                .as_ref()
                .map(|schedule| schedule.parse().map_err(|e| e.under("schedule")))
                .transpose()?,
            owner: Principal::parse_human(&self.owner).map_err(|e| e.under("owner"))?,
            owner_role: self.owner_role.as_str().into(),
            evidence: each(
                "evidence_requirements",
                &self.evidence_requirements,
                EvidenceManifest::parse,
            )?,
            severity: match self.severity {
                SeverityName::Low => Severity::Low,
                SeverityName::Medium => Severity::Medium,
                SeverityName::High => Severity::High,
                SeverityName::Critical => Severity::Critical,
            },
            enforcement: match self.enforcement {
                EnforcementName::Advisory => Enforcement::Advisory,
                EnforcementName::SoftMandatory => Enforcement::SoftMandatory,
                EnforcementName::HardMandatory => Enforcement::HardMandatory,
            },
            baseline_gate: self.baseline_gate,
            on_error: match self.on_error {
                OnErrorName::Fail => OnError::Fail,
                OnErrorName::FindingOnly => OnError::FindingOnly,
            },
            frameworks: each("framework_refs", &self.framework_refs, |reference| {
                frameworks::parse(&reference.framework, &reference.r#ref)
            })?,
            vectors: each("test_vectors", &self.test_vectors, |vector| {
                Ok(Vector {
                    name: vector.name.as_str().into(),
                    world: vector.world.0.clone(),
                    pass: vector.expect == Expect::Pass,
                })
            })?,
            stands_in: false,
            state: match self.state {
                StateName::Draft => ControlState::Draft,
                StateName::Active => ControlState::Active,
                StateName::Deprecated => ControlState::Deprecated,
                StateName::Retired => ControlState::Retired,
            },
        };
        control.checked()
    }
}

/// Every item parsed, an error naming the item.
pub(super) fn each<T, U>(
    path: &str,
    items: &[T],
    parse: impl Fn(&T) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    items
        .iter()
        .enumerate()
        .map(|(at, item)| parse(item).map_err(|e| e.under(&format!("{path}[{at}]"))))
        .collect()
}

impl ReachManifest {
    fn parse(&self) -> Result<Reach, Invalid> {
        Ok(Reach {
            actions: set(self.actions.as_deref(), name).map_err(|e| e.under("actions"))?,
            resource_types: set(self.resource_types.as_deref(), name)
                .map_err(|e| e.under("resource_types"))?,
            resources: set(self.resources.as_deref(), Pattern::parse)
                .map_err(|e| e.under("resources"))?,
            condition: self.condition.as_deref().map(Into::into),
        })
    }
}

/// A schedule in UTC, of the five fields of cron.
///
/// # Errors
///
/// Text that is none, or names a date that never comes.
pub fn read_schedule(cron: &str) -> Result<Schedule, Invalid> {
    let manifest = ScheduleManifest {
        cron: cron.to_owned(),
        time_zone: utc(),
        jitter: no_time(),
    };
    manifest.parse()
}

impl ScheduleManifest {
    fn parse(&self) -> Result<Schedule, Invalid> {
        let cron = croner::parser::CronParser::builder()
            .seconds(croner::parser::Seconds::Disallowed)
            .year(croner::parser::Year::Disallowed)
            .build()
            .parse(&self.cron)
            .map_err(|error| {
                Invalid::new(
                    "cron",
                    format!("`{}`: {error}", self.cron),
                    "use five fields, such as `*/15 * * * *`",
                )
            })?;
        // A date that never comes parses, and would never run.
        if cron
            .find_next_occurrence(&chrono::DateTime::UNIX_EPOCH, false)
            .is_err()
        {
            return Err(Invalid::new(
                "cron",
                format!("`{}` never comes", self.cron),
                "name a date that exists",
            ));
        }
        if self.time_zone.parse::<chrono_tz::Tz>().is_err() {
            return Err(Invalid::new(
                "time_zone",
                format!("`{}` is not an IANA time zone", self.time_zone),
                "use one such as `Europe/Berlin`",
            ));
        }
        let jitter = Span::parse(&self.jitter).map_err(|e| e.under("jitter"))?;
        Ok(Schedule {
            cron: self.cron.as_str().into(),
            time_zone: self.time_zone.as_str().into(),
            jitter,
        })
    }
}

impl EvidenceManifest {
    fn parse(&self) -> Result<EvidenceNeed, Invalid> {
        if self.facets.is_empty() && self.max_age.is_some() {
            return Err(Invalid::new(
                "max_age",
                "says how old nothing may be",
                "name the facets it is about",
            ));
        }
        Ok(EvidenceNeed {
            source: name(&self.source).map_err(|e| e.under("source"))?,
            facets: each("facets", &self.facets, |facet| Facet::parse(facet))?,
            max_age: self
                .max_age
                .as_deref()
                .map(Span::parse)
                .transpose()
                .map_err(|e| e.under("max_age"))?,
            complete: self.completeness == CompletenessNeed::Complete,
        })
    }
}
