//! `kind: Subject`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    domain::{
        ClassId, Completeness, DomainId, Facet, FacetState, INSTANCE_LEASE, Instances, Invalid,
        Lifecycle, Pattern, Principal, Sensitivity, Span, Subject, SubjectId, Tier, Timestamp,
    },
    engine::catalogue::{SUBJECT, Type, conform},
};

use super::{control::each, fingerprint::fingerprint, format, from_json};

/// What is governed about an agent, model, service, pipeline or tool server.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Subject")]
pub struct SubjectManifest {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion", skip_serializing)]
    _api_version: super::document::ApiVersion,
    /// `Subject`.
    #[serde(rename = "kind", skip_serializing)]
    _kind: SubjectKindName,
    /// A SPIFFE id, or another name without blanks.
    #[schemars(with = "format::ASubject")]
    pub(super) id: String,
    /// What it is.
    #[serde(rename(serialize = "kind"))]
    subject_kind: WhatName,
    /// The class it is an instance of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<format::AClass>")]
    class_id: Option<String>,
    /// Who may register as an instance of it: it is a class, and governs them all.
    #[serde(skip_serializing)]
    instances: Option<InstancesManifest>,
    /// The domain it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<format::ADomain>")]
    domain: Option<String>,
    /// Where in the world it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// Where it runs: `dev`, `test`, `staging`, `prod`.
    environment: String,
    /// Who answers for it.
    owner: Option<OwnerManifest>,
    /// Who answers for it when the owner is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_owner: Option<String>,
    /// What it may be used for.
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<PurposeManifest>,
    /// LOW, MODERATE or HIGH.
    risk_tier: RiskName,
    /// How sensitive its data is.
    data_sensitivity: SensitivityName,
    /// Where it is in its life.
    lifecycle_state: LifecycleName,
    /// Why every question of it is denied for now.
    #[serde(skip_serializing)]
    lock: Option<String>,
    /// The model it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelManifest>,
    /// Where its training data came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage: Option<LineageManifest>,
    /// The tools it may call.
    #[serde(default)]
    tools: Vec<ToolManifest>,
    /// Its prompts, by digest.
    #[serde(default)]
    prompts: Vec<PromptManifest>,
    /// What it reads.
    #[serde(default)]
    data_sources: Vec<DataSourceManifest>,
    /// Its credentials: ids, kinds, times and flags, never a value.
    #[serde(default)]
    credentials: Vec<CredentialManifest>,
    /// What it was approved for.
    #[serde(default)]
    approvals: Vec<ApprovalManifest>,
    /// Where each facet came from.
    #[serde(default, skip_serializing)]
    facets: BTreeMap<String, FacetManifest>,
    /// When the metadata was last updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_update_time: Option<String>,
    /// When it was last seen alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat_time: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InstancesManifest {
    /// Identities that may register: each exact, or a prefix that ends in `/`.
    identities: Vec<String>,
    /// How long a registration holds unless it is renewed; at most `10m`, which is the default.
    #[schemars(with = "Option<format::ASpan>")]
    lease: Option<String>,
}

