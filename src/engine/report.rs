//! How well exceptions are governed: what GV.OV looks at (governance §9). Everything is worked out
//! from what there is and was; nothing is kept for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::domain::{
    Ballot, Case, ControlId, ControlState, Disposition, DomainId, ExceptionId, ExceptionState,
    Finding, Span, Subject, SubjectId, Tier, Timestamp, Verdict,
};

use super::{
    Snapshot,
    coverage::{Cases, YEAR},
    parties::scoped,
    rounds::{disposition, said_of},
    sprawl::{Density, MONTH, density, excepted, redesigns, share},
    terms::reached,
    triggers::noticed_after,
};

pub use super::{
    used::{Counted, Used},
    utilisation::{Touched, Utilisation, utilisation},
};

/// Approved faster than this after it was shown, nobody read it.
const HASTY: Span = Span::from_secs(30);
/// More than this of a year, in thousandths, and an exception is the rule.
const EVERGREEN: u32 = 500;
/// Most pairs that are told apart.
const PAIRS: usize = 50;

/// What a report is about; everything, where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Only what reaches into this domain, or what is below it.
    pub domain: Option<DomainId>,
    /// Only controls that answer to this framework.
    pub framework: Option<Box<str>>,
}

/// What there is to report on.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What is governed.
    pub snapshot: &'a Snapshot,
    /// Every case there is or was.
    pub cases: &'a Cases,
    /// What runs of controls found.
    pub findings: &'a [&'a Arc<Finding>],
    /// How exceptions were used, by id; nothing where nobody counts.
    pub used: Option<&'a BTreeMap<Box<str>, Counted>>,
}

/// How many, by a name.
pub type Counts = BTreeMap<Box<str>, usize>;

/// How well exceptions are governed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Exceptions by where they stand.
    pub standing: Counts,
    /// Those in force, by tier.
    pub by_tier: Counts,
    /// By domain they reach into.
    pub by_domain: Counts,
    /// By control.
    pub by_control: Counts,
    /// By owner.
    pub by_owner: Counts,
    /// By kind of deviation.
    pub by_type: Counts,
    /// Of each control that any is in force from, how many of those it applies to are excepted, and
    /// why it is to change, if it is.
    pub densities: Vec<(ControlId, Density, Option<String>)>,
    /// How much of the last year which subject was excepted from which control, in thousandths;
    /// most first, and no more than the first of them.
    pub shares: Vec<(ControlId, SubjectId, u32)>,
    /// How many such pairs there are.
    pub pairs: usize,
    /// How many of them for more than half of the year.
    pub evergreen: usize,
    /// Exceptions in force whose owner is with us no more.
    pub orphaned: Vec<ExceptionId>,
    /// How many requests of the last year say word for word what another says, and of how many.
    pub alike: (usize, usize),
    /// Exceptions in force by how many came before them.
    pub renewals: BTreeMap<u32, usize>,
    /// How requests of the last year were decided, by tier.
    pub decided: BTreeMap<Tier, Decided>,
    /// How people voted within the last year.
    pub votes: Votes,
    /// How long after a facet was observed to differ exceptions bound to it were suspended or
    /// revoked: of how many that can be told, half of them and nineteen of twenty no later.
    pub drift: (usize, Option<Span>, Option<Span>),
    /// Overrides that owe something, of these those that are overdue, and how many began within 30
    /// days.
    pub overrides: (usize, usize, usize),
    /// What fails.
    pub findings: Failing,
    /// Of how many pairs of a control and a subject the control passes, and of how many there are.
    pub compliance: (usize, usize),
    /// How those in force are used; nothing where nobody counts.
    pub used: Option<Used>,
}

/// How requests were decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Granted or denied by people.
    pub by_people: usize,
    /// Granted by nobody, within the budget.
    pub automatically: usize,
    /// By nobody, in time.
    pub lapsed: usize,
    /// How long people took: half of them no longer.
    pub median: Option<Span>,
    /// Nineteen of twenty no longer.
    pub p95: Option<Span>,
}

