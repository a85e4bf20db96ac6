//! Checked settings of the sidecar.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use super::{
    callers::{Identity, Proxy, TokenSource, identity, token_source},
    common::{self, LogFormat, Tls},
    load::{Setting, Settings, Wrong},
};

/// Where what is governed comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A folder of manifests.
    Bundle(PathBuf),
    /// A registry.
    Registry(Box<Registry>),
}

/// The registry that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Its host and port.
    pub address: String,
    /// The key its statements are signed with: `ed25519:` and 64 hex digits.
    pub key: String,
    /// The file with the token that says who this sidecar is.
    pub token_file: Option<PathBuf>,
    /// Whose certificate the registry has; with it TLS is spoken.
    pub ca: Option<PathBuf>,
    /// The certificate that says who this sidecar is, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Where what was last known is kept.
    pub data: PathBuf,
    /// Bytes that subjects and resources fetched on demand may take.
    pub entity_cache: u64,
}

/// Settings of the sidecar.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Where what is governed comes from.
    pub origin: Origin,
    /// The folder for what is recorded of exceptions.
    pub evidence: PathBuf,
    /// Most bytes of it.
    pub evidence_size: u64,
    /// Where decisions are answered.
    pub listen: SocketAddr,
    /// The Unix socket where they are answered as well.
    pub unix: Option<PathBuf>,
    /// Where health and metrics are served.
    pub operations: SocketAddr,
    /// Who callers are.
    pub identity: Identity,
    /// Who may speak for others: proxies that have verified who is behind a call.
    pub proxies: Arc<[Proxy]>,
    /// Whose tokens count that proxies have verified.
    pub proxy_tokens: Arc<[TokenSource]>,
    /// Under which address AuthZEN clients know this decision point.
    pub authzen_url: Option<Arc<str>>,
    /// TLS on `listen`.
    pub tls: Option<Tls>,
    /// The SPIFFE Workload API that gives the keys for it, in place of files.
    pub workload_api: Option<Box<str>>,
    /// Connections at once, for each listener.
    pub max_connections: usize,
    /// How long calls under way may take after the signal to stop.
    pub drain_timeout: Duration,
    /// Where decisions are written down.
    pub decision_log: DecisionLog,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
    /// The `OTEL_*` variables, as they are set.
    pub otel: Vec<(String, String)>,
    /// Where each value came from.
    pub settings: Settings,
}

/// The decision log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionLog {
    /// Whether there is one.
    pub kept: bool,
    /// Its file; standard output if there is none.
    pub to: Option<PathBuf>,
    /// Most bytes of one file.
    pub size: u64,
    /// Most files, the present one included.
    pub files: usize,
    /// What of questions beside names is shown, such as `context.ticket`.
    pub values: Arc<[Box<str>]>,
}

/// A spool that is smaller holds next to nothing.
const LEAST_EVIDENCE: u64 = 1 << 20;
/// One that is smaller is rotated all the time.
const LEAST_LOG: u64 = 1 << 20;

