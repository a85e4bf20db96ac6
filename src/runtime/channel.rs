//! A connection to a sidecar, over TCP or a Unix socket.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// A connection on which each call brings a token, if there is one.
pub type Connection = InterceptedService<Channel, Bearing>;

/// Brings the token that a file holds, read with each call: such tokens may last for minutes.
#[derive(Clone, Debug, Default)]
pub struct Bearing(Option<Arc<Path>>);

impl Bearing {
    /// The token in `file`; none without a file.
    pub fn of(file: Option<&Path>) -> Self {
        Self(file.map(Into::into))
    }

    /// `channel` with the token.
    pub fn over(self, channel: Channel) -> Connection {
        InterceptedService::new(channel, self)
    }
}

impl Interceptor for Bearing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(path) = &self.0 {
            let at = |why: &dyn std::fmt::Display| {
                Status::unauthenticated(format!("{}: {why}", path.display()))
            };
            let token = std::fs::read_to_string(path).map_err(|error| at(&error))?;
            let value = format!("Bearer {}", token.trim());
            let mut value: MetadataValue<Ascii> =
                value.parse().map_err(|_| at(&"holds no token"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

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
