//! Reading back what is on disk: what is proven there, and nothing older than what once was.

use std::sync::{Arc, MutexGuard, PoisonError};

use crate::{
    domain::{Era, Head},
    engine::{Removed, follow::Follower},
    wire::{
        signed::{Purpose, Trust},
        sync::time,
        v1,
    },
};

use super::{
    disk::{Frame, Frames},
    intake::{Arriving, Batch, Delta, Held, Wrong},
    keeper::Keeper,
};

/// Bytes of exceptions from which on they are read after everything else.
const MANY: usize = 1 << 20;

/// A state of which the exceptions are still to be read.
#[derive(Debug)]
pub(super) struct Unread {
    frames: Frames,
    revision: u64,
}

/// What of a state is still to be done.
enum Rest {
    /// Everything is read: how many bytes of the file are proven, and of these the snapshot.
    Read(u64, u64),
    /// The exceptions are to be read.
    Unread(Frames),
}

/// Removals, as they were signed with their epochs, and how far they reach in the last one.
type Recalled = (Removed, Vec<(u64, v1::Signed)>, Option<(Era, u64)>);

impl Keeper {
    pub(super) fn damaged(&self, what: &'static str, why: &dyn std::fmt::Display) {
        self.metrics.disk_fault(what);
        tracing::error!(what, %why, "what is on disk is not as it should be; what the registry sends again takes its place");
    }

    /// Reads the folder: whatever is proven there, and nothing that is older than it was. Where there
    /// are many exceptions they are left for [`Self::read_rest`]: none is honoured before the
    /// registry was heard, and compliant calls do not wait for them.
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
            Ok((floor, damaged)) => {
                if damaged {
                    self.damaged(
                        "floor",
                        &"one of its two places is damaged; the other is used",
                    );
                }
                floor
            }
            Err(fault) => {
                // How far we were is lost: nothing here can be told from an older copy.
                self.damaged("floor", &fault);
                return;
            }
        };
        let expected = floor.is_some_and(|floor| floor.head.revision > 0);
        let state = self.read_state(&trust, expected);
        let Some(floor) = floor else {
            if state.is_some() {
                self.damaged("floor", &"it is missing beside a state");
            }
            return;
        };
        let known = lane.filter(|(of, _)| *of == floor.era);
        let sequence = known.map_or(0, |(_, through)| through);
        let fits = |held: &Held| {
            // The first removals of a new epoch may have come before its snapshot.
            held.era.log == floor.era.log
                && held.era.epoch <= floor.era.epoch
                && held.revision >= floor.head.revision
                && sequence >= floor.head.sequence
        };
        // Whatever is held later may not be older than this.
        let mut revision = floor.head.revision;
        match state {
            Some((held, rest)) if fits(&held) => {
                revision = held.revision;
                match rest {
                    Rest::Unread(frames) => {
                        let unread = Unread { frames, revision };
                        *self.unread() = Some(unread);
                    }
                    Rest::Read(end, snapshot) => self.go_on_after(end, snapshot),
                }
                self.inner().held = Some(Arc::new(held));
                tracing::info!(
                    revision,
                    sequence,
                    "serving what was last known; exceptions wait for the registry"
                );
            }
            Some(_) => self.damaged(
                "state",
                &"it is older than what this sidecar has already had in force",
            ),
            None => {}
        }
        let at = Head { revision, sequence };
        self.inner().follower = Follower::new(Some(floor.era), at);
        self.publish();
    }

    /// Reads back what the registry said the time was.
    pub(super) fn read_time(&self) {
        let kept = self.disk.heartbeat().map_err(|fault| fault.to_string());
        let time = kept.and_then(|signed| {
            let Some(signed) = signed else {
                return Ok(None);
            };
            let opened = self.trust().open(Purpose::Heartbeat, Some(&signed));
            let said: v1::HeartbeatStatement = opened.map_err(|error| error.to_string())?;
            let time = time("time", said.time).map_err(|error| error.to_string())?;
            Ok(Some(time))
        });
        match time {
            Ok(Some(time)) => {
                self.inner().follower.remember(time);
                self.publish();
            }
            Ok(None) => {}
            Err(why) => self.damaged("time", &why),
        }
    }

    /// Reads what [`Self::read_back`] left: the exceptions. Before that nothing can be gone on from.
    pub(super) fn read_rest(&self) {
        let Some(Unread { frames, revision }) = self.unread().take() else {
            return;
        };
        let trust = self.trust();
        let Some((held, end, snapshot)) = self.read_whole(&trust, frames, true) else {
            return;
        };
        if held.revision != revision {
            self.damaged(
                "state",
                &"its exceptions are of another revision than the rest",
            );
            return;
        }
        self.go_on_after(end, snapshot);
        self.inner().held = Some(Arc::new(held));
        self.publish();
    }

    fn unread(&self) -> MutexGuard<'_, Option<Unread>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on writing the state where its proven part ends.
    fn go_on_after(&self, end: u64, snapshot: u64) {
        if let Err(fault) = self.disk.resume_state(end, snapshot) {
            self.damaged("state", &fault);
        }
    }

    fn read_state(&self, trust: &Trust, expected: bool) -> Option<(Held, Rest)> {
        let mut frames = match self.disk.state() {
            Ok(frames) => frames,
            Err(fault) => {
                self.damaged("state", &fault);
                return None;
            }
        };
        let beginning = beginning(trust, &mut frames);
        frames.rewind();
        if let Some(held) = beginning {
            return Some((held, Rest::Unread(frames)));
        }
        let (held, end, snapshot) = self.read_whole(trust, frames, expected)?;
        Some((held, Rest::Read(end, snapshot)))
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
                    self.disk.set_aside("removals");
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
    fn read_whole(
        &self,
        trust: &Trust,
        mut frames: Frames,
        expected: bool,
    ) -> Option<(Held, u64, u64)> {
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
        while let Some((frame, at)) = frames.next() {
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
        if frames.is_cut() {
            tracing::warn!(
                "the last change was cut as it was written; the registry will send it again"
            );
        }
        Some((held, end, snapshot))
    }
}

/// Everything but the exceptions, if there are many of them and the file is in order so far.
fn beginning(trust: &Trust, frames: &mut Frames) -> Option<Held> {
    let (Frame::Snapshot(signed), _) = frames.next()? else {
        return None;
    };
    let mut arriving = Arriving::begin(trust, &signed).ok()?;
    let (first, all) = arriving.chunks();
    if first == 0 {
        // Exceptions are from controls: something is missing.
        return None;
    }
    while arriving.next() < first {
        let (Frame::Chunk(chunk), _) = frames.next()? else {
            return None;
        };
        arriving.chunk(&chunk).ok()?;
    }
    let mut skipped = 0_usize;
    for _ in first..all {
        skipped = skipped.saturating_add(frames.skip_chunk()?);
    }
    if skipped < MANY {
        return None;
    }
    let mut deltas = Vec::new();
    while let Some((Frame::Delta(signed), _)) = frames.next() {
        deltas.push(Delta::open(trust, &signed).ok()?);
    }
    arriving.beginning(deltas).ok()
}
