//! `kind: Person` and `kind: Group`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::{Group, GroupId, Invalid, Member, Person, Principal};

use super::{
    case::some_time,
    control::{each, name},
    format,
};

/// Somebody who may own, ask and decide.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Person")]
pub struct PersonManifest {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion")]
    _api_version: super::document::ApiVersion,
    /// `Person`.
    #[serde(rename = "kind")]
    _kind: PersonKind,
    /// The identity they act under: `user:NAME`.
    #[schemars(with = "format::APerson")]
    pub(super) id: String,
    /// Who they are, whichever identity they use; two identities with one of these are one person.
    #[schemars(with = "Option<format::AName>")]
    person_id: Option<String>,
    /// Whether they are still with us.
    #[serde(default = "yes")]
    active: bool,
    /// When that was last confirmed. Ninety days later what they own is suspended: it takes another
    /// `attest_time`, and another approval. Without one nobody asks.
    #[schemars(with = "Option<format::ATime>")]
    attest_time: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum PersonKind {
    Person,
}

fn yes() -> bool {
    true
}

impl PersonManifest {
    /// The person it describes.
    pub fn parse(&self) -> Result<Person, Invalid> {
        let person_id = self.person_id.as_deref().map(name).transpose();
        Ok(Person {
            id: Principal::parse_human(&self.id).map_err(|e| e.under("id"))?,
            person_id: person_id.map_err(|e| e.under("person_id"))?,
            active: self.active,
            attest_time: some_time(self.attest_time.as_ref())
                .map_err(|e| e.under("attest_time"))?,
        })
    }
}

/// Some people, by an id.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Group")]
pub struct GroupManifest {
    /// `exeat/v1`.
    #[serde(rename = "apiVersion")]
    _api_version: super::document::ApiVersion,
    /// `Group`.
    #[serde(rename = "kind")]
    _kind: GroupKind,
    /// A name without blanks; of a group from elsewhere with its issuer.
    #[schemars(with = "format::AGroup")]
    pub(super) id: String,
    /// Who is in it: `user:NAME`, or `group:ID` for everybody in another group.
    #[schemars(with = "Vec<format::AMember>")]
    members: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum GroupKind {
    Group,
}

/// Who is in a group: a person, or everybody in another.
pub(super) fn member(text: &str) -> Result<Member, Invalid> {
    match text.strip_prefix("group:") {
        Some(id) => GroupId::parse(id).map(Member::Group),
        None => Principal::parse_human(text).map(Member::Person),
    }
}

impl GroupManifest {
    /// The group it describes.
    pub fn parse(&self) -> Result<Group, Invalid> {
        Ok(Group {
            id: GroupId::parse(&self.id).map_err(|e| e.under("id"))?,
            members: each("members", &self.members, |text| member(text))?,
        })
    }
}
