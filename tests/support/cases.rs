//! A registry with people, groups and a domain, and somebody who asks it for exceptions.

use exeat::{domain::Timestamp, runtime::clock::Clock, wire::v1};
use tonic::Status;

use super::{
    governed::{Client, Registry, Sidecar, control, files, noon, seconds, subject},
    stage,
};

pub const EXCEPTED: &str = "ALLOW_BY_EXCEPTION";
pub const DAY: i64 = 86_400;

pub fn people() -> String {
    let person = |id: &str, more: &str| {
        format!("---\napiVersion: exeat/v1\nkind: Person\nid: user:{id}\n{more}")
    };
    let group = |id: &str, members: &str| {
        format!("---\napiVersion: exeat/v1\nkind: Group\nid: {id}\nmembers: [{members}]\n")
    };
    person("o", "")
        + &person("alice", "person_id: p-alice\n")
        + &person("alice2", "person_id: p-alice\n")
        + &person("bob", "person_id: p-bob\n")
        + &person("bob2", "person_id: p-bob\n")
        + &person("carol", "")
        + &person("dave", "")
        + &person("left", "active: false\n")
        + &group("owners", "\"group:inner\", \"user:left\"")
        // In a circle, which ends.
        + &group("inner", "\"user:bob\", \"user:alice2\", \"user:dave\", \"group:owners\"")
        + &group("risk", "\"user:carol\", \"user:bob2\"")
        + "---\napiVersion: exeat/v1\nkind: Domain\nid: team\ndisplay_name: Team\nowner: user:o\napprover_groups: {control_owner: owners, risk_officer: risk}\n"
}

pub fn agent(id: &str) -> String {
    subject(id, Some("team"))
}

/// An agent outside production, of which nothing asks for more than LOW.
pub fn spare(id: &str) -> String {
    agent(id).replace("environment: prod", "environment: dev")
}

pub fn lax(id: &str, action: &str) -> String {
    control(id, action, "true").replace("severity: HIGH", "severity: LOW")
}

pub struct Ask<'a> {
    pub control: &'a str,
    pub agent: &'a str,
    pub action: &'a str,
    pub environment: &'a str,
    pub hours: i64,
    pub more: &'a str,
}

pub const PLAIN: Ask<'_> = Ask {
    control: "CT-RISKY",
    agent: "agent",
    action: "risky",
    environment: "prod",
    hours: 48,
    more: "evidence: [{evidence_id: scan, digest: \"sha256:5ca0\", required: true, expire_time: \"2027-11-22T00:00:00Z\"}]\n",
};

impl Ask<'_> {
    pub fn text(&self) -> String {
        let Self {
            control,
            agent,
            action,
            environment,
            hours,
            more,
        } = self;
        format!(
            "apiVersion: exeat/v1\nkind: Request\ncontrol_ids: [{control}]\ndeviation_type: WAIVER\njustification:\n  business_need: the quarter closes on Friday and the batch has to run until then\n  risk_statement: a wrong entry reaches the ledger and has to be reversed by hand\n  remediation_plan: the control learns of batches\n  ticket_ref: T-7\nscope:\n  subject_selector: {{ids: [\"{agent}\"]}}\n  actions: [{action}]\n  resources: [t]\n  environments: [{environment}]\n  purposes: [work]\nwindow: {{duration: {hours}h}}\nowner: user:alice\n{more}"
        )
    }
}

pub struct World {
    pub scratch: tempfile::TempDir,
    pub clock: Clock,
    pub registry: Registry,
    pub admin: Client,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(more: &[(&'static str, &str)]) -> Self {
        Self::start_from(noon(), more).await
    }

    /// One whose clock stands at `now`.
    pub async fn start_from(now: Timestamp, more: &[(&'static str, &str)]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(now);
        let data = scratch.path().join("r");
        let registry = Registry::start_at(&data, clock.clone(), "127.0.0.1:0", more)
            .await
            .unwrap();
        let mut admin = registry.client().await;
        let world = people()
            + &control("CT-RISKY", "risky", "true")
            + &control("CT-PLAIN", "plain", "false")
            + &agent("agent");
        admin
            .apply(&stage::at(&world, now + seconds(-60)))
            .await
            .unwrap();
        Self {
            scratch,
            clock,
            registry,
            admin,
        }
    }

    pub async fn as_who(&mut self, identity: &str) -> Client {
        let role = if identity.starts_with("agent:") {
            v1::Role::Viewer
        } else {
            v1::Role::Approver
        };
        let token = self.admin.let_in(identity, role, &[]).await;
        self.registry.client_with(&token).await
    }

    pub async fn sidecar(&mut self) -> Sidecar {
        let token = self
            .admin
            .let_in("service:s1", v1::Role::Sidecar, &["*"])
            .await;
        Sidecar::start(
            &self.scratch.path().join("s"),
            &self.registry.address,
            &self.registry.key,
            &token,
            self.clock.clone(),
        )
        .await
        .unwrap()
    }
}

pub async fn ask(client: &mut Client, ask: &Ask<'_>) -> Result<v1::Case, Status> {
    let request = v1::RequestExceptionRequest {
        file: files(&ask.text()).pop(),
        ..v1::RequestExceptionRequest::default()
    };
    let answer = client.exceptions.request_exception(request).await?;
    Ok(answer.into_inner().case.unwrap())
}

pub async fn look(client: &mut Client, id: &str) -> v1::Case {
    let request = v1::GetCaseRequest { id: id.into() };
    let answer = client.exceptions.get_case(request).await.unwrap();
    answer.into_inner().case.unwrap()
}

/// What approves a case as it was shown.
pub fn deciding(case: &v1::Case) -> v1::DecideRequest {
    v1::DecideRequest {
        id: case.id.clone(),
        approve: true,
        comment: "looked at all of it".into(),
        digest: case.digest.clone(),
        reviewed_evidence: ["scan", "test"]
            .into_iter()
            .filter(|id| case.record.contains(&format!("\"evidence_id\":\"{id}\"")))
            .map(ToOwned::to_owned)
            .collect(),
    }
}

pub async fn approve(client: &mut Client, case: &v1::Case) -> Result<v1::Case, Status> {
    let answer = client.exceptions.decide(deciding(case)).await?;
    Ok(answer.into_inner().case.unwrap())
}

/// Waits until a case is in a state: the sweep is a task of the registry's own.
pub async fn until(client: &mut Client, id: &str, state: &str) -> v1::Case {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            let case = look(client, id).await;
            if case.state == state {
                return case;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{id} never was {state}"))
}
