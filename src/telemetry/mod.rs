//! What the process tells about itself: metrics, logs, and what a receiver of telemetry is sent.

mod groups;
mod log;
mod metrics;
pub mod names;
pub mod otlp;

pub use log::start;
pub use metrics::{Metrics, Surface};
