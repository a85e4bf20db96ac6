//! OSCAL 1.2.3: what runs found as assessment results, and what is to be remedied as a plan of
//! action and milestones (governance §11).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::domain::{
    Ballot, Case, Control, Deviation, Disposition, Finding, Principal, PrincipalKind, Subject,
    Timestamp,
};

/// The version that is written.
const VERSION: &str = "1.2.3";
/// Whose properties those are that OSCAL does not know.
pub(super) const OURS: &str = "urn:exeat:oscal";

/// Something that fails.
#[derive(Clone, Debug)]
pub struct Failing<'a> {
    /// What was found.
    pub finding: &'a Finding,
    /// Of which control; nothing of one that is no more.
    pub control: Option<&'a Control>,
    /// For which subject.
    pub subject: Option<&'a Subject>,
    /// How it is disposed of.
    pub disposition: Disposition,
    /// The request it is disposed of by.
    pub case: Option<&'a Case>,
}

/// What a document is about.
#[derive(Clone, Debug)]
pub struct Assessed<'a> {
    /// The log it is of.
    pub log: &'a str,
    /// At which revision.
    pub revision: u64,
    /// When.
    pub now: Timestamp,
    /// The domain and the framework, where it is about one alone.
    pub about: [Option<&'a str>; 2],
    /// The controls in force.
    pub controls: &'a [&'a Control],
    /// What fails.
    pub failing: &'a [Failing<'a>],
    /// The controls of which nothing fails, and for how many each passes.
    pub passing: &'a [(&'a Control, usize)],
}

/// Lists that are not empty: OSCAL has no others.
fn put(into: &mut Map<String, Json>, name: &str, items: Vec<Json>) {
    if !items.is_empty() {
        into.insert(name.to_owned(), Json::Array(items));
    }
}

