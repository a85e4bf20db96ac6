//! The compact form of a condition: a tree over attribute slots, with nothing left to look up.

use std::sync::Arc;

use crate::{
    domain::{Facet, Value},
    engine::catalogue::LONGEST_TEXT,
};

/// A condition ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Condition {
    pub(super) root: Node,
    pub(super) terms: Arc<[Term]>,
    pub(super) source: Arc<str>,
    pub(super) cost: u64,
    pub(super) reads: Reads,
}

impl Condition {
    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The most steps one evaluation can take, whatever the attributes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Whether it reads anything the caller asserts.
    pub fn reads_request(&self) -> bool {
        self.reads.request
    }

    /// Whether it reads the exception.
    pub fn reads_exception(&self) -> bool {
        self.reads.exception
    }

    /// Whether it reads what is governed about the resource.
    pub fn reads_resource(&self) -> bool {
        self.reads.resource
    }

    /// Whether it reads the subject's fingerprint.
    pub fn reads_fingerprint(&self) -> bool {
        self.reads.fingerprint
    }

    /// The facets whose lists it reads: they must have been reported before it may say anything.
    pub fn facets(&self) -> impl Iterator<Item = Facet> + '_ {
        Facet::ALL
            .into_iter()
            .filter(|facet| self.reads.facets & (1 << *facet as u16) != 0)
    }

    /// The clauses of the condition with the attributes each reads, for explanations.
    pub(crate) fn terms(&self) -> &[Term] {
        &self.terms
    }
}

/// Which variables a condition reads.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each answers a question of its own"
)]
pub(super) struct Reads {
    pub(super) request: bool,
    pub(super) exception: bool,
    pub(super) resource: bool,
    pub(super) fingerprint: bool,
    /// One bit for each facet whose lists are read.
    pub(super) facets: u16,
}

/// A clause of a condition, joined to its siblings by `&&` within a group and `||` between groups.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    /// Which alternative of the condition it belongs to.
    pub(crate) group: usize,
    /// The clause as text.
    pub(crate) text: Box<str>,
    /// The clause.
    pub(super) node: Node,
    /// The attributes it reads, with their texts.
    pub(super) reads: Box<[(Box<str>, Node)]>,
}

/// A part of the request that has a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Action,
    Purpose,
    ActorKind,
    Tool,
    ToolServer,
    ToolName,
    ToolDigest,
    ResourceType,
    ResourceId,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

/// An arithmetic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A macro over a list that yields a truth value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

/// A test of one text against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    Contains,
    StartsWith,
    EndsWith,
}

/// What is taken out of a time or duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    FullYear,
    Month,
    DayOfYear,
    DayOfMonth,
    Date,
    DayOfWeek,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// What text is read as, or a number turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Convert {
    Int,
    Double,
    Time,
    Span,
}

/// How a comparison moves as time passes: the sign of `d(left - right)/d(now)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slope {
    /// It does not depend on the present.
    Still,
    /// The difference grows by one second a second.
    Rising,
    /// The difference shrinks by one second a second.
    Falling,
    /// It depends on the present in another way.
    Wild,
}

