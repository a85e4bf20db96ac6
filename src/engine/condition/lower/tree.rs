//! Every kind of expression, and what it becomes.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue, SourceInfo, operators},
};

use crate::{
    domain::Value,
    engine::catalogue::{self, EXCEPTION, SUBJECT, Type},
};

use super::{
    arithmetic::{comparable, order, sum, volatile},
    names::{Names, Roots},
    terms::flat,
    text::part,
};
use crate::engine::condition::{
    eval::constant,
    fault::Fault,
    node::{Convert, Node, Reads, Term},
    print,
};

/// Most steps one evaluation may take, whatever the attributes.
const MAX_COST: u64 = 100_000;
/// Longest list written out in a condition.
const MAX_ITEMS: usize = 64;

/// What is supported, for messages.
const FUNCTIONS: &str = "has, all, exists, exists_one, filter, map, size, contains, startsWith, endsWith, matches, timestamp, duration, int, double, and getFullYear … getMilliseconds of times";

pub(in crate::engine::condition) struct Lowered {
    pub(in crate::engine::condition) root: Node,
    pub(in crate::engine::condition) terms: Vec<Term>,
    pub(in crate::engine::condition) cost: u64,
    pub(in crate::engine::condition) reads: Reads,
}

pub(in crate::engine::condition) fn lower(
    source: &str,
    tree: &IdedExpr,
    positions: &SourceInfo,
    roots: Roots,
    params: &Value,
    names: &mut Names,
) -> Result<Lowered, Fault> {
    let mut lower = Lower {
        source,
        positions,
        roots,
        params,
        names,
        locals: Vec::new(),
        reads: Reads::default(),
    };
    let (root, kind) = lower.expr(tree)?;
    if !matches!(kind, Type::Bool | Type::Dyn) {
        return Err(lower.fault(
            tree,
            format!(
                "the condition yields {}; it must be true or false",
                kind.name()
            ),
        ));
    }
    let cost = root.cost();
    if cost > MAX_COST {
        return Err(lower.fault(tree, format!("the condition may take {cost} steps; at most {MAX_COST} are allowed: nest fewer loops, or filter first")));
    }
    let terms = lower.terms(tree)?;
    let reads = lower.reads;
    Ok(Lowered {
        root,
        terms,
        cost,
        reads,
    })
}

pub(super) type Typed = (Node, Type);

pub(super) struct Lower<'a> {
    pub(super) source: &'a str,
    pub(super) positions: &'a SourceInfo,
    pub(in crate::engine::condition) roots: Roots,
    pub(super) params: &'a Value,
    pub(super) names: &'a mut Names,
    pub(super) locals: Vec<(String, Type)>,
    pub(super) reads: Reads,
}

