//! A connection to a sidecar, over TCP or a Unix socket.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Connects to `target`: a Unix socket as `unix:PATH` or as a path with a slash, else a host and
/// port.
///
/// # Errors
///
/// Nobody there, or no address.
pub async fn connect(target: &str) -> Result<Channel, String> {
    let path = match target.strip_prefix("unix:") {
        Some(path) => Some(PathBuf::from(path)),
        None => target.contains('/').then(|| PathBuf::from(target)),
    };
    if let Some(path) = path {
        return over_unix(&path).await;
    }
    let endpoint = Endpoint::from_shared(format!("http://{target}"));
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    endpoint.connect().await.map_err(|error| error.to_string())
}

/// A channel over the Unix socket at `path`.
///
/// # Errors
///
/// Nobody there.
pub async fn over_unix(path: &Path) -> Result<Channel, String> {
    let path = path.to_owned();
    // The address only names the host in requests.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| error.to_string())
}
