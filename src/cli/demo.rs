//! `exeat demo`: the story, told through a real registry and sidecar over their real sockets.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};
use tonic::transport::Channel;

use crate::{
    domain::{Facet, Timestamp},
    runtime::clock::Clock,
    wire::v1::{self, check_service_client::CheckServiceClient},
};

use super::{
    ask::fields,
    client::{over_unix, refused},
    dev::Pair,
    init::{files, request},
    reach::Registry,
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

/// A tier's lease in the demo: short, so that one can wait for its end.
const LEASE: &str = "---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: LOW\nlease_ttl: 1s\n---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: MODERATE\nlease_ttl: 1s\n---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: HIGH\nlease_ttl: 1s\n";

pub(super) async fn demo(screen: &mut Screen) -> Result<Exit, Exit> {
    let clock = Clock::system();
    let scratch = Scratch(std::env::temp_dir().join(format!(
        "exeat-demo-{}-{}",
        std::process::id(),
        clock.now().latest.micros()
    )));
    std::fs::create_dir_all(&scratch.0).map_err(|e| unexpected(&e))?;
    let ports = ["127.0.0.1:0"; 3];
    let subject = Some("billing-agent".to_owned());
    let pair = Pair::bind(&scratch.0, subject, ports, None, clock.clone()).await?;
    let Pair {
        registry: address,
        token,
        socket,
        registry_bound,
        sidecar,
    } = pair;
    let (end_registry, registry_ended) = oneshot::channel::<()>();
    let (end_sidecar, sidecar_ended) = oneshot::channel::<()>();
    // A sender that is gone asks to stop as well.
    let holding = registry_bound.run(async { drop(registry_ended.await) });
    let story = async {
        let mut registry = Registry::with(&address, None, &token).await?;
        let bound = sidecar.bind(&mut registry, &address, clock.clone()).await?;
        let deciding = bound.run(async { drop(sidecar_ended.await) });
        let telling = async {
            let story = Story {
                screen,
                registry,
                address: address.clone(),
                now: clock.now().latest,
            };
            let told = story.tell(&socket, end_registry).await;
            drop(end_sidecar);
            told
        };
        let (served, told) = tokio::join!(deciding, telling);
        told?;
        served.map_err(|e| unexpected(&e))
    };
    let (held, told) = tokio::join!(holding, story);
    told?;
    held.map_err(|e| unexpected(&e))?;
    Ok(Exit::Done)
}

fn unexpected(error: &dyn std::fmt::Display) -> Exit {
    Exit::Unexpected(error.to_string())
}

struct Story<'a> {
    screen: &'a mut Screen,
    registry: Registry,
    address: String,
    now: Timestamp,
}

