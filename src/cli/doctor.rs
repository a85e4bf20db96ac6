//! `exeat doctor`: what in somebody else's configuration would let calls through unasked, or hide
//! why they do not go on.

use std::path::Path;

use serde_json::Value as Json;

use crate::{
    manifest::{Places, options},
    wire::envoy_http::check_prefix,
};

use super::{
    args::{Agent, Doctor, Place},
    hook_try::proved,
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// Calls go on unasked, or a no cannot be told from a fault.
    Wrong,
    /// It works, and something is lost.
    Poor,
}

/// Something that is not as it should be.
#[derive(Debug)]
struct Ailment {
    weight: Weight,
    path: String,
    what: String,
}

const FILTER: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
const PER_ROUTE: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
const MCP: &str = "envoy.extensions.filters.http.mcp.v3.Mcp";
/// Longer than this nobody wants to wait for an answer that takes less than a millisecond.
const PATIENT: f64 = 1.0;

/// Every object below `json` with its path.
fn walk<'a>(json: &'a Json, path: &str, visit: &mut dyn FnMut(&str, &'a Json)) {
    match json {
        Json::Object(entries) => {
            visit(path, json);
            for (name, value) in entries {
                let below = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                walk(value, &below, visit);
            }
        }
        Json::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                walk(item, &format!("{path}[{at}]"), visit);
            }
        }
        _ => {}
    }
}

fn is(json: &Json, kind: &str) -> bool {
    let said = json.get("@type").and_then(Json::as_str);
    said.and_then(|said| said.rsplit('/').next()) == Some(kind)
}

/// A duration of protobuf's JSON, in seconds.
fn seconds(json: &Json) -> Option<f64> {
    json.as_str()?.strip_suffix('s')?.parse().ok()
}

fn is_local(endpoint: &Json) -> bool {
    let address = endpoint.pointer("/endpoint/address");
    let pipe = address.and_then(|address| address.get("pipe"));
    let host = address
        .and_then(|address| address.pointer("/socket_address/address"))
        .and_then(Json::as_str);
    pipe.is_some() || host.is_some_and(|host| host == "::1" || host.starts_with("127."))
}

/// What is wrong with the way to the cluster that is asked.
fn of_cluster(
    config: &Json,
    name: &str,
    grpc: bool,
    at: &str,
    told: &mut dyn FnMut(Weight, &str, String),
) {
    let clusters = config.pointer("/static_resources/clusters");
    let clusters = clusters.and_then(Json::as_array);
    let found = clusters
        .into_iter()
        .flatten()
        .enumerate()
        .find(|(_, cluster)| cluster.get("name").and_then(Json::as_str) == Some(name));
    let Some((place, cluster)) = found else {
        let what = format!(
            "cluster `{name}` is not in this file: whether it is reached over mutual TLS and HTTP/2 is not looked at"
        );
        return told(Weight::Poor, at, what);
    };
    let path = format!("static_resources.clusters[{place}]");
    let speaks = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = cluster
        .get("typed_extension_protocol_options")
        .and_then(|options| options.get(speaks));
    let http2 = options.is_some_and(|options| {
        options
            .pointer("/explicit_http_config/http2_protocol_options")
            .is_some()
    });
    if grpc && !http2 && cluster.get("http2_protocol_options").is_none() {
        let what = format!(
            "cluster `{name}` does not speak HTTP/2, and gRPC is spoken over nothing else: set explicit_http_config.http2_protocol_options"
        );
        told(Weight::Wrong, &path, what);
    }
    let mut endpoints = Vec::new();
    walk(cluster, "", &mut |_, json| {
        if json.get("endpoint").is_some() {
            endpoints.push(json);
        }
    });
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| is_local(endpoint)) {
        return;
    }
    let Some(socket) = cluster.get("transport_socket") else {
        let what = format!(
            "cluster `{name}` is reached beyond this machine without TLS: anybody on the way may answer for exeat; use a pipe, loopback or mutual TLS"
        );
        return told(Weight::Wrong, &path, what);
    };
    let tls = socket.pointer("/typed_config/common_tls_context");
    let has =
        |names: &[&str]| tls.is_some_and(|tls| names.iter().any(|name| tls.get(*name).is_some()));
    let path = format!("{path}.transport_socket");
    if !has(&["tls_certificates", "tls_certificate_sds_secret_configs"]) {
        let what = format!(
            "cluster `{name}` shows no client certificate: exeat cannot tell that it is this proxy who asks"
        );
        told(Weight::Wrong, &path, what);
    }
    if !has(&[
        "validation_context",
        "validation_context_sds_secret_config",
        "combined_validation_context",
    ]) {
        let what = format!(
            "cluster `{name}` takes any server certificate: anybody may answer for exeat; set validation_context"
        );
        told(Weight::Wrong, &path, what);
    }
}

