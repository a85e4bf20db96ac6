//! What the standard `OTEL_*` variables ask for. Without an endpoint nothing is sent, and nothing
//! is said about it.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Uri};

use crate::runtime::collector::{Protocol, Target};

/// What is sent, where, and how often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Where spans go.
    pub traces: Option<Target>,
    /// Where metrics go.
    pub metrics: Option<Target>,
    /// Where events go.
    pub logs: Option<Target>,
    /// Which plain allows have a span; denials and uses of exceptions always have one.
    pub sampler: Sampler,
    /// What the process is known by, beside what it says of itself.
    pub resource: Vec<(String, String)>,
    /// How long spans may wait.
    pub span_delay: Duration,
    /// How long events may wait.
    pub log_delay: Duration,
    /// How often metrics are sent.
    pub metric_interval: Duration,
}

/// Which plain allows have a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether the caller's own choice goes first.
    pub parent: bool,
    /// The part of all others that are kept, from 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            parent: true,
            ratio: 1.0,
        }
    }
}

/// One of the three kinds of telemetry.
#[derive(Clone, Copy)]
struct Signal {
    name: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal {
    name: "TRACES",
    path: "/v1/traces",
};
const METRICS: Signal = Signal {
    name: "METRICS",
    path: "/v1/metrics",
};
const LOGS: Signal = Signal {
    name: "LOGS",
    path: "/v1/logs",
};

/// Set variables, of which an empty one counts as not set (the specification's rule).
struct Variables<'a>(&'a [(String, String)]);

impl Settings {
    /// Reads the variables.
    ///
    /// # Errors
    ///
    /// The first that cannot be understood, with what is wrong and what to set.
    pub fn read(variables: &[(String, String)]) -> Result<Self, String> {
        let of = Variables(variables);
        if of
            .get("OTEL_SDK_DISABLED")
            .is_some_and(|it| it.eq_ignore_ascii_case("true"))
        {
            return Ok(Self::default());
        }
        // What is set for others' sake is not ours to judge.
        let any = |signal| of.of(signal, "ENDPOINT").is_some();
        if ![TRACES, METRICS, LOGS].into_iter().any(any) {
            return Ok(Self::default());
        }
        let metrics = of.target(METRICS)?;
        let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        if let Some(other) = of
            .get(temporality)
            .filter(|it| metrics.is_some() && !it.eq_ignore_ascii_case("cumulative"))
        {
            return Err(wrong(
                temporality,
                &format!("`{other}` is not known here"),
                "set cumulative, or leave it out",
            ));
        }
        Ok(Self {
            traces: of.target(TRACES)?,
            metrics,
            logs: of.target(LOGS)?,
            sampler: of.sampler()?,
            resource: of.resource()?,
            span_delay: of.millis("OTEL_BSP_SCHEDULE_DELAY", 5_000)?,
            log_delay: of.millis("OTEL_BLRP_SCHEDULE_DELAY", 1_000)?,
            metric_interval: of.millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?,
        })
    }
}

fn wrong(name: &str, what: &str, fix: &str) -> String {
    format!("{name}: {what}; {fix}")
}