impl InstancesManifest {
    fn parse(&self) -> Result<Instances, Invalid> {
        if self.identities.is_empty() {
            let fix = "name who may register, such as `spiffe://acme.example/agent/support/`";
            return Err(Invalid::new("identities", "is empty", fix));
        }
        let lease = match &self.lease {
            None => INSTANCE_LEASE,
            Some(text) => Span::parse(text).map_err(|error| error.under("lease"))?,
        };
        if lease <= Span::ZERO || lease > INSTANCE_LEASE {
            let fix = "use a duration of at most `10m`";
            return Err(Invalid::new("lease", "is out of range", fix));
        }
        Ok(Instances {
            identities: each("identities", &self.identities, |text| Pattern::parse(text))?,
            lease,
        })
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
enum SubjectKindName {
    Subject,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum WhatName {
    AiAgent,
    Model,
    Service,
    Pipeline,
    ToolServer,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum RiskName {
    Low,
    Moderate,
    High,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum SensitivityName {
    Public,
    Internal,
    Confidential,
    Restricted,
}

impl SensitivityName {
    pub(super) fn parse(self) -> Sensitivity {
        match self {
            Self::Public => Sensitivity::Public,
            Self::Internal => Sensitivity::Internal,
            Self::Confidential => Sensitivity::Confidential,
            Self::Restricted => Sensitivity::Restricted,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum LifecycleName {
    Proposed,
    Active,
    Suspended,
    Retired,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OwnerManifest {
    /// `user:NAME`.
    #[schemars(with = "format::APerson")]
    principal: String,
    /// Whether the person still works here.
    active: bool,
    /// When they last confirmed that they answer for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<format::ATime>")]
    attest_time: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PurposeManifest {
    /// Purposes a request may name.
    permitted_ids: Vec<String>,
    /// The purpose in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ModelManifest {
    provider: String,
    name: String,
    version: String,
    digest: String,
    #[serde(default)]
    deprecated: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LineageManifest {
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_model: Option<String>,
    #[serde(default)]
    datasets: Vec<DatasetManifest>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DatasetManifest {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensitivity: Option<SensitivityName>,
    provenance_verified: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ToolManifest {
    /// The server that offers it.
    server: String,
    /// Its name there.
    name: String,
    /// The digest of its definition there, as `exeat mcp pin` prints it.
    definition_digest: String,
    #[serde(default)]
    permissions: Vec<String>,
    #[serde(default)]
    third_party: bool,
    approved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    review_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_time: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PromptManifest {
    id: String,
    digest: String,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DataSourceManifest {
    id: String,
    sensitivity: SensitivityName,
    approved: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CredentialManifest {
    id: String,
    kind: CredentialKindName,
    state: CredentialStateName,
    #[serde(skip_serializing_if = "Option::is_none")]
    issue_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_time: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    environments: Vec<String>,
    #[serde(default)]
    bound_subjects: Vec<String>,
    store: StoreName,
    exposed: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum CredentialKindName {
    ApiKey,
    OauthToken,
    #[serde(rename = "X509_SVID")]
    X509Svid,
    JwtSvid,
    Password,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum CredentialStateName {
    Active,
    Revoked,
    Expired,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StoreName {
    WorkloadApi,
    SecretManager,
    EnvVar,
    PlaintextFile,
    SourceCode,
    Chat,
    Ticket,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApprovalManifest {
    kind: ApprovalKindName,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_digest: Option<String>,
    /// The combined fingerprint it was given for; `exeat fingerprint ID` prints today's.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[schemars(with = "format::APrincipal")]
    requester: String,
    #[schemars(with = "Vec<format::APerson>")]
    approvers: Vec<String>,
    effective_time: String,
    expire_time: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ApprovalKindName {
    Deployment,
    Purpose,
    DataUse,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FacetManifest {
    /// Who reported it.
    source: String,
    /// When it was observed.
    #[schemars(with = "format::ATime")]
    observed_time: String,
    /// Whether it is all there is.
    completeness: CompletenessName,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum CompletenessName {
    Complete,
    Partial,
}

impl SubjectManifest {
    /// The subject it describes.
    pub fn parse(&self) -> Result<Subject, Invalid> {
        self.check()?;
        let mut attributes =
            serde_json::to_value(self).map_err(|error| Invalid::new("", error.to_string(), ""))?;
        let (fingerprint, combined) = fingerprint(&attributes)?;
        if let Json::Object(attributes) = &mut attributes {
            let mut digests: serde_json::Map<String, Json> = fingerprint
                .iter()
                .map(|(facet, digest)| (facet.name().to_owned(), digest.as_str().into()))
                .collect();
            digests.insert("combined".into(), combined.as_str().into());
            attributes.insert("fingerprint".into(), digests.into());
        }
        let at = |path: &'static str| move |error: Invalid| error.under(path);
        Ok(Subject {
            id: SubjectId::parse(&self.id).map_err(at("id"))?,
            class: self
                .class_id
                .as_deref()
                .map(ClassId::parse)
                .transpose()
                .map_err(at("class_id"))?,
            domain: self
                .domain
                .as_deref()
                .map(DomainId::parse)
                .transpose()
                .map_err(at("domain"))?,
            lifecycle: match self.lifecycle_state {
                LifecycleName::Proposed => Lifecycle::Proposed,
                LifecycleName::Active => Lifecycle::Active,
                LifecycleName::Suspended => Lifecycle::Suspended,
                LifecycleName::Retired => Lifecycle::Retired,
            },
            risk_tier: match self.risk_tier {
                RiskName::Low => Tier::Low,
                RiskName::Moderate => Tier::Moderate,
                RiskName::High => Tier::High,
            },
            data_sensitivity: self.data_sensitivity.parse(),
            environment: self.environment.as_str().into(),
            lock: self.lock.as_deref().map(Into::into),
            facets: self.facet_states()?,
            fingerprint,
            combined,
            attributes: conform(from_json(&attributes), Type::Record(&SUBJECT))?,
            instances: self
                .instances
                .as_ref()
                .map(InstancesManifest::parse)
                .transpose()
                .map_err(at("instances"))?,
            lease_expire_time: None,
        })
    }

    /// U3 and U4 of governance §6.2, and that principals are principals.
    fn check(&self) -> Result<(), Invalid> {
        if self.instances.is_some() && self.class_id.is_some() {
            let fix = "a class is an instance of none; remove one of the two";
            return Err(Invalid::new("instances", "stands beside `class_id`", fix));
        }
        if let Some(owner) = &self.owner {
            Principal::parse_human(&owner.principal).map_err(|e| e.under("owner.principal"))?;
        }
        if matches!(self.lifecycle_state, LifecycleName::Active) {
            if self.owner.is_none() {
                return Err(Invalid::new(
                    "owner",
                    "is missing",
                    "an ACTIVE subject has an owner",
                ));
            }
            if self.purpose.is_none() {
                return Err(Invalid::new(
                    "purpose",
                    "is missing",
                    "an ACTIVE subject has a purpose",
                ));
            }
        }
        if matches!(self.lifecycle_state, LifecycleName::Retired)
            && self
                .credentials
                .iter()
                .any(|c| matches!(c.state, CredentialStateName::Active))
        {
            return Err(Invalid::new(
                "credentials",
                "holds an ACTIVE credential",
                "a RETIRED subject has none",
            ));
        }
        each("approvals", &self.approvals, |approval| {
            Principal::parse(&approval.requester).map_err(|e| e.under("requester"))?;
            each("approvers", &approval.approvers, |approver| {
                Principal::parse_human(approver)
            })
        })
        .map(drop)
    }

    fn facet_states(&self) -> Result<Vec<(Facet, FacetState)>, Invalid> {
        let mut states = Vec::with_capacity(self.facets.len());
        for (name, facet) in &self.facets {
            let under = |error: Invalid| error.under(&format!("facets.{name}"));
            let observed_time = Timestamp::parse(&facet.observed_time)
                .map_err(|e| under(e.under("observed_time")))?;
            let completeness = match facet.completeness {
                CompletenessName::Complete => Completeness::Complete,
                CompletenessName::Partial => Completeness::Partial,
            };
            let state = FacetState {
                source: facet.source.as_str().into(),
                observed_time,
                completeness,
            };
            states.push((Facet::parse(name).map_err(under)?, state));
        }
        states.sort_by_key(|(facet, _)| *facet);
        Ok(states)
    }
}
