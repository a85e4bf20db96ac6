//! A small governed world as manifests, and the two processes over it.

use std::{future::Future, path::Path, time::Duration};

use exeat::{
    config,
    domain::{Span, Timestamp},
    manifest::Bundle,
    registry,
    runtime::clock::Clock,
    sidecar,
    wire::v1::{
        self, check_service_client::CheckServiceClient,
        control_service_client::ControlServiceClient,
        exception_service_client::ExceptionServiceClient,
        explanation_service_client::ExplanationServiceClient,
        finding_service_client::FindingServiceClient, fleet_service_client::FleetServiceClient,
        incident_service_client::IncidentServiceClient, ledger_service_client::LedgerServiceClient,
        notification_service_client::NotificationServiceClient,
        object_service_client::ObjectServiceClient, report_service_client::ReportServiceClient,
        revocation_service_client::RevocationServiceClient,
        session_service_client::SessionServiceClient, sign_in_service_client::SignInServiceClient,
        sync_service_client::SyncServiceClient, usage_service_client::UsageServiceClient,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// When everything happens.
pub fn noon() -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
}

pub fn control(id: &str, action: &str, condition: &str) -> String {
    format!(
        "---\napiVersion: exeat/v1\nkind: Control\nid: {id}\ntitle: {id}\nowner: user:o\nseverity: HIGH\nenforcement: SOFT_MANDATORY\nstate: DEPRECATED\nfailure_condition: \"{condition}\"\napplies_to: {{actions: [{action}]}}\nevidence_requirements: [{{source: s}}]\n"
    )
}

pub fn subject(id: &str, domain: Option<&str>) -> String {
    let domain = domain.map_or(String::new(), |domain| format!("domain: {domain}\n"));
    let mut text = format!(
        "---\napiVersion: exeat/v1\nkind: Subject\nid: {id}\nsubject_kind: AI_AGENT\n{domain}environment: prod\nowner: {{principal: \"user:o\", active: true}}\npurpose: {{permitted_ids: [work]}}\nrisk_tier: LOW\ndata_sensitivity: INTERNAL\nlifecycle_state: ACTIVE\nfacets:\n"
    );
    for facet in [
        "model",
        "tools",
        "prompts",
        "data_sources",
        "permissions",
        "credentials_scopes",
        "environment",
        "purpose",
    ] {
        text += &format!(
            "  {facet}: {{source: s, observed_time: \"2026-11-22T11:59:00Z\", completeness: COMPLETE}}\n"
        );
    }
    text
}

pub fn domain(id: &str) -> String {
    format!(
        "---\napiVersion: exeat/v1\nkind: Domain\nid: {id}\ndisplay_name: {id}\nowner: user:o\n"
    )
}

/// A LOW exception of `subject` from `control`, for six days.
pub fn exception(id: &str, control: &str, subject_id: &str) -> String {
    exception_until(id, control, subject_id, "2026-11-28T12:00:00Z")
}

pub fn exception_until(id: &str, control: &str, subject_id: &str, until: &str) -> String {
    let alone = [("s.yaml".to_owned(), subject(subject_id, None))];
    let snapshot = Bundle::read_files(alone).unwrap().snapshot(1).unwrap();
    let known = snapshot.subject(subject_id).unwrap();
    let bound: String = known
        .fingerprint
        .iter()
        .filter(|(facet, _)| ["model", "tools", "purpose"].contains(&facet.name()))
        .map(|(facet, digest)| format!("  {}: \"{digest}\"\n", facet.name()))
        .collect();
    format!(
        "---\napiVersion: exeat/v1\nkind: Exception\nid: {id}\ncontrol_ids: [{control}]\ndeviation_type: WAIVER\njustification:\n  business_need: made for a test, and long enough to be accepted by it\n  risk_statement: made for a test, and long enough to be accepted by it\n  remediation_plan: the test ends some time\n  ticket_ref: T-1\nscope:\n  subject_selector: {{ids: [\"{subject_id}\"]}}\n  actions: [risky]\n  resources: [ANY]\n  environments: [prod]\n  purposes: [work]\nbound_fingerprints:\n{bound}effective_time: \"2026-11-22T11:00:00Z\"\nexpire_time: \"{until}\"\nowner: user:alice\nrequester: user:bob\ntier: LOW\nstate: APPROVED\n"
    )
}

/// One control that fails for `risky`, one that passes for `plain`, an agent and its exception.
pub fn world() -> String {
    control("CT-RISKY", "risky", "true")
        + &control("CT-PLAIN", "plain", "false")
        + &subject("agent", None)
        + &exception("EX-1", "CT-RISKY", "agent")
}

/// Says who asks, with each call.
#[derive(Clone, Debug)]
pub struct Token(MetadataValue<Ascii>);

impl Token {
    pub fn of(token: &str) -> Self {
        Self(format!("Bearer {token}").parse().unwrap())
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub type Connection = InterceptedService<Channel, Token>;

/// A process that runs until it is stopped or dropped.
pub struct Process {
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), String>>,
}

impl Process {
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    fn run<F, R>(run: impl FnOnce(oneshot::Receiver<()>) -> F) -> Self
    where
        F: Future<Output = Result<(), R>> + Send + 'static,
        R: std::fmt::Display,
    {
        let (stop, stopped) = oneshot::channel();
        let running = run(stopped);
        Self {
            stop: Some(stop),
            served: tokio::spawn(async move {
                let ended = running.await.map_err(|error| error.to_string());
                // Seen where a test then fails for another reason.
                if let Err(why) = &ended {
                    println!("a process ended: {why}");
                }
                ended
            }),
        }
    }

    /// Stops in good order.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        (&mut self.served).await.unwrap().unwrap();
    }

    /// Ends without a word, as a killed process does; only what is on its connections may still be
    /// answered.
    pub async fn kill(&mut self) {
        self.served.abort();
        drop((&mut self.served).await);
    }
}

pub struct Registry {
    pub address: String,
    pub operations: String,
    pub key: String,
    pub token: String,
    pub process: Process,
}

type Flag<'a> = (&'static str, &'a str);

/// What is written in capitals is set in the environment; the rest are flags.
fn environment<'a>(more: &[Flag<'a>]) -> (Vec<(String, String)>, Vec<Flag<'a>>) {
    let capital = |(key, _): &(&str, &str)| key.starts_with(char::is_uppercase);
    let (set, flags): (Vec<_>, Vec<_>) = more.iter().copied().partition(capital);
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    (set.into_iter().map(owned).collect(), flags)
}

