//! What the process tells about itself: metrics and logs.

mod log;
mod metrics;
pub mod names;

pub use log::start;
pub use metrics::{Metrics, Surface};
