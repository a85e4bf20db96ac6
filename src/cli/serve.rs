//! `exeat sidecar` and `exeat registry`.

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{self, LogFormat, environment},
    registry,
    runtime::{clock::Clock, serve::Error},
    sidecar::Bound,
    telemetry,
};

use super::{
    args::{Registry, Sidecar},
    registry_args::RegistryCommand,
    run::Exit,
    screen::Screen,
    sign_in::{new_password, person},
};

pub(super) async fn sidecar(args: Sidecar, clock: Clock) -> Result<Exit, Exit> {
    let flags = [
        ("bundle", args.bundle),
        ("registry", args.registry),
        ("registry_key", args.registry_key),
        ("registry_token_file", args.registry_token_file),
        ("registry_ca", args.registry_ca),
        ("registry_certificate", args.registry_certificate),
        ("registry_certificate_key", args.registry_certificate_key),
        ("data", args.data),
        ("entity_cache", args.entity_cache),
        ("evidence_size", args.evidence_size),
        ("decision_log", args.decision_log),
        ("decision_log_size", args.decision_log_size),
        ("decision_log_files", args.decision_log_files),
        ("decision_log_values", args.decision_log_values),
        ("listen", args.listen),
        ("unix", args.unix),
        ("operations", args.operations),
        ("subject", args.subject),
        ("peers", args.peers),
        ("trust_domain", args.trust_domain),
        ("token_keys", args.token_keys),
        ("token_issuer", args.token_issuer),
        ("token_audience", args.token_audience),
        ("token_prefix", args.token_prefix),
        ("agent_tokens", args.agent_tokens),
        ("proxies", args.proxies),
        ("proxy_tokens", args.proxy_tokens),
        ("authzen_url", args.authzen_url),
        (
            "insecure_asserted_identity",
            args.insecure_asserted_identity.then(|| "true".to_owned()),
        ),
        ("tls_certificate", args.tls_certificate),
        ("tls_key", args.tls_key),
        ("tls_client_ca", args.tls_client_ca),
        ("workload_api", args.workload_api),
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

pub(super) async fn registry(
    args: Registry,
    clock: Clock,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let environment = environment();
    let data = || {
        let given = args.data.as_ref().map(std::path::PathBuf::from);
        given.unwrap_or_else(|| config::default_data(&environment))
    };
    match args.command {
        None => {}
        Some(RegistryCommand::Init {
            trust_domain,
            host,
            user,
        }) => {
            let data = data();
            let user = user
                .map(|name| {
                    let identity = person(&name);
                    new_password(&identity).map(|password| (identity, password))
                })
                .transpose()?;
            let made = registry::init(&data, &trust_domain, &host, user.as_ref(), clock)
                .await
                .map_err(|error| exit(&error))?;
            let people = match &user {
                Some((identity, _)) => format!(
                    "export EXEAT_REGISTRY_CA={}; exeat login --user {}",
                    made.ca.display(),
                    identity.trim_start_matches("user:")
                ),
                None => format!(
                    "export EXEAT_REGISTRY_CA={} EXEAT_TOKEN=$(cat {})",
                    made.ca.display(),
                    data.join("admin.token").display()
                ),
            };
            screen.say(&format!(
                " created   {}\n registry  exeat registry --data {}\n sidecar   exeat sidecar --registry 127.0.0.1:7432 --registry-key {} \\\n             --registry-ca {} --registry-certificate {} \\\n             --registry-certificate-key {} --subject ID\n people    {people}",
                data.display(),
                data.display(),
                made.pin,
                made.ca.display(),
                made.sidecar.certificate.display(),
                made.sidecar.key.display(),
            ))?;
            return Ok(Exit::Done);
        }
        Some(RegistryCommand::Issue {
            name,
            scope,
            trust_domain,
            out,
        }) => {
            let scope = scope.join(" ");
            let issued = registry::issue(&data(), &trust_domain, &name, &scope, &out, &clock)
                .await
                .map_err(|error| exit(&error))?;
            screen.say(&format!(
                "{} is let in for {scope}: {} and {}",
                issued.identity,
                issued.certificate.display(),
                issued.key.display()
            ))?;
            return Ok(Exit::Done);
        }
        Some(RegistryCommand::Rotate) => {
            let (old, new) = registry::rotate(&data(), clock)
                .await
                .map_err(|error| exit(&error))?;
            screen.say(&format!(
                "{new} replaces {old}; sidecars that know the old key follow, new ones pin the new one"
            ))?;
            return Ok(Exit::Done);
        }
        Some(RegistryCommand::Backup { to }) => {
            registry::backup(&data(), &to)
                .await
                .map_err(|error| exit(&error))?;
            screen.say(&format!("copied to {}", to.display()))?;
            return Ok(Exit::Done);
        }
        Some(RegistryCommand::Recover { seen }) => {
            let (epoch, revision) = registry::recover(&data(), seen, clock)
                .await
                .map_err(|error| exit(&error))?;
            screen.say(&format!(
                "epoch {epoch} begins at revision {revision}; sidecars give back what was revoked once they are connected"
            ))?;
            return Ok(Exit::Done);
        }
    }
    let flags = [
        ("data", args.data.clone()),
        ("listen", args.listen),
        ("operations", args.operations),
        ("tls_certificate", args.tls_certificate),
        ("tls_key", args.tls_key),
        ("tls_client_ca", args.tls_client_ca),
        ("drain_timeout", args.drain_timeout),
        ("log_format", args.log_format),
        ("log", args.log),
    ];
    let settings = config::RegistryProcess::load(args.config.as_deref(), &environment, &flags)
        .map_err(|wrong| Exit::Usage(wrong.to_string()))?;
    telemetry::start(settings.log_format == LogFormat::Json, &settings.log).map_err(Exit::Usage)?;
    let asked = stop().map_err(|error| Exit::Unexpected(error.to_string()))?;
    let bound = registry::Bound::bind(settings, clock)
        .await
        .map_err(|error| exit(&error))?;
    bound.run(asked).await.map_err(|error| exit(&error))?;
    Ok(Exit::Done)
}

fn exit(error: &Error) -> Exit {
    match error {
        Error::Tls(_) | Error::Data(_) => Exit::Invalid(error.to_string()),
        Error::Bind(_) | Error::Failed(_) => Exit::Unexpected(error.to_string()),
    }
}

/// Ends with SIGTERM or SIGINT.
pub(super) fn stop() -> std::io::Result<impl Future<Output = ()>> {
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