impl Registry {
    /// Its metrics, once they are as they should be.
    pub async fn until_page(&self, fits: impl Fn(&str) -> bool) -> String {
        until_page(&self.operations, fits).await
    }

    pub async fn page(&self, path: &str) -> String {
        page(&self.operations, path).await
    }

    pub async fn start(data: &Path, clock: Clock) -> Self {
        Self::start_at(data, clock, "127.0.0.1:0", &[])
            .await
            .unwrap()
    }

    pub async fn start_at(
        data: &Path,
        clock: Clock,
        listen: &str,
        more: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        let mut flags = vec![
            ("data", Some(data.display().to_string())),
            ("listen", Some(listen.to_owned())),
            ("operations", Some("127.0.0.1:0".to_owned())),
            ("drain_timeout", Some("1s".to_owned())),
            // Most worlds begin with exceptions that somebody has.
            ("exceptions", Some("applied".to_owned())),
        ];
        let (set, more) = environment(more);
        flags.extend(
            more.iter()
                .map(|(key, value)| (*key, Some((*value).to_owned()))),
        );
        let settings = config::RegistryProcess::load(None, &set, &flags).unwrap();
        let bound = registry::Bound::bind(settings, clock)
            .await
            .map_err(|error| error.to_string())?;
        let (address, key) = (bound.address().to_string(), bound.pin());
        let operations = bound.operations().to_string();
        let token = std::fs::read_to_string(data.join("admin.token")).unwrap();
        let process = Process::run(|stopped| bound.run(async move { drop(stopped.await) }));
        Ok(Self {
            address,
            operations,
            key,
            token,
            process,
        })
    }

    pub async fn client(&self) -> Client {
        self.client_with(&self.token).await
    }

    pub async fn client_tls(&self, ca: &Path) -> Client {
        let pem = std::fs::read(ca).unwrap();
        let tls = tonic::transport::ClientTlsConfig::new()
            .ca_certificate(tonic::transport::Certificate::from_pem(pem));
        let channel = Endpoint::from_shared(format!("https://{}", self.address))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
            .unwrap();
        Client::over(channel, &self.token)
    }

    /// As a sidecar comes, with what it says left to the test.
    pub async fn sync_with(&self, token: &str) -> SyncServiceClient<Connection> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap();
        SyncServiceClient::with_interceptor(channel, Token::of(token))
    }

    pub async fn client_with(&self, token: &str) -> Client {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Client::over(channel, token)
    }
}

