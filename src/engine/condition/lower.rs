//! From syntax tree to compact form: names become slots, types are checked, constants folded.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue, SelectExpr, SourceInfo, operators},
};

use crate::{
    domain::{Span, Value},
    engine::catalogue::{self, EXCEPTION, REQUEST_RESOURCE, REQUEST_TOOL, SUBJECT, Shape, Type},
};

use super::{
    eval::constant,
    fault::Fault,
    node::{Ask, Convert, Node, Order, Part, Quantifier, Reads, Slope, Sum, Term, Within},
    print,
};

/// Most steps one evaluation may take, whatever the attributes.
const MAX_COST: u64 = 100_000;
/// Deepest nesting of macros over lists.
const MAX_LOOPS: usize = 3;
/// Longest list written out in a condition.
const MAX_ITEMS: usize = 64;
/// Longest list a request may hold.
const REQUEST_LIST: u32 = 1_000;
/// Largest program a pattern may become, in bytes.
const PATTERN_SIZE: usize = 64 << 10;

/// What is supported, for messages.
const FUNCTIONS: &str = "has, all, exists, exists_one, filter, map, size, contains, startsWith, endsWith, matches, timestamp, duration, int, double, and getFullYear … getMilliseconds of times";

/// Which variables a condition may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    request: bool,
    exception: bool,
    more: bool,
}

impl Roots {
    /// A control held against questions: `subject`, `resource`, `request`, `params`, `now`.
    pub const RUNTIME: Self = Self {
        request: true,
        exception: false,
        more: true,
    };
    /// A control that runs by itself: `subject`, `resource`, `exception`, `params`, `now`.
    pub const SCHEDULED: Self = Self {
        request: false,
        exception: true,
        more: true,
    };
    /// A control that does both: `subject`, `resource`, `params`, `now`.
    pub const BOTH: Self = Self {
        request: false,
        exception: false,
        more: true,
    };
    /// An exception's own conditions: everything but `params`, which is empty.
    pub const EXCEPTION: Self = Self {
        request: true,
        exception: true,
        more: true,
    };
    /// What a control applies to: `subject` and `params` alone.
    pub const REACH: Self = Self {
        request: false,
        exception: false,
        more: false,
    };
}

/// The entries of the request's context and resource properties that conditions read; each
/// question is matched against them once, and conditions then read slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub(crate) entries: Vec<(Said, Box<str>)>,
}

/// Where the caller said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Context,
    Property,
}

impl Names {
    fn slot(&mut self, said: Said, name: &str) -> Option<u16> {
        let known = self
            .entries
            .iter()
            .position(|(where_, known)| *where_ == said && &**known == name);
        let at = known.unwrap_or_else(|| {
            self.entries.push((said, name.into()));
            self.entries.len().saturating_sub(1)
        });
        u16::try_from(at).ok()
    }
}

pub(super) struct Lowered {
    pub(super) root: Node,
    pub(super) terms: Vec<Term>,
    pub(super) cost: u64,
    pub(super) reads: Reads,
}

pub(super) fn lower(
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

type Typed = (Node, Type);

struct Lower<'a> {
    source: &'a str,
    positions: &'a SourceInfo,
    roots: Roots,
    params: &'a Value,
    names: &'a mut Names,
    locals: Vec<(String, Type)>,
    reads: Reads,
}

