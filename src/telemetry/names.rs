//! Every name that telemetry is known by, once.

/// Decisions, by outcome, surface, deciding control and mode.
pub const DECISIONS: &str = "exeat_decisions";
/// How long decisions took, by surface.
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
/// Usage records that are kept here and that the registry has not taken.
pub const USAGE_QUEUE: &str = "exeat_usage_queue_records";
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
pub const SYNC_LAG: &str = "exeat_sync_lag_seconds";
/// Connections to the registry that broke and are made anew, by connection.
pub const SYNC_RECONNECTS: &str = "exeat_sync_reconnects";
/// Statements of the registry that were refused, by reason.
pub const REGISTRY_REFUSED: &str = "exeat_registry_refused";
/// Times everything was fetched anew, by reason.
pub const REGISTRY_RESYNCS: &str = "exeat_registry_resyncs";
/// Subjects and resources that were fetched on demand and are held.
pub const ENTITIES_FETCHED: &str = "exeat_entities_fetched";
/// Fetches on demand, by result.
pub const ENTITY_FETCHES: &str = "exeat_entity_fetches";
/// From when something was taken back to when that was in force here.
pub const REVOCATION_PROPAGATION: &str = "exeat_revocation_propagation_seconds";
/// Removals in force.
pub const REMOVALS_SEQUENCE: &str = "exeat_removals_sequence";
/// Whether exceptions of a tier are honoured as far as the lease is concerned, by tier.
pub const LEASE_REMAINING: &str = "exeat_lease_remaining_seconds";
/// Seconds for which exceptions are honoured without the registry, by tier.
pub const LEASE_BUDGET: &str = "exeat_lease_budget_seconds";
/// When everything was last known to be current, by the system's clock.
pub const REGISTRY_LAST_CONTACT: &str = "exeat_registry_last_contact_timestamp_seconds";
/// Exceptions that were not honoured as the registry was not heard lately enough, by tier.
pub const STALE_REFUSALS: &str = "exeat_stale_refusals";
/// Failures of the disk and damage found there, by file.
pub const DISK_FAULTS: &str = "exeat_disk_faults";
/// Times the clock was found set, or time lost.
pub const CLOCK_STEPS: &str = "exeat_clock_steps";
/// Whether two histories of the registry were seen.
pub const REGISTRY_DISTRUSTED: &str = "exeat_registry_distrusted";

/// Requests for exceptions that wait for a decision, by tier.
pub const REQUESTS_PENDING: &str = "exeat_requests_pending";
/// How long the oldest of them has waited, by tier.
pub const REQUESTS_PENDING_OLDEST: &str = "exeat_requests_pending_oldest_seconds";
/// How long requests waited for their decision, by tier.
pub const APPROVAL_DURATION: &str = "exeat_approval_duration_seconds";
/// Runs of controls, by control and result.
pub const CONTROL_RUNS: &str = "exeat_control_runs";
/// Subjects that did not pass at a control's last run, by control.
pub const CONTROL_FAILING: &str = "exeat_control_failing";
/// When a control ran last, by control.
pub const CONTROL_LAST_RUN: &str = "exeat_control_last_run_timestamp_seconds";
/// Attempts to tell endpoints, by endpoint and result.
pub const WEBHOOK_DELIVERIES: &str = "exeat_webhook_deliveries";
/// Entries of the ledger.
pub const AUDIT_ENTRIES: &str = "exeat_audit_entries";
/// Times the ledger was not the one that was signed.
pub const AUDIT_VERIFY_FAILURES: &str = "exeat_audit_verify_failures";
/// Sidecars that attend.
pub const SIDECARS: &str = "exeat_sidecars_attending";
/// Times a sidecar came under the name of another that may still run.
pub const SIDECARS_FENCED: &str = "exeat_sidecars_fenced";
/// Ranges of usage records that are missing.
pub const USAGE_GAPS: &str = "exeat_usage_gaps";
/// Usage records that came.
pub const USAGE_RECORDS: &str = "exeat_usage_records";
/// The log's revision.
pub const REGISTRY_REVISION: &str = "exeat_registry_revision";
/// Whether nothing may be changed.
pub const REGISTRY_READ_ONLY: &str = "exeat_registry_read_only";
/// Spans, events and metrics that could not be sent, by signal and reason.
pub const TELEMETRY_LOST: &str = "exeat_telemetry_lost";
/// Spans, events and metrics that a receiver took, by signal.
pub const TELEMETRY_SENT: &str = "exeat_telemetry_sent";
/// Bytes of telemetry that wait to be sent, by signal.
pub const TELEMETRY_WAITING: &str = "exeat_telemetry_waiting_bytes";

/// Decisions that are not in the decision log, by reason.
pub const DECISIONS_UNLOGGED: &str = "exeat_decisions_unlogged";

/// Names of OpenTelemetry's semantic conventions (1.44) that are used as they are.
pub mod otel {
    /// The conventions' version.
    pub const SCHEMA: &str = "https://opentelemetry.io/schemas/1.44.0";
    /// What made the telemetry.
    pub const SCOPE: &str = "exeat";

