//! Support for tests and benches, behind the `testing` feature; never shipped.

mod build;

pub use build::{case, control, exception, noon, question, request, snapshot, subject};
