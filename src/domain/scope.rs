//! Where an exception holds: AND across dimensions, OR inside one (governance §6.3).

use std::fmt;

use super::{ClassId, Invalid, Reached, Sensitivity, SubjectId};

/// One dimension of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Which subjects.
    Subject,
    /// Which actions.
    Action,
    /// Which resources.
    Resource,
    /// Which environments.
    Environment,
    /// Which purposes.
    Purpose,
    /// Up to which sensitivity of the subject's data.
    DataSensitivity,
    /// The scope's own condition.
    Condition,
}

impl Dimension {
    /// Every dimension, in the order they are checked and reported.
    pub const ALL: [Self; 7] = [
        Self::Subject,
        Self::Action,
        Self::Resource,
        Self::Environment,
        Self::Purpose,
        Self::DataSensitivity,
        Self::Condition,
    ];

    /// The dimension's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Action => "action",
            Self::Resource => "resource",
            Self::Environment => "environment",
            Self::Purpose => "purpose",
            Self::DataSensitivity => "data_sensitivity",
            Self::Condition => "match_condition",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some of all there is, or explicitly any; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set<T> {
    /// Whatever it is.
    Any,
    /// One of these.
    Of(Box<[T]>),
}

impl<T> Set<T> {
    /// A set of the items given; an empty one may not exist.
    pub fn of(items: Vec<T>) -> Result<Self, Invalid> {
        if items.is_empty() {
            return Err(Invalid::new(
                "",
                "is empty",
                "list at least one, or write ANY",
            ));
        }
        Ok(Self::Of(items.into()))
    }

    /// Whether any item satisfies `test`; ANY always does.
    pub fn holds(&self, test: impl FnMut(&T) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Of(items) => items.iter().any(test),
        }
    }

    /// Whether this is the explicit ANY.
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    /// A number that grows with how much the set covers.
    fn width(&self, weight: impl Fn(&T) -> u64) -> u64 {
        match self {
            Self::Any => 1_000_000,
            Self::Of(items) => items.iter().map(weight).fold(0, u64::saturating_add),
        }
    }
}

/// A resource named exactly, or by a prefix that ends in `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Parses a pattern. Scheme and host are lowered; `.` and `..` segments are refused.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(
                "",
                "is empty",
                "name a resource, or a prefix ending in `/`",
            ));
        }
        if text.contains('*') {
            return Err(Invalid::new(
                "",
                format!("`{text}` holds a wildcard"),
                "name a resource exactly, or a prefix ending in `/`",
            ));
        }
        if has_dots(text) {
            return Err(Invalid::new(
                "",
                format!("`{text}` holds a `.` or `..` segment"),
                "write the resource's real path",
            ));
        }
        Ok(Self(lower_host(text).into()))
    }

    /// Whether `resource` is the one named, or lies below the prefix. Compared byte for byte after
    /// scheme and host are read without regard to case; a resource with `.` or `..` segments is
    /// never inside a prefix.
    pub fn matches(&self, resource: &str) -> bool {
        let host = host_end(resource);
        let same = |len: usize| {
            let (ours, theirs) = (self.0.as_bytes(), resource.as_bytes());
            let cut = host.min(len);
            match (
                ours.get(..cut),
                theirs.get(..cut),
                ours.get(cut..len),
                theirs.get(cut..len),
            ) {
                (Some(a), Some(b), Some(c), Some(d)) => a.eq_ignore_ascii_case(b) && c == d,
                _ => false,
            }
        };
        if self.0.ends_with('/') {
            resource.len() >= self.0.len() && same(self.0.len()) && !has_dots(resource)
        } else {
            resource.len() == self.0.len() && same(self.0.len())
        }
    }

    /// Whether `resource` may name something else than it says: it holds `.` or `..` segments. Such a
    /// resource is inside no scope, and within reach of every control.
    pub fn is_ambiguous(resource: &str) -> bool {
        has_dots(resource)
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn weight(&self) -> u64 {
        if self.0.ends_with('/') { 1_000 } else { 1 }
    }
}

/// Whether the path holds a `.` or `..` segment, plain or percent-encoded.
fn has_dots(text: &str) -> bool {
    text.split('/').any(|segment| {
        segment.starts_with(['.', '%']) && {
            let plain = segment.replace("%2e", ".").replace("%2E", ".");
            plain == "." || plain == ".."
        }
    })
}

