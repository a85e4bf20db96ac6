//! A ledger as static files that any transparency client reads (C2SP tlog-tiles): `checkpoint`,
//! `tile/L/N` with 256 digests each, and `tile/entries/N` with the leaves they are of.

use super::tree::{Growing, Sum, leaf};

/// Digests of a whole tile.
const WIDTH: usize = 256;

/// A file of the ledger: its path below the ledger's folder, and what is in it.
pub type File = (String, Vec<u8>);

/// Tiles that are filled, leaf by leaf.
#[derive(Debug, Default)]
pub struct Tiles {
    /// By level: how many tiles were whole, and the digests of the next.
    levels: Vec<(u64, Vec<Sum>)>,
    entries: Entries,
    whole: Growing,
    size: u64,
    /// The leaves that are longer than an entry of a tile may be, by their positions.
    pub oversize: Vec<u64>,
}

/// The leaves of one tile, each behind its length.
#[derive(Debug, Default)]
enum Entries {
    /// None yet.
    #[default]
    Empty,
    /// So many bytes of them.
    Some(Vec<u8>),
    /// One of them is too long: there are none.
    None,
}

impl Tiles {
    /// Takes in the next leaf; gives the tiles that it fills.
    pub fn push(&mut self, text: &str) -> Vec<File> {
        if let Ok(length) = u16::try_from(text.len()) {
            if let Entries::Empty = self.entries {
                self.entries = Entries::Some(Vec::new());
            }
            if let Entries::Some(bytes) = &mut self.entries {
                bytes.extend(length.to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        } else {
            self.oversize.push(self.size);
            self.entries = Entries::None;
        }
        self.size = self.size.saturating_add(1);
        let mut files = Vec::new();
        let mut next = leaf(text.as_bytes());
        self.whole.push(next);
        for level in 0.. {
            if self.levels.len() <= level {
                self.levels.push((0, Vec::with_capacity(WIDTH)));
            }
            let Some((number, digests)) = self.levels.get_mut(level) else {
                break;
            };
            digests.push(next);
            if digests.len() < WIDTH {
                break;
            }
            let at = place(*number, WIDTH);
            if level == 0
                && let Entries::Some(bytes) = std::mem::take(&mut self.entries)
            {
                files.push((format!("tile/entries/{at}"), bytes));
            }
            files.push((format!("tile/{level}/{at}"), digests.concat()));
            // What is above stands for all of them.
            let mut below = Growing::default();
            for digest in digests.drain(..) {
                below.push(digest);
            }
            next = below.root();
            *number = number.saturating_add(1);
        }
        files
    }

    /// The tiles that are not whole.
    pub fn partial(&self) -> Vec<File> {
        let mut files = Vec::new();
        for (level, (number, digests)) in self.levels.iter().enumerate() {
            if digests.is_empty() {
                continue;
            }
            let at = place(*number, digests.len());
            if level == 0
                && let Entries::Some(bytes) = &self.entries
            {
                files.push((format!("tile/entries/{at}"), bytes.clone()));
            }
            files.push((format!("tile/{level}/{at}"), digests.concat()));
        }
        files
    }

    /// How many leaves there are, and the root of them all.
    pub fn head(&self) -> (u64, [u8; 32]) {
        (self.size, self.whole.root())
    }
}

/// A tile's number in groups of three digits, and how many digests are in it if it is not whole.
fn place(number: u64, width: usize) -> String {
    let mut at = format!("{:03}", number % 1_000);
    let mut above = number / 1_000;
    while above > 0 {
        at = format!("x{:03}/{at}", above % 1_000);
        above /= 1_000;
    }
    if width < WIDTH {
        format!("{at}.p/{width}")
    } else {
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::ledger;

    #[test]
    fn a_tiles_place_is_in_groups_of_three_digits() {
        assert_eq!(place(5, 256), "005");
        assert_eq!(place(1_234_067, 256), "x001/x234/067");
        assert_eq!(place(1_000, 7), "x001/000.p/7");
    }

    /// The root comes out of the files alone, by the other implementation, at every level.
    #[test]
    fn the_tiles_hold_the_whole_tree() {
        for size in [1, 255, 256, 257, 700, 65_536 + 300] {
            let mut tiles = Tiles::default();
            let mut files = BTreeMap::new();
            let mut tree = ledger::Tree::default();
            for n in 0..size {
                let text = format!("leaf {n}");
                tree.append(ledger::leaf_hash(&text));
                files.extend(tiles.push(&text));
            }
            files.extend(tiles.partial());
            assert_eq!(tiles.head(), (size, tree.root()));
            let at = |level: u32, number: u64| {
                let width = size / 256_u64.pow(level) - number * 256;
                let at = place(number, usize::try_from(width.min(256)).unwrap());
                (files[&format!("tile/{level}/{at}")].clone(), at)
            };
            let digests: Vec<u8> = (0..size.div_ceil(256))
                .flat_map(|number| at(0, number).0)
                .collect();
            for n in [0, size / 2, size - 1] {
                let own = usize::try_from(n).unwrap() * 32;
                let text = format!("leaf {n}");
                assert_eq!(digests[own..own + 32], ledger::leaf_hash(&text));
                let (_, tile) = at(0, n / 256);
                let mut entries = files[&format!("tile/entries/{tile}")].as_slice();
                for _ in 0..n % 256 {
                    let length = usize::from(u16::from_be_bytes([entries[0], entries[1]]));
                    entries = &entries[2 + length..];
                }
                assert!(entries[2..].starts_with(text.as_bytes()));
            }
            for level in 1..3 {
                let below = 256_u64.pow(level);
                for n in 0..size / below {
                    let tile = at(level, n / 256).0;
                    let mut part = ledger::Tree::default();
                    let from = usize::try_from(n * below).unwrap() * 32;
                    let all = &digests[from..from + usize::try_from(below).unwrap() * 32];
                    for digest in all.chunks(32) {
                        part.append(digest.try_into().unwrap());
                    }
                    let own = usize::try_from(n % 256).unwrap() * 32;
                    assert_eq!(tile[own..own + 32], part.root());
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_for_an_entry_is_named_and_its_digest_is_there() {
        let mut tiles = Tiles::default();
        for n in 0..300 {
            let long = if n == 3 { 70_000 } else { 10 };
            let files = tiles.push(&"x".repeat(long));
            let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
            let whole: &[&str] = if n == 255 { &["tile/0/000"] } else { &[] };
            assert_eq!(names, whole, "{n}");
        }
        assert_eq!(tiles.oversize, [3]);
        let partial: Vec<_> = tiles.partial().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            partial,
            ["tile/entries/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1"]
        );
    }
}
