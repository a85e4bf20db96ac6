//! Evaluation: a tree over slots and a frame of attributes → a value, or what is in the way.
//!
//! Nothing is allocated; lists made by `filter` and `map` are walked, never built. Errors are
//! absorbed by `&&`, `||`, `all` and `exists` as the CEL specification says.

use std::{cell::Cell, cmp::Ordering};

use crate::domain::lookup;
use crate::domain::{Question, Ref, Span, Timestamp, Tool, Trouble, TroubleKind, Value};

use super::{
    node::{Ask, Condition, Node, Order, Quantifier, Slope, Within},
    operate::{compare, compute, convert_to, equal, index_into, owned, take_part},
    walk::{each, member, quantify, size},
};

/// Loop turns one decision may take over all its conditions.
const FUEL: u32 = 1_000_000;

/// What a condition may read, for one decision.
#[derive(Debug)]
pub struct Frame<'a> {
    pub(crate) subject: Option<&'a [Option<Value>]>,
    pub(crate) resource: Option<&'a [Option<Value>]>,
    pub(crate) exception: Option<&'a [Option<Value>]>,
    pub(crate) question: Option<&'a Question>,
    pub(crate) tool: Option<Tool<'a>>,
    pub(crate) slots: &'a [Option<&'a Value>],
    pub(crate) now: Timestamp,
    edge: Cell<i64>,
    fuel: Cell<u32>,
}

impl<'a> Frame<'a> {
    /// A frame in which nothing is known but the time.
    pub fn new(now: Timestamp) -> Self {
        Self {
            subject: None,
            resource: None,
            exception: None,
            question: None,
            tool: None,
            slots: &[],
            now,
            edge: Cell::new(i64::MAX),
            fuel: Cell::new(FUEL),
        }
    }

    /// The nearest instant at which something evaluated so far may turn out differently.
    pub fn edge(&self) -> Timestamp {
        Timestamp::from_micros(self.edge.get())
    }

    /// Notes that something may turn out differently from `at` on.
    pub fn note_edge(&self, at: Timestamp) {
        self.edge.set(self.edge.get().min(at.micros()));
    }

    /// The same frame with `exception` in place.
    pub(crate) fn with_exception(&self, exception: Option<&'a [Option<Value>]>) -> Self {
        Self {
            exception,
            edge: self.edge.clone(),
            fuel: self.fuel.clone(),
            ..*self
        }
    }

    /// Takes over what evaluating in `other`, made of this one, has used and noted.
    pub(crate) fn absorb(&self, other: &Self) {
        self.note_edge(other.edge());
        self.fuel.set(other.fuel.get());
    }

    pub(super) fn burn(&self, at: u32) -> Result<(), Trouble> {
        match self.fuel.get().checked_sub(1) {
            Some(left) => {
                self.fuel.set(left);
                Ok(())
            }
            None => trouble(TroubleKind::BudgetExceeded, at),
        }
    }
}

impl Condition {
    /// Whether the condition holds, or what kept it from an answer.
    pub fn holds(&self, frame: &Frame<'_>) -> Result<bool, Trouble> {
        truth(&self.root, frame, None)
    }
}

impl super::node::Term {
    /// Whether the clause holds, or what kept it from an answer.
    pub(crate) fn holds(&self, frame: &Frame<'_>) -> Result<bool, Trouble> {
        truth(&self.node, frame, None)
    }