/// How people voted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Votes {
    /// Approvals.
    pub approvals: usize,
    /// Of these by somebody to whom the terms had not been shown, as far as is known.
    pub unseen: usize,
    /// Of these within half a minute of their being shown.
    pub hasty: usize,
    /// By how many persons.
    pub persons: usize,
    /// Most of one person within an hour (A9).
    pub busiest: usize,
    /// How much of it is few persons': from near 0 to 1, where it is one (Herfindahl).
    pub concentration: f64,
}

/// What fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    /// Findings that are not remedied.
    pub open: usize,
    /// Of these covered by an exception: they fail all the same.
    pub excepted: usize,
    /// Of these an exception is asked for.
    pub asked: usize,
    /// How many somebody is about to remedy.
    pub remediating: usize,
    /// How many of the open ones are overdue.
    pub overdue: usize,
    /// By severity.
    pub by_severity: Counts,
}

struct Lens<'a> {
    scene: Scene<'a>,
    about: &'a About,
    now: Timestamp,
}

impl Lens<'_> {
    /// Whether a domain is the one, or below it.
    fn within(&self, domain: Option<&DomainId>) -> bool {
        let Some(wanted) = &self.about.domain else {
            return true;
        };
        domain.is_some_and(|domain| {
            let mut above = self.scene.snapshot.domains_above(domain);
            domain == wanted || above.any(|above| above.id == *wanted)
        })
    }

    fn subject(&self, subject: &Subject) -> bool {
        self.within(subject.domain.as_ref())
    }

    fn answers(&self, control: &ControlId) -> bool {
        let Some(wanted) = &self.about.framework else {
            return true;
        };
        let known = self.scene.snapshot.control(control);
        known.is_some_and(|known| known.frameworks.iter().any(|of| of.framework == *wanted))
    }

    /// The domains of a case that are looked at; nothing if it is not looked at.
    fn domains(&self, case: &Case) -> Option<Vec<&DomainId>> {
        let subjects: Vec<_> = scoped(self.scene.snapshot, &case.request).collect();
        let named = case
            .request
            .controls
            .iter()
            .any(|control| self.answers(control));
        let all: BTreeSet<DomainId> = reached(&case.request, &subjects)
            .into_iter()
            .cloned()
            .collect();
        let known = self.scene.snapshot;
        // As the snapshot has them: they outlive the request.
        let all: Vec<_> = all
            .iter()
            .filter_map(|id| known.domains_above(id).next())
            .map(|domain| &domain.id)
            .collect();
        let mine: Vec<_> = all
            .iter()
            .copied()
            .filter(|id| self.within(Some(id)))
            .collect();
        let all_of_it = self.about.domain.is_none();
        (named && (all_of_it || !mine.is_empty())).then_some(mine)
    }
}

