//! `kind: Request`: what somebody asks an exception for.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::{
    ControlId, Deviation, DomainId, ExceptionId, Facet, Invalid, Justification, Principal, Request,
    Span, Timestamp, UsageLimits, Window,
};

use super::{
    Places, Problem,
    control::{each, name},
    document,
    exception::{
        DeviationName, EvidenceManifest, JustificationManifest, LimitsManifest, ScopeManifest,
    },
    fingerprint::canonical,
    format, json,
    secret::refuse_secrets,
};

/// What is asked for. Its tier, its approvers and what it is bound to are computed, never chosen.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Request")]
pub struct RequestManifest {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion")]
    _api_version: document::ApiVersion,
    /// `Request`.
    #[serde(rename = "kind")]
    _kind: RequestKind,
    /// The controls to deviate from, by name; 1 to 16, no wildcards.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(with = "Vec<format::AControl>")]
    control_ids: Vec<String>,
    /// The kind of deviation; left out where `local_term` says it.
    deviation_type: Option<DeviationName>,
    /// The kind of deviation in a word of the domain's vocabulary.
    local_term: Option<String>,
    /// Why.
    justification: JustificationManifest,
    /// Where it is to hold: AND across dimensions, OR inside one.
    scope: ScopeManifest,
    /// CEL that must hold at each use.
    #[serde(default)]
    compensating_conditions: Vec<String>,
    /// How often it may be used.
    #[serde(default)]
    usage_limits: LimitsManifest,
    /// Facets to bind beyond those that its tier binds.
    #[serde(default)]
    #[schemars(with = "Vec<format::ABoundFacet>")]
    bound_facets: Vec<String>,
    /// When.
    window: WindowManifest,
    /// The person who answers for it: `user:NAME`.
    #[schemars(with = "format::APerson")]
    owner: String,
    /// The person an agent or a service asks for.
    on_behalf_of: Option<String>,
    /// The domain it is to be granted in.
    domain: Option<String>,
    /// What is shown.
    #[serde(default)]
    evidence: Vec<EvidenceManifest>,
    /// The incident it belongs to.
    incident_ref: Option<String>,
    /// The control's defect a `FALSE_POSITIVE` answers.
    defect_ref: Option<String>,
    /// The exception it goes on from.
    renews: Option<String>,
    /// Asked for before any control fails.
    #[serde(default)]
    preemptive: bool,
    /// The denial it comes of: the decision's id.
    decision_id: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum RequestKind {
    Request,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WindowManifest {
    /// From when, whenever it is approved; left out, from the approval on.
    start_time: Option<String>,
    /// For how long, such as `48h`.
    duration: String,
}

impl RequestManifest {
    /// The JSON with the kind of deviation that its local word means.
    fn translated(
        &mut self,
        json: &str,
        meant: impl Fn(Option<&str>, &[String], &str) -> Option<Deviation>,
    ) -> Result<String, Invalid> {
        let (None, Some(term)) = (self.deviation_type, &self.local_term) else {
            return Ok(json.to_owned());
        };
        let deviation = meant(self.domain.as_deref(), self.scope.ids(), term).ok_or_else(|| {
            Invalid::new(
                "local_term",
                format!("`{term}` is no word of the domain"),
                "see the vocabulary of the Domain, or say `deviation_type`",
            )
        })?;
        self.deviation_type = Some(DeviationName::of(deviation));
        let wrong = |error: serde_json::Error| Invalid::new("", error.to_string(), "");
        let mut value: serde_json::Value = serde_json::from_str(json).map_err(wrong)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("deviation_type".into(), deviation.name().into());
        }
        let mut text = String::new();
        canonical(&value, &mut text);
        Ok(text)
    }

    /// What is asked of one that is handed in, and not of those that were kept before it was.
    fn says_something(&self) -> Result<(), Invalid> {
        let mut named = BTreeSet::new();
        for (at, id) in self.control_ids.iter().enumerate() {
            if !named.insert(id) {
                let path = format!("control_ids[{at}]");
                let what = format!("names `{id}` once more");
                return Err(Invalid::new(path, what, "name each control once"));
            }
        }
        let said = self.justification.parse();
        let trimmed = |text: &str| text.trim().into();
        let trimmed = Justification {
            business_need: trimmed(&said.business_need),
            risk_statement: trimmed(&said.risk_statement),
            remediation_plan: trimmed(&said.remediation_plan),
            ticket_ref: trimmed(&said.ticket_ref),
        };
        trimmed
            .check()
            .map_err(|error| error.under("justification"))
    }

    /// What it asks for; `text` is it as canonical JSON.
    pub(super) fn parse(&self, text: &str) -> Result<Request, Invalid> {
        let at = |path: &'static str| move |error: Invalid| error.under(path);
        let some = |text: &Option<String>, path| {
            let text = text.as_deref();
            text.map(name).transpose().map_err(at(path))
        };
        let duration = Span::parse(&self.window.duration).map_err(at("window.duration"))?;
        let start = self.window.start_time.as_deref();
        let start = start.map(Timestamp::parse).transpose();
        let request = Request {
            controls: each("control_ids", &self.control_ids, |id| ControlId::parse(id))?,
            deviation: self
                .deviation_type
                .map(DeviationName::parse)
                .ok_or_else(|| {
                    Invalid::new(
                        "deviation_type",
                        "is missing",
                        "use WAIVER, MITIGATED or FALSE_POSITIVE, or a `local_term` of the domain",
                    )
                })?,
            justification: self.justification.parse(),
            scope: self.scope.parse().map_err(at("scope"))?,
            compensating_conditions: self
                .compensating_conditions
                .iter()
                .map(|text| text.as_str().into())
                .collect(),
            usage_limits: UsageLimits {
                max_uses: self.usage_limits.max_uses,
                max_uses_per_hour: self.usage_limits.max_uses_per_hour,
            },
            bound_facets: each("bound_facets", &self.bound_facets, |facet| {
                Facet::parse_bindable(facet)
            })?,
            window: match start.map_err(at("window.start_time"))? {
                Some(start) => Window::Fixed { start, duration },
                None => Window::OnApproval { duration },
            },
            owner: Principal::parse_human(&self.owner).map_err(at("owner"))?,
            on_behalf_of: self
                .on_behalf_of
                .as_deref()
                .map(Principal::parse_human)
                .transpose()
                .map_err(at("on_behalf_of"))?,
            domain: self
                .domain
                .as_deref()
                .map(DomainId::parse)
                .transpose()
                .map_err(at("domain"))?,
            evidence: each("evidence", &self.evidence, EvidenceManifest::parse)?,
            incident: some(&self.incident_ref, "incident_ref")?,
            defect: some(&self.defect_ref, "defect_ref")?,
            renews: self
                .renews
                .as_deref()
                .map(ExceptionId::parse)
                .transpose()
                .map_err(at("renews"))?,
            preemptive: self.preemptive,
            decision: self
                .decision_id
                .as_deref()
                .map(decision)
                .transpose()
                .map_err(at("decision_id"))?,
            text: text.into(),
        };
        request.checked()
    }
}

/// The id of a decision: `dec_` and a UUID.
fn decision(text: &str) -> Result<Box<str>, Invalid> {
    let uuid = text.strip_prefix("dec_").unwrap_or_default();
    let fits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'-';
    if uuid.len() != 36 || !uuid.bytes().all(fits) {
        let what = format!("`{}` is not a decision's id", text.escape_debug());
        let fix = "use the `id` of the decision, such as dec_019…";
        return Err(Invalid::new("", what, fix));
    }
    Ok(text.into())
}

/// A request from canonical JSON.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn of_json(text: &str) -> Result<Request, Invalid> {
    let manifest: RequestManifest = serde_json::from_str(text)
        .map_err(|error| Invalid::new("", format!("does not read as JSON: {error}"), ""))?;
    manifest.parse(text)
}

