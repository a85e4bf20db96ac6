//! Following a registry: what is believed, kept on disk, and decided by.

mod disk;
mod intake;
mod keeper;
mod lanes;
mod link;
mod recall;

pub(super) use disk::Disk;
pub(super) use keeper::Keeper;
pub(super) use lanes::Following;
