//! Macros over lists.

use cel::{IdedExpr, common::ast::Expr};

use crate::engine::catalogue::{self, Type};

use super::{
    arithmetic::volatile,
    tree::{Lower, Typed},
};
use crate::engine::condition::{
    fault::Fault,
    node::{Node, Quantifier},
    print,
};

/// Deepest nesting of macros over lists.
const MAX_LOOPS: usize = 3;
/// Longest list a request may hold.
const REQUEST_LIST: u32 = 1_000;

impl Lower<'_> {
    /// A list to walk, with the type of its elements and how many there may be.
    pub(super) fn range(&mut self, list: &IdedExpr) -> Result<(Node, Type, u32), Fault> {
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

    pub(super) fn looped<T>(
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

    pub(super) fn quantify(
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

    pub(super) fn filter(
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

    pub(super) fn map(
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

    pub(super) fn size(&mut self, expr: &IdedExpr, of: &IdedExpr) -> Result<Typed, Fault> {
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
}

/// The element type of a list made on the way.
pub(super) fn element(kind: Type) -> &'static Type {
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
