//! Reading back what is on disk: what is proven there, and nothing older than what once was.

use std::sync::Arc;

use crate::{
    domain::{Era, Head},
    engine::{Removed, follow::Follower},
    wire::{signed::Trust, v1},
};

use super::{
    disk::Frame,
    intake::{Arriving, Delta, Held, Wrong},
    keeper::{Batch, Keeper},
};

/// Removals, as they were signed with their epochs, and how far they reach in the last one.
type Recalled = (Removed, Vec<(u64, v1::Signed)>, Option<(Era, u64)>);

impl Keeper {
    pub(super) fn damaged(&self, what: &'static str, why: &dyn std::fmt::Display) {
        self.metrics.disk_fault(what);
        tracing::error!(what, %why, "what is on disk is not used; the registry will send it again");
    }

    /// Reads the folder: whatever is proven there, and nothing that is older than it was.
    pub(super) fn read_back(&self) {
        let trust = self.trust();
        // Whatever else is damaged: removals are signed, and only remove.
        let (removed, signed, lane) = self.read_removals(&trust);
        {
            let mut inner = self.inner();
            inner.removed = Arc::new(removed);
            inner.signed = signed;
        }
        let floor = match self.disk.floor() {
            Ok(floor) => floor,
            Err(fault) => {
                // How far we were is lost: nothing here can be told from an older copy.
                self.damaged("floor", &fault);
                return;
            }
        };
        let expected = floor.is_some_and(|floor| floor.head.revision > 0);
        let state = self.read_state(&trust, expected);
        let mut inner = self.inner();
        let Some(floor) = floor else {
            if state.is_some() {
                drop(inner);
                self.damaged("floor", &"it is missing beside a state");
            }
            return;
        };
        let known = lane.filter(|(of, _)| *of == floor.era);
        let sequence = known.map_or(0, |(_, through)| through);
        // Whatever is held later may not be older than this.
        let behind = Follower::new(
            Some(floor.era),
            Head {
                revision: floor.head.revision,
                sequence,
            },
        );
        let fits = |held: &Held| {
            // The first removals of a new epoch may have come before its snapshot.
            held.era.log == floor.era.log
                && held.era.epoch <= floor.era.epoch
                && held.revision >= floor.head.revision
                && sequence >= floor.head.sequence
        };
        match state {
            Some((held, end, snapshot)) if fits(&held) => {
                let at = Head {
                    revision: held.revision,
                    sequence,
                };
                inner.follower = Follower::new(Some(floor.era), at);
                inner.held = Some(Arc::new(held));
                drop(inner);
                if let Err(fault) = self.disk.resume_state(end, snapshot) {
                    self.damaged("state", &fault);
                }
                self.publish();
                tracing::info!(
                    revision = at.revision,
                    sequence,
                    "serving what was last known; exceptions wait for the registry"
                );
            }
            Some(_) => {
                inner.follower = behind;
                drop(inner);
                self.damaged(
                    "state",
                    &"it is older than what this sidecar has already had in force",
                );
            }
            None => inner.follower = behind,
        }
    }

    /// The removals that are proven, and how far they reach in the last epoch they speak of.
    fn read_removals(&self, trust: &Trust) -> Recalled {
        let (mut removed, mut signed) = (Removed::default(), Vec::new());
        let mut lane: Option<(Era, u64)> = None;
        let (frames, cut) = match self.disk.removals() {
            Ok(read) => read,
            Err(fault) => {
                self.damaged("removals", &fault);
                return (removed, signed, None);
            }
        };
        let mut end = 0;
        for (frame, at) in frames {
            let Frame::Removals(message) = frame else {
                self.damaged("removals", &"a frame is of another kind");
                break;
            };
            let batch = match Batch::open(trust, &message) {
                Ok(batch) => batch,
                Err(why) => {
                    self.damaged("removals", &why);
                    break;
                }
            };
            for removal in &batch.removals {
                removed.add(batch.era.epoch, removal);
            }
            let reach = match lane {
                Some((era, reach)) if era == batch.era => reach,
                Some(_) | None => 0,
            };
            if batch.after <= reach {
                lane = Some((batch.era, reach.max(batch.through)));
            }
            signed.push((batch.era.epoch, message));
            end = at;
        }
        if cut {
            tracing::warn!(
                "the last removals were cut as they were written; the registry will send them again"
            );
        }
        if let Err(fault) = self.disk.resume_removals(end) {
            self.damaged("removals", &fault);
        }
        (removed, signed, lane)
    }

    /// The state that is proven, how many bytes of the file that is, and of these the snapshot.
    fn read_state(&self, trust: &Trust, expected: bool) -> Option<(Held, u64, u64)> {
        let (frames, cut) = match self.disk.state() {
            Ok(read) => read,
            Err(fault) => {
                self.damaged("state", &fault);
                return None;
            }
        };
        if cut {
            tracing::warn!(
                "the last change was cut as it was written; the registry will send it again"
            );
        }
        let mut frames = frames.into_iter();
        let Some((Frame::Snapshot(signed), _)) = frames.next() else {
            if expected {
                self.damaged("state", &"it holds no snapshot");
            }
            return None;
        };
        let proven = (|| {
            let mut arriving = Arriving::begin(trust, &signed)?;
            let mut end = 0;
            while !arriving.is_whole() {
                let Some((Frame::Chunk(chunk), at)) = frames.next() else {
                    return Err(Wrong::Chunk);
                };
                arriving.chunk(&chunk)?;
                end = at;
            }
            let (held, _) = arriving.finish()?;
            Ok((held, end))
        })();
        let (mut held, snapshot) = match proven {
            Ok(proven) => proven,
            Err(why) => {
                self.damaged("state", &why);
                return None;
            }
        };
        let mut end = snapshot;
        for (frame, at) in frames {
            let next = match &frame {
                Frame::Delta(signed) => Delta::open(trust, signed).and_then(|delta| {
                    if delta.era == held.era && delta.after == held.revision {
                        Ok(delta.applied(&held)?.0)
                    } else {
                        Err(Wrong::Sum)
                    }
                }),
                Frame::Snapshot(_) | Frame::Chunk(_) | Frame::Removals(_) | Frame::Key(_) => {
                    Err(Wrong::Chunk)
                }
            };
            match next {
                Ok(next) => (held, end) = (next, at),
                Err(why) => {
                    // What comes before is whole; whether it is recent enough the floor says.
                    self.damaged("state", &why);
                    break;
                }
            }
        }
        Some((held, end, snapshot))
    }
}
