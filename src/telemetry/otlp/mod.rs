//! OpenTelemetry: spans, events and metrics by OTLP, as the standard `OTEL_*` variables ask.
//!
//! Records are written as they are sent, once, into a buffer bounded in bytes; whoever decides waits
//! for nobody, and what is lost is counted.

mod exporter;
mod metrics;
mod outbox;
mod proto;
mod records;
mod settings;

pub use exporter::Exporter;
pub use records::{Answered, ControlRun, Failed, StateChange, Used};
pub use settings::{Sampler, Settings};
