//! `exeat control coverage`.

use serde_json::json;

use crate::wire::v1;

use super::{
    args::Output,
    reach::{Registry, refused},
    registry_args::Told,
    run::Exit,
    screen::{BAD, DIM, Screen, styled},
};

pub(super) async fn coverage(
    framework: String,
    gaps: bool,
    told: &Told,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&told.reach).await?;
    let request = v1::GetCoverageRequest { framework };
    let answer = registry.findings.get_coverage(request).await;
    let found = answer
        .map_err(|status| refused(&status))?
        .into_inner()
        .coverage;
    if told.output == Output::Json {
        for covered in &found {
            let line = json!({"apiVersion": "exeat/v1", "framework": covered.framework, "id": covered.id, "controls": covered.controls, "drafts": covered.drafts, "failing": covered.failing, "excepted": covered.excepted});
            screen.say(&line.to_string())?;
        }
        return Ok(Exit::Done);
    }
    let heads = format!(
        "{:<15} {:<13} {:>7} {:>8}  CONTROLS",
        "FRAMEWORK", "ID", "FAILING", "EXCEPTED"
    );
    screen.say(&styled(DIM, &heads))?;
    for covered in &found {
        if covered.controls.is_empty() && covered.drafts.is_empty() && !gaps {
            continue;
        }
        let mut controls = covered.controls.join(", ");
        if !covered.drafts.is_empty() {
            controls = format!("{controls} (to come: {})", covered.drafts.join(", "));
        }
        if controls.is_empty() {
            "none".clone_into(&mut controls);
        }
        let failing = format!("{:>7}", covered.failing);
        let failing = if covered.failing > 0 {
            styled(BAD, &failing)
        } else {
            failing
        };
        screen.say(&format!(
            "{:<15} {:<13} {failing} {:>8}  {controls}",
            covered.framework, covered.id, covered.excepted
        ))?;
    }
    for framework in of(&found) {
        let all: Vec<_> = found
            .iter()
            .filter(|one| one.framework == framework)
            .collect();
        let answered = all.iter().filter(|one| !one.controls.is_empty()).count();
        screen.say(&format!(
            "{framework}: controls in force answer to {answered} of {}",
            all.len()
        ))?;
    }
    if !gaps {
        screen.hint("what nothing answers to: exeat control coverage --gaps");
    }
    Ok(Exit::Done)
}

/// The frameworks, in order.
fn of(found: &[v1::FrameworkCoverage]) -> Vec<&str> {
    let mut frameworks: Vec<&str> = found.iter().map(|one| &*one.framework).collect();
    frameworks.dedup();
    frameworks
}
