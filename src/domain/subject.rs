//! A governed subject: agent, model, service, pipeline or tool server.

use std::fmt;

use super::{
    ClassId, Digest, DomainId, Facet, FacetState, Fingerprint, Invalid, Pattern, Span, SubjectId,
    Tier, Timestamp, Value,
};

/// Longest lease of an instance (R31).
pub const INSTANCE_LEASE: Span = Span::from_secs(600);

/// What a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    /// An AI agent.
    AiAgent,
    /// A model.
    Model,
    /// A service.
    Service,
    /// A pipeline.
    Pipeline,
    /// A server that offers tools.
    ToolServer,
}

/// Where a subject is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Not yet in use.
    Proposed,
    /// In use.
    Active,
    /// Taken out of use for a while.
    Suspended,
    /// Out of use for good: every question is denied.
    Retired,
}

/// How sensitive data is, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sensitivity {
    /// Anyone may see it.
    Public,
    /// For insiders.
    Internal,
    /// For those who need it.
    Confidential,
    /// For the few.
    Restricted,
}

impl Sensitivity {
    /// Every one, the least sensitive first.
    pub const ALL: [Self; 4] = [
        Self::Public,
        Self::Internal,
        Self::Confidential,
        Self::Restricted,
    ];

    /// The one called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// The name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "PUBLIC",
            Self::Internal => "INTERNAL",
            Self::Confidential => "CONFIDENTIAL",
            Self::Restricted => "RESTRICTED",
        }
    }
}

impl fmt::Display for Sensitivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the registry governs about one subject (governance §6.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Its id.
    pub id: SubjectId,
    /// The class it is an instance of.
    pub class: Option<ClassId>,
    /// The domain it belongs to.
    pub domain: Option<DomainId>,
    /// Where it is in its life.
    pub lifecycle: Lifecycle,
    /// How much is at stake with it: LOW, MODERATE or HIGH.
    pub risk_tier: Tier,
    /// How sensitive its data is.
    pub data_sensitivity: Sensitivity,
    /// Where it runs, byte for byte as scopes name it.
    pub environment: Box<str>,
    /// Why every question of it is denied at present, if it is frozen.
    pub lock: Option<Box<str>>,
    /// Where each facet came from.
    pub facets: Vec<(Facet, FacetState)>,
    /// The governed digests of its facets.
    pub fingerprint: Fingerprint,
    /// The digest over all of them.
    pub combined: Digest,
    /// Everything conditions may read, in the shape of the attribute catalogue.
    pub attributes: Value,
    /// Of a class: who may register as an instance of it.
    pub instances: Option<Instances>,
    /// Of an instance: from when on no exception holds for it, unless it registers again.
    pub lease_expire_time: Option<Timestamp>,
}

/// Who may register as an instance of a class: workloads that come and go faster than anybody
/// governs them one by one (R31).
#[derive(Clone, Debug, PartialEq)]
pub struct Instances {
    /// Identities, exact or with all below a `/`.
    pub identities: Vec<Pattern>,
    /// How long a registration holds; at most [`INSTANCE_LEASE`].
    pub lease: Span,
}

impl Instances {
    /// How exactly `id` is meant: the length of the longest identity that matches it.
    pub fn fit(&self, id: &SubjectId) -> Option<usize> {
        let fits = |pattern: &&Pattern| pattern.matches(id.as_str());
        let matching = self.identities.iter().filter(fits);
        matching.map(|pattern| pattern.as_str().len()).max()
    }
}

impl Subject {
    /// Where `facet` came from, if it was reported at all.
    pub fn facet(&self, facet: Facet) -> Option<&FacetState> {
        self.facets
            .iter()
            .find(|(known, _)| *known == facet)
            .map(|(_, state)| state)
    }
}

impl SubjectKind {
    /// The name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::AiAgent => "AI_AGENT",
            Self::Model => "MODEL",
            Self::Service => "SERVICE",
            Self::Pipeline => "PIPELINE",
            Self::ToolServer => "TOOL_SERVER",
        }
    }
}

impl Lifecycle {
    /// Parses the state; an ACTIVE subject's other invariants are the manifest's to check (U3).
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "PROPOSED" => Ok(Self::Proposed),
            "ACTIVE" => Ok(Self::Active),
            "SUSPENDED" => Ok(Self::Suspended),
            "RETIRED" => Ok(Self::Retired),
            _ => Err(Invalid::new(
                "",
                format!("`{text}` is not a lifecycle state"),
                "use PROPOSED, ACTIVE, SUSPENDED or RETIRED",
            )),
        }
    }

    /// The name as written in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "PROPOSED",
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Retired => "RETIRED",
        }
    }
}
