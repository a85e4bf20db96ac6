//! Proposals as the registry keeps them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::domain::{
    ApproverRole, ControlId, Digest, Invalid, Principal, Proposal, ProposalState, Timestamp, Voice,
};

use super::{
    case::{AssuranceRecord, assurance_of},
    control::{each, name},
    fingerprint::{canonical, digest},
};

/// A control that is to deny less; it is proposed, not applied.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Proposal")]
pub struct ProposalManifest {
    /// Its id.
    id: String,
    /// The control.
    control: String,
    /// The control's revision that it is about.
    base: u64,
    /// What the control is to be; nothing if it is to be removed.
    manifest: Option<String>,
    /// How it denies less.
    weakens: String,
    /// Why.
    reason: String,
    /// Who proposed it.
    proposer: String,
    /// When.
    created: String,
    /// What votes are bound to.
    digest: String,
    /// Who decided what, in order.
    voices: Vec<VoiceManifest>,
    /// Where it stands.
    state: String,
    /// Since when.
    since: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VoiceManifest {
    approver: String,
    person: String,
    role: String,
    approves: bool,
    comment: String,
    time: String,
    #[serde(default)]
    assurance: Option<AssuranceRecord>,
}

impl VoiceManifest {
    fn parse(&self) -> Result<Voice, Invalid> {
        let unknown = || Invalid::new("role", format!("`{}` is not known", self.role), "");
        Ok(Voice {
            approver: Principal::parse(&self.approver)?,
            person: self.person.as_str().into(),
            role: ApproverRole::parse(&self.role).ok_or_else(unknown)?,
            approves: self.approves,
            comment: self.comment.as_str().into(),
            time: Timestamp::parse(&self.time)?,
            assurance: self.assurance.as_ref().map(AssuranceRecord::parse),
        })
    }
}

impl ProposalManifest {
    /// The proposal it describes.
    pub fn parse(&self) -> Result<Proposal, Invalid> {
        let unknown = || Invalid::new("state", format!("`{}` is not known", self.state), "");
        Ok(Proposal {
            id: name(&self.id)?,
            control: ControlId::parse(&self.control)?,
            base: self.base,
            manifest: self.manifest.as_deref().map(Into::into),
            weakens: self.weakens.as_str().into(),
            reason: self.reason.as_str().into(),
            proposer: Principal::parse(&self.proposer)?,
            created: Timestamp::parse(&self.created)?,
            digest: Digest::parse(&self.digest)?,
            voices: each("voices", &self.voices, VoiceManifest::parse)?,
            state: ProposalState::parse(&self.state).ok_or_else(unknown)?,
            since: Timestamp::parse(&self.since)?,
        })
    }
}

fn decided_about(proposal: &Proposal) -> Json {
    json!({
        "id": proposal.id,
        "control": proposal.control.as_str(),
        "base": proposal.base,
        "manifest": proposal.manifest,
        "weakens": proposal.weakens,
        "reason": proposal.reason,
        "proposer": proposal.proposer.as_str(),
        "created": proposal.created.to_string(),
    })
}

/// The digest over everything that is decided about.
///
/// # Errors
///
/// None for a proposal that was made.
pub fn proposal_digest(proposal: &Proposal) -> Result<Digest, Invalid> {
    digest(&decided_about(proposal))
}

/// A proposal as it is kept.
pub fn write_proposal(proposal: &Proposal) -> String {
    let voices = proposal.voices.iter().map(|voice| {
        json!({
            "approver": voice.approver.as_str(),
            "person": voice.person,
            "role": voice.role.name(),
            "approves": voice.approves,
            "comment": voice.comment,
            "time": voice.time.to_string(),
            "assurance": voice.assurance.as_ref().map(assurance_of),
        })
    });
    let mut record = decided_about(proposal);
    if let Some(fields) = record.as_object_mut() {
        fields.insert("digest".into(), proposal.digest.as_str().into());
        fields.insert("voices".into(), voices.collect());
        fields.insert("state".into(), proposal.state.name().into());
        fields.insert("since".into(), proposal.since.to_string().into());
    }
    let mut text = String::new();
    canonical(&record, &mut text);
    text
}
