//! Settings that both processes have.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::domain::Span;

use super::load::{Settings, Wrong};

/// Keys for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Whose client certificates are trusted, PEM.
    pub client_ca: Option<PathBuf>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .map_err(|_| format!("`{text}` is not an address; use one such as 127.0.0.1:7430"))
}

/// Under which address others know a process: a host alone, and no path below it.
pub(super) fn public_address(text: &str) -> Result<Arc<str>, String> {
    let text = text.trim_end_matches('/');
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let plain = !rest.is_empty() && !rest.contains(['/', '?', '#']);
    plain
        .then(|| Arc::from(text))
        .ok_or_else(|| format!("`{text}` is no https address of a host alone"))
}

/// A time that passes.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let span = Span::parse(text).map_err(|error| error.to_string())?;
    u64::try_from(span.micros())
        .map(Duration::from_micros)
        .map_err(|_| "is negative".into())
}

/// A number from 1 to `most`.
pub(super) fn count(text: &str, most: usize) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        Ok(_) | Err(_) => Err(format!("`{text}` is not a number from 1 to {most}")),
    }
}

/// A number of bytes, such as `16MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: Option<u64> = match text.get(digits.len()..) {
        Some("" | "B") => Some(1),
        Some("KiB") => Some(1 << 10),
        Some("MiB") => Some(1 << 20),
        Some("GiB") => Some(1 << 30),
        Some(_) | None => None,
    };
    let count = digits.parse::<u64>().ok();
    count
        .zip(unit)
        .and_then(|(count, unit)| count.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is not a number of bytes, such as `16MiB`"))
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is neither `text` nor `json`")),
    }
}

/// Keys for TLS on the listener, if any are set.
pub(super) fn tls(settings: &Settings, wrong: &mut Wrong) -> Option<Tls> {
    let path = |text: &str| Ok(PathBuf::from(text));
    let certificate = settings.parse("tls_certificate", wrong, path);
    let key = settings.parse("tls_key", wrong, path);
    let client_ca = settings.parse("tls_client_ca", wrong, path);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Tls {
            certificate,
            key,
            client_ca,
        }),
        (None, None) if client_ca.is_none() => None,
        (_, _) => {
            wrong.0.push(
                "`tls_certificate` and `tls_key` go together, and `tls_client_ca` needs both"
                    .into(),
            );
            None
        }
    }
}

/// Beyond loopback everything is encrypted.
pub(super) fn beyond_loopback(listen: Option<SocketAddr>, tls: bool, wrong: &mut Wrong) {
    if let Some(listen) = listen
        && !listen.ip().is_loopback()
        && !tls
    {
        wrong.0.push(format!("`listen` is {listen}: beyond loopback TLS is required; set tls_certificate and tls_key, or listen on 127.0.0.1"));
    }
}

/// Whether a host is this machine.
pub fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What is set for OpenTelemetry.
pub(super) fn otel(environment: &[(String, String)]) -> Vec<(String, String)> {
    let set = environment.iter();
    set.filter(|(name, _)| name.starts_with("OTEL_"))
        .cloned()
        .collect()
}

/// The folder for what programs of this user keep.
pub fn state_folder(environment: &[(String, String)]) -> PathBuf {
    let of = |name: &str| {
        environment
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value))
    };
    let base = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")));
    base.unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("exeat")
}