impl Story<'_> {
    async fn apply(&mut self, files: &[(&str, String)]) -> Result<u64, Exit> {
        let request = v1::ApplyRequest {
            files: files
                .iter()
                .map(|(name, content)| v1::ManifestFile {
                    name: (*name).to_owned(),
                    content: content.clone(),
                })
                .collect(),
            ..v1::ApplyRequest::default()
        };
        let answer = self.registry.objects.apply(request).await;
        Ok(answer
            .map_err(|status| unexpected(&status))?
            .into_inner()
            .revision)
    }

    async fn tell(mut self, socket: &Path, registry_end: oneshot::Sender<()>) -> Result<(), Exit> {
        self.screen.say(&format!(
            " {} · a real registry and sidecar on real sockets · nothing is left behind\n",
            styled(BOLD, "exeat demo")
        ))?;
        let channel = over_unix(socket).await.map_err(Exit::Unexpected)?;
        let mut client = Client::new(channel);
        let mut first = files(self.now, false).map_err(|e| unexpected(&e))?;
        first.push(("policy.yaml", LEASE.to_owned()));
        let revision = self.apply(&first).await?;
        in_force(&mut client, revision).await?;
        let denied = ask(&mut client, "customer-support", &[]).await?;
        let screen = &mut *self.screen;
        scene(
            screen,
            1,
            "billing-agent calls crm/export_customers in prod: 48 210 rows of personal data",
            &denied,
        )?;
        chapter(
            screen,
            2,
            "dana asks for an exception (GDPR export, ticket DPO-2231): 4 hours, 3 uses",
        )?;
        let request = request(self.now).map_err(|e| unexpected(&e))?;
        let mut dana = self.joins("user:dana", v1::Role::Viewer).await?;
        let mut priya = self.joins("user:priya", v1::Role::Approver).await?;
        let mut erin = self.joins("user:erin", v1::Role::Approver).await?;
        let id = self
            .grant(&request, &mut dana, &mut priya, &mut erin)
            .await?;
        until(&mut client, allowed).await?;
        let screen = &mut *self.screen;
        screen.say(&format!(
            "      … {id} is approved, signed, and in force at the sidecar\n"
        ))?;
        let excepted = ask(&mut client, "customer-support", &[]).await?;
        scene(screen, 3, "the same call again", &excepted)?;
        let upgraded = [(Facet::Model, "sha256:6e8d")];
        let drifted = ask(&mut client, "customer-support", &upgraded).await?;
        scene(
            screen,
            4,
            "someone upgrades the agent's model; the agent says what it sees",
            &drifted,
        )?;
        let elsewhere = ask(&mut client, "billing", &[]).await?;
        scene(screen, 5, "the same export for another purpose", &elsewhere)?;
        self.revoke(&mut client, &id).await?;
        let more = request.replace("max_uses: 3", "max_uses: 10000");
        self.quietly(&more, &mut dana, &mut priya, &mut erin)
            .await?;
        self.outlast(&mut client, registry_end).await?;

        let explained = client
            .explain(v1::ExplainRequest {
                decision_id: excepted.id.clone(),
            })
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        let screen = self.screen;
        chapter(
            screen,
            8,
            "an auditor asks: was the export justified at the moment it was made?",
        )?;
        screen.explanation(&explained)?;
        screen.say("")?;
        screen.hint(" Try it yourself:   exeat init my-agents && cd my-agents && exeat test");
        Ok(())
    }

    /// Lets somebody in; they speak for themselves from then on.
    async fn joins(&mut self, identity: &str, role: v1::Role) -> Result<Registry, Exit> {
        let grant = v1::GrantRequest {
            identity: identity.into(),
            role: role.into(),
            scope: Vec::new(),
        };
        let answer = self.registry.fleet.grant(grant).await;
        let token = answer
            .map_err(|status| unexpected(&status))?
            .into_inner()
            .token;
        Registry::with(&self.address, None, &token).await
    }

    /// The exception as it is requested and decided, with what is said on the way.
    async fn grant(
        &mut self,
        request: &str,
        dana: &mut Registry,
        priya: &mut Registry,
        erin: &mut Registry,
    ) -> Result<String, Exit> {
        let case = requested(dana, request).await?;
        let tier = case.tier.clone();
        let waits = case.open_seats.join(", ");
        self.screen
            .say(&format!("      tier {tier}, computed; waits for {waits}"))?;
        // Who asks, answers for it or stands behind the agent does not decide.
        let own = approve(dana, &case).await;
        self.screen.say(&format!(
            "      dana approves it herself   {}",
            styled(
                DIM,
                if own.is_err() {
                    "refused"
                } else {
                    "let through"
                }
            )
        ))?;
        let one = approve(priya, &case).await?;
        self.screen.say(&format!(
            "      priya approves, with the evidence reviewed; still waits for {}",
            one.open_seats.join(", ")
        ))?;
        approve(erin, &case).await?;
        self.screen.say("      erin approves")?;
        Ok(case.id)
    }

    async fn quietly(
        &mut self,
        request: &str,
        dana: &mut Registry,
        priya: &mut Registry,
        erin: &mut Registry,
    ) -> Result<(), Exit> {
        let case = requested(dana, request).await?;
        approve(priya, &case).await?;
        approve(erin, &case).await?;
        Ok(())
    }

    /// Revokes, and watches it bite.
    async fn revoke(&mut self, client: &mut Client, id: &str) -> Result<(), Exit> {
        let request = v1::RevokeRequest {
            target: Some(v1::Target {
                target: Some(v1::target::Target::Exception(id.into())),
            }),
            reason: "COMPROMISE".into(),
            note: String::new(),
        };
        let clock = Clock::system();
        let began = clock.elapsed();
        let answer = self.registry.revocations.revoke(request).await;
        let receipt = answer
            .map_err(|status| unexpected(&status))?
            .into_inner()
            .receipt;
        let revoked = until(client, |decision| !allowed(decision)).await?;
        let took = clock.elapsed().saturating_sub(began).as_secs_f64() * 1_000.0;
        let sequence = receipt
            .and_then(|receipt| receipt.removal)
            .map_or(0, |removal| removal.sequence);
        let request = v1::GetRevocationRequest {
            sequence,
            wait: true,
        };
        let answer = self.registry.revocations.get_revocation(request).await;
        let receipt = answer
            .map_err(|status| unexpected(&status))?
            .into_inner()
            .receipt;
        let acknowledged = receipt.map_or(0, |receipt| receipt.acknowledged.len());
        scene(self.screen, 6, "priya revokes it", &revoked)?;
        Ok(self.screen.say(&format!(
            "      … refused {took:.0} ms after Revoke was called; receipt: {acknowledged} of 1 sidecar rests on it\n"
        ))?)
    }

    /// Takes the registry away: exceptions end with the lease, compliant calls go on.
    async fn outlast(
        &mut self,
        client: &mut Client,
        registry_end: oneshot::Sender<()>,
    ) -> Result<(), Exit> {
        until(client, allowed).await?;
        let clock = Clock::system();
        let began = clock.elapsed();
        drop(registry_end);
        let mut compliant = 0_u32;
        let lapsed = loop {
            if harmless(client).await? {
                compliant = compliant.saturating_add(1);
            }
            let decision = ask(client, "customer-support", &[]).await?;
            if !allowed(&decision) {
                break decision;
            }
            sleep(Duration::from_millis(20)).await;
        };
        let took = clock.elapsed().saturating_sub(began).as_secs_f64();
        let still = harmless(client).await?;
        scene(
            self.screen,
            7,
            "a second exception is in use when the registry goes away; its lease is one second here",
            &lapsed,
        )?;
        Ok(self.screen.say(&format!(
            "      … {took:.1} s later nobody honours it; {compliant} compliant calls went on meanwhile, and {}\n",
            if still { "still do" } else { "no longer do" }
        ))?)
    }
}

async fn requested(who: &mut Registry, content: &str) -> Result<v1::Case, Exit> {
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

async fn approve(who: &mut Registry, case: &v1::Case) -> Result<v1::Case, Exit> {
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

fn allowed(decision: &v1::Decision) -> bool {
    decision.outcome() == v1::Outcome::AllowByException
}

/// Asks the same question until the answer is as wanted.
async fn until(
    client: &mut Client,
    wanted: impl Fn(&v1::Decision) -> bool,
) -> Result<v1::Decision, Exit> {
    for _ in 0..2_000 {
        let decision = ask(client, "customer-support", &[]).await?;
        if wanted(&decision) {
            return Ok(decision);
        }
        sleep(Duration::from_millis(1)).await;
    }
    Err(Exit::Unexpected("nothing changed in time".into()))
}

/// Whether a call that needs no exception is allowed.
async fn harmless(client: &mut Client) -> Result<bool, Exit> {
    let decision = put(client, "mcp://crm/search", "billing", &[]).await?;
    Ok(decision.outcome() == v1::Outcome::Allow)
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
