//! Support for tests and benches, behind the `testing` feature; never shipped.

mod build;

pub use build::{control, exception, noon, question, snapshot, subject};
