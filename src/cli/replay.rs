//! `exeat replay`: what a new bundle would newly deny or allow, of what was decided before.
//!
//! Every question is asked again, now, of the bundle. The decision log leaves out what callers said
//! beside names, unless a setting lists it; a question whose answer may hang on that, or on what a
//! registry alone knows, is not answered a second time: it cannot be told.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::{
    domain::{Decision, Now, Question, Reason, Timestamp},
    engine::{Snapshot, as_seen},
    manifest::Bundle,
    runtime::clock::Clock,
};

use super::{
    against::{Against, elsewhere},
    args::{Output, Replay},
    lint::invalid,
    logged::{Flaws, Made, each, since},
    review::plain,
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
};

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    NewlyDenied,
    NewlyAllowed,
    /// Allowed before and now, but by an exception only now.
    NeedsException,
    /// Allowed before and now, but by an exception only before.
    NeedsNoException,
    Untold,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::NewlyDenied => "newly denied",
            Self::NewlyAllowed => "newly allowed",
            Self::NeedsException => "needs an exception",
            Self::NeedsNoException => "needs no exception",
            Self::Untold => "cannot be told",
        }
    }

    fn mark(self) -> String {
        match self {
            Self::NewlyDenied | Self::NeedsException => styled(BAD, "✗"),
            Self::NewlyAllowed | Self::NeedsNoException => styled(GOOD, "✓"),
            Self::Untold => styled(DIM, "?"),
        }
    }
}

/// Decisions that changed alike.
#[derive(Debug)]
struct Alike {
    count: u64,
    first: String,
}

/// Who, what, and why now: of decisions that changed alike.
type Group = (Change, String, String, String);

#[derive(Debug, Default)]
struct Replayed {
    decisions: u64,
    same: u64,
    flaws: Flaws,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    groups: BTreeMap<Group, Alike>,
}

pub(super) fn replay(args: &Replay, clock: &Clock, screen: &mut Screen) -> Result<Exit, Exit> {
    let now = match &args.now {
        Some(text) => Now::exactly(
            Timestamp::parse(text).map_err(|error| Exit::Usage(format!("--now: {error}")))?,
        ),
        None => clock.now(),
    };
    let since = since(&args.since, now.latest)?;
    let snapshot = Bundle::read(&args.against)
        .and_then(|bundle| bundle.snapshot(1))
        .map_err(|problems| invalid(&problems))?;
    let against = Against::new(snapshot, now);
    let mut replayed = Replayed::default();
    replayed.flaws = each(&args.log, since, |made, time, asked| {
        let asked = as_seen(asked, &against.snapshot);
        replayed.add(made, time, change(&against, made, &asked));
    })?;
    tell(args, &replayed, &against.snapshot, screen)?;
    Ok(if replayed.groups.is_empty() && replayed.flaws.torn == 0 {
        Exit::Done
    } else {
        Exit::No
    })
}

impl Replayed {
    fn add(&mut self, made: &Made, time: Timestamp, changed: Option<(Change, String)>) {
        self.decisions = self.decisions.saturating_add(1);
        self.from = Some(self.from.map_or(time, |from| from.min(time)));
        self.until = Some(self.until.map_or(time, |until| until.max(time)));
        let Some((change, why)) = changed else {
            self.same = self.same.saturating_add(1);
            return;
        };
        let what = format!("{} {}", made.action, made.resource);
        let alike = self
            .groups
            .entry((change, made.subject.clone(), what, why))
            .or_insert_with(|| Alike {
                count: 0,
                first: made.id.clone(),
            });
        alike.count = alike.count.saturating_add(1);
    }
}