/// The one request of a file. `meant` says what a local word means, to whom it is asked: the domain
/// that the request names, and the subjects.
///
/// # Errors
///
/// What is wrong with it, and where.
pub fn read_request(
    file: &str,
    content: &str,
    meant: impl Fn(Option<&str>, &[String], &str) -> Option<Deviation>,
) -> Result<Request, Problem> {
    let documents = document::split(content);
    let [(first, text)] = documents.as_slice() else {
        return Err(Problem::whole(
            file,
            format!("holds {} documents; send one request", documents.len()),
        ));
    };
    let mut manifest: RequestManifest = document::read(file, content, *first, text)?;
    let place = |error: &Invalid| {
        let (line, column) = Places::of(text).find(error.path());
        let line = line.saturating_add(*first);
        Problem::at(file, content, line, column, format!("Request: {error}"))
    };
    let json = json::of_yaml(text).map_err(|error| place(&error))?;
    // Its line is not repeated either.
    secrets(&json).map_err(|error| Problem {
        text: String::new(),
        ..place(&error)
    })?;
    let read = manifest.translated(&json, meant).and_then(|json| {
        manifest.says_something()?;
        manifest.parse(&json)
    });
    read.map_err(|error| place(&error))
}

/// Refuses a request in which something looks like a secret.
fn secrets(json: &str) -> Result<(), Invalid> {
    let wrong = |error: serde_json::Error| Invalid::new("", error.to_string(), "");
    refuse_secrets(&serde_json::from_str(json).map_err(wrong)?, "")
}
