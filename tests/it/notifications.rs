//! Who is told of what happens: all of it, signed, at least once, and never from within.

use std::time::Duration;

use crate::support::cases::{Ask, DAY, PLAIN, World, approve, ask, look};
use crate::support::governed::{Client, Registry, domain, seconds};
use crate::support::receiver::Receiver;
use crate::support::{cases, governed, receiver};
use exeat::{
    domain::Timestamp,
    wire::{v1, webhook::Secrets},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A file of settings with endpoints, in a folder of its own.
fn settings(endpoints: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), SECRET).unwrap();
    let file = folder.path().join("webhooks.yaml");
    let text = format!("public_url: https://exeat.example.com\nendpoints:\n{endpoints}");
    std::fs::write(&file, text).unwrap();
    (folder, file.display().to_string())
}

fn endpoint(name: &str, to: &Receiver, more: &str) -> String {
    format!(
        "- {{name: {name}, url: \"http://{}/hook\", secret_file: secret, allow: [127.0.0.1]{more}}}\n",
        to.address
    )
}

async fn deliveries(client: &mut Client, endpoint: &str) -> Vec<v1::Delivery> {
    let request = v1::ListDeliveriesRequest {
        endpoint: endpoint.into(),
        ..v1::ListDeliveriesRequest::default()
    };
    let answer = client.notifications.list_deliveries(request).await.unwrap();
    answer.into_inner().deliveries
}

