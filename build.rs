//! Compiles `proto/` without protoc; the descriptor set also feeds reflection.

#[cfg(feature = "server")]
#[expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::{env, fs, path::PathBuf};

    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(
        [
            "agentgateway/dev/ext_mcp/ext_mcp.proto",
            "exeat/v1/check.proto",
            "exeat/v1/explain.proto",
            "exeat/v1/ledger.proto",
            "exeat/v1/notify.proto",
            "exeat/v1/registry.proto",
            "exeat/v1/report.proto",
            "exeat/v1/sign_in.proto",
            "exeat/v1/sync.proto",
            "exeat/v1/usage.proto",
        ],
        ["proto"],
    )?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("exeat.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    let services: Vec<_> = descriptors.file.iter().flat_map(servers).collect();
    tonic_prost_build::configure()
        .build_server(false)
        // Small maps: cheaper than hashing, and the same bytes every time.
        .btree_map(".")
        // One statement goes to every sidecar: shared, not copied.
        .bytes(".exeat.v1.Signed")
        .compile_fds(descriptors)?;
    tonic_build::manual::Builder::new()
        .build_client(false)
        .compile(&services);
    if env::var("HOST")? == env::var("TARGET")? && packs_relocations() {
        // A tenth of the file is relocations otherwise, all of it read at every start.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    Ok(())
}

/// Whether this machine's loader reads packed relocations, as that of glibc does since 2.36.
#[cfg(feature = "server")]
fn packs_relocations() -> bool {
    let said = std::process::Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output();
    said.ok()
        .and_then(|said| String::from_utf8(said.stdout).ok())
        .and_then(|said| {
            let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?) >= (2_u32, 36_u32))
        })
        .unwrap_or(false)
}

/// The file's services as servers see them: every request comes with the bytes it was read from.
#[cfg(feature = "server")]
fn servers(
    file: &protox::prost_reflect::prost_types::FileDescriptorProto,
) -> impl Iterator<Item = tonic_build::manual::Service> {
    use tonic_build::manual::{Method, Service, ServiceBuilder};

    let message = |name: &str| name.rsplit('.').next().map(|name| format!("super::{name}"));
    file.service.iter().map(move |service| {
        let methods = service.method.iter().map(|method| {
            let input = message(method.input_type()).unwrap_or_default();
            let builder = Method::builder()
                .name(snake(method.name()))
                .route_name(method.name())
                .input_type(format!("crate::wire::Received<{input}>"))
                .output_type(message(method.output_type()).unwrap_or_default())
                .codec_path("crate::wire::Codec");
            let builder = if method.client_streaming() {
                builder.client_streaming()
            } else {
                builder
            };
            if method.server_streaming() {
                builder.server_streaming().build()
            } else {
                builder.build()
            }
        });
        methods
            .fold(Service::builder(), ServiceBuilder::method)
            .name(service.name())
            .package(file.package())
            .build()
    })
}

#[cfg(feature = "server")]
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(not(feature = "server"))]
fn main() {}