/// Where the scheme and host of a URI end; 0 where there is none.
fn host_end(text: &str) -> usize {
    match text.find("://") {
        Some(scheme) => {
            let host = scheme.saturating_add(3);
            text.get(host..)
                .and_then(|rest| rest.find('/'))
                .map_or(text.len(), |len| host.saturating_add(len))
        }
        None => 0,
    }
}

fn lower_host(text: &str) -> String {
    let (host, path) = text.split_at_checked(host_end(text)).unwrap_or(("", text));
    format!("{}{path}", host.to_ascii_lowercase())
}

/// The subjects an exception is for: named, or all of named classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// These subjects.
    Ids(Box<[SubjectId]>),
    /// Every subject of these classes.
    Classes(Box<[ClassId]>),
}

/// Where an exception holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// For whom.
    pub subjects: Selector,
    /// For which actions.
    pub actions: Set<Box<str>>,
    /// On which resources, by id.
    pub resources: Set<Pattern>,
    /// In which environments of the subject.
    pub environments: Set<Box<str>>,
    /// For which purposes of the request.
    pub purposes: Set<Box<str>>,
    /// Up to which sensitivity of the subject's data.
    pub data_sensitivity_max: Option<Sensitivity>,
    /// A condition that must hold as well, in CEL.
    pub match_condition: Option<Box<str>>,
}

impl Scope {
    /// The explicit ANYs of the scope.
    pub fn any(&self) -> impl Iterator<Item = Dimension> {
        [
            (Dimension::Action, self.actions.is_any()),
            (Dimension::Resource, self.resources.is_any()),
            (Dimension::Environment, self.environments.is_any()),
            (Dimension::Purpose, self.purposes.is_any()),
        ]
        .into_iter()
        .filter_map(|(dimension, any)| any.then_some(dimension))
    }

    /// The first dimension that does not match, its own condition aside: AND across dimensions, OR
    /// inside one.
    pub fn missed(&self, of: &Reached<'_>) -> Option<Dimension> {
        Dimension::ALL
            .into_iter()
            .find(|dimension| !self.holds(*dimension, of))
    }

    fn holds(&self, dimension: Dimension, of: &Reached<'_>) -> bool {
        match dimension {
            Dimension::Subject => match &self.subjects {
                Selector::Ids(ids) => ids.contains(of.subject),
                Selector::Classes(classes) => of.class.is_some_and(|class| classes.contains(class)),
            },
            Dimension::Action => self.actions.holds(|action| **action == *of.action),
            Dimension::Resource => self.resources.holds(|pattern| pattern.matches(of.resource)),
            Dimension::Environment => self
                .environments
                .holds(|environment| **environment == *of.environment),
            Dimension::Purpose => self
                .purposes
                .holds(|purpose| of.purpose == Some(&**purpose)),
            Dimension::DataSensitivity => self
                .data_sensitivity_max
                .is_none_or(|most| of.sensitivity <= most),
            Dimension::Condition => true,
        }
    }

    /// How wide the scope is: of two that match, the narrower is relied on.
    pub fn width(&self) -> u64 {
        let subjects = match &self.subjects {
            Selector::Ids(ids) => ids.len() as u64,
            Selector::Classes(classes) => (classes.len() as u64).saturating_mul(1_000),
        };
        [
            self.actions.width(|_| 1),
            self.resources.width(Pattern::weight),
            self.environments.width(|_| 1),
            self.purposes.width(|_| 1),
        ]
        .into_iter()
        .fold(subjects, u64::saturating_mul)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("a pattern")
    }

    #[test]
    fn a_prefix_ends_at_a_slash_and_has_no_way_out() {
        assert!(pattern("mcp://crm/").matches("mcp://crm/lookup"));
        assert!(pattern("MCP://CRM/").matches("mcp://Crm/lookup"));
        assert!(!pattern("mcp://crm/").matches("mcp://crm/../pay/refund"));
        assert!(!pattern("mcp://crm/").matches("mcp://crm/%2e%2E/pay/refund"));
        assert!(!pattern("mcp://crm/").matches("mcp://crmx/lookup"));
        assert!(pattern("mcp://crm/lookup").matches("mcp://crm/lookup"));
        assert!(!pattern("mcp://crm/lookup").matches("mcp://crm/Lookup"));
        assert!(!pattern("mcp://crm/lookup").matches("mcp://crm/lookup2"));
        assert!(Pattern::parse("mcp://crm/*").is_err());
        assert!(Pattern::parse("a/../b").is_err());
    }
}
