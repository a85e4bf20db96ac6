//! Incidents as the registry keeps them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::domain::{DomainId, Incident, IncidentId, Invalid, Timestamp};

use super::{control::name, fingerprint::canonical};

/// Something that went wrong and is being dealt with; it is declared, not applied.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Incident")]
pub struct IncidentManifest {
    /// Its id where it is dealt with.
    id: String,
    /// The domain it happens in.
    domain: String,
    /// What people call it.
    title: String,
    /// Who said that it began.
    opened_by: String,
    /// When.
    opened: String,
    /// Who said that it is over.
    resolved_by: Option<String>,
    /// When.
    resolved: Option<String>,
}

impl IncidentManifest {
    /// The incident it describes.
    pub fn parse(&self) -> Result<Incident, Invalid> {
        let resolved = match (&self.resolved_by, &self.resolved) {
            (Some(by), Some(at)) => Some((name(by)?, Timestamp::parse(at)?)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Invalid::new("resolved", "says half of it", ""));
            }
        };
        Ok(Incident {
            id: IncidentId::parse(&self.id).map_err(|e| e.under("id"))?,
            domain: DomainId::parse(&self.domain).map_err(|e| e.under("domain"))?,
            title: name(&self.title).map_err(|e| e.under("title"))?,
            opened_by: name(&self.opened_by).map_err(|e| e.under("opened_by"))?,
            opened: Timestamp::parse(&self.opened).map_err(|e| e.under("opened"))?,
            resolved,
        })
    }
}

/// An incident as it is kept.
pub fn write_incident(incident: &Incident) -> String {
    let Incident {
        id,
        domain,
        title,
        opened_by,
        opened,
        resolved,
    } = incident;
    let mut record = json!({
        "id": id.as_str(),
        "domain": domain.as_str(),
        "title": title,
        "opened_by": opened_by,
        "opened": opened.to_string(),
    });
    if let (Some((by, at)), Some(fields)) = (resolved, record.as_object_mut()) {
        fields.insert("resolved_by".into(), by.as_ref().into());
        fields.insert("resolved".into(), at.to_string().into());
    }
    let mut text = String::new();
    canonical(&record, &mut text);
    text
}
