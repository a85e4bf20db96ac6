//! Pages of a list: each goes on after where the one before ended, whatever became of that item.

use std::cmp::Ordering;

use crate::{
    domain::{Invalid, Timestamp},
    wire::Fault,
};

use super::page;

/// Where an item stands: what is over comes last, then by time, then by name.
pub(super) type Key = (bool, Timestamp, Box<str>);

/// A page.
pub(super) struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next begins; empty at the end.
    pub next: String,
}

/// The page of `all`, in `order`, that begins after `token`, with `size` items at the most.
///
/// # Errors
///
/// A token that no page ended with.
pub(super) fn paged<T>(
    mut all: Vec<(Key, T)>,
    order: fn(&Key, &Key) -> Ordering,
    (size, token): (u32, &str),
) -> Result<Page<T>, Fault> {
    let last = read(token)?;
    all.sort_by(|(a, _), (b, _)| order(a, b));
    let after = last.map_or(0, |last| {
        all.partition_point(|(key, _)| order(key, &last) != Ordering::Greater)
    });
    let end = after.saturating_add(page(size)).min(all.len());
    let ends = end.checked_sub(1).filter(|_| end < all.len());
    let next = ends
        .and_then(|at| all.get(at))
        .map(|(key, _)| written(key))
        .unwrap_or_default();
    let items = all.drain(after..end).map(|(_, item)| item).collect();
    Ok(Page { items, next })
}

fn written((over, time, name): &Key) -> String {
    format!("{} {} {name}", u8::from(*over), time.micros())
}

fn read(token: &str) -> Result<Option<Key>, Fault> {
    if token.is_empty() {
        return Ok(None);
    }
    let mut parts = token.splitn(3, ' ');
    let mut part = || parts.next();
    let key = (|| {
        let over = match part()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let time = part()?.parse().ok().map(Timestamp::from_micros)?;
        Some((over, time, part()?.into()))
    })();
    let fix = "give the next_page_token of the page before";
    let wrong = || Fault::Invalid(Invalid::new("page_token", "is none", fix));
    key.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(of: &[i64]) -> Vec<(Key, i64)> {
        let key = |n: &i64| (*n >= 100, Timestamp::from_micros(*n), n.to_string().into());
        of.iter().map(|n| (key(n), *n)).collect()
    }

    #[test]
    fn pages_go_on_whatever_became_of_where_they_ended() {
        let page = |all: &[i64], token: &str| {
            let page = paged(keys(all), Ord::cmp, (2, token)).unwrap();
            (page.items, page.next)
        };
        let (first, next) = page(&[5, 1, 100, 3], "");
        assert_eq!(first, [1, 3]);
        let (rest, end) = page(&[5, 1, 100, 3], &next);
        assert_eq!((rest, end.as_str()), (vec![5, 100], ""));
        // The last one is gone, and one came before it.
        assert_eq!(page(&[5, 1, 2, 100], &next).0, [5, 100]);
        assert_eq!(page(&[1], &next), (Vec::new(), String::new()));
        let back = paged(keys(&[1, 2, 3]), |a, b| b.cmp(a), (2, "")).unwrap();
        assert_eq!(back.items, [3, 2]);
        let back = paged(keys(&[1, 3]), |a, b| b.cmp(a), (2, &back.next)).unwrap();
        assert_eq!(back.items, [1]);
        for token in ["EX-1", "0 x y", "2 1 y", "0 1"] {
            assert!(paged(keys(&[1]), Ord::cmp, (2, token)).is_err(), "{token}");
        }
    }
}
