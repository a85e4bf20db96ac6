//! Requests out of OSCAL: deviations that others hold as risks of assessment results or of a plan of
//! action (governance §11). What OSCAL does not say of them is left for a person.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use crate::domain::{Deviation, Span, Timestamp};

use super::oscal::OURS;

/// A deviation as it would be asked for here.
#[derive(Clone, Debug, PartialEq)]
pub struct Drafted {
    /// The risk's title.
    pub title: String,
    /// The manifest of the request, as far as it can be told.
    pub request: Json,
    /// The fields that a person has yet to fill in.
    pub missing: Vec<&'static str>,
}

fn text<'a>(json: &'a Json, path: &str) -> Option<&'a str> {
    json.pointer(path).and_then(Json::as_str)
}

fn list<'a>(json: &'a Json, name: &str) -> impl Iterator<Item = &'a Json> {
    let items = json.get(name).and_then(Json::as_array);
    items.into_iter().flatten()
}

/// A property's value: one of ours, or one of OSCAL's.
fn prop<'a>(json: &'a Json, name: &str, ours: bool) -> Option<&'a str> {
    let named = |prop: &&Json| {
        let ns = text(prop, "/ns");
        text(prop, "/name") == Some(name) && if ours { ns == Some(OURS) } else { ns.is_none() }
    };
    text(list(json, "props").find(named)?, "/value")
}

/// What a document says beside its risks, by UUID.
struct Beside<'a> {
    findings: Vec<&'a Json>,
    observations: HashMap<&'a str, &'a Json>,
    components: HashMap<&'a str, &'a Json>,
    parties: HashMap<&'a str, &'a Json>,
}

fn by_uuid<'a>(items: impl Iterator<Item = &'a Json>) -> HashMap<&'a str, &'a Json> {
    items
        .filter_map(|item| Some((text(item, "/uuid")?, item)))
        .collect()
}

/// The deviations of a document, requested or approved, as they would be asked for at `now`.
///
/// # Errors
///
/// What is no such document.
pub fn requests(document: &str, now: Timestamp) -> Result<Vec<Drafted>, String> {
    let document: Json =
        serde_json::from_str(document).map_err(|error| format!("is no JSON: {error}"))?;
    let results = document.get("assessment-results");
    let plan = document.get("plan-of-action-and-milestones");
    let (root, parts): (&Json, Vec<&Json>) = match (results, plan) {
        (Some(root), _) => (root, list(root, "results").collect()),
        (None, Some(root)) => (root, vec![root]),
        (None, None) => {
            return Err(
                "is neither OSCAL assessment results nor a plan of action and milestones".into(),
            );
        }
    };
    let metadata = root.get("metadata").unwrap_or(&Json::Null);
    let mut drafted = Vec::new();
    for part in parts {
        let local = part.get("local-definitions").unwrap_or(&Json::Null);
        let beside = Beside {
            findings: list(part, "findings").collect(),
            observations: by_uuid(list(part, "observations")),
            components: by_uuid(list(local, "components")),
            parties: by_uuid(list(metadata, "parties")),
        };
        let deviates = |risk: &&Json| {
            let status = text(risk, "/status");
            matches!(status, Some("deviation-requested" | "deviation-approved"))
        };
        let risks = list(part, "risks").filter(deviates);
        drafted.extend(risks.map(|risk| beside.drafted(risk, now)));
    }
    Ok(drafted)
}