    /// The attributes the clause reads, each with its text and its value if it has one.
    pub(crate) fn reads<'a>(
        &'a self,
        frame: &Frame<'a>,
    ) -> impl Iterator<Item = (&'a str, Result<Ref<'a>, Trouble>)> {
        self.reads
            .iter()
            .map(move |(text, node)| (&**text, eval(node, frame, None)))
    }

    /// The first element for which the clause's `exists` holds, with its place in the list.
    pub(crate) fn witness<'a>(&'a self, frame: &Frame<'a>) -> Option<(usize, Ref<'a>)> {
        let mut node = &self.node;
        while let Node::Not { of, .. } | Node::Volatile(of) = node {
            node = of;
        }
        let Node::Quantify {
            quantifier: Quantifier::Exists,
            list,
            body,
            ..
        } = node
        else {
            return None;
        };
        let (mut found, mut at) = (None, 0_usize);
        let walked = each(list, frame, None, &mut |item| {
            let scope = Scope { item, outer: None };
            if found.is_none() && truth(body, frame, Some(&scope)) == Ok(true) {
                found = Some((at, item));
            }
            at = at.saturating_add(1);
            Ok(())
        });
        walked.ok().and(found)
    }
}

/// The elements of the loops around an expression, innermost first.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s, 'a> {
    pub(super) item: Ref<'a>,
    pub(super) outer: Option<&'s Self>,
}

pub(super) type Answer<'a> = Result<Ref<'a>, Trouble>;

pub(super) fn trouble<T>(kind: TroubleKind, at: u32) -> Result<T, Trouble> {
    Err(Trouble { kind, at })
}

fn present(value: Option<&str>, at: u32) -> Answer<'_> {
    value.map(Ref::Str).ok_or(Trouble {
        kind: TroubleKind::MissingAttribute,
        at,
    })
}

/// The few steps that most conditions are made of; the rest is kept out of their way.
pub(super) fn truth<'a>(
    node: &'a Node,
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
) -> Result<bool, Trouble> {
    match node {
        Node::Test {
            order,
            place,
            with,
            slope,
            own,
            at,
        } => {
            let Some(Some(left)) = frame
                .subject
                .and_then(|fields| fields.get(usize::from(*place)))
            else {
                return trouble(TroubleKind::MissingAttribute, *own);
            };
            // By far the most frequent comparison.
            if let (Order::Equal | Order::NotEqual, Value::Str(text), Some(Value::Str(wanted))) =
                (order, left, with)
            {
                return Ok((text == wanted) == (*order == Order::Equal));
            }
            let right = with.as_ref().map_or(Ref::Time(frame.now), Value::as_ref);
            ordered(*order, left.as_ref(), right, *slope, frame, *at)
        }
        Node::Compare {
            order,
            sides,
            slope,
            at,
            ..
        } => {
            let [left, right] = &**sides;
            let (left, right) = (operand(left, frame, scope)?, operand(right, frame, scope)?);
            ordered(*order, left, right, *slope, frame, *at)
        }
        Node::And(parts) => decided_by(false, parts, frame, scope),
        Node::Or(parts) => decided_by(true, parts, frame, scope),
        Node::Not { of, .. } => truth(of, frame, scope).map(|b| !b),
        other => truth_otherwise(other, frame, scope),
    }
}

/// `||` is decided by the first true part, `&&` by the first false one; an error only counts where
/// no part decides.
fn decided_by<'a>(
    by: bool,
    parts: &'a [Node],
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
) -> Result<bool, Trouble> {
    let mut kept = None;
    for part in parts {
        match truth(part, frame, scope) {
            Ok(found) if found == by => return Ok(by),
            Ok(_) => {}
            Err(error) => kept = kept.or(Some(error)),
        }
    }
    kept.map_or(Ok(!by), Err)
}

#[inline]
fn ordered(
    order: Order,
    left: Ref<'_>,
    right: Ref<'_>,
    slope: Slope,
    frame: &Frame<'_>,
    at: u32,
) -> Result<bool, Trouble> {
    if slope != Slope::Still {
        note(frame, slope, left, right);
    }
    match order {
        Order::Equal => same(left, right, frame, at),
        Order::NotEqual => same(left, right, frame, at).map(|same| !same),
        Order::Less => Ok(compare(left, right, at)? == Some(Ordering::Less)),
        Order::Greater => Ok(compare(left, right, at)? == Some(Ordering::Greater)),
        Order::LessEqual => Ok(compare(left, right, at)?.is_some_and(Ordering::is_le)),
        Order::GreaterEqual => Ok(compare(left, right, at)?.is_some_and(Ordering::is_ge)),
    }
}