impl Lower<'_> {
    fn at(&self, expr: &IdedExpr) -> u32 {
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

    fn fault(&self, expr: &IdedExpr, message: impl Into<String>) -> Fault {
        Fault::new(self.source, self.at(expr) as usize, message)
    }

    fn expr(&mut self, expr: &IdedExpr) -> Result<Typed, Fault> {
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

    fn literal(&self, expr: &IdedExpr, literal: &LiteralValue) -> Result<Typed, Fault> {
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

    fn ident(&mut self, expr: &IdedExpr, name: &str) -> Result<Typed, Fault> {
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
            "resource" if self.roots.more => Ok((Node::Resource { at }, Type::Record(&SUBJECT))),
            "now" if self.roots.more => Ok((Node::Now, Type::Time)),
            "exception" if self.roots.exception => {
                self.reads.exception = true;
                Ok((Node::Exception { at }, Type::Record(&EXCEPTION)))
            }
            "request" if self.roots.request => Err(self.fault(expr, "`request` is not used whole; select one of action, tool, purpose, actor_kind, resource, context")),
            "request" => Err(self.fault(expr, "`request` is known only while a question is asked; make the control RUNTIME only (C3)")),
            "exception" => Err(self.fault(expr, "`exception` is known only in scheduled runs over exceptions and in an exception's own conditions")),
            "resource" | "now" => Err(self.fault(expr, format!("`{name}` is not known here; what a control applies to depends on `subject` alone"))),
            _ => Err(self.fault(expr, format!("`{name}` is not known; there are subject, resource, params, request, exception and now"))),
        }
    }

    /// A field selection, or with `test` the question whether the field is there.
    fn select(&mut self, expr: &IdedExpr, select: &SelectExpr, test: bool) -> Result<Typed, Fault> {
        let at = self.at(expr);
        if let Some(found) = self.request_part(expr, select, test)? {
            return Ok(found);
        }
        let (of, kind) = self.expr(&select.operand)?;
        let field = select.field.as_str();
        match (kind, of) {
            (Type::Record(shape), of) => {
                let Some(place) = shape.place(field) else {
                    return Err(self.unknown(expr, shape, field));
                };
                let place = u16::try_from(place).unwrap_or(u16::MAX);
                let kind = shape
                    .fields
                    .get(usize::from(place))
                    .map_or(Type::Dyn, |field| field.kind);
                let of = Box::new(of);
                Ok(if test {
                    (Node::HasField { of, place, at }, Type::Bool)
                } else {
                    (Node::Field { of, place, at }, kind)
                })
            }
            (_, Node::Const(value)) if matches!(value, Value::Map(_)) => {
                match (value.get(field), test) {
                    (found, true) => Ok((Node::Const(Value::Bool(found.is_some())), Type::Bool)),
                    (Some(value), false) => {
                        Ok((Node::Const(value.clone()), catalogue::type_of(value)))
                    }
                    (None, false) => {
                        let known: Vec<&str> = match &value {
                            Value::Map(entries) => {
                                entries.iter().map(|(name, _)| &**name).collect()
                            }
                            _ => Vec::new(),
                        };
                        Err(self.fault(
                            expr,
                            format!(
                                "`{}` is not among the params ({})",
                                print::text(expr),
                                known.join(", ")
                            ),
                        ))
                    }
                }
            }
            (Type::Dyn | Type::Map(_), of) => {
                let kind = if let Type::Map(of) = kind {
                    *of
                } else {
                    Type::Dyn
                };
                let (of, key) = (Box::new(of), field.into());
                Ok(if test {
                    (Node::HasKey { of, key, at }, Type::Bool)
                } else {
                    (Node::Key { of, key, at }, kind)
                })
            }
            (kind, _) => Err(self.fault(
                expr,
                format!(
                    "`{}` is {}; it has no fields",
                    print::text(&select.operand),
                    kind.name()
                ),
            )),
        }
    }

    fn unknown(&self, expr: &IdedExpr, shape: &Shape, field: &str) -> Fault {
        let names: Vec<_> = shape.fields.iter().map(|field| field.name).collect();
        self.fault(
            expr,
            format!(
                "`{field}` is no attribute of {}; there are {}",
                shape.name,
                names.join(", ")
            ),
        )
    }

    /// The parts of `request`, which have places of their own.
    fn request_part(
        &mut self,
        expr: &IdedExpr,
        select: &SelectExpr,
        test: bool,
    ) -> Result<Option<Typed>, Fault> {
        let Some(mut path) = request_path(&select.operand) else {
            return Ok(None);
        };
        if self.locals.iter().any(|(name, _)| name == "request") {
            return Ok(None);
        }
        if !self.roots.request {
            return Err(self.fault(expr, "`request` is known only while a question is asked; make the control RUNTIME only (C3)"));
        }
        self.reads.request = true;
        let at = self.at(expr);
        path.push(&select.field);
        let ask = |ask| {
            Some(if test {
                (Node::HasAsk(ask), Type::Bool)
            } else {
                (Node::Ask { ask, at }, Type::Str)
            })
        };
        let here = |node, kind| {
            Some(if test {
                (Node::Const(Value::Bool(true)), Type::Bool)
            } else {
                (node, kind)
            })
        };
        Ok(match *path.as_slice() {
            ["action"] => ask(Ask::Action),
            ["purpose"] => ask(Ask::Purpose),
            ["actor_kind"] => ask(Ask::ActorKind),
            ["tool"] if test => ask(Ask::Tool),
            ["tool"] => {
                return Err(self.fault(
                    expr,
                    "select one of request.tool.server, name, definition_digest",
                ));
            }
            ["tool", "server"] => ask(Ask::ToolServer),
            ["tool", "name"] => ask(Ask::ToolName),
            ["tool", "definition_digest"] => ask(Ask::ToolDigest),
            ["tool", other] => return Err(self.unknown(expr, &REQUEST_TOOL, other)),
            ["resource"] if test => here(Node::Context, Type::Bool),
            ["resource"] => {
                return Err(self.fault(expr, "select one of request.resource.type, id, properties"));
            }
            ["resource", "type"] => ask(Ask::ResourceType),
            ["resource", "id"] => ask(Ask::ResourceId),
            ["resource", "properties"] => here(Node::Properties, Type::Map(&Type::Dyn)),
            ["resource", "properties", name] => {
                Some(self.slot(expr, Said::Property, name, test)?)
            }
            ["resource", other] => return Err(self.unknown(expr, &REQUEST_RESOURCE, other)),
            ["context"] => here(Node::Context, Type::Map(&Type::Dyn)),
            ["context", name] => Some(self.slot(expr, Said::Context, name, test)?),
            [other] => return Err(self.unknown(expr, &catalogue::REQUEST, other)),
            _ => None,
        })
    }

    fn slot(
        &mut self,
        expr: &IdedExpr,
        said: Said,
        name: &str,
        test: bool,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let slot = self.names.slot(said, name).ok_or_else(|| {
            self.fault(
                expr,
                "the controls read too many different parts of the request's context",
            )
        })?;
        Ok(if test {
            (Node::HasSlot(slot), Type::Bool)
        } else {
            (Node::Slot { slot, at }, Type::Dyn)
        })
    }

    fn list(&mut self, expr: &IdedExpr, items: &[IdedExpr]) -> Result<Typed, Fault> {
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
            None => (Node::Items(items.into()), kind),
        })
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Result<Typed, Fault> {
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
    fn fold(&self, expr: &IdedExpr, node: Node, kind: Type) -> Result<Typed, Fault> {
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

    fn truth(&mut self, expr: &IdedExpr) -> Result<Node, Fault> {
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
    fn value(&mut self, expr: &IdedExpr) -> Result<Typed, Fault> {
        let (node, kind) = self.expr(expr)?;
        if node.is_walked() {
            return Err(self.fault(expr, "a list made by filter, map or [..] can only be counted, searched or walked: use size, in, exists or all"));
        }
        Ok((node, kind))
    }

    fn logic(&mut self, expr: &IdedExpr, name: &str) -> Result<Typed, Fault> {
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

    fn negate(&mut self, expr: &IdedExpr, of: &IdedExpr) -> Result<Typed, Fault> {
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

    fn choose(
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
            (Type::List(x, m), Type::List(y, n)) if x == y => Type::List(x, m.max(n)),
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

    fn index(&mut self, expr: &IdedExpr, of: &IdedExpr, index: &IdedExpr) -> Result<Typed, Fault> {
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

    fn member(
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

    /// A list to walk, with the type of its elements and how many there may be.
    fn range(&mut self, list: &IdedExpr) -> Result<(Node, Type, u32), Fault> {
        let (node, kind) = self.expr(list)?;
        match kind {
            Type::List(of, most) => Ok((node, *of, most)),
            Type::Map(_) => Ok((node, Type::Str, 256)),
            Type::Dyn => Ok((node, Type::Dyn, REQUEST_LIST)),
            kind => Err(self.fault(
                list,
                format!("`{}` is {}, not a list", print::text(list), kind.name()),
            )),
        }
    }

    fn looped<T>(
        &mut self,
        expr: &IdedExpr,
        var: &IdedExpr,
        kind: Type,
        inner: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let Expr::Ident(name) = &var.expr else {
            return Err(self.fault(var, "the first argument names the element, such as `t`"));
        };
        if [
            "subject",
            "resource",
            "request",
            "params",
            "exception",
            "now",
        ]
        .contains(&name.as_str())
        {
            return Err(self.fault(
                var,
                format!("`{name}` is taken; name the element otherwise"),
            ));
        }
        if self.locals.len() >= MAX_LOOPS {
            return Err(self.fault(
                expr,
                format!("loops are nested more than {MAX_LOOPS} deep; split the control"),
            ));
        }
        self.locals.push((name.clone(), kind));
        let made = inner(self);
        self.locals.pop();
        made
    }

    fn quantify(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        list: &IdedExpr,
        var: &IdedExpr,
        body: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let quantifier = match name {
            "exists" => Quantifier::Exists,
            "all" => Quantifier::All,
            _ => Quantifier::ExistsOne,
        };
        let (list, kind, most) = self.range(list)?;
        let body = self.looped(expr, var, kind, |inner| inner.truth(body))?;
        self.fold(
            expr,
            Node::Quantify {
                quantifier,
                list: Box::new(list),
                body: Box::new(body),
                most,
                at,
            },
            Type::Bool,
        )
    }

    fn filter(
        &mut self,
        expr: &IdedExpr,
        list: &IdedExpr,
        var: &IdedExpr,
        body: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let (list, kind, most) = self.range(list)?;
        let body = self.looped(expr, var, kind, |inner| inner.truth(body))?;
        // Elements of records keep their shape; other types are known as the list knew them.
        Ok((
            Node::Filter {
                list: Box::new(list),
                body: Box::new(body),
                most,
                at,
            },
            Type::List(element(kind), most),
        ))
    }

    fn map(
        &mut self,
        expr: &IdedExpr,
        list: &IdedExpr,
        var: &IdedExpr,
        test: Option<&IdedExpr>,
        body: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let (list, kind, most) = self.range(list)?;
        let (test, (body, made)) = self.looped(expr, var, kind, |inner| {
            let test = test.map(|test| inner.truth(test)).transpose()?;
            Ok((test, inner.value(body)?))
        })?;
        let node = Node::Map {
            list: Box::new(list),
            test: test.map(Box::new),
            body: Box::new(body),
            most,
            at,
        };
        Ok((volatile(node), Type::List(element(made), most)))
    }

    fn size(&mut self, expr: &IdedExpr, of: &IdedExpr) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let (node, kind) = self.expr(of)?;
        if !matches!(kind, Type::List(..) | Type::Map(_) | Type::Str | Type::Dyn) {
            return Err(self.fault(expr, format!("{} has no size", kind.name())));
        }
        self.fold(
            expr,
            Node::Size {
                of: Box::new(node),
                at,
            },
            Type::Int,
        )
    }

    fn text(&mut self, expr: &IdedExpr) -> Result<Node, Fault> {
        let (node, kind) = self.value(expr)?;
        match kind {
            Type::Str | Type::Dyn => Ok(node),
            kind => Err(self.fault(
                expr,
                format!("`{}` is {}, not text", print::text(expr), kind.name()),
            )),
        }
    }

    fn within(
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

    fn matches(
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

    fn convert(
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
    fn spans(&self, expr: &IdedExpr, node: Node, at: u32) -> Result<Typed, Fault> {
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

    fn part(
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

    fn compare(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let ((left, a), (right, b)) = (self.value(left)?, self.value(right)?);
        let Some(order) = order(name) else {
            return Err(self.fault(expr, "this comparison is not supported"));
        };
        let ordered = |kind| {
            matches!(
                kind,
                Type::Int
                    | Type::Double
                    | Type::Str
                    | Type::Time
                    | Type::Span
                    | Type::Bool
                    | Type::Dyn
            )
        };
        let equality = matches!(order, Order::Equal | Order::NotEqual);
        if !comparable(a, b) || !equality && !(ordered(a) && ordered(b)) {
            let hint = if a == Type::Null || b == Type::Null {
                "; use has() to ask whether an attribute is there"
            } else {
                ""
            };
            return Err(self.fault(
                expr,
                format!("{} and {} do not compare{hint}", a.name(), b.name()),
            ));
        }
        if equality && (matches!(a, Type::Record(_)) || matches!(b, Type::Record(_))) {
            return Err(self.fault(expr, "records are compared field by field"));
        }
        // Only whole lists and maps take more than a step to compare.
        let weight = match (a, b) {
            (Type::List(_, x), Type::List(_, y)) => x.min(y),
            (Type::Map(_), Type::Map(_)) | (Type::Dyn, Type::Dyn) => 256,
            _ => 0,
        };
        let slope = match (slope(&left), slope(&right)) {
            (Some(l), Some(r)) => match l.saturating_sub(r) {
                0 => Slope::Still,
                1 => Slope::Rising,
                -1 => Slope::Falling,
                _ => Slope::Wild,
            },
            (None, _) | (_, None) => Slope::Wild,
        };
        self.fold(
            expr,
            Node::Compare {
                order,
                left: Box::new(left),
                right: Box::new(right),
                slope,
                weight,
                at,
            },
            Type::Bool,
        )
    }

    fn compute(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Typed, Fault> {
        let at = self.at(expr);
        let ((left, a), (right, b)) = (self.value(left)?, self.value(right)?);
        let Some(sum) = sum(name) else {
            return Err(self.fault(expr, "this operation is not supported"));
        };
        if let (Sum::Add, Node::Const(Value::Str(x)), Node::Const(Value::Str(y))) =
            (sum, &left, &right)
        {
            return Ok((Node::Const(Value::Str(format!("{x}{y}").into())), Type::Str));
        }
        let additive = matches!(sum, Sum::Add | Sum::Subtract);
        let kind = match (a, b) {
            (Type::Int, Type::Int | Type::Dyn) | (Type::Dyn, Type::Int) => Type::Int,
            (Type::Double, Type::Double | Type::Dyn) | (Type::Dyn, Type::Double)
                if sum != Sum::Remainder =>
            {
                Type::Double
            }
            (Type::Dyn, Type::Dyn) => Type::Dyn,
            (Type::Time, Type::Span) if additive => Type::Time,
            (Type::Span, Type::Time) if sum == Sum::Add => Type::Time,
            (Type::Time, Type::Time) if sum == Sum::Subtract => Type::Span,
            (Type::Span, Type::Span) if additive => Type::Span,
            (Type::Time | Type::Span, Type::Dyn) | (Type::Dyn, Type::Time | Type::Span)
                if additive =>
            {
                Type::Dyn
            }
            (Type::Str, Type::Str | Type::Dyn)
            | (Type::Dyn, Type::Str)
            | (Type::List(..), _)
            | (_, Type::List(..))
                if sum == Sum::Add =>
            {
                return Err(self.fault(
                    expr,
                    "conditions make no new texts or lists; compare the parts",
                ));
            }
            (Type::Int, Type::Double) | (Type::Double, Type::Int) => {
                return Err(self.fault(expr, "int and double do not mix in arithmetic; convert one with double(..) or int(..)"));
            }
            (a, b) => {
                return Err(self.fault(
                    expr,
                    format!("{} and {} cannot be combined this way", a.name(), b.name()),
                ));
            }
        };
        self.fold(
            expr,
            Node::Compute {
                sum,
                left: Box::new(left),
                right: Box::new(right),
                at,
            },
            kind,
        )
    }

    /// The clauses of the whole condition, for explanations: alternatives of conjunctions.
    fn terms(&mut self, tree: &IdedExpr) -> Result<Vec<Term>, Fault> {
        let mut terms = Vec::new();
        for (group, alternative) in flat(tree, operators::LOGICAL_OR).into_iter().enumerate() {
            for clause in flat(alternative, operators::LOGICAL_AND) {
                let node = self.truth(clause)?;
                let mut reads: Vec<(Box<str>, Node)> = Vec::new();
                self.gather(clause, &mut reads)?;
                terms.push(Term {
                    group,
                    text: print::text(clause).into(),
                    node,
                    reads: reads.into(),
                });
            }
        }
        Ok(terms)
    }

    /// The attribute selections in `expr` that can be read on their own.
    fn gather(&mut self, expr: &IdedExpr, reads: &mut Vec<(Box<str>, Node)>) -> Result<(), Fault> {
        let whole = match &expr.expr {
            Expr::Select(_) => chain_root(expr).is_some_and(|root| {
                matches!(
                    root,
                    "subject" | "resource" | "request" | "exception" | "params"
                )
            }),
            Expr::Call(call) => {
                call.func_name == operators::INDEX && chain_root(expr) == Some("params")
            }
            Expr::Unspecified
            | Expr::Comprehension(_)
            | Expr::Ident(_)
            | Expr::List(_)
            | Expr::Literal(_)
            | Expr::Map(_)
            | Expr::Struct(_) => false,
        };
        if whole {
            let text: Box<str> = print::text(expr).into();
            if !reads.iter().any(|(known, _)| *known == text) {
                // Selections of loop elements and whole records do not stand alone.
                if let Ok((node, kind)) = self.expr(expr)
                    && !matches!(kind, Type::Record(_))
                {
                    reads.push((text, node));
                }
            }
            return Ok(());
        }
        if let Expr::Call(call) = &expr.expr {
            if call.func_name == "has" {
                return Ok(());
            }
            let loops = matches!(
                call.func_name.as_str(),
                "exists" | "all" | "exists_one" | "existsOne" | "filter" | "map"
            );
            if loops && let Some(list) = &call.target {
                return self.gather(list, reads);
            }
        }
        for child in print::children(expr) {
            self.gather(child, reads)?;
        }
        Ok(())
    }
}

/// The operands of a chain of one operator.
fn flat<'e>(expr: &'e IdedExpr, name: &str) -> Vec<&'e IdedExpr> {
    match &expr.expr {
        Expr::Call(call) if call.func_name == name && call.target.is_none() => {
            call.args.iter().flat_map(|arg| flat(arg, name)).collect()
        }
        _ => vec![expr],
    }
}

/// The selections after `request`, if the expression is made of them.
fn request_path(expr: &IdedExpr) -> Option<Vec<&str>> {
    match &expr.expr {
        Expr::Ident(name) if name == "request" => Some(Vec::new()),
        Expr::Select(select) => {
            let mut path = request_path(&select.operand)?;
            path.push(&select.field);
            Some(path)
        }
        _ => None,
    }
}

/// The variable at the root of a chain of selections and indexings.
fn chain_root(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Expr::Ident(name) => Some(name),
        Expr::Select(select) => chain_root(&select.operand),
        Expr::Call(call) if call.func_name == operators::INDEX => chain_root(call.args.first()?),
        _ => None,
    }
}

fn rooted_in_params(expr: &IdedExpr) -> bool {
    chain_root(expr) == Some("params")
}

fn comparable(a: Type, b: Type) -> bool {
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) | (Type::Int | Type::Double, Type::Int | Type::Double) => {
            true
        }
        (Type::List(x, _), Type::List(y, _)) | (Type::Map(x), Type::Map(y)) => comparable(*x, *y),
        (a, b) => a == b,
    }
}

/// The element type of a list made on the way.
fn element(kind: Type) -> &'static Type {
    static RECORDS: [Type; 6] = [
        Type::Record(&catalogue::TOOL),
        Type::Record(&catalogue::CREDENTIAL),
        Type::Record(&catalogue::APPROVAL),
        Type::Record(&catalogue::DATA_SOURCE),
        Type::Record(&catalogue::DATASET),
        Type::Record(&catalogue::PROMPT),
    ];
    RECORDS
        .iter()
        .find(|known| **known == kind)
        .unwrap_or_else(|| catalogue::lasting(kind))
}

fn order(name: &str) -> Option<Order> {
    Some(match name {
        operators::LESS => Order::Less,
        operators::LESS_EQUALS => Order::LessEqual,
        operators::GREATER => Order::Greater,
        operators::GREATER_EQUALS => Order::GreaterEqual,
        operators::EQUALS => Order::Equal,
        operators::NOT_EQUALS => Order::NotEqual,
        _ => return None,
    })
}

fn sum(name: &str) -> Option<Sum> {
    Some(match name {
        operators::ADD => Sum::Add,
        operators::SUBSTRACT => Sum::Subtract,
        operators::MULTIPLY => Sum::Multiply,
        operators::DIVIDE => Sum::Divide,
        operators::MODULO => Sum::Remainder,
        _ => return None,
    })
}

fn part(name: &str) -> Option<Part> {
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

/// The node marked as depending on the present, if it does.
fn volatile(node: Node) -> Node {
    if node.any(&|part| matches!(part, Node::Now)) {
        Node::Volatile(Box::new(node))
    } else {
        node
    }
}

/// How a value grows with the present, in seconds a second; nothing if it cannot be said.
fn slope(node: &Node) -> Option<i32> {
    match node {
        Node::Now => Some(1),
        Node::Compute {
            sum: Sum::Add,
            left,
            right,
            ..
        } => slope(left)?.checked_add(slope(right)?),
        Node::Compute {
            sum: Sum::Subtract,
            left,
            right,
            ..
        } => slope(left)?.checked_sub(slope(right)?),
        Node::Negate { of, .. } => slope(of)?.checked_neg(),
        node if node.any(&|part| matches!(part, Node::Now)) => None,
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{compile, on_deep_stack};
    use super::*;

    fn refused(source: &str) -> String {
        on_deep_stack(|| {
            compile(
                source,
                Roots::RUNTIME,
                &Value::map([]),
                &mut Names::default(),
            )
            .map(|_| ())
        })
        .expect("no panic")
        .expect_err(source)
        .to_string()
    }

    #[test]
    fn a_fault_points_at_its_place() {
        assert_eq!(
            refused("subject.risk_tier == 'HIGH' &&\n  subject.modle.deprecated")
                .lines()
                .take(3)
                .collect::<Vec<_>>()
                .join("\n"),
            "2:10: `modle` is no attribute of subject; there are id, kind, class_id, domain, region, environment, owner, backup_owner, purpose, risk_tier, data_sensitivity, lifecycle_state, model, lineage, tools, prompts, data_sources, credentials, approvals, fingerprint, metadata_update_time, heartbeat_time\n  |   subject.modle.deprecated\n  |          ^"
        );
    }

    #[test]
    fn what_cannot_be_is_refused_at_load() {
        for (source, part) in [
            ("", "empty"),
            ("1 + 1", "must be true or false"),
            ("subject.risk_tier > 3", "do not compare"),
            ("subject.risk_tier == null", "use has()"),
            ("request.nothing == 'x'", "no attribute of request"),
            ("subject.owner.upper() == 'A'", "not supported"),
            ("exception.tier == 'LOW'", "known only in scheduled runs"),
            ("subject.id.matches('(')", "pattern is refused"),
            (
                "subject.id.matches('((a{1000}){1000}){1000}')",
                "pattern is refused",
            ),
            (
                "now - subject.heartbeat_time > duration('90d')",
                "no unit `d`",
            ),
            ("1 / 0 == 1", "can never be evaluated"),
            ("params.x == 1", "not among the params"),
            ("subject.id + 'x' == 'y'", "no new texts"),
            (
                "subject.tools.exists(t, t.nmae == 'x')",
                "no attribute of tool",
            ),
            (
                "request.context.a.all(a, request.context.b.all(b, request.context.c.all(c, a == b)))",
                "steps",
            ),
            ("has(subject)", "field selection"),
        ] {
            let message = refused(source);
            assert!(message.contains(part), "{source}: {message}");
        }
    }

    #[test]
    fn hostile_sources_are_refused_quickly() {
        let deep = format!("{}1{} == 1", "(".repeat(5_000), ")".repeat(5_000));
        let wide = vec!["1"; 4_000].join(" + ");
        let chain = format!("{} == 1", vec!["1"; 400].join("+"));
        let nots = format!("{}true", "!".repeat(1_500));
        let selects = format!("request.context{}", ".a".repeat(900));
        let ternary = format!("{}true", "true ? true : ".repeat(140));
        for source in [
            deep,
            wide,
            chain,
            selects,
            ternary,
            "(((((".into(),
            "\u{0}".into(),
            "x".repeat(1 << 20),
        ] {
            let message = refused(&source);
            assert!(message.len() < 4_000, "{}", message.len());
        }
        let _ = on_deep_stack(|| {
            compile(
                &nots,
                Roots::RUNTIME,
                &Value::map([]),
                &mut Names::default(),
            )
            .is_ok()
        })
        .expect("no panic");
    }
}
