//! The named edge cases (governance §5), each with the programs that people have: a registry, a
//! sidecar and the command line, by the system's clock.

use crate::support::{
    cases::{Ask, EXCEPTED, PLAIN, World, agent, approve, lax, spare},
    governed::{control, files, seconds},
    processes::Fleet,
    stage::{Stage, at, state, text},
};
use exeat::{runtime::clock::Clock, wire::v1};
use serde_json::Value as Json;

const TWO: &str = "usage_limits: {max_uses: 10}\nevidence:\n- {evidence_id: scan, digest: \"sha256:5ca0\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}\n- {evidence_id: test, digest: \"sha256:7e57\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}\n";

/// Approved model, changed context; registry outpaced.
#[tokio::test]
async fn a_tool_that_changed_ends_the_exception_while_nobody_hears_the_registry() {
    let mut stage = Stage::start().await;
    stage.granted().await;
    drop(stage.registry.take());
    let ask = "check agent t --type thing --action risky -c purpose=work";
    assert!(stage.says("alice", ask).contains("ALLOWED by exception"));
    let other = format!("{ask} --observed tools=sha256:{}", "0".repeat(64));
    stage.refuses("alice", &other, &["you see another tools than is governed"]);
    assert!(
        stage
            .says("alice", &ask.replace("risky", "plain"))
            .contains("ALLOWED")
    );
}

/// Change while pending; tier gaming; approver collusion.
#[tokio::test]
async fn two_persons_decide_on_what_is_there_and_nobody_chooses_the_tier() {
    let stage = Stage::start().await;
    let risky = agent("agent").replace("risk_tier: LOW", "risk_tier: HIGH");
    stage.apply(&risky);
    let high = Ask { more: TWO, ..PLAIN }.text();
    stage.write(&(high.clone() + "tier: LOW\n"));
    stage.refuses(
        "alice",
        "exception request -f a.yaml",
        &["unknown field `tier`"],
    );
    let case = stage.asks("alice", &high);
    assert_eq!(text(&case, "/case/terms/tier"), "HIGH");
    let approval = Stage::approval(&case);
    stage.refuses("alice", &approval, &["PermissionDenied"]);
    stage.says("bob", &approval);
    // The same person under another name, who is of the other group.
    stage.refuses("bob2", &approval, &["one person counts once"]);
    // What it is about changes before the second vote.
    stage.apply(&risky.replace("permitted_ids: [work]", "permitted_ids: [work, play]"));
    stage.refuses("carol", &approval, &["FailedPrecondition"]);
    let id = text(&case, "/case/id");
    let after = stage.shows(&id);
    assert_eq!(state(&after), "DRAFT", "{after}");
    stage.says("alice", &format!("exception amend {id}"));
    let again = stage.shows(&id);
    let open = again.pointer("/openSeats").and_then(Json::as_array);
    assert_eq!(open.map(Vec::len), Some(2), "bob's vote is void: {again}");
    for who in ["bob", "carol"] {
        stage.says(who, &Stage::approval(&again));
    }
    stage.sidecar.until("agent", "risky", EXCEPTED).await;
}

/// Temporary is not permanent; retired subject.
#[tokio::test]
async fn an_end_is_an_end_and_whoever_retires_takes_exceptions_along() {
    let stage = Stage::start().await;
    stage.apply(&(spare("dev") + &lax("CT-A", "a")));
    let short = Ask {
        control: "CT-A",
        action: "a",
        agent: "dev",
        environment: "dev",
        ..PLAIN
    };
    let short = short.text().replace("duration: 48h", "duration: 8s");
    let case = stage.asks("alice", &short);
    assert_eq!(state(&case), "APPROVED", "{case}");
    stage.sidecar.until("dev", "a", EXCEPTED).await;
    stage.sidecar.until("dev", "a", "EXC_EXPIRED").await;
    let id = stage.granted().await;
    stage.apply(&agent("agent").replace("lifecycle_state: ACTIVE", "lifecycle_state: RETIRED"));
    assert_eq!(state(&stage.shows(&id)), "REVOKED");
    stage
        .sidecar
        .until("agent", "risky", "SUBJECT_RETIRED")
        .await;
}

