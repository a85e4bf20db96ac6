//! `exeat exception import`: requests out of OSCAL.

use std::{fs, path::Path};

use crate::{domain::Timestamp, manifest::oscal_in::requests};

use super::{
    run::Exit,
    screen::{BOLD, Screen, styled},
};

/// Writes a file for each deviation; none where one is there already.
pub(super) fn import(
    document: &Path,
    out: &Path,
    now: Timestamp,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let shown = document.display();
    let text = fs::read_to_string(document)
        .map_err(|error| Exit::Invalid(format!("{shown}: cannot be read: {error}")))?;
    let drafted = requests(&text, now).map_err(|why| Exit::Invalid(format!("{shown}: {why}")))?;
    if drafted.is_empty() {
        screen.say(&format!(
            "{shown}: no risk in it has a deviation that was asked for"
        ))?;
        return Ok(Exit::Done);
    }
    let files: Vec<_> = (1..=drafted.len())
        .map(|number| out.join(format!("oscal-{number}.yaml")))
        .collect();
    if let Some(taken) = files.iter().find(|file| file.try_exists().unwrap_or(true)) {
        return Err(Exit::Usage(format!(
            "{} is there already; say where else with --out",
            taken.display()
        )));
    }
    let unwritten = |error: std::io::Error| Exit::Unexpected(format!("{}: {error}", out.display()));
    fs::create_dir_all(out).map_err(unwritten)?;
    for (file, drafted) in files.iter().zip(&drafted) {
        // JSON is YAML.
        fs::write(file, format!("{:#}\n", drafted.request)).map_err(unwritten)?;
        screen.say(&format!(
            "{}  {}",
            styled(BOLD, &file.display().to_string()),
            drafted.title
        ))?;
        screen.say(&format!("  fill in {}", drafted.missing.join(", ")))?;
    }
    screen.hint("ask for each with `exeat exception request -f FILE`");
    Ok(Exit::Done)
}