/// Waits until the latest message to an endpoint fits; no time is part of any claim.
async fn until(
    client: &mut Client,
    endpoint: &str,
    fits: impl Fn(&v1::Delivery) -> bool,
) -> v1::Delivery {
    let mut last = Vec::new();
    for _ in 0..2_000 {
        last = deliveries(client, endpoint).await;
        if let Some(latest) = last.first().filter(|latest| fits(latest)) {
            return latest.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{last:#?}");
}

async fn try_out(client: &mut Client, endpoint: &str) -> String {
    let request = v1::TestEndpointRequest {
        endpoint: endpoint.into(),
    };
    let answer = client.notifications.test_endpoint(request).await.unwrap();
    answer.into_inner().id
}

/// R8, T2, T5, T13: whoever decides is told, with a link and without what there is to decide about.
#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_an_exception_is_told_signed_and_in_order() {
    let to = Receiver::start().await;
    let (_folder, file) = settings(&endpoint("ops", &to, ", events: [\"exception.*\"]"));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    let mut asker = world.as_who("user:alice").await;
    let case = ask(&mut asker, &PLAIN).await.unwrap();
    let mut owner = world.as_who("user:bob").await;
    approve(&mut owner, &case).await.unwrap();
    world.admin.revoke(&case.id).await.unwrap();
    let got = to.wait_for(3).await;
    let news: Vec<_> = got.iter().map(receiver::Got::news).collect();
    assert_eq!(
        news,
        [
            "exception.requested",
            "exception.approved",
            "exception.revoked"
        ]
    );
    let now: Timestamp = governed::noon();
    let secrets = Secrets::parse(SECRET).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for got in &got {
        let id = got.header("webhook-id");
        let check = |secrets: &Secrets| {
            let (time, signature) = (
                got.header("webhook-timestamp"),
                got.header("webhook-signature"),
            );
            secrets.check(id, time, signature, &got.body, now)
        };
        assert_eq!(check(&secrets), Ok(()));
        let other = Secrets::parse("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        assert!(check(&other).is_err());
        assert!(ids.insert(id.to_owned()), "{id} twice");
        assert_eq!(
            (got.path.as_str(), got.header("content-type")),
            ("/hook", "application/json")
        );
        let data = &got.json()["data"];
        assert_eq!(data["exception_id"], *case.id);
        assert_eq!(
            data["url"],
            format!("https://exeat.example.com/ui/exceptions/{}", case.id)
        );
        // Thin: why it is needed is read by whoever may.
        assert!(!data.to_string().contains("quarter"), "{data}");
    }
    let asked = &got[0].json()["data"];
    assert_eq!(
        (&asked["tier"], &asked["requester"]),
        (&"MODERATE".into(), &"user:alice".into())
    );
    assert!(
        asked["waits_for"]
            .as_str()
            .unwrap()
            .starts_with("control_owner"),
        "{asked}"
    );
    let latest = until(&mut world.admin, "ops", |it| it.state == "DELIVERED").await;
    assert_eq!((latest.attempts, latest.why.as_str()), (1, "204"));
}

/// R29, T9: whoever would have been asked hears at once that they were not.
#[tokio::test(flavor = "multi_thread")]
async fn r29_who_was_skipped_is_told() {
    let to = Receiver::start().await;
    let (_folder, file) = settings(&endpoint("ops", &to, ", events: [\"exception.approved\"]"));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    let on_call = "kind: Person\napiVersion: exeat/v1\nid: user:erin\n---\napiVersion: exeat/v1\nkind: Group\nid: oncall\nmembers: [\"user:alice\", \"user:erin\"]\n";
    let team = "---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\napprover_groups: {control_owner: owners, risk_officer: risk, on_call: oncall}\n";
    for (agent, alone) in [("agent", false), ("other", true)] {
        let during = Ask {
            agent,
            hours: 1,
            more: "incident_ref: INC-1\n",
            ..PLAIN
        };
        let during = during.text().replace("WAIVER", "INCIDENT_OVERRIDE");
        let activation = format!("incident_self_activation: {alone}\n");
        let text = on_call.to_owned() + team + &activation + &cases::agent("other");
        world.admin.apply(&text).await.unwrap();
        let mut erin = world.as_who("user:erin").await;
        let mut alice = world.as_who("user:alice").await;
        if !alone {
            let open = v1::OpenIncidentRequest {
                id: "INC-1".into(),
                domain: "team".into(),
                title: "exports fail".into(),
            };
            erin.incidents.open_incident(open).await.unwrap();
        }
        let request = v1::RequestExceptionRequest {
            file: governed::files(&during).pop(),
            ..v1::RequestExceptionRequest::default()
        };
        let answer = alice.exceptions.request_exception(request).await.unwrap();
        let case = answer.into_inner().case.unwrap();
        if !alone {
            approve(&mut erin, &case).await.unwrap();
        }
        let got = to.wait_for(1 + usize::from(alone)).await;
        let data = &got.last().unwrap().json()["data"];
        assert_eq!(data["exception_id"], *case.id, "{alone}");
        let skipped = "control_owner of team, risk_officer of team";
        assert_eq!(data["skipped"], skipped, "{data}");
        assert!(data["look_by"].is_string(), "{data}");
    }
}

/// A3, A5: terms that change void votes, and whoever decides hears of it; so does everybody of an
/// exception that was looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn new_terms_are_told_anew() {
    let to = Receiver::start().await;
    let (_folder, file) = settings(&endpoint("ops", &to, ", events: [\"exception.*\"]"));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    let mut asker = world.as_who("user:alice").await;
    let long = Ask {
        hours: 480,
        ..PLAIN
    };
    let case = ask(&mut asker, &PLAIN).await.unwrap();
    let request = v1::RequestExceptionRequest {
        file: governed::files(&long.text()).pop(),
        id: case.id.clone(),
        dry_run: false,
        ..v1::RequestExceptionRequest::default()
    };
    let anew = asker.exceptions.request_exception(request).await.unwrap();
    let anew = anew.into_inner().case.unwrap();
    let got = to.wait_for(2).await;
    let digests: Vec<_> = got
        .iter()
        .map(|got| got.json()["data"]["digest"].clone())
        .collect();
    assert_eq!(digests, [&*case.digest, &*anew.digest]);
    assert_ne!(case.digest, anew.digest);
    let mut owner = world.as_who("user:bob").await;
    approve(&mut owner, &anew).await.unwrap();
    assert_eq!(to.wait_for(3).await[2].news(), "exception.approved");
    world.clock.advance(seconds(27 * DAY / 2));
    let near = to.wait_for(5).await;
    let due: Vec<_> = near.iter().skip(3).map(receiver::Got::news).collect();
    assert_eq!(
        due,
        ["exception.revalidation_due", "exception.revalidation_due"]
    );
    let again = look(&mut owner, &case.id).await;
    approve(&mut owner, &again).await.unwrap();
    assert_eq!(to.wait_for(6).await[5].news(), "exception.revalidated");
}

/// What failed is tried again under the same id, then given up where people see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_tried_for_days_and_then_lies_where_people_see_it() {
    let to = Receiver::start().await;
    to.always("500 Internal Server Error");
    let (_folder, file) = settings(&endpoint("ops", &to, ""));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    let id = try_out(&mut world.admin, "ops").await;
    let mut next = until(&mut world.admin, "ops", |it| it.attempts == 1).await;
    let mut attempts = 1;
    while next.state == "WAITING" {
        let wait = next.next.unwrap().seconds - world.clock.now().latest.micros() / 1_000_000;
        assert!(wait > 0, "{next:?}");
        world.clock.advance(seconds(wait + 1));
        attempts += 1;
        next = until(&mut world.admin, "ops", |it| it.attempts == attempts).await;
    }
    assert_eq!((next.state.as_str(), attempts), ("DEAD", 10));
    assert_eq!(next.why, "500");
    let days = (world.clock.now().latest.micros() - governed::noon().micros()) / 1_000_000 / DAY;
    assert!((3..=4).contains(&days), "{days}");
    let got = to.got();
    assert_eq!(got.len(), 10);
    assert!(got.iter().all(|got| got.header("webhook-id") == id));
    // The time signed is that of the attempt.
    let times: std::collections::BTreeSet<_> = got
        .iter()
        .map(|got| got.header("webhook-timestamp"))
        .collect();
    assert_eq!(times.len(), 10);
    to.always("200 OK");
    let again = v1::RedeliverRequest {
        endpoint: "ops".into(),
        id: String::new(),
    };
    let count = world.admin.notifications.redeliver(again).await.unwrap();
    assert_eq!(count.into_inner().count, 1);
    until(&mut world.admin, "ops", |it| it.state == "DELIVERED").await;
}

/// A receiver may ask for a pause, and may say that it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_is_taken_at_its_word() {
    let to = Receiver::start().await;
    let (_folder, file) = settings(&endpoint("ops", &to, ""));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    to.answer(&["429 Too Many Requests\r\nretry-after: 600"]);
    try_out(&mut world.admin, "ops").await;
    let put_off = until(&mut world.admin, "ops", |it| it.attempts == 1).await;
    let wait = put_off.next.unwrap().seconds - governed::noon().micros() / 1_000_000;
    assert_eq!(wait, 600, "{put_off:?}");
    to.answer(&["410 Gone"]);
    let gone = try_out(&mut world.admin, "ops").await;
    let dead = until(&mut world.admin, "ops", |it| it.state == "DEAD").await;
    assert_eq!((dead.id, dead.why.as_str()), (gone, "410"));
    assert!(
        deliveries(&mut world.admin, "ops")
            .await
            .iter()
            .all(|it| it.state == "DEAD")
    );
    // What happens now is not sent, and not lost from sight.
    world.admin.apply(&domain("lab")).await.unwrap();
    let mut asker = world.as_who("user:alice").await;
    ask(&mut asker, &PLAIN).await.unwrap();
    until(&mut world.admin, "ops", |it| {
        it.r#type == "exception.requested" && it.state == "DEAD"
    })
    .await;
    assert_eq!(to.got().len(), 2);
    let again = v1::RedeliverRequest {
        endpoint: "ops".into(),
        id: String::new(),
    };
    world.admin.notifications.redeliver(again).await.unwrap();
    to.wait_for(5).await;
}

