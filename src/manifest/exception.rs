//! `kind: Exception`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::{
    ClassId, ControlId, Deviation, Digest, DomainId, Evidence, Exception, ExceptionId,
    ExceptionState, Facet, Fingerprint, Invalid, Justification, Pattern, Principal, Scope,
    Selector, SubjectId, Timestamp, Trace, UsageLimits,
};

use super::{
    control::{each, name, set},
    format,
    policy::TierName,
    subject::SensitivityName,
};

/// A time-bound, owner-bound, evidence-bound, scoped deviation from named controls.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Exception")]
pub struct ExceptionManifest {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion")]
    _api_version: super::document::ApiVersion,
    /// `Exception`.
    #[serde(rename = "kind")]
    _kind: ExceptionKind,
    /// Such as `EX-0142`.
    #[schemars(with = "format::AnException")]
    pub(super) id: String,
    /// Grows by one with each change.
    #[serde(default = "one")]
    revision: u64,
    /// The controls it deviates from, by name; 1 to 16, no wildcards.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(with = "Vec<format::AControl>")]
    control_ids: Vec<String>,
    /// The kind of deviation.
    deviation_type: DeviationName,
    /// Why.
    justification: JustificationManifest,
    /// Where it holds: AND across dimensions, OR inside one.
    scope: ScopeManifest,
    /// What the subject's facets were when it was approved, by facet.
    #[schemars(with = "BTreeMap<String, format::ADigest>")]
    bound_fingerprints: BTreeMap<String, String>,
    /// CEL that must hold at each use.
    #[serde(default)]
    compensating_conditions: Vec<String>,
    /// How often it may be used.
    #[serde(default)]
    usage_limits: LimitsManifest,
    /// From when it holds.
    #[schemars(with = "format::ATime")]
    effective_time: String,
    /// From when it no longer holds.
    #[schemars(with = "format::ATime")]
    expire_time: String,
    /// From when it does not hold unless revalidated.
    #[schemars(with = "Option<format::ATime>")]
    next_revalidation_time: Option<String>,
    /// When it last was.
    #[schemars(with = "Option<format::ATime>")]
    revalidated_time: Option<String>,
    /// The person who answers for it: `user:NAME`.
    #[schemars(with = "format::APerson")]
    owner: String,
    /// Who asked for it.
    #[schemars(with = "format::APrincipal")]
    requester: String,
    /// The domain it was granted in.
    #[schemars(with = "Option<format::ADomain>")]
    domain: Option<String>,
    /// Its tier.
    tier: TierName,
    /// What was shown.
    #[serde(default)]
    evidence: Vec<EvidenceManifest>,
    /// The incident an `INCIDENT_OVERRIDE` belongs to.
    #[schemars(with = "Option<format::AName>")]
    incident_ref: Option<String>,
    /// The control's defect a `FALSE_POSITIVE` answers.
    #[schemars(with = "Option<format::AName>")]
    defect_ref: Option<String>,
    /// How many times it has been renewed.
    #[serde(default)]
    renewal_count: u32,
    /// The `traceparent` of the call that approved it.
    approval_trace: Option<String>,
    /// Its stored state; only APPROVED ones can hold.
    state: ExceptionStateName,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum ExceptionKind {
    Exception,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum DeviationName {
    Waiver,
    Mitigated,
    FalsePositive,
    IncidentOverride,
}

impl DeviationName {
    pub(super) fn of(deviation: Deviation) -> Self {
        match deviation {
            Deviation::Waiver => Self::Waiver,
            Deviation::Mitigated => Self::Mitigated,
            Deviation::FalsePositive => Self::FalsePositive,
            Deviation::IncidentOverride => Self::IncidentOverride,
        }
    }

    pub(super) fn parse(self) -> Deviation {
        match self {
            Self::Waiver => Deviation::Waiver,
            Self::Mitigated => Deviation::Mitigated,
            Self::FalsePositive => Deviation::FalsePositive,
            Self::IncidentOverride => Deviation::IncidentOverride,
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JustificationManifest {
    /// What the business needs it for.
    #[schemars(length(min = 40))]
    business_need: String,
    /// What may go wrong.
    #[schemars(length(min = 40))]
    risk_statement: String,
    /// How the need goes away.
    #[schemars(length(min = 20))]
    remediation_plan: String,
    /// Where it is tracked.
    ticket_ref: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScopeManifest {
    /// For whom: `ids` or `class_ids`.
    subject_selector: SelectorManifest,
    /// Actions by name, or [ANY].
    #[schemars(length(min = 1))]
    #[schemars(with = "Vec<format::AName>")]
    actions: Vec<String>,
    /// Resources by id or prefix ending in `/`, or [ANY].
    #[schemars(length(min = 1))]
    #[schemars(with = "Vec<format::APattern>")]
    resources: Vec<String>,
    /// Environments of the subject, or [ANY].
    #[schemars(length(min = 1))]
    #[schemars(with = "Vec<format::AName>")]
    environments: Vec<String>,
    /// Purposes of the request, or [ANY].
    #[schemars(length(min = 1))]
    #[schemars(with = "Vec<format::AName>")]
    purposes: Vec<String>,
    /// Up to which sensitivity of the subject's data.
    data_sensitivity_max: Option<SensitivityName>,
    /// CEL that must hold as well.
    match_condition: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SelectorManifest {
    /// These subjects.
    #[schemars(with = "Option<Vec<format::ASubject>>")]
    ids: Option<Vec<String>>,
    /// Every subject of these classes.
    #[schemars(with = "Option<Vec<format::AClass>>")]
    class_ids: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsManifest {
    /// In all.
    pub(super) max_uses: Option<u64>,
    /// In any hour.
    pub(super) max_uses_per_hour: Option<u32>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EvidenceManifest {
    #[schemars(with = "format::AName")]
    evidence_id: String,
    #[schemars(with = "format::ADigest")]
    digest: String,
    /// Whether the exception stands and falls with it.
    #[serde(default)]
    required: bool,
    /// When it no longer proves anything.
    #[schemars(with = "format::ATime")]
    expire_time: String,
    /// When it was collected.
    #[schemars(with = "Option<format::ATime>")]
    collect_time: Option<String>,
    /// Where it comes from, in people's words, such as a scanner's name or a link.
    #[schemars(with = "Option<format::AName>")]
    source: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum ExceptionStateName {
    Draft,
    Pending,
    Approved,
    Suspended,
    Denied,
    Withdrawn,
    Lapsed,
    Expired,
    Revoked,
    Closed,
}

fn one() -> u64 {
    1
}

impl ExceptionManifest {
    /// The exception it describes; its tier's rules are the snapshot's to hold it to.
    pub fn parse(&self) -> Result<Exception, Invalid> {
        let at = |path: &'static str| move |error: Invalid| error.under(path);
        let mut bound = Vec::new();
        for (facet, digest) in &self.bound_fingerprints {
            let under = |error: Invalid| error.under(&format!("bound_fingerprints.{facet}"));
            bound.push((
                Facet::parse_bindable(facet).map_err(under)?,
                Digest::parse(digest).map_err(under)?,
            ));
        }
        Ok(Exception {
            id: ExceptionId::parse(&self.id).map_err(at("id"))?,
            revision: self.revision,
            controls: each("control_ids", &self.control_ids, |id| ControlId::parse(id))?,
            deviation: self.deviation_type.parse(),
            justification: Some(Box::new(self.justification.parse())),
            scope: self.scope.parse().map_err(at("scope"))?,
            bound: Fingerprint::new(bound),
            compensating_conditions: self
                .compensating_conditions
                .iter()
                .map(|text| text.as_str().into())
                .collect(),
            usage_limits: UsageLimits {
                max_uses: self.usage_limits.max_uses,
                max_uses_per_hour: self.usage_limits.max_uses_per_hour,
            },
            effective_time: Timestamp::parse(&self.effective_time).map_err(at("effective_time"))?,
            expire_time: Timestamp::parse(&self.expire_time).map_err(at("expire_time"))?,
            next_revalidation_time: self
                .next_revalidation_time
                .as_deref()
                .map(Timestamp::parse)
                .transpose()
                .map_err(at("next_revalidation_time"))?,
            revalidated_time: self
                .revalidated_time
                .as_deref()
                .map(Timestamp::parse)
                .transpose()
                .map_err(at("revalidated_time"))?,
            owner: Principal::parse_human(&self.owner).map_err(at("owner"))?,
            requester: Principal::parse(&self.requester).map_err(at("requester"))?,
            domain: self
                .domain
                .as_deref()
                .map(DomainId::parse)
                .transpose()
                .map_err(at("domain"))?,
            tier: self.tier.parse(),
            evidence: each("evidence", &self.evidence, EvidenceManifest::parse)?,
            incident: self
                .incident_ref
                .as_deref()
                .map(name)
                .transpose()
                .map_err(at("incident_ref"))?,
            defect: self
                .defect_ref
                .as_deref()
                .map(name)
                .transpose()
                .map_err(at("defect_ref"))?,
            renewal_count: self.renewal_count,
            approval: self
                .approval_trace
                .as_deref()
                .map(|text| {
                    Trace::parse(text).ok_or_else(|| {
                        Invalid::new(
                            "",
                            "is no traceparent",
                            "leave it out, or write it as W3C Trace Context has it",
                        )
                    })
                })
                .transpose()
                .map_err(at("approval_trace"))?,
            state: match self.state {
                ExceptionStateName::Draft => ExceptionState::Draft,
                ExceptionStateName::Pending => ExceptionState::Pending,
                ExceptionStateName::Approved => ExceptionState::Approved,
                ExceptionStateName::Suspended => ExceptionState::Suspended,
                ExceptionStateName::Denied => ExceptionState::Denied,
                ExceptionStateName::Withdrawn => ExceptionState::Withdrawn,
                ExceptionStateName::Lapsed => ExceptionState::Lapsed,
                ExceptionStateName::Expired => ExceptionState::Expired,
                ExceptionStateName::Revoked => ExceptionState::Revoked,
                ExceptionStateName::Closed => ExceptionState::Closed,
            },
        })
    }
}

impl JustificationManifest {
    pub(super) fn parse(&self) -> Justification {
        Justification {
            business_need: self.business_need.as_str().into(),
            risk_statement: self.risk_statement.as_str().into(),
            remediation_plan: self.remediation_plan.as_str().into(),
            ticket_ref: self.ticket_ref.as_str().into(),
        }
    }
}

impl ScopeManifest {
    /// The subjects it names by id.
    pub(super) fn ids(&self) -> &[String] {
        self.subject_selector.ids.as_deref().unwrap_or_default()
    }

    pub(super) fn parse(&self) -> Result<Scope, Invalid> {
        let listed = |path: &'static str, texts: &[String]| {
            set(Some(texts), name).map_err(|e| e.under(path))
        };
        let subjects = match (&self.subject_selector.ids, &self.subject_selector.class_ids) {
            (Some(ids), None) if !ids.is_empty() => {
                Selector::Ids(each("subject_selector.ids", ids, |id| SubjectId::parse(id))?.into())
            }
            (None, Some(ids)) if !ids.is_empty() => Selector::Classes(
                each("subject_selector.class_ids", ids, |id| ClassId::parse(id))?.into(),
            ),
            (Some(_), Some(_)) => {
                return Err(Invalid::new(
                    "subject_selector",
                    "names both ids and class_ids",
                    "use one of the two",
                ));
            }
            (Some(_) | None, None) | (None, Some(_)) => {
                return Err(Invalid::new(
                    "subject_selector",
                    "names nobody",
                    "list at least one of ids or class_ids",
                ));
            }
        };
        Ok(Scope {
            subjects,
            actions: listed("actions", &self.actions)?,
            resources: set(Some(&self.resources), Pattern::parse)
                .map_err(|e| e.under("resources"))?,
            environments: listed("environments", &self.environments)?,
            purposes: listed("purposes", &self.purposes)?,
            data_sensitivity_max: self.data_sensitivity_max.map(SensitivityName::parse),
            match_condition: self.match_condition.as_deref().map(Into::into),
        })
    }
}

impl EvidenceManifest {
    pub(super) fn parse(&self) -> Result<Evidence, Invalid> {
        let end = Timestamp::parse(&self.expire_time).map_err(|e| e.under("expire_time"))?;
        let collected = self.collect_time.as_deref().map(Timestamp::parse);
        let collected = collected.transpose().map_err(|e| e.under("collect_time"))?;
        if collected.is_some_and(|collected| collected >= end) {
            return Err(Invalid::new(
                "collect_time",
                format!("is not before `expire_time`, {end}"),
                "say when it was collected, and until when it proves anything",
            ));
        }
        let source = self.source.as_deref().map(name).transpose();
        Ok(Evidence {
            id: name(&self.evidence_id).map_err(|e| e.under("evidence_id"))?,
            digest: Digest::parse(&self.digest).map_err(|e| e.under("digest"))?,
            required: self.required,
            expire_time: end,
            collect_time: collected,
            source: source.map_err(|e| e.under("source"))?,
        })
    }
}
