//! TLS on listeners: keys from files, read anew when the files change, or from a SPIFFE Workload API,
//! which sends new ones before the old are over.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs as provider_of,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use spiffe::X509Source;
use tokio::{io, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::files::Stamp;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Whether clients present certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// All of them, where a client authority is named.
    Certified,
    /// Some may say by a token who they are.
    Some,
}

/// How long a Workload API may take to give the first keys.
const FIRST: Duration = Duration::from_secs(30);

/// A listener's keys.
#[derive(Debug)]
pub struct Keys {
    source: Source,
    loaded: Mutex<Loaded>,
}

/// Where keys come from.
#[derive(Debug)]
enum Source {
    Files {
        certificate: PathBuf,
        key: PathBuf,
        client_ca: Option<PathBuf>,
        clients: Clients,
    },
    /// Clients are those of the same trust domain.
    Workload(X509Source),
}

/// Which keys they are.
#[derive(Debug, PartialEq, Eq)]
enum Version {
    Files(Vec<Option<Stamp>>),
    Workload(u64),
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    version: Version,
}

impl Source {
    fn version(&self) -> Version {
        match self {
            Self::Files {
                certificate,
                key,
                client_ca,
                ..
            } => {
                let files = [Some(certificate), Some(key), client_ca.as_ref()];
                let stamps = files.into_iter().flatten().map(|path| Stamp::of(path));
                Version::Files(stamps.collect())
            }
            Self::Workload(source) => Version::Workload(source.updated().last()),
        }
    }

    fn config(&self) -> Result<Arc<ServerConfig>, String> {
        match self {
            Self::Files {
                certificate,
                key,
                client_ca,
                clients,
            } => {
                let at = |why: String| format!("{}: {why}", certificate.display());
                let presented = identity(certificate, key)?;
                let roots = client_ca.as_deref().map(roots).transpose()?;
                config(presented, roots, *clients).map_err(at)
            }
            Self::Workload(source) => {
                let svid = source.svid().map_err(|error| error.to_string())?;
                let chain = svid.cert_chain().iter();
                let chain = chain.map(|of| CertificateDer::from(of.as_bytes().to_vec()));
                let key = svid.private_key().as_bytes().to_vec();
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
                let domain = svid.spiffe_id().trust_domain();
                let bundle = source
                    .try_bundle_for_trust_domain(domain)
                    .ok_or_else(|| format!("nobody is named whom to trust in `{domain}`"))?;
                let mut roots = RootCertStore::empty();
                for authority in bundle.authorities() {
                    let authority = CertificateDer::from(authority.as_bytes().to_vec());
                    roots.add(authority).map_err(|error| error.to_string())?;
                }
                config((chain.collect(), key), Some(roots), Clients::Certified)
            }
        }
    }
}

impl Keys {
    /// Reads the keys; `client_ca` says whose clients are let in. Where some clients have no
    /// certificate nothing older than TLS 1.3 is spoken.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or used, with its name.
    pub fn read(
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
        clients: Clients,
    ) -> Result<Self, String> {
        Self::of(Source::Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: client_ca.map(Path::to_owned),
            clients,
        })
    }

    /// The keys that a Workload API gives whoever asks at `endpoint`, such as
    /// `unix:///run/spire/sockets/agent.sock`: clients are those of the same trust domain.
    ///
    /// # Errors
    ///
    /// Nobody there within half a minute, or nobody who knows this workload.
    pub async fn workload(endpoint: &str) -> Result<Self, String> {
        let at = |why: &dyn std::fmt::Display| format!("workload_api {endpoint}: {why}");
        let building = X509Source::builder()
            .endpoint(endpoint)
            .initial_sync_timeout(FIRST)
            .build();
        let source = building.await.map_err(|error| at(&error))?;
        Self::of(Source::Workload(source)).map_err(|why| at(&why))
    }

    fn of(source: Source) -> Result<Self, String> {
        // Before they are read: what changes meanwhile is read again.
        let version = source.version();
        let config = source.config()?;
        Ok(Self {
            source,
            loaded: Mutex::new(Loaded { config, version }),
        })
    }

    /// The keys as they are now; those from before where they are no good.
    fn current(&self) -> Arc<ServerConfig> {
        let version = self.source.version();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.version != version {
            loaded.version = version;
            match self.source.config() {
                Ok(config) => {
                    loaded.config = config;
                    tracing::info!("new keys for TLS are in use");
                }
                Err(why) => {
                    tracing::error!(
                        why,
                        "the new keys for TLS cannot be used; the old ones go on"
                    );
                }
            }
        }
        Arc::clone(&loaded.config)
    }

    /// Shakes hands on a connection.
    ///
    /// # Errors
    ///
    /// A client that does not speak TLS, is not let in, or is too slow.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: io::AsyncRead + io::AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.current());
        timeout(HANDSHAKE, acceptor.accept(stream))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))?
    }
}

/// What is presented: a certificate with those it rests on, and its key.
type Presented = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The authorities in a file.
fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path)? {
        let added = roots.add(root);
        added.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn config(
    (chain, private): Presented,
    roots: Option<RootCertStore>,
    clients: Clients,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(provider_of::default_provider());
    let versions: &[_] = match clients {
        Clients::Certified => &[&TLS13, &TLS12],
        Clients::Some => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match clients {
                Clients::Certified => verifier,
                Clients::Some => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| error.to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A certificate with those it rests on, and its key.
pub(super) fn identity(certificate: &Path, key: &Path) -> Result<Presented, String> {
    let chain = certificates(certificate)?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
    Ok((chain, private))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| at(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| at(&error))?;
    if found.is_empty() {
        return Err(at(&"holds no certificate"));
    }
    Ok(found)
}
