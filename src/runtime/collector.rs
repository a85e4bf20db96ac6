//! A receiver of telemetry, by OTLP over gRPC or HTTP: bytes there, bytes back.

use std::{fmt, path::PathBuf, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderName, HeaderValue, Request, Uri, header, uri::PathAndQuery};
use tonic::{
    Code, Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{http::Caller, reachable::Net};

/// How a receiver is spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with binary Protocol Buffers.
    Http,
}

/// Where a receiver is, and what it wants to be told.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Its URL; over HTTP that of the signal.
    pub url: Uri,
    /// How it is spoken with.
    pub protocol: Protocol,
    /// Headers sent along; they may hold secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Whose certificates are believed.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether what is sent is compressed.
    pub gzip: bool,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("url", &self.url)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// A message in parts, one after the other.
pub type Parts = [Bytes; 3];

impl Target {
    /// Where it is, without what may be a secret.
    pub fn place(&self) -> String {
        let (scheme, authority) = (self.url.scheme_str(), self.url.authority());
        let authority = authority.map_or("", |authority| authority.as_str());
        format!("{}://{authority}", scheme.unwrap_or_default())
    }
}

/// Why something was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was said.
    pub why: String,
    /// Whether it may be taken later, and how long the receiver asks to be left alone.
    pub again: Option<Option<Duration>>,
}

/// A connection to a receiver, made when it is needed.
#[derive(Clone, Debug)]
pub struct Collector {
    target: Target,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Grpc(Channel),
    Http(Caller),
}

impl Collector {
    /// Gets ready to speak with `target`.
    ///
    /// # Errors
    ///
    /// Certificates or keys that cannot be read.
    pub fn new(target: Target) -> Result<Self, String> {
        let way = match target.protocol {
            Protocol::Grpc => Way::Grpc(channel(&target)?),
            Protocol::Http => {
                // Whoever runs this says where it sends.
                let anywhere = ["0.0.0.0/0", "::/0"].map(Net::parse);
                let anywhere = anywhere.into_iter().collect::<Result<_, _>>()?;
                let identity = target.identity.as_ref();
                let identity = identity.map(|(certificate, key)| (&**certificate, &**key));
                Way::Http(Caller::new(anywhere, target.ca.as_deref(), identity)?)
            }
        };
        Ok(Self { target, way })
    }

    /// Sends one message to the gRPC method at `path`, or over HTTP to the target itself.
    ///
    /// # Errors
    ///
    /// Why it was not taken, and whether it may be later.
    pub async fn send(&self, path: &'static str, message: Parts) -> Result<Bytes, Refusal> {
        let sent = async {
            match &self.way {
                Way::Grpc(channel) => self.over_grpc(channel.clone(), path, message).await,
                Way::Http(caller) => self.over_http(caller, message).await,
            }
        };
        tokio::time::timeout(self.target.timeout, sent)
            .await
            .unwrap_or_else(|_| {
                Err(Refusal {
                    why: format!("no answer within {} ms", self.target.timeout.as_millis()),
                    again: Some(None),
                })
            })
    }

    async fn over_grpc(
        &self,
        channel: Channel,
        path: &'static str,
        message: Parts,
    ) -> Result<Bytes, Refusal> {
        let mut client = Grpc::new(channel);
        if self.target.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client = client.accept_compressed(CompressionEncoding::Gzip);
        let mut request = tonic::Request::new(message);
        for (name, value) in &self.target.headers {
            tell(request.metadata_mut(), name, value);
        }
        let answered = async {
            client
                .ready()
                .await
                .map_err(|error| Status::unavailable(causes(&error)))?;
            let path = PathAndQuery::from_static(path);
            client.unary(request, path, Raw).await
        };
        match answered.await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(refused(&status)),
        }
    }

    async fn over_http(&self, caller: &Caller, message: Parts) -> Result<Bytes, Refusal> {
        let lost = |why: String| Refusal {
            why,
            again: Some(None),
        };
        let never = |why: String| Refusal { why, again: None };
        let mut request = Request::post(self.target.url.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        let body = if self.target.gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
            gzip(&message).map_err(|error| never(error.to_string()))?
        } else {
            message.concat().into()
        };
        let request = request
            .body(body)
            .map_err(|error| never(error.to_string()))?;
        let answer = caller.send(request).await.map_err(lost)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let again = matches!(status.as_u16(), 429 | 502 | 503 | 504).then(|| {
            let after = answer.headers().get(header::RETRY_AFTER)?;
            after.to_str().ok()?.parse().ok().map(Duration::from_secs)
        });
        Err(Refusal {
            why: format!("HTTP {status}"),
            again,
        })
    }
}

/// A channel that connects when it is first used, and again after it broke.
fn channel(target: &Target) -> Result<Channel, String> {
    let endpoint = Endpoint::from(target.url.clone())
        .connect_timeout(Duration::from_secs(5))
        // A connection that died in silence is found out.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    if target.url.scheme_str() != Some("https") {
        return Ok(endpoint.connect_lazy());
    }
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut tls = ClientTlsConfig::new();
    tls = match &target.ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    if let Some((certificate, key)) = &target.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    let endpoint = endpoint.tls_config(tls).map_err(|error| causes(&error))?;
    Ok(endpoint.connect_lazy())
}

fn tell(metadata: &mut MetadataMap, name: &HeaderName, value: &HeaderValue) {
    // Both are checked where they were read.
    if let Ok(key) = MetadataKey::from_bytes(name.as_str().as_bytes())
        && let Ok(mut value) = MetadataValue::try_from(value.as_bytes())
    {
        value.set_sensitive(true);
        metadata.insert(key, value);
    }
}

/// An error with everything that led to it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Which refusals may be tried again is for the protocol to say (OTLP, "Failures").
fn refused(status: &Status) -> Refusal {
    let delay =
        tonic_types::StatusExt::get_details_retry_info(status).and_then(|info| info.retry_delay);
    let again = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Some(delay),
        // What tonic makes of a connection that breaks; a receiver that says so means it.
        Code::Unknown if std::error::Error::source(status).is_some() => Some(delay),
        // Only where it says when.
        Code::ResourceExhausted if delay.is_some() => Some(delay),
        _ => None,
    };
    Refusal {
        why: format!("{:?}: {}", status.code(), status.message()),
        again,
    }
}

fn gzip(message: &Parts) -> std::io::Result<Bytes> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    for part in message {
        std::io::Write::write_all(&mut out, part)?;
    }
    out.finish().map(Bytes::from)
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Parts;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Parts;
    type Error = Status;

    fn encode(&mut self, item: Parts, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(item.iter().map(Bytes::len).sum());
        for part in item {
            to.put(part);
        }
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
