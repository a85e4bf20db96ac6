//! The generated messages and service of `exeat.v1`.
#![expect(
    missing_docs,
    unused_qualifications,
    clippy::pedantic,
    clippy::clone_on_ref_ptr,
    clippy::large_enum_variant,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("exeat.v1");
tonic::include_proto!("exeat.v1.CheckService");
tonic::include_proto!("exeat.v1.ControlService");
tonic::include_proto!("exeat.v1.ExceptionService");
tonic::include_proto!("exeat.v1.FindingService");
tonic::include_proto!("exeat.v1.FleetService");
tonic::include_proto!("exeat.v1.IncidentService");
tonic::include_proto!("exeat.v1.LedgerService");
tonic::include_proto!("exeat.v1.NotificationService");
tonic::include_proto!("exeat.v1.ObjectService");
tonic::include_proto!("exeat.v1.ReportService");
tonic::include_proto!("exeat.v1.RevocationService");
tonic::include_proto!("exeat.v1.SessionService");
tonic::include_proto!("exeat.v1.SignInService");
tonic::include_proto!("exeat.v1.SyncService");
tonic::include_proto!("exeat.v1.UsageService");
tonic::include_proto!("exeat.v1.ExplanationService");

/// The descriptors of everything, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exeat.bin"));