impl<'a> Variables<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let mut set = self.0.iter();
        let (_, value) = set.find(|(known, value)| known == name && !value.trim().is_empty())?;
        Some(value.trim())
    }

    /// The value of a variable that a signal may have one of its own of, and which it is.
    fn of(&self, signal: Signal, end: &str) -> Option<(String, &'a str)> {
        [
            format!("OTEL_EXPORTER_OTLP_{}_{end}", signal.name),
            format!("OTEL_EXPORTER_OTLP_{end}"),
        ]
        .into_iter()
        .find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn target(&self, signal: Signal) -> Result<Option<Target>, String> {
        let exporter = format!("OTEL_{}_EXPORTER", signal.name);
        let mut wanted = self.get(&exporter).is_none();
        for name in self
            .get(&exporter)
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
        {
            match name {
                "otlp" => wanted = true,
                // Metrics are at /metrics whatever is set here.
                "" | "none" | "prometheus" => {}
                other => {
                    let what = format!("`{other}` is not known here");
                    return Err(wrong(&exporter, &what, "set otlp or none"));
                }
            }
        }
        if !wanted {
            return Ok(None);
        }
        let Some((name, endpoint)) = self.of(signal, "ENDPOINT") else {
            return Ok(None);
        };
        let own = name.contains(signal.name);
        let url = |text: &str| {
            let url: Option<Uri> = text.parse().ok();
            url.filter(|url| {
                matches!(url.scheme_str(), Some("http" | "https"))
                    && url.host().is_some()
                    && url.authority().is_some_and(|it| !it.as_str().contains('@'))
            })
            .ok_or_else(|| {
                wrong(
                    &name,
                    "is no URL, or holds a name or password",
                    "set such as http://localhost:4317",
                )
            })
        };
        let base = url(endpoint)?;
        let protocol = match self.of(signal, "PROTOCOL") {
            Some((_, "grpc")) => Protocol::Grpc,
            Some((_, "http/protobuf")) => Protocol::Http,
            Some((name, other)) => {
                return Err(wrong(
                    &name,
                    &format!("`{other}` is not known here"),
                    "set grpc or http/protobuf",
                ));
            }
            // The standard's default is HTTP, and 4317 the port where gRPC is spoken.
            None if base.port_u16() == Some(4_317) => Protocol::Grpc,
            None => Protocol::Http,
        };
        let url = match protocol {
            // What is set for all signals has their path added.
            Protocol::Http if !own => url(&format!(
                "{}{}",
                endpoint.trim_end_matches('/'),
                signal.path
            ))?,
            Protocol::Http | Protocol::Grpc => base,
        };
        let file = |end| self.of(signal, end).map(|(_, path)| PathBuf::from(path));
        let identity = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(wrong(
                    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                    "has no OTEL_EXPORTER_OTLP_CLIENT_KEY, or the key no certificate",
                    "set both",
                ));
            }
        };
        let gzip = match self.of(signal, "COMPRESSION") {
            None | Some((_, "none")) => false,
            Some((_, "gzip")) => true,
            Some((name, other)) => {
                return Err(wrong(
                    &name,
                    &format!("`{other}` is not known here"),
                    "set gzip or none",
                ));
            }
        };
        let timeout = match self.of(signal, "TIMEOUT") {
            Some((name, _)) => self.millis(&name, 10_000)?,
            None => Duration::from_secs(10),
        };
        Ok(Some(Target {
            url,
            protocol,
            headers: self.headers(signal)?,
            timeout,
            ca: file("CERTIFICATE"),
            identity,
            gzip,
        }))
    }

    /// Headers, written as W3C Baggage is: `name=value,name=value`, values percent-encoded.
    fn headers(&self, signal: Signal) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let Some((name, text)) = self.of(signal, "HEADERS") else {
            return Ok(Vec::new());
        };
        // What is wrong is not shown: it may be a secret.
        let header = |(key, value): (String, String)| {
            let key = HeaderName::from_bytes(key.to_ascii_lowercase().as_bytes()).ok()?;
            // Over gRPC these are bytes of another kind.
            (!key.as_str().ends_with("-bin")).then_some(())?;
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((key, value))
        };
        let headers = pairs(text).and_then(|pairs| pairs.into_iter().map(header).collect());
        headers.ok_or_else(|| wrong(&name, "is no list of headers", "set name=value,name=value"))
    }

    fn resource(&self) -> Result<Vec<(String, String)>, String> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let text = self.get(name).unwrap_or_default();
        let mut resource = pairs(text).ok_or_else(|| {
            wrong(
                name,
                "is no list of attributes",
                "set name=value,name=value",
            )
        })?;
        if let Some(service) = self.get("OTEL_SERVICE_NAME") {
            resource.retain(|(name, _)| name != "service.name");
            resource.push(("service.name".into(), service.into()));
        }
        Ok(resource)
    }

    fn sampler(&self) -> Result<Sampler, String> {
        let ratio = || match self.get("OTEL_TRACES_SAMPLER_ARG") {
            None => Ok(1.0),
            Some(text) => text
                .parse()
                .ok()
                .filter(|ratio| (0.0..=1.0).contains(ratio))
                .ok_or_else(|| {
                    wrong(
                        "OTEL_TRACES_SAMPLER_ARG",
                        &format!("`{text}` is no part"),
                        "set a number from 0 to 1",
                    )
                }),
        };
        let (parent, ratio) = match self.get("OTEL_TRACES_SAMPLER") {
            None | Some("parentbased_always_on") => (true, 1.0),
            Some("always_on") => (false, 1.0),
            Some("always_off") => (false, 0.0),
            Some("traceidratio") => (false, ratio()?),
            Some("parentbased_always_off") => (true, 0.0),
            Some("parentbased_traceidratio") => (true, ratio()?),
            Some(other) => {
                return Err(wrong(
                    "OTEL_TRACES_SAMPLER",
                    &format!("`{other}` is not known here"),
                    "set always_on, always_off, traceidratio, or one of them with parentbased_ before it",
                ));
            }
        };
        Ok(Sampler { parent, ratio })
    }

    fn millis(&self, name: &str, default: u64) -> Result<Duration, String> {
        let Some(text) = self.get(name) else {
            return Ok(Duration::from_millis(default));
        };
        let millis = text
            .parse()
            .ok()
            .filter(|millis| (1..=86_400_000).contains(millis));
        millis.map(Duration::from_millis).ok_or_else(|| {
            wrong(
                name,
                &format!("`{text}` is no time"),
                "set milliseconds, 1 to 86400000",
            )
        })
    }
}

