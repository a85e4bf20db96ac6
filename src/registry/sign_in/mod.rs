//! How people sign in: with an issuer or a password, for a session.

mod arrival;
mod passwords;
mod providers;
mod sessions;

pub(super) use arrival::{Begins, Doors, Finishes, NotIn, SignedInAs, local};
pub(super) use providers::{Providers, role_of_person};
pub(super) use sessions::Sessions;
