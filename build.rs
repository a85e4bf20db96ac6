//! Compiles `proto/` without protoc; the descriptor set also feeds reflection.

#[cfg(feature = "server")]
#[expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::{env, fs, path::PathBuf};

    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["exeat/v1/check.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("exeat.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

#[cfg(not(feature = "server"))]
fn main() {}