impl Lower<'_> {
    pub(super) fn at(&self, expr: &IdedExpr) -> u32 {
        // The parser counts characters.
        let chars = self
            .positions
            .offset_for(expr.id)
            .map_or(0, |(start, _)| start as usize);
        let bytes = self
            .source
            .char_indices()
            .nth(chars)
            .map_or(self.source.len(), |(at, _)| at);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    pub(super) fn fault(&self, expr: &IdedExpr, message: impl Into<String>) -> Fault {
        Fault::new(self.source, self.at(expr) as usize, message)
    }

    pub(super) fn expr(&mut self, expr: &IdedExpr) -> Result<Typed, Fault> {
        match &expr.expr {
            Expr::Literal(literal) => self.literal(expr, literal),
            Expr::Ident(name) => self.ident(expr, name),
            Expr::Select(select) => self.select(expr, select, false),
            Expr::List(list) => self.list(expr, &list.elements),
            Expr::Call(call) => self.call(expr, call),
            Expr::Map(_) => Err(self.fault(
                expr,
                "maps are not written out in conditions; put it under `params`",
            )),
            Expr::Struct(_) => Err(self.fault(expr, "messages are not supported in conditions")),
            Expr::Comprehension(_) | Expr::Unspecified => {
                Err(self.fault(expr, "this is not supported in conditions"))
            }
        }
    }

    pub(super) fn literal(&self, expr: &IdedExpr, literal: &LiteralValue) -> Result<Typed, Fault> {
        let value = match literal {
            LiteralValue::Boolean(b) => Value::Bool(*b.inner()),
            LiteralValue::Int(i) => Value::Int(*i.inner()),
            LiteralValue::Double(d) => Value::Double(*d.inner()),
            LiteralValue::String(s) => Value::str(s.inner()),
            LiteralValue::Null => Value::Null,
            LiteralValue::UInt(u) => {
                return Err(self.fault(
                    expr,
                    format!("unsigned numbers are not supported; write {}", u.inner()),
                ));
            }
            LiteralValue::Bytes(_) => {
                return Err(self.fault(expr, "bytes are not supported; compare texts or digests"));
            }
        };
        let kind = catalogue::type_of(&value);
        Ok((Node::Const(value), kind))
    }

    pub(super) fn ident(&mut self, expr: &IdedExpr, name: &str) -> Result<Typed, Fault> {
        if let Some(up) = self
            .locals
            .iter()
            .rev()
            .position(|(known, _)| known == name)
        {
            let kind = self
                .locals
                .iter()
                .rev()
                .nth(up)
                .map_or(Type::Dyn, |(_, kind)| *kind);
            return Ok((Node::Local(u8::try_from(up).unwrap_or(u8::MAX)), kind));
        }
        let at = self.at(expr);
        match name {
            "subject" => Ok((Node::Subject, Type::Record(&SUBJECT))),
            "params" => Ok((Node::Const(self.params.clone()), catalogue::type_of(self.params))),
            "resource" if self.roots.more => {
                self.reads.resource = true;
                Ok((Node::Resource { at }, Type::Record(&SUBJECT)))
            }
            "now" if self.roots.more => Ok((Node::Now, Type::Time)),
            "exception" if self.roots.exception => {
                self.reads.exception = true;
                Ok((Node::Exception { at }, Type::Record(&EXCEPTION)))
            }
            "request" if self.roots.request => Err(self.fault(expr, "`request` is not used whole; select one of action, tool, purpose, actor_kind, resource, context")),
            "request" => Err(self.fault(expr, "`request` is known only while a question is asked; make the control RUNTIME only")),
            "exception" => Err(self.fault(expr, "`exception` is known only in scheduled runs over exceptions and in an exception's own conditions")),
            "resource" | "now" => Err(self.fault(expr, format!("`{name}` is not known here; what a control applies to depends on `subject` alone"))),
            _ => Err(self.fault(expr, format!("`{name}` is not known; there are subject, resource, params, request, exception and now"))),
        }
    }

    pub(super) fn list(&mut self, expr: &IdedExpr, items: &[IdedExpr]) -> Result<Typed, Fault> {
        if items.len() > MAX_ITEMS {
            return Err(self.fault(expr, format!("the list has {} items; at most {MAX_ITEMS} are written out: put it under `params`", items.len())));
        }
        let items: Vec<Typed> = items
            .iter()
            .map(|item| self.expr(item))
            .collect::<Result<_, _>>()?;
        let kind = Type::List(
            catalogue::common(items.iter().map(|(_, kind)| *kind)),
            u32::try_from(items.len()).unwrap_or(u32::MAX),
        );
        if items.iter().any(|(node, _)| node.is_walked()) {
            return Err(self.fault(
                expr,
                "a list made by filter, map or [..] cannot be part of another list",
            ));
        }
        let items: Vec<Node> = items.into_iter().map(|(node, _)| node).collect();
        let constants: Option<Vec<Value>> = items
            .iter()
            .map(|node| {
                if let Node::Const(value) = node {
                    Some(value.clone())
                } else {
                    None
                }
            })
            .collect();
        Ok(match constants {
            Some(values) => (Node::Const(Value::List(values.into())), kind),
            None => (volatile(Node::Items(items.into())), kind),
        })
    }

    pub(super) fn call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Result<Typed, Fault> {
        let args = call.args.as_slice();
        match (call.func_name.as_str(), call.target.as_deref(), args) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, None, [_, _]) => self.logic(expr, &call.func_name),
            (operators::LOGICAL_NOT, None, [of]) => {
                let at = self.at(expr);
                let of = self.truth(of)?;
                self.fold(expr, Node::Not { of: Box::new(of), at }, Type::Bool)
            }
            (operators::NEGATE, None, [of]) => self.negate(expr, of),
            (operators::CONDITIONAL, None, [test, then, otherwise]) => self.choose(expr, test, then, otherwise),
            (operators::INDEX, None, [of, index]) => self.index(expr, of, index),
            (operators::IN, None, [item, list]) => self.member(expr, item, list),
            ("has", None, [of]) => match &of.expr {
                Expr::Select(select) => self.select(of, select, true),
                _ => Err(self.fault(of, "has() takes a field selection, such as has(subject.owner)")),
            },
            ("exists" | "all" | "exists_one" | "existsOne", Some(list), [var, body]) => self.quantify(expr, &call.func_name, list, var, body),
            ("filter", Some(list), [var, body]) => self.filter(expr, list, var, body),
            ("map", Some(list), [var, body]) => self.map(expr, list, var, None, body),
            ("map", Some(list), [var, test, body]) => self.map(expr, list, var, Some(test), body),
            ("size", Some(of), []) | ("size", None, [of]) => self.size(expr, of),
            ("contains" | "startsWith" | "endsWith", Some(text), [part]) => self.within(expr, &call.func_name, text, part),
            ("matches", Some(text), [pattern]) | ("matches", None, [text, pattern]) => self.matches(expr, text, pattern),
            ("int", None, [of]) => self.convert(expr, Convert::Int, of),
            ("double", None, [of]) => self.convert(expr, Convert::Double, of),
            ("timestamp", None, [of]) => self.convert(expr, Convert::Time, of),
            ("duration", None, [of]) => self.convert(expr, Convert::Span, of),
            (name, Some(of), zone) if part(name).is_some() && zone.len() <= 1 => self.part(expr, name, of, zone.first()),
            (name, None, [left, right]) if order(name).is_some() => self.compare(expr, name, left, right),
            (name, None, [left, right]) if sum(name).is_some() => self.compute(expr, name, left, right),
            (name, ..) => Err(self.fault(expr, format!("`{name}` is not supported here; conditions may use the operators and {FUNCTIONS}"))),
        }
    }

    /// `node`, or the constant it always is.
    pub(super) fn fold(&self, expr: &IdedExpr, node: Node, kind: Type) -> Result<Typed, Fault> {
        let fixed = !node.is_walked()
            && node
                .parts()
                .iter()
                .all(|part| matches!(part, Node::Const(_)));
        if !fixed {
            return Ok((node, kind));
        }
        match constant(&node) {
            Ok(value) => {
                let kind = if kind == Type::Dyn {
                    catalogue::type_of(&value)
                } else {
                    kind
                };
                Ok((Node::Const(value), kind))
            }
            Err(trouble) => Err(self.fault(
                expr,
                format!(
                    "`{}` can never be evaluated: {}",
                    print::text(expr),
                    trouble.kind.describe()
                ),
            )),
        }
    }

    pub(super) fn truth(&mut self, expr: &IdedExpr) -> Result<Node, Fault> {
        let (node, kind) = self.expr(expr)?;
        match kind {
            Type::Bool | Type::Dyn => Ok(node),
            kind => Err(self.fault(
                expr,
                format!(
                    "`{}` is {}; true or false is needed here",
                    print::text(expr),
                    kind.name()
                ),
            )),
        }
    }

    /// A value that is not a list made on the way.
    pub(super) fn value(&mut self, expr: &IdedExpr) -> Result<Typed, Fault> {
        let (node, kind) = self.expr(expr)?;
        if node.is_walked() {
            return Err(self.fault(expr, "a list made by filter, map or [..] can only be counted, searched or walked: use size, in, exists or all"));
        }
        Ok((node, kind))
    }

    pub(super) fn logic(&mut self, expr: &IdedExpr, name: &str) -> Result<Typed, Fault> {
        let mut parts = Vec::new();
        for part in flat(expr, name) {
            parts.push(self.truth(part)?);
        }
        let parts = parts.into();
        let node = if name == operators::LOGICAL_AND {
            Node::And(parts)
        } else {
            Node::Or(parts)
        };
        self.fold(expr, node, Type::Bool)
    }

    pub(super) fn negate(&mut self, expr: &IdedExpr, of: &IdedExpr) -> Result<Typed, Fault> {
        let (node, kind) = self.value(of)?;
        match kind {
            Type::Int | Type::Double | Type::Span | Type::Dyn => {
                let at = self.at(expr);
                self.fold(
                    expr,
                    Node::Negate {
                        of: Box::new(node),
                        at,
                    },
                    kind,
                )
            }
            kind => Err(self.fault(expr, format!("{} cannot be negated", kind.name()))),
        }
    }

    pub(super) fn choose(
        &mut self,
        expr: &IdedExpr,
        test: &IdedExpr,
        then: &IdedExpr,
        otherwise: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let test = self.truth(test)?;
        let ((then, a), (otherwise, b)) = (self.expr(then)?, self.expr(otherwise)?);
        let kind = match (a, b) {
            (a, b) if a == b => a,
            (Type::List(of, most), Type::List(other, more)) if of == other => {
                Type::List(of, most.max(more))
            }
            (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
            (a, b) => {
                return Err(self.fault(
                    expr,
                    format!("one side of `? :` is {}, the other {}", a.name(), b.name()),
                ));
            }
        };
        let at = self.at(expr);
        self.fold(
            expr,
            Node::Choose {
                test: Box::new(test),
                then: Box::new(then),
                otherwise: Box::new(otherwise),
                at,
            },
            kind,
        )
    }

    pub(super) fn index(
        &mut self,
        expr: &IdedExpr,
        of: &IdedExpr,
        index: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let ((of, kind), (index, by)) = (self.value(of)?, self.value(index)?);
        let kind = match (kind, by) {
            (Type::List(of, _), Type::Int | Type::Dyn) | (Type::Map(of), Type::Str | Type::Dyn) => {
                *of
            }
            (Type::Dyn, Type::Int | Type::Str | Type::Dyn) => Type::Dyn,
            (kind, by) => {
                return Err(self.fault(
                    expr,
                    format!("{} cannot be indexed by {}", kind.name(), by.name()),
                ));
            }
        };
        let node = Node::Index {
            of: Box::new(of),
            index: Box::new(index),
            at,
        };
        self.fold(expr, volatile(node), kind)
    }

    pub(super) fn member(
        &mut self,
        expr: &IdedExpr,
        item: &IdedExpr,
        list: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let ((item, what), (list, kind)) = (self.value(item)?, self.expr(list)?);
        let of = match kind {
            Type::List(of, _) => *of,
            Type::Map(_) => Type::Str,
            Type::Dyn => Type::Dyn,
            kind => {
                return Err(self.fault(
                    expr,
                    format!("`in` looks into lists and maps, not into {}", kind.name()),
                ));
            }
        };
        if !comparable(what, of) {
            return Err(self.fault(expr, format!("{} is never in {}", what.name(), kind.name())));
        }
        self.fold(
            expr,
            volatile(Node::In {
                item: Box::new(item),
                list: Box::new(list),
                at,
            }),
            Type::Bool,
        )
    }
}
