//! Overrides during an incident: quick to begin, never for long, and never forgotten (R29, R37, T9).

use crate::support::cases::{
    Ask, EXCEPTED, PLAIN, World, agent, approve, ask, deciding, look, until,
};
use crate::support::governed;
use crate::support::governed::{Client, control, domain, seconds};
use exeat::wire::v1;
use tonic::{Code, Status};

const HOUR: i64 = 3_600;

const DURING: Ask<'_> = Ask {
    hours: 2,
    more: "incident_ref: INC-1\n",
    ..PLAIN
};

/// As asked for during an incident.
fn during(ask: &Ask<'_>) -> String {
    let text = ask.text();
    text.replace(
        "deviation_type: WAIVER",
        "deviation_type: INCIDENT_OVERRIDE",
    )
}

async fn request(client: &mut Client, text: &str) -> Result<v1::Case, Status> {
    let request = v1::RequestExceptionRequest {
        file: governed::files(text).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = client.exceptions.request_exception(request).await?;
    Ok(answer.into_inner().case.unwrap())
}

async fn open(client: &mut Client, id: &str, domain: &str) -> Result<v1::Incident, Status> {
    let request = v1::OpenIncidentRequest {
        id: id.into(),
        domain: domain.into(),
        title: "exports fail for every customer".into(),
    };
    let answer = client.incidents.open_incident(request).await?;
    Ok(answer.into_inner().incident.unwrap())
}

async fn resolve(client: &mut Client, id: &str) -> Result<v1::Incident, Status> {
    let request = v1::ResolveIncidentRequest { id: id.into() };
    let answer = client.incidents.resolve_incident(request).await?;
    Ok(answer.into_inner().incident.unwrap())
}

async fn close(client: &mut Client, id: &str) -> Result<v1::Case, Status> {
    let request = v1::CloseOverrideRequest {
        id: id.into(),
        relaxed: "the export control, for two batches of one agent".into(),
        restored: "the batches ended and the override was closed".into(),
        lessons: "batches need a permission of their own".into(),
    };
    let answer = client.exceptions.close_override(request).await?;
    Ok(answer.into_inner().case.unwrap())
}

fn refused(outcome: Result<v1::Case, Status>, wanted: &str) {
    let status = outcome.unwrap_err();
    assert!(
        status.message().contains(wanted),
        "{wanted}: {}",
        status.message()
    );
}

/// People of whom carol and erin are on call, and an incident that goes on.
async fn incident() -> World {
    let mut world = World::start().await;
    let people = "---\napiVersion: exeat/v1\nkind: Person\nid: user:erin\n---\napiVersion: exeat/v1\nkind: Person\nid: user:frank\n---\napiVersion: exeat/v1\nkind: Group\nid: oncall\nmembers: [\"user:alice\", \"user:erin\"]\n";
    let team = "---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\napprover_groups: {control_owner: owners, risk_officer: risk, on_call: oncall}\n";
    world
        .admin
        .apply(&format!("{people}{team}{}", domain("other")))
        .await
        .unwrap();
    world
}

#[tokio::test]
async fn an_override_begins_with_one_person_ends_with_its_incident_and_is_owed_for() {
    let mut world = incident().await;
    let sidecar = world.sidecar().await;
    let mut alice = world.as_who("user:alice").await;
    let mut erin = world.as_who("user:erin").await;
    sidecar.until("agent", "risky", "CONTROL_FAILED").await;
    refused(
        request(&mut alice, &during(&DURING)).await,
        "there is no incident `INC-1`",
    );
    open(&mut erin, "INC-1", "team").await.unwrap();
    let long = Ask { hours: 5, ..DURING };
    refused(
        request(&mut alice, &during(&long)).await,
        "tier INCIDENT permits no more",
    );
    let case = request(&mut alice, &during(&DURING)).await.unwrap();
    assert_eq!(
        (case.state.as_str(), case.tier.as_str()),
        ("PENDING", "INCIDENT")
    );
    assert_eq!(case.open_seats, ["1 on_call for team"]);
    let deadline = case.deadline.unwrap().seconds - case.since.unwrap().seconds;
    assert_eq!(deadline, 900);
    // Not by whoever asked, though they are on call.
    assert_eq!(
        approve(&mut alice, &case).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let begun = approve(&mut erin, &case).await.unwrap();
    assert_eq!(begun.state, "APPROVED");
    let owed = [
        "1 control_owner for team afterwards",
        "1 risk_officer for team afterwards",
    ];
    assert_eq!(begun.open_seats, owed);
    world.clock.advance(seconds(1));
    sidecar.until("agent", "risky", EXCEPTED).await;

    // It ends with the incident, and says so.
    let over = resolve(&mut erin, "INC-1").await.unwrap();
    assert_eq!(over.exceptions, std::slice::from_ref(&case.id));
    sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let ended = look(&mut alice, &case.id).await;
    assert_eq!(
        (ended.state.as_str(), ended.reason.as_str()),
        ("REVOKED", "the incident is resolved")
    );
    refused(
        request(&mut alice, &during(&DURING)).await,
        "`INC-1` is resolved",
    );
    assert_eq!(
        resolve(&mut erin, "INC-1").await.unwrap(),
        over,
        "saying it twice changes nothing"
    );
    open(&mut erin, "INC-1", "team").await.unwrap_err();

    // Two others look at it afterwards; whoever let it happen is none of them.
    let mut bob = world.as_who("user:bob").await;
    let mut carol = world.as_who("user:carol").await;
    let waiting = v1::ListCasesRequest {
        waiting_for_me: true,
        ..v1::ListCasesRequest::default()
    };
    let listed = bob
        .exceptions
        .list_cases(waiting.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.cases.len(), 1);
    approve(&mut erin, &ended).await.unwrap_err();
    let one = approve(&mut bob, &ended).await.unwrap();
    assert_eq!((one.state.as_str(), one.open_seats.len()), ("REVOKED", 1));
    let both = approve(&mut carol, &ended).await.unwrap();
    assert!(both.open_seats.is_empty());
    // And it is written down how it was undone.
    let mut frank = world.as_who("user:frank").await;
    assert_eq!(
        close(&mut frank, &case.id).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let short = v1::CloseOverrideRequest {
        id: case.id.clone(),
        relaxed: "it".into(),
        ..v1::CloseOverrideRequest::default()
    };
    let status = alice.exceptions.close_override(short).await.unwrap_err();
    assert!(
        status.message().contains("`relaxed`") || status.message().contains("relaxed"),
        "{status:?}"
    );
    let closed = close(&mut alice, &case.id).await.unwrap();
    assert!(
        closed
            .record
            .contains("batches need a permission of their own")
    );
    let again = close(&mut alice, &case.id).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
}

/// A4: what HIGH asks of whoever approves is asked of whoever looks at an override afterwards.
#[tokio::test]
async fn a4_whoever_looks_at_it_afterwards_has_seen_the_evidence() {
    let mut world = incident().await;
    let mut alice = world.as_who("user:alice").await;
    let mut erin = world.as_who("user:erin").await;
    let mut bob = world.as_who("user:bob").await;
    open(&mut erin, "INC-1", "team").await.unwrap();
    let more = format!("{}{}", PLAIN.more, DURING.more);
    let shows = Ask {
        more: &more,
        ..DURING
    };
    let case = request(&mut alice, &during(&shows)).await.unwrap();
    let begun = approve(&mut erin, &case).await.unwrap();
    let unseen = v1::DecideRequest {
        reviewed_evidence: Vec::new(),
        ..deciding(&begun)
    };
    let answer = bob.exceptions.decide(unseen).await;
    refused(
        answer.map(|answer| answer.into_inner().case.unwrap()),
        "evidence `scan` was not reviewed",
    );
    let seen = approve(&mut bob, &begun).await.unwrap();
    assert_eq!(seen.open_seats, ["1 risk_officer for team afterwards"]);
}

#[tokio::test]
async fn what_is_overdue_blocks_the_next_override_of_its_domain() {
    let mut world = incident().await;
    let mut alice = world.as_who("user:alice").await;
    let mut erin = world.as_who("user:erin").await;
    let mut bob = world.as_who("user:bob").await;
    let mut carol = world.as_who("user:carol").await;
    world.admin.apply(&agent("second")).await.unwrap();
    open(&mut erin, "INC-1", "team").await.unwrap();
    let case = request(&mut alice, &during(&DURING)).await.unwrap();
    approve(&mut erin, &case).await.unwrap();
    // Whoever looks at it afterwards sees what it began with (A5).
    let exchanged = v1::RequestExceptionRequest {
        file: governed::files(&during(&DURING)).pop(),
        id: case.id.clone(),
        ..v1::RequestExceptionRequest::default()
    };
    let exchanged = alice.exceptions.request_exception(exchanged).await;
    refused(
        exchanged.map(|answer| answer.into_inner().case.unwrap()),
        "looked at afterwards on what it began with",
    );
    let second = Ask {
        agent: "second",
        ..DURING
    };
    request(&mut alice, &during(&second)).await.unwrap();

    world.clock.advance(seconds(24 * HOUR));
    let third = during(&Ask {
        agent: "second",
        hours: 1,
        ..DURING
    });
    refused(
        request(&mut alice, &third).await,
        "its retroactive approval is overdue",
    );
    let ended = until(&mut alice, &case.id, "EXPIRED").await;
    approve(&mut bob, &ended).await.unwrap();
    approve(&mut carol, &ended).await.unwrap();
    request(&mut alice, &third).await.unwrap();
    world.clock.advance(seconds(48 * HOUR));
    refused(
        request(&mut alice, &third).await,
        "its closure record is overdue",
    );
    // Two persons may decide about a waiver meanwhile.
    let evidence =
        "---\n".to_owned() + &agent("second").replace("risk_tier: LOW", "risk_tier: MODERATE");
    world.admin.apply(&evidence).await.unwrap();
    let waiver = Ask {
        agent: "second",
        ..PLAIN
    };
    let escape = ask(&mut alice, &waiver).await.unwrap();
    assert_eq!(
        (escape.tier.as_str(), escape.open_seats.as_slice()),
        (
            "MODERATE",
            &[
                "1 control_owner for team".to_owned(),
                "1 risk_officer for team".to_owned()
            ][..]
        ),
        "R37"
    );
    // What would be granted to whoever asks is decided by two as well.
    let spare = crate::support::cases::spare("spare");
    let lax = crate::support::cases::lax("CT-LAX", "lax");
    world.admin.apply(&(spare + &lax)).await.unwrap();
    let cheap = Ask {
        agent: "spare",
        control: "CT-LAX",
        action: "lax",
        environment: "dev",
        ..PLAIN
    };
    let cheap = ask(&mut alice, &cheap).await.unwrap();
    assert_eq!(
        (cheap.tier.as_str(), cheap.open_seats.len()),
        ("MODERATE", 2)
    );
    let waits = async |client: &mut Client| {
        let answer = client.reports.list_queue(v1::ListQueueRequest::default());
        let items = answer.await.unwrap().into_inner().items;
        let of = |item: &v1::QueueItem| item.exception_id == case.id;
        items.into_iter().find(of)
    };
    let owed = waits(&mut world.admin).await.unwrap();
    assert_eq!(owed.kind(), v1::QueueKind::Closure, "R8");
    assert!(owed.overdue && owed.what == "its closure record is overdue");
    close(&mut alice, &case.id).await.unwrap();
    assert_eq!(waits(&mut world.admin).await, None);
    request(&mut alice, &third).await.unwrap();
}

#[tokio::test]
async fn many_overrides_and_one_that_goes_on_need_two_persons_and_then_a_waiver() {
    let mut world = incident().await;
    let mut alice = world.as_who("user:alice").await;
    let mut erin = world.as_who("user:erin").await;
    let mut carol = world.as_who("user:carol").await;
    let agents: String = (1..=4).map(|n| agent(&format!("a{n}"))).collect();
    world.admin.apply(&agents).await.unwrap();
    open(&mut erin, "INC-1", "team").await.unwrap();
    // A waiver before is none of them: an override goes on from overrides alone.
    let waiver = ask(
        &mut alice,
        &Ask {
            agent: "a1",
            ..PLAIN
        },
    )
    .await
    .unwrap();
    let mut bob = world.as_who("user:bob").await;
    assert_eq!(approve(&mut bob, &waiver).await.unwrap().state, "APPROVED");
    let names = ["a1", "a2", "a3"];
    for agent in names {
        let case = request(
            &mut alice,
            &during(&Ask {
                agent,
                hours: 1,
                ..DURING
            }),
        )
        .await
        .unwrap();
        assert_eq!(case.open_seats.len(), 1, "{agent}");
        approve(&mut erin, &case).await.unwrap();
    }
    // The fourth within thirty days.
    let fourth = request(
        &mut alice,
        &during(&Ask {
            agent: "a4",
            ..DURING
        }),
    )
    .await
    .unwrap();
    assert_eq!(
        fourth.open_seats,
        ["1 on_call for team", "1 risk_officer for team"]
    );
    let one = approve(&mut erin, &fourth).await.unwrap();
    assert_eq!(one.state, "PENDING");
    let status = approve(&mut carol, &fourth).await;
    // Carol is the only other risk officer beside bob, who would look at it afterwards.
    assert_eq!(status.unwrap().state, "APPROVED");
    // That is the normal path, and the control's owner hears of it.
    world.clock.advance(seconds(3_601));
    let found = world.admin.until_found("EXG-REDESIGN").await;
    assert_eq!(found.subject, fourth.control_ids[0]);
    assert!(
        found.message.contains("4 overrides within 30 days"),
        "{found:?}"
    );
    // Beyond a month ago it would be one again; what goes on needs two as well, and ends there.
    let again = request(
        &mut alice,
        &during(&Ask {
            agent: "a1",
            hours: 1,
            ..DURING
        }),
    )
    .await
    .unwrap();
    assert_eq!(again.open_seats.len(), 2);
    approve(&mut erin, &again).await.unwrap();
    approve(&mut carol, &again).await.unwrap();
    let third = request(
        &mut alice,
        &during(&Ask {
            agent: "a1",
            hours: 1,
            ..DURING
        }),
    )
    .await;
    refused(third, "was overridden 2 times already");
}

#[tokio::test]
async fn who_is_on_call_begins_alone_only_where_every_domain_says_so() {
    let mut world = incident().await;
    let mut alice = world.as_who("user:alice").await;
    let mut erin = world.as_who("user:erin").await;
    let mut bob = world.as_who("user:bob").await;
    let team = |more: &str| {
        format!(
            "---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\nparent: all\napprover_groups: {{control_owner: owners, risk_officer: risk, on_call: oncall}}\n{more}"
        )
    };
    let all = |more: &str| domain("all") + "approver_groups: {risk_officer: risk}\n" + more;
    open(&mut erin, "INC-1", "team").await.unwrap();
    let yes = "incident_self_activation: true\n";
    let no = "incident_self_activation: false\n";
    for (above, here, alone) in [
        ("", "", false),
        (no, yes, false),
        (yes, no, false),
        (yes, "", true),
        ("", yes, true),
    ] {
        world
            .admin
            .apply(&(all(above) + &team(here)))
            .await
            .unwrap();
        let dry = v1::RequestExceptionRequest {
            file: governed::files(&during(&DURING)).pop(),
            dry_run: true,
            ..v1::RequestExceptionRequest::default()
        };
        let answer = alice.exceptions.request_exception(dry).await.unwrap();
        let state = answer.into_inner().case.unwrap().state;
        assert_eq!(state == "APPROVED", alone, "{above}{here}");
    }
    // Bob is not on call.
    let bobs = during(&DURING).replace("owner: user:alice", "owner: user:bob");
    let waits = request(&mut bob, &bobs).await.unwrap();
    assert_eq!(waits.state, "PENDING");
    let begun = request(&mut alice, &during(&DURING)).await.unwrap();
    assert_eq!(
        (begun.state.as_str(), begun.reason.as_str()),
        ("APPROVED", "begun by who is on call")
    );
    assert_eq!(begun.open_seats.len(), 2, "what is owed afterwards stays");
}

#[tokio::test]
async fn incidents_are_declared_by_who_deals_with_them_and_reach_no_further() {
    let mut world = incident().await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let token = world
        .admin
        .let_in("service:pager", v1::Role::Integration, &[])
        .await;
    let mut pager = world.registry.client_with(&token).await;
    let status = open(&mut bob, "INC-1", "team").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = open(&mut pager, "INC-1", "nowhere").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    open(&mut pager, "INC-1", "other").await.unwrap();
    refused(
        request(&mut alice, &during(&DURING)).await,
        "is of domain `other`",
    );
    let missing = during(&Ask { more: "", ..DURING });
    refused(request(&mut alice, &missing).await, "incident_ref");
    resolve(&mut pager, "INC-2").await.unwrap_err();
    resolve(&mut bob, "INC-1").await.unwrap_err();
    resolve(&mut pager, "INC-1").await.unwrap();
    // An integration does nothing else.
    let status = pager
        .apply(&control("CT-9", "x", "true"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let listed = |all| v1::ListIncidentsRequest { all };
    let open = alice
        .incidents
        .list_incidents(listed(false))
        .await
        .unwrap()
        .into_inner();
    let all = alice
        .incidents
        .list_incidents(listed(true))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((open.incidents.len(), all.incidents.len()), (0, 1));
    // Nobody applies one.
    let applied = "apiVersion: exeat/v1\nkind: Incident\nid: INC-3\n";
    let status = world.admin.apply(applied).await.unwrap_err();
    assert!(
        status.message().contains("exeat incident open"),
        "{}",
        status.message()
    );
}
