//! A receiver of telemetry by OTLP/gRPC that remembers what it was sent.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::Metric,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, codec::CompressionEncoding, service::Routes, transport::Server,
};

/// Attributes as text, by name; texts of a list joined by commas.
pub fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    fn text(value: &Value) -> String {
        match value {
            Value::StringValue(text) => text.clone(),
            Value::BoolValue(flag) => flag.to_string(),
            Value::IntValue(n) => n.to_string(),
            Value::DoubleValue(n) => n.to_string(),
            Value::ArrayValue(list) => {
                let values = list.values.iter().filter_map(|value| value.value.as_ref());
                values.map(text).collect::<Vec<_>>().join(",")
            }
            other => panic!("{other:?}"),
        }
    }
    list.iter()
        .map(|pair| {
            let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
            (pair.key.clone(), text(value.expect("a value")))
        })
        .collect()
}

#[derive(Debug, Default)]
struct Held {
    spans: Vec<Span>,
    events: Vec<LogRecord>,
    metrics: Vec<Metric>,
    resources: Vec<BTreeMap<String, String>>,
    headers: Vec<Option<String>>,
    /// What spans are answered with, before they are taken.
    refusals: VecDeque<Status>,
    /// How many spans of each request are said to be rejected.
    rejects: i64,
}

#[derive(Clone, Debug)]
pub struct Collector {
    pub address: String,
    held: Arc<Mutex<Held>>,
    /// Whether spans are taken in at all now, or wait.
    open: tokio::sync::watch::Sender<bool>,
}

impl Collector {
    /// One on a port of its own.
    pub async fn start() -> Self {
        Self::over(Server::builder(), "http").await
    }

    /// One that speaks as `server` does.
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    pub async fn over(mut server: Server, scheme: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            address: format!("{scheme}://{}", listener.local_addr().unwrap()),
            held: Arc::default(),
            open: tokio::sync::watch::Sender::new(true),
        };
        let gzip = CompressionEncoding::Gzip;
        let routes =
            Routes::new(TraceServiceServer::new(collector.clone()).accept_compressed(gzip))
                .add_service(LogsServiceServer::new(collector.clone()).accept_compressed(gzip))
                .add_service(MetricsServiceServer::new(collector.clone()));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(server.add_routes(routes).serve_with_incoming(incoming));
        collector
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    pub fn spans(&self) -> Vec<Span> {
        self.held().spans.clone()
    }

    pub fn events(&self) -> Vec<LogRecord> {
        self.held().events.clone()
    }

    pub fn metrics(&self) -> Vec<Metric> {
        self.held().metrics.clone()
    }

    pub fn resources(&self) -> Vec<BTreeMap<String, String>> {
        self.held().resources.clone()
    }

    /// The `api-key` of each request.
    pub fn keys(&self) -> Vec<Option<String>> {
        self.held().headers.clone()
    }

    /// Leaves whoever sends spans waiting, or no longer.
    pub fn holds(&self, holds: bool) {
        self.open.send_replace(!holds);
    }

    /// Refuses the next spans so.
    pub fn refuse(&self, status: Status) {
        self.held().refusals.push_back(status);
    }

    /// Says of so many spans in each request that they are rejected.
    pub fn reject(&self, count: i64) {
        self.held().rejects = count;
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
        let mut held = self.held();
        if let Some(status) = held.refusals.pop_front() {
            return Err(status);
        }
        let key = request.metadata().get("api-key");
        held.headers
            .push(key.map(|key| key.to_str().unwrap().to_owned()));
        for part in request.into_inner().resource_spans {
            let resource = part.resource.expect("a resource");
            held.resources.push(attributes(&resource.attributes));
            for scoped in part.scope_spans {
                assert_eq!(scoped.scope.expect("a scope").name, "exeat");
                held.spans.extend(scoped.spans);
            }
        }
        let partial_success = (held.rejects > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: held.rejects,
            error_message: "too many".into(),
        });
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success,
        }))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let parts = request.into_inner().resource_logs.into_iter();
        let scoped = parts.flat_map(|part| part.scope_logs);
        let events = scoped.flat_map(|scoped| scoped.log_records);
        self.held().events.extend(events);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let parts = request.into_inner().resource_metrics.into_iter();
        let scoped = parts.flat_map(|part| part.scope_metrics);
        let metrics = scoped.flat_map(|scoped| scoped.metrics);
        self.held().metrics.extend(metrics);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