/// `name=value,name=value`, values percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let name = name.trim();
            (!name.is_empty()).then_some(())?;
            Some((name.to_owned(), decoded(value.trim())?))
        })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Settings, String> {
        let owned: Vec<_> = set
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::read(&owned)
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

    #[test]
    fn without_an_endpoint_nothing_is_sent() {
        for set in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")],
            // For others in the same environment.
            &[
                ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
                ("OTEL_TRACES_EXPORTER", "console"),
            ],
            &[
                ENDPOINT,
                ("OTEL_TRACES_EXPORTER", "none"),
                ("OTEL_METRICS_EXPORTER", "prometheus"),
                ("OTEL_LOGS_EXPORTER", "none"),
            ],
        ] {
            let settings = read(set).expect("settings");
            assert_eq!(
                (settings.traces, settings.metrics, settings.logs),
                (None, None, None)
            );
        }
    }

    #[test]
    fn a_signal_has_its_own_or_what_is_set_for_all() {
        let settings = read(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=1"),
            (
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                "https://logs.example/in",
            ),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=other,k8s.pod.name=p%2C1",
            ),
            ("OTEL_SERVICE_NAME", "payments"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ])
        .expect("settings");
        let (traces, metrics, logs) = (
            settings.traces.expect("spans"),
            settings.metrics.expect("metrics"),
            settings.logs.expect("events"),
        );
        assert_eq!(
            (
                traces.url.to_string().as_str(),
                traces.protocol,
                traces.gzip
            ),
            ("http://collector:4317/", Protocol::Grpc, false)
        );
        assert_eq!(traces.headers[0].1, "a b");
        assert!(!format!("{traces:?}").contains("a b"));
        assert_eq!(traces.timeout, Duration::from_millis(250));
        assert_eq!(
            (
                metrics.url.to_string().as_str(),
                metrics.protocol,
                metrics.gzip
            ),
            ("http://collector:4317/v1/metrics", Protocol::Http, true)
        );
        assert_eq!(
            (logs.url.to_string().as_str(), logs.protocol),
            ("https://logs.example/in", Protocol::Http)
        );
        assert_eq!(
            settings.resource,
            [
                ("k8s.pod.name".to_owned(), "p,1".to_owned()),
                ("service.name".to_owned(), "payments".to_owned())
            ]
        );
        assert_eq!(
            settings.sampler,
            Sampler {
                parent: true,
                ratio: 0.25
            }
        );
    }

    #[test]
    fn what_is_not_understood_is_named_and_no_secret_shown() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "http://me:hunter2@collector:4317",
            ),
            ("OTEL_EXPORTER_OTLP_HEADERS", "trace-bin=hunter2"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "key=%zzhunter2"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "cert.pem"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_RESOURCE_ATTRIBUTES", "no-value"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ] {
            let mut set = vec![(name, value)];
            if name != ENDPOINT.0 {
                set.push(ENDPOINT);
            }
            let told = read(&set).expect_err(name);
            assert!(told.starts_with(&format!("{name}: ")), "{told}");
            assert!(told.contains("; set "), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        let ratio = [
            ENDPOINT,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ];
        assert!(
            read(&ratio)
                .expect_err("no part")
                .starts_with("OTEL_TRACES_SAMPLER_ARG: ")
        );
    }
}
