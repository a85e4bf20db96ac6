//! `exeat demo`: the story, told through a real sidecar over its real socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};
use tonic::transport::Channel;

use crate::{
    config,
    domain::{Facet, Timestamp},
    runtime::clock::Clock,
    sidecar::Bound,
    wire::v1::{self, check_service_client::CheckServiceClient},
};

use super::{
    ask::fields,
    client::{over_unix, refused},
    init::{files, write},
    run::Exit,
    screen::{BOLD, DIM, Screen, grounds, headline, styled},
};

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Client = CheckServiceClient<Channel>;

pub(super) async fn demo(screen: &mut Screen) -> Result<Exit, Exit> {
    let clock = Clock::system();
    let scratch = Scratch(std::env::temp_dir().join(format!(
        "exeat-demo-{}-{}",
        std::process::id(),
        clock.now().latest.micros()
    )));
    let bundle = scratch.0.join("bundle");
    let now = clock.now().latest;
    let unexpected = |error: &dyn std::fmt::Display| Exit::Unexpected(error.to_string());
    write(&bundle, &files(now, false).map_err(|e| unexpected(&e))?).map_err(|e| unexpected(&e))?;

    let socket = scratch.0.join("exeat.sock");
    let flag = |text: &str| Some(text.to_owned());
    let flags = [
        ("bundle", bundle.to_str().map(ToOwned::to_owned)),
        ("listen", flag("127.0.0.1:0")),
        ("operations", flag("127.0.0.1:0")),
        ("unix", socket.to_str().map(ToOwned::to_owned)),
        ("subject", flag("billing-agent")),
        ("drain_timeout", flag("1s")),
    ];
    let settings = config::Sidecar::load(None, &[], &flags).map_err(|e| unexpected(&e))?;
    let bound = Bound::bind(settings, clock)
        .await
        .map_err(|e| unexpected(&e))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = bound.run(async {
        // A sender that is gone asks to stop as well.
        let _ = stopped.await;
    });
    let story = async {
        let told = tell(screen, &socket, &bundle, now).await;
        drop(stop);
        told
    };
    let (served, told) = tokio::join!(serving, story);
    told?;
    served.map_err(|e| unexpected(&e))?;
    Ok(Exit::Done)
}

async fn tell(
    screen: &mut Screen,
    socket: &Path,
    bundle: &Path,
    now: Timestamp,
) -> Result<(), Exit> {
    let channel = over_unix(socket).await.map_err(Exit::Unexpected)?;
    let mut client = Client::new(channel);
    screen.say(&format!(
        " {} · a real sidecar on a real socket · nothing is left behind\n",
        styled(BOLD, "exeat demo")
    ))?;
    in_force(&mut client, 1).await?;
    let first = ask(&mut client, "customer-support", &[]).await?;

    scene(
        screen,
        1,
        "billing-agent calls crm/export_customers in prod: 48 210 rows of personal data",
        &first,
    )?;

    chapter(
        screen,
        2,
        "dana asks for an exception (GDPR export, ticket DPO-2231); priya and tom approve; 4 hours, 3 uses",
    )?;
    let exception = files(now, true).map_err(|error| Exit::Unexpected(error.to_string()))?;
    write(bundle, &exception)?;
    screen.say("      … exceptions/ex-0001.yaml arrives in the bundle and is in force\n")?;
    in_force(&mut client, 2).await?;
    let second = ask(&mut client, "customer-support", &[]).await?;
    scene(screen, 3, "the same call again", &second)?;

    let third = ask(
        &mut client,
        "customer-support",
        &[(Facet::Model, "sha256:6e8d")],
    )
    .await?;
    scene(
        screen,
        4,
        "someone upgrades the agent's model; the agent says what it sees",
        &third,
    )?;

    let fourth = ask(&mut client, "billing", &[]).await?;
    scene(screen, 5, "the same export for another purpose", &fourth)?;

    let text = exception
        .iter()
        .find(|(name, _)| name.starts_with("exceptions/"))
        .map(|(_, text)| text.replace("state: APPROVED", "state: REVOKED"))
        .unwrap_or_default();
    write(bundle, &[("exceptions/ex-0001.yaml", text)])?;
    in_force(&mut client, 3).await?;
    let fifth = ask(&mut client, "customer-support", &[]).await?;
    scene(screen, 6, "priya revokes it", &fifth)?;

    let explained = client
        .explain(v1::ExplainRequest {
            decision_id: second.id.clone(),
        })
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    chapter(
        screen,
        7,
        "an auditor asks: was the export justified at the moment it was made?",
    )?;
    screen.explanation(&explained)?;
    screen.say("")?;
    screen.hint(" Try it yourself:   exeat init my-agents && cd my-agents && exeat test");
    Ok(())
}

fn chapter(screen: &mut Screen, number: u8, title: &str) -> Result<(), Exit> {
    Ok(screen.say(&format!(" {}  {title}", styled(BOLD, &number.to_string())))?)
}

fn scene(
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

async fn ask(
    client: &mut Client,
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
            id: "mcp://crm/export_customers".into(),
            properties: Some(text("rows", 48_210.into())),
        }),
        context: Some(text("purpose", purpose.into())),
        observed: observed
            .iter()
            .map(|(facet, digest)| (facet.name().to_owned(), (*digest).to_owned()))
            .collect(),
        explain: false,
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
async fn in_force(client: &mut Client, revision: u64) -> Result<(), Exit> {
    for _ in 0..200 {
        match ask(client, "nothing", &[]).await {
            Ok(decision)
                if decision
                    .snapshot
                    .as_ref()
                    .is_some_and(|snapshot| snapshot.revision >= revision) =>
            {
                return Ok(());
            }
            Ok(_) | Err(Exit::Unreachable(_)) => sleep(Duration::from_millis(10)).await,
            Err(other) => return Err(other),
        }
    }
    Err(Exit::Unexpected(
        "the bundle did not come into force".into(),
    ))
}
