//! Usage records, as `exeat audit usage` writes them, held against what the ledger says of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, Read as _},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    Broken, Verified,
    note::hex,
    tree::{Sum, sum},
};

/// What the first line says.
pub(super) const FORMAT: &str = "exeat-usage/v1";
/// Longest line, in bytes.
const LONGEST: u64 = 512 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: Option<String>,
    sidecar: Option<String>,
    spool: Option<String>,
    /// The number of the record before the first.
    after: Option<u64>,
    /// The chain up to there, after records that never came.
    before: Option<String>,
    records: Option<Vec<String>>,
}

/// What usage records that hold come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many records there are.
    pub records: u64,
    /// Of how many spools.
    pub spools: u64,
    /// How many are numbered and never came.
    pub missing: u64,
    /// How many came after the last that the ledger speaks of.
    pub unsaid: u64,
}

type Key = (String, String);

/// What the ledger says of a spool.
#[derive(Debug, Default)]
struct Claims {
    /// The chain at some of its records.
    chain: BTreeMap<u64, Sum>,
    /// Records that never came, by the first of them: the last, and the chain after it.
    missing: BTreeMap<u64, (u64, Sum)>,
    /// The last record it speaks of.
    last: u64,
}

/// What the ledger says of spools.
fn claims(ledger: &Verified) -> Result<BTreeMap<Key, Claims>, String> {
    let mut claims: BTreeMap<Key, Claims> = BTreeMap::new();
    for line in &ledger.usage {
        let wrong = || format!("the ledger says `{line}` of usage records, which is nothing");
        let missing = line.strip_prefix("missing ");
        let mut words = missing.unwrap_or(line).rsplitn(4, ' ');
        let mut word = || words.next().ok_or_else(wrong);
        let (digest, range, spool, sidecar) = (word()?, word()?, word()?, word()?);
        let digest = digest.strip_prefix("sha256:").and_then(hex);
        let range = range.split_once('-');
        let range = range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let (digest, (first, last)): (Sum, (u64, u64)) = digest.zip(range).ok_or_else(wrong)?;
        let of = claims.entry((sidecar.to_owned(), spool.to_owned()));
        let of = of.or_default();
        if missing.is_some() {
            of.missing.insert(first, (last, digest));
        } else {
            of.chain.insert(last, digest);
            of.last = of.last.max(last);
        }
    }
    Ok(claims)
}

/// Reads usage records and checks that they are the ones that the ledger speaks of: none changed,
/// none left out, none put in before the last it speaks of.
///
/// # Errors
///
/// The first thing that does not hold.
pub fn hold(mut file: impl BufRead, ledger: &Verified) -> Result<Held, Broken> {
    let all = |what: String| Broken { line: 0, what };
    let mut claims = claims(ledger).map_err(all)?;
    let mut reached: BTreeMap<Key, (u64, Sum)> = BTreeMap::new();
    let mut ended: BTreeSet<Key> = BTreeSet::new();
    let mut present: Option<Key> = None;
    let mut held = Held::default();
    let (mut text, mut at) = (String::new(), 0_u64);
    loop {
        text.clear();
        at = at.saturating_add(1);
        let broken = |what: String| Broken { line: at, what };
        let read = file.by_ref().take(LONGEST).read_line(&mut text);
        if read.map_err(|error| broken(error.to_string()))? == 0 {
            break;
        }
        let line: Line = serde_json::from_str(&text)
            .map_err(|_| broken("is no line of usage records, or part of one".into()))?;
        if at == 1 {
            if line.format.as_deref() == Some(FORMAT) {
                continue;
            }
            return Err(broken(format!("does not begin with the format {FORMAT}")));
        }
        let (Some(sidecar), Some(spool), Some(after), Some(records)) =
            (line.sidecar, line.spool, line.after, line.records)
        else {
            return Err(broken("names no spool, or has no records".into()));
        };
        let key = (sidecar, spool);
        if present.as_ref() != Some(&key) {
            if ended.contains(&key) {
                return Err(broken("goes on with a spool that had ended".into()));
            }
            ended.extend(present.replace(key.clone()));
        }
        let (mut sequence, mut digest) = reached.get(&key).copied().unwrap_or_default();
        let before = line.before.as_deref();
        let said = claims.entry(key.clone()).or_default();
        if after != sequence {
            let begins: Option<Sum> = before.and_then(hex);
            let (true, Some(begins)) = (after > sequence, begins) else {
                return Err(broken(format!("does not follow on record {sequence}")));
            };
            // What came after the last that the ledger speaks of is not said yet.
            let first = sequence.saturating_add(1);
            let named = said.missing.get(&first) == Some(&(after, begins));
            if !named && sequence < said.last {
                return Err(broken(format!(
                    "records {first} to {after} are left out, and the ledger does not say that they never came"
                )));
            }
            held.missing = held.missing.saturating_add(after.saturating_sub(sequence));
            (sequence, digest) = (after, begins);
        }
        for record in &records {
            let bytes = STANDARD
                .decode(record)
                .map_err(|_| broken("holds a record that is no base64".into()))?;
            digest = sum(&[b"exeat/usage/v1\n", &digest, &bytes]);
            sequence = sequence.saturating_add(1);
            held.records = held.records.saturating_add(1);
            let Some(claim) = said.chain.remove(&sequence) else {
                continue;
            };
            if claim != digest {
                return Err(broken(format!(
                    "the records up to {sequence} are not those that the ledger speaks of"
                )));
            }
        }
        reached.insert(key, (sequence, digest));
    }
    for ((sidecar, _), left) in &claims {
        if let Some((last, _)) = left.chain.last_key_value() {
            return Err(all(format!(
                "the ledger speaks of records up to {last} of {sidecar}, and they are not here"
            )));
        }
    }
    held.spools = reached.len() as u64;
    held.unsaid = reached
        .iter()
        .map(|(key, (sequence, _))| {
            let said = claims.get(key).map_or(0, |said| said.last);
            sequence.saturating_sub(said)
        })
        .fold(0, u64::saturating_add);
    Ok(held)
}