/// Constants, the time and fields of the subject at once; anything else by [`eval`].
#[inline]
fn operand<'a>(node: &'a Node, frame: &Frame<'a>, scope: Option<&Scope<'_, 'a>>) -> Answer<'a> {
    match node {
        Node::Const(value) => Ok(value.as_ref()),
        Node::Now => Ok(Ref::Time(frame.now)),
        Node::Own { place, at } => match frame
            .subject
            .and_then(|fields| fields.get(usize::from(*place)))
        {
            Some(Some(value)) => Ok(value.as_ref()),
            Some(None) | None => trouble(TroubleKind::MissingAttribute, *at),
        },
        Node::Field { of, place, at } => match operand_record(of, frame, scope)? {
            Ref::Record(fields) => match fields.get(usize::from(*place)) {
                Some(Some(value)) => Ok(value.as_ref()),
                Some(None) | None => trouble(TroubleKind::MissingAttribute, *at),
            },
            _ => trouble(TroubleKind::WrongKind, *at),
        },
        other => eval(other, frame, scope),
    }
}

/// What a field is taken of: mostly a loop's element or a record of the subject.
fn operand_record<'a>(
    node: &'a Node,
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
) -> Answer<'a> {
    match (node, scope) {
        (Node::Local(0), Some(scope)) => Ok(scope.item),
        (Node::Field { .. } | Node::Own { .. }, _) => operand(node, frame, scope),
        _ => eval(node, frame, scope),
    }
}

#[inline]
pub(super) fn same(
    left: Ref<'_>,
    right: Ref<'_>,
    frame: &Frame<'_>,
    at: u32,
) -> Result<bool, Trouble> {
    match (left, right) {
        (Ref::Str(a), Ref::Str(b)) => Ok(a == b),
        (Ref::List(_) | Ref::Map(_), _) => alike(left, right, frame, at),
        _ => Ok(equal(left, right)),
    }
}

