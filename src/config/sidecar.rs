//! Checked settings of the sidecar.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::domain::{Span, SubjectId};

use super::load::{Setting, Settings, Wrong};

/// Who a caller is, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The sidecar stands next to this one subject.
    Bound(SubjectId),
    /// The operating system's word for who is at the other end of the Unix socket, by user id.
    Peers(Vec<(u32, SubjectId)>),
    /// The SPIFFE id of the client's certificate, within this trust domain.
    Spiffe(String),
    /// Whatever the caller says.
    Asserted,
}

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

/// Settings of the sidecar.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// The folder of manifests.
    pub bundle: PathBuf,
    /// Where decisions are answered.
    pub listen: SocketAddr,
    /// The Unix socket where they are answered as well.
    pub unix: Option<PathBuf>,
    /// Where health and metrics are served.
    pub operations: SocketAddr,
    /// Who callers are.
    pub identity: Identity,
    /// TLS on `listen`.
    pub tls: Option<Tls>,
    /// Connections at once, for each listener.
    pub max_connections: usize,
    /// How long calls under way may take after the signal to stop.
    pub drain_timeout: Duration,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
    /// Where each value came from.
    pub settings: Settings,
}

const DEFAULTS: &[Setting] = &[
    Setting {
        key: "bundle",
        default: "",
        about: "folder of manifests",
    },
    Setting {
        key: "listen",
        default: "127.0.0.1:7430",
        about: "address for decisions",
    },
    Setting {
        key: "unix",
        default: "auto",
        about: "Unix socket for decisions; `auto` or `none`",
    },
    Setting {
        key: "operations",
        default: "127.0.0.1:7431",
        about: "address for health and metrics",
    },
    Setting {
        key: "subject",
        default: "",
        about: "the one subject this sidecar stands next to",
    },
    Setting {
        key: "peers",
        default: "",
        about: "subjects by user id on the Unix socket: UID=SUBJECT,…",
    },
    Setting {
        key: "trust_domain",
        default: "",
        about: "SPIFFE trust domain of client certificates",
    },
    Setting {
        key: "insecure_asserted_identity",
        default: "false",
        about: "believe callers who they say they are",
    },
    Setting {
        key: "tls_certificate",
        default: "",
        about: "certificate chain, PEM",
    },
    Setting {
        key: "tls_key",
        default: "",
        about: "key of the certificate, PEM",
    },
    Setting {
        key: "tls_client_ca",
        default: "",
        about: "whose client certificates are trusted, PEM",
    },
    Setting {
        key: "max_connections",
        default: "64",
        about: "connections at once, for each listener",
    },
    Setting {
        key: "drain_timeout",
        default: "10s",
        about: "how long calls may take after SIGTERM",
    },
    Setting {
        key: "log_format",
        default: "text",
        about: "`text` or `json`",
    },
    Setting {
        key: "log",
        default: "info",
        about: "what is logged, such as `info` or `exeat=debug`",
    },
];

impl Sidecar {
    /// Every setting with its default and purpose.
    pub const SETTINGS: &'static [Setting] = DEFAULTS;