#[derive(Clone)]
pub struct Client {
    pub objects: ObjectServiceClient<Connection>,
    pub revocations: RevocationServiceClient<Connection>,
    pub fleet: FleetServiceClient<Connection>,
    pub exceptions: ExceptionServiceClient<Connection>,
    pub incidents: IncidentServiceClient<Connection>,
    pub findings: FindingServiceClient<Connection>,
    pub controls: ControlServiceClient<Connection>,
    pub notifications: NotificationServiceClient<Connection>,
    pub sessions: SessionServiceClient<Connection>,
    pub sign_in: SignInServiceClient<Connection>,
    pub reports: ReportServiceClient<Connection>,
    pub ledger: LedgerServiceClient<Connection>,
    pub usage: UsageServiceClient<Connection>,
    pub explanations: ExplanationServiceClient<Connection>,
}

impl Client {
    pub fn over(channel: Channel, token: &str) -> Self {
        let token = Token(format!("Bearer {token}").parse().unwrap());
        Self {
            objects: ObjectServiceClient::with_interceptor(channel.clone(), token.clone()),
            revocations: RevocationServiceClient::with_interceptor(channel.clone(), token.clone()),
            fleet: FleetServiceClient::with_interceptor(channel.clone(), token.clone()),
            exceptions: ExceptionServiceClient::with_interceptor(channel.clone(), token.clone()),
            incidents: IncidentServiceClient::with_interceptor(channel.clone(), token.clone()),
            controls: ControlServiceClient::with_interceptor(channel.clone(), token.clone()),
            notifications: NotificationServiceClient::with_interceptor(
                channel.clone(),
                token.clone(),
            ),
            sessions: SessionServiceClient::with_interceptor(channel.clone(), token.clone()),
            sign_in: SignInServiceClient::with_interceptor(channel.clone(), token.clone()),
            reports: ReportServiceClient::with_interceptor(channel.clone(), token.clone()),
            ledger: LedgerServiceClient::with_interceptor(channel.clone(), token.clone()),
            usage: UsageServiceClient::with_interceptor(channel.clone(), token.clone()),
            explanations: ExplanationServiceClient::with_interceptor(
                channel.clone(),
                token.clone(),
            ),
            findings: FindingServiceClient::with_interceptor(channel, token),
        }
    }
}

pub fn files(text: &str) -> Vec<v1::ManifestFile> {
    vec![v1::ManifestFile {
        name: "a.yaml".into(),
        content: text.into(),
    }]
}

impl Client {
    pub async fn apply(&mut self, text: &str) -> Result<v1::ApplyResponse, Status> {
        let request = v1::ApplyRequest {
            files: files(text),
            ..v1::ApplyRequest::default()
        };
        Ok(self.objects.apply(request).await?.into_inner())
    }

    pub async fn revoke(&mut self, exception: &str) -> Result<v1::RemovalReceipt, Status> {
        let request = v1::RevokeRequest {
            target: Some(v1::Target {
                target: Some(v1::target::Target::Exception(exception.into())),
            }),
            ..v1::RevokeRequest::default()
        };
        let answer = self.revocations.revoke(request).await?.into_inner();
        Ok(answer.receipt.unwrap())
    }

    /// What is recorded of an exception.
    pub async fn used(&mut self, exception: &str) -> v1::GetUsageResponse {
        let request = v1::GetUsageRequest {
            exception_id: exception.into(),
        };
        self.usage.get_usage(request).await.unwrap().into_inner()
    }