fn object(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn prop(name: &str, value: &str) -> Json {
    json!({"name": name, "value": value})
}

fn ours(name: &str, value: &str) -> Json {
    json!({"name": name, "ns": OURS, "value": value})
}

/// On one line, and not empty.
fn line(text: &str) -> String {
    let line: Vec<_> = text.split_whitespace().collect();
    if line.is_empty() {
        "-".to_owned()
    } else {
        line.join(" ")
    }
}

impl Assessed<'_> {
    /// The same for the same thing, in every document of this log.
    fn id(&self, kind: &str, name: &str) -> String {
        let name = format!("exeat:{}:{kind}:{name}", self.log);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }

    fn party(&self, who: &Principal) -> String {
        self.id("party", who.as_str())
    }

    fn key(failing: &Failing<'_>) -> String {
        Finding::key(&failing.finding.control, &failing.finding.subject).into()
    }

    /// What it is about alone, in words.
    fn of(&self) -> String {
        let about: Vec<_> = self.about.iter().flatten().copied().collect();
        if about.is_empty() {
            String::new()
        } else {
            format!(" of {}", about.join(", "))
        }
    }

    /// Two documents of one moment are one only if they are about the same.
    fn moment(&self) -> String {
        format!("{}:{}:{}", self.revision, self.now, self.of())
    }

    fn metadata(&self, title: &str) -> Json {
        let mut known: BTreeSet<&Principal> = BTreeSet::new();
        for failing in self.failing {
            known.insert(&failing.finding.owner);
            let Some(case) = failing.case else {
                continue;
            };
            known.extend([&case.requester, &case.request.owner]);
            known.extend(case.votes.iter().map(|vote| &vote.approver));
        }
        let parties = known.into_iter().map(|who| {
            let human = who.kind() == PrincipalKind::Human;
            json!({
                "uuid": self.party(who),
                "type": if human { "person" } else { "organization" },
                "name": who.as_str(),
            })
        });
        let about = self.of();
        let mut metadata = object(json!({
            "title": format!("{title}{about}"),
            "last-modified": self.now.to_string(),
            "version": self.revision.to_string(),
            "oscal-version": VERSION,
        }));
        put(&mut metadata, "parties", parties.collect());
        let votes = self.failing.iter().filter_map(|failing| failing.case);
        let roles: BTreeSet<_> = votes
            .flat_map(|case| &case.votes)
            .map(|vote| vote.role.name())
            .collect();
        let roles = roles.into_iter();
        let roles = roles.map(|role| json!({"id": role, "title": role.replace('_', " ")}));
        put(&mut metadata, "roles", roles.collect());
        Json::Object(metadata)
    }

    /// The subjects that anything is said of.
    fn components(&self) -> Vec<Json> {
        let known: BTreeMap<_, _> = self
            .failing
            .iter()
            .map(|failing| (failing.finding.subject.as_str(), failing.subject))
            .collect();
        let components = known.into_iter().map(|(id, subject)| {
            let mut component = object(json!({
                "uuid": self.id("subject", id),
                "type": if subject.is_some() { "software" } else { "policy" },
                "title": id,
                "description": if subject.is_some() { "a governed subject" } else { "an exception" },
                "status": {"state": "operational"},
            }));
            if let Some(subject) = subject {
                let environment = line(&subject.environment);
                put(
                    &mut component,
                    "props",
                    vec![
                        ours("risk-tier", subject.risk_tier.name()),
                        ours("environment", &environment),
                    ],
                );
            }
            Json::Object(component)
        });
        components.collect()
    }

    fn observation(&self, failing: &Failing<'_>) -> Json {
        let finding = failing.finding;
        let mut observation = object(json!({
            "uuid": self.id("observation", &Self::key(failing)),
            "title": format!("{} for {}", finding.control, finding.subject),
            "description": line(&finding.message),
            "methods": ["TEST"],
            "types": ["finding"],
            "subjects": [{
                "subject-uuid": self.id("subject", finding.subject.as_str()),
                "type": "component",
            }],
            "collected": finding.first_seen.to_string(),
        }));
        let evidence = failing.case.map_or(&[][..], |case| &case.request.evidence);
        // What is shown for the deviation stands with what was seen.
        let shown = evidence.iter().map(|item| {
            let mut props = vec![
                ours("evidence", &line(&item.id)),
                ours("digest", item.digest.as_str()),
                ours("until", &item.expire_time.to_string()),
                ours("required", if item.required { "true" } else { "false" }),
            ];
            let collected = item.collect_time.map(|time| time.to_string());
            props.extend(collected.map(|time| ours("collected", &time)));
            props.extend(
                item.source
                    .as_ref()
                    .map(|source| ours("source", &line(source))),
            );
            json!({
                "description": format!("{}, {}, until {}", item.id, item.digest, item.expire_time),
                "props": props,
            })
        });
        put(&mut observation, "relevant-evidence", shown.collect());
        let expires = evidence.iter().filter(|item| item.required);
        if let Some(end) = expires.map(|item| item.expire_time).min() {
            observation.insert("expires".into(), end.to_string().into());
        }
        Json::Object(observation)
    }

    fn risk(&self, failing: &Failing<'_>) -> Json {
        let finding = failing.finding;
        let case = failing.case;
        let words = case.map(|case| &case.request.justification);
        let statement = words.map_or_else(
            || line(&finding.message),
            |words| words.risk_statement.to_string(),
        );
        let granted = case.and_then(|case| case.granted);
        let deadline = match &failing.disposition {
            Disposition::Approved(_) | Disposition::FalsePositive(_) => {
                granted.map_or(finding.due, |granted| granted.expire)
            }
            Disposition::Requested(_) | Disposition::None | Disposition::Remediating => finding.due,
        };
        let mut risk = object(json!({
            "uuid": self.id("risk", &Self::key(failing)),
            "title": format!("{} for {}", finding.control, finding.subject),
            "description": line(&finding.message),
            "statement": statement,
            "status": match failing.disposition {
                Disposition::None => "open",
                Disposition::Remediating => "remediating",
                Disposition::Requested(_) => "deviation-requested",
                Disposition::Approved(_) | Disposition::FalsePositive(_) => "deviation-approved",
            },
            "deadline": deadline.to_string(),
            "related-observations": [
                {"observation-uuid": self.id("observation", &Self::key(failing))},
            ],
        }));
        let mut props = vec![
            ours("severity", finding.severity.name()),
            ours("control", finding.control.as_str()),
            ours("subject", &line(finding.subject.as_str())),
        ];
        if let Some(case) = case {
            props.push(ours("exception", &line(case.id.as_str())));
            let confirmed = matches!(
                failing.disposition,
                Disposition::Approved(_) | Disposition::FalsePositive(_)
            );
            match case.request.deviation {
                // OSCAL's word for what has been confirmed.
                Deviation::FalsePositive if confirmed => {
                    props.push(prop("false-positive", "approved"));
                }
                Deviation::IncidentOverride => {
                    let incident = case.request.incident.as_deref().unwrap_or("-");
                    props.push(ours("incident", &line(incident)));
                }
                Deviation::FalsePositive | Deviation::Waiver | Deviation::Mitigated => {}
            }
            props.push(ours("deviation", case.request.deviation.name()));
            put(
                &mut risk,
                "remediations",
                vec![self.response(case, &Self::key(failing))],
            );
            risk.insert(
                "risk-log".into(),
                json!({"entries": self.entries(case, &Self::key(failing))}),
            );
        }
        let remedy = finding.remedy.as_ref();
        let remedy = remedy.filter(|_| failing.disposition == Disposition::Remediating);
        if let Some(remedy) = remedy {
            let of = self.id("response", &format!("remedy:{}", Self::key(failing)));
            let response = json!({
                "uuid": of,
                "lifecycle": "planned",
                "title": line(&format!("remedy by {}", remedy.until)),
                "description": remedy.plan,
                "props": [prop("type", "mitigate")],
                "remarks": line(&format!("said by {} at {}", remedy.by, remedy.time)),
            });
            put(&mut risk, "remediations", vec![response]);
        }
        put(&mut risk, "props", props);
        Json::Object(risk)
    }

    /// What is done about a risk.
    fn response(&self, case: &Case, of: &str) -> Json {
        let kind = match case.request.deviation {
            Deviation::Waiver | Deviation::IncidentOverride => "accept",
            Deviation::Mitigated => "mitigate",
            Deviation::FalsePositive => "none",
        };
        let words = &case.request.justification;
        json!({
            "uuid": self.id("response", &format!("{}:{of}", case.id)),
            // How the need goes away is a plan, also while the exception is in force.
            "lifecycle": "planned",
            "title": format!("exception {}", case.id),
            "description": words.remediation_plan,
            "props": [prop("type", kind), ours("ticket", &line(&words.ticket_ref))],
            "remarks": words.business_need,
        })
    }

    /// What happened: asked for, what each person said, and granted, if it was. Only that approves
    /// the deviation; one vote of several does not.
    fn entries(&self, case: &Case, of: &str) -> Vec<Json> {
        let submitted = case
            .terms
            .as_ref()
            .map_or(case.created, |terms| terms.submitted);
        let id = |what: &str| self.id("entry", &format!("{}:{of}:{what}", case.id));
        let mut entries = vec![json!({
            "uuid": id("submitted"),
            "title": "asked for",
            // Looking at it again puts its terms' time after that.
            "start": case.created.min(submitted).to_string(),
            "logged-by": [{"party-uuid": self.party(&case.requester)}],
            "props": [prop("type", "dr-submission")],
            "status-change": "deviation-requested",
        })];
        for (number, vote) in case.votes.iter().enumerate() {
            let (title, kind) = if vote.approves {
                ("approved", "status-update")
            } else {
                ("denied", "dr-rejected")
            };
            entries.push(json!({
                "uuid": id(&format!("vote:{number}")),
                "title": format!("{title} as {}", vote.role),
                "description": line(&vote.comment),
                "start": vote.time.to_string(),
                "logged-by": [{"party-uuid": self.party(&vote.approver), "role-id": vote.role.name()}],
                "props": [prop("type", kind)],
            }));
        }
        if let Some(granted) = case.granted {
            let votes = case
                .votes
                .iter()
                .filter(|vote| vote.ballot == Ballot::Initial);
            let last = votes.map(|vote| vote.time).max();
            entries.push(json!({
                "uuid": id("granted"),
                "title": format!("granted until {}", granted.expire),
                "start": last.unwrap_or(granted.effective).to_string(),
                "logged-by": [{"party-uuid": self.party(&case.request.owner)}],
                "props": [prop("type", "dr-approved")],
                "status-change": "deviation-approved",
            }));
        }
        entries
    }

    fn finding(&self, failing: &Failing<'_>) -> Json {
        let finding = failing.finding;
        let title = failing.control.map_or("-", |control| &control.title);
        json!({
            "uuid": self.id("finding", &Self::key(failing)),
            "title": format!("{}: {}", finding.control, line(title)),
            "description": line(&finding.message),
            "target": {
                "type": "objective-id",
                "target-id": finding.control.as_str(),
                // An exception changes what is done about it, and never what it is.
                "status": {
                    "state": "not-satisfied",
                    "reason": if finding.fault == crate::domain::Fault::Fails { "fail" } else { "other" },
                },
            },
            "related-observations": [
                {"observation-uuid": self.id("observation", &Self::key(failing))},
            ],
            "related-risks": [{"risk-uuid": self.id("risk", &Self::key(failing))}],
        })
    }

    fn satisfied(&self, control: &Control, passes: usize) -> Json {
        json!({
            "uuid": self.id("finding", control.id.as_str()),
            "title": format!("{}: {}", control.id, line(&control.title)),
            "description": format!("passes for {passes} subjects, and fails for none"),
            "target": {
                "type": "objective-id",
                "target-id": control.id.as_str(),
                "status": {"state": "satisfied", "reason": "pass"},
            },
        })
    }

    /// The frameworks' ids that each control answers to.
    fn resources(&self) -> Json {
        let answers = self.controls.iter().map(|control| {
            let ids = control
                .frameworks
                .iter()
                .map(|of| format!("{} {}", of.framework, of.id));
            let ids: Vec<_> = ids.collect();
            format!(
                "{} revision {}: {}",
                control.id,
                control.revision,
                ids.join(", ")
            )
        });
        let answers: Vec<_> = answers.collect();
        json!({"resources": [{
            "uuid": self.id("plan", &self.revision.to_string()),
            "title": format!("Controls in force at revision {}", self.revision),
            "description": line(&answers.join("; ")),
        }]})
    }
}