/// Nothing is sent into the machine or its network unless that is meant, nor where a receiver
/// sends us on to.
#[tokio::test(flavor = "multi_thread")]
async fn messages_do_not_go_where_they_are_not_meant_to() {
    let (to, within) = (Receiver::start().await, Receiver::start().await);
    let within_at = within.address;
    let port = within_at.port();
    let plain = format!(
        "- {{name: literal, url: \"http://{within_at}/\", secret_file: secret}}\n- {{name: named, url: \"http://localhost:{port}/\", secret_file: secret}}\n- {{name: mapped, url: \"http://[::ffff:127.0.0.1]:{port}/\", secret_file: secret}}\n- {{name: other, url: \"http://{within_at}/\", secret_file: secret, allow: [\"10.0.0.0/8\"]}}\n- {{name: short, url: \"http://127.1:{port}/\", secret_file: secret}}\n"
    );
    let (_folder, file) = settings(&(plain + &endpoint("sent-on", &to, "")));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    to.answer(&[&format!(
        "307 Temporary Redirect\r\nlocation: http://{within_at}/"
    )]);
    for name in ["literal", "named", "mapped", "other", "short", "sent-on"] {
        try_out(&mut world.admin, name).await;
        let tried = until(&mut world.admin, name, |it| it.attempts == 1).await;
        assert_eq!(tried.state, "WAITING", "{tried:?}");
        let fits = match name {
            "sent-on" => "redirects are not followed",
            "short" => "127.1",
            _ => "within this machine or network; allow that address",
        };
        assert!(tried.why.contains(fits), "{tried:?}");
    }
    assert_eq!(within.got().len(), 0);
}