const DEFAULTS: &[Setting] = &[
    Setting {
        key: "bundle",
        default: "",
        about: "folder of manifests",
    },
    Setting {
        key: "registry",
        default: "",
        about: "host and port of the registry to follow, in place of a folder",
    },
    Setting {
        key: "registry_key",
        default: "",
        about: "key of the registry, as it prints it at its start",
    },
    Setting {
        key: "registry_token_file",
        default: "",
        about: "file with the token that says who this sidecar is",
    },
    Setting {
        key: "registry_ca",
        default: "",
        about: "whose certificate the registry has, PEM; with it TLS is spoken",
    },
    Setting {
        key: "registry_certificate",
        default: "",
        about: "certificate that says who this sidecar is, PEM",
    },
    Setting {
        key: "registry_certificate_key",
        default: "",
        about: "key of that certificate, PEM",
    },
    Setting {
        key: "data",
        default: "auto",
        about: "folder for what was last known of the registry, and for records of uses",
    },
    Setting {
        key: "evidence_size",
        default: "256MiB",
        about: "most that records of uses may take; once full, no exception is honoured",
    },
    Setting {
        key: "entity_cache",
        default: "16MiB",
        about: "most that subjects and resources fetched on demand may take",
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
        key: "token_keys",
        default: "",
        about: "file of keys that sign callers' tokens: a JSON Web Key Set",
    },
    Setting {
        key: "token_issuer",
        default: "",
        about: "who issues these tokens, as they say it (`iss`)",
    },
    Setting {
        key: "token_audience",
        default: "",
        about: "for whom they are issued, as they say it (`aud`)",
    },
    Setting {
        key: "token_prefix",
        default: "",
        about: "what stands here before the subjects they name (`sub`)",
    },
    Setting {
        key: "agent_tokens",
        default: "",
        about: "file of agents' own tokens: lines of `sha256:DIGEST SUBJECT`, as `exeat hook token` makes them",
    },
    Setting {
        key: "proxies",
        default: "",
        about: "who may speak for others, having verified them: `uid:UID` on the Unix socket and SPIFFE ids, with commas between",
    },
    Setting {
        key: "proxy_tokens",
        default: "",
        about: "whose tokens count that a proxy has verified: KEY=PREFIX, the key under which Envoy's JWT filter leaves their payload and what their subjects are called here, with commas between",
    },
    Setting {
        key: "authzen_url",
        default: "",
        about: "under which address AuthZEN clients know this decision point, such as https://pdp.example.com; without it there is no metadata document",
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
        key: "workload_api",
        default: "",
        about: "SPIFFE Workload API that gives the certificate, its key and whose client certificates are trusted, such as unix:///run/spire/sockets/agent.sock",
    },
    Setting {
        key: "max_connections",
        default: "1024",
        about: "connections at once, for each listener",
    },
    Setting {
        key: "decision_log",
        default: "none",
        about: "file for decisions as lines of JSON; `stdout` or `none`",
    },
    Setting {
        key: "decision_log_size",
        default: "64MiB",
        about: "most that one file of decisions may take; then the next is begun",
    },
    Setting {
        key: "decision_log_files",
        default: "5",
        about: "files of decisions that are kept",
    },
    Setting {
        key: "decision_log_values",
        default: "",
        about: "what of questions is shown beside names: `context.NAME` and `properties.NAME`, with commas between; all else is left out",
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
        let data = settings.parse("data", wrong_, |text| Ok(text.to_owned()));
        let data = |auto: &str| match data.as_deref() {
            Some("auto") | None => common::state_folder(environment).join(auto),
            Some(text) => PathBuf::from(text),
        };
        let origin = origin(&settings, data("sidecar"), wrong_);
        let evidence_size = settings.parse("evidence_size", wrong_, |text| {
            let bytes = common::bytes(text)?;
            if bytes < LEAST_EVIDENCE {
                return Err("is less than 1MiB".into());
            }
            Ok(bytes)
        });
        let listen = settings.parse("listen", wrong_, common::address);
        let operations = settings.parse("operations", wrong_, common::address);
        let unix = settings.parse("unix", wrong_, |text| {
            Ok(match text {
                "none" => None,
                "auto" => Some(default_socket(environment)),
                text => Some(PathBuf::from(text)),
            })
        });
        let tls = common::tls(&settings, wrong_);
        let workload_api = settings.parse("workload_api", wrong_, |text| Ok(text.into()));
        if workload_api.is_some() && tls.is_some() {
            let what = "`workload_api` is in place of tls_certificate, tls_key and tls_client_ca: leave one of the two out";
            wrong_.0.push(what.into());
        }
        let known = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let identity = identity(&settings, known || workload_api.is_some(), wrong_);
        let proxies = settings.parse("proxies", wrong_, |text| {
            text.split(',')
                .map(Proxy::parse)
                .collect::<Result<Vec<_>, _>>()
        });
        let proxy_tokens = settings.parse("proxy_tokens", wrong_, |text| {
            text.split(',')
                .map(token_source)
                .collect::<Result<Vec<_>, _>>()
        });
        let authzen_url = settings.parse("authzen_url", wrong_, common::public_address);
        let drain_timeout = settings.parse("drain_timeout", wrong_, common::span);
        let max_connections =
            settings.parse("max_connections", wrong_, |text| common::count(text, 4_096));
        let decision_log = decision_log(&settings, wrong_);
        let log_format = settings.parse("log_format", wrong_, common::log_format);
        let log = settings.parse("log", wrong_, |text| Ok(text.to_owned()));
        common::beyond_loopback(listen, tls.is_some() || workload_api.is_some(), wrong_);
        match (
            origin,
            listen,
            operations,
            identity,
            max_connections,
            drain_timeout,
            (log_format, evidence_size, decision_log),
        ) {
            (
                Some(origin),
                Some(listen),
                Some(operations),
                Some(identity),
                Some(max_connections),
                Some(drain_timeout),
                (Some(log_format), Some(evidence_size), Some(decision_log)),
            ) if wrong.0.is_empty() => Ok(Self {
                evidence: match &origin {
                    Origin::Registry(registry) => registry.data.clone(),
                    // Of each folder its own: exceptions of two may be called the same.
                    Origin::Bundle(bundle) => data(&format!("local/{}", folder_name(bundle))),
                },
                evidence_size,
                origin,
                listen,
                unix: unix.flatten(),
                operations,
                identity,
                proxies: proxies.unwrap_or_default().into(),
                proxy_tokens: proxy_tokens.unwrap_or_default().into(),
                authzen_url,
                tls,
                workload_api,
                max_connections,
                drain_timeout,
                decision_log,
                log_format,
                log: log.unwrap_or_default(),
                otel: common::otel(environment),
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

fn decision_log(settings: &Settings, wrong: &mut Wrong) -> Option<DecisionLog> {
    let to = settings.parse("decision_log", wrong, |text| {
        Ok(match text {
            "none" => None,
            "stdout" => Some(None),
            path => Some(Some(PathBuf::from(path))),
        })
    });
    let size = settings.parse("decision_log_size", wrong, |text| {
        let bytes = common::bytes(text)?;
        (bytes >= LEAST_LOG)
            .then_some(bytes)
            .ok_or_else(|| "is less than 1MiB".to_owned())
    });
    let files = settings.parse("decision_log_files", wrong, |text| {
        common::count(text, 1_000)
    });
    let values = settings.parse("decision_log_values", wrong, |text| {
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let shown = |name: &str| match name.split_once('.') {
            // Whole entries alone: nothing below one is told apart.
            Some(("context" | "properties", rest)) if !rest.is_empty() && !rest.contains('.') => {
                Ok(name.into())
            }
            _ => Err(format!(
                "`{name}` is neither `context.NAME` nor `properties.NAME`"
            )),
        };
        names.map(shown).collect::<Result<Vec<Box<str>>, _>>()
    });
    let to = to?;
    Some(DecisionLog {
        kept: to.is_some(),
        to: to.flatten(),
        size: size?,
        files: files?,
        values: values.unwrap_or_default().into(),
    })
}

fn origin(settings: &Settings, data: PathBuf, wrong: &mut Wrong) -> Option<Origin> {
    let path = |text: &str| Ok(PathBuf::from(text));
    let text = |text: &str| Ok(text.to_owned());
    let bundle = settings.parse("bundle", wrong, path);
    let address = settings.parse("registry", wrong, text);
    let key = settings.parse("registry_key", wrong, text);
    let token_file = settings.parse("registry_token_file", wrong, path);
    let ca = settings.parse("registry_ca", wrong, path);
    let certificate = settings.parse("registry_certificate", wrong, path);
    let certificate_key = settings.parse("registry_certificate_key", wrong, path);
    let entity_cache = settings.parse("entity_cache", wrong, common::bytes);
    let address = match (bundle, address) {
        (Some(bundle), None) => return Some(Origin::Bundle(bundle)),
        (None, Some(address)) => address,
        (Some(_), Some(_)) => {
            wrong
                .0
                .push("`bundle` and `registry` are both set; use one of the two".into());
            return None;
        }
        (None, None) => {
            wrong.0.push(
                "neither `bundle` nor `registry` is set; use --bundle DIR or --registry HOST:PORT"
                    .into(),
            );
            return None;
        }
    };
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    if host.is_empty() {
        wrong.0.push(format!(
            "`registry`: `{address}` is not HOST:PORT, such as 127.0.0.1:7432"
        ));
    }
    let local = common::is_local(host);
    if ca.is_none() && !local {
        wrong.0.push(format!(
            "`registry` is {address}: beyond loopback TLS is required; set registry_ca"
        ));
    }
    let Some(key) = key else {
        wrong.0.push(
            "`registry_key` is not set; the registry prints its key at its start, and nothing unsigned is believed".into(),
        );
        return None;
    };
    let certificate = match (certificate, certificate_key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (_, _) => {
            wrong
                .0
                .push("`registry_certificate` and `registry_certificate_key` go together".into());
            None
        }
    };
    if certificate.is_some() && ca.is_none() {
        wrong
            .0
            .push("`registry_certificate` needs registry_ca".into());
    }
    if certificate.is_none() && token_file.is_none() {
        wrong.0.push(
            "nothing says who this sidecar is; set registry_token_file or registry_certificate"
                .into(),
        );
    }
    Some(Origin::Registry(Box::new(Registry {
        address,
        key,
        token_file,
        ca,
        certificate,
        data,
        entity_cache: entity_cache?,
    })))
}

/// A name for a folder that no other has.
fn folder_name(folder: &Path) -> String {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
    let [a, b, c, d, ..] = <[u8; 32]>::from(digest);
    let last = whole.file_name().unwrap_or_default().to_string_lossy();
    format!("{last}-{a:02x}{b:02x}{c:02x}{d:02x}")
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
