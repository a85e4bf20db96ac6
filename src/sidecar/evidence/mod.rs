//! What is recorded of exceptions before an answer leaves, and how often they may be used.

mod file;
mod idle;
mod limits;
mod repeats;
mod spool;

pub(super) use file::Keeping;
pub(super) use idle::Idle;
pub(super) use limits::{Asking, Counts, Limits, Purse, ReservationId, Take};
pub(super) use repeats::Repeats;
pub(super) use spool::{Entry, Spool, Unkept};