/// What is wrong with one filter that asks.
fn of_filter(filter: &Json, config: &Json, at: &str, told: &mut dyn FnMut(Weight, &str, String)) {
    let flag = |name: &str| filter.get(name).and_then(Json::as_bool);
    if flag("failure_mode_allow") == Some(true) {
        let what = "failure_mode_allow is true: whenever exeat cannot answer, calls go on unasked";
        told(
            Weight::Wrong,
            &format!("{at}.failure_mode_allow"),
            what.into(),
        );
    }
    let code = filter.pointer("/status_on_error/code");
    match code.and_then(Json::as_str) {
        Some("ServiceUnavailable" | "BadGateway" | "GatewayTimeout" | "InternalServerError") => {}
        None if code.and_then(Json::as_u64).is_some_and(|code| code >= 500) => {}
        Some(_) | None => {
            let what = "status_on_error is not 5xx: a 403 may mean that policy says no, or that nobody could say; set {code: ServiceUnavailable}";
            told(Weight::Wrong, &format!("{at}.status_on_error"), what.into());
        }
    }
    if filter.get("transport_api_version").and_then(Json::as_str) != Some("V3") {
        let what = "transport_api_version is not V3: nothing else is spoken";
        told(
            Weight::Wrong,
            &format!("{at}.transport_api_version"),
            what.into(),
        );
    }
    if filter.pointer("/with_request_body/allow_partial_message") == Some(&Json::Bool(true)) {
        let what = "allow_partial_message is true: calls whose body is not all there are refused with 400; leave it out, and Envoy says 413 to bodies that are too large";
        let path = format!("{at}.with_request_body.allow_partial_message");
        told(Weight::Wrong, &path, what.into());
    }
    let http = asks_over_http(filter);
    if !http && flag("encode_raw_headers") != Some(true) {
        let what = "encode_raw_headers is not set: headers that are given twice arrive joined, and cannot be told from one";
        told(Weight::Poor, at, what.into());
    }
    let over = if http { "http_service" } else { "grpc_service" };
    let Some(service) = filter.get(over) else {
        let what = "there is no grpc_service and no http_service: nobody is asked";
        return told(Weight::Wrong, at, what.into());
    };
    let at_service = format!("{at}.{over}");
    if http {
        of_http(service, &at_service, told);
    }
    let timeout = if http {
        "/server_uri/timeout"
    } else {
        "/timeout"
    };
    match service.pointer(timeout).map(seconds) {
        None => {
            let what = "timeout is not set: Envoy waits 200 ms, and other proxies that read this for minutes; say it";
            told(Weight::Poor, &at_service, what.into());
        }
        Some(Some(long)) if long <= PATIENT && long > 0.0 => {}
        Some(_) => {
            let what = "timeout is no time up to 1s: an answer takes less than a millisecond, and a call that waits longer waits for nothing";
            told(Weight::Poor, &format!("{at_service}.timeout"), what.into());
        }
    }
    let cluster = if http {
        "server_uri.cluster"
    } else {
        "envoy_grpc.cluster_name"
    };
    let name = service.pointer(&format!("/{}", cluster.replace('.', "/")));
    if let Some(name) = name.and_then(Json::as_str) {
        of_cluster(config, name, !http, &at_service, told);
    } else {
        let what = format!(
            "there is no {cluster}: whether it is reached over mutual TLS is not looked at"
        );
        told(Weight::Poor, &at_service, what);
    }
}

