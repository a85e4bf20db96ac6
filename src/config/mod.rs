//! Raw text in, checked settings out: file, then environment, then flags.

mod callers;
mod common;
mod load;
mod registry;
mod sidecar;
mod sign_in;
mod source;
mod webhooks;

pub use callers::{Identity, Issued, Proxy, TokenSource, Tokens};
pub use common::{LogFormat, Tls, is_local, state_folder};
pub use load::{Setting, Settings, Wrong, environment};
pub use registry::{RegistryProcess, default_data};
pub use sidecar::{DecisionLog, Origin, Registry, Sidecar, default_socket};
pub use sign_in::{GroupRole, SignIn, SignInIssuer, StepUp};
pub use source::Source;
pub use webhooks::{EventSource, WebhookEndpoint, Webhooks};
