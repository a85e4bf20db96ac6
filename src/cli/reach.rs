//! A connection to a registry.

use std::path::Path;

use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    config::{default_data, environment, is_local},
    domain::Trace,
    wire::v1::{
        control_service_client::ControlServiceClient,
        exception_service_client::ExceptionServiceClient,
        explanation_service_client::ExplanationServiceClient,
        finding_service_client::FindingServiceClient, fleet_service_client::FleetServiceClient,
        incident_service_client::IncidentServiceClient, ledger_service_client::LedgerServiceClient,
        notification_service_client::NotificationServiceClient,
        object_service_client::ObjectServiceClient, report_service_client::ReportServiceClient,
        revocation_service_client::RevocationServiceClient,
        session_service_client::SessionServiceClient, usage_service_client::UsageServiceClient,
    },
};

use super::{registry_args::Reach, run::Exit, saved};

/// Largest answer.
const MAX_MESSAGE: usize = 64 << 20;

/// What the environment says of the trace that a command belongs to.
fn traced() -> Option<MetadataValue<Ascii>> {
    let all = environment();
    let (_, text) = all.iter().find(|(name, _)| name == "TRACEPARENT")?;
    Trace::parse(text)?.to_string().parse().ok()
}

/// Says who asks, with each call, and where the call belongs if whoever runs this traces it.
#[derive(Clone, Debug)]
pub(super) struct Token(MetadataValue<Ascii>, Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        if let Some(trace) = &self.1 {
            request.metadata_mut().insert("traceparent", trace.clone());
        }
        Ok(request)
    }
}

type Connection = InterceptedService<Channel, Token>;

/// The registry's services.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) objects: ObjectServiceClient<Connection>,
    pub(super) revocations: RevocationServiceClient<Connection>,
    pub(super) fleet: FleetServiceClient<Connection>,
    pub(super) exceptions: ExceptionServiceClient<Connection>,
    pub(super) controls: ControlServiceClient<Connection>,
    pub(super) findings: FindingServiceClient<Connection>,
    pub(super) incidents: IncidentServiceClient<Connection>,
    pub(super) ledger: LedgerServiceClient<Connection>,
    pub(super) notifications: NotificationServiceClient<Connection>,
    pub(super) sessions: SessionServiceClient<Connection>,
    pub(super) reports: ReportServiceClient<Connection>,
    pub(super) usage: UsageServiceClient<Connection>,
    pub(super) explanations: ExplanationServiceClient<Connection>,
}

impl Registry {
    /// Connects as `reach` says.
    pub(super) async fn connect(reach: &Reach) -> Result<Self, Exit> {
        let given = reach.token.clone();
        let token = match given.or_else(|| saved::session(&reach.registry)) {
            Some(token) => token,
            None => first_token(&default_data(&environment()))?,
        };
        Self::with(&reach.registry, reach.registry_ca.as_deref(), token.trim()).await
    }

    /// Connects to `address` with a token.
    pub(super) async fn with(address: &str, ca: Option<&Path>, token: &str) -> Result<Self, Exit> {
        let channel = channel(address, ca).await?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| Exit::Usage("the token is no token".into()))?;
        value.set_sensitive(true);
        let token = Token(value, traced());
        let over = || InterceptedService::new(channel.clone(), token.clone());
        Ok(Self {
            objects: ObjectServiceClient::new(over())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            revocations: RevocationServiceClient::new(over()),
            fleet: FleetServiceClient::new(over()).max_decoding_message_size(MAX_MESSAGE),
            exceptions: ExceptionServiceClient::new(over()).max_decoding_message_size(MAX_MESSAGE),
            controls: ControlServiceClient::new(over()).max_decoding_message_size(MAX_MESSAGE),
            findings: FindingServiceClient::new(over()).max_decoding_message_size(MAX_MESSAGE),
            incidents: IncidentServiceClient::new(over()).max_decoding_message_size(MAX_MESSAGE),
            notifications: NotificationServiceClient::new(over())
                .max_decoding_message_size(MAX_MESSAGE),
            sessions: SessionServiceClient::new(over()),
            reports: ReportServiceClient::new(over()).max_decoding_message_size(MAX_MESSAGE),
            usage: UsageServiceClient::new(over()).max_decoding_message_size(MAX_MESSAGE),
            explanations: ExplanationServiceClient::new(over())
                .max_decoding_message_size(MAX_MESSAGE),
            ledger: LedgerServiceClient::new(over()).max_decoding_message_size(2 * MAX_MESSAGE),
        })
    }
}

/// A connection to the registry at `address`, from nobody in particular.
pub(super) async fn channel(address: &str, ca: Option<&Path>) -> Result<Channel, Exit> {
    let scheme = if ca.is_some() { "https" } else { "http" };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    // What is said, passwords and tokens too, is said before anybody could object.
    if ca.is_none() && !is_local(host) {
        return Err(Exit::Usage(format!(
            "{host} is not this machine, and beyond it TLS is spoken: say whose certificate it has with --registry-ca"
        )));
    }
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|error| Exit::Usage(format!("--registry: {error}")))?;
    if let Some(ca) = ca {
        let pem =
            std::fs::read(ca).map_err(|error| Exit::Usage(format!("{}: {error}", ca.display())))?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        endpoint = endpoint
            .tls_config(tls)
            .map_err(|error| Exit::Usage(error.to_string()))?;
    }
    endpoint.connect().await.map_err(|error| {
        Exit::Unreachable(format!(
            "no registry at {address} ({error}); start one with `exeat registry`, or say where it is with --registry"
        ))
    })
}

/// The token the registry made for its first administrator.
pub(super) fn first_token(data: &Path) -> Result<String, Exit> {
    let path = data.join("admin.token");
    std::fs::read_to_string(&path).map_err(|error| {
        Exit::Usage(format!(
            "nobody is signed in: {}: {error}; use `exeat login`, set EXEAT_TOKEN or use --token",
            path.display()
        ))
    })
}

/// A failed call as an exit.
pub(super) fn refused(status: &Status) -> Exit {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unreachable(text),
        Code::InvalidArgument => Exit::Invalid(status.message().to_owned()),
        Code::NotFound => Exit::Usage(text),
        Code::Unauthenticated => {
            Exit::Unexpected(format!("{}: sign in with `exeat login`", status.message()))
        }
        _ => Exit::Unexpected(text),
    }
}
