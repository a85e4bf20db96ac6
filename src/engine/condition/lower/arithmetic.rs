//! Comparisons and sums, and how they move as time passes.

use cel::{IdedExpr, common::ast::operators};

use crate::{domain::Value, engine::catalogue::Type};

use super::tree::{Lower, Typed};
use crate::engine::condition::{
    fault::Fault,
    node::{Node, Order, Slope, Sum},
};

impl Lower<'_> {
    pub(super) fn compare(
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
        let both = equality || ordered(a) && ordered(b);
        if !(comparable(a, b) && both) {
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
                sides: Box::new([left, right]),
                slope,
                weight,
                at,
            },
            Type::Bool,
        )
    }

    pub(super) fn compute(
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
}

pub(super) fn comparable(a: Type, b: Type) -> bool {
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) | (Type::Int | Type::Double, Type::Int | Type::Double) => {
            true
        }
        (Type::List(x, _), Type::List(y, _)) | (Type::Map(x), Type::Map(y)) => comparable(*x, *y),
        // Records are compared field by field.
        (Type::Record(_), _) => false,
        (a, b) => a == b,
    }
}

pub(super) fn order(name: &str) -> Option<Order> {
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

pub(super) fn sum(name: &str) -> Option<Sum> {
    Some(match name {
        operators::ADD => Sum::Add,
        operators::SUBSTRACT => Sum::Subtract,
        operators::MULTIPLY => Sum::Multiply,
        operators::DIVIDE => Sum::Divide,
        operators::MODULO => Sum::Remainder,
        _ => return None,
    })
}

/// The node marked as depending on the present, if it does.
pub(super) fn volatile(node: Node) -> Node {
    if node.any(&|part| matches!(part, Node::Now)) {
        Node::Volatile(Box::new(node))
    } else {
        node
    }
}

/// How a value grows with the present, in seconds a second; nothing if it cannot be said.
pub(super) fn slope(node: &Node) -> Option<i32> {
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
