//! A sidecar's disk: what was synced stays, what was not is lost in a crash.

use std::{collections::BTreeMap, sync::Arc};

use exeat::{
    domain::{Era, Head, Name, Removal, Timestamp},
    engine::attendance::Start,
};

/// What is held of the governed objects: exceptions by id.
pub(crate) type Objects = BTreeMap<Name, (u64, Arc<str>)>;

/// Removals as they came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Batch {
    pub(crate) era: Era,
    pub(crate) after: u64,
    pub(crate) through: u64,
    pub(crate) removals: Vec<Removal>,
}

/// What is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) state: Option<(Era, u64, Objects)>,
    pub(crate) removals: Vec<Batch>,
    pub(crate) floor: Option<(Era, Head)>,
    /// The registry's time, as it was last kept.
    pub(crate) time: Option<Timestamp>,
    /// The starts that held this disk.
    pub(crate) starts: Vec<Start>,
}

impl Disk {
    /// How far the removals reach without a gap, in the last epoch they speak of.
    pub(crate) fn lane(&self) -> Option<(Era, u64)> {
        let mut lane: Option<(Era, u64)> = None;
        for batch in &self.removals {
            let reach = match lane {
                Some((era, reach)) if era == batch.era => reach,
                _ => 0,
            };
            if batch.after <= reach {
                lane = Some((batch.era, reach.max(batch.through)));
            }
        }
        lane
    }
}