/// The report on a scene, as it is at `now`.
pub fn report(scene: Scene<'_>, about: &About, now: Timestamp) -> Report {
    let lens = Lens { scene, about, now };
    let mut report = Report {
        used: scene.used.map(|_| Used::default()),
        ..Report::default()
    };
    let mut took: BTreeMap<Tier, Vec<Span>> = BTreeMap::new();
    let mut words: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut votes: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    let mut drifts = Vec::new();
    for case in scene.cases.values() {
        let Some(domains) = lens.domains(case) else {
            continue;
        };
        lens.stands(case, &domains, &mut report);
        drifts.extend(noticed_after(case, scene.snapshot));
        let year = now + Span::from_micros(YEAR.micros().saturating_neg());
        if case.created > year {
            let said = &case.request.justification;
            let said = (&*said.business_need, &*said.risk_statement);
            let times = words.entry(said).or_default();
            *times = times.saturating_add(1);
            decided(case, &mut report, &mut took);
            voted(case, &mut report.votes, &mut votes);
        }
    }
    let many = |times: &&usize| **times > 1;
    report.alike = (words.values().filter(many).sum(), words.values().sum());
    if let Some(used) = &mut report.used {
        used.sort();
    }
    for (tier, mut spans) in took {
        let decided = report.decided.entry(tier).or_default();
        (decided.median, decided.p95) = (quantile(&mut spans, 50), quantile(&mut spans, 95));
    }
    let (half, most) = (quantile(&mut drifts, 50), quantile(&mut drifts, 95));
    report.drift = (drifts.len(), half, most);
    report.votes.persons = votes.len();
    report.votes.concentration = concentration(votes.values().map(Vec::len));
    report.votes.busiest = votes
        .values_mut()
        .map(|times| busiest(times))
        .max()
        .unwrap_or(0);
    lens.applied(&mut report);
    lens.sprawl(&mut report);
    lens.failing(&mut report);
    report
}

/// The span that so many of a hundred are no longer than.
pub fn quantile(spans: &mut [Span], percent: usize) -> Option<Span> {
    spans.sort_unstable();
    let place = spans.len().saturating_mul(percent).div_ceil(100);
    spans.get(place.saturating_sub(1)).copied()
}

/// Most of the times within any hour.
fn busiest(times: &mut [Timestamp]) -> usize {
    times.sort_unstable();
    let within = |(at, from): (usize, &Timestamp)| {
        let end = *from + Span::from_hours(1);
        times.partition_point(|time| *time < end).saturating_sub(at)
    };
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// The sum of the squares of everybody's share.
fn concentration(counts: impl Iterator<Item = usize> + Clone) -> f64 {
    let float = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    let all: f64 = counts.clone().map(float).sum();
    if all > 0.0 {
        counts.map(|count| (float(count) / all).powi(2)).sum()
    } else {
        0.0
    }
}

fn count(counts: &mut Counts, name: &str) {
    let times = counts.entry(name.into()).or_default();
    *times = times.saturating_add(1);
}

/// How a case was decided.
fn decided(case: &Case, report: &mut Report, took: &mut BTreeMap<Tier, Vec<Span>>) {
    let Some(terms) = &case.terms else {
        return;
    };
    let decided = report.decided.entry(terms.tier).or_default();
    let votes = || {
        case.votes
            .iter()
            .filter(|vote| vote.ballot == Ballot::Initial)
    };
    let settled = case.granted.is_some() || case.state == ExceptionState::Denied;
    if case.state == ExceptionState::Lapsed {
        decided.lapsed = decided.lapsed.saturating_add(1);
    } else if let (true, Some(last)) = (settled, votes().map(|vote| vote.time).max()) {
        decided.by_people = decided.by_people.saturating_add(1);
        let spans = took.entry(terms.tier).or_default();
        // Looking at it again puts its terms' time after the votes that granted it.
        let asked = if terms.submitted > last {
            case.created
        } else {
            terms.submitted
        };
        spans.push(last - asked.min(last));
    } else if case.granted.is_some() && case.debt.is_none() {
        decided.automatically = decided.automatically.saturating_add(1);
    }
}

/// How people voted about a case.
fn voted<'a>(case: &'a Case, votes: &mut Votes, by: &mut BTreeMap<&'a str, Vec<Timestamp>>) {
    for vote in case.votes.iter().filter(|vote| vote.approves) {
        votes.approvals = votes.approvals.saturating_add(1);
        match vote.viewed {
            None => votes.unseen = votes.unseen.saturating_add(1),
            Some(viewed) if vote.time - viewed.min(vote.time) < HASTY => {
                votes.hasty = votes.hasty.saturating_add(1);
            }
            Some(_) => {}
        }
        by.entry(&*vote.person).or_default().push(vote.time);
    }
}

