//! The generated messages and service of `agentgateway.dev.ext_mcp`.
#![expect(
    missing_docs,
    unused_qualifications,
    clippy::pedantic,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("agentgateway.dev.ext_mcp");
tonic::include_proto!("agentgateway.dev.ext_mcp.ExtMcp");
