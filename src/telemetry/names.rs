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
/// What runs.
pub const BUILD_INFO: &str = "exeat_build_info";