    /// Waits until that is as it is to be.
    pub async fn until_used(
        &mut self,
        exception: &str,
        fits: impl Fn(&v1::GetUsageResponse) -> bool,
    ) -> v1::GetUsageResponse {
        for _ in 0..2_000 {
            let used = self.used(exception).await;
            if fits(&used) {
                return used;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?}", self.used(exception).await);
    }

    /// What a control found that is found once, when it has been.
    pub async fn until_found(&mut self, control: &str) -> v1::Finding {
        let request = v1::ListFindingsRequest {
            control_id: control.into(),
            ..v1::ListFindingsRequest::default()
        };
        for _ in 0..2_000 {
            let answer = self.findings.list_findings(request.clone()).await.unwrap();
            let mut found = answer.into_inner().findings;
            if let Some(one) = found.pop() {
                assert!(found.is_empty(), "{one:?} and {found:?}");
                return one;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{control} has found nothing");
    }

    pub async fn receipt(&mut self, sequence: u64, wait: bool) -> v1::RemovalReceipt {
        let request = v1::GetRevocationRequest { sequence, wait };
        let answer = self.revocations.get_revocation(request).await.unwrap();
        answer.into_inner().receipt.unwrap()
    }

    pub async fn let_in(&mut self, identity: &str, role: v1::Role, scope: &[&str]) -> String {
        let request = v1::GrantRequest {
            identity: identity.into(),
            role: role.into(),
            scope: scope.iter().map(|item| (*item).to_owned()).collect(),
        };
        self.fleet.grant(request).await.unwrap().into_inner().token
    }
}

async fn until_page(operations: &str, fits: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    for _ in 0..2_000 {
        last = page(operations, "/metrics").await;
        if fits(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{last}");
}

pub struct Sidecar {
    pub address: String,
    pub operations: String,
    pub process: Process,
}

impl Sidecar {
    pub async fn start(
        data: &Path,
        registry: &str,
        key: &str,
        token: &str,
        clock: Clock,
    ) -> Result<Self, String> {
        let asserted = [("insecure_asserted_identity", "true")];
        Self::start_with(data, registry, key, token, clock, &asserted).await
    }

    pub async fn start_with(
        data: &Path,
        registry: &str,
        key: &str,
        token: &str,
        clock: Clock,
        more: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        std::fs::create_dir_all(data).unwrap();
        let file = data.with_extension("token");
        std::fs::write(&file, token).unwrap();
        let text = |path: &Path| Some(path.display().to_string());
        let some = |text: &str| Some(text.to_owned());
        let mut flags = vec![
            ("registry", some(registry)),
            ("registry_key", some(key)),
            ("registry_token_file", text(&file)),
            ("data", text(data)),
            ("listen", some("127.0.0.1:0")),
            ("operations", some("127.0.0.1:0")),
            ("unix", some("none")),
            ("drain_timeout", some("1s")),
        ];
        let (set, more) = environment(more);
        flags.extend(more.iter().map(|(key, value)| (*key, some(value))));
        let settings = config::Sidecar::load(None, &set, &flags).map_err(|e| e.to_string())?;
        let bound = sidecar::Bound::bind(settings, clock)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            address: bound.address().to_string(),
            operations: bound.operations().to_string(),
            process: Process::run(|stopped| bound.run(async move { drop(stopped.await) })),
        })
    }

    /// Follows over TLS, known by its certificate.
    pub async fn start_tls(
        data: std::path::PathBuf,
        registry: String,
        key: String,
        ca: std::path::PathBuf,
        issued: registry::Issued,
        clock: Clock,
    ) -> Result<Self, String> {
        let text = |path: &Path| Some(path.display().to_string());
        let some = |text: &str| Some(text.to_owned());
        let flags = [
            ("registry", some(&registry)),
            ("registry_key", some(&key)),
            ("registry_ca", text(&ca)),
            ("registry_certificate", text(&issued.certificate)),
            ("registry_certificate_key", text(&issued.key)),
            ("data", text(&data)),
            ("listen", some("127.0.0.1:0")),
            ("operations", some("127.0.0.1:0")),
            ("unix", some("none")),
            ("insecure_asserted_identity", some("true")),
        ];
        let settings = config::Sidecar::load(None, &[], &flags).map_err(|e| e.to_string())?;
        let bound = sidecar::Bound::bind(settings, clock)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            address: bound.address().to_string(),
            operations: bound.operations().to_string(),
            process: Process::run(|stopped| bound.run(async move { drop(stopped.await) })),
        })
    }

    /// One that runs elsewhere.
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    pub fn at(address: &str, operations: &str) -> Self {
        Self {
            address: address.into(),
            operations: operations.into(),
            process: Process {
                stop: None,
                served: tokio::spawn(async { Ok(()) }),
            },
        }
    }

    pub async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.tcp_nodelay(true).connect().await
    }

    pub async fn ask(&self, subject: &str, action: &str) -> Result<v1::Decision, Status> {
        let channel = self.channel().await.unwrap();
        Self::ask_over(channel, subject, action).await
    }

    /// Asks one that may not be there yet.
    pub async fn try_ask(&self, subject: &str, action: &str) -> Result<v1::Decision, Status> {
        let channel = self.channel().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        Self::ask_over(channel, subject, action).await
    }