impl Beside<'_> {
    fn controls(&self, risk: &Json) -> Vec<String> {
        let uuid = text(risk, "/uuid");
        let of = |finding: &&&Json| {
            let mut risks = list(finding, "related-risks");
            risks.any(|related| text(related, "/risk-uuid") == uuid)
        };
        let mut controls: Vec<String> = self
            .findings
            .iter()
            .filter(of)
            .filter_map(|finding| text(finding, "/target/target-id"))
            .map(ToOwned::to_owned)
            .collect();
        controls.sort();
        controls.dedup();
        controls
    }

    fn observed<'b>(&'b self, risk: &'b Json) -> impl Iterator<Item = &'b Json> {
        let related = list(risk, "related-observations");
        let uuids = related.filter_map(|related| text(related, "/observation-uuid"));
        uuids.filter_map(|uuid| self.observations.get(uuid).copied())
    }

    fn subjects(&self, risk: &Json) -> Vec<String> {
        let subjects = self.observed(risk).flat_map(|seen| list(seen, "subjects"));
        let uuids = subjects.filter_map(|subject| text(subject, "/subject-uuid"));
        let titles = uuids.filter_map(|uuid| text(self.components.get(uuid)?, "/title"));
        let mut titles: Vec<String> = titles.map(ToOwned::to_owned).collect();
        titles.sort();
        titles.dedup();
        titles
    }

    fn evidence(&self, risk: &Json) -> Vec<Json> {
        let shown = self
            .observed(risk)
            .flat_map(|seen| list(seen, "relevant-evidence"));
        let item = |item: &Json| {
            let mut read = json!({
                "evidence_id": prop(item, "evidence", true)?,
                "digest": prop(item, "digest", true)?,
                "expire_time": prop(item, "until", true)?,
                "required": prop(item, "required", true) == Some("true"),
                "collect_time": prop(item, "collected", true),
                "source": prop(item, "source", true),
            });
            // Not everybody says when it was collected, and where it comes from.
            read.as_object_mut()?.retain(|_, value| !value.is_null());
            Some(read)
        };
        shown.filter_map(item).collect()
    }

    /// Who asked, as a person of ours.
    fn owner(&self, risk: &Json) -> Option<String> {
        let log = risk.get("risk-log")?;
        let submitted =
            list(log, "entries").find(|entry| prop(entry, "type", false) == Some("dr-submission"));
        let party = text(submitted?, "/logged-by/0/party-uuid")?;
        let name = text(self.parties.get(party)?, "/name")?;
        name.starts_with("user:").then(|| name.to_owned())
    }

    fn drafted(&self, risk: &Json, now: Timestamp) -> Drafted {
        let response = list(risk, "remediations").next().unwrap_or(&Json::Null);
        let incident = prop(risk, "incident", true);
        let said = prop(risk, "deviation", true);
        let false_positive = prop(risk, "false-positive", false).is_some();
        let mitigates = prop(response, "type", false) == Some("mitigate");
        let deviation = match said.and_then(Deviation::parse) {
            Some(deviation) => deviation,
            None if incident.is_some() => Deviation::IncidentOverride,
            None if false_positive => Deviation::FalsePositive,
            None if mitigates => Deviation::Mitigated,
            None => Deviation::Waiver,
        };
        let hours = text(risk, "/deadline")
            .and_then(|end| Timestamp::parse(end).ok())
            .filter(|end| *end > now)
            .map(|end| {
                let hour = Span::from_hours(1).micros();
                (end - now).micros().saturating_add(hour - 1) / hour
            });
        let need = text(response, "/remarks").or_else(|| text(risk, "/description"));
        let mut missing = vec![
            "scope.actions",
            "scope.resources",
            "scope.environments",
            "scope.purposes",
        ];
        let (controls, subjects) = (self.controls(risk), self.subjects(risk));
        missing.extend(controls.is_empty().then_some("control_ids"));
        missing.extend(subjects.is_empty().then_some("scope.subject_selector"));
        missing.extend(hours.is_none().then_some("window.duration"));
        let owner = self.owner(risk);
        missing.extend(owner.is_none().then_some("owner"));
        missing.extend((deviation == Deviation::Mitigated).then_some("compensating_conditions"));
        let mut request = Map::new();
        let mut put = |name: &str, value: Json| drop(request.insert(name.to_owned(), value));
        put("apiVersion", "exeat/v1".into());
        put("kind", "Request".into());
        put("control_ids", controls.into());
        put("deviation_type", deviation.name().into());
        put(
            "justification",
            json!({
                "business_need": need.unwrap_or_default(),
                "risk_statement": text(risk, "/statement").unwrap_or_default(),
                "remediation_plan": text(response, "/description").unwrap_or_default(),
                "ticket_ref": prop(response, "ticket", true).or_else(|| text(risk, "/uuid")),
            }),
        );
        put(
            "scope",
            json!({
                "subject_selector": {"ids": subjects},
                "actions": [],
                "resources": [],
                "environments": [],
                "purposes": [],
            }),
        );
        put(
            "window",
            json!({"duration": hours.map_or(String::new(), |hours| format!("{hours}h"))}),
        );
        put("owner", owner.unwrap_or_default().into());
        let evidence = self.evidence(risk);
        if !evidence.is_empty() {
            put("evidence", evidence.into());
        }
        if let Some(incident) = incident {
            put("incident_ref", incident.into());
        }
        Drafted {
            title: text(risk, "/title").unwrap_or("a risk").to_owned(),
            request: Json::Object(request),
            missing,
        }
    }
}
