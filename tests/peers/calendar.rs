//! The named edge cases (governance §5) that take minutes to months, with the programs that people
//! have: their wall clocks are moved by a layer that is loaded before the C library.

use std::{fs, path::PathBuf, process::Command};

use exeat::{runtime::clock::Clock, wire::v1};
use tonic::transport::Channel;

use crate::support::{
    authority::Authority,
    cases::{Ask, DAY, EXCEPTED, PLAIN, agent, lax, spare},
    governed::{Sidecar, control, exception_until, seconds, subject},
    processes::{Fleet, used},
    stage::{Stage, at, state, text},
};

const HOUR: i64 = 3_600;
const TWO: &str = "usage_limits: {max_uses: 10}\nevidence:\n- {evidence_id: scan, digest: \"sha256:5ca0\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}\n- {evidence_id: test, digest: \"sha256:7e57\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}\n";

/// The wall clocks of programs, by the first argument of each.
struct Calendar {
    folder: PathBuf,
    began: exeat::domain::Timestamp,
    passed: i64,
}

impl Calendar {
    /// That of whatever `fleet` starts, which is the machine's as yet.
    fn of(fleet: &mut Fleet) -> Self {
        let layer = fleet.path("clock.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", &layer])
            .arg("tests/peers/clock.c")
            .arg("-ldl")
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "this test builds tests/peers/clock.c with `cc`: install a C compiler"
        );
        let folder = fleet.path("clocks");
        fs::create_dir(&folder).unwrap();
        fleet.set = vec![
            ("LD_PRELOAD".to_owned(), layer),
            ("CLOCK".to_owned(), folder.clone()),
        ];
        Self {
            folder: folder.into(),
            began: Clock::system().now().latest,
            passed: 0,
        }
    }

    async fn stage() -> (Self, Stage) {
        let mut fleet = Fleet::new();
        let calendar = Self::of(&mut fleet);
        (calendar, Stage::start_in(fleet).await)
    }

    /// How far a program's clock is ahead from now on; never seen half.
    fn ahead(&self, program: &str, seconds: i64) {
        let beside = self.folder.join("new");
        fs::write(&beside, seconds.to_string()).unwrap();
        fs::rename(beside, self.folder.join(program)).unwrap();
    }

    /// So much time passes for everybody, and what is known of `agents` is as new as it was.
    fn pass(&mut self, stage: &mut Stage, span: i64, agents: &[&str]) {
        self.passed += span;
        for program in ["registry", "sidecar", "all"] {
            self.ahead(program, self.passed);
        }
        stage.now = self.began + seconds(self.passed);
        let agents: String = agents.iter().map(|id| agent(id)).collect();
        stage.apply(&agents);
    }
}

/// Clock skew: where no registry says what time it is, a clock that was set back a minute leaves it open
/// what is over, and nothing is honoured until it is right again.
#[tokio::test]
async fn t2_a_clock_a_minute_off_ends_exceptions_while_it_is() {
    let mut fleet = Fleet::new();
    let calendar = Calendar::of(&mut fleet);
    let _process = fleet.alone(&used(Clock::system().now().latest + seconds(-300)));
    let sidecar = fleet.answers().await;
    sidecar.until("agent", "risky", EXCEPTED).await;
    calendar.ahead("sidecar", -60);
    sidecar.until("agent", "risky", "CLOCK_SKEW").await;
    assert_eq!(sidecar.outcome("agent", "plain").await, "ALLOW OK");
    calendar.ahead("sidecar", 0);
    sidecar.until("agent", "risky", EXCEPTED).await;
}

/// Clock skew: a sidecar that hears a registry goes by its time, ten minutes slow or not.
#[tokio::test]
async fn t1_a_sidecar_ten_minutes_slow_ends_what_is_over() {
    let mut fleet = Fleet::new();
    let calendar = Calendar::of(&mut fleet);
    calendar.ahead("sidecar", -600);
    let stage = Stage::start_in(fleet).await;
    stage.apply(&(spare("dev") + &lax("CT-A", "a")));
    let short = Ask {
        control: "CT-A",
        action: "a",
        agent: "dev",
        environment: "dev",
        ..PLAIN
    };
    let short = short.text().replace("duration: 48h", "duration: 8s");
    stage.asks("alice", &short);
    stage.sidecar.until("dev", "a", EXCEPTED).await;
    stage.sidecar.until("dev", "a", "EXC_EXPIRED").await;
}