    /// Asks so often, a thousand times a second; how long each took, in milliseconds.
    pub async fn ask_often_for(&self, subject: &str, action: &str, times: usize) -> Vec<f64> {
        let channel = self.channel().await.unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            ticks.tick().await;
            let began = tokio::time::Instant::now();
            Self::ask_over(channel.clone(), subject, action)
                .await
                .unwrap();
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        took
    }

    /// Asks so many times a second, for ever, about the action that is wanted then; tells when each
    /// of them was first refused.
    pub async fn ask_often_about(
        &self,
        subject: &str,
        wanted: watch::Receiver<String>,
        refused: mpsc::UnboundedSender<Timestamp>,
        rate: u64,
    ) {
        let (channel, clock) = (self.channel().await.unwrap(), Clock::system());
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
        let mut told = String::new();
        loop {
            ticks.tick().await;
            let action = wanted.borrow().clone();
            let decision = Self::ask_over(channel.clone(), subject, &action)
                .await
                .unwrap();
            if decision.outcome() == v1::Outcome::Deny && told != action {
                told = action;
                refused.send(clock.now().latest).unwrap();
            }
        }
    }

    /// Asks with more said than who and what.
    pub async fn ask_with(
        &self,
        change: impl FnOnce(&mut v1::CheckRequest),
    ) -> Result<v1::Decision, Status> {
        let mut request = v1::CheckRequest {
            action: "plain".into(),
            resource: Some(v1::Resource {
                r#type: "thing".into(),
                id: "t".into(),
                properties: None,
            }),
            ..v1::CheckRequest::default()
        };
        change(&mut request);
        let channel = self.channel().await.unwrap();
        let answer = CheckServiceClient::new(channel).check(request).await?;
        Ok(answer.into_inner().decision.unwrap())
    }

    /// Why a decision is as it is.
    pub async fn explain(&self, id: &str) -> Result<v1::ExplainResponse, Status> {
        let request = v1::ExplainRequest {
            decision_id: id.into(),
        };
        let channel = self.channel().await.unwrap();
        let answer = CheckServiceClient::new(channel).explain(request).await?;
        Ok(answer.into_inner())
    }

    pub async fn ask_over(
        channel: Channel,
        subject: &str,
        action: &str,
    ) -> Result<v1::Decision, Status> {
        let context = prost_types::Struct {
            fields: [(
                "purpose".to_owned(),
                prost_types::Value {
                    kind: Some(prost_types::value::Kind::StringValue("work".into())),
                },
            )]
            .into(),
        };
        let request = v1::CheckRequest {
            subject: subject.into(),
            action: action.into(),
            resource: Some(v1::Resource {
                r#type: "thing".into(),
                id: "t".into(),
                properties: None,
            }),
            context: Some(context),
            ..v1::CheckRequest::default()
        };
        let answer = CheckServiceClient::new(channel).check(request).await?;
        Ok(answer.into_inner().decision.unwrap())
    }

    pub async fn outcome(&self, subject: &str, action: &str) -> String {
        match self.ask(subject, action).await {
            Ok(decision) => {
                let name = decision.outcome().as_str_name();
                let reasons: Vec<_> = decision
                    .reasons()
                    .map(|reason| reason.as_str_name().trim_start_matches("REASON_"))
                    .collect();
                format!(
                    "{} {}",
                    name.trim_start_matches("OUTCOME_"),
                    reasons.join(" ")
                )
            }
            Err(status) => format!("{:?}", status.code()),
        }
    }

    /// Waits until a question is answered so; the time it may take is no part of any claim.
    pub async fn until(&self, subject: &str, action: &str, wanted: &str) {
        self.until_it(subject, action, wanted, |said| said.contains(wanted))
            .await;
    }

    pub async fn until_exactly(&self, subject: &str, action: &str, wanted: &str) {
        self.until_it(subject, action, wanted, |said| said.trim() == wanted)
            .await;
    }

    async fn until_it(
        &self,
        subject: &str,
        action: &str,
        wanted: &str,
        fits: impl Fn(&str) -> bool,
    ) {
        let mut last = String::new();
        for _ in 0..2_000 {
            last = self.outcome(subject, action).await;
            if fits(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{subject} {action}: {last}, not {wanted}");
    }

    pub async fn page(&self, path: &str) -> String {
        page(&self.operations, path).await
    }

    /// The metrics, once they are as wanted.
    pub async fn until_page(&self, fits: impl Fn(&str) -> bool) -> String {
        until_page(&self.operations, fits).await
    }
}

/// A page of an operations port.
async fn page(operations: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(operations).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

pub fn seconds(n: i64) -> Span {
    Span::from_secs(n)
}
