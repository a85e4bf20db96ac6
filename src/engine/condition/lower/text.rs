//! Texts, patterns, conversions and parts of times.

use cel::IdedExpr;

use crate::{
    domain::{Span, Value},
    engine::catalogue::Type,
};

use super::{
    arithmetic::volatile,
    select::rooted_in_params,
    tree::{Lower, Typed},
};
use crate::engine::condition::{
    fault::Fault,
    node::{Convert, Node, Part, Within},
    print,
};

/// Largest program a pattern may become, in bytes.
const PATTERN_SIZE: usize = 64 << 10;

impl Lower<'_> {
    pub(super) fn text(&mut self, expr: &IdedExpr) -> Result<Node, Fault> {
        let (node, kind) = self.value(expr)?;
        match kind {
            Type::Str | Type::Dyn => Ok(node),
            kind => Err(self.fault(
                expr,
                format!("`{}` is {}, not text", print::text(expr), kind.name()),
            )),
        }
    }

    pub(super) fn within(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        text: &IdedExpr,
        part: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let within = match name {
            "contains" => Within::Contains,
            "startsWith" => Within::StartsWith,
            _ => Within::EndsWith,
        };
        let (text, part) = (self.text(text)?, self.text(part)?);
        self.fold(
            expr,
            Node::Within {
                within,
                text: Box::new(text),
                part: Box::new(part),
                at,
            },
            Type::Bool,
        )
    }

    pub(super) fn matches(
        &mut self,
        expr: &IdedExpr,
        text: &IdedExpr,
        pattern: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let text = self.text(text)?;
        let (Node::Const(Value::Str(source)), _) = self.value(pattern)? else {
            return Err(self.fault(
                pattern,
                "a pattern must be written out, so that it is compiled once when it is loaded",
            ));
        };
        let pattern = regex::RegexBuilder::new(&source)
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(1 << 20)
            .nest_limit(32)
            .build()
            .map_err(|error| {
                let reason = error.to_string();
                self.fault(
                    pattern,
                    format!(
                        "the pattern is refused: {}",
                        reason.lines().last().unwrap_or_default().trim()
                    ),
                )
            })?;
        self.fold(
            expr,
            Node::Matches {
                text: Box::new(text),
                pattern: Box::new(pattern),
                at,
            },
            Type::Bool,
        )
    }

    pub(super) fn convert(
        &mut self,
        expr: &IdedExpr,
        convert: Convert,
        of: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let (node, kind) = self.value(of)?;
        let (fits, made) = match convert {
            Convert::Int => (
                matches!(
                    kind,
                    Type::Int | Type::Double | Type::Str | Type::Time | Type::Dyn
                ),
                Type::Int,
            ),
            Convert::Double => (
                matches!(kind, Type::Int | Type::Double | Type::Str | Type::Dyn),
                Type::Double,
            ),
            Convert::Time => (
                matches!(kind, Type::Str | Type::Time | Type::Dyn),
                Type::Time,
            ),
            Convert::Span => (
                matches!(kind, Type::Str | Type::Span | Type::Dyn),
                Type::Span,
            ),
        };
        if !fits {
            return Err(self.fault(
                expr,
                format!("{} cannot be made of {}", made.name(), kind.name()),
            ));
        }
        // `d` for days is for params alone: CEL itself has no such unit.
        if convert == Convert::Span && rooted_in_params(of) {
            return self.spans(expr, node, at);
        }
        if convert == Convert::Span
            && let Node::Const(Value::Str(text)) = &node
            && Span::parse_cel(text).is_none()
            && Span::parse(text).is_ok()
        {
            return Err(self.fault(
                expr,
                format!("CEL has no unit `d`; write `{text}` in hours, or put it under `params`"),
            ));
        }
        self.fold(
            expr,
            volatile(Node::Convert {
                convert,
                of: Box::new(node),
                at,
            }),
            made,
        )
    }

    /// `duration(params.…)`: read once, here, also where the key is known only later.
    pub(super) fn spans(&self, expr: &IdedExpr, node: Node, at: u32) -> Result<Typed, Fault> {
        let read = |value: &Value| match value {
            Value::Str(text) => Span::parse(text)
                .map(Value::Span)
                .map_err(|error| self.fault(expr, error.to_string())),
            Value::Span(span) => Ok(Value::Span(*span)),
            other => Err(self.fault(
                expr,
                format!("a duration cannot be made of {}", other.as_ref().kind()),
            )),
        };
        match node {
            Node::Const(value) => Ok((Node::Const(read(&value)?), Type::Span)),
            Node::Index { of, index, at } if matches!(*of, Node::Const(Value::Map(_))) => {
                let Node::Const(Value::Map(entries)) = *of else {
                    return Err(self.fault(expr, "a duration cannot be made of this"));
                };
                let entries: Result<Vec<_>, Fault> = entries
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), read(value)?)))
                    .collect();
                let of = Box::new(Node::Const(Value::Map(entries?.into())));
                Ok((Node::Index { of, index, at }, Type::Span))
            }
            node => Ok((
                Node::Convert {
                    convert: Convert::Span,
                    of: Box::new(node),
                    at,
                },
                Type::Span,
            )),
        }
    }

    pub(super) fn part(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        of: &IdedExpr,
        zone: Option<&IdedExpr>,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let (of, kind) = self.value(of)?;
        let of_span = matches!(
            name,
            "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds"
        ) && zone.is_none();
        if !(matches!(kind, Type::Time | Type::Dyn) || kind == Type::Span && of_span) {
            return Err(self.fault(expr, format!("{} has no `{name}`", kind.name())));
        }
        let zone = match zone {
            None => None,
            Some(zone) => match self.value(zone)? {
                (Node::Const(Value::Str(text)), _) => {
                    Some(text.parse::<chrono_tz::Tz>().map_err(|_| {
                        self.fault(zone, format!("`{text}` is not an IANA time zone"))
                    })?)
                }
                _ => return Err(self.fault(zone, "a time zone must be written out")),
            },
        };
        let Some(part) = part(name) else {
            return Err(self.fault(expr, format!("`{name}` is not supported")));
        };
        self.fold(
            expr,
            volatile(Node::Part {
                part,
                of: Box::new(of),
                zone,
                at,
            }),
            Type::Int,
        )
    }
}

pub(super) fn part(name: &str) -> Option<Part> {
    Some(match name {
        "getFullYear" => Part::FullYear,
        "getMonth" => Part::Month,
        "getDayOfYear" => Part::DayOfYear,
        "getDayOfMonth" => Part::DayOfMonth,
        "getDate" => Part::Date,
        "getDayOfWeek" => Part::DayOfWeek,
        "getHours" => Part::Hours,
        "getMinutes" => Part::Minutes,
        "getSeconds" => Part::Seconds,
        "getMilliseconds" => Part::Milliseconds,
        _ => return None,
    })
}
