//! Checked settings of the registry.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    common::{self, LogFormat, Tls},
    load::{Setting, Settings, Wrong},
};

/// Settings of the registry.
#[derive(Clone, Debug)]
pub struct RegistryProcess {
    /// The folder of its data.
    pub data: PathBuf,
    /// Where it is served.
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub operations: SocketAddr,
    /// TLS on `listen`.
    pub tls: Option<Tls>,
    /// Connections at once.
    pub max_connections: usize,
    /// Changes kept for sidecars that were away.
    pub kept_changes: usize,
    /// Whoever writes controls may have them deny less.
    pub weakens_at_will: bool,
    /// An administrator may apply exceptions that nobody asked for.
    pub applies_exceptions: bool,
    /// Under which address access is asked for over HTTP.
    pub access_url: Option<Arc<str>>,
    /// The file that says who is told, and who may tell us.
    pub webhooks: Option<PathBuf>,
    /// The file that says how people sign in.
    pub sign_in: Option<PathBuf>,
    /// When reports are made by themselves: five fields of cron, in UTC; `never` for never.
    pub report_schedule: String,
    /// How long calls under way may take after the signal to stop.
    pub drain_timeout: Duration,
    /// How logs are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
    /// The `OTEL_*` variables, as they are set.
    pub otel: Vec<(String, String)>,
    /// Where each value came from.
    pub settings: Settings,
}

const DEFAULTS: &[Setting] = &[
    Setting {
        key: "data",
        default: "auto",
        about: "folder of its data",
    },
    Setting {
        key: "operations",
        default: "127.0.0.1:7433",
        about: "address for health and metrics",
    },
    Setting {
        key: "listen",
        default: "127.0.0.1:7432",
        about: "address for sidecars, people and health",
    },
    Setting {
        key: "tls_certificate",
        default: "",
        about: "certificate chain, PEM; that of `exeat registry init`, if there is one",
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
        default: "20000",
        about: "connections at once",
    },
    Setting {
        key: "kept_changes",
        default: "100000",
        about: "changes kept for sidecars that were away",
    },
    Setting {
        key: "weakening",
        default: "decided",
        about: "controls that deny less: `decided` by the people for it, or `applied` by whoever writes controls, on one person's machine",
    },
    Setting {
        key: "exceptions",
        default: "requested",
        about: "exceptions: `requested` and decided, or also `applied` by an administrator, on one person's machine and to bring those over that are elsewhere",
    },
    Setting {
        key: "access_url",
        default: "",
        about: "under which address AuthZEN clients reach this registry, such as https://registry.example.com: denied callers are told to ask for access there; without it none is taken over HTTP",
    },
    Setting {
        key: "webhooks",
        default: "",
        about: "file that says who is told of what happens, and who may tell the registry",
    },
    Setting {
        key: "sign_in",
        default: "",
        about: "file that says how people sign in: with which issuers, and for how long",
    },
    Setting {
        key: "report_schedule",
        default: "0 6 * * 1",
        about: "when a report is made by itself and kept in the folder `reports` of its data: five fields of cron, in UTC, or `never`",
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

/// Where a registry's data is unless told otherwise.
pub fn default_data(environment: &[(String, String)]) -> PathBuf {
    common::state_folder(environment).join("registry")
}

impl RegistryProcess {
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
        let told = &mut wrong;
        let data = settings.parse("data", told, |text| {
            Ok(match text {
                "auto" => default_data(environment),
                text => PathBuf::from(text),
            })
        });
        let listen = settings.parse("listen", told, common::address);
        let operations = settings.parse("operations", told, common::address);
        let tls = common::tls(&settings, told).or_else(|| data.as_deref().and_then(made_by_init));
        let max_connections =
            settings.parse("max_connections", told, |text| common::count(text, 100_000));
        let kept_changes =
            settings.parse("kept_changes", told, |text| common::count(text, 10_000_000));
        let weakens_at_will = settings.parse("weakening", told, |text| match text {
            "decided" => Ok(false),
            "applied" => Ok(true),
            _ => Err("use `decided` or `applied`".to_owned()),
        });
        let applies_exceptions = settings.parse("exceptions", told, |text| match text {
            "requested" => Ok(false),
            "applied" => Ok(true),
            _ => Err("use `requested` or `applied`".to_owned()),
        });
        let access_url = settings.parse("access_url", told, common::public_address);
        let webhooks = settings.parse("webhooks", told, |text| Ok(PathBuf::from(text)));
        let sign_in = settings.parse("sign_in", told, |text| Ok(PathBuf::from(text)));
        let report_schedule = settings.parse("report_schedule", told, |text| Ok(text.to_owned()));
        let drain_timeout = settings.parse("drain_timeout", told, common::span);
        let log_format = settings.parse("log_format", told, common::log_format);
        let log = settings.parse("log", told, |text| Ok(text.to_owned()));
        common::beyond_loopback(listen, tls.is_some(), told);
        match (
            data,
            (listen, operations),
            max_connections,
            kept_changes,
            weakens_at_will,
            applies_exceptions,
            drain_timeout,
            log_format,
        ) {
            (
                Some(data),
                (Some(listen), Some(operations)),
                Some(max_connections),
                Some(kept_changes),
                Some(weakens_at_will),
                Some(applies_exceptions),
                Some(drain_timeout),
                Some(log_format),
            ) if wrong.0.is_empty() => Ok(Self {
                data,
                listen,
                operations,
                tls,
                max_connections,
                kept_changes,
                weakens_at_will,
                applies_exceptions,
                access_url,
                webhooks,
                sign_in,
                report_schedule: report_schedule.unwrap_or_default(),
                drain_timeout,
                log_format,
                log: log.unwrap_or_default(),
                otel: common::otel(environment),
                settings,
            }),
            _ => {
                if wrong.0.is_empty() {
                    let what = "a setting is empty that has to be given";
                    wrong.0.push(what.into());
                }
                Err(wrong)
            }
        }
    }
}

/// The keys that `exeat registry init` made in the data folder.
fn made_by_init(data: &Path) -> Option<Tls> {
    let file = |name: &str| data.join("tls").join(name);
    let tls = Tls {
        certificate: file("registry.pem"),
        key: file("registry-key.pem"),
        client_ca: Some(file("ca.pem")),
    };
    tls.certificate.try_exists().unwrap_or(false).then_some(tls)
}