/// What is committed is told, also by the process that comes after the one that committed it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_told_after_a_crash() {
    let to = Receiver::start().await;
    to.always("503 Service Unavailable");
    let (_folder, file) = settings(&endpoint("ops", &to, ", events: [exception.requested]"));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    let mut asker = world.as_who("user:alice").await;
    let case = ask(&mut asker, &PLAIN).await.unwrap();
    world.registry.process.kill().await;
    let before = to.got().len();
    to.always("204 No Content");
    world.clock.advance(seconds(60));
    let data = world.scratch.path().join("r");
    let flags = [("webhooks", file.as_str())];
    let again = Registry::start_at(&data, world.clock.clone(), "127.0.0.1:0", &flags).await;
    let again = again.unwrap();
    let got = to.wait_for(before + 1).await;
    assert_eq!(got.last().unwrap().json()["data"]["exception_id"], *case.id);
    // And not a second time.
    let mut admin = again.client().await;
    until(&mut admin, "ops", |it| it.state == "DELIVERED").await;
    assert_eq!(deliveries(&mut admin, "ops").await.len(), 1);
}

/// Reminders at three quarters and a day before, each once, whoever restarts.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_near_is_told_twice_and_no_more() {
    let to = Receiver::start().await;
    let near = ", events: [exception.expiring, exception.revalidation_due, exception.expired]";
    let (_folder, file) = settings(&endpoint("ops", &to, near));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    let mut asker = world.as_who("user:alice").await;
    let ten_days = Ask {
        hours: 240,
        ..PLAIN
    };
    let case = ask(&mut asker, &ten_days).await.unwrap();
    let mut owner = world.as_who("user:bob").await;
    approve(&mut owner, &case).await.unwrap();
    world.clock.advance(seconds(7 * DAY));
    world.admin.apply(&domain("lab")).await.unwrap();
    assert_eq!(to.got().len(), 0);
    world.clock.advance(seconds(DAY / 2));
    let got = to.wait_for(1).await;
    assert_eq!(got[0].news(), "exception.expiring");
    assert_eq!(
        got[0].json()["timestamp"],
        "2026-11-30T00:00:00Z",
        "not before"
    );
    // Known to be delivered: what is not is told again, and may have been.
    until(&mut world.admin, "ops", |it| it.state == "DELIVERED").await;
    world.registry.process.kill().await;
    let data = world.scratch.path().join("r");
    let flags = [("webhooks", file.as_str())];
    let again = Registry::start_at(&data, world.clock.clone(), "127.0.0.1:0", &flags).await;
    let again = again.unwrap();
    world.clock.advance(seconds(DAY * 3 / 2));
    let got = to.wait_for(2).await;
    assert_eq!(got[1].json()["data"]["due_time"], "2026-12-02T12:00:00Z");
    world.clock.advance(seconds(DAY));
    let got = to.wait_for(3).await;
    assert_eq!(got[2].news(), "exception.expired");
    let mut admin = again.client().await;
    assert_eq!(look(&mut admin, &case.id).await.state, "EXPIRED");
    assert_eq!(to.got().len(), 3);
}

/// Who is told of one domain is told of those below it, and of no other.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_told_what_it_asked_for() {
    let (team, lab) = (Receiver::start().await, Receiver::start().await);
    let lines = endpoint("team", &team, ", domains: [team]")
        + &endpoint("lab", &lab, ", domains: [lab], format: cloudevents");
    let (_folder, file) = settings(&lines);
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    world.admin.apply(&domain("lab")).await.unwrap();
    let mut asker = world.as_who("user:alice").await;
    let within = Ask {
        more: &format!("domain: team\n{}", PLAIN.more),
        ..PLAIN
    };
    ask(&mut asker, &within).await.unwrap();
    team.wait_for(1).await;
    let request = v1::OpenIncidentRequest {
        id: "INC-1".into(),
        domain: "lab".into(),
        title: "exports fail".into(),
    };
    world.admin.incidents.open_incident(request).await.unwrap();
    let got = lab.wait_for(1).await;
    assert_eq!(
        got[0].header("content-type"),
        "application/cloudevents+json"
    );
    assert_eq!(got[0].json()["type"], "dev.exeat.incident.opened.v1");
    assert_eq!(got[0].json()["id"], *got[0].header("webhook-id"));
    assert_eq!((team.got().len(), lab.got().len()), (1, 1));
    // What happens to an agent happens in its domain, though no domain is named.
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        ..v1::FreezeRequest::default()
    };
    world.admin.revocations.freeze(freeze).await.unwrap();
    assert_eq!(team.wait_for(2).await[1].news(), "agent.frozen");
    assert_eq!(lab.got().len(), 1);
    // Whoever has a say in what reaches into both hears of it.
    let helper = governed::subject("helper", Some("lab"));
    let decides = domain("lab") + "approver_groups: {control_owner: owners, risk_officer: risk}\n";
    world.admin.apply(&(decides + &helper)).await.unwrap();
    let across = Ask {
        agent: "other\", \"helper",
        ..PLAIN
    };
    world.admin.apply(&cases::agent("other")).await.unwrap();
    ask(&mut asker, &across).await.unwrap();
    assert_eq!(
        lab.wait_for(2).await[1].json()["data"]["domains"],
        serde_json::json!(["lab", "team"])
    );
    assert_eq!(team.wait_for(3).await[2].news(), "exception.requested");
}