/// Assessment results: every control in force, and for whom it does not pass.
pub fn assessment_results(assessed: &Assessed<'_>) -> Json {
    let plan = assessed.id("plan", &assessed.revision.to_string());
    let reviewed = assessed
        .controls
        .iter()
        .map(|control| json!({"control-id": control.id.as_str()}));
    let moment = assessed.moment();
    let mut result = object(json!({
        "uuid": assessed.id("result", &moment),
        "title": format!("Controls{} at revision {}", assessed.of(), assessed.revision),
        "description": format!("Every control that runs by itself, over every governed subject{}. What an exception covers is not satisfied all the same.", assessed.of()),
        "start": assessed.now.to_string(),
        "end": assessed.now.to_string(),
        "reviewed-controls": {
            "control-selections": [{"include-controls": reviewed.collect::<Json>()}],
        },
    }));
    let components = assessed.components();
    if !components.is_empty() {
        result.insert(
            "local-definitions".into(),
            json!({"components": components}),
        );
    }
    let failing = || assessed.failing.iter();
    put(
        &mut result,
        "observations",
        failing().map(|one| assessed.observation(one)).collect(),
    );
    put(
        &mut result,
        "risks",
        failing().map(|one| assessed.risk(one)).collect(),
    );
    let passing = assessed.passing.iter();
    let findings = failing()
        .map(|one| assessed.finding(one))
        .chain(passing.map(|(control, passes)| assessed.satisfied(control, *passes)));
    put(&mut result, "findings", findings.collect());
    json!({"assessment-results": {
        "uuid": assessed.id("assessment-results", &moment),
        "metadata": assessed.metadata("Assessment results"),
        "import-ap": {"href": format!("#{plan}")},
        "results": [result],
        "back-matter": assessed.resources(),
    }})
}

