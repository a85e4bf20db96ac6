//! Facets: parts of a subject's metadata with a digest of their own, and fingerprints over them.

use std::fmt;

use super::{Digest, Invalid, Timestamp};

/// A part of what is governed about a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Facet {
    /// Provider, name, version and digest of the model.
    Model,
    /// The tools and their definitions.
    Tools,
    /// The prompts.
    Prompts,
    /// The data sources.
    DataSources,
    /// The permissions on the tools.
    Permissions,
    /// The scopes of the credentials.
    CredentialsScopes,
    /// Where it runs.
    Environment,
    /// What it may be used for.
    Purpose,
    /// The credentials' states; evidence only, never bound.
    Credentials,
    /// The lineage of the training data; evidence only.
    Lineage,
    /// The approvals; evidence only.
    Approvals,
    /// Registry metadata and heartbeats; evidence only.
    Metadata,
    /// The owner's standing; evidence only.
    Owner,
}

impl Facet {
    /// How many facets there are.
    pub const COUNT: usize = 13;

    /// Every facet, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Model,
        Self::Tools,
        Self::Prompts,
        Self::DataSources,
        Self::Permissions,
        Self::CredentialsScopes,
        Self::Environment,
        Self::Purpose,
        Self::Credentials,
        Self::Lineage,
        Self::Approvals,
        Self::Metadata,
        Self::Owner,
    ];

    /// The facets a fingerprint covers and an exception may be bound to (governance §6.2).
    pub const BINDABLE: [Self; 8] = [
        Self::Model,
        Self::Tools,
        Self::Prompts,
        Self::DataSources,
        Self::Permissions,
        Self::CredentialsScopes,
        Self::Environment,
        Self::Purpose,
    ];

    /// The facet's name as written in manifests and requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::DataSources => "data_sources",
            Self::Permissions => "permissions",
            Self::CredentialsScopes => "credentials_scopes",
            Self::Environment => "environment",
            Self::Purpose => "purpose",
            Self::Credentials => "credentials",
            Self::Lineage => "lineage",
            Self::Approvals => "approvals",
            Self::Metadata => "metadata",
            Self::Owner => "owner",
        }
    }

    /// Parses a facet's name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|facet| facet.name() == text)
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|facet| facet.name()).collect();
                Invalid::new(
                    "",
                    format!("`{text}` is not a facet"),
                    format!("use one of {}", names.join(", ")),
                )
            })
    }

    /// Parses the name of a facet that an exception may be bound to.
    pub fn parse_bindable(text: &str) -> Result<Self, Invalid> {
        let facet = Self::parse(text)?;
        if Self::BINDABLE.contains(&facet) {
            return Ok(facet);
        }
        let names: Vec<_> = Self::BINDABLE.iter().map(|facet| facet.name()).collect();
        Err(Invalid::new(
            "",
            format!("facet `{text}` has no fingerprint"),
            format!("bind one of {}", names.join(", ")),
        ))
    }
}

impl fmt::Display for Facet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a facet's source claims to have reported everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Everything there is.
    Complete,
    /// Possibly less.
    Partial,
}

/// Where a facet's value came from, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FacetState {
    /// Who reported it.
    pub source: Box<str>,
    /// When it was observed.
    pub observed_time: Timestamp,
    /// Whether it is all there is.
    pub completeness: Completeness,
}

/// One digest for each facet that has one (R36).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Fingerprint {
    digests: Vec<(Facet, Digest)>,
}

impl Fingerprint {
    /// From digests by facet; of two for one facet the later is kept.
    pub fn new(digests: impl IntoIterator<Item = (Facet, Digest)>) -> Self {
        let mut digests: Vec<_> = digests.into_iter().collect();
        // Stable, so that of two for one facet the later is the last; it is kept.
        digests.sort_by_key(|(facet, _)| *facet);
        digests.reverse();
        digests.dedup_by_key(|(facet, _)| *facet);
        digests.reverse();
        Self { digests }
    }

    /// The digest of `facet`, if known.
    pub fn get(&self, facet: Facet) -> Option<&Digest> {
        self.digests
            .iter()
            .find(|(known, _)| *known == facet)
            .map(|(_, digest)| digest)
    }

    /// The digests in the order of the facets.
    pub fn iter(&self) -> impl Iterator<Item = (Facet, &Digest)> {
        self.digests.iter().map(|(facet, digest)| (*facet, digest))
    }

    /// Whether no facet has a digest.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Takes the other's text of every digest that is the same, so that it is kept once.
    pub(crate) fn share(&mut self, other: &Self) {
        for (facet, digest) in &mut self.digests {
            if let Some(same) = other.get(*facet).filter(|theirs| *theirs == digest) {
                digest.clone_from(same);
            }
        }
    }

    /// The facets known on both sides whose digests differ.
    pub fn changed<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Facet> + 'a {
        self.iter().filter_map(|(facet, digest)| {
            other
                .get(facet)
                .is_some_and(|theirs| theirs != digest)
                .then_some(facet)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::parse(text).expect("a digest")
    }

    #[test]
    fn r36_a_difference_names_the_facet() {
        let one = Fingerprint::new([
            (Facet::Tools, digest("sha256:a")),
            (Facet::Model, digest("sha256:m")),
        ]);
        let two = Fingerprint::new([
            (Facet::Tools, digest("sha256:b")),
            (Facet::Model, digest("sha256:m")),
        ]);
        assert_eq!(one.changed(&two).collect::<Vec<_>>(), [Facet::Tools]);
    }
}