/// Whether a filter asks over plain HTTP; where it says both, Envoy takes neither.
fn asks_over_http(filter: &Json) -> bool {
    filter.get("grpc_service").is_none() && filter.get("http_service").is_some()
}

/// What is wrong with asking over plain HTTP.
fn of_http(service: &Json, at: &str, told: &mut dyn FnMut(Weight, &str, String)) {
    let prefix = service.get("path_prefix").and_then(Json::as_str);
    let rest = prefix.and_then(|prefix| prefix.strip_prefix("/ext_authz"));
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(';')) {
        let what = "path_prefix is not /ext_authz: there calls are asked about, and nowhere else";
        told(Weight::Wrong, at, what.into());
    }
    if let Some(Err(wrong)) = rest.map(check_prefix) {
        told(Weight::Wrong, at, wrong.to_string());
    }
    let patterns = service.pointer("/authorization_response/allowed_upstream_headers/patterns");
    let mut patterns = patterns.and_then(Json::as_array).into_iter().flatten();
    let ours = |pattern: &Json| pattern.get("prefix").and_then(Json::as_str) == Some("x-exeat-");
    if !patterns.any(ours) {
        let what = "allowed_upstream_headers does not name the prefix x-exeat-: what a client says under these names reaches the upstream as if exeat had said it";
        told(Weight::Wrong, at, what.into());
    }
}

/// Everything that is wrong with a configuration of Envoy; and how many filters ask.
fn envoy(config: &Json) -> (usize, Vec<Ailment>) {
    let mut ailments = Vec::new();
    let mut told = |weight, path: &str, what: String| {
        let path = path.to_owned();
        ailments.push(Ailment { weight, path, what });
    };
    let (mut filters, mut reads, mut rest) = (Vec::new(), false, Vec::new());
    let mut routes = Vec::new();
    walk(config, "", &mut |path, json| {
        if is(json, FILTER) {
            filters.push((path.to_owned(), json));
        }
        reads |= is(json, MCP);
        if is(json, MCP) && json.get("reject_duplicate_keys") != Some(&Json::Bool(true)) {
            let what = "reject_duplicate_keys is not set: of two methods in one call exeat is told the last, and the server may do the first";
            told(Weight::Wrong, path, what.into());
        }
        let route = json.get("typed_per_filter_config");
        let server = route.is_some_and(|route| {
            let mut found = false;
            walk(route, "", &mut |_, json| {
                found |= json.get("exeat.mcp_server").is_some();
            });
            found
        });
        if server {
            rest.push((path.to_owned(), route));
        }
        let says = json.pointer("/check_settings/context_extensions");
        let says = says.and_then(Json::as_object);
        if is(json, PER_ROUTE)
            && says.is_some_and(|all| all.keys().any(|key| key.starts_with("exeat.")))
        {
            routes.push(path.to_owned());
        }
        if is(json, PER_ROUTE) && json.get("disabled") == Some(&Json::Bool(true)) {
            let what = "nothing of this route is asked: whatever comes here goes on";
            told(Weight::Poor, path, what.into());
        }
    });
    for (path, route) in rest.into_iter().filter(|_| reads) {
        let mut strict = false;
        let mut look = |_: &str, json: &Json| {
            let mode = json.get("traffic_mode").and_then(Json::as_str);
            strict |= mode == Some("REJECT_NO_MCP");
        };
        walk(route.unwrap_or(&Json::Null), "", &mut look);
        if !strict {
            let what = "this route is an MCP server's, and what is no MCP goes on to it: set traffic_mode to REJECT_NO_MCP for it (McpOverride)";
            told(Weight::Wrong, &path, what.into());
        }
    }
    for (path, filter) in &filters {
        of_filter(filter, config, path, &mut told);
        let namespaces = filter.get("metadata_context_namespaces");
        let named = namespaces.and_then(Json::as_array).is_some_and(|names| {
            names
                .iter()
                .any(|name| name.as_str() == Some("envoy.filters.http.mcp"))
        });
        if asks_over_http(filter) {
            for said in &routes {
                let what = "what this route says of itself is not sent over plain HTTP; say it in path_prefix, as /ext_authz;action=…&purpose=…, or use grpc_service";
                told(Weight::Wrong, said, what.into());
            }
        } else if reads && !named {
            let what = "what the MCP filter reads is not sent: add envoy.filters.http.mcp to metadata_context_namespaces";
            told(Weight::Poor, path, what.into());
        }
    }
    if filters.is_empty() {
        let what = "no filter asks exeat: there is no envoy.filters.http.ext_authz";
        told(Weight::Wrong, "", what.into());
    }
    (filters.len(), ailments)
}

