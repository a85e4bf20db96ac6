//! Manifests as canonical JSON: what the registry stores and sends.

use crate::{
    domain::{
        ControlId, DomainId, Edit, ExceptionId, GroupId, Invalid, Kind, Principal, SubjectId, Tier,
        TierRules,
    },
    engine::Change,
};

use super::{
    ControlManifest, DomainManifest, ExceptionManifest, GroupManifest, IncidentManifest,
    PersonManifest, ProposalManifest, SubjectManifest, TierPolicyManifest, control::meaning,
    fingerprint::canonical, options, said,
};

/// A manifest written as YAML, as canonical JSON; the revision is the registry's to give.
pub(super) fn of_yaml(text: &str) -> Result<String, Invalid> {
    let mut value: serde_json::Value = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| {
            Invalid::new(
                "",
                format!("does not read as JSON: {}", said(&error)),
                "use plain values",
            )
        })?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("revision");
    }
    let mut json = String::new();
    canonical(&value, &mut json);
    Ok(json)
}

/// The change that makes the object of `kind` be what `json` says, at `revision`.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_json(kind: Kind, revision: u64, json: &str) -> Result<Change, Invalid> {
    let unreadable = |error: serde_json::Error| {
        Invalid::new(
            "",
            format!("does not read as JSON: {error}"),
            "put numbers that are meant as text into quotes",
        )
    };
    macro_rules! read {
        ($manifest:ty) => {
            serde_json::from_str::<$manifest>(json)
                .map_err(unreadable)?
                .parse()?
        };
    }
    Ok(match kind {
        Kind::Control => {
            let mut control = read!(ControlManifest);
            control.revision = revision;
            control.meaning = Some(meaning(json)?);
            Change::PutControl(control)
        }
        Kind::Subject => Change::PutSubject(read!(SubjectManifest)),
        Kind::Exception => {
            let mut exception = read!(ExceptionManifest);
            exception.revision = revision;
            Change::PutException(exception)
        }
        Kind::Domain => Change::PutDomain(read!(DomainManifest)),
        Kind::Person => Change::PutPerson(read!(PersonManifest)),
        Kind::Group => Change::PutGroup(read!(GroupManifest)),
        Kind::Incident => Change::PutIncident(read!(IncidentManifest)),
        Kind::Proposal => Change::PutProposal(read!(ProposalManifest)),
        Kind::Case | Kind::Finding => return Err(no_manifest()),
        Kind::TierPolicy => {
            let policy: TierPolicyManifest = serde_json::from_str(json).map_err(unreadable)?;
            let (tier, rules) = policy.kept()?;
            Change::PutTier(tier, rules)
        }
    })
}

/// Whether two manifests differ in one of the fields; what cannot be read differs.
pub fn differs(before: &str, after: &str, fields: &[&str]) -> bool {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let (Some(before), Some(after)) = (read(before), read(after)) else {
        return true;
    };
    fields
        .iter()
        .any(|field| before.get(field) != after.get(field))
}

/// Cases come about by requests and votes, and change nothing but what they grant.
fn no_manifest() -> Invalid {
    let fix = "ask with `exeat exception request`";
    Invalid::new("kind", "`Case` is not applied", fix)
}

/// The manifest of an instance: its class's, under its own id.
///
/// # Errors
///
/// A class whose manifest cannot be read.
pub fn instance(class: &str, id: &str) -> Result<String, Invalid> {
    let wrong = |error: serde_json::Error| Invalid::new("", error.to_string(), "");
    let mut manifest: serde_json::Value = serde_json::from_str(class).map_err(wrong)?;
    if let Some(fields) = manifest.as_object_mut() {
        fields.shift_remove("instances");
        let class = fields.insert("id".into(), id.into()).unwrap_or_default();
        fields.insert("class_id".into(), class);
    }
    serde_json::to_string(&manifest).map_err(wrong)
}

/// The change that an edit makes.
///
/// # Errors
///
/// A manifest or an id that cannot be read.
pub fn change(edit: &Edit) -> Result<Change, Invalid> {
    let (kind, id) = (edit.name.kind, &*edit.name.id);
    if let Some(manifest) = &edit.manifest {
        return read_json(kind, edit.revision, manifest);
    }
    Ok(match kind {
        Kind::Control => Change::RemoveControl(ControlId::parse(id)?),
        Kind::Subject => Change::RemoveSubject(SubjectId::parse(id)?),
        Kind::Exception => Change::RemoveException(ExceptionId::parse(id)?),
        Kind::Domain => Change::RemoveDomain(DomainId::parse(id)?),
        Kind::Person => Change::RemovePerson(Principal::parse(id)?),
        Kind::Group => Change::RemoveGroup(GroupId::parse(id)?),
        // An incident that is over is resolved, not removed.
        Kind::Case | Kind::Incident | Kind::Proposal | Kind::Finding => return Err(no_manifest()),
        Kind::TierPolicy => {
            // Without a policy a tier has its standard rules.
            let tier = tier_of(id)?;
            Change::PutTier(tier, TierRules::standard(tier))
        }
    })
}

/// The tier that a policy is about, by its name.
///
/// # Errors
///
/// A name of no tier.
pub fn tier_of(name: &str) -> Result<Tier, Invalid> {
    let known = Tier::ALL.into_iter().find(|tier| tier.name() == name);
    known.ok_or_else(|| {
        let fix = "use LOW, MODERATE, HIGH or INCIDENT";
        Invalid::new("tier", format!("`{name}` is no tier"), fix)
    })
}
