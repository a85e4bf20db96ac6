//! Following a registry: what is believed, kept on disk, and decided by.

mod attend;
mod demand;
mod disk;
mod draining;
mod entities;
mod fetch;
mod floor;
mod intake;
mod keeper;
mod lanes;
mod link;
mod recall;
mod report;
mod reserve;
mod seen;
mod starts;
mod watch;

pub(super) use disk::Disk;
pub(super) use keeper::Keeper;
pub(super) use lanes::Following;
