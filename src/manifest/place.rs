//! Where in a YAML document a field stands. Only looked for once something is wrong.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::options;

/// The places of every value in one document.
#[derive(Debug)]
pub struct Places(Option<Spanned<Node>>);

#[derive(Debug)]
enum Node {
    Leaf,
    List(Vec<Spanned<Self>>),
    Map(Vec<(String, Spanned<Self>)>),
}

impl Places {
    /// The places of `document`; none if it cannot be read.
    pub fn of(document: &str) -> Self {
        Self(serde_saphyr::from_str_with_options(document, options()).ok())
    }

    /// Whether the document itself says something under `name`.
    pub(super) fn says(&self, name: &str) -> bool {
        let value = self.0.as_ref().map(|spanned| &spanned.value);
        matches!(value, Some(Node::Map(entries)) if entries.iter().any(|(key, _)| key == name))
    }

    /// Line and column of the value at `path`, or of the nearest value around it.
    pub fn find(&self, path: &str) -> (usize, usize) {
        let Some(mut here) = self.0.as_ref() else {
            return (1, 1);
        };
        for step in steps(path) {
            let next = match (&here.value, step) {
                (Node::Map(entries), Step::Name(name)) => entries
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value),
                (Node::List(items), Step::Index(at)) => items.get(at),
                (Node::Leaf | Node::List(_) | Node::Map(_), _) => None,
            };
            match next {
                Some(next) => here = next,
                None => break,
            }
        }
        let number = |n: u64| usize::try_from(n).unwrap_or(1).max(1);
        (
            number(here.referenced.line()),
            number(here.referenced.column()),
        )
    }
}

enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

/// `a.b[2].c` as its steps.
fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(|part| match part.strip_suffix(']').map(str::parse) {
            Some(Ok(at)) => Step::Index(at),
            Some(Err(_)) | None => Step::Name(part),
        })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_where_it_stands() {
        let places = Places::of("kind: Control\nowner: user:a\nlist:\n  - a: 1\n    b: {c: x}\n");
        assert_eq!(places.find("owner"), (2, 8));
        assert_eq!(places.find("list[0].b.c"), (5, 12));
        assert_eq!(places.find("list[0].b.missing"), (5, 8));
        assert_eq!(places.find("nothing"), (1, 1));
    }
}
