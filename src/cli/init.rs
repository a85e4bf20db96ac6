//! `exeat init`: a folder to begin with. Its times are filled in as it is written.

use std::{fmt::Write as _, fs, path::Path};

use crate::{
    domain::{Invalid, Kind, Span, Timestamp},
    manifest::{Bundle, schema, schema_of},
    runtime::clock::Clock,
};

use super::{
    args::Init,
    run::Exit,
    screen::{GOOD, Screen, styled},
    suite::{Coverage, Outcome, Suite, World},
};

const OWNER: &str = include_str!("../../examples/policy/controls/exg-own-01.yaml");
const PURPOSE: &str = include_str!("../../examples/policy/controls/exg-pur-01.yaml");
const PII: &str = include_str!("templates/acme-pii-01.yaml");
const AGENTS: &str = include_str!("templates/agents.yaml");
const PEOPLE: &str = include_str!("templates/people.yaml");
const REQUEST: &str = include_str!("templates/export_request.yaml");
const EXCEPTION: &str = include_str!("templates/exception.yaml");
const TESTS: &str = include_str!("templates/agents_test.yaml");
const SETTINGS: &str = include_str!("templates/exeat.yaml");

/// The files of a new folder; with `exception` also one that is in force.
pub(super) fn files(
    now: Timestamp,
    exception: bool,
) -> Result<Vec<(&'static str, String)>, Invalid> {
    // Whole seconds read better.
    let now = Timestamp::from_micros(now.micros().div_euclid(1_000_000).saturating_mul(1_000_000));
    let agents = filled(AGENTS, now, "")?;
    let mut files = vec![
        ("controls/acme-pii-01.yaml", PII.to_owned()),
        ("controls/exg-own-01.yaml", OWNER.to_owned()),
        ("controls/exg-pur-01.yaml", PURPOSE.to_owned()),
        ("agents/agents.yaml", agents.clone()),
        ("people/people.yaml", PEOPLE.to_owned()),
    ];
    if exception {
        files.push((
            "exceptions/ex-0001.yaml",
            filled(EXCEPTION, now, &bound(&agents)?)?,
        ));
    }
    Ok(files)
}

/// What is asked for in the story.
pub(super) fn request(now: Timestamp) -> Result<String, Invalid> {
    filled(REQUEST, now, "")
}

/// The fingerprints of the first agent, as lines of `bound_fingerprints`.
fn bound(agents: &str) -> Result<String, Invalid> {
    let snapshot = Bundle::read_beside(None, "agents.yaml", agents)
        .and_then(|bundle| bundle.snapshot(1))
        .map_err(|problems| {
            Invalid::new(
                "",
                problems.iter().map(ToString::to_string).collect::<String>(),
                "",
            )
        })?;
    let subject = snapshot
        .subject("billing-agent")
        .ok_or_else(|| Invalid::new("", "the template lacks its agent", ""))?;
    let mut lines = String::new();
    for (facet, digest) in subject.fingerprint.iter() {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "  {}: \"{digest}\"", facet.name());
    }
    Ok(lines.trim_end().to_owned())
}

/// The template with `@now`, `@now-30d` and the like as times.
fn filled(template: &str, now: Timestamp, bound: &str) -> Result<String, Invalid> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("@now") {
        let (before, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let after = after.strip_prefix("@now").unwrap_or_default();
        let end = after.find('"').unwrap_or(after.len());
        let (shift, tail) = after.split_at_checked(end).unwrap_or((after, ""));
        let shift = if shift.is_empty() {
            Span::ZERO
        } else {
            Span::parse(shift)?
        };
        out.push_str(&(now + shift).to_string());
        rest = tail;
    }
    out.push_str(rest);
    Ok(out.replace("@bound(billing-agent)", bound))
}

pub(super) fn write(folder: &Path, files: &[(&str, String)]) -> std::io::Result<()> {
    for (name, content) in files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // Written aside and moved into place: a reader sees all of a file or nothing.
        let aside = path.with_extension("part");
        fs::write(&aside, content)?;
        fs::rename(&aside, &path)?;
    }
    Ok(())
}

pub(super) fn init(args: &Init, clock: &Clock, screen: &mut Screen) -> Result<Exit, Exit> {
    let folder = &args.folder;
    let shown = folder.display();
    let unexpected = |error: Invalid| Exit::Unexpected(error.to_string());
    let taken = |name: &str| folder.join(name).try_exists().unwrap_or(true);
    if let Some(name) = [
        "controls",
        "agents",
        "people",
        "exceptions",
        "requests",
        "tests",
        "exeat.yaml",
    ]
    .into_iter()
    .find(|name| taken(name))
    {
        return Err(Exit::Usage(format!(
            "{shown}/{name} is already there; choose an empty folder, such as `exeat init my-agents`"
        )));
    }
    let now = clock.now().latest;
    let mut files = files(now, true).map_err(unexpected)?;
    let whole =
        Timestamp::from_micros(now.micros().div_euclid(1_000_000).saturating_mul(1_000_000));
    files.push((
        "tests/agents_test.yaml",
        filled(TESTS, whole, "").map_err(unexpected)?,
    ));
    files.push((
        "requests/export_request.yaml",
        filled(REQUEST, whole, "").map_err(unexpected)?,
    ));
    files.push(("exeat.yaml", SETTINGS.to_owned()));
    for (name, kind) in [
        (".exeat/schema/control.v1.json", Kind::Control),
        (".exeat/schema/subject.v1.json", Kind::Subject),
        (".exeat/schema/exception.v1.json", Kind::Exception),
        (".exeat/schema/tierpolicy.v1.json", Kind::TierPolicy),
        (".exeat/schema/domain.v1.json", Kind::Domain),
        (".exeat/schema/person.v1.json", Kind::Person),
        (".exeat/schema/group.v1.json", Kind::Group),
        (".exeat/schema/request.v1.json", Kind::Case),
    ] {
        files.push((name, format!("{:#}\n", schema(kind))));
    }
    files.push((
        ".exeat/schema/test.v1.json",
        format!("{:#}\n", schema_of::<Suite>()),
    ));
    write(folder, &files).map_err(|error| Exit::Unexpected(format!("{shown}: {error}")))?;
    screen.say(&format!(" created   {shown}: controls/ agents/ people/ exceptions/ requests/ tests/ exeat.yaml .exeat/schema/   (3 controls, 2 agents, 1 exception)"))?;
    let suite = World::read(&folder.join("tests/agents_test.yaml")).map_err(|problems| {
        Exit::Unexpected(problems.iter().map(ToString::to_string).collect::<String>())
    })?;
    let mut coverage = Coverage::default();
    let passed = suite
        .suite
        .tests
        .iter()
        .filter(|case| suite.run(case, &mut coverage) == Ok(Outcome::Passed))
        .count();
    screen.say(&format!(
        " tests     {} {passed} of {} pass",
        styled(GOOD, "✓"),
        suite.suite.tests.len()
    ))?;
    let enter = if folder.as_os_str() == "." {
        String::new()
    } else {
        format!("cd {shown} && ")
    };
    screen.hint(&format!(
        " next      {enter}exeat sidecar --config exeat.yaml"
    ));
    screen.hint("           exeat check billing-agent mcp://crm/search -c purpose=billing      (in another shell)");
    Ok(if passed == suite.suite.tests.len() {
        Exit::Done
    } else {
        Exit::No
    })
}
