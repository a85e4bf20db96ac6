//! Syntax trees back to text, for explanations.

use std::fmt::Write as _;

use cel::{
    IdedExpr,
    common::ast::{Expr, LiteralValue, operators},
};

/// The parts of an expression.
pub(super) fn children(expr: &IdedExpr) -> Vec<&IdedExpr> {
    match &expr.expr {
        Expr::Call(call) => call
            .target
            .iter()
            .map(AsRef::as_ref)
            .chain(&call.args)
            .collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Comprehension(loops) => vec![
            &loops.iter_range,
            &loops.accu_init,
            &loops.loop_cond,
            &loops.loop_step,
            &loops.result,
        ],
        Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {
            Vec::new()
        }
    }
}

/// The expression as text, in one line.
pub(super) fn text(expr: &IdedExpr) -> String {
    let mut out = String::new();
    print(&mut out, expr, 0);
    out
}

/// How an operator is written and how tightly it binds.
fn infix(name: &str) -> Option<(&'static str, u8)> {
    Some(match name {
        operators::LOGICAL_OR => ("||", 1),
        operators::LOGICAL_AND => ("&&", 2),
        operators::EQUALS => ("==", 3),
        operators::NOT_EQUALS => ("!=", 3),
        operators::LESS => ("<", 3),
        operators::LESS_EQUALS => ("<=", 3),
        operators::GREATER => (">", 3),
        operators::GREATER_EQUALS => (">=", 3),
        operators::IN => ("in", 3),
        operators::ADD => ("+", 4),
        operators::SUBSTRACT => ("-", 4),
        operators::MULTIPLY => ("*", 5),
        operators::DIVIDE => ("/", 5),
        operators::MODULO => ("%", 5),
        _ => return None,
    })
}

fn print(out: &mut String, expr: &IdedExpr, outer: u8) {
    match &expr.expr {
        Expr::Unspecified | Expr::Map(_) | Expr::Struct(_) | Expr::Comprehension(_) => {
            out.push('…');
        }
        Expr::Ident(name) => out.push_str(name),
        Expr::Literal(literal) => print_literal(out, literal),
        Expr::Select(select) => {
            print(out, &select.operand, 9);
            out.push('.');
            out.push_str(&select.field);
        }
        Expr::List(list) => {
            out.push('[');
            join(out, &list.elements);
            out.push(']');
        }
        Expr::Call(call) => match (infix(&call.func_name), call.args.as_slice(), &call.target) {
            (Some((sign, tight)), [left, right], None) => {
                let wrap = tight < outer;
                if wrap {
                    out.push('(');
                }
                print(out, left, tight);
                let _ = write!(out, " {sign} ");
                print(out, right, tight.saturating_add(1));
                if wrap {
                    out.push(')');
                }
            }
            (None, [of], None) if call.func_name == operators::LOGICAL_NOT => {
                out.push('!');
                print(out, of, 8);
            }
            (None, [of], None) if call.func_name == operators::NEGATE => {
                out.push('-');
                print(out, of, 8);
            }
            (None, [of, index], None) if call.func_name == operators::INDEX => {
                print(out, of, 9);
                out.push('[');
                print(out, index, 0);
                out.push(']');
            }
            (None, [test, then, otherwise], None) if call.func_name == operators::CONDITIONAL => {
                out.push('(');
                print(out, test, 1);
                out.push_str(" ? ");
                print(out, then, 1);
                out.push_str(" : ");
                print(out, otherwise, 0);
                out.push(')');
            }
            (_, args, target) => {
                if let Some(target) = target {
                    print(out, target, 9);
                    out.push('.');
                }
                out.push_str(&call.func_name);
                out.push('(');
                join(out, args);
                out.push(')');
            }
        },
    }
}

fn join(out: &mut String, items: &[IdedExpr]) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        print(out, item, 0);
    }
}

fn print_literal(out: &mut String, literal: &LiteralValue) {
    let _ = match literal {
        LiteralValue::Boolean(b) => write!(out, "{}", b.inner()),
        LiteralValue::Int(i) => write!(out, "{}", i.inner()),
        LiteralValue::UInt(u) => write!(out, "{}u", u.inner()),
        LiteralValue::Double(d) => write!(out, "{:?}", d.inner()),
        LiteralValue::String(s) => write!(
            out,
            "'{}'",
            s.inner().replace('\\', "\\\\").replace('\'', "\\'")
        ),
        LiteralValue::Bytes(_) => write!(out, "b'…'"),
        LiteralValue::Null => write!(out, "null"),
    };
}
