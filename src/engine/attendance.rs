//! What the registry owes its sidecars: leases that may still run, and who has taken what in.
//!
//! Pure: elapsed time by the registry's own clock is an argument (reliability §4.4).

use std::collections::{BTreeMap, VecDeque};

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

/// Starts of one sidecar that are remembered.
pub const STARTS: usize = 64;

/// Made anew at each start of a sidecar.
pub type Start = [u8; 16];

/// How a start of a sidecar comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is the one that counts already.
    Known,
    /// It counts from now on; the one before, if there was one, is over.
    New,
    /// It counts from now on, and the one before may still run: that one is fenced.
    Fencing,
    /// Another has come since.
    Fenced,
}

/// One sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Attendant {
    /// The last answer to a nonce, by the registry's elapsed time; its start, before the first.
    answered: Span,
    /// Removals it has taken in for good.
    drained: u64,
    /// Whether it ever came; else it holds nothing, unless the store forgot.
    came: bool,
    /// Whether it is a start that another has taken the place of.
    apart: bool,
}

/// Who attends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attendance {
    attendants: BTreeMap<Box<str>, Attendant>,
    /// The starts of each, the one that counts last.
    starts: BTreeMap<Box<str>, VecDeque<Start>>,
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
            starts: BTreeMap::new(),
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
                apart: false,
            };
            self.attendants.insert(sidecar.into(), attendant);
        }
    }

    /// Takes in a start of `sidecar` that came to an earlier process, after those taken in before.
    /// If it was `fencing`, the one before it may still run, on what that process answered it.
    pub fn remember(&mut self, sidecar: &str, start: Start, fencing: bool) {
        let starts = self.starts.entry(sidecar.into()).or_default();
        starts.retain(|known| *known != start);
        starts.push_back(start);
        if fencing {
            self.expect_another(sidecar);
        }
    }

    /// Takes another start under the name of `sidecar` to have been answered right before the start:
    /// of what came to a registry since the copy of it that goes on, nothing is known.
    pub fn expect_another(&mut self, sidecar: &str) {
        if !planted(Bug::NoGrace) {
            let apart = Attendant {
                answered: self.began,
                drained: 0,
                came: true,
                apart: true,
            };
            self.attendants.insert(apart_name(sidecar), apart);
        }
    }

    /// Notes that a nonce of `sidecar` came at `elapsed` and is to be answered. To be called
    /// before the head is read: a removal that the answer does not know of is then younger.
    pub fn answer(&mut self, sidecar: &str, elapsed: Span) {
        let attendant = self.attendants.entry(sidecar.into()).or_insert(Attendant {
            answered: elapsed,
            drained: 0,
            came: true,
            apart: false,
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

    /// Takes in a start of `sidecar`, which proves those in `over` to have ended. Of two starts under
    /// one name the later counts: whether or not the other is connected, what was answered to it is
    /// waited out.
    pub fn enter(&mut self, sidecar: &str, start: Start, over: &[Start]) -> Entered {
        let starts = self.starts.entry(sidecar.into()).or_default();
        let replaces = match starts.back() {
            Some(last) if *last == start => return Entered::Known,
            Some(_) if starts.contains(&start) => return Entered::Fenced,
            Some(last) => !over.contains(last) && !planted(Bug::TwinForgotten),
            None => false,
        };
        if starts.len() >= STARTS {
            starts.pop_front();
        }
        starts.push_back(start);
        if replaces {
            self.set_apart(sidecar);
        }
        // It serves what its disk holds before its first nonce: what no lease bounds is waited for.
        let attendant = self.attendants.entry(sidecar.into()).or_insert(Attendant {
            answered: self.began,
            drained: 0,
            came: true,
            apart: false,
        });
        attendant.came = true;
        if replaces {
            Entered::Fencing
        } else {
            Entered::New
        }
    }

    /// Whether another start of `sidecar` has taken the place of this one.
    pub fn fenced(&self, sidecar: &str, start: &Start) -> bool {
        let starts = self.starts.get(sidecar);
        starts.is_some_and(|starts| starts.back() != Some(start) && starts.contains(start))
    }

    /// Counts what was answered to `sidecar` as owed to another of that name, which takes in nothing
    /// any more.
    fn set_apart(&mut self, sidecar: &str) {
        let Some(attendant) = self.attendants.remove(sidecar) else {
            return;
        };
        let apart = self
            .attendants
            .entry(apart_name(sidecar))
            .or_insert(attendant);
        // One that was set apart before may have been answered later than this one ever was.
        *apart = Attendant {
            answered: apart.answered.max(attendant.answered),
            drained: 0,
            came: true,
            apart: true,
        };
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

    /// Everybody who ever came to this process, or may have come to the one before.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let counts = self.attendants.iter().filter(|(_, of)| !of.apart);
        counts.map(|(name, _)| name.as_ref())
    }

    /// How far the removal `sequence` has come. What was removed is honoured for `lease` at the
    /// most; none if no lease bounds it, as with calls that need no exception. A start that was
    /// replaced is waited for as long as any lease, and then taken to be gone: nothing more is ever
    /// heard of it.
    pub fn receipt(&self, sequence: u64, lease: Option<Span>, elapsed: Span) -> Receipt {
        let mut receipt = Receipt {
            acknowledged: Vec::new(),
            outstanding: Vec::new(),
            lapsed: 0,
            effective: Some(elapsed),
        };
        for (name, attendant) in &self.attendants {
            let until = match attendant.owes(sequence, lease) {
                Owes::Nothing => {
                    receipt.acknowledged.push(name.clone());
                    continue;
                }
                Owes::Never => continue,
                Owes::Until(until) => until,
            };
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

    /// Whether, at `elapsed`, nobody can honour any more what the removal `sequence` took back; see
    /// [`receipt`](Self::receipt).
    pub fn is_over(&self, sequence: u64, lease: Option<Span>, elapsed: Span) -> bool {
        let mut attendants = self.attendants.values();
        attendants.all(|attendant| match attendant.owes(sequence, lease) {
            Owes::Nothing | Owes::Never => true,
            Owes::Until(until) => until.is_some_and(|until| until <= elapsed),
        })
    }
}

/// Until when a sidecar may honour what was removed.
enum Owes {
    /// It has taken it in.
    Nothing,
    /// It never came, and nothing of what was removed outlives a lease.
    Never,
    /// Until its lease is over; without end where none bounds it.
    Until(Option<Span>),
}

impl Attendant {
    fn owes(&self, sequence: u64, lease: Option<Span>) -> Owes {
        if self.drained >= sequence {
            return Owes::Nothing;
        }
        if lease.is_none() && !self.came {
            return Owes::Never;
        }
        let lease = lease.or_else(|| self.apart.then(longest_lease));
        let after = |lease| self.answered.micros().saturating_add(bound(lease).micros());
        Owes::Until(lease.map(|lease| Span::from_micros(after(lease))))
    }
}

/// How what is owed to another start of a sidecar is called.
fn apart_name(sidecar: &str) -> Box<str> {
    format!("{sidecar} (fenced)").into()
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
        let enter = |attendance: &mut Attendance, start: u8, over: &[u8]| {
            let over: Vec<_> = over.iter().map(|start| [*start; 16]).collect();
            attendance.enter("a", [start; 16], &over)
        };
        assert_eq!(enter(&mut attendance, 1, &[]), Entered::New);
        attendance.answer("a", at(100));
        assert_eq!(enter(&mut attendance, 1, &[]), Entered::Known);
        assert_eq!(enter(&mut attendance, 2, &[7]), Entered::Fencing);
        assert_eq!(enter(&mut attendance, 1, &[2]), Entered::Fenced);
        assert!(attendance.fenced("a", &[1; 16]) && !attendance.fenced("a", &[2; 16]));
        attendance.answer("a", at(101));
        attendance.drained("a", 7);
        let receipt = attendance.receipt(7, Some(at(60)), at(102));
        assert_eq!(receipt.acknowledged, ["a".into()]);
        assert_eq!(receipt.outstanding.len(), 1, "the other of that name");
        assert!(!receipt.complete(at(102)) && receipt.complete(at(164)));
        // Where no lease bounds it, it is waited out all the same.
        let frozen = |at| attendance.receipt(7, None, at).complete(at);
        assert!(!frozen(at(164)) && frozen(at(4_000)));
    }

    #[test]
    fn who_has_greeted_is_waited_for_before_its_first_nonce() {
        let at = Span::from_secs;
        let mut attendance = Attendance::new(at(0));
        attendance.enter("a", [1; 16], &[]);
        attendance.answer("a", at(100));
        attendance.drained("a", 7);
        // It serves what its disk holds, and a freeze has no lease.
        assert_eq!(attendance.enter("a", [2; 16], &[]), Entered::Fencing);
        let frozen = attendance.receipt(8, None, at(9_000));
        assert_eq!(frozen.outstanding, [("a".into(), Span::MAX)]);
        assert!(!attendance.is_over(8, None, at(9_000)));
        // What a lease bounds was never answered to it.
        assert!(
            attendance
                .receipt(8, Some(at(60)), at(9_000))
                .complete(at(9_000))
        );
        attendance.drained("a", 8);
        assert!(attendance.is_over(8, None, at(9_000)));
    }

    #[test]
    fn s3_what_the_first_of_three_starts_was_answered_is_waited_out() {
        let at = Span::from_secs;
        let mut attendance = Attendance::new(at(0));
        attendance.enter("a", [1; 16], &[]);
        attendance.answer("a", at(1_000));
        // The second dies before its first nonce.
        attendance.enter("a", [2; 16], &[]);
        attendance.enter("a", [3; 16], &[]);
        attendance.drained("a", 7);
        assert!(!attendance.is_over(7, Some(at(60)), at(1_003)));
        assert!(attendance.is_over(7, Some(at(60)), at(1_064)));
    }

    #[test]
    fn a_fenced_start_is_waited_out_after_a_restart_too() {
        let at = Span::from_secs;
        let mut attendance = Attendance::new(at(50));
        attendance.remember("a", [1; 16], false);
        attendance.remember("a", [2; 16], true);
        attendance.expect("a", true);
        assert!(attendance.fenced("a", &[1; 16]));
        attendance.drained("a", 7);
        let complete = |now| {
            let receipt = attendance.receipt(7, Some(at(60)), at(now));
            receipt.complete(at(now))
        };
        assert!(!complete(110) && complete(114));
    }

    #[test]
    fn a_start_that_is_over_is_not_waited_for() {
        let at = Span::from_secs;
        let mut attendance = Attendance::new(at(0));
        attendance.enter("a", [1; 16], &[]);
        attendance.answer("a", at(100));
        assert_eq!(attendance.enter("a", [2; 16], &[[1; 16]]), Entered::New);
        attendance.drained("a", 7);
        let receipt = attendance.receipt(7, Some(at(60)), at(102));
        assert!(receipt.complete(at(102)), "{receipt:?}");
        for start in 3..200 {
            attendance.enter("a", [start; 16], &[[start - 1; 16]]);
        }
        assert_eq!(attendance.starts["a"].len(), STARTS);
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
