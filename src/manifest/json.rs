//! Manifests as canonical JSON: what the registry stores and sends.

use crate::{
    domain::{Invalid, Kind},
    engine::Change,
};

use super::{
    ControlManifest, DomainManifest, ExceptionManifest, SubjectManifest, TierPolicyManifest,
    fingerprint::canonical, options,
};

/// A manifest written as YAML, as canonical JSON; the revision is the registry's to give.
pub(super) fn of_yaml(text: &str) -> Result<String, Invalid> {
    let mut value: serde_json::Value = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| {
            Invalid::new(
                "",
                format!("does not read as JSON: {}", error.without_snippet()),
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
            Change::PutControl(control)
        }
        Kind::Subject => Change::PutSubject(read!(SubjectManifest)),
        Kind::Exception => {
            let mut exception = read!(ExceptionManifest);
            exception.revision = revision;
            Change::PutException(exception)
        }
        Kind::Domain => Change::PutDomain(read!(DomainManifest)),
        Kind::TierPolicy => {
            let (tier, rules) = read!(TierPolicyManifest);
            Change::PutTier(tier, rules)
        }
    })
}