/// Incident override: it ends with its incident.
#[tokio::test]
async fn an_override_ends_with_its_incident() {
    let stage = Stage::start().await;
    stage.apply("---\napiVersion: exeat/v1\nkind: Group\nid: oncall\nmembers: [\"user:alice\", \"user:carol\"]\n---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\napprover_groups: {control_owner: owners, risk_officer: risk, on_call: oncall}\n");
    stage.says(
        "carol",
        "incident open INC-1 --domain team --title exports-fail",
    );
    let during = Ask {
        hours: 2,
        more: "incident_ref: INC-1\n",
        ..PLAIN
    };
    let during = during.text().replace("WAIVER", "INCIDENT_OVERRIDE");
    let case = stage.asks("alice", &during);
    stage.says("carol", &Stage::approval(&case));
    stage.sidecar.until("agent", "risky", EXCEPTED).await;
    stage.says("carol", "incident resolve INC-1");
    stage.sidecar.until("agent", "risky", "EXC_REVOKED").await;
}

/// Weakening the control instead of asking; quorum zero; auto-approval flood.
#[tokio::test]
async fn what_is_asked_for_is_not_taken_another_way() {
    let stage = Stage::start().await;
    stage.write(&control("CT-RISKY", "risky", "false"));
    stage.refuses("admin", "apply -f a.yaml", &["CT-RISKY", "propose"]);
    stage.write("apiVersion: exeat/v1\nkind: TierPolicy\ntier: HIGH\napproval_stages: [{role: RISK_OFFICER, quorum: 0}]\n");
    stage.refuses("admin", "apply -f a.yaml", &["a.yaml:4", "quorum", "0"]);
    let mut text = spare("dev");
    for n in 0..3 {
        text += &lax(&format!("CT-{n}"), &format!("a{n}"));
    }
    stage.apply(&text);
    let mut states = Vec::new();
    for n in 0..3 {
        let (control, action) = (format!("CT-{n}"), format!("a{n}"));
        let low = Ask {
            control: &control,
            action: &action,
            agent: "dev",
            environment: "dev",
            ..PLAIN
        };
        states.push(state(&stage.asks("alice", &low.text())));
    }
    assert_eq!(states, ["APPROVED", "APPROVED", "PENDING"]);
}

/// Exposed upstream secret: no exception of that subject holds.
#[tokio::test]
async fn an_exposed_secret_stops_every_exception_of_its_subject() {
    let stage = Stage::start().await;
    let gate = control(
        "CT-GATE",
        "other",
        "subject.credentials.exists(c, c.exposed)",
    )
    .replace("SOFT_MANDATORY", "HARD_MANDATORY\nbaseline_gate: true");
    let with = |exposed: bool| {
        agent("agent")
            + &format!(
                "  credentials: {{source: s, observed_time: \"2026-11-22T11:59:00Z\", completeness: COMPLETE}}\ncredentials:\n  - {{id: key-1, kind: API_KEY, state: ACTIVE, store: SECRET_MANAGER, exposed: {exposed}}}\n"
            )
    };
    stage.apply(&(gate + &with(false)));
    let id = stage.granted().await;
    stage.apply(&with(true));
    // The gate alone makes it ineffective; soon the registry has suspended it.
    stage.sidecar.until("agent", "risky", "EXC_SUSPENDED").await;
    let suspended = stage.shows(&id);
    assert!(
        text(&suspended, "/case/reason").contains("CT-GATE"),
        "{suspended}"
    );
    stage
        .sidecar
        .until_exactly("agent", "plain", "ALLOW OK")
        .await;
    stage.apply(&with(false));
    stage.sidecar.until("agent", "risky", EXCEPTED).await;
}

/// Revocation lost: nobody is told that all is safe while one that cannot hear goes on, whatever the
/// registry has forgotten over a restart.
#[tokio::test]
async fn a_registry_that_restarts_knows_who_has_not_heard() {
    let mut stage = Stage::start().await;
    assert_eq!(stage.tries("bob", "status").0, 0);
    stage.process.signal("STOP");
    stage.tries("admin", "agent freeze agent");
    for restarts in [false, true] {
        if restarts {
            stage.restarts().await;
        }
        let (code, said) = stage.tries("bob", "status");
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("1 sidecars have not acknowledged"), "{said}");
    }
    let said = stage.says("bob", "sidecars");
    assert!(said.contains("service:s"), "{said}");
    stage.process.signal("CONT");
    stage
        .sidecar
        .until("agent", "plain", "SUBJECT_LOCKED")
        .await;
}