/// A plan of action and milestones: what is to be remedied, and until when; nothing where there is
/// nothing, since OSCAL knows no empty plan.
pub fn plan_of_action(assessed: &Assessed<'_>) -> Option<Json> {
    let failing = || assessed.failing.iter();
    let items = failing().map(|one| {
        let finding = one.finding;
        let remedy = one.control.map_or("", |control| &control.remediation);
        let remedy = if remedy.trim().is_empty() {
            &finding.message
        } else {
            remedy
        };
        json!({
            "uuid": assessed.id("item", &Assessed::key(one)),
            "title": format!("{} for {}", finding.control, finding.subject),
            "description": line(remedy),
            "related-findings": [{"finding-uuid": assessed.id("finding", &Assessed::key(one))}],
            "related-observations": [
                {"observation-uuid": assessed.id("observation", &Assessed::key(one))},
            ],
            "related-risks": [{"risk-uuid": assessed.id("risk", &Assessed::key(one))}],
        })
    });
    let items: Vec<_> = items.collect();
    if items.is_empty() {
        return None;
    }
    let moment = assessed.moment();
    Some(json!({"plan-of-action-and-milestones": {
        "uuid": assessed.id("plan-of-action", &moment),
        "metadata": assessed.metadata("Plan of action and milestones"),
        "system-id": {"identifier-type": "http://ietf.org/rfc/rfc4122", "id": assessed.id("system", "")},
        "local-definitions": {"components": assessed.components()},
        "observations": failing().map(|one| assessed.observation(one)).collect::<Json>(),
        "risks": failing().map(|one| assessed.risk(one)).collect::<Json>(),
        "findings": failing().map(|one| assessed.finding(one)).collect::<Json>(),
        "poam-items": items,
        "back-matter": assessed.resources(),
    }}))
}
