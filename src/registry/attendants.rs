//! The sidecars that are connected, as people want to see them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{domain::Head, wire::v1};

/// Most refusals kept for one sidecar.
const NACKS: usize = 20;

/// Most starts of one sidecar that are remembered.
const FENCED: usize = 64;

/// Everybody who ever attended since the start.
#[derive(Debug, Default)]
pub(super) struct Attendants {
    known: Mutex<BTreeMap<Box<str>, Attendant>>,
}

/// One sidecar.
#[derive(Clone, Debug)]
pub(super) struct Attendant {
    /// Ends its present connection; cancelled once it is gone.
    pub connection: CancellationToken,
    /// Made anew at each of its starts.
    pub boot: Vec<u8>,
    /// What it may hold.
    pub scope: String,
    /// What is durable there and in force.
    pub acknowledged: Head,
    /// Its version.
    pub version: String,
    /// What it could not take in.
    pub nacks: Vec<v1::Nack>,
    /// Earlier starts under its name: they do not come back.
    pub fenced: VecDeque<Vec<u8>>,
}

/// How a sidecar came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// Nobody else was there under its name.
    Alone,
    /// Another was, which is fenced from now on.
    Fencing,
    /// It is fenced itself.
    Fenced,
}

impl Attendants {
    /// Everybody, by name.
    pub(super) fn known(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Attendant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a connection; one that there was under the name is cut. Of two sidecars with one
    /// identity the one that started later counts, and the other is fenced.
    pub(super) fn enter(&self, name: &str, attendant: Attendant) -> Entered {
        let mut known = self.known();
        let Some(before) = known.get_mut(name) else {
            known.insert(name.into(), attendant);
            return Entered::Alone;
        };
        if before.fenced.contains(&attendant.boot) {
            tracing::warn!(
                sidecar = name,
                "an earlier sidecar with this identity still runs; it is fenced"
            );
            return Entered::Fenced;
        }
        let mut entered = Entered::Alone;
        let mut fenced = std::mem::take(&mut before.fenced);
        if before.boot != attendant.boot {
            if !before.connection.is_cancelled() {
                entered = Entered::Fencing;
                tracing::warn!(
                    sidecar = name,
                    "another sidecar with this identity has come; the one before is fenced"
                );
            }
            if fenced.len() >= FENCED {
                fenced.pop_front();
            }
            fenced.push_back(std::mem::take(&mut before.boot));
        }
        before.connection.cancel();
        *before = Attendant {
            fenced,
            ..attendant
        };
        entered
    }

    /// What was last taken in under a name.
    pub(super) fn acknowledged(&self, name: &str) -> Head {
        let known = self.known();
        known
            .get(name)
            .map_or_else(Head::default, |one| one.acknowledged)
    }

    /// Notes what a sidecar has taken in.
    pub(super) fn acknowledge(&self, name: &str, head: Head) {
        if let Some(attendant) = self.known().get_mut(name) {
            attendant.acknowledged = head;
        }
    }

    /// Notes what it could not take in.
    pub(super) fn nack(&self, name: &str, nack: v1::Nack) {
        if let Some(attendant) = self.known().get_mut(name) {
            attendant
                .nacks
                .retain(|known| (known.kind, &known.id) != (nack.kind, &nack.id));
            if attendant.nacks.len() >= NACKS {
                attendant.nacks.remove(0);
            }
            attendant.nacks.push(nack);
        }
    }
}
