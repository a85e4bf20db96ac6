//! The sidecars that are connected, as people want to see them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::Head,
    engine::attendance::Start,
    wire::{signed::Pin, v1},
};

/// Most connections under one name of starts that others have taken the place of.
const FENCED: usize = 8;
/// Most refusals kept for one sidecar.
const NACKS: usize = 20;

/// A start, and what ends its connection.
type Connection = (Start, CancellationToken);

/// Everybody who ever attended since the start.
#[derive(Debug, Default)]
pub(super) struct Attendants {
    known: Mutex<BTreeMap<Box<str>, Attendant>>,
    /// Connections of starts that others have taken the place of: a few to a name, one to a start.
    fenced: Mutex<BTreeMap<Box<str>, VecDeque<Connection>>>,
}

/// One sidecar.
#[derive(Clone, Debug)]
pub(super) struct Attendant {
    /// Ends its present connection; cancelled once it is gone.
    pub connection: CancellationToken,
    /// What it may hold.
    pub scope: String,
    /// What is durable there and in force.
    pub acknowledged: Head,
    /// Its version.
    pub version: String,
    /// What it could not take in.
    pub nacks: Vec<v1::Nack>,
    /// What it signs denials with, and how that is called.
    pub denial_key: Option<(String, Pin)>,
}

impl Attendants {
    /// Everybody, by name.
    pub(super) fn known(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Attendant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a connection; one that there was under the name is cut.
    pub(super) fn enter(&self, name: &str, attendant: Attendant) {
        if let Some(before) = self.known().insert(name.into(), attendant) {
            before.connection.cancel();
        }
    }

    /// Notes a connection of a start that another has taken the place of.
    pub(super) fn enter_fenced(&self, name: &str, start: Start, connection: CancellationToken) {
        let mut fenced = self.fenced.lock().unwrap_or_else(PoisonError::into_inner);
        let open = fenced.entry(name.into()).or_default();
        open.retain(|(known, connection)| {
            let other = *known != start;
            if !other {
                connection.cancel();
            }
            other && !connection.is_cancelled()
        });
        if open.len() >= FENCED
            && let Some((_, oldest)) = open.pop_front()
        {
            oldest.cancel();
        }
        open.push_back((start, connection));
    }

    /// Who signs denials with the key that is called so, and the key.
    pub(super) fn denies(&self, id: &str) -> Option<(Box<str>, Pin)> {
        self.known().iter().find_map(|(name, one)| {
            let (known, pin) = one.denial_key.as_ref()?;
            (known == id).then(|| (name.clone(), pin.clone()))
        })
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
