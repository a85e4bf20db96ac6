//! Every metric's name, once.

/// Decisions, by outcome, surface, deciding control and mode.
pub const DECISIONS: &str = "exeat_decisions";
/// How long decisions took.
pub const DECISION_DURATION: &str = "exeat_decision_duration_seconds";
/// Calls that had no decision, by kind of error.
pub const DECISION_ERRORS: &str = "exeat_decision_errors";
/// Exceptions in force, by tier.
pub const EXCEPTIONS_ACTIVE: &str = "exeat_exceptions_active";
/// Exceptions in force that end soon, by tier and how soon.
pub const EXCEPTIONS_EXPIRING: &str = "exeat_exceptions_expiring";
/// Decisions that relied on an exception, by control and tier.
pub const EXCEPTION_USES: &str = "exeat_exception_uses";
/// Questions an exception did not reach, by control and tier.
pub const EXCEPTION_OUT_OF_SCOPE: &str = "exeat_exception_out_of_scope";
/// Questions whose caller saw a facet differ from what is governed, by facet.
pub const CONTEXT_CHANGES: &str = "exeat_context_changes";
/// Seconds since the snapshot was confirmed to be current.
pub const SNAPSHOT_AGE: &str = "exeat_snapshot_age_seconds";
/// The snapshot's revision.
pub const SNAPSHOT_REVISION: &str = "exeat_snapshot_revision";
/// Loads of the bundle, by result.
pub const BUNDLE_LOADS: &str = "exeat_bundle_loads";
/// Bytes of usage records that are kept here.
pub const USAGE_SPOOL: &str = "exeat_usage_spool_bytes";
/// Most bytes of usage records that are kept here.
pub const USAGE_SPOOL_LIMIT: &str = "exeat_usage_spool_limit_bytes";
/// Usage records that could not be kept, by reason.
pub const USAGE_DROPPED: &str = "exeat_usage_dropped";
/// Whether uses can be recorded: 1, 0.5 with little room left, 0.
pub const EVIDENCE_AVAILABLE: &str = "exeat_evidence_available";
/// Times the spool of usage records failed.
pub const USAGE_FAILURES: &str = "exeat_usage_failures";
/// What runs.
pub const BUILD_INFO: &str = "exeat_build_info";
/// Whether the registry is connected, by connection.
pub const REGISTRY_CONNECTED: &str = "exeat_registry_connected";
/// Seconds since a nonce was sent whose answer has been acted on in full.
pub const REGISTRY_CONTACT_AGE: &str = "exeat_registry_contact_age_seconds";
/// Statements of the registry that were refused, by reason.
pub const REGISTRY_REFUSED: &str = "exeat_registry_refused";
/// Times everything was fetched anew, by reason.
pub const REGISTRY_RESYNCS: &str = "exeat_registry_resyncs";
/// Subjects and resources that were fetched on demand and are held.
pub const ENTITIES_FETCHED: &str = "exeat_entities_fetched";
/// Fetches on demand, by result.
pub const ENTITY_FETCHES: &str = "exeat_entity_fetches";
/// Removals in force.
pub const REMOVALS_SEQUENCE: &str = "exeat_removals_sequence";
/// Whether exceptions of a tier are honoured as far as the lease is concerned, by tier.
pub const LEASE_REMAINING: &str = "exeat_lease_remaining_seconds";
/// Failures of the disk and damage found there, by file.
pub const DISK_FAULTS: &str = "exeat_disk_faults";
/// Times the clock was found set, or time lost.
pub const CLOCK_STEPS: &str = "exeat_clock_steps";
/// Whether two histories of the registry were seen.
pub const REGISTRY_DISTRUSTED: &str = "exeat_registry_distrusted";
