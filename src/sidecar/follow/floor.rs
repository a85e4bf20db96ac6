//! How far a sidecar ever was, as it stands on disk.

use crate::{
    domain::{Era, Head, LogId},
    wire::signed::sha256,
};

/// How far this sidecar ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Floor {
    pub(super) era: Era,
    pub(super) head: Head,
}

/// Bytes of a slot: turn, log, epoch, revision, sequence, digest.
pub(super) const SLOT: usize = 8 + 16 + 8 + 8 + 8 + 32;

pub(super) fn write_slot(turn: u64, floor: &Floor) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SLOT);
    bytes.extend(turn.to_be_bytes());
    bytes.extend(floor.era.log.0);
    for number in [floor.era.epoch, floor.head.revision, floor.head.sequence] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(sha256(&bytes));
    bytes
}

pub(super) fn read_slot(bytes: &[u8; SLOT]) -> Option<(u64, Floor)> {
    let (body, digest) = bytes.split_last_chunk::<32>()?;
    if sha256(body) != *digest {
        return None;
    }
    let number = |at: usize| {
        let bytes = body.get(at..at.checked_add(8)?)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    let floor = Floor {
        era: Era {
            log: LogId::from_slice(body.get(8..24)?)?,
            epoch: number(24)?,
        },
        head: Head {
            revision: number(32)?,
            sequence: number(40)?,
        },
    };
    Some((number(0)?, floor))
}