/// Bad settings are told with their places, all of them, and nothing starts.
#[tokio::test]
async fn settings_that_cannot_be_taken_are_told_with_their_places() {
    let (folder, file) = settings(
        "- {name: a b, url: \"ftp://x\", secret_file: secret}\n- {name: c, url: \"https://u:p@x/\", secret_file: missing}\n- {name: d, url: \"https://x\"}\n- {name: d, url: \"https://x\", secret_file: secret, format: smoke, events: [exception.exploded], allow: [here]}\n",
    );
    let data = folder.path().join("r");
    let clock = exeat::runtime::clock::Clock::manual(governed::noon());
    let flags = [("webhooks", file.as_str())];
    let refused = Registry::start_at(&data, clock, "127.0.0.1:0", &flags).await;
    let why = refused.err().unwrap();
    for wanted in [
        "webhooks.yaml:3:10: `endpoints[0].name`: is no name",
        "`endpoints[0].url`: `ftp://x/` is no http or https address",
        "`endpoints[1].url`: holds a name or a password",
        "`endpoints[1].secret_file`: ",
        "`endpoints[2].secret_file`: is missing",
        "`endpoints[3].name`: is another endpoint's already",
        "`endpoints[3].format`: `smoke` is not known",
        "`endpoints[3].events`: `exception.exploded` is nothing that is told",
        "`endpoints[3].allow`: `here` is no address or net",
    ] {
        assert!(why.contains(wanted), "{wanted}\n{why}");
    }
    assert!(!why.contains(SECRET) && !why.contains("u:p"), "{why}");
    assert!(!data.join("registry.db").try_exists().unwrap());
}

/// R18: that an exception is needed where it does not hold is told the first time, and not each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_the_first_attempt_beyond_a_scope_is_told() {
    let to = Receiver::start().await;
    let events = ", events: [exception.out_of_scope, exception.revoked]";
    let (_folder, file) = settings(&endpoint("ops", &to, events));
    let mut world = World::start_with(&[("webhooks", &file)]).await;
    let sidecar = world.sidecar().await;
    let mut asker = world.as_who("user:alice").await;
    let mut owner = world.as_who("user:bob").await;
    let case = ask(&mut asker, &PLAIN).await.unwrap();
    approve(&mut owner, &case).await.unwrap();
    world.clock.advance(seconds(1));
    sidecar
        .until("agent", "risky", "ALLOW_BY_EXCEPTION OK")
        .await;
    let beyond = || async {
        // Without a purpose, and it holds for one alone.
        let asked = sidecar.ask_with(|request| {
            request.subject = "agent".into();
            request.action = "risky".into();
        });
        assert_eq!(asked.await.unwrap().outcome(), v1::Outcome::Deny);
    };
    beyond().await;
    let once = |used: &v1::GetUsageResponse| used.out_of_scope == 1;
    world.admin.until_used(&case.id, once).await;
    to.wait_for(1).await;
    beyond().await;
    world
        .admin
        .until_used(&case.id, |used| used.out_of_scope == 2)
        .await;
    world.admin.revoke(&case.id).await.unwrap();
    let got = to.wait_for(2).await;
    let news: Vec<_> = got.iter().map(receiver::Got::news).collect();
    assert_eq!(news, ["exception.out_of_scope", "exception.revoked"]);
    let data = &got[0].json()["data"];
    assert_eq!(data["exception_id"], *case.id);
    assert_eq!(data["tier"], "MODERATE");
    let now: Timestamp = governed::noon() + seconds(1);
    assert_eq!(data["tried_time"], now.to_string());
}
