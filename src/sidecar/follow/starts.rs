//! The starts of a sidecar that held its folder, so that the registry need not wait out what it
//! answered to those that are over.

use std::os::unix::fs::MetadataExt as _;

use crate::{engine::attendance::Start, wire::signed::sha256};

use super::disk::{Disk, Fault, at};

/// Starts that are remembered.
const OVER: usize = 8;

impl Disk {
    /// Notes a start of this sidecar, durably; tells the latest before it, which are over as this one
    /// holds the folder.
    /// A lock holds within one running kernel, for one file: of a folder that was copied or came from
    /// another machine nothing is over.
    pub(super) fn begin(&self, start: &Start) -> (Vec<Start>, Option<Fault>) {
        let begun = || -> Result<(Vec<Start>, Start), Fault> {
            Ok((self.place()?, self.bytes("starts")?)).map(|(place, bytes)| {
                let (starts, _) = bytes.as_chunks::<{ size_of::<Start>() }>();
                // A bit that was flipped costs a wait and nothing else.
                let over = match starts.split_first() {
                    Some((known, starts)) if *known == place => starts,
                    Some(_) | None => &[],
                };
                let from = over.len().saturating_sub(OVER);
                (over.get(from..).unwrap_or_default().to_vec(), place)
            })
        };
        let (over, place) = match begun() {
            Ok(begun) => begun,
            Err(fault) => return (Vec::new(), Some(fault)),
        };
        let known = [place].into_iter().chain(over.iter().copied());
        let known: Vec<u8> = known.chain([*start]).flatten().collect();
        let kept = self.put("starts", &known).map_err(at("starts"));
        (over, kept.err())
    }

    /// What tells the lock that is held from any other: the kernel's run, and the file.
    fn place(&self) -> Result<Start, Fault> {
        let kernel = std::fs::read("/proc/sys/kernel/random/boot_id").map_err(at("starts"))?;
        let file = self.lock.metadata().map_err(at("starts"))?;
        let mut bytes = kernel;
        bytes.extend(file.dev().to_be_bytes());
        bytes.extend(file.ino().to_be_bytes());
        let mut place = Start::default();
        let digest = sha256(&bytes);
        for (to, from) in place.iter_mut().zip(digest) {
            *to = from;
        }
        Ok(place)
    }
}
