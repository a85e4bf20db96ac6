//! A world to report on: what passes, what fails, and what becomes of that.

use exeat::wire::v1;
use tonic::Status;

use super::{
    cases::{Ask, DAY, PLAIN, World, agent, approve, ask},
    governed::seconds,
};

/// Fails for everybody whose risk is not LOW.
pub fn hourly(id: &str, condition: &str) -> String {
    format!(
        "---\napiVersion: exeat/v1\nkind: Control\nid: {id}\ntitle: {id} in a line\nowner: user:o\nseverity: MEDIUM\nenforcement: SOFT_MANDATORY\nevaluation_modes: [RUNTIME, SCHEDULED]\nschedule: {{cron: \"0 * * * *\", time_zone: UTC}}\nstate: DEPRECATED\nfailure_condition: \"{condition}\"\napplies_to: {{actions: [risky], condition: \"subject.kind == 'AI_AGENT'\"}}\nevidence_requirements: [{{source: s}}]\nframework_refs: [{{framework: CSF_2_0, ref: ID.RA-07}}]\n"
    )
}

/// Four agents that fail, of which one is excepted, one asked for and one denied; and controls that
/// pass.
pub async fn story() -> World {
    let mut world = World::start().await;
    let mut text = hourly("CT-HIGH", "subject.risk_tier == 'MODERATE'")
        + &hourly("CT-NEVER", "subject.risk_tier == 'NONE'")
        + "---\napiVersion: exeat/v1\nkind: Domain\nid: lab\nparent: team\ndisplay_name: Lab\nowner: user:carol\n";
    for id in ["one", "two", "three", "four"] {
        text += &agent(id).replace("risk_tier: LOW", "risk_tier: MODERATE");
    }
    world.admin.apply(&text).await.unwrap();
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let of = |agent: &'static str| Ask {
        control: "CT-HIGH",
        agent,
        ..PLAIN
    };
    let one = ask(&mut alice, &of("one")).await.unwrap();
    world.clock.advance(seconds(600));
    approve(&mut bob, &one).await.unwrap();
    ask(&mut alice, &of("two")).await.unwrap();
    let three = ask(&mut alice, &of("three")).await.unwrap();
    let deny = v1::DecideRequest {
        id: three.id,
        approve: false,
        comment: "this one waits for the remedy".into(),
        digest: three.digest,
        reviewed_evidence: vec![],
    };
    bob.exceptions.decide(deny).await.unwrap();
    for control in ["CT-HIGH", "CT-NEVER"] {
        let run = v1::RunControlRequest {
            control_id: control.into(),
            dry_run: false,
        };
        world.admin.findings.run_control(run).await.unwrap();
    }
    world
}

pub async fn report(
    world: &mut World,
    format: v1::ReportFormat,
    change: impl FnOnce(&mut v1::GetReportRequest),
) -> Result<v1::GetReportResponse, Status> {
    let mut request = v1::GetReportRequest {
        format: format.into(),
        ..v1::GetReportRequest::default()
    };
    change(&mut request);
    let answer = world.admin.reports.get_report(request).await?;
    Ok(answer.into_inner())
}

/// Longer than anything of the story.
pub const LATER: i64 = 40 * DAY;
