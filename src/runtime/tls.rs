//! TLS on listeners: keys from files, read anew when the files change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs as provider_of,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use tokio::{io, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

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

/// A listener's keys.
#[derive(Debug)]
pub struct Keys {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    clients: Clients,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    stamps: Vec<Option<SystemTime>>,
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
        let config = config(certificate, key, client_ca, clients)?;
        let keys = Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: client_ca.map(Path::to_owned),
            clients,
            loaded: Mutex::new(Loaded {
                config,
                stamps: Vec::new(),
            }),
        };
        let stamps = keys.stamps();
        keys.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stamps = stamps;
        Ok(keys)
    }

    fn stamps(&self) -> Vec<Option<SystemTime>> {
        let files = [
            Some(&self.certificate),
            Some(&self.key),
            self.client_ca.as_ref(),
        ];
        let stamp = |path: &PathBuf| {
            std::fs::metadata(path)
                .and_then(|file| file.modified())
                .ok()
        };
        files.into_iter().flatten().map(stamp).collect()
    }

    /// The keys as the files are now; those from before where the files are no good.
    fn current(&self) -> Arc<ServerConfig> {
        let stamps = self.stamps();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.stamps != stamps {
            loaded.stamps = stamps;
            match config(
                &self.certificate,
                &self.key,
                self.client_ca.as_deref(),
                self.clients,
            ) {
                Ok(config) => {
                    loaded.config = config;
                    tracing::info!(certificate = %self.certificate.display(), "new keys for TLS are in use");
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

fn config(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    clients: Clients,
) -> Result<Arc<ServerConfig>, String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let (chain, private) = identity(certificate, key)?;
    let provider = Arc::new(provider_of::default_provider());
    let versions: &[_] = match clients {
        Clients::Certified => &[&TLS13, &TLS12],
        Clients::Some => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(path)? {
                roots.add(root).map_err(|error| at(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match clients {
                Clients::Certified => verifier,
                Clients::Some => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| at(path, &error))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private)
        .map_err(|error| at(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A certificate with those it rests on, and its key.
pub(super) fn identity(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
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
