//! The clauses of a condition, for explanations.

use cel::{
    IdedExpr,
    common::ast::{Expr, operators},
};

use crate::engine::catalogue::Type;

use super::{select::chain_root, tree::Lower};
use crate::engine::condition::{
    fault::Fault,
    node::{Node, Term},
    print,
};

impl Lower<'_> {
    /// The clauses of the whole condition, for explanations: alternatives of conjunctions.
    pub(super) fn terms(&mut self, tree: &IdedExpr) -> Result<Vec<Term>, Fault> {
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
    pub(super) fn gather(
        &mut self,
        expr: &IdedExpr,
        reads: &mut Vec<(Box<str>, Node)>,
    ) -> Result<(), Fault> {
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
pub(super) fn flat<'e>(expr: &'e IdedExpr, name: &str) -> Vec<&'e IdedExpr> {
    match &expr.expr {
        Expr::Call(call) if call.func_name == name && call.target.is_none() => {
            call.args.iter().flat_map(|arg| flat(arg, name)).collect()
        }
        _ => vec![expr],
    }
}
