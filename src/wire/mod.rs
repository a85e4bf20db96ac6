//! Translations between messages and domain values; the only place that names generated types
//! beside the services themselves.

pub mod access;
pub mod agentgateway;
pub mod approval;
pub mod authzen;
pub mod carried;
mod check;
mod codec;
pub mod envoy;
pub mod envoy_http;
pub mod ext_mcp;
pub mod harness;
pub mod identity;
pub mod json;
pub mod jwt;
pub mod mcp;
pub mod message;
pub mod note;
pub mod oauth;
pub mod principal;
pub mod relay;
mod seen;
pub mod signed;
pub mod sse;
mod status;
pub mod sync;
mod trimmed;
pub mod usage;
pub mod v1;
pub mod webhook;

pub use check::{Detail, Stamp, about, answer, batch_item, keep, kept, question, resource};
pub use codec::{Codec, Received};
pub use prost::Message;
pub use status::{Fault, is_fenced};

/// Metadata in which a call says for whom it is made, for telemetry alone: `hook` or `mcp`.
pub const ON_BEHALF: &str = "exeat-surface";

/// A message's bytes.
pub fn encoded(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// The message of some bytes.
///
/// # Errors
///
/// Bytes that are none.
pub fn decoded<M: Message + Default>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|error| error.to_string())
}
