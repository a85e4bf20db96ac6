//! What the process is made of: time, tasks, listeners, published state and the end.

pub mod channel;
pub mod clock;
pub mod collector;
pub mod files;
pub mod http;
pub mod listen;
pub mod publish;
pub mod reachable;
pub mod ring;
pub mod secret;
pub mod serve;
pub mod simulated;
pub mod tasks;
pub mod tls;
