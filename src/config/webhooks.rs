//! The file that says who is told, and who may tell us.

use serde::Deserialize;

/// Who is told, and who may tell us.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// Where people look at what is told, such as `https://exeat.example.com`.
    pub public_url: Option<String>,
    /// Who is told.
    #[serde(default)]
    pub endpoints: Vec<WebhookEndpoint>,
    /// Who may tell us.
    #[serde(default)]
    pub sources: Vec<EventSource>,
}

/// Somebody who is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEndpoint {
    /// What it is called here.
    pub name: String,
    /// Its address; of Slack and Teams it is a secret, and belongs into a file.
    pub url: Option<String>,
    /// A file with its address.
    pub url_file: Option<String>,
    /// A file with the secrets that messages are signed with, one a line.
    pub secret_file: Option<String>,
    /// `standard`, `cloudevents`, `slack` or `teams`.
    #[serde(default = "standard")]
    pub format: String,
    /// What it is told, such as `exception.requested` or `exception.*`; everything if left out.
    #[serde(default)]
    pub events: Vec<String>,
    /// Only what happens in these domains and below them.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Addresses within the machine or the network that are meant, such as `10.1.0.0/16`.
    #[serde(default)]
    pub allow: Vec<String>,
    /// A file with certificate authorities that are believed beside the system's.
    pub ca: Option<String>,
}

/// Somebody who may tell us.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventSource {
    /// What it is called here: events are posted to `/events/NAME`.
    pub name: String,
    /// What it may speak of: `incidents`, `credentials`, `sessions`.
    #[serde(default)]
    pub may: Vec<String>,
    /// A file with the secrets that its messages are signed with, one a line.
    pub secret_file: Option<String>,
    /// Of one that sends security event tokens: who issues them.
    pub issuer: Option<String>,
    /// Whom those are for.
    pub audience: Option<String>,
    /// Where the issuer's keys are; where its discovery document says, if left out.
    pub jwks_uri: Option<String>,
    /// Addresses within the machine or the network where those may be.
    #[serde(default)]
    pub allow: Vec<String>,
    /// A file with certificate authorities that are believed beside the system's.
    pub ca: Option<String>,
}

fn standard() -> String {
    "standard".into()
}