/// One step of a condition; `at` is the byte offset in the source that troubles point to.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Const(Value),
    Now,
    Subject,
    /// A field of the subject itself.
    Own {
        place: u16,
        at: u32,
    },
    Resource {
        at: u32,
    },
    Exception {
        at: u32,
    },
    Ask {
        ask: Ask,
        at: u32,
    },
    HasAsk(Ask),
    /// A top-level entry of `request.context` or `request.resource.properties`.
    Slot {
        slot: u16,
        at: u32,
    },
    HasSlot(u16),
    Properties,
    Context,
    Local(u8),
    Field {
        of: Box<Self>,
        place: u16,
        at: u32,
    },
    HasField {
        of: Box<Self>,
        place: u16,
        at: u32,
    },
    Key {
        of: Box<Self>,
        key: Box<str>,
        at: u32,
    },
    HasKey {
        of: Box<Self>,
        key: Box<str>,
        at: u32,
    },
    Index {
        of: Box<Self>,
        index: Box<Self>,
        at: u32,
    },
    Not {
        of: Box<Self>,
        at: u32,
    },
    And(Box<[Self]>),
    Or(Box<[Self]>),
    Choose {
        test: Box<Self>,
        then: Box<Self>,
        otherwise: Box<Self>,
        at: u32,
    },
    Compare {
        order: Order,
        sides: Box<[Self; 2]>,
        slope: Slope,
        weight: u32,
        at: u32,
    },
    /// A field of the subject itself compared with a constant, or with the time if there is none.
    Test {
        order: Order,
        place: u16,
        with: Option<Value>,
        slope: Slope,
        /// Where a trouble with the field points to.
        own: u32,
        at: u32,
    },
    Compute {
        sum: Sum,
        left: Box<Self>,
        right: Box<Self>,
        at: u32,
    },
    Negate {
        of: Box<Self>,
        at: u32,
    },
    In {
        item: Box<Self>,
        list: Box<Self>,
        at: u32,
    },
    Size {
        of: Box<Self>,
        at: u32,
    },
    Within {
        within: Within,
        text: Box<Self>,
        part: Box<Self>,
        at: u32,
    },
    Matches {
        text: Box<Self>,
        pattern: Box<regex::Regex>,
        at: u32,
    },
    Convert {
        convert: Convert,
        of: Box<Self>,
        at: u32,
    },
    Part {
        part: Part,
        of: Box<Self>,
        zone: Option<chrono_tz::Tz>,
        at: u32,
    },
    Quantify {
        quantifier: Quantifier,
        list: Box<Self>,
        body: Box<Self>,
        most: u32,
        at: u32,
    },
    /// A list that is walked, never built.
    Filter {
        list: Box<Self>,
        body: Box<Self>,
        most: u32,
        at: u32,
    },
    /// A list that is walked, never built.
    Map {
        list: Box<Self>,
        test: Option<Box<Self>>,
        body: Box<Self>,
        most: u32,
        at: u32,
    },
    /// A list that is walked, never built.
    Items(Box<[Self]>),
    /// Depends on the present in a way that has no known edge.
    Volatile(Box<Self>),
}

impl Node {
    /// Whether it is a list that is walked and never built.
    pub(super) fn is_walked(&self) -> bool {
        match self {
            Self::Filter { .. } | Self::Map { .. } | Self::Items(_) => true,
            Self::Volatile(of) => of.is_walked(),
            Self::Choose {
                then, otherwise, ..
            } => then.is_walked() || otherwise.is_walked(),
            _ => false,
        }
    }

