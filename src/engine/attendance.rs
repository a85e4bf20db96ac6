//! What the registry owes its sidecars: leases that may still run, and who has taken what in.
//!
//! Pure: elapsed time by the registry's own clock is an argument (reliability §4.4).

use std::collections::BTreeMap;

use crate::domain::{Span, Tier, TierRules};

use super::{
    follow::DRIFT,
    planted::{Bug, planted},
};

/// Longest a decision takes (reliability §2).
const DECISION: Span = Span::from_secs(1);
/// Margin.
const MARGIN: Span = Span::from_secs(2);

/// The longest after an answer is sent that an exception may still be honoured on its strength:
/// the lease by a clock that may be slow, one decision and a margin (S3).
pub fn bound(lease: Span) -> Span {
    let drift = (lease.micros() / 1_000_000).saturating_mul(DRIFT);
    let total = [drift, DECISION.micros(), MARGIN.micros()]
        .into_iter()
        .fold(lease.micros(), i64::saturating_add);
    Span::from_micros(total)
}

/// One sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Attendant {
    /// The last answer to a nonce, by the registry's elapsed time.
    answered: Span,
    /// Removals it has taken in for good.
    drained: u64,
    /// Whether it ever came; else it holds nothing, unless the store forgot.
    came: bool,
}

/// Who attends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attendance {
    attendants: BTreeMap<Box<str>, Attendant>,
    began: Span,
}

/// How far a removal has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Sidecars that have taken it in.
    pub acknowledged: Vec<Box<str>>,
    /// Those that have not, with the elapsed time at which their leases have run out.
    pub outstanding: Vec<(Box<str>, Span)>,
    /// How many have not, and their leases have run out.
    pub lapsed: usize,
    /// The elapsed time after which nobody can honour what was removed; none if no lease bounds
    /// it and somebody has not taken it in.
    pub effective: Option<Span>,
}

impl Receipt {
    /// Whether nobody can honour what was removed, at `elapsed`.
    pub fn complete(&self, elapsed: Span) -> bool {
        self.effective.is_some_and(|effective| elapsed >= effective)
    }
}

impl Attendance {
    /// Nobody yet, at the start of the process.
    pub fn new(began: Span) -> Self {
        Self {
            attendants: BTreeMap::new(),
            began,
        }
    }

    /// Takes `sidecar` to have been answered right before the start: what earlier processes
    /// promised is not known, so everybody who may follow counts until one lease has passed.
    /// Who is not known to have come is not waited for without end.
    pub fn expect(&mut self, sidecar: &str, came: bool) {
        if !planted(Bug::NoGrace) {
            let attendant = Attendant {
                answered: self.began,
                drained: 0,
                came,
            };
            self.attendants.insert(sidecar.into(), attendant);
        }
    }

    /// Notes that a nonce of `sidecar` came at `elapsed` and is to be answered. To be called
    /// before the head is read: a removal that the answer does not know of is then younger.
    pub fn answer(&mut self, sidecar: &str, elapsed: Span) {
        let attendant = self.attendants.entry(sidecar.into()).or_insert(Attendant {
            answered: elapsed,
            drained: 0,
            came: true,
        });
        attendant.answered = attendant.answered.max(elapsed);
        attendant.came = true;
    }

    /// Notes that `sidecar` has taken in the removals up to `sequence`. A sidecar that begins
    /// anew says less than before, and is believed.
    pub fn drained(&mut self, sidecar: &str, sequence: u64) {
        if let Some(attendant) = self.attendants.get_mut(sidecar) {
            attendant.drained = sequence;
        }
    }

    /// Counts what was answered to `sidecar` as owed to another of that name, which takes in nothing
    /// any more.
    pub fn set_apart(&mut self, sidecar: &str) {
        let Some(attendant) = self.attendants.remove(sidecar) else {
            return;
        };
        let apart = Attendant {
            drained: 0,
            ..attendant
        };
        self.attendants
            .insert(format!("{sidecar} (fenced)").into(), apart);
    }

    /// Whether `sidecar` is known to have come.
    pub fn came(&self, sidecar: &str) -> bool {
        self.attendants.get(sidecar).is_some_and(|known| known.came)
    }

    /// When `sidecar` was last answered, and which removals it has taken in.
    pub fn of(&self, sidecar: &str) -> Option<(Span, u64)> {
        let Attendant {
            answered, drained, ..
        } = self.attendants.get(sidecar)?;
        Some((*answered, *drained))
    }

