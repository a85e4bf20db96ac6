//! Who is signed in, as it is looked up with each call; the store keeps it.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    domain::Timestamp,
    registry::{
        authn::{Caller, SignedIn},
        role::Role,
        scope::Scope,
        store::Session,
    },
};

/// Everybody who is signed in.
#[derive(Debug, Default)]
pub(in crate::registry) struct Sessions {
    live: RwLock<HashMap<[u8; 32], Live>>,
}

#[derive(Clone, Debug)]
struct Live {
    session: Session,
    caller: Caller,
}

impl Sessions {
    /// Takes one in; not where there is no such role any more.
    pub(in crate::registry) fn take_in(&self, session: Session) {
        let Some(role) = Role::parse(&session.role) else {
            return;
        };
        let caller = Caller {
            identity: session.identity.clone(),
            role,
            scope: Arc::new(Scope::default()),
            start: None,
            signed_in: Some(Arc::new(SignedIn {
                said: session.assurance.clone(),
                strong_until: session.strong_until,
                session: session.token,
            })),
        };
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.insert(session.token, Live { session, caller });
    }

    /// Who shows what has this digest, if that is a session.
    pub(in crate::registry) fn caller(&self, token: &[u8; 32], now: Timestamp) -> Option<Caller> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let found = live.get(token).filter(|live| now < live.session.until)?;
        Some(found.caller.clone())
    }

    /// A session.
    pub(in crate::registry) fn get(&self, token: &[u8; 32]) -> Option<Session> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(token).map(|live| live.session.clone())
    }

    /// Those that are not over, in the order in which they began.
    pub(in crate::registry) fn all(&self, now: Timestamp) -> Vec<Session> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = live.values().map(|live| live.session.clone()).collect();
        all.retain(|session| now < session.until);
        all.sort_by(|a, b| (a.since, &a.identity).cmp(&(b.since, &b.identity)));
        all
    }

    /// Ends those that are not to be kept.
    pub(in crate::registry) fn keep(&self, keep: impl Fn(&Session) -> bool) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, live| keep(&live.session));
    }
}