    /// The parts of the node.
    pub(super) fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Const(_)
            | Self::Now
            | Self::Subject
            | Self::Resource { .. }
            | Self::Exception { .. }
            | Self::Ask { .. }
            | Self::Own { .. }
            | Self::Test { .. }
            | Self::HasAsk(_)
            | Self::Slot { .. }
            | Self::HasSlot(_)
            | Self::Properties
            | Self::Context
            | Self::Local(_) => Vec::new(),
            Self::Field { of, .. }
            | Self::HasField { of, .. }
            | Self::Key { of, .. }
            | Self::HasKey { of, .. }
            | Self::Not { of, .. }
            | Self::Negate { of, .. }
            | Self::Size { of, .. }
            | Self::Convert { of, .. }
            | Self::Part { of, .. }
            | Self::Volatile(of) => vec![of],
            Self::Index { of, index, .. } => vec![of, index],
            Self::And(parts) | Self::Or(parts) | Self::Items(parts) => parts.iter().collect(),
            Self::Choose {
                test,
                then,
                otherwise,
                ..
            } => vec![test, then, otherwise],
            Self::Compare { sides, .. } => sides.iter().collect(),
            Self::Compute { left, right, .. } => vec![left, right],
            Self::In { item, list, .. } => vec![item, list],
            Self::Within { text, part, .. } => vec![text, part],
            Self::Matches { text, .. } => vec![text],
            Self::Quantify { list, body, .. } | Self::Filter { list, body, .. } => vec![list, body],
            Self::Map {
                list, test, body, ..
            } => test
                .iter()
                .map(AsRef::as_ref)
                .chain([&**list, &**body])
                .collect(),
        }
    }

    /// Whether any part of it, itself included, satisfies `test`.
    pub(super) fn any(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        test(self) || self.parts().into_iter().any(|part| part.any(test))
    }

    /// Where troubles with it point to.
    pub(super) fn at(&self) -> u32 {
        match self {
            Self::Resource { at }
            | Self::Exception { at }
            | Self::Ask { at, .. }
            | Self::Own { at, .. }
            | Self::Slot { at, .. }
            | Self::Field { at, .. }
            | Self::HasField { at, .. }
            | Self::Key { at, .. }
            | Self::HasKey { at, .. }
            | Self::Index { at, .. }
            | Self::Not { at, .. }
            | Self::Choose { at, .. }
            | Self::Compare { at, .. }
            | Self::Test { at, .. }
            | Self::Compute { at, .. }
            | Self::Negate { at, .. }
            | Self::In { at, .. }
            | Self::Size { at, .. }
            | Self::Within { at, .. }
            | Self::Matches { at, .. }
            | Self::Convert { at, .. }
            | Self::Part { at, .. }
            | Self::Quantify { at, .. }
            | Self::Filter { at, .. }
            | Self::Map { at, .. } => *at,
            Self::Volatile(of) => of.at(),
            Self::Const(_)
            | Self::Now
            | Self::Subject
            | Self::HasAsk(_)
            | Self::HasSlot(_)
            | Self::Properties
            | Self::Context
            | Self::Local(_)
            | Self::And(_)
            | Self::Or(_)
            | Self::Items(_) => 0,
        }
    }

    /// The most steps an evaluation of it can take.
    pub(super) fn cost(&self) -> u64 {
        let parts: u64 = self
            .parts()
            .iter()
            .map(|part| part.cost())
            .fold(1, u64::saturating_add);
        let looped = |list: &Self, body: u64, most: u32| {
            // A walked list is walked twice: once for its errors, once for its elements.
            let times = if list.is_walked() { 2 } else { 1 };
            list.cost()
                .saturating_mul(times)
                .saturating_add(u64::from(most).saturating_mul(body.saturating_add(1)))
        };
        match self {
            Self::Quantify {
                list, body, most, ..
            }
            | Self::Filter {
                list, body, most, ..
            } => looped(list, body.cost(), *most),
            Self::Map {
                list,
                test,
                body,
                most,
                ..
            } => looped(
                list,
                test.as_ref()
                    .map_or(0, |t| t.cost())
                    .saturating_add(body.cost()),
                *most,
            ),
            Self::In { list, .. } => parts.saturating_add(list.length()),
            Self::Matches { text, .. } => parts.saturating_add(text.length() / 4),
            Self::Within { text, .. } | Self::Size { of: text, .. } => {
                parts.saturating_add(text.length() / 64)
            }
            Self::Compare { weight, .. } => parts.saturating_add(u64::from(*weight)),
            Self::Convert { .. } | Self::Part { .. } => parts.saturating_add(8),
            _ => parts,
        }
    }

    /// The most bytes of text, or items of a list, it may yield.
    fn length(&self) -> u64 {
        match self {
            Self::Const(Value::Str(text)) => text.len() as u64,
            Self::Const(Value::List(items)) => items.len() as u64,
            Self::Const(_) => 1,
            Self::Field { .. } | Self::Own { .. } | Self::Local(_) => LONGEST_TEXT as u64,
            Self::Items(items) => items.len() as u64,
            Self::Ask { .. }
            | Self::Slot { .. }
            | Self::Key { .. }
            | Self::Properties
            | Self::Context => 8_192,
            _ => self
                .parts()
                .iter()
                .map(|part| part.length())
                .max()
                .unwrap_or(1),
        }
    }
}
