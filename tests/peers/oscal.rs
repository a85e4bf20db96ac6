//! OSCAL documents against the JSON schemas that NIST publishes. Schemas that are missing fail;
//! nothing is skipped.

use std::process::Command;

use crate::support::governed::seconds;
use crate::support::reports::{LATER, report, story};
use exeat::wire::v1::ReportFormat;

/// Of a story in which everything occurs, of one domain of it, and of what has become of it later.
#[tokio::test]
async fn r34_documents_validate_against_the_published_schemas() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = story().await;
    let mut files = Vec::new();
    for (at, domain) in ["", "team", ""].into_iter().enumerate() {
        if at == 2 {
            world.clock.advance(seconds(LATER));
        }
        for (format, name) in [
            (ReportFormat::OscalAssessmentResults, "assessment-results"),
            (ReportFormat::OscalPoam, "poam"),
        ] {
            let made = report(&mut world, format, |asks| asks.domain = domain.into());
            let file = folder.path().join(format!("{at}.{name}.json"));
            std::fs::write(&file, made.await.unwrap().report).unwrap();
            files.push(file);
        }
    }
    let mut vars = std::env::vars();
    let python = vars.find(|(name, _)| name == "EXEAT_PYTHON");
    let python = python.map_or("python3".to_owned(), |(_, value)| value);
    let checked = Command::new(python)
        .arg("tests/peers/oscal.py")
        .args(files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("6 documents"), "{said}");
}
