//! A connection to a sidecar, over TCP or a Unix socket.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::Service;

use super::{
    files::{ours_alone, read_small},
    simulated::aside,
};

/// Longest file of a token, in bytes.
const TOKEN: u64 = 16 << 10;
/// How long reading it may take: it may be on a disk that hangs.
const READ: Duration = Duration::from_secs(2);

/// A connection on which each call brings the token that a file holds, if one is named: read with each
/// call, since such tokens may last for minutes.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
    token: Option<Arc<Path>>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Service::poll_ready(&mut self.channel, context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // What was found ready is what is called.
        let fresh = self.channel.clone();
        let mut channel = std::mem::replace(&mut self.channel, fresh);
        let Some(path) = self.token.clone() else {
            return Box::pin(async move { Ok(channel.call(request).await?) });
        };
        Box::pin(async move {
            let shown = path.display().to_string();
            let bearer = timeout(READ, aside(move || bearer(&path))).await;
            let bearer = bearer.unwrap_or_else(|_| Err("cannot be read in time".into()));
            let bearer = bearer
                .and_then(|bearer| bearer)
                .map_err(|why| Status::unauthenticated(format!("{shown}: {why}")))?;
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
            Ok(channel.call(request).await?)
        })
    }
}

/// What says who asks.
fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let none = || "holds no token".to_owned();
    let text = String::from_utf8(read_small(file, TOKEN)?).map_err(|_| none())?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(none());
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| none())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a token may be brought to `target`: what is sent to it does not leave this machine.
///
/// # Errors
///
/// A host that is not this machine, and what to do.
pub fn carries_tokens(target: &str) -> Result<(), String> {
    // What is judged is what is called: before an `@` anything may stand.
    let called: Option<Uri> = format!("http://{target}").parse().ok();
    let host = called.as_ref().and_then(Uri::host).unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|at| at.is_loopback());
    if unix(target).is_some() || (here && !target.contains('@')) {
        return Ok(());
    }
    Err(format!(
        "a token would be sent in clear to `{target}`, which is not this machine; name a sidecar's Unix socket or a loopback address"
    ))
}

/// The Unix socket that `target` names: as `unix:PATH`, or as a path with a slash.
fn unix(target: &str) -> Option<PathBuf> {
    match target.strip_prefix("unix:") {
        Some(path) => Some(PathBuf::from(path)),
        None => target.contains('/').then(|| PathBuf::from(target)),
    }
}

/// Where a sidecar is: a Unix socket as `unix:PATH` or as a path with a slash, else a host and port.
#[derive(Clone, Debug)]
pub struct Place {
    /// As whoever named it did.
    pub target: String,
    /// Whether anybody did.
    pub named: bool,
}

impl Place {
    /// Where somebody says.
    pub fn named(target: String) -> Self {
        Self {
            target,
            named: true,
        }
    }

    /// The socket where nobody says.
    pub fn unnamed(socket: &Path) -> Self {
        Self {
            target: format!("unix:{}", socket.display()),
            named: false,
        }
    }
}

/// Connects to a sidecar. Calls bring the token in the file `token`. A socket that nobody named is
/// believed where nobody else can have put it.
///
/// # Errors
///
/// Nobody there, no address, or a token that would leave this machine.
pub async fn connect(place: &Place, token: Option<&Path>) -> Result<Connection, String> {
    let target = &place.target;
    if token.is_some() {
        carries_tokens(target)?;
    }
    if let Some(folder) = unix(target)
        .filter(|_| !place.named)
        .as_deref()
        .and_then(Path::parent)
    {
        ours_alone(folder)?;
    }
    let channel = if let Some(path) = unix(target) {
        over_unix(&path).await?
    } else {
        let endpoint = Endpoint::from_shared(format!("http://{target}"));
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await;
        channel.map_err(|error| error.to_string())?
    };
    Ok(Connection {
        channel,
        token: token.map(Into::into),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_do_not_leave_the_machine() {
        for here in [
            "unix:a.sock",
            "/run/exeat/exeat.sock",
            "127.0.0.1:7430",
            "127.9.9.9:7430",
            "[::1]:7430",
            "localhost:7430",
        ] {
            assert_eq!(carries_tokens(here), Ok(()), "{here}");
        }
        for there in [
            "10.0.0.1:7430",
            "exeat:7430",
            "localhost.example:7430",
            "127.0.0.1.example:7430",
            "x@127.0.0.1:7430",
            "localhost:x@evil.example",
            "127.0.0.1:x@10.0.0.1",
            "localhost:1@10.0.0.1:7430",
            "127.0.0.1:7430?@10.0.0.1",
            "[::]:7430",
            "0.0.0.0:7430",
            "",
        ] {
            let why = carries_tokens(there).unwrap_err();
            assert!(why.contains("in clear"), "{there}: {why}");
        }
    }

    #[test]
    fn a_file_holds_one_token_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (content, token) in [
            ("abc\n", Ok("Bearer abc")),
            ("", Err("no token")),
            (" \n", Err("no token")),
            ("a b", Err("no token")),
            ("a\u{7}", Err("no token")),
            (&*"x".repeat(20_000), Err("more than")),
        ] {
            std::fs::write(&path, content).unwrap();
            match (bearer(&path), token) {
                (Ok(value), Ok(wanted)) => assert_eq!(value, wanted),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{why}"),
                (said, wanted) => panic!("{content:?}: {said:?}, not {wanted:?}"),
            }
        }
    }
}