/// Temporary is not permanent: whoever sweeps is stopped, and what is over is refused all the same; the
/// run says that it is open, and so does the command line.
#[tokio::test]
async fn an_end_needs_nobody_who_sweeps() {
    let (calendar, stage) = Calendar::stage().await;
    let id = stage.granted().await;
    stage.registry.as_ref().unwrap().signal("STOP");
    calendar.ahead("sidecar", 49 * HOUR);
    stage
        .sidecar
        .until("agent", "risky", "DENY CONTROL_FAILED")
        .await;
    assert_eq!(stage.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    calendar.ahead("registry", 49 * HOUR);
    calendar.ahead("all", 49 * HOUR);
    stage.registry.as_ref().unwrap().signal("CONT");
    stage.until_shows(&id, "EXPIRED").await;
    stage.sidecar.until("agent", "risky", "EXC_EXPIRED").await;
    let listed = stage.says("alice", "exception list");
    let line = listed.lines().find(|line| line.contains(&id));
    assert!(line.is_none_or(|line| line.contains("EXPIRED")), "{listed}");
}

/// Temporary is not permanent: five in a row under new names come to an end at the cap.
#[tokio::test]
async fn whoever_asks_anew_and_anew_comes_to_the_cap() {
    let (mut calendar, mut stage) = Calendar::stage().await;
    stage.apply("---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:dave\napprover_groups: {control_owner: owners, risk_officer: risk}\n");
    let month = Ask {
        hours: 24 * 30,
        ..PLAIN
    };
    let fortnight = Ask {
        hours: 24 * 14,
        more: TWO,
        ..PLAIN
    };
    stage.let_in("dave").await;
    // From the third on it is a matter of HIGH, which may cover a quarter of a year's days.
    for (ask, tier, deciders) in [
        (&month, "MODERATE", &["bob"][..]),
        (&month, "MODERATE", &["bob"]),
        (&fortnight, "HIGH", &["bob", "carol", "dave"]),
        (&fortnight, "HIGH", &["bob", "carol", "dave"]),
    ] {
        let case = stage.asks("alice", &ask.text());
        assert_eq!(text(&case, "/case/terms/tier"), tier, "{case}");
        for who in deciders {
            stage.says(who, &Stage::approval(&case));
        }
        let id = text(&case, "/case/id");
        assert_eq!(state(&stage.shows(&id)), "APPROVED", "{case}");
        calendar.pass(&mut stage, ask.hours * HOUR + 60, &["agent"]);
        stage.until_shows(&id, "EXPIRED").await;
    }
    stage.write(&fortnight.text());
    let cap = ["28% of a year", "HIGH permits 25%"];
    stage.refuses("alice", "exception request -f a.yaml", &cap);
}

/// Exceptions legitimise poor controls: what its control did not need for two weeks is closed as that.
#[tokio::test]
async fn what_its_control_never_needed_is_closed_as_that() {
    let (mut calendar, mut stage) = Calendar::stage().await;
    let more = format!("{}preemptive: true\n", PLAIN.more);
    let spare = Ask {
        control: "CT-PLAIN",
        action: "plain",
        hours: 24 * 20,
        more: &more,
        ..PLAIN
    };
    let case = stage.asks("alice", &spare.text());
    stage.says("bob", &Stage::approval(&case));
    let id = text(&case, "/case/id");
    // Asked for once it holds, and told by a sidecar that stops.
    let active = |line: &str| line.starts_with("exeat_exceptions_active") && line.ends_with(" 1");
    let page = |page: &str| page.lines().any(active);
    stage.sidecar.until_page(page).await;
    stage
        .sidecar
        .until_exactly("agent", "plain", "ALLOW OK")
        .await;
    stage.process.signal("TERM");
    assert!(stage.process.0.wait().unwrap().success());
    stage.process = stage.fleet.sidecar();
    stage.sidecar = stage.fleet.answers().await;
    let not_needed = |used: &v1::GetUsageResponse| used.not_needed > 0;
    stage.client.until_used(&id, not_needed).await;
    calendar.pass(&mut stage, 13 * DAY, &["agent"]);
    stage.says("bob", &Stage::approval(&stage.shows(&id)));
    calendar.pass(&mut stage, DAY + HOUR, &["agent"]);
    let closed = stage.until_shows(&id, "CLOSED").await;
    let why = text(&closed, "/case/reason");
    assert!(why.contains("not needed for 14d"), "{why}");
}

/// Incident override: whoever leaves its closure open for three days gets no other one.
#[tokio::test]
async fn a_closure_that_is_owed_stands_in_the_way_of_the_next() {
    const ON_CALL: &str = "---\napiVersion: exeat/v1\nkind: Person\nid: user:erin\n---\napiVersion: exeat/v1\nkind: Group\nid: oncall\nmembers: [\"user:alice\", \"user:erin\"]\n---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\napprover_groups: {control_owner: owners, risk_officer: risk, on_call: oncall}\n";
    let (mut calendar, mut stage) = Calendar::stage().await;
    stage.apply(ON_CALL);
    stage.let_in("erin").await;
    let during = Ask {
        hours: 2,
        more: "incident_ref: INC-1\n",
        ..PLAIN
    };
    let during = during.text().replace("WAIVER", "INCIDENT_OVERRIDE");
    let open = "incident open INC-1 --domain team --title exports-fail";
    stage.says("erin", open);
    let case = stage.asks("alice", &during);
    stage.says("erin", &Stage::approval(&case));
    stage.sidecar.until("agent", "risky", EXCEPTED).await;
    stage.says("erin", "incident resolve INC-1");
    stage.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    // Two look back at it in time; what came of it nobody writes.
    let ended = stage.shows(&text(&case, "/case/id"));
    for who in ["bob", "carol"] {
        stage.says(who, &Stage::approval(&ended));
    }
    calendar.pass(&mut stage, 72 * HOUR + 60, &["agent"]);
    stage.says("erin", &open.replace("INC-1", "INC-2"));
    stage.write(&during.replace("INC-1", "INC-2"));
    let owed = ["closure record is overdue"];
    stage.refuses("alice", "exception request -f a.yaml", &owed);
}

/// An instance, by a connection and a certificate of its own.
struct Instance(Channel);

impl Instance {
    async fn says(&self, action: &str) -> String {
        let decision = match Sidecar::ask_over(self.0.clone(), "", action).await {
            Ok(decision) => decision,
            Err(status) => return status.to_string(),
        };
        let outcome = decision.outcome().as_str_name();
        let reasons = decision.reasons().map(|reason| reason.as_str_name());
        let said: Vec<_> = std::iter::once(outcome).chain(reasons).collect();
        said.join(" ")
            .replace("OUTCOME_", "")
            .replace("REASON_", "")
    }

    async fn until(&self, action: &str, wanted: &str) {
        let mut said = String::new();
        for _ in 0..3_000 {
            said = self.says(action).await;
            if said.contains(wanted) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("never {wanted}: {said}");
    }
}

/// Registry outpaced: a thousand instances that nobody registered are governed by their class at
/// once; without the registry their exceptions end with the lease, and locks and denials do not.
#[tokio::test]
async fn r31_a_thousand_instances_that_nobody_registered_are_governed_by_their_class() {
    let name = |n: usize| format!("spiffe://acme.example/agent/a-{n}");
    let authority = Authority::new();
    let mut fleet = Fleet::new();
    let (certificate, key) = authority.issue("spiffe://acme.example/sidecar");
    let mut flags = vec!["--trust-domain".to_owned(), "acme.example".into()];
    for (flag, text) in [
        ("tls-certificate", certificate.pem()),
        ("tls-key", key.serialize_pem()),
        ("tls-client-ca", authority.certificate.pem()),
    ] {
        let path = fleet.path(flag);
        fs::write(&path, text).unwrap();
        flags.extend([format!("--{flag}"), path]);
    }
    fleet.flags = flags;
    let registry = fleet.registry();
    let mut client = fleet.client().await;
    let now = Clock::system().now().latest;
    let class = subject("support", Some("team"))
        + "instances: {identities: [\"spiffe://acme.example/agent/\"]}\n";
    let until = (now + seconds(DAY)).to_string();
    let excepted = exception_until("EX-C", "CT-RISKY", "support", &until)
        .replace("ids: [\"support\"]", "class_ids: [support]")
        .replace("2026-11-22T11:00:00Z", &now.to_string());
    let soon = "---\napiVersion: exeat/v1\nkind: TierPolicy\ntier: LOW\nlease_ttl: 5s\nmax_staleness: 5s\nstale_mode: STRICT\n";
    let domain = crate::support::governed::domain("team");
    let world = control("CT-RISKY", "risky", "true")
        + &control("CT-HARD", "hard", "true").replace("SOFT_MANDATORY", "HARD_MANDATORY")
        + &control("CT-PLAIN", "plain", "false")
        + &class
        + &excepted
        + &domain
        + soon;
    client.apply(&at(&world, now)).await.unwrap();
    fleet.let_in(&mut client).await;
    let _process = fleet.sidecar();
    let first = loop {
        if let Ok(channel) = authority.connect(&fleet.listen, &name(0)).await {
            break Instance(channel);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    first.until("plain", "ALLOW OK").await;
    let mut instances = vec![first];
    for n in 1..1_000 {
        let channel = authority.connect(&fleet.listen, &name(n)).await.unwrap();
        let instance = Instance(channel);
        instance.until("hard", "DENY HARD_MANDATORY").await;
        instance.until("risky", EXCEPTED).await;
        instances.push(instance);
    }
    let request = v1::ListInstancesRequest {};
    let listed = client.fleet.list_instances(request).await.unwrap();
    let listed = listed.into_inner().instances;
    assert_eq!(listed.len(), 1_000);
    assert!(listed.iter().all(|one| one.class == "support"));
    let request = v1::FreezeRequest {
        subject: name(1),
        note: "looked at".into(),
    };
    client.revocations.freeze(request).await.unwrap();
    instances[1].until("plain", "SUBJECT_LOCKED").await;
    drop(registry);
    instances[999].until("risky", "EXC_LEASE_LAPSED").await;
    assert_eq!(instances[999].says("plain").await, "ALLOW OK");
    assert_eq!(instances[999].says("hard").await, "DENY HARD_MANDATORY");
    assert_eq!(instances[1].says("plain").await, "DENY SUBJECT_LOCKED");
}
