//! Selections: attributes by their places, parts of the request by theirs.

use cel::{
    IdedExpr,
    common::ast::{Expr, SelectExpr, operators},
};

use crate::{
    domain::{Facet, Value},
    engine::catalogue::{self, REQUEST_RESOURCE, REQUEST_TOOL, Shape, Type},
};

use super::{
    names::Said,
    tree::{Lower, Typed},
};
use crate::engine::condition::{
    fault::Fault,
    node::{Ask, Node},
    print,
};

impl Lower<'_> {
    /// A field selection, or with `test` the question whether the field is there.
    pub(super) fn select(
        &mut self,
        expr: &IdedExpr,
        select: &SelectExpr,
        test: bool,
    ) -> Result<Typed, Fault> {
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
                match (&of, walked(field)) {
                    (Node::Subject, Some(facet)) => self.reads.facets |= 1 << facet as u16,
                    (Node::Resource { .. }, Some(facet)) => {
                        return Err(self.fault(
                            expr,
                            format!("`{field}` of a resource cannot be read: nobody says whether facet `{facet}` of it was reported"),
                        ));
                    }
                    _ => {}
                }
                self.reads.fingerprint |= matches!(of, Node::Subject) && field == "fingerprint";
                if matches!(of, Node::Subject) && !test {
                    return Ok((Node::Own { place, at }, kind));
                }
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

    pub(super) fn unknown(&self, expr: &IdedExpr, shape: &Shape, field: &str) -> Fault {
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
    pub(super) fn request_part(
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
            return Err(self.fault(
                expr,
                "`request` is known only while a question is asked; make the control RUNTIME only",
            ));
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

    pub(super) fn slot(
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
}

/// The facet that a list of the catalogue belongs to: empty and not reported look alike in it.
fn walked(field: &str) -> Option<Facet> {
    match field {
        "tools" => Some(Facet::Tools),
        "prompts" => Some(Facet::Prompts),
        "data_sources" => Some(Facet::DataSources),
        "credentials" => Some(Facet::Credentials),
        "lineage" => Some(Facet::Lineage),
        _ => None,
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
pub(super) fn chain_root(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Expr::Ident(name) => Some(name),
        Expr::Select(select) => chain_root(&select.operand),
        Expr::Call(call) if call.func_name == operators::INDEX => chain_root(call.args.first()?),
        _ => None,
    }
}

pub(super) fn rooted_in_params(expr: &IdedExpr) -> bool {
    chain_root(expr) == Some("params")
}