    pub(crate) const RPC_SYSTEM: &str = "rpc.system.name";
    pub(crate) const RPC_METHOD: &str = "rpc.method";
    pub(crate) const RPC_STATUS: &str = "rpc.response.status_code";
    pub(crate) const HTTP_METHOD: &str = "http.request.method";
    pub(crate) const HTTP_ROUTE: &str = "http.route";
    pub(crate) const HTTP_STATUS: &str = "http.response.status_code";
    pub(crate) const ERROR_TYPE: &str = "error.type";
    pub(crate) const OPERATION: &str = "gen_ai.operation.name";
    pub(crate) const AGENT: &str = "gen_ai.agent.id";
    pub(crate) const TOOL: &str = "gen_ai.tool.name";
    pub(crate) const SESSION: &str = "session.id";
    pub(crate) const CONVERSATION: &str = "gen_ai.conversation.id";
    pub(crate) const PROVIDER: &str = "gen_ai.provider.name";
    pub(crate) const MODEL: &str = "gen_ai.request.model";
    pub(crate) const RULE: &str = "security_rule.uuid";
    pub(crate) const RULE_NAME: &str = "security_rule.name";
    pub(crate) const RULE_VERSION: &str = "security_rule.version";
    pub(crate) const RULE_SET: &str = "security_rule.ruleset.name";
    pub(crate) const RULE_CATEGORY: &str = "security_rule.category";
    pub(crate) const RULE_REFERENCE: &str = "security_rule.reference";
    pub(crate) const SERVICE: &str = "service.name";
    pub(crate) const SERVICE_VERSION: &str = "service.version";
    pub(crate) const SERVICE_INSTANCE: &str = "service.instance.id";
}

/// Attributes of our own.
pub mod attribute {
    pub(crate) const DECISION: &str = "exeat.decision.id";
    pub(crate) const OUTCOME: &str = "exeat.decision.outcome";
    pub(crate) const REASON: &str = "exeat.decision.reason";
    pub(crate) const REASONS: &str = "exeat.decision.reasons";
    pub(crate) const REQUESTABLE: &str = "exeat.decision.requestable";
    pub(crate) const MODE: &str = "exeat.decision.mode";
    pub(crate) const ACTION: &str = "exeat.action";
    pub(crate) const CONTROL: &str = "exeat.control.id";
    pub(crate) const CONTROL_REVISION: &str = "exeat.control.revision";
    pub(crate) const CONTROLS_FAILED: &str = "exeat.control.failed";
    pub(crate) const CONTROL_RESULT: &str = "exeat.control.result";
    pub(crate) const EXCEPTION: &str = "exeat.exception.id";
    pub(crate) const EXCEPTION_REVISION: &str = "exeat.exception.revision";
    pub(crate) const EXCEPTION_TIER: &str = "exeat.exception.tier";
    pub(crate) const EXCEPTION_EXPIRES: &str = "exeat.exception.expires_at";
    pub(crate) const EXCEPTION_IN_SCOPE: &str = "exeat.exception.in_scope";
    pub(crate) const EXCEPTION_USES: &str = "exeat.exception.use_count";
    pub(crate) const EXCEPTION_SCOPE: &str = "exeat.exception.scope_digest";
    pub(crate) const EXCEPTION_REMAINING: &str = "exeat.exception.remaining_uses";
    pub(crate) const EXCEPTION_DIMENSION: &str = "exeat.exception.dimension";
    pub(crate) const EXCEPTION_FROM: &str = "exeat.exception.state.from";
    pub(crate) const EXCEPTION_TO: &str = "exeat.exception.state.to";
    pub(crate) const ACTOR: &str = "exeat.actor.ref";
    pub(crate) const USAGE_KIND: &str = "exeat.usage.kind";
    pub(crate) const USAGE_SEQUENCE: &str = "exeat.usage.sequence";
    pub(crate) const USAGE_REASON: &str = "exeat.usage.reason";
    pub(crate) const FINGERPRINT: &str = "exeat.context.fingerprint";
    pub(crate) const CHANGED: &str = "exeat.context.changed";
    pub(crate) const SNAPSHOT: &str = "exeat.snapshot.digest";
    pub(crate) const SNAPSHOT_REVISION: &str = "exeat.snapshot.revision";
    pub(crate) const SNAPSHOT_AGE: &str = "exeat.snapshot.age";
    pub(crate) const SURFACE: &str = "exeat.surface";
}

/// Events, sent as log records.
pub mod event {
    /// A decision was made.
    pub const DECISION: &str = "exeat.decision";
    /// An exception was used, or failed to be.
    pub const USAGE: &str = "exeat.exception.usage";
    /// An exception went from one state to another.
    pub const STATE_CHANGED: &str = "exeat.exception.state_changed";
    /// A caller saw a facet differ from what is governed.
    pub const CONTEXT_CHANGED: &str = "exeat.context.changed";
    /// A control ran.
    pub const CONTROL_RUN: &str = "exeat.control.run";
}
