//! A connection to a sidecar.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    config::{default_socket, environment},
    wire::v1::check_service_client::CheckServiceClient,
};

use super::run::Exit;

/// Connects to the sidecar at `target`, or at the default socket, or at the default port.
pub(super) async fn connect(target: Option<&str>) -> Result<CheckServiceClient<Channel>, Exit> {
    let default = default_socket(&environment());
    let (path, address) = match target {
        Some(target) => match target.strip_prefix("unix:") {
            Some(path) => (Some(PathBuf::from(path)), None),
            None if target.contains('/') => (Some(PathBuf::from(target)), None),
            None => (None, Some(target.to_owned())),
        },
        None if default.try_exists().unwrap_or(false) => (Some(default), None),
        None => (None, Some("127.0.0.1:7430".to_owned())),
    };
    let shown = path.as_ref().map_or_else(
        || address.clone().unwrap_or_default(),
        |path| path.display().to_string(),
    );
    let channel = match (path, address) {
        (Some(path), _) => over_unix(&path).await,
        (None, address) => {
            match Endpoint::from_shared(format!("http://{}", address.unwrap_or_default())) {
                Ok(endpoint) => endpoint.connect().await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
    };
    channel.map(CheckServiceClient::new).map_err(|why| {
        Exit::Unreachable(format!("no sidecar at {shown} ({why}); start one with `exeat sidecar --bundle DIR --subject ID`, or say where it is with --socket"))
    })
}

/// A channel over the Unix socket at `path`.
pub(super) async fn over_unix(path: &Path) -> Result<Channel, String> {
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

/// A failed call as an exit.
pub(super) fn refused(status: &Status) -> Exit {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unreachable(text),
        Code::InvalidArgument | Code::NotFound => Exit::Usage(text),
        _ => Exit::Unexpected(text),
    }
}