/// Revocation lost: a sidecar that cannot hear is told of, with the instant that bounds it.
#[tokio::test]
async fn a_sidecar_that_does_not_hear_is_outstanding_until_it_does() {
    let mut stage = Stage::start().await;
    let id = stage.granted().await;
    stage.process.signal("STOP");
    let said = stage.says("bob", &format!("exception revoke {id}"));
    for part in [
        "0 acknowledged, 1 outstanding",
        "service:s may honour it until",
        "nobody can honour it after",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    stage.process.signal("CONT");
    stage.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    let receipt = stage.client.receipt(1, true).await;
    assert_eq!(
        receipt.completion(),
        v1::Completion::Complete,
        "{receipt:?}"
    );
}

/// A denial says how to ask, and what it says to do leads to the answer.
#[tokio::test]
async fn a_denial_leads_to_its_exception() {
    let stage = Stage::start().await;
    stage.sidecar.until("agent", "plain", "ALLOW").await;
    let ask = "check agent t --type thing --action risky -c purpose=work";
    let (code, denied) = stage.tries("alice", ask);
    assert_eq!(code, 4, "{denied}");
    let told_ = "can be requested: exeat ";
    let (_, line) = denied.split_once(told_).expect(&denied);
    let line = line.lines().next().unwrap();
    let empty = stage.says("alice", line);
    assert!(
        empty.contains("fill in business_need, risk_statement"),
        "{empty}"
    );
    let words = "the-quarter-closes-on-Friday-and-the-batch-has-to-run";
    let full = format!(
        "{line} --why {words} --risk {words} --plan {words} --ticket T-7 --owner user:alice --duration 8h"
    );
    let drafted = stage.says("alice", &full);
    // What is printed for people beside it goes to standard error.
    let manifest = drafted.split("ask for it with").next().unwrap();
    let scan = PLAIN.more.trim_end();
    stage.write(&format!("{manifest}{scan}\n"));
    let case = stage.says("alice", "exception request -f a.yaml -o json");
    let case: Json = serde_json::from_str(case.lines().next().unwrap()).unwrap();
    let scope = case.pointer("/case/request/scope").unwrap();
    let just = serde_json::json!({"subject_selector": {"ids": ["agent"]}, "actions": ["risky"], "resources": ["t"], "environments": ["prod"], "purposes": ["work"]});
    assert_eq!(*scope, just);
    stage.says("bob", &Stage::approval(&case));
    stage.sidecar.until("agent", "risky", EXCEPTED).await;
    let told = stage.says("bob", "status");
    let id = text(&case, "/case/id");
    for part in [
        "1 exception that was requested holds\n",
        &format!("{id} ends"),
        "ledger of ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // What a manifest takes for more than was asked is left to a person.
    let (_, denied) = stage.tries(
        "alice",
        &ask.replace("check agent t", "check agent mcp://t/")
            .replace(" -c purpose=work", " -c purpose=ANY"),
    );
    let (_, line) = denied.split_once(told_).expect(&denied);
    let wide = stage.says("alice", line.lines().next().unwrap());
    for part in [
        "resources: []",
        "purposes: []",
        "resources, purposes, and ask",
    ] {
        assert!(wide.contains(part), "{part}: {wide}");
    }
    // Nothing is drafted from what was allowed.
    let allowed = stage.says("alice", &ask.replace("risky", "plain"));
    let id = allowed
        .split_whitespace()
        .find(|word| word.starts_with("dec_"))
        .unwrap();
    stage.refuses(
        "alice",
        &format!("exception draft {id}"),
        &["no exception can be requested"],
    );
}

/// Domain semantics: a domain has words of its own, tightens what is above it, and loosens nothing.
#[tokio::test]
async fn a_domain_has_its_own_words_and_only_tightens() {
    let stage = Stage::start().await;
    let inner = |rules: &str| {
        format!(
            "apiVersion: exeat/v1\nkind: Domain\nid: inner\nparent: team\ndisplay_name: Inner\nowner: user:o\nvocabulary: {{dispensation: WAIVER}}\ntier_policy_overrides: {{MODERATE: {{{rules}}}}}\n"
        )
    };
    stage.write(&inner("max_duration: 31d"));
    stage.refuses(
        "admin",
        "apply -f a.yaml",
        &["a.yaml:8", "MODERATE.max_duration"],
    );
    let deep = agent("deep").replace("domain: team", "domain: inner");
    stage.apply(&(inner("max_duration: 24h") + &deep));
    let tier = stage.says("admin", "tier MODERATE --domain inner -o json");
    let above = stage.says("admin", "tier MODERATE --domain team -o json");
    let most = |said: &str, days: u8| said.contains(&format!("\"max_duration\":\"{days}d\""));
    assert!(most(&tier, 1) && most(&above, 30), "{tier}\n{above}");
    let asked = |word: &str, hours: i64| {
        let ask = Ask {
            agent: "deep",
            hours,
            ..PLAIN
        };
        ask.text()
            .replace("deviation_type: WAIVER", &format!("local_term: {word}"))
    };
    for (word, hours, why) in [
        ("dispensation", 48, "window.duration"),
        ("indulgence", 24, "`indulgence` is no word"),
    ] {
        stage.write(&asked(word, hours));
        stage.refuses("alice", "exception request -f a.yaml", &[why]);
    }
    let case = stage.asks("alice", &asked("dispensation", 24));
    let kind = text(&case, "/case/request/deviation_type");
    assert_eq!(kind, "WAIVER");
}

/// Third-party tool call: a tool that is new, or that its vendor changed, is denied, and it is said
/// what to do.
#[tokio::test]
async fn a_tool_that_nobody_approved_is_denied_with_its_remedy() {
    let stage = Stage::start().await;
    let control = std::fs::read_to_string("examples/policy/controls/exg-tol-01.yaml").unwrap();
    let refund = "tools:\n- {server: \"mcp://pay\", name: refund, definition_digest: \"sha256:t2\", permissions: [payment], third_party: true, approved: true}\n";
    let control = control.replace("user:security-lead", "user:o");
    let applied = stage.applied(&(control + &agent("agent") + refund));
    let asked = |tool: &str, digest: &str| {
        format!("check agent mcp://pay/{tool} -a definition_digest=sha256:{digest} -c purpose=work")
    };
    let holds = format!("exeat_snapshot_revision {applied}\n");
    stage.sidecar.until_page(|page| page.contains(&holds)).await;
    assert!(
        stage
            .says("alice", &asked("refund", "t2"))
            .contains("ALLOWED")
    );
    for (tool, digest) in [("refund", "changed"), ("wire", "t2")] {
        let parts = [
            "EXG-TOL-01",
            "Review the tool and approve its new definition",
        ];
        stage.refuses("alice", &asked(tool, digest), &parts);
    }
}

/// Clock skew: a sidecar whose clock is minutes slow goes by the registry's time, which it hears, and
/// keeps nothing that is over by that.
#[tokio::test]
async fn a_sidecar_whose_clock_is_slow_keeps_nothing_that_is_over() {
    let began = Clock::system().now().latest + seconds(60);
    let mut world = World::start_from(began, &[]).await;
    let mut alice = world.as_who("user:alice").await;
    let mut bob = world.as_who("user:bob").await;
    let start = began + seconds(90);
    let later = format!("window: {{start_time: \"{start}\", duration: 1h}}");
    let later = PLAIN.text().replace("window: {duration: 48h}", &later);
    let request = v1::RequestExceptionRequest {
        file: files(&at(&later, began)).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = alice.exceptions.request_exception(request).await.unwrap();
    let case = answer.into_inner().case.unwrap();
    approve(&mut bob, &case).await.unwrap();
    let mut fleet = Fleet::new();
    fleet.registry_at = world.registry.address.clone();
    fleet.let_in(&mut world.admin).await;
    let _process = fleet.sidecar();
    let sidecar = fleet.answers().await;
    sidecar
        .until("agent", "risky", "EXC_NOT_YET_EFFECTIVE")
        .await;
    // That it begins changes nothing at the registry: only its time tells.
    world.clock.advance(seconds(95));
    sidecar.until("agent", "risky", EXCEPTED).await;
    assert!(
        Clock::system().now().latest < start,
        "by its own clock it is early"
    );
    world.clock.advance(seconds(3_600));
    sidecar.until("agent", "risky", "EXC_EXPIRED").await;
    assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
}

/// Telemetry loss: where no use can be kept nothing is excepted, and nothing of what was kept is lost.
#[tokio::test]
async fn a_full_spool_ends_exceptions_until_it_is_told() {
    let mut stage = Stage::start_with(&["--evidence-size", "1MiB"]).await;
    let id = stage.granted().await;
    drop(stage.registry.take());
    let mut uses = 0;
    let why = loop {
        uses += 1;
        assert!(uses < 20_000, "the spool is never full");
        let decision = match stage.sidecar.ask("agent", "risky").await {
            // A busy machine may be late, and who is told nothing was allowed nothing.
            Err(late) if late.code() == tonic::Code::DeadlineExceeded => continue,
            told => told.unwrap(),
        };
        if decision.outcome() != v1::Outcome::AllowByException {
            break decision;
        }
    };
    let full = v1::Reason::ExcEvidenceUnavailable;
    assert!(why.reasons().any(|reason| reason == full), "{why:?}");
    assert_eq!(stage.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    stage.restarts().await;
    stage.sidecar.until("agent", "risky", EXCEPTED).await;
    let used = stage.client.until_used(&id, |used| used.uses >= uses).await;
    assert!(uses > 0 && used.uses >= uses, "{uses}");
    let said = stage.says("alice", &format!("exception usage {id}"));
    assert!(said.contains("all in scope"), "{said}");
}