fn read(path: &Path) -> Result<(String, Json), Exit> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Exit::Invalid(format!("{shown}: {error}")))?;
    let config = serde_saphyr::from_str_with_options(&text, options())
        .map_err(|error| Exit::Invalid(format!("{shown}: {error}")))?;
    Ok((text, config))
}

/// Says what is wrong with somebody else's configuration; says no where calls would go on unasked.
pub(super) fn doctor(args: &Doctor, screen: &mut Screen) -> Result<Exit, Exit> {
    let file = match args {
        Doctor::Envoy { file } => file,
        Doctor::Claude { settings } => {
            let place = Place {
                of: Agent::Claude,
                settings: settings.clone(),
                project: false,
            };
            return proved(&place, screen);
        }
    };
    let (text, config) = read(file)?;
    let (filters, ailments) = envoy(&config);
    let places = Places::of(&text);
    let mut wrong = false;
    for Ailment { weight, path, what } in &ailments {
        let (line, column) = places.find(path);
        let (mark, style) = match weight {
            Weight::Wrong => ("✗", BAD),
            Weight::Poor => ("!", DIM),
        };
        wrong |= *weight == Weight::Wrong;
        let place = format!("{}:{line}:{column}", file.display());
        screen.say(&format!("{} {place}: {what}", styled(style, mark)))?;
    }
    if !wrong {
        let filters = match filters {
            1 => "one filter asks".to_owned(),
            n => format!("{n} filters ask"),
        };
        let said = format!("✓ {filters}, and nothing goes on unasked");
        screen.say(&styled(GOOD, &said))?;
    }
    Ok(if wrong { Exit::No } else { Exit::Done })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../examples/envoy/envoy.yaml");

    fn ailments(text: &str) -> Vec<(Weight, usize, String)> {
        let config: Json = serde_saphyr::from_str_with_options(text, options()).unwrap();
        let places = Places::of(text);
        let (_, found) = envoy(&config);
        let told = |one: Ailment| (one.weight, places.find(&one.path).0, one.what);
        found.into_iter().map(told).collect()
    }

    #[test]
    fn the_example_is_well() {
        assert_eq!(ailments(EXAMPLE), []);
    }

    #[test]
    fn each_ailment_is_found_at_its_line() {
        let pipe = "{pipe: {path: /run/exeat/exeat.sock}}";
        let far = "{socket_address: {address: 10.0.0.9, port_value: 7430}}";
        for (from, to, weight, needle, named) in [
            (
                "failure_mode_allow: false",
                "failure_mode_allow: true",
                Weight::Wrong,
                "failure_mode_allow",
                "go on unasked",
            ),
            (
                "{code: ServiceUnavailable}",
                "{code: Forbidden}",
                Weight::Wrong,
                "status_on_error",
                "not 5xx",
            ),
            (
                "transport_api_version: V3",
                "transport_api_version: V2",
                Weight::Wrong,
                "transport_api_version",
                "not V3",
            ),
            (
                "encode_raw_headers: true",
                "with_request_body: {max_request_bytes: 9, allow_partial_message: true}",
                Weight::Wrong,
                "with_request_body: {",
                "not all there",
            ),
            (
                "explicit_http_config: {http2_protocol_options: {}}",
                "explicit_http_config: {}",
                Weight::Wrong,
                "- name: exeat\n",
                "HTTP/2",
            ),
            (pipe, far, Weight::Wrong, "- name: exeat\n", "without TLS"),
            (
                "encode_raw_headers: true",
                "",
                Weight::Poor,
                "@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz\n",
                "arrive joined",
            ),
            (
                "timeout: 0.25s, ",
                "",
                Weight::Poor,
                "grpc_service:",
                "timeout is not set",
            ),
            (
                "timeout: 0.25s",
                "timeout: 600s",
                Weight::Poor,
                "timeout: 600s",
                "no time up to 1s",
            ),
            (
                "[envoy.filters.http.mcp, envoy.filters.http.jwt_authn]",
                "[]",
                Weight::Poor,
                "@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz\n",
                "is not sent",
            ),
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            let text = EXAMPLE.replacen(from, to, 1);
            let found = ailments(&text);
            let (found_weight, line, what) = found
                .iter()
                .find(|(_, _, what)| what.contains(named))
                .unwrap_or_else(|| panic!("{named}: {found:?}"));
            assert_eq!(*found_weight, weight, "{what}");
            let wanted = text[..text.find(needle).unwrap()].lines().count();
            let near = wanted.abs_diff(*line) <= 2;
            assert!(near, "{what}: line {line}, not {wanted}");
        }
        let none = "static_resources: {}\n";
        assert!(ailments(none)[0].2.contains("no filter asks"));
    }

    #[test]
    fn over_plain_http_a_route_says_nothing() {
        let grpc = "grpc_service: {timeout: 0.25s, envoy_grpc: {cluster_name: exeat}}";
        let http = |more: &str| {
            let service = format!(
                "http_service: {{server_uri: {{uri: \"http://exeat\", cluster: exeat, timeout: 0.25s}}{more}}}"
            );
            let text = EXAMPLE.replace(grpc, &service);
            assert_ne!(text, EXAMPLE);
            text
        };
        let whole = http(
            ", path_prefix: /ext_authz, authorization_response: {allowed_upstream_headers: {patterns: [{prefix: x-exeat-}]}}",
        );
        let found = ailments(&whole);
        assert_eq!(found.len(), 3, "each route that says something: {found:?}");
        assert!(
            found
                .iter()
                .all(|(_, _, what)| what.contains("grpc_service"))
        );
        let bare = ailments(&http(""));
        for named in ["path_prefix", "allowed_upstream_headers"] {
            let mut said = bare.iter();
            let said =
                said.any(|(weight, _, what)| *weight == Weight::Wrong && what.contains(named));
            assert!(said, "{named}: {bare:?}");
        }
    }

    #[test]
    fn beyond_this_machine_both_show_certificates() {
        let far = EXAMPLE.replace(
            "{pipe: {path: /run/exeat/exeat.sock}}",
            "{socket_address: {address: exeat.internal, port_value: 7430}}",
        );
        let with = |tls: &str| {
            far.replace(
                "    - name: exeat\n      type: STATIC\n",
                &format!("    - name: exeat\n      type: STATIC\n      transport_socket: {{name: tls, typed_config: {{common_tls_context: {{{tls}}}}}}}\n"),
            )
        };
        let server = "validation_context: {trusted_ca: {filename: ca.pem}}";
        let client = "tls_certificates: [{certificate_chain: {filename: c.pem}}]";
        let said = |text: &str| {
            ailments(text)
                .into_iter()
                .map(|(_, _, what)| what)
                .collect::<String>()
        };
        assert!(said(&with("")).contains("no client certificate"));
        assert!(said(&with(client)).contains("any server certificate"));
        assert_eq!(said(&with(&format!("{client}, {server}"))), "");
    }
}
