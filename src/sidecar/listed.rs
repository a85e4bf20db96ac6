//! A list of tokens, by their digests, and whose each is.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

use crate::{domain::SubjectId, runtime::files::read_small, wire::signed::unhex};

/// Longest list, in bytes.
const MOST: u64 = 16 << 20;
/// How many wrong lines are named.
const NAMED: usize = 10;

/// The tokens of a list.
#[derive(Debug, Default)]
pub(super) struct Listed(HashMap<[u8; 32], SubjectId>);

impl Listed {
    /// The list in `file`, and what is wrong with it: its first lines by number, and how many more. A
    /// line that is wrong lists nothing, and a token that is listed twice is nobody's.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub(super) fn read(file: &Path) -> Result<(Self, Vec<String>), String> {
        let text = read_small(file, MOST)?;
        let text = std::str::from_utf8(&text).map_err(|error| error.to_string())?;
        Ok(Self::parse(text))
    }

    fn parse(text: &str) -> (Self, Vec<String>) {
        let (mut listed, mut wrong) = (HashMap::new(), Vec::new());
        let mut more = 0_usize;
        let mut tell = |number: u64, why: &str| {
            if wrong.len() < NAMED {
                wrong.push(format!("{number}: {why}"));
            } else {
                more = more.saturating_add(1);
            }
        };
        for (number, line) in (1_u64..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match of(line) {
                Err(why) => tell(number, &why),
                Ok((digest, subject)) => match listed.entry(digest) {
                    Entry::Vacant(free) => drop(free.insert(Some(subject))),
                    Entry::Occupied(mut known) => {
                        known.insert(None);
                        tell(number, "the token is listed twice, and nobody's");
                    }
                },
            }
        }
        if more > 0 {
            wrong.push(format!(" and {more} lines more"));
        }
        let listed = listed.into_iter();
        let listed = listed.filter_map(|(digest, subject)| Some((digest, subject?)));
        (Self(listed.collect()), wrong)
    }

    /// Whose the token with this digest is.
    pub(super) fn subject(&self, digest: &[u8; 32]) -> Option<&SubjectId> {
        self.0.get(digest)
    }
}

fn of(line: &str) -> Result<([u8; 32], SubjectId), String> {
    let (digest, subject) = line
        .strip_prefix("sha256:")
        .and_then(|line| line.split_once(char::is_whitespace))
        .and_then(|(digest, subject)| Some((unhex(digest)?, subject.trim())))
        .ok_or("is no `sha256:DIGEST SUBJECT`")?;
    let subject = SubjectId::parse(subject).map_err(|error| error.to_string())?;
    Ok((digest, subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_wrong_lists_nothing_and_the_others_count() {
        let digest = |of: &str| of.repeat(32);
        let (one, two, three) = (digest("a1"), digest("b2"), digest("c3"));
        let (listed, wrong) = Listed::parse(&format!(
            "# who asks\n\nsha256:{one} agent\r\n  sha256:{two}\tother  \nsha256:{three} x\nagent\nsha256:a1 agent\nsha256:{three} y\nsha256:{one}\nsha256:{three} z\n"
        ));
        let subject = |digest: &str| {
            let digest = unhex(digest).unwrap();
            listed.subject(&digest).map(SubjectId::as_str)
        };
        assert_eq!(subject(&one), Some("agent"));
        assert_eq!(subject(&two), Some("other"));
        assert_eq!(subject(&three), None, "of two");
        let numbers = wrong.iter().map(|why| why.split_once(':').unwrap().0);
        assert_eq!(numbers.collect::<Vec<_>>(), ["6", "7", "8", "9", "10"]);
    }
}
