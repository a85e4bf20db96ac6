//! A connection to the registry.

#[cfg(any(test, feature = "testing"))]
use std::sync::Arc;
use std::{path::Path, time::Duration};

use tonic::{
    metadata::{Ascii, Binary, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    config::Registry,
    engine::attendance::Start,
    wire::{sync::START, v1::sync_service_client::SyncServiceClient},
};

/// Largest message: a delta or a chunk with one object.
const MAX_MESSAGE: usize = 64 << 20;

/// Says who this sidecar is, with each call, and which of its starts.
#[derive(Clone, Debug)]
pub(super) struct Token {
    token: Option<MetadataValue<Ascii>>,
    start: MetadataValue<Binary>,
}

impl Interceptor for Token {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        metadata.insert_bin(START, self.start.clone());
        if let Some(token) = &self.token {
            metadata.insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A client over a connection of its own.
pub(super) type Client = SyncServiceClient<InterceptedService<Channel, Token>>;

/// Connects. Keys and tokens are read each time, so that new ones are used without a restart.
pub(super) async fn connect(registry: &Registry, start: &Start) -> Result<Client, String> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let scheme = if registry.ca.is_some() {
        "https"
    } else {
        "http"
    };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", registry.address))
        .map_err(|error| error.to_string())?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    if let Some(ca) = &registry.ca {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let Some((certificate, key)) = &registry.certificate {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        endpoint = endpoint
            .tls_config(tls)
            .map_err(|error| error.to_string())?;
    }
    let token = match &registry.token_file {
        Some(path) => {
            let text = String::from_utf8(read(path)?).map_err(|error| error.to_string())?;
            let mut value: MetadataValue<Ascii> = format!("Bearer {}", text.trim())
                .parse()
                .map_err(|_| format!("{}: holds no token", path.display()))?;
            value.set_sensitive(true);
            Some(value)
        }
        None => None,
    };
    let start = MetadataValue::from_bytes(start);
    let token = Token { token, start };
    #[cfg(any(test, feature = "testing"))]
    if let Some(dial) = crate::runtime::simulated::dial() {
        let connector = tower::service_fn(move |uri| {
            let dial = Arc::clone(&dial);
            async move { dial(uri).await.map(hyper_util::rt::TokioIo::new) }
        });
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| error.to_string())?;
        return Ok(SyncServiceClient::with_interceptor(channel, token)
            .max_decoding_message_size(MAX_MESSAGE));
    }
    let channel = endpoint.connect().await.map_err(|error| {
        let source = std::error::Error::source(&error);
        source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
    })?;
    Ok(SyncServiceClient::with_interceptor(channel, token).max_decoding_message_size(MAX_MESSAGE))
}
