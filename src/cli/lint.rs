//! `exeat lint`, `exeat schema` and `exeat fingerprint`.

use crate::{
    domain::{Effect, ExceptionState, Kind, Now, Selector, Timestamp},
    engine::{Snapshot, Standing, effective},
    manifest::{Bundle, Problem, schema as schema_of_kind, schema_of},
    runtime::clock::Clock,
};

use super::{
    args::{Fingerprint, Lint, Schema},
    run::Exit,
    screen::{BAD, GOOD, Screen, styled},
    suite::Suite,
};

pub(super) fn invalid(problems: &[Problem]) -> Exit {
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Exit::Invalid(format!(
        "{} problem{}\n{}",
        problems.len(),
        if problems.len() == 1 { "" } else { "s" },
        shown.join("\n")
    ))
}

pub(super) fn lint(args: &Lint, clock: &Clock, screen: &mut Screen) -> Result<Exit, Exit> {
    let now = match &args.now {
        Some(text) => Now::exactly(
            Timestamp::parse(text).map_err(|error| Exit::Usage(format!("--now: {error}")))?,
        ),
        None => clock.now(),
    };
    let bundle = Bundle::read(&args.folder).map_err(|problems| invalid(&problems))?;
    let snapshot = bundle.snapshot(1).map_err(|problems| invalid(&problems))?;
    let findings = findings(&snapshot, now);
    for finding in &findings {
        screen.say(&format!("{} {finding}", styled(BAD, "!")))?;
    }
    let (controls, subjects, exceptions) = snapshot.counts();
    let mark = if findings.is_empty() {
        styled(GOOD, "✓")
    } else {
        styled(BAD, "✗")
    };
    screen.say(&format!(
        "{mark} {controls} controls, {subjects} subjects, {exceptions} exceptions; {} findings; {}",
        findings.len(),
        snapshot.digest()
    ))?;
    Ok(if findings.is_empty() {
        Exit::Done
    } else {
        Exit::No
    })
}

/// What is valid and yet most likely not meant.
fn findings(snapshot: &Snapshot, now: Now) -> Vec<String> {
    let mut found = Vec::new();
    let mut exceptions: Vec<_> = snapshot
        .exceptions()
        .filter(|exception| exception.state == ExceptionState::Approved)
        .collect();
    exceptions.sort_by(|a, b| a.id.cmp(&b.id));
    for exception in exceptions {
        let id = &exception.id;
        let Selector::Ids(ids) = &exception.scope.subjects else {
            continue;
        };
        for subject_id in ids {
            let Some(subject) = snapshot.subject(subject_id.as_str()) else {
                found.push(format!(
                    "{id}: names subject `{subject_id}`, which is not in the bundle"
                ));
                continue;
            };
            let rules = snapshot.tier_within(exception.tier, subject.domain.as_ref());
            match effective(exception, rules, subject, &subject.fingerprint, now, Standing::default()) {
                Some(Effect::Expired) => found.push(format!("{id}: ended {}; remove it, or set state to EXPIRED", exception.expire_time)),
                Some(Effect::RevalidationOverdue) => found.push(format!("{id}: was to be revalidated by {}", exception.next_revalidation_time.map(|time| time.to_string()).unwrap_or_default())),
                Some(Effect::EvidenceExpired) => found.push(format!("{id}: required evidence has expired")),
                Some(Effect::ContextChanged(facet)) => found.push(format!("{id}: facet `{facet}` of `{subject_id}` is no longer what it was bound to; see `exeat fingerprint {subject_id}`")),
                Some(_) | None => {}
            }
        }
    }
    for control in snapshot.controls() {
        if !control.state.in_force() {
            found.push(format!("{}: is not in force", control.id));
        } else if control.remediation.is_empty() {
            found.push(format!(
                "{}: has no remediation; a denied caller will not know what to do",
                control.id
            ));
        }
    }
    if !snapshot
        .controls()
        .any(|control| control.runtime && control.state.in_force())
    {
        found.push(
            "no control is held against questions: everything will be denied with NO_CONTROL"
                .into(),
        );
    }
    found
}

pub(super) fn schema(args: &Schema, screen: &mut Screen) -> Result<Exit, Exit> {
    // A case is asked for with a request.
    let asked = args.kind.eq_ignore_ascii_case("request");
    let kind = Kind::parse(&args.kind).filter(|kind| {
        !matches!(
            kind,
            Kind::Case | Kind::Incident | Kind::Proposal | Kind::Finding
        )
    });
    let schema = match kind.or_else(|| asked.then_some(Kind::Case)) {
        Some(kind) => schema_of_kind(kind),
        None if args.kind.eq_ignore_ascii_case("test") => schema_of::<Suite>(),
        None => {
            let names: Vec<_> = Kind::APPLIED.iter().map(|kind| kind.name()).collect();
            return Err(Exit::Usage(format!(
                "`{}` is not a kind; use one of {}, Request or Test",
                args.kind,
                names.join(", ")
            )));
        }
    };
    screen.say(
        &serde_json::to_string_pretty(&schema)
            .map_err(|error| Exit::Unexpected(error.to_string()))?,
    )?;
    Ok(Exit::Done)
}

pub(super) fn fingerprint(args: &Fingerprint, screen: &mut Screen) -> Result<Exit, Exit> {
    let snapshot = Bundle::read(&args.bundle)
        .and_then(|bundle| bundle.snapshot(1))
        .map_err(|problems| invalid(&problems))?;
    let subject = snapshot.subject(&args.subject).ok_or_else(|| {
        Exit::Usage(format!(
            "there is no subject `{}` in {}",
            args.subject,
            args.bundle.display()
        ))
    })?;
    for (facet, digest) in subject.fingerprint.iter() {
        screen.say(&format!("{:<18} {digest}", facet.name()))?;
    }
    screen.say(&format!("{:<18} {}", "combined", subject.combined))?;
    Ok(Exit::Done)
}
