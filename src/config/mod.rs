//! Raw text in, checked settings out: file, then environment, then flags.

mod load;
mod sidecar;

pub use load::{Setting, Settings, Wrong, environment};
pub use sidecar::{Identity, LogFormat, Sidecar, Tls, default_socket};
