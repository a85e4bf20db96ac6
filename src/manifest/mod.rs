//! Manifests: folders of YAML → changes of a snapshot, or errors with file, line and column.

mod bundle;
mod case;
mod control;
mod document;
mod exception;
mod fingerprint;
mod frameworks;
mod incident;
mod json;
mod leaf;
mod people;
mod place;
mod policy;
mod problem;
mod request;
mod schema;
mod secret;
mod subject;
mod tree;

pub use bundle::{Bundle, Counts};
pub use case::{exception_of, read_case, terms_digest, write_case};
pub use control::ControlManifest;
pub use document::split;
pub use exception::ExceptionManifest;
pub use incident::{IncidentManifest, write_incident};
pub use json::{change, differs, instance, read_json, tier_of};
pub use leaf::{leaf_text, payloads};
pub use people::{GroupManifest, PersonManifest};
pub use place::Places;
pub use policy::{DomainManifest, TierPolicyManifest};
pub use problem::Problem;
pub use request::{RequestManifest, read_request};
pub use schema::{schema, schema_of};
pub use subject::SubjectManifest;
pub use tree::{Tree, from_json, options};
