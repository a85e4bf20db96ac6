//! One request of ours to somebody else's HTTP server: bounded in time and size, to addresses that
//! may be called, and never anywhere it is sent on to.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    crypto::aws_lc_rs as provider_of,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    reachable::{Net, is_public},
    tls,
};

/// How long all of it may take.
const WITHIN: Duration = Duration::from_secs(15);
/// How long one address may take to answer.
const CONNECT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const ANSWER: usize = 1 << 20;

/// Believes certificates as the system does, and those of `ca`.
fn believing(ca: Option<&Path>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let mut roots = RootCertStore::empty();
    // A system without any still has what the setting names.
    let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let at = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let before = roots.len();
        for root in CertificateDer::pem_file_iter(path).map_err(|error| at(&error))? {
            roots
                .add(root.map_err(|error| at(&error))?)
                .map_err(|error| at(&error))?;
        }
        if roots.len() == before {
            return Err(at(&"holds no certificate"));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider_of::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots))
}

/// The TLS of a client that believes certificates as the system does, and those of `ca`.
///
/// # Errors
///
/// A file without certificates.
pub fn trusting(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let config = believing(ca)?;
    Ok(config.with_no_client_auth())
}

/// Who may be called, and whose certificates are believed.
#[derive(Clone)]
pub struct Caller {
    allow: Arc<[Net]>,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// One that calls the public Internet over TLS, and beyond that only what `allow` holds, there
    /// also in plain text. Certificates are believed as the system does, and those of `ca`; ours is
    /// that of `identity`, a certificate and its key.
    ///
    /// # Errors
    ///
    /// A file without certificates, or no usable key.
    pub fn new(
        allow: Vec<Net>,
        ca: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, String> {
        let config = believing(ca)?;
        let mut config = match identity {
            Some((certificate, key)) => {
                let (chain, key) = tls::identity(certificate, key)?;
                config
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("{}: {error}", certificate.display()))?
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            allow: allow.into(),
            tls: Arc::new(config),
        })
    }

    /// Whether an address may be called, and whether only over TLS.
    fn may(&self, address: IpAddr) -> Option<bool> {
        if self.allow.iter().any(|net| net.holds(address)) {
            return Some(false);
        }
        is_public(address).then_some(true)
    }

    /// Sends a request and reads its answer, whatever it says. An answer that sends us elsewhere is
    /// an answer like any other: nobody follows it.
    ///
    /// # Errors
    ///
    /// Why there is no answer, for the log.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        timeout(WITHIN, self.sent(request))
            .await
            .map_err(|_| format!("no answer within {} s", WITHIN.as_secs()))?
    }

    async fn sent(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let place = Place::of(request.uri())?;
        let (stream, encrypted) = self.connect(&place).await?;
        if encrypted && !place.tls {
            return Err(format!(
                "{} is no address that plain HTTP may be spoken with; use https, or allow it",
                place.host
            ));
        }
        if !place.tls {
            return exchange(stream, request, &place).await;
        }
        let name = ServerName::try_from(place.host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(|error| format!("TLS: {error}"))?;
        exchange(stream, request, &place).await
    }

    /// Connects to the first address of a place that may be called and answers. What was looked at
    /// is what is called: the name is not looked up a second time.
    async fn connect(&self, place: &Place) -> Result<(TcpStream, bool), String> {
        let host = place.host.as_str();
        let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![(address, place.port).into()],
            Err(_) => lookup_host((host, place.port))
                .await
                .map_err(|error| format!("{host} cannot be looked up: {error}"))?
                .collect(),
        };
        let mut why = format!("{host} has no address");
        for address in found {
            let Some(encrypted) = self.may(address.ip()) else {
                why = format!(
                    "{host} is at {}, within this machine or network; allow that address if it is meant",
                    address.ip()
                );
                continue;
            };
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((stream, encrypted)),
                Ok(Err(error)) => why = format!("{address}: {error}"),
                Err(_) => why = format!("{address}: does not answer"),
            }
        }
        Err(why)
    }
}

/// Where a request goes.
struct Place {
    host: String,
    port: u16,
    tls: bool,
}

impl Place {
    fn of(uri: &Uri) -> Result<Self, String> {
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(format!("`{uri}` is no http or https address")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("`{uri}` names no host"))?;
        Ok(Self {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
        })
    }
}

/// Whether a text is the address of something that can be called: `http` or `https`, a host, and
/// nobody's password.
///
/// # Errors
///
/// What is wrong with it.
pub fn callable(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("`{text}` is no address: {error}"))?;
    Place::of(&uri)?;
    let named = uri.authority().map_or("", |authority| authority.as_str());
    if named.contains('@') {
        return Err("holds a name or a password; secrets belong into a file".into());
    }
    Ok(uri)
}

async fn exchange<S>(
    stream: S,
    mut request: Request<Bytes>,
    place: &Place,
) -> Result<Response<Bytes>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let uri = request.uri().clone();
    let authority = uri
        .authority()
        .map_or(place.host.as_str(), |host| host.as_str());
    let host = HeaderValue::from_str(authority).map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::HOST, host);
    let agent = HeaderValue::from_static(concat!("exeat/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| format!("`{path}` is no path"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender
            .send_request(request.map(Full::new))
            .await
            .map_err(|error| error.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection may end before the answer was read from it.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
