//! Lists and maps, walked element by element.

use crate::domain::{Ref, Trouble, TroubleKind, lookup};

use super::{
    eval::{Answer, Frame, Scope, eval, same, trouble, truth},
    node::{Node, Quantifier},
};

#[inline(never)]
pub(super) fn quantify<'a>(
    quantifier: Quantifier,
    list: &'a Node,
    body: &'a Node,
    at: u32,
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
) -> Result<bool, Trouble> {
    // A list whose making fails is an error whichever element would have decided.
    if list.is_walked() {
        each(list, frame, scope, &mut |_| Ok(()))?;
    }
    let (mut kept, mut count, mut decided) = (None, 0_u32, false);
    each(list, frame, scope, &mut |item| {
        if decided {
            return Ok(());
        }
        frame.burn(at)?;
        match (
            truth(body, frame, Some(&Scope { item, outer: scope })),
            quantifier,
        ) {
            (Ok(true), Quantifier::Exists) | (Ok(false), Quantifier::All) => decided = true,
            (Ok(true), Quantifier::ExistsOne) => count = count.saturating_add(1),
            (Ok(_), _) => {}
            (Err(error), _) if error.kind == TroubleKind::BudgetExceeded => return Err(error),
            (Err(error), Quantifier::ExistsOne) => return Err(error),
            (Err(error), Quantifier::Exists | Quantifier::All) => kept = kept.or(Some(error)),
        }
        Ok(())
    })?;
    match (quantifier, decided, kept) {
        (Quantifier::Exists, true, _) | (Quantifier::All, false, None) => Ok(true),
        (Quantifier::All, true, _) | (Quantifier::Exists, false, None) => Ok(false),
        (Quantifier::Exists | Quantifier::All, false, Some(error)) => Err(error),
        (Quantifier::ExistsOne, ..) => Ok(count == 1),
    }
}

/// Walks a list, or the keys of a map.
#[inline(never)]
pub(super) fn each<'a>(
    list: &'a Node,
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
    visit: &mut dyn FnMut(Ref<'a>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    match list {
        Node::Filter { list, body, at, .. } => each(list, frame, scope, &mut |item| {
            frame.burn(*at)?;
            if truth(body, frame, Some(&Scope { item, outer: scope }))? {
                visit(item)
            } else {
                Ok(())
            }
        }),
        Node::Map {
            list,
            test,
            body,
            at,
            ..
        } => each(list, frame, scope, &mut |item| {
            frame.burn(*at)?;
            let inner = Scope { item, outer: scope };
            if let Some(test) = test
                && !truth(test, frame, Some(&inner))?
            {
                return Ok(());
            }
            visit(eval(body, frame, Some(&inner))?)
        }),
        Node::Items(items) => items
            .iter()
            .try_for_each(|item| visit(eval(item, frame, scope)?)),
        Node::Volatile(of) => {
            frame.note_edge(frame.now);
            each(of, frame, scope, visit)
        }
        Node::Choose {
            test,
            then,
            otherwise,
            ..
        } => {
            if truth(test, frame, scope)? {
                each(then, frame, scope, visit)
            } else {
                each(otherwise, frame, scope, visit)
            }
        }
        other => match eval(other, frame, scope)? {
            Ref::List(items) => items.iter().try_for_each(|item| visit(item.as_ref())),
            Ref::Map(entries) => entries.iter().try_for_each(|(key, _)| visit(Ref::Str(key))),
            _ => trouble(TroubleKind::WrongKind, other.at()),
        },
    }
}

#[inline(never)]
pub(super) fn member<'a>(
    item: &'a Node,
    list: &'a Node,
    at: u32,
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
) -> Result<bool, Trouble> {
    let item = eval(item, frame, scope)?;
    if list.is_walked() {
        let mut found = false;
        each(list, frame, scope, &mut |other| {
            found |= same(item, other, frame, at)?;
            Ok(())
        })?;
        return Ok(found);
    }
    match (eval(list, frame, scope)?, item) {
        (Ref::List(items), item) => {
            for other in items {
                if same(item, other.as_ref(), frame, at)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Ref::Map(entries), Ref::Str(key)) => Ok(lookup(entries, key).is_some()),
        (Ref::Map(_), _) => Ok(false),
        _ => trouble(TroubleKind::WrongKind, at),
    }
}

#[inline(never)]
pub(super) fn size<'a>(
    of: &'a Node,
    at: u32,
    frame: &Frame<'a>,
    scope: Option<&Scope<'_, 'a>>,
) -> Answer<'a> {
    let count = if of.is_walked() {
        let mut count = 0_usize;
        each(of, frame, scope, &mut |_| {
            count = count.saturating_add(1);
            Ok(())
        })?;
        count
    } else {
        match eval(of, frame, scope)? {
            Ref::List(items) => items.len(),
            Ref::Map(entries) => entries.len(),
            Ref::Str(text) => text.chars().count(),
            _ => return trouble(TroubleKind::WrongKind, at),
        }
    };
    Ok(Ref::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}
