//! JSON Schema (draft-07) of each kind, for editors.

use schemars::{JsonSchema, generate::SchemaSettings};

use crate::domain::Kind;

use super::{
    ControlManifest, DomainManifest, ExceptionManifest, GroupManifest, IncidentManifest,
    PersonManifest, ProposalManifest, RequestManifest, SubjectManifest, TierPolicyManifest,
};

/// The schema of manifests of `kind`.
pub fn schema(kind: Kind) -> serde_json::Value {
    match kind {
        Kind::Control => schema_of::<ControlManifest>(),
        Kind::Subject => schema_of::<SubjectManifest>(),
        Kind::Exception => schema_of::<ExceptionManifest>(),
        Kind::TierPolicy => schema_of::<TierPolicyManifest>(),
        Kind::Domain => schema_of::<DomainManifest>(),
        Kind::Person => schema_of::<PersonManifest>(),
        Kind::Group => schema_of::<GroupManifest>(),
        // As `exeat get incidents -o json` shows them.
        Kind::Proposal => schema_of::<ProposalManifest>(),
        Kind::Incident => schema_of::<IncidentManifest>(),
        // What a case is asked for with; a finding is asked for with nothing.
        Kind::Case | Kind::Finding => schema_of::<RequestManifest>(),
    }
}

/// The schema of any file that is read with serde.
pub fn schema_of<T: JsonSchema>() -> serde_json::Value {
    SchemaSettings::draft07()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}
