//! Serves bound sockets until told to stop.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::ready};
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, transport::Server};
use tower::Service;

use super::{
    listen::{Limit, Tcp, Unix, connections},
    tls::Keys,
};

// reliability §9.3.
const MAX_STREAMS: u32 = 256;
const MAX_HEADERS: u32 = 16 << 10;

/// Why a process does not start, or did not end well.
#[derive(Debug)]
pub enum Error {
    /// A socket could not be bound.
    Bind(std::io::Error),
    /// The keys for TLS cannot be used.
    Tls(String),
    /// What it holds cannot be used.
    Data(String),
    /// A part it cannot do without ended by itself.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => write!(f, "cannot listen: {error}"),
            Self::Tls(why) => write!(f, "cannot use the keys for TLS: {why}"),
            Self::Data(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

/// Handshakes under way at once.
const HANDSHAKES: usize = 128;

/// Serves a TCP listener, at most `most` connections at once.
///
/// # Errors
///
/// What ended it.
pub async fn serve_tcp<S>(
    services: S,
    tcp: Tcp,
    keys: Option<Arc<Keys>>,
    most: usize,
    stop: CancellationToken,
) -> Result<(), String>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S: 'static,
    S::Future: Send,
{
    let limit = Limit::new(most, &tcp.address().to_string());
    let tcp = Arc::new(tcp);
    let incoming = connections(limit, move || {
        let tcp = Arc::clone(&tcp);
        async move { tcp.accept().await }
    });
    let server = server().accept_http1(true);
    let end = match keys {
        None => {
            server
                .serve_with_incoming_shutdown(services, incoming, stop.cancelled())
                .await
        }
        Some(keys) => {
            let shaken = incoming
                .map(move |connection| {
                    let keys = Arc::clone(&keys);
                    async move { keys.accept(connection?).await }
                })
                .buffer_unordered(HANDSHAKES)
                .filter_map(|shaken| {
                    if let Err(error) = &shaken {
                        tracing::debug!(%error, "a connection was not let in");
                    }
                    ready(shaken.ok().map(Ok::<_, std::io::Error>))
                });
            server
                .serve_with_incoming_shutdown(services, shaken, stop.cancelled())
                .await
        }
    };
    end.map_err(|error| error.to_string())
}

/// Serves a Unix socket, at most `most` connections at once.
///
/// # Errors
///
/// What ended it.
pub async fn serve_unix<S>(
    services: S,
    unix: Unix,
    most: usize,
    stop: CancellationToken,
) -> Result<(), String>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S: 'static,
    S::Future: Send,
{
    let limit = Limit::new(most, &unix.path().display().to_string());
    let unix = Arc::new(unix);
    let incoming = connections(limit, move || {
        let unix = Arc::clone(&unix);
        async move { unix.accept().await }
    });
    server()
        .accept_http1(true)
        .serve_with_incoming_shutdown(services, incoming, stop.cancelled())
        .await
        .map_err(|error| error.to_string())
}
