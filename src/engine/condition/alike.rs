//! Whether a condition holds wherever another does, as far as their shapes tell.

use cel::{
    IdedExpr,
    common::ast::{Expr, operators},
};

use super::source::read;

/// Whether `new` is `old` with alternatives added: each part that `||` joins in `old` is one in
/// `new` too, and an alternative holds whatever stands beside it. Told by what the parser reads:
/// text that begins alike may mean anything. Must run [`on_deep_stack`](super::on_deep_stack).
pub fn only_adds(old: &str, new: &str) -> bool {
    let (Ok((old, _)), Ok((new, _))) = (read(old), read(new)) else {
        return false;
    };
    let mut rest = alternatives(&new);
    alternatives(&old).into_iter().all(|wanted| {
        let at = rest.iter().position(|known| same(known, wanted));
        at.map(|at| rest.swap_remove(at)).is_some()
    })
}

fn alternatives(expr: &IdedExpr) -> Vec<&IdedExpr> {
    if let Expr::Call(call) = &expr.expr
        && call.func_name == operators::LOGICAL_OR
        && call.target.is_none()
    {
        return call.args.iter().flat_map(alternatives).collect();
    }
    vec![expr]
}

/// Whether two trees say the same in the same words; what is not looked into is not.
fn same(a: &IdedExpr, b: &IdedExpr) -> bool {
    let all = |a: &[IdedExpr], b: &[IdedExpr]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
    };
    match (&a.expr, &b.expr) {
        (Expr::Ident(a), Expr::Ident(b)) => a == b,
        (Expr::Literal(a), Expr::Literal(b)) => a == b,
        (Expr::Select(a), Expr::Select(b)) => {
            (&a.field, a.test) == (&b.field, b.test) && same(&a.operand, &b.operand)
        }
        (Expr::List(a), Expr::List(b)) => all(&a.elements, &b.elements),
        (Expr::Call(a), Expr::Call(b)) => {
            let target = match (&a.target, &b.target) {
                (None, None) => true,
                (Some(a), Some(b)) => same(a, b),
                (None, Some(_)) | (Some(_), None) => false,
            };
            a.func_name == b.func_name && target && all(&a.args, &b.args)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_may_be_added_and_nothing_else() {
        let old = "subject.environment == 'prod' && subject.risk_tier == 'HIGH'";
        let or = "a.b || request.rows > 10";
        let long = "subject.tools.exists(t, t.name == 'x') // why\n";
        for (old, new) in [
            (old, format!("({old}) || subject.environment == 'test'")),
            (old, format!("{old} || a.b || (c.d && e.f)")),
            (old, format!("(a.b) || ({old})")),
            (or, "request.rows > 10 || c.d || a.b".into()),
            (long, format!("({long}) || a.b")),
        ] {
            assert!(only_adds(old, &new), "{new}");
        }
        for (old, new) in [
            (
                old,
                format!("({old}) || true ? subject.environment == 'zzz' : false"),
            ),
            (old, format!("({old} || a.b) && c.d")),
            (old, format!("({old} && a.b) || c.d")),
            (old, format!("!({old}) || a.b")),
            (or, "a.b".into()),
            (or, "a.b || request.rows > 11".into()),
            ("a.b || a.b", "a.b || c.d".into()),
            ("a.b // c", "(a.b // c) || (c.d\n && e.f)".into()),
            ("a.b", "a.b ||".into()),
        ] {
            assert!(!only_adds(old, &new), "{new}");
        }
    }
}
