//! What the process tells about itself: metrics, logs, and what a receiver of telemetry is sent.

mod governing;
mod groups;
mod log;
mod metrics;
pub mod names;
pub mod otlp;

pub use governing::{Governed, Governing};
pub use groups::Sending;
pub use log::start;
pub use metrics::{Metrics, Seen, Surface};

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
