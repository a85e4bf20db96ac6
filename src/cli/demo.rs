//! `exeat demo`: the story, told through a real registry and sidecar over their real sockets.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};

use crate::{
    audit::{Key, verify},
    domain::{Facet, Timestamp},
    runtime::{channel, clock::Clock},
    wire::v1,
};

use super::{
    audit::whole,
    client::refused,
    dev::Pair,
    init::{files, request},
    reach::Registry,
    run::Exit,
    screen::{BOLD, DIM, GOOD, Screen, styled},
    telling::{
        Client, allowed, approve, ask, chapter, harmless, in_force, requested, scene, unexpected,
        until,
    },
    usage::statement,
};

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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
    let ports = [(); 3].map(|()| "127.0.0.1:0".to_owned());
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
            let told = Box::pin(story.tell(&socket, end_registry)).await;
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
        let channel = channel::over_unix(socket).await.map_err(Exit::Unexpected)?;
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
        until(&mut client, "customer-support", allowed).await?;
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
        self.overrides(&mut client, &request, &mut dana).await?;
        let more = request.replace("max_uses: 3", "max_uses: 10000");
        self.quietly(&more, &mut dana, &mut priya, &mut erin)
            .await?;
        let (ledger, key) = self.ledger().await?;
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
            9,
            "an auditor asks: was the export justified at the moment it was made?",
        )?;
        screen.explanation(&explained)?;
        screen.say("")?;
        audited(screen, &ledger, &key)?;
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
        let revoked = until(client, "customer-support", |decision| !allowed(decision)).await?;
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
        self.screen.say(&format!(
            "      … refused {took:.0} ms after Revoke was called; receipt: {acknowledged} of 1 sidecar rests on it"
        ))?;
        let used = self.used(id).await?;
        Ok(self.screen.say(&format!("      … {used}\n"))?)
    }

    /// How an exception was used, once the sidecar has told of its refusal as well.
    async fn used(&mut self, id: &str) -> Result<String, Exit> {
        for _ in 0..500 {
            let request = v1::GetUsageRequest {
                exception_id: id.to_owned(),
            };
            let answer = self.registry.usage.get_usage(request).await;
            let used = answer.map_err(|status| unexpected(&status))?.into_inner();
            if used.ineffective > 0 && used.complete {
                return Ok(statement(&used));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(Exit::Unexpected("the uses were not reported".into()))
    }

    /// An incident: one person lets it happen, and it ends with the incident.
    async fn overrides(
        &mut self,
        client: &mut Client,
        request: &str,
        dana: &mut Registry,
    ) -> Result<(), Exit> {
        let mut sam = self.joins("user:sam", v1::Role::Approver).await?;
        let declares = v1::OpenIncidentRequest {
            id: "INC-7".into(),
            domain: "acme".into(),
            title: "every invoice of November is wrong".into(),
        };
        let opened = sam.incidents.open_incident(declares).await;
        opened.map_err(|status| unexpected(&status))?;
        let asked = request
            .replace("WAIVER", "INCIDENT_OVERRIDE")
            .replace("[customer-support]", "[billing]")
            .replace("{duration: 4h}", "{duration: 1h}\nincident_ref: INC-7");
        let case = requested(dana, &asked).await?;
        let begun = approve(&mut sam, &case).await?;
        let excepted = until(client, "billing", allowed).await?;
        scene(
            self.screen,
            7,
            "at night every invoice is wrong: sam, who is on call, declares INC-7 and lets the export happen for an hour",
            &excepted,
        )?;
        self.screen.say(&format!(
            "      {} owes {} within a day, and how it was undone within three",
            begun.id,
            begun.open_seats.join(", ")
        ))?;
        let ends = v1::ResolveIncidentRequest { id: "INC-7".into() };
        let resolved = sam.incidents.resolve_incident(ends).await;
        resolved.map_err(|status| unexpected(&status))?;
        until(client, "billing", |decision| !allowed(decision)).await?;
        Ok(self.screen.say(
            "      … sam resolves INC-7, and the override is revoked with it: refused again\n",
        )?)
    }

    /// Everything that was accepted so far, as an auditor takes it away, and the key it is signed
    /// with.
    async fn ledger(&mut self) -> Result<(String, String), Exit> {
        let lines = whole(&mut self.registry).await?;
        let status = self
            .registry
            .fleet
            .get_status(v1::GetStatusRequest {})
            .await;
        let key = status
            .map_err(|status| unexpected(&status))?
            .into_inner()
            .key_pin;
        Ok((lines, key))
    }

    /// Takes the registry away: exceptions end with the lease, compliant calls go on.
    async fn outlast(
        &mut self,
        client: &mut Client,
        registry_end: oneshot::Sender<()>,
    ) -> Result<(), Exit> {
        until(client, "customer-support", allowed).await?;
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
            8,
            "a second exception is in use when the registry goes away; its lease is one second here",
            &lapsed,
        )?;
        Ok(self.screen.say(&format!(
            "      … {took:.1} s later nobody honours it; {compliant} compliant calls went on meanwhile, and {}\n",
            if still { "still do" } else { "no longer do" }
        ))?)
    }
}

/// Whether what was accepted is still what was accepted; and that one changed letter is seen.
fn audited(screen: &mut Screen, ledger: &str, key: &str) -> Result<(), Exit> {
    chapter(
        screen,
        10,
        "and was any of it written anew since? The ledger, checked offline by code that shares nothing with the registry",
    )?;
    let keys = [Key::parse(key).map_err(Exit::Unexpected)?];
    let held = verify(ledger.as_bytes(), &keys, &[]).map_err(|broken| unexpected(&broken))?;
    screen.say(&format!(
        "    {} {} entries in {} changes hold",
        styled(GOOD, "ok"),
        held.entries,
        held.leaves
    ))?;
    let forged = ledger.replacen("user:erin", "user:evil", 1);
    let broken = match verify(forged.as_bytes(), &keys, &[]) {
        Ok(_) => "nothing".to_owned(),
        Err(broken) => broken.to_string(),
    };
    screen.say(&format!(
        "      … with one name changed in it: {}\n",
        styled(DIM, &broken)
    ))?;
    Ok(())
}