/// Equality of lists and maps, which takes as many steps as they have parts.
fn alike(left: Ref<'_>, right: Ref<'_>, frame: &Frame<'_>, at: u32) -> Result<bool, Trouble> {
    frame.burn(at)?;
    match (left, right) {
        (Ref::List(a), Ref::List(b)) if a.len() == b.len() => {
            for (a, b) in a.iter().zip(b) {
                if !alike(a.as_ref(), b.as_ref(), frame, at)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Ref::Map(a), Ref::Map(b)) if a.len() == b.len() => {
            for ((k, a), (l, b)) in a.iter().zip(b) {
                if k != l || !alike(a.as_ref(), b.as_ref(), frame, at)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Ok(equal(left, right)),
    }
}

#[inline(never)]
fn truth_otherwise<'a>(
    node: &'a Node,
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
) -> Result<bool, Trouble> {
    match node {
        Node::Quantify {
            quantifier,
            list,
            body,
            at,
            ..
        } => quantify(*quantifier, list, body, *at, frame, scope),
        Node::HasField { of, place, at } => match eval(of, frame, scope)? {
            Ref::Record(fields) => Ok(fields.get(usize::from(*place)).is_some_and(Option::is_some)),
            _ => trouble(TroubleKind::WrongKind, *at),
        },
        Node::HasKey { of, key, at } => match eval(of, frame, scope)? {
            Ref::Map(entries) => Ok(lookup(entries, key).is_some()),
            _ => trouble(TroubleKind::WrongKind, *at),
        },
        Node::HasSlot(slot) => Ok(frame
            .slots
            .get(usize::from(*slot))
            .is_some_and(Option::is_some)),
        Node::HasAsk(ask) => Ok(asked(*ask, frame, 0).is_ok()),
        Node::In { item, list, at } => member(item, list, *at, frame, scope),
        Node::Within {
            within,
            text,
            part,
            at,
        } => match (eval(text, frame, scope)?, eval(part, frame, scope)?) {
            (Ref::Str(text), Ref::Str(part)) => Ok(match within {
                Within::Contains => text.contains(part),
                Within::StartsWith => text.starts_with(part),
                Within::EndsWith => text.ends_with(part),
            }),
            _ => trouble(TroubleKind::WrongKind, *at),
        },
        Node::Matches { text, pattern, at } => match eval(text, frame, scope)? {
            Ref::Str(text) => Ok(pattern.is_match(text)),
            _ => trouble(TroubleKind::WrongKind, *at),
        },
        Node::Choose {
            test,
            then,
            otherwise,
            ..
        } => {
            if truth(test, frame, scope)? {
                truth(then, frame, scope)
            } else {
                truth(otherwise, frame, scope)
            }
        }
        Node::Volatile(of) => {
            frame.note_edge(frame.now);
            truth(of, frame, scope)
        }
        Node::And(_)
        | Node::Or(_)
        | Node::Not { .. }
        | Node::Compare { .. }
        | Node::Test { .. } => truth(node, frame, scope),
        other => match eval(other, frame, scope)? {
            Ref::Bool(b) => Ok(b),
            _ => trouble(TroubleKind::WrongKind, other.at()),
        },
    }
}

#[inline(never)]
pub(super) fn eval<'a>(
    node: &'a Node,
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
) -> Answer<'a> {
    match node {
        Node::Const(_) | Node::Now | Node::Own { .. } | Node::Field { .. } => {
            operand(node, frame, scope)
        }
        Node::Subject => frame.subject.map(Ref::Record).ok_or(Trouble {
            kind: TroubleKind::MissingAttribute,
            at: 0,
        }),
        Node::Resource { at } => frame.resource.map(Ref::Record).ok_or(Trouble {
            kind: TroubleKind::ResourceUnknown,
            at: *at,
        }),
        Node::Exception { at } => frame.exception.map(Ref::Record).ok_or(Trouble {
            kind: TroubleKind::MissingAttribute,
            at: *at,
        }),
        Node::Ask { ask, at } => asked(*ask, frame, *at),
        Node::Slot { slot, at } => match frame.slots.get(usize::from(*slot)) {
            Some(Some(value)) => Ok(value.as_ref()),
            Some(None) | None => trouble(TroubleKind::MissingAttribute, *at),
        },
        Node::Properties => Ok(frame
            .question
            .map_or(Ref::Map(&[]), |q| q.resource.properties.as_ref())),
        Node::Context => Ok(frame.question.map_or(Ref::Map(&[]), |q| q.context.as_ref())),
        Node::Local(up) => {
            let mut at = scope;
            for _ in 0..*up {
                at = at.and_then(|scope| scope.outer);
            }
            at.map(|scope| scope.item).ok_or(Trouble {
                kind: TroubleKind::MissingAttribute,
                at: 0,
            })
        }
        Node::Key { of, key, at } => match eval(of, frame, scope)? {
            Ref::Map(entries) => lookup(entries, key).map(Value::as_ref).ok_or(Trouble {
                kind: TroubleKind::MissingAttribute,
                at: *at,
            }),
            _ => trouble(TroubleKind::WrongKind, *at),
        },
        Node::Index { of, index, at } => {
            index_into(eval(of, frame, scope)?, eval(index, frame, scope)?, *at)
        }
        Node::Choose {
            test,
            then,
            otherwise,
            ..
        } => {
            if truth(test, frame, scope)? {
                eval(then, frame, scope)
            } else {
                eval(otherwise, frame, scope)
            }
        }
        Node::Compute {
            sum,
            left,
            right,
            at,
        } => compute(
            *sum,
            eval(left, frame, scope)?,
            eval(right, frame, scope)?,
            *at,
        ),
        Node::Negate { of, at } => match eval(of, frame, scope)? {
            Ref::Int(i) => i.checked_neg().map(Ref::Int).ok_or(Trouble {
                kind: TroubleKind::OutOfRange,
                at: *at,
            }),
            Ref::Double(d) => Ok(Ref::Double(-d)),
            Ref::Span(s) => s
                .micros()
                .checked_neg()
                .map(|m| Ref::Span(Span::from_micros(m)))
                .ok_or(Trouble {
                    kind: TroubleKind::OutOfRange,
                    at: *at,
                }),
            _ => trouble(TroubleKind::WrongKind, *at),
        },
        Node::Size { of, at } => size(of, *at, frame, scope),
        Node::Convert { convert, of, at } => convert_to(*convert, eval(of, frame, scope)?, *at),
        Node::Part { part, of, zone, at } => take_part(*part, eval(of, frame, scope)?, *zone, *at),
        Node::Volatile(of) => {
            frame.note_edge(frame.now);
            eval(of, frame, scope)
        }
        Node::Filter { at, .. } | Node::Map { at, .. } => trouble(TroubleKind::WrongKind, *at),
        Node::Items(_) => trouble(TroubleKind::WrongKind, 0),
        Node::HasAsk(_)
        | Node::HasSlot(_)
        | Node::HasField { .. }
        | Node::HasKey { .. }
        | Node::Not { .. }
        | Node::And(_)
        | Node::Or(_)
        | Node::Compare { .. }
        | Node::Test { .. }
        | Node::In { .. }
        | Node::Within { .. }
        | Node::Matches { .. }
        | Node::Quantify { .. } => truth(node, frame, scope).map(Ref::Bool),
    }
}

