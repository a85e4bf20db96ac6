//! `exeat sidecar`.

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{self, LogFormat, environment},
    runtime::clock::Clock,
    sidecar::{Bound, Error},
    telemetry,
};

use super::{args::Sidecar, run::Exit};

pub(super) async fn sidecar(args: Sidecar, clock: Clock) -> Result<Exit, Exit> {
    let flags = [
        ("bundle", args.bundle),
        ("listen", args.listen),
        ("unix", args.unix),
        ("operations", args.operations),
        ("subject", args.subject),
        ("peers", args.peers),
        ("trust_domain", args.trust_domain),
        (
            "insecure_asserted_identity",
            args.insecure_asserted_identity.then(|| "true".to_owned()),
        ),
        ("tls_certificate", args.tls_certificate),
        ("tls_key", args.tls_key),
        ("tls_client_ca", args.tls_client_ca),
        ("max_connections", args.max_connections),
        ("drain_timeout", args.drain_timeout),
        ("log_format", args.log_format),
        ("log", args.log),
    ];
    let settings = config::Sidecar::load(args.config.as_deref(), &environment(), &flags)
        .map_err(|wrong| Exit::Usage(wrong.to_string()))?;
    telemetry::start(settings.log_format == LogFormat::Json, &settings.log).map_err(Exit::Usage)?;
    let asked = stop().map_err(|error| Exit::Unexpected(error.to_string()))?;
    let bound = Bound::bind(settings, clock)
        .await
        .map_err(|error| exit(&error))?;
    bound.run(asked).await.map_err(|error| exit(&error))?;
    Ok(Exit::Done)
}

fn exit(error: &Error) -> Exit {
    match error {
        Error::Tls(_) => Exit::Invalid(error.to_string()),
        Error::Bind(_) | Error::Failed(_) => Exit::Unexpected(error.to_string()),
    }
}

/// Ends with SIGTERM or SIGINT.
fn stop() -> std::io::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM: stopping"),
            _ = int.recv() => tracing::info!("SIGINT: stopping"),
        }
    })
}
