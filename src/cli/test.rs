//! `exeat test`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    args::{Output, Test},
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
    suite::{Coverage, Outcome, World},
};

/// One case that was run.
struct Ran {
    file: String,
    line: usize,
    suite: String,
    name: String,
    outcome: Outcome,
}

pub(super) fn test(args: &Test, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut files = Vec::new();
    for path in &args.paths {
        gather(path, &mut files)
            .map_err(|error| Exit::Invalid(format!("{}: {error}", path.display())))?;
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(Exit::Invalid(
            "no suites found; they are called `*_test.yaml`".into(),
        ));
    }
    let mut ran = Vec::new();
    let mut uncovered = Vec::new();
    for file in &files {
        let shown = file.display().to_string();
        let world = World::read(file).map_err(|problems| {
            Exit::Invalid(
                problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n"),
            )
        })?;
        let mut coverage = Coverage::default();
        for (at, case) in world.suite.tests.iter().enumerate() {
            if args
                .run
                .as_ref()
                .is_some_and(|part| !case.name.contains(part.as_str()))
            {
                continue;
            }
            let line = world.line(at);
            let outcome = world.run(case, &mut coverage).map_err(|error| {
                Exit::Invalid(format!("{shown}:{line}: `{}`: {error}", case.name))
            })?;
            ran.push(Ran {
                file: shown.clone(),
                line,
                suite: world.suite.suite.clone(),
                name: case.name.clone(),
                outcome,
            });
        }
        uncovered.extend(gaps(&shown, &world, &coverage));
    }
    let count =
        |wanted: fn(&Outcome) -> bool| ran.iter().filter(|ran| wanted(&ran.outcome)).count();
    let passed = count(|outcome| *outcome == Outcome::Passed);
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    match args.output {
        Output::Table => table(&ran, screen)?,
        Output::Json => {
            let tests: Vec<_> = ran
                .iter()
                .map(|ran| match &ran.outcome {
                    Outcome::Passed => json!({"file": ran.file, "line": ran.line, "suite": ran.suite, "name": ran.name, "result": "passed"}),
                    Outcome::Skipped(why) => json!({"file": ran.file, "line": ran.line, "suite": ran.suite, "name": ran.name, "result": "skipped", "why": why}),
                    Outcome::Failed(why) => json!({"file": ran.file, "line": ran.line, "suite": ran.suite, "name": ran.name, "result": "failed", "why": why}),
                })
                .collect();
            let coverage = if args.coverage {
                json!(uncovered)
            } else {
                serde_json::Value::Null
            };
            screen.say(&json!({"apiVersion": "exeat/v1", "passed": passed, "failed": failed, "skipped": skipped, "tests": tests, "uncovered": coverage}).to_string())?;
        }
        Output::Junit => screen.say(&junit(&ran, failed, skipped))?,
    }
    if args.output == Output::Table {
        if args.coverage {
            for gap in &uncovered {
                screen.say(&format!("  {} {gap}", styled(DIM, "uncovered")))?;
            }
        }
        screen.say(&format!(
            "{passed} passed, {failed} failed, {skipped} skipped"
        ))?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::No })
}

fn gather(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.is_dir() {
        std::fs::metadata(path)?;
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') || name == "target" || name == "node_modules" {
            continue;
        }
        if path.is_dir() || name.ends_with("_test.yaml") {
            gather(&path, files)?;
        }
    }
    Ok(())
}

/// What the suite leaves untried: controls that never failed, dimensions that were never missed.
fn gaps(file: &str, world: &World, coverage: &Coverage) -> Vec<String> {
    let snapshot = world.snapshot();
    let mut gaps: Vec<String> = snapshot
        .controls()
        .filter(|control| {
            control.runtime
                && control.state.in_force()
                && !coverage.failed.contains(control.id.as_str())
        })
        .map(|control| format!("{file}: control {} never failed", control.id))
        .collect();
    let mut exceptions: Vec<_> = snapshot.exceptions().collect();
    exceptions.sort_by(|a, b| a.id.cmp(&b.id));
    for exception in exceptions {
        let unmissed = coverage.unmissed(exception);
        if !unmissed.is_empty() {
            gaps.push(format!(
                "{file}: exception {} was never out of scope by {}",
                exception.id,
                unmissed.join(", ")
            ));
        }
    }
    gaps
}

fn table(ran: &[Ran], screen: &mut Screen) -> std::io::Result<()> {
    let mut file = "";
    for ran in ran {
        if ran.file != file {
            file = &ran.file;
            screen.say(&format!("{file}  {}", styled(DIM, &ran.suite)))?;
        }
        match &ran.outcome {
            Outcome::Passed => screen.say(&format!("  {} {}", styled(GOOD, "✓"), ran.name))?,
            Outcome::Skipped(why) => screen.say(&format!(
                "  - {}  {}",
                ran.name,
                styled(DIM, &format!("skipped: {why}"))
            ))?,
            Outcome::Failed(why) => {
                screen.say(&format!(
                    "  {} {}  {}",
                    styled(BAD, "✗"),
                    ran.name,
                    styled(DIM, &format!("{}:{}", ran.file, ran.line))
                ))?;
                for why in why {
                    screen.say(&format!("      {why}"))?;
                }
            }
        }
    }
    Ok(())
}

fn junit(ran: &[Ran], failed: usize, skipped: usize) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\">\n<testsuite name=\"exeat\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\">\n",
        ran.len(),
        ran.len()
    );
    for ran in ran {
        // Writing to a string does not fail.
        let _ = write!(
            xml,
            "<testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\"",
            escape(&ran.suite),
            escape(&ran.name),
            escape(&ran.file),
            ran.line
        );
        let _ = match &ran.outcome {
            Outcome::Passed => writeln!(xml, "/>"),
            Outcome::Skipped(why) => {
                writeln!(xml, "><skipped message=\"{}\"/></testcase>", escape(why))
            }
            Outcome::Failed(why) => writeln!(
                xml,
                "><failure message=\"{}\"/></testcase>",
                escape(&why.join("\n"))
            ),
        };
    }
    xml.push_str("</testsuite>\n</testsuites>");
    xml
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\n', "&#10;")
}