/// How a decision would be another if it were asked of the bundle now, and why; nothing if it would
/// not.
fn change(against: &Against, made: &Made, asked: &Question) -> Option<(Change, String)> {
    let untold = |why: String| Some((Change::Untold, why));
    let new = match against.decides(made, asked) {
        Ok(new) => new,
        Err(why) => return untold(why),
    };
    let snapshot = &against.snapshot;
    let change = match (made.outcome.as_str(), new.outcome.name()) {
        (before, now) if before == now => return None,
        (_, "deny") => Change::NewlyDenied,
        ("deny", _) => Change::NewlyAllowed,
        ("allow", _) => Change::NeedsException,
        (_, _) => Change::NeedsNoException,
    };
    if let (Change::NewlyAllowed, Some(reason)) = (change, elsewhere(made)) {
        return untold(format!("it was {reason}, of which the bundle says nothing"));
    }
    let relied = made.exceptions.iter().filter(|it| it.effect == "RELIED_ON");
    let mut lacking = relied.filter(|it| snapshot.exception(&it.id).is_none());
    if let (Change::NewlyDenied, Some(exception)) = (change, lacking.next()) {
        return untold(format!("{} is not in the bundle", exception.id));
    }
    if change == Change::NewlyDenied
        && new.reasons.contains(&Reason::ControlError)
        && snapshot.resource(asked).is_none()
    {
        return untold(format!(
            "{} is not in the bundle, and a control cannot tell without it",
            made.resource
        ));
    }
    Some((change, ground(&new)))
}

/// Why a decision is what it is, in codes and ids.
fn ground(decision: &Decision) -> String {
    let reasons = decision
        .reasons
        .iter()
        .map(|reason| reason.name().to_owned());
    let failed = decision.failed.iter().filter(|failed| failed.blocks());
    let controls = failed.map(|failed| failed.control.id.to_string());
    let exceptions = decision.relied_on().map(|it| it.id.to_string());
    let words: Vec<_> = reasons.chain(controls).chain(exceptions).collect();
    words.join(" ")
}

fn tell(
    args: &Replay,
    replayed: &Replayed,
    snapshot: &Snapshot,
    screen: &mut Screen,
) -> Result<(), Exit> {
    let written = |time: Option<Timestamp>| time.map(|time| time.to_string());
    match args.output {
        Output::Json => {
            let groups = replayed.groups.iter();
            let changes = groups.map(|((change, subject, what, why), alike)| {
                json!({"change": change.name(), "subject": subject, "what": what, "why": why, "count": alike.count, "first": alike.first})
            });
            let told = json!({
                "apiVersion": "exeat/v1",
                "decisions": replayed.decisions,
                "same": replayed.same,
                "missed": replayed.flaws.missed,
                "unreadable": replayed.flaws.torn,
                "from": written(replayed.from),
                "until": written(replayed.until),
                "against": snapshot.digest().to_string(),
                "changes": changes.collect::<Json>(),
            });
            screen.say(&told.to_string())?;
        }
        Output::Table => {
            let span = match (written(replayed.from), written(replayed.until)) {
                (Some(from), Some(until)) => format!(" from {from} to {until}"),
                (None, _) | (_, None) => String::new(),
            };
            screen.say(&format!(
                "{} decisions{span}, against {}",
                replayed.decisions,
                args.against.display()
            ))?;
            if replayed.flaws.missed > 0 {
                let missed = format!("{} were not logged", replayed.flaws.missed);
                screen.say(&styled(DIM, &missed))?;
            }
            if let Some(place) = &replayed.flaws.first_torn {
                let torn = format!(
                    "{} lines cannot be read, the first is {place}",
                    replayed.flaws.torn
                );
                screen.say(&styled(BAD, &torn))?;
            }
            screen.say(&format!("{} stay as they are", replayed.same))?;
            for ((change, subject, what, why), alike) in &replayed.groups {
                // What a caller said was logged as it came.
                let [subject, what, why] = [subject, what, why].map(|text| plain(text));
                screen.say(&format!(
                    "{} {:>6} {}  {subject}  {what}  {why}  {}",
                    change.mark(),
                    alike.count,
                    change.name(),
                    styled(DIM, &format!("first {}", plain(&alike.first)))
                ))?;
            }
        }
        Output::Junit => return Err(Exit::Usage("junit is for `exeat test`".into())),
    }
    Ok(())
}