    /// Reads and checks the settings, all problems together.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each with its key and source.
    pub fn load(
        file: Option<&Path>,
        environment: &[(String, String)],
        flags: &[(&'static str, Option<String>)],
    ) -> Result<Self, Wrong> {
        let settings = Settings::gather(DEFAULTS, file, environment, flags)?;
        let mut wrong = Wrong::default();
        let wrong_ = &mut wrong;
        let path = |text: &str| Ok(PathBuf::from(text));
        let address = |text: &str| {
            text.parse::<SocketAddr>()
                .map_err(|_| format!("`{text}` is not an address; use one such as 127.0.0.1:7430"))
        };
        let bundle = settings.parse("bundle", wrong_, path);
        if bundle.is_none() {
            wrong_
                .0
                .push("`bundle` is not set; use --bundle DIR".into());
        }
        let listen = settings.parse("listen", wrong_, address);
        let operations = settings.parse("operations", wrong_, address);
        let unix = settings.parse("unix", wrong_, |text| {
            Ok(match text {
                "none" => None,
                "auto" => Some(default_socket(environment)),
                text => Some(PathBuf::from(text)),
            })
        });
        let certificate = settings.parse("tls_certificate", wrong_, path);
        let key = settings.parse("tls_key", wrong_, path);
        let client_ca = settings.parse("tls_client_ca", wrong_, path);
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Tls {
                certificate,
                key,
                client_ca,
            }),
            (None, None) if client_ca.is_none() => None,
            (_, _) => {
                wrong_.0.push(
                    "`tls_certificate` and `tls_key` go together, and `tls_client_ca` needs both"
                        .into(),
                );
                None
            }
        };
        let identity = identity(&settings, tls.as_ref(), wrong_);
        let drain_timeout = settings.parse("drain_timeout", wrong_, |text| {
            let span = Span::parse(text).map_err(|error| error.to_string())?;
            u64::try_from(span.micros())
                .map(Duration::from_micros)
                .map_err(|_| "is negative".into())
        });
        let max_connections = settings.parse("max_connections", wrong_, |text| {
            match text.parse::<usize>() {
                Ok(n) if (1..=4_096).contains(&n) => Ok(n),
                Ok(_) | Err(_) => Err(format!("`{text}` is not a number from 1 to 4096")),
            }
        });
        let log_format = settings.parse("log_format", wrong_, |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is neither `text` nor `json`")),
        });
        let log = settings.parse("log", wrong_, |text| Ok(text.to_owned()));
        if let Some(listen) = listen
            && !listen.ip().is_loopback()
            && tls.is_none()
        {
            wrong_.0.push(format!("`listen` is {listen}: beyond loopback TLS is required; set tls_certificate and tls_key, or listen on 127.0.0.1"));
        }
        match (
            bundle,
            listen,
            operations,
            identity,
            max_connections,
            drain_timeout,
            log_format,
        ) {
            (
                Some(bundle),
                Some(listen),
                Some(operations),
                Some(identity),
                Some(max_connections),
                Some(drain_timeout),
                Some(log_format),
            ) if wrong.0.is_empty() => Ok(Self {
                bundle,
                listen,
                unix: unix.flatten(),
                operations,
                identity,
                tls,
                max_connections,
                drain_timeout,
                log_format,
                log: log.unwrap_or_default(),
                settings,
            }),
            _ => {
                if wrong.0.is_empty() {
                    wrong
                        .0
                        .push("a setting is empty that has to be given".into());
                }
                Err(wrong)
            }
        }
    }
}

fn identity(settings: &Settings, tls: Option<&Tls>, wrong: &mut Wrong) -> Option<Identity> {
    let subject = settings.parse("subject", wrong, |text| {
        SubjectId::parse(text).map_err(|error| error.to_string())
    });
    let peers = settings.parse("peers", wrong, |text| {
        text.split(',')
            .map(|pair| {
                let (uid, subject) = pair
                    .split_once('=')
                    .ok_or_else(|| format!("`{pair}` is not UID=SUBJECT"))?;
                let uid = uid
                    .trim()
                    .parse::<u32>()
                    .map_err(|_| format!("`{uid}` is not a user id"))?;
                Ok((
                    uid,
                    SubjectId::parse(subject.trim()).map_err(|error| error.to_string())?,
                ))
            })
            .collect::<Result<Vec<_>, String>>()
    });
    let trust_domain = settings.parse("trust_domain", wrong, |text| Ok(text.to_owned()));
    let asserted = settings.parse("insecure_asserted_identity", wrong, |text| {
        text.parse::<bool>()
            .map_err(|_| format!("`{text}` is neither true nor false"))
    });
    if trust_domain.is_some() && tls.is_none_or(|tls| tls.client_ca.is_none()) {
        wrong
            .0
            .push("`trust_domain` needs tls_certificate, tls_key and tls_client_ca".into());
    }
    let ways: Vec<Identity> = [
        subject.map(Identity::Bound),
        peers.map(Identity::Peers),
        trust_domain.map(Identity::Spiffe),
        asserted
            .filter(|asserted| *asserted)
            .map(|_| Identity::Asserted),
    ]
    .into_iter()
    .flatten()
    .collect();
    let [way] = ways.as_slice() else {
        let what = if ways.is_empty() {
            "nothing says who callers are"
        } else {
            "more than one thing says who callers are"
        };
        wrong.0.push(format!("{what}; set one of subject, peers, trust_domain or, to try things out, insecure_asserted_identity"));
        return None;
    };
    Some(way.clone())
}

/// Where the Unix socket is unless told otherwise.
pub fn default_socket(environment: &[(String, String)]) -> PathBuf {
    let runtime = environment
        .iter()
        .find(|(name, value)| name == "XDG_RUNTIME_DIR" && !value.is_empty());
    match runtime {
        Some((_, folder)) => Path::new(folder).join("exeat/exeat.sock"),
        None => PathBuf::from(format!(
            "/tmp/exeat-{}/exeat.sock",
            rustix::process::geteuid().as_raw()
        )),
    }
}
