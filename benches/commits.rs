//! How long an apply, a request, a vote and a revocation take from the call to the answer: each is one
//! transaction of a registry of its own process, synced to disk before it answers.
//!
//! `cargo bench --bench commits`; one caller, one call at a time.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "a bench measures, prints and may fail"
)]

#[path = "../tests/support/governed.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]
mod governed;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use exeat::{runtime::clock::Clock, wire::v1};
use governed::{Client, control, files, subject};
use tonic::transport::{Channel, Endpoint};

const ROUNDS: usize = 200;
/// Of one owner, and of one control: as many as are approved automatically.
const AT_ONCE: usize = 10;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn print(what: &str, mut took: Vec<f64>) {
    took.sort_by(f64::total_cmp);
    let at = |q: f64| took[((took.len() as f64 - 1.0) * q).round() as usize];
    println!(
        "{what:<36} {:>8.2} {:>8.2} {:>8.2}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn person(id: &str) -> String {
    format!("---\napiVersion: exeat/v1\nkind: Person\nid: user:{id}\n")
}

/// A request of somebody for one subject and one control.
fn asked(owner: &str, control: &str, agent: &str, environment: &str, more: &str) -> String {
    format!(
        "apiVersion: exeat/v1\nkind: Request\ncontrol_ids: [{control}]\ndeviation_type: WAIVER\njustification:\n  business_need: {agent} closes the quarter on Friday and its batch runs until then\n  risk_statement: a wrong entry of {agent} reaches the ledger and is reversed by hand\n  remediation_plan: the control learns of batches\n  ticket_ref: T-7\nscope:\n  subject_selector: {{ids: [\"{agent}\"]}}\n  actions: [risky]\n  resources: [ANY]\n  environments: [{environment}]\n  purposes: [work]\nwindow: {{duration: 48h}}\nowner: user:{owner}\n{more}"
    )
}

async fn ask(client: &mut Client, text: &str) -> v1::Case {
    let request = v1::RequestExceptionRequest {
        file: files(text).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = client.exceptions.request_exception(request).await.unwrap();
    answer.into_inner().case.unwrap()
}

async fn connect(address: &str, data: &Path) -> (Channel, Client) {
    loop {
        if let Ok(token) = std::fs::read_to_string(data.join("admin.token"))
            && let Ok(channel) = Endpoint::from_shared(format!("http://{address}"))
                .unwrap()
                .tcp_nodelay(true)
                .connect()
                .await
        {
            return (channel.clone(), Client::over(channel, &token));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Everything that is governed here.
fn world(now: &str) -> String {
    let mut world = person("o") + &person("alice") + &person("bob");
    world += "---\napiVersion: exeat/v1\nkind: Group\nid: owners\nmembers: [\"user:bob\"]\n";
    world += "---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\napprover_groups: {control_owner: owners}\n";
    world += &control("CT-RISKY", "risky", "true");
    for n in 0..ROUNDS / AT_ONCE {
        world += &person(&format!("p{n}"));
        let lax = control(&format!("CT-{n}"), "risky", "true");
        world += &lax.replace("severity: HIGH", "severity: LOW");
    }
    for n in 0..ROUNDS {
        world += &subject(&format!("agent-{n}"), Some("team"));
        let spare = subject(&format!("spare-{n}"), Some("team"));
        world += &spare.replace("environment: prod", "environment: dev");
    }
    world.replace("2026-11-22T11:59:00Z", now)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("r");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let _registry = Running(
        Command::new(env!("CARGO_BIN_EXE_exeat"))
            .args(["registry", "--log", "warn", "--listen", &address, "--data"])
            .arg(&data)
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let (channel, mut admin) = connect(&address, &data).await;
    let now = Clock::system().now().latest;
    admin.apply(&world(&now.to_string())).await.unwrap();
    let until = (now + governed::seconds(360 * 86_400)).to_string();
    let mut who = async |identity: &str| {
        let role = v1::Role::Approver;
        let token = admin.let_in(identity, role, &[]).await;
        Client::over(channel.clone(), &token)
    };
    let (mut alice, mut bob) = (who("user:alice").await, who("user:bob").await);
    let mut people = Vec::new();
    for n in 0..ROUNDS / AT_ONCE {
        people.push(who(&format!("user:p{n}")).await);
    }
    println!("one transaction each, synced (ms)");
    println!("{:<36} {:>8} {:>8} {:>8}", "", "p50", "p99", "max");
    let timed = |began: Instant| began.elapsed().as_secs_f64() * 1e3;

    let mut took = Vec::new();
    for n in 0..ROUNDS {
        let one = subject(&format!("more-{n}"), Some("team"));
        let one = one.replace("2026-11-22T11:59:00Z", &now.to_string());
        let began = Instant::now();
        admin.apply(&one).await.unwrap();
        took.push(timed(began));
    }
    print("apply of a subject", took);

    let mut took = Vec::new();
    for n in 0..ROUNDS {
        let own = n / AT_ONCE;
        let (owner, control) = (format!("p{own}"), format!("CT-{own}"));
        let text = asked(&owner, &control, &format!("spare-{n}"), "dev", "");
        let began = Instant::now();
        let case = ask(&mut people[own], &text).await;
        took.push(timed(began));
        assert_eq!((&*case.tier, &*case.state), ("LOW", "APPROVED"));
    }
    print("LOW, from its request to in force", took);

    let evidence = format!(
        "evidence: [{{evidence_id: scan, digest: \"sha256:5ca0\", required: true, expire_time: \"{until}\"}}]\n"
    );
    let (mut requests, mut votes, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..ROUNDS {
        let text = asked(
            "alice",
            "CT-RISKY",
            &format!("agent-{n}"),
            "prod",
            &evidence,
        );
        let began = Instant::now();
        let case = ask(&mut alice, &text).await;
        requests.push(timed(began));
        let vote = v1::DecideRequest {
            id: case.id.clone(),
            approve: true,
            comment: "looked at all of it".into(),
            digest: case.digest,
            reviewed_evidence: vec!["scan".into()],
        };
        let began = Instant::now();
        let case = bob.exceptions.decide(vote).await.unwrap();
        votes.push(timed(began));
        let case = case.into_inner().case.unwrap();
        assert_eq!((&*case.tier, &*case.state), ("MODERATE", "APPROVED"));
        ids.push(case.id);
    }
    print("MODERATE, its request", requests);
    print("MODERATE, the vote that grants it", votes);

    let mut took = Vec::new();
    for id in &ids {
        let began = Instant::now();
        admin.revoke(id).await.unwrap();
        took.push(timed(began));
    }
    print("revocation", took);
}