    /// Everybody who was ever answered by this process.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attendants.keys().map(AsRef::as_ref)
    }

    /// How far the removal `sequence` has come. What was removed is honoured for `lease` at the
    /// most; none if no lease bounds it, as with calls that need no exception.
    pub fn receipt(&self, sequence: u64, lease: Option<Span>, elapsed: Span) -> Receipt {
        let after =
            |at: Span, lease| Span::from_micros(at.micros().saturating_add(bound(lease).micros()));
        let mut receipt = Receipt {
            acknowledged: Vec::new(),
            outstanding: Vec::new(),
            lapsed: 0,
            effective: Some(elapsed),
        };
        for (name, attendant) in &self.attendants {
            if attendant.drained >= sequence {
                receipt.acknowledged.push(name.clone());
                continue;
            }
            if lease.is_none() && !attendant.came {
                continue;
            }
            let until = lease.map(|lease| after(attendant.answered, lease));
            if until.is_none_or(|until| until > elapsed) {
                receipt.effective = match (receipt.effective, until) {
                    (Some(effective), Some(until)) => Some(effective.max(until)),
                    (_, None) | (None, _) => None,
                };
                receipt
                    .outstanding
                    .push((name.clone(), until.unwrap_or(Span::MAX)));
            } else {
                receipt.lapsed = receipt.lapsed.saturating_add(1);
            }
        }
        receipt
    }
}

/// The longest lease any rules permit.
pub fn longest_lease() -> Span {
    Tier::ALL
        .into_iter()
        .map(|tier| {
            let rules = TierRules::standard(tier);
            rules.lease_ttl.max(if tier == Tier::Low {
                rules.max_staleness
            } else {
                Span::ZERO
            })
        })
        .max()
        .unwrap_or(Span::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_counts_those_who_took_it_in_and_waits_out_the_others() {
        let at = Span::from_secs;
        let mut attendance = Attendance::new(at(0));
        attendance.answer("a", at(1_000));
        attendance.answer("b", at(990));
        attendance.drained("a", 7);
        let receipt = attendance.receipt(7, Some(at(60)), at(1_001));
        assert_eq!(receipt.acknowledged, ["a".into()]);
        let until = Span::from_micros(at(990).micros() + bound(at(60)).micros());
        assert_eq!(receipt.outstanding, [("b".into(), until)]);
        assert!(!receipt.complete(at(1_001)) && receipt.complete(until));
        let unbounded = attendance.receipt(7, None, at(9_999));
        assert_eq!(
            (unbounded.outstanding.len(), unbounded.effective),
            (1, None)
        );
        let later = attendance.receipt(7, Some(at(60)), until);
        assert!(later.outstanding.is_empty() && later.complete(until));
    }

    #[test]
    fn what_a_fenced_sidecar_is_owed_is_waited_out() {
        let at = Span::from_secs;
        let mut attendance = Attendance::new(at(0));
        attendance.answer("a", at(100));
        attendance.set_apart("a");
        attendance.answer("a", at(101));
        attendance.drained("a", 7);
        let receipt = attendance.receipt(7, Some(at(60)), at(102));
        assert_eq!(receipt.acknowledged, ["a".into()]);
        assert_eq!(receipt.outstanding.len(), 1, "the other of that name");
        assert!(!receipt.complete(at(102)) && receipt.complete(at(164)));
    }

    #[test]
    fn after_a_restart_one_lease_is_waited_out() {
        let at = Span::from_secs;
        let mut attendance = Attendance::new(at(50));
        attendance.expect("a", false);
        let receipt = attendance.receipt(1, Some(at(60)), at(51));
        assert!(!receipt.complete(at(110)) && receipt.complete(at(114)));
        // What no lease bounds is waited for only by who is known to have come.
        let frozen = |attendance: &Attendance| attendance.receipt(1, None, at(51)).complete(at(51));
        assert!(frozen(&attendance));
        attendance.expect("b", true);
        assert!(!frozen(&attendance));
        attendance.drained("b", 1);
        assert!(frozen(&attendance));
        attendance.answer("a", at(51));
        assert!(!frozen(&attendance));
        let nobody = Attendance::new(at(50)).receipt(1, Some(at(60)), at(51));
        assert!(nobody.complete(at(51)), "nobody may follow");
    }
}