impl Lens<'_> {
    /// Where a case stands.
    fn stands(&self, case: &Case, domains: &[&DomainId], report: &mut Report) {
        let now = self.now;
        let standing = match (case.state, case.granted) {
            (ExceptionState::Approved, Some(granted)) if now < granted.effective => "SCHEDULED",
            // The end is a time; that somebody noted it is not.
            (ExceptionState::Approved, Some(granted)) if now >= granted.expire => "EXPIRED",
            (ExceptionState::Approved, Some(_)) => "ACTIVE",
            (state, _) => state.name(),
        };
        count(&mut report.standing, standing);
        if let Some(debt) = &case.debt {
            let look = debt.looked.is_none().then_some(debt.look_due);
            let closure = debt.closure.is_none().then_some(debt.closure_due);
            let due = [look, closure].into_iter().flatten().min();
            let (open, overdue, lately) = &mut report.overrides;
            *open = open.saturating_add(usize::from(due.is_some()));
            *overdue = overdue.saturating_add(usize::from(due.is_some_and(|due| due <= now)));
            let month = now + Span::from_micros(MONTH.micros().saturating_neg());
            let began = case
                .granted
                .is_some_and(|granted| granted.effective > month);
            *lately = lately.saturating_add(usize::from(began));
        }
        // Those that are suspended too: that is what becomes of them when their owner leaves.
        let directory = self.scene.snapshot.directory();
        let live = case.granted.is_some() && !case.state.is_final();
        if live && standing != "EXPIRED" && !directory.is_active(&case.request.owner) {
            report.orphaned.push(case.id.clone());
            report.orphaned.sort();
        }
        if standing != "ACTIVE" {
            return;
        }
        let tier = case.terms.as_ref().map_or("", |terms| terms.tier.name());
        count(&mut report.by_tier, tier);
        for domain in domains {
            count(&mut report.by_domain, domain.as_str());
        }
        let controls = case.request.controls.iter();
        for control in controls.filter(|control| self.answers(control)) {
            count(&mut report.by_control, control.as_str());
        }
        count(&mut report.by_owner, case.request.owner.as_str());
        count(&mut report.by_type, case.request.deviation.name());
        let renewals = case.terms.as_ref().map_or(0, |terms| terms.renewal_count);
        let times = report.renewals.entry(renewals).or_default();
        *times = times.saturating_add(1);
        if let (Some(counts), Some(used), Some(granted)) =
            (self.scene.used, &mut report.used, case.granted)
        {
            let nothing = Counted::default();
            let counted = counts.get(case.id.as_str()).unwrap_or(&nothing);
            used.add(case, counted, now - granted.effective);
        }
    }

    /// Exceptions that an administrator applied, which nobody asked for.
    fn applied(&self, report: &mut Report) {
        for exception in self.scene.snapshot.exceptions() {
            let asked = self.scene.cases.get(exception.id.as_str()).is_some();
            let named = exception
                .controls
                .iter()
                .any(|control| self.answers(control));
            if asked || !named || !self.within(exception.domain.as_ref()) {
                continue;
            }
            let window = exception.effective_time..exception.expire_time;
            let stands = exception.state == ExceptionState::Approved
                && !self.scene.snapshot.takes_back(exception.id.as_str());
            if stands && window.contains(&self.now) {
                count(&mut report.standing, "APPLIED");
                count(&mut report.by_tier, exception.tier.name());
                let controls = exception.controls.iter();
                for control in controls.filter(|control| self.answers(control)) {
                    count(&mut report.by_control, control.as_str());
                }
                count(&mut report.by_owner, exception.owner.as_str());
                count(&mut report.by_type, exception.deviation.name());
            }
        }
    }

    /// Where exceptions are the rule.
    fn sprawl(&self, report: &mut Report) {
        let Scene {
            snapshot, cases, ..
        } = self.scene;
        let mut pairs = Vec::new();
        let mut why: BTreeMap<_, _> = redesigns(cases, snapshot, self.now).into_iter().collect();
        for (control, excepted) in excepted(cases, snapshot, |id| self.answers(id)) {
            let seen = |subject: &SubjectId| {
                let known = snapshot.subject(subject.as_str());
                known.is_some_and(|subject| self.subject(subject))
            };
            let of = density(&control, &excepted, snapshot, self.now, |one| {
                self.subject(one)
            });
            for (subject, stretches) in excepted.iter().filter(|(subject, _)| seen(subject)) {
                let share = share(stretches, self.now);
                if share > 0 {
                    pairs.push((control.clone(), subject.clone(), share));
                }
            }
            let mut why = why.remove(&control);
            // Whose exceptions those are is not told to whoever asks about one domain.
            if let Some(why) = why.as_mut().filter(|_| self.about.domain.is_some()) {
                "exceptions from it are the rule".clone_into(why);
            }
            if of.excepted > 0 || why.is_some() {
                report.densities.push((control, of, why));
            }
        }
        pairs.sort_by(|(a, x, most), (b, y, more)| more.cmp(most).then((a, x).cmp(&(b, y))));
        report.pairs = pairs.len();
        report.evergreen = pairs
            .iter()
            .filter(|(_, _, share)| *share > EVERGREEN)
            .count();
        pairs.truncate(PAIRS);
        report.shares = pairs;
    }

    /// What fails, and what does not.
    fn failing(&self, report: &mut Report) {
        let Scene {
            snapshot,
            cases,
            findings,
            used: _,
        } = self.scene;
        let pending = cases.values();
        let pending: Vec<_> = pending
            .filter(|case| case.state == ExceptionState::Pending)
            .collect();
        for finding in findings.iter().filter(|one| one.satisfied.is_none()) {
            let subject = snapshot.subject(finding.subject.as_str());
            let seen = subject.map_or(self.about.domain.is_none(), |one| self.subject(one));
            if !seen || !self.answers(&finding.control) {
                continue;
            }
            let failing = &mut report.findings;
            failing.open = failing.open.saturating_add(1);
            let overdue = finding.due <= self.now;
            failing.overdue = failing.overdue.saturating_add(usize::from(overdue));
            count(&mut failing.by_severity, finding.severity.name());
            match disposition(finding, snapshot, &pending, self.now) {
                Disposition::Approved(_) | Disposition::FalsePositive(_) => {
                    failing.excepted = failing.excepted.saturating_add(1);
                }
                Disposition::Requested(_) => failing.asked = failing.asked.saturating_add(1),
                Disposition::Remediating => {
                    failing.remediating = failing.remediating.saturating_add(1);
                }
                Disposition::None => {}
            }
        }
        for control in snapshot.controls() {
            let in_force = matches!(
                control.state,
                ControlState::Active | ControlState::Deprecated
            );
            if !in_force || !self.answers(&control.id) {
                continue;
            }
            for subject in snapshot.subjects().filter(|one| self.subject(one)) {
                let Some(said) = said_of(&control.id, subject, snapshot, self.now) else {
                    continue;
                };
                let (passes, all) = &mut report.compliance;
                *all = all.saturating_add(1);
                *passes = passes.saturating_add(usize::from(said == Verdict::Pass));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::busiest;
    use crate::domain::{Span, Timestamp};

    #[test]
    fn a9_the_busiest_hour_may_begin_with_any_vote() {
        let at = |minute: i64| Timestamp::from_micros(0) + Span::from_secs(minute * 60);
        let most = |minutes: &[i64]| {
            let mut times: Vec<_> = minutes.iter().copied().map(at).collect();
            busiest(&mut times)
        };
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[5]), 1);
        // The hour is half-open, and votes come in no order.
        assert_eq!(most(&[60, 0]), 1);
        assert_eq!(most(&[200, 0, 59, 61, 60, 118, 119]), 4);
    }
}