fn said(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[inline(never)]
fn asked<'a>(ask: Ask, frame: &Frame<'a>, at: u32) -> Answer<'a> {
    let missing = Trouble {
        kind: TroubleKind::MissingAttribute,
        at,
    };
    let question = frame.question.ok_or(missing)?;
    let tool = || frame.tool.as_ref().ok_or(missing);
    match ask {
        Ask::Action => present(said(&question.action), at),
        Ask::Purpose => present(question.purpose.as_deref(), at),
        Ask::ActorKind => present(question.actor_kind.as_deref(), at),
        Ask::Tool => tool().map(|_| Ref::Bool(true)),
        Ask::ToolServer => present(tool()?.server, at),
        Ask::ToolName => present(tool()?.name, at),
        Ask::ToolDigest => present(tool()?.definition_digest, at),
        Ask::ResourceType => present(said(&question.resource.kind), at),
        Ask::ResourceId => present(said(&question.resource.id), at),
    }
}

/// Notes when a comparison that moves with time may turn.
fn note(frame: &Frame<'_>, slope: Slope, left: Ref<'_>, right: Ref<'_>) {
    let difference = match (left, right) {
        (Ref::Time(a), Ref::Time(b)) => (a - b).micros(),
        (Ref::Span(a), Ref::Span(b)) => a.micros().saturating_sub(b.micros()),
        _ => 0,
    };
    let to_zero = match slope {
        Slope::Still => return,
        Slope::Rising => difference.saturating_neg(),
        Slope::Falling => difference,
        Slope::Wild => 0,
    };
    match to_zero {
        // Past the turning point: nothing changes any more.
        i64::MIN..=-1 => {}
        0 => frame.note_edge(frame.now + Span::from_micros(i64::from(slope != Slope::Wild))),
        _ => frame.note_edge(frame.now + Span::from_micros(to_zero)),
    }
}

/// A constant expression's value, if it has one.
pub(super) fn constant(node: &Node) -> Result<Value, Trouble> {
    let frame = Frame::new(Timestamp::from_micros(0));
    Ok(owned(eval(node, &frame, None)?))
}
