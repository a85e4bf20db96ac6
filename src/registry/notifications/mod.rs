//! Who is told of what happens, and how.

mod deliver;
mod endpoints;
mod reminders;
mod sources;

pub(super) use deliver::{Deliveries, deliver};
pub(super) use endpoints::{Endpoint, Outside, allowed, named};
pub(super) use reminders::remind;
