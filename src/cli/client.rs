//! A connection to a sidecar.

use std::path::Path;

use tonic::{Code, Status};

use crate::{
    config::{default_socket, environment},
    runtime::channel::{self, Connection, Place, carries_tokens},
    wire::v1::check_service_client::CheckServiceClient,
};

use super::{args::Target, run::Exit};

/// Connects to the sidecar at `to`, or at the default socket, or at the default port.
pub(super) async fn connect(to: &Target) -> Result<CheckServiceClient<Connection>, Exit> {
    let default = default_socket(&environment());
    let place = match &to.socket {
        Some(target) => Place::named(target.clone()),
        None if default.try_exists().unwrap_or(false) => Place::unnamed(&default),
        // It may be anybody's.
        None if to.agent_token_file.is_some() => {
            return Err(Exit::Usage(format!(
                "nothing is at {}, and a token is not brought to a port that nobody named: say where the sidecar is with --socket",
                default.display()
            )));
        }
        None => Place::named("127.0.0.1:7430".to_owned()),
    };
    connect_at(&place, to.agent_token_file.as_deref()).await
}

/// Connects to the sidecar at `place`, with the token in a file if there is one.
pub(super) async fn connect_at(
    place: &Place,
    token: Option<&Path>,
) -> Result<CheckServiceClient<Connection>, Exit> {
    if token.is_some() {
        carries_tokens(&place.target).map_err(|why| Exit::Usage(format!("--socket: {why}")))?;
    }
    let connection = channel::connect(place, token).await;
    connection.map(CheckServiceClient::new).map_err(|why| {
        let shown = place.target.strip_prefix("unix:").unwrap_or(&place.target);
        Exit::Unreachable(format!("no sidecar at {shown} ({why}); start one with `exeat sidecar --bundle DIR --subject ID`, or say where it is with --socket"))
    })
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
