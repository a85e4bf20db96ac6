//! From text to a condition, behind limits that hold before anything is parsed.

use std::{any::Any, panic, sync::Arc, thread};

use cel::{Env, IdedExpr, common::ast::SourceInfo};

use crate::domain::Value;

use super::{
    fault::Fault,
    lower::{self, Names, Roots},
    node::Condition,
    print,
};

/// Longest source of a condition, in bytes (design §3).
pub const MAX_SOURCE: usize = 2_048;
/// Deepest nesting of brackets.
const MAX_NESTING: usize = 16;
/// Deepest syntax tree; a chain of operators of one kind is a deep tree.
const MAX_DEPTH: usize = 64;
/// Most nodes of a syntax tree.
const MAX_NODES: usize = 1_000;
/// Enough for the parser's recursion on any source within the limits.
const STACK: usize = 16 << 20;

/// Runs `work` on a thread with a stack that the parser cannot exhaust within the limits.
///
/// # Errors
///
/// What `work` panicked with, if the parser did.
pub fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Box<dyn Any + Send>> {
    thread::scope(|scope| {
        let builder = thread::Builder::new()
            .name("exeat-compile".into())
            .stack_size(STACK);
        match builder.spawn_scoped(scope, work) {
            Ok(worker) => worker.join(),
            Err(error) => Err(Box::new(error) as Box<dyn Any + Send>),
        }
    })
}

/// Compiles a condition over the variables of `roots`; `names` gathers the parts of the request's
/// context it reads. Must run [`on_deep_stack`].
pub fn compile(
    source: &str,
    roots: Roots,
    params: &Value,
    names: &mut Names,
) -> Result<Condition, Fault> {
    let (tree, positions) = read(source)?;
    let lowered = lower::lower(source, &tree, &positions, roots, params, names)?;
    Ok(Condition {
        root: lowered.root.fused(),
        terms: lowered.terms.into(),
        source: Arc::from(source),
        cost: lowered.cost,
        reads: lowered.reads,
    })
}

/// Refuses what is too long or nested too deeply, before it reaches the parser.
fn gate(source: &str) -> Result<(), Fault> {
    if source.trim().is_empty() {
        return Err(Fault::new(
            source,
            0,
            "the condition is empty; write a CEL expression",
        ));
    }
    if source.len() > MAX_SOURCE {
        return Err(Fault::new(
            source,
            MAX_SOURCE,
            format!(
                "the condition is {} bytes long; at most {MAX_SOURCE} are read",
                source.len()
            ),
        ));
    }
    let mut depth = 0_usize;
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in source.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[' | '{') => {
                depth = depth.saturating_add(1);
                if depth > MAX_NESTING {
                    return Err(Fault::new(
                        source,
                        at,
                        format!(
                            "brackets are nested more than {MAX_NESTING} deep; split the control"
                        ),
                    ));
                }
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, '\0') => {
                return Err(Fault::new(
                    source,
                    at,
                    "the condition holds a NUL character; remove it",
                ));
            }
            (Some(_) | None, _) => {}
        }
    }
    Ok(())
}

/// The tree of a source within the limits, and where its parts stand.
pub(super) fn read(source: &str) -> Result<(IdedExpr, SourceInfo), Fault> {
    gate(source)?;
    let (tree, positions) = parse(source)?;
    measure(source, &tree, &positions)?;
    Ok((tree, positions))
}

fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), Fault> {
    // Without macros `has`, `exists` and the like stay calls, which is what lowering wants to see.
    let parser = Env::default().with_optional_support(false).parser();
    let parsed = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        parser.parse_with_source_info(source)
    }));
    match parsed {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(errors)) => {
            let Some(first) = errors.errors.first() else {
                return Err(Fault::new(source, 0, "this is not CEL"));
            };
            let (line, column) = first.pos;
            let message = first.msg.trim_start_matches("Syntax error: ");
            let message = message.split(" expecting ").next().unwrap_or(message);
            Err(Fault::new(
                source,
                offset(source, line, column),
                format!("this is not CEL: {message}"),
            ))
        }
        Err(_) => Err(Fault::new(
            source,
            0,
            "the parser gave up on this; simplify it",
        )),
    }
}

/// The byte at a line and column that count from 1.
fn offset(source: &str, line: isize, column: isize) -> usize {
    let line = usize::try_from(line).unwrap_or(1).saturating_sub(1);
    let column = usize::try_from(column).unwrap_or(1).saturating_sub(1);
    let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    start.saturating_add(column).min(source.len())
}

/// Refuses trees that are too deep or too large.
fn measure(source: &str, tree: &IdedExpr, positions: &SourceInfo) -> Result<(), Fault> {
    let mut left = vec![(tree, 1_usize)];
    let mut nodes = 0_usize;
    while let Some((expr, depth)) = left.pop() {
        nodes = nodes.saturating_add(1);
        let at = || {
            positions
                .offset_for(expr.id)
                .map_or(0, |(start, _)| start as usize)
        };
        if depth > MAX_DEPTH {
            return Err(Fault::new(
                source,
                at(),
                format!(
                    "the expression is more than {MAX_DEPTH} operators deep; use a list, or split the control"
                ),
            ));
        }
        if nodes > MAX_NODES {
            return Err(Fault::new(
                source,
                at(),
                format!("the expression has more than {MAX_NODES} parts; split the control"),
            ));
        }
        left.extend(
            print::children(expr)
                .into_iter()
                .map(|child| (child, depth.saturating_add(1))),
        );
    }
    Ok(())
}
