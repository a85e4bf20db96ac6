//! What the demo asks and says: one call or one line each.

use std::time::Duration;

use tokio::time::sleep;
use tonic::transport::Channel;

use crate::{
    domain::Facet,
    wire::{
        json::fields,
        v1::{self, check_service_client::CheckServiceClient},
    },
};

use super::{
    client::refused,
    reach::Registry,
    run::Exit,
    screen::{BOLD, DIM, Screen, grounds, headline, styled},
};

pub(super) type Client = CheckServiceClient<Channel>;

pub(super) fn unexpected(error: &dyn std::fmt::Display) -> Exit {
    Exit::Unexpected(error.to_string())
}

pub(super) async fn requested(who: &mut Registry, content: &str) -> Result<v1::Case, Exit> {
    let request = v1::RequestExceptionRequest {
        file: Some(v1::ManifestFile {
            name: "export_request.yaml".into(),
            content: content.into(),
        }),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = who.exceptions.request_exception(request).await;
    cased(
        answer
            .map_err(|status| unexpected(&status))?
            .into_inner()
            .case,
    )
}

pub(super) async fn approve(who: &mut Registry, case: &v1::Case) -> Result<v1::Case, Exit> {
    let request = v1::DecideRequest {
        id: case.id.clone(),
        approve: true,
        comment: "the export is owed, and the plan is sound".into(),
        digest: case.digest.clone(),
        reviewed_evidence: vec!["dpo-approval".into(), "export-plan".into()],
    };
    let answer = who.exceptions.decide(request).await;
    cased(
        answer
            .map_err(|status| unexpected(&status))?
            .into_inner()
            .case,
    )
}

fn cased(case: Option<v1::Case>) -> Result<v1::Case, Exit> {
    case.ok_or_else(|| Exit::Unexpected("the answer holds no case".into()))
}

pub(super) fn allowed(decision: &v1::Decision) -> bool {
    decision.outcome() == v1::Outcome::AllowByException
}

/// Asks the same question until the answer is as wanted.
pub(super) async fn until(
    client: &mut Client,
    purpose: &str,
    wanted: impl Fn(&v1::Decision) -> bool,
) -> Result<v1::Decision, Exit> {
    for _ in 0..2_000 {
        let decision = ask(client, purpose, &[]).await?;
        if wanted(&decision) {
            return Ok(decision);
        }
        sleep(Duration::from_millis(1)).await;
    }
    Err(Exit::Unexpected("nothing changed in time".into()))
}

/// Whether a call that needs no exception is allowed.
pub(super) async fn harmless(client: &mut Client) -> Result<bool, Exit> {
    let decision = put(client, "mcp://crm/search", "billing", &[]).await?;
    Ok(decision.outcome() == v1::Outcome::Allow)
}

pub(super) fn chapter(screen: &mut Screen, number: u8, title: &str) -> Result<(), Exit> {
    Ok(screen.say(&format!(" {}  {title}", styled(BOLD, &number.to_string())))?)
}

pub(super) fn scene(
    screen: &mut Screen,
    number: u8,
    title: &str,
    decision: &v1::Decision,
) -> Result<(), Exit> {
    chapter(screen, number, title)?;
    screen.say(&format!("    {}", headline(decision)))?;
    for line in grounds(decision)
        .iter()
        .filter(|line| !line.contains("  next "))
    {
        screen.say(&format!("    {line}"))?;
    }
    Ok(screen.say(&styled(DIM, ""))?)
}

pub(super) async fn ask(
    client: &mut Client,
    purpose: &str,
    observed: &[(Facet, &str)],
) -> Result<v1::Decision, Exit> {
    put(client, "mcp://crm/export_customers", purpose, observed).await
}

async fn put(
    client: &mut Client,
    tool: &str,
    purpose: &str,
    observed: &[(Facet, &str)],
) -> Result<v1::Decision, Exit> {
    let text = |name: &str, value: serde_json::Value| {
        fields([(name.to_owned(), value)].into_iter().collect())
    };
    let request = v1::CheckRequest {
        subject: String::new(),
        action: "tools/call".into(),
        resource: Some(v1::Resource {
            r#type: "tool".into(),
            id: tool.into(),
            properties: Some(text("rows", 48_210.into())),
        }),
        context: Some(text("purpose", purpose.into())),
        observed: observed
            .iter()
            .map(|(facet, digest)| (facet.name().to_owned(), (*digest).to_owned()))
            .collect(),
        explain: false,
        ..v1::CheckRequest::default()
    };
    let answer = client
        .check(request)
        .await
        .map_err(|status| refused(&status))?;
    answer
        .into_inner()
        .decision
        .ok_or_else(|| Exit::Unexpected("the answer holds no decision".into()))
}

/// Asks something harmless until the bundle of `revision` is in force.
pub(super) async fn in_force(client: &mut Client, revision: u64) -> Result<(), Exit> {
    for _ in 0..2_000 {
        match ask(client, "nothing", &[]).await {
            Ok(decision)
                if decision
                    .snapshot
                    .as_ref()
                    .is_some_and(|snapshot| snapshot.revision >= revision) =>
            {
                return Ok(());
            }
            Ok(_) | Err(Exit::Unreachable(_)) => sleep(Duration::from_millis(2)).await,
            Err(other) => return Err(other),
        }
    }
    Err(Exit::Unexpected(
        "the bundle did not come into force".into(),
    ))
}
