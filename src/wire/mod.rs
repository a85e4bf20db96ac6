//! Translations between messages and domain values; the only place that names generated types
//! beside the services themselves.

mod check;
mod codec;
mod status;
pub mod v1;

pub use check::{Detail, Stamp, answer, batch_item, keep, kept, question};
pub use codec::{Codec, Received};
pub use status::Fault;
