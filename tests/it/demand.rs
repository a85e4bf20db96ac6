//! Subjects and resources that come on demand, instances that register themselves, and what
//! sidecars report.

use std::path::PathBuf;

use crate::support::Dice;
use crate::support::governed::{
    Client, Registry, Sidecar, Token, control, domain, exception, noon, seconds, subject,
};
use exeat::{
    runtime::clock::Clock,
    wire::{
        signed::{Pin, Purpose, Trust},
        v1::{self, EntityStanding, NextAction, sync_service_client::SyncServiceClient},
    },
};
use tonic::transport::Endpoint;

const EXCEPTED: &str = "ALLOW_BY_EXCEPTION OK";
const ASSERTED: (&str, &str) = ("insecure_asserted_identity", "true");

/// A registry over some manifests, and where things are kept.
struct World {
    scratch: tempfile::TempDir,
    clock: Clock,
    registry: Registry,
    client: Client,
}

impl World {
    async fn of(text: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let registry = Registry::start(&scratch.path().join("registry"), clock.clone()).await;
        let mut client = registry.client().await;
        client.apply(text).await.unwrap();
        Self {
            scratch,
            clock,
            registry,
            client,
        }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    async fn sidecar(
        &mut self,
        name: &str,
        scope: &[&str],
        more: &[(&'static str, &str)],
    ) -> Sidecar {
        let identity = format!("service:{name}");
        let token = self
            .client
            .let_in(&identity, v1::Role::Sidecar, scope)
            .await;
        let (data, clock) = (self.data(name), self.clock.clone());
        let (address, key) = (&self.registry.address, &self.registry.key);
        Sidecar::start_with(&data, address, key, &token, clock, more)
            .await
            .unwrap()
    }

    /// What a sidecar of that scope is told about `ids`.
    async fn fetched(&mut self, scope: &[&str], ids: &[(&str, bool)]) -> Vec<v1::Entity> {
        let token = self
            .client
            .let_in("service:probe", v1::Role::Sidecar, scope)
            .await;
        let channel = Endpoint::from_shared(format!("http://{}", self.registry.address)).unwrap();
        let channel = channel.connect().await.unwrap();
        let mut sync = SyncServiceClient::with_interceptor(channel, Token::of(&token));
        let status = self.client.fleet.get_status(v1::GetStatusRequest {}).await;
        let request = v1::FetchRequest {
            era: status.unwrap().into_inner().era,
            wanted: ids
                .iter()
                .map(|(id, attested)| v1::WantedEntity {
                    id: (*id).to_owned(),
                    attested: *attested,
                })
                .collect(),
        };
        let answer = sync.fetch(request).await.unwrap().into_inner();
        let trust = Trust::new(Pin::parse(&self.registry.key).unwrap());
        let statement: v1::EntitiesStatement = trust
            .live()
            .open(Purpose::Entities, answer.entities.as_ref())
            .unwrap();
        statement.entities
    }
}

fn lab() -> String {
    domain("lab")
        + &domain("office")
        + &control("CT-RISKY", "risky", "true")
        + &control("CT-PLAIN", "plain", "false")
        + &subject("agent", None)
        + &subject("helper", Some("lab"))
        + &subject("stranger", Some("office"))
        + &exception("EX-2", "CT-RISKY", "helper")
        + &exception("EX-3", "CT-RISKY", "stranger")
}

#[tokio::test]
async fn a_subject_beyond_the_scope_comes_once_it_is_asked_about_and_follows_changes() {
    let mut world = World::of(&lab()).await;
    let scope = ["subject:agent", "demand:domain:lab"];
    let mut sidecar = world.sidecar("s1", &scope, &[ASSERTED]).await;
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let first = sidecar.ask("helper", "plain").await.unwrap();
    assert_eq!(first.next_action(), NextAction::Retry);
    sidecar.until("helper", "plain", "ALLOW OK").await;
    assert_eq!(
        sidecar.outcome("helper", "risky").await,
        EXCEPTED,
        "its exception came along"
    );
    // An exception changes, goes and comes; the subject changes, leaves and comes back.
    let over =
        exception("EX-2", "CT-RISKY", "helper").replace("state: APPROVED", "state: SUSPENDED");
    world.client.apply(&over).await.unwrap();
    sidecar.until("helper", "risky", "EXC_SUSPENDED").await;
    world
        .client
        .apply(&exception("EX-2", "CT-RISKY", "helper"))
        .await
        .unwrap();
    sidecar.until("helper", "risky", EXCEPTED).await;
    let retired = subject("helper", Some("lab")).replace("ACTIVE", "RETIRED");
    world.client.apply(&retired).await.unwrap();
    sidecar.until("helper", "plain", "SUBJECT_RETIRED").await;
    world
        .client
        .apply(&subject("helper", Some("office")))
        .await
        .unwrap();
    sidecar.until("helper", "plain", "SUBJECT_UNKNOWN").await;
    world
        .client
        .apply(&subject("helper", Some("lab")))
        .await
        .unwrap();
    world.clock.advance(seconds(11));
    sidecar.until("helper", "plain", "ALLOW OK").await;
    // Nothing of it is kept on disk, where only the scope is.
    let state = std::fs::read(world.data("s1").join("state")).unwrap();
    assert!(!state.windows(8).any(|window| window == b"\"helper\""));
    // Compliant calls of what is here go on without the registry.
    world.registry.process.kill().await;
    assert_eq!(sidecar.outcome("helper", "plain").await, "ALLOW OK");
    sidecar.process.stop().await;
}

#[tokio::test]
async fn s9_nothing_beyond_the_scope_can_be_fetched() {
    let mut world = World::of(&lab()).await;
    let of = |entities: &[v1::Entity]| -> Vec<(EntityStanding, usize)> {
        entities
            .iter()
            .map(|entity| (entity.standing(), entity.objects.len()))
            .collect()
    };
    let ids = [
        ("agent", false),
        ("helper", true),
        ("stranger", true),
        ("nobody", true),
    ];
    let told = world
        .fetched(&["subject:agent", "demand:domain:lab"], &ids)
        .await;
    assert_eq!(
        of(&told),
        [
            (EntityStanding::Governed, 1),
            (EntityStanding::Governed, 2),
            (EntityStanding::Absent, 0),
            (EntityStanding::Absent, 0)
        ]
    );
    let told = world.fetched(&["subject:agent"], &ids).await;
    assert_eq!(of(&told)[1], (EntityStanding::Absent, 0));
    let told = world.fetched(&["demand:*"], &ids).await;
    assert_eq!(of(&told)[2], (EntityStanding::Governed, 2));
}

#[tokio::test]
async fn a_resource_beyond_the_scope_cannot_be_told_until_it_has_come() {
    let text = lab()
        + &control("CT-TOOL", "call", "resource.risk_tier == 'HIGH'")
        + &subject("srv", Some("lab"))
            .replace("AI_AGENT", "TOOL_SERVER")
            .replace("risk_tier: LOW", "risk_tier: HIGH");
    let mut world = World::of(&text).await;
    let scope = ["subject:agent", "demand:domain:lab"];
    let sidecar = world.sidecar("s1", &scope, &[ASSERTED]).await;
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let call = |request: &mut v1::CheckRequest| {
        request.subject = "agent".into();
        request.action = "call".into();
        request.resource = Some(v1::Resource {
            r#type: "tool".into(),
            id: "srv/refund".into(),
            properties: None,
        });
    };
    let first = sidecar.ask_with(call).await.unwrap();
    assert_eq!(first.outcome(), v1::Outcome::Deny);
    assert_eq!(first.reasons().next(), Some(v1::Reason::ControlError));
    assert_eq!(first.next_action(), NextAction::Retry);
    let reason = |wanted| {
        let sidecar = &sidecar;
        async move {
            for _ in 0..2_000 {
                let told = sidecar.ask_with(call).await.unwrap();
                if told.reasons().next() == Some(wanted) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            panic!("never {wanted:?}");
        }
    };
    reason(v1::Reason::ControlFailed).await;
    let tame = subject("srv", Some("lab")).replace("AI_AGENT", "TOOL_SERVER");
    world.client.apply(&tame).await.unwrap();
    reason(v1::Reason::Ok).await;
}

#[tokio::test]
async fn the_cache_keeps_within_its_bytes_and_what_had_to_go_comes_again() {
    let text: String = (0..60)
        .map(|n| subject(&format!("helper-{n}"), Some("lab")))
        .collect();
    let mut world = World::of(&(lab() + &text)).await;
    let scope = ["subject:agent", "demand:*"];
    // One takes about 2 KiB.
    let sidecar = world
        .sidecar("s1", &scope, &[ASSERTED, ("entity_cache", "24KiB")])
        .await;
    sidecar.until("agent", "plain", "ALLOW OK").await;
    for round in 0..2 {
        for n in 0..60 {
            sidecar
                .until(&format!("helper-{n}"), "plain", "ALLOW OK")
                .await;
        }
        let held = || async {
            let page = sidecar.page("/metrics").await;
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix("exeat_entities_fetched "));
            line.map(|count| count.parse::<u64>().unwrap())
        };
        let mut last = None;
        for _ in 0..2_000 {
            last = held().await;
            if last.is_some_and(|count| count < 20) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(
            last.is_some_and(|count| count < 20),
            "round {round}: {last:?}"
        );
    }
    assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
}

/// Whoever fetches on demand comes to answer as who holds everything does, whatever changed, and
/// never allows what was not allowed at some time before.
#[tokio::test]
async fn what_is_fetched_answers_as_what_is_watched() {
    let seed = Dice::seed();
    println!("EXEAT_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut world = World::of(&lab()).await;
    let whole = world.sidecar("whole", &["*"], &[ASSERTED]).await;
    let demand = world
        .sidecar("demand", &["subject:agent", "demand:*"], &[ASSERTED])
        .await;
    let names: Vec<String> = (0..4).map(|n| format!("agent-{n}")).collect();
    for step in 0..60 {
        let name = &names[dice.roll(names.len())];
        let other = &names[dice.roll(names.len())];
        let area = ["lab", "office"][dice.roll(2)];
        let change = match dice.roll(5) {
            0 => subject(name, Some(area)),
            1 => subject(name, None).replace("ACTIVE", "RETIRED"),
            2 => exception(&format!("EX-9{}", dice.roll(3)), "CT-RISKY", name),
            3 => exception(&format!("EX-9{}", dice.roll(3)), "CT-RISKY", name).replace(
                &format!("[\"{name}\"]"),
                &format!("[\"{name}\", \"{other}\"]"),
            ),
            _ => exception(&format!("EX-9{}", dice.roll(3)), "CT-RISKY", name)
                .replace("state: APPROVED", "state: SUSPENDED"),
        };
        // Twice the same subject in one scope is refused; that changes nothing.
        let _ = world.client.apply(&change).await;
        for name in &names {
            demand.outcome(name, "risky").await;
        }
        if step % 10 == 9 {
            world.clock.advance(seconds(11));
            for name in &names {
                for action in ["plain", "risky"] {
                    let mut told = (String::new(), String::new());
                    for _ in 0..2_000 {
                        told = (
                            whole.outcome(name, action).await,
                            demand.outcome(name, action).await,
                        );
                        if told.0 == told.1 {
                            break;
                        }
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    }
                    assert_eq!(
                        told.0, told.1,
                        "{name} {action} after step {step}, seed {seed}"
                    );
                }
            }
        }
    }
}

fn classes() -> String {
    let class = subject("support", Some("lab"))
        + "instances: {identities: [\"spiffe://acme.example/agent/\"], lease: 4m}\n";
    let granted = exception("EX-C", "CT-RISKY", "support")
        .replace("ids: [\"support\"]", "class_ids: [support]");
    lab() + &class + &granted
}

const INSTANCE: &str = "spiffe://acme.example/agent/a-1";

#[tokio::test]
async fn r31_an_instance_registers_itself_and_is_governed_by_its_class() {
    let mut world = World::of(&classes()).await;
    let bound = [("subject", INSTANCE)];
    let mut sidecar = world.sidecar("s1", &["domain:lab"], &bound).await;
    sidecar.until(INSTANCE, "plain", "ALLOW OK").await;
    assert_eq!(sidecar.outcome(INSTANCE, "risky").await, EXCEPTED);
    let listed = world
        .client
        .fleet
        .list_instances(v1::ListInstancesRequest {})
        .await;
    let listed = listed.unwrap().into_inner().instances;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&*listed[0].id, &*listed[0].class, &*listed[0].sidecar),
        (INSTANCE, "support", "service:s1")
    );
    // It is stopped by itself, and whoever may never be one is not.
    let freeze = |subject: &str| v1::FreezeRequest {
        subject: subject.into(),
        note: String::new(),
    };
    let stranger = freeze("spiffe://other.example/agent/x");
    let refused = world.client.revocations.freeze(stranger).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::NotFound);
    world
        .client
        .revocations
        .freeze(freeze(INSTANCE))
        .await
        .unwrap();
    sidecar.until(INSTANCE, "plain", "SUBJECT_LOCKED").await;
    let request = v1::ThawRequest {
        subject: INSTANCE.into(),
        note: String::new(),
    };
    world.client.revocations.thaw(request).await.unwrap();
    sidecar.until(INSTANCE, "plain", "ALLOW OK").await;
    // What becomes of the class becomes of it.
    let request = v1::FreezeRequest {
        subject: "support".into(),
        note: String::new(),
    };
    world.client.revocations.freeze(request).await.unwrap();
    sidecar.until(INSTANCE, "plain", "SUBJECT_LOCKED").await;
    let request = v1::ThawRequest {
        subject: "support".into(),
        note: String::new(),
    };
    world.client.revocations.thaw(request).await.unwrap();
    sidecar.until(INSTANCE, "plain", "ALLOW OK").await;
    let retired = subject("support", Some("lab")).replace("ACTIVE", "RETIRED")
        + "instances: {identities: [\"spiffe://acme.example/agent/\"], lease: 4m}\n";
    world.client.apply(&retired).await.unwrap();
    sidecar.until(INSTANCE, "plain", "SUBJECT_RETIRED").await;
    // A class that does not want it any more.
    world
        .client
        .apply(&subject("support", Some("lab")))
        .await
        .unwrap();
    sidecar.until(INSTANCE, "plain", "SUBJECT_UNKNOWN").await;
    // One that was revoked by itself stays so, whatever becomes of its class.
    world.client.apply(&classes()).await.unwrap();
    sidecar.until(INSTANCE, "plain", "ALLOW OK").await;
    let request = v1::RevokeRequest {
        target: Some(v1::Target {
            target: Some(v1::target::Target::Subject(INSTANCE.into())),
        }),
        ..v1::RevokeRequest::default()
    };
    world.client.revocations.revoke(request).await.unwrap();
    sidecar.until(INSTANCE, "plain", "SUBJECT_RETIRED").await;
    sidecar.process.stop().await;
}

#[tokio::test]
async fn r31_without_the_registry_an_instance_keeps_its_compliant_calls_and_loses_its_exceptions() {
    let mut world = World::of(&classes()).await;
    let bound = [("subject", INSTANCE)];
    let sidecar = world.sidecar("s1", &["domain:lab"], &bound).await;
    sidecar.until(INSTANCE, "risky", EXCEPTED).await;
    world.registry.process.kill().await;
    // Longer than the instance's lease, shorter than the exception's.
    world.clock.advance(seconds(241));
    let said = sidecar.outcome(INSTANCE, "risky").await;
    assert!(said.contains("EXC_LEASE_LAPSED"), "{said}");
    assert_eq!(sidecar.outcome(INSTANCE, "plain").await, "ALLOW OK");
}

#[tokio::test]
async fn r31_an_instance_in_use_is_registered_again_and_an_idle_one_lapses() {
    let mut world = World::of(&classes()).await;
    let bound = [("subject", INSTANCE)];
    let sidecar = world.sidecar("s1", &["domain:lab"], &bound).await;
    sidecar.until(INSTANCE, "risky", EXCEPTED).await;
    let until = |world: &World| {
        let mut client = world.client.clone();
        async move {
            let listed = client
                .fleet
                .list_instances(v1::ListInstancesRequest {})
                .await;
            let listed = listed.unwrap().into_inner().instances;
            listed
                .first()
                .map(|one| one.lease_expire_time.unwrap().seconds)
        }
    };
    let first = until(&world).await.unwrap();
    sidecar.outcome(INSTANCE, "plain").await;
    world.clock.advance(seconds(130));
    let mut renewed = None;
    for _ in 0..2_000 {
        sidecar.outcome(INSTANCE, "plain").await;
        renewed = until(&world).await;
        if renewed.is_some_and(|renewed| renewed > first) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(
        renewed.is_some_and(|renewed| renewed > first),
        "{renewed:?}"
    );
    world.clock.advance(seconds(241));
    assert_eq!(
        until(&world).await,
        None,
        "the registry forgets who is silent"
    );
}

#[tokio::test]
async fn r31_who_has_not_proven_who_it_is_is_no_instance() {
    let mut world = World::of(&classes()).await;
    let told = world
        .fetched(&["domain:lab"], &[(INSTANCE, false), (INSTANCE, true)])
        .await;
    let standings: Vec<_> = told.iter().map(v1::Entity::standing).collect();
    assert_eq!(
        standings,
        [EntityStanding::Absent, EntityStanding::Instance]
    );
    let told = world.fetched(&["domain:office"], &[(INSTANCE, true)]).await;
    assert_eq!(told[0].standing(), EntityStanding::Absent);
    let told = world
        .fetched(&["*"], &[("spiffe://acme.example/other/a-1", true)])
        .await;
    assert_eq!(told[0].standing(), EntityStanding::Absent);
}

#[tokio::test]
async fn r9_what_a_caller_sees_to_differ_is_reported_and_kept_beside_what_is_governed() {
    let mut world = World::of(&lab()).await;
    let mut sidecar = world.sidecar("s1", &["*"], &[("subject", "helper")]).await;
    sidecar.until("helper", "plain", "ALLOW OK").await;
    let seen = |request: &mut v1::CheckRequest| {
        request.subject = "helper".into();
        request.observed = [("tools".to_owned(), "sha256:new".to_owned())].into();
    };
    sidecar.ask_with(seen).await.unwrap();
    let request = || v1::GetObjectRequest {
        kind: v1::ObjectKind::Subject.into(),
        id: "helper".into(),
    };
    let mut observed = Vec::new();
    for _ in 0..2_000 {
        let answer = world.client.objects.get_object(request()).await.unwrap();
        observed = answer.into_inner().observed;
        if !observed.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let [one] = observed.as_slice() else {
        panic!("{observed:?}")
    };
    assert_eq!(
        (&*one.facet, &*one.digest, &*one.sidecar),
        ("tools", "sha256:new", "service:s1")
    );
    assert_eq!(one.first_time.unwrap().seconds, noon().micros() / 1_000_000);
    // What is governed is what it was (U5).
    assert_eq!(sidecar.outcome("helper", "plain").await, "ALLOW OK");
    sidecar.process.stop().await;
}

#[tokio::test]
async fn d1_an_exception_that_two_shared_is_gone_for_both_once_it_names_neither() {
    let both = exception("EX-S", "CT-RISKY", "helper")
        .replace("ids: [\"helper\"]", "ids: [\"helper\", \"helper2\"]");
    let text = lab().replace(&exception("EX-2", "CT-RISKY", "helper"), "")
        + &subject("helper2", Some("lab"))
        + &both;
    let mut world = World::of(&text).await;
    let scope = ["subject:agent", "demand:domain:lab"];
    let sidecar = world.sidecar("s1", &scope, &[ASSERTED]).await;
    sidecar.until("helper", "risky", EXCEPTED).await;
    sidecar.until("helper2", "risky", EXCEPTED).await;
    let moved = both.replace("[\"helper\", \"helper2\"]", "[\"stranger\"]")
        + &control("CT-NEW", "new", "false");
    world.client.apply(&moved).await.unwrap();
    sidecar.until("helper", "new", "ALLOW OK").await;
    for agent in ["helper", "helper2"] {
        assert_eq!(
            sidecar.outcome(agent, "risky").await,
            "DENY CONTROL_FAILED",
            "{agent}"
        );
    }
    // And back to one of them alone.
    let back = both.replace("[\"helper\", \"helper2\"]", "[\"helper2\"]");
    world.client.apply(&back).await.unwrap();
    sidecar.until("helper2", "risky", EXCEPTED).await;
    assert_eq!(
        sidecar.outcome("helper", "risky").await,
        "DENY CONTROL_FAILED"
    );
}

#[tokio::test]
async fn r31_a_renewed_registration_is_in_force() {
    let mut world = World::of(&classes()).await;
    let bound = [("subject", INSTANCE)];
    let sidecar = world.sidecar("s1", &["domain:lab"], &bound).await;
    sidecar.until(INSTANCE, "risky", EXCEPTED).await;
    for _ in 0..3 {
        // Past the half of a lease it is renewed, and then it outlives the one before.
        world.clock.advance(seconds(130));
        let edge =
            exeat::domain::Timestamp::from_micros(world.clock.now().latest.micros()) + seconds(200);
        let mut until = 0;
        for _ in 0..2_000 {
            sidecar.outcome(INSTANCE, "plain").await;
            let decision = sidecar.ask(INSTANCE, "risky").await.unwrap();
            until = decision.valid_until.map_or(0, |time| time.seconds);
            if until > edge.micros() / 1_000_000 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(until > edge.micros() / 1_000_000, "{until}");
        sidecar.until(INSTANCE, "risky", EXCEPTED).await;
    }
}

#[tokio::test]
async fn a_registry_that_worked_out_a_scope_anew_is_no_other_registry() {
    let mut world = World::of(&lab()).await;
    let sidecar = world.sidecar("s1", &["domain:lab"], &[ASSERTED]).await;
    sidecar.until("helper", "risky", EXCEPTED).await;
    let tighter = "---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: LOW\nmax_duration: 2d\n";
    world
        .client
        .apply(&(tighter.to_owned() + &control("CT-NEW", "new", "false")))
        .await
        .unwrap();
    sidecar.until("helper", "new", "ALLOW OK").await;
    let address = world.registry.address.clone();
    world.registry.process.stop().await;
    let data = world.data("registry");
    world.registry = Registry::start_at(&data, world.clock.clone(), &address, &[])
        .await
        .unwrap();
    world.client = world.registry.client().await;
    let again = control("CT-AGAIN", "again", "false");
    world.client.apply(&again).await.unwrap();
    sidecar.until("helper", "again", "ALLOW OK").await;
    let status = world.client.fleet.get_status(v1::GetStatusRequest {}).await;
    assert_eq!(status.unwrap().into_inner().read_only, "");
}

#[tokio::test]
async fn s9_exceptions_for_classes_beyond_the_scope_are_not_sent() {
    let text = classes()
        + &subject("clerk", Some("office"))
        + &exception("EX-OFFICE", "CT-RISKY", "clerk")
            .replace("ids: [\"clerk\"]", "class_ids: [clerk]");
    let mut world = World::of(&text).await;
    let scope = ["subject:agent", "demand:subject:helper"];
    let sidecar = world.sidecar("s1", &scope, &[ASSERTED]).await;
    sidecar.until("agent", "plain", "ALLOW OK").await;
    let state = std::fs::read(world.data("s1").join("state")).unwrap();
    let holds = |text: &str| state.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds("CT-PLAIN") && !holds("EX-OFFICE") && !holds("EX-C"));
}

#[tokio::test]
async fn an_exception_that_is_watched_no_longer_stays_with_who_was_fetched() {
    let text = lab().replace(&exception("EX-2", "CT-RISKY", "helper"), "")
        + &exception("EX-S", "CT-RISKY", "helper")
            .replace("ids: [\"helper\"]", "ids: [\"helper\", \"agent\"]");
    let mut world = World::of(&text).await;
    let scope = ["domain:lab", "demand:subject:agent"];
    let sidecar = world.sidecar("s1", &scope, &[ASSERTED]).await;
    sidecar.until("helper", "risky", EXCEPTED).await;
    sidecar.until("agent", "risky", EXCEPTED).await;
    world
        .client
        .apply(&subject("helper", Some("office")))
        .await
        .unwrap();
    sidecar.until("helper", "plain", "SUBJECT_UNKNOWN").await;
    assert_eq!(sidecar.outcome("agent", "risky").await, EXCEPTED);
}

#[tokio::test]
async fn r31_a_class_that_means_an_instance_more_exactly_takes_it_over() {
    let narrow = |state: &str| {
        subject("narrow", Some("lab")).replace("ACTIVE", state)
            + "instances: {identities: [\"spiffe://acme.example/agent/a-1\"]}\n"
    };
    let mut world = World::of(&classes()).await;
    let bound = [("subject", INSTANCE)];
    let sidecar = world.sidecar("s1", &["domain:lab"], &bound).await;
    sidecar.until(INSTANCE, "plain", "ALLOW OK").await;
    world.client.apply(&narrow("RETIRED")).await.unwrap();
    sidecar.until(INSTANCE, "plain", "SUBJECT_RETIRED").await;
    world.client.apply(&narrow("ACTIVE")).await.unwrap();
    sidecar.until(INSTANCE, "plain", "ALLOW OK").await;
    assert_eq!(
        sidecar.outcome(INSTANCE, "risky").await,
        "DENY CONTROL_FAILED",
        "the exception is for the other class"
    );
}
