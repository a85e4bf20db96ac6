//! Findings as the registry keeps them.

use serde::Deserialize;
use serde_json::json;

use crate::domain::{
    ControlId, Fault, Finding, Invalid, Principal, Remedy, Severity, SubjectId, Timestamp,
};

use super::fingerprint::canonical;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FindingRecord {
    control: String,
    control_revision: u64,
    subject: String,
    fault: String,
    message: String,
    severity: String,
    owner: String,
    first_seen: String,
    due: String,
    satisfied: Option<String>,
    covered: bool,
    told: Option<String>,
    remedy: Option<RemedyRecord>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemedyRecord {
    by: String,
    plan: String,
    until: String,
    time: String,
}

impl RemedyRecord {
    fn parse(self) -> Result<Remedy, Invalid> {
        Ok(Remedy {
            by: Principal::parse(&self.by)?,
            plan: self.plan.into(),
            until: Timestamp::parse(&self.until)?,
            time: Timestamp::parse(&self.time)?,
        })
    }
}

fn severity(name: &str) -> Result<Severity, Invalid> {
    [
        Severity::Low,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ]
    .into_iter()
    .find(|severity| severity.name() == name)
    .ok_or_else(|| Invalid::new("severity", format!("`{name}` is not known"), ""))
}

/// A finding as it was kept.
///
/// # Errors
///
/// What cannot be read.
pub fn read_finding(text: &str) -> Result<Finding, Invalid> {
    let record: FindingRecord = serde_json::from_str(text)
        .map_err(|error| Invalid::new("", format!("is no finding: {error}"), ""))?;
    let some = |time: &Option<String>| time.as_deref().map(Timestamp::parse).transpose();
    let unknown = || Invalid::new("fault", format!("`{}` is not known", record.fault), "");
    Ok(Finding {
        control: ControlId::parse(&record.control)?,
        control_revision: record.control_revision,
        subject: SubjectId::parse(&record.subject)?,
        fault: Fault::parse(&record.fault).ok_or_else(unknown)?,
        message: record.message.as_str().into(),
        severity: severity(&record.severity)?,
        owner: Principal::parse(&record.owner)?,
        first_seen: Timestamp::parse(&record.first_seen)?,
        due: Timestamp::parse(&record.due)?,
        satisfied: some(&record.satisfied)?,
        covered: record.covered,
        told: some(&record.told)?,
        remedy: record.remedy.map(RemedyRecord::parse).transpose()?,
    })
}

/// A finding as it is kept.
pub fn write_finding(finding: &Finding) -> String {
    let Finding {
        control,
        control_revision,
        subject,
        fault,
        message,
        severity,
        owner,
        first_seen,
        due,
        satisfied,
        covered,
        told,
        remedy,
    } = finding;
    let mut record = json!({
        "control": control.as_str(),
        "control_revision": control_revision,
        "subject": subject.as_str(),
        "fault": fault.name(),
        "message": message,
        "severity": severity.name(),
        "owner": owner.as_str(),
        "first_seen": first_seen.to_string(),
        "due": due.to_string(),
        "satisfied": satisfied.map(|time| time.to_string()),
        "covered": covered,
        "told": told.map(|time| time.to_string()),
    });
    if let (Some(remedy), Some(fields)) = (remedy, record.as_object_mut()) {
        let Remedy {
            by,
            plan,
            until,
            time,
        } = remedy;
        let remedy = json!({"by": by.as_str(), "plan": plan, "until": until.to_string(), "time": time.to_string()});
        fields.insert("remedy".into(), remedy);
    }
    let mut text = String::new();
    canonical(&record, &mut text);
    text
}
