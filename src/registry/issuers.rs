//! Who issues tokens, and the keys they sign with: fetched, kept for a while, and fetched again when
//! a token names one that is not known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Uri};
use tokio::sync::Mutex as Turn;

use crate::{
    domain::Span,
    runtime::{
        clock::Clock,
        http::{Caller, callable},
    },
    wire::jwt::{Claims, Doubt, Keys, Use},
};

/// How long keys are used before they are fetched again.
const FRESH: Span = Span::from_hours(1);
/// How long keys are used where they cannot be fetched again.
const KEPT: Span = Span::from_hours(24);
/// How often keys are fetched at most, whoever names unknown ones.
const PAUSE: Span = Span::from_secs(10);

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// No key that is known signed it.
    UnknownKey,
    /// It is wrong.
    Wrong(String),
    /// The issuer's keys cannot be had now; why is in the log.
    Unavailable,
}

/// Somebody whose tokens count.
#[derive(Debug)]
pub(super) struct Issuer {
    name: Box<str>,
    audience: Box<str>,
    keys_at: Option<Uri>,
    caller: Caller,
    kept: Mutex<Kept>,
    /// Held by whoever fetches: nobody waits for them.
    fetching: Turn<()>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    keys: Arc<Keys>,
    fetched: Option<Span>,
    tried: Option<Span>,
}

impl Issuer {
    /// One that signs for `audience`, with the keys at `keys_at` or where its discovery document
    /// says.
    pub(super) fn new(name: &str, audience: &str, keys_at: Option<Uri>, caller: Caller) -> Self {
        Self {
            name: name.into(),
            audience: audience.into(),
            keys_at,
            caller,
            kept: Mutex::default(),
            fetching: Turn::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a token claims, if it counts now.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub(super) async fn claims(
        &self,
        token: &str,
        used: Use,
        clock: &Clock,
    ) -> Result<Claims, NotTaken> {
        // What cannot be a token of this use is no reason to ask anybody for keys.
        if let Err(Doubt::Wrong(why)) = Keys::default().claims(token, used) {
            return Err(NotTaken::Wrong(why));
        }
        let fresh = |kept: &Kept| {
            kept.fetched
                .is_some_and(|at| clock.elapsed().saturating_sub(at) < FRESH)
        };
        let mut kept = self.kept().clone();
        if !fresh(&kept) {
            kept = self.fetch(clock).await?;
        }
        let read = match kept.keys.claims(token, used) {
            Err(Doubt::UnknownKey) => self.fetch(clock).await?.keys.claims(token, used),
            read => read,
        };
        let claims = read.map_err(|doubt| match doubt {
            Doubt::UnknownKey => NotTaken::UnknownKey,
            Doubt::Wrong(why) => NotTaken::Wrong(why),
        })?;
        claims
            .check(&self.name, &self.audience, used, clock.now().latest)
            .map_err(NotTaken::Wrong)?;
        Ok(claims)
    }

    /// Fetches the keys anew, unless that was tried a moment ago or somebody is about it. Those
    /// that are not too old stay where there are no others.
    async fn fetch(&self, clock: &Clock) -> Result<Kept, NotTaken> {
        let kept = self.kept().clone();
        let now = clock.elapsed();
        let usable = || {
            if kept.fetched.is_some_and(|at| now.saturating_sub(at) < KEPT) {
                return Ok(kept.clone());
            }
            Err(NotTaken::Unavailable)
        };
        let paused = kept.tried.is_some_and(|at| now.saturating_sub(at) < PAUSE);
        let Some(_turn) = self.fetching.try_lock().ok().filter(|_| !paused) else {
            return usable();
        };
        let fetched = self.fetched().await;
        let after = clock.elapsed();
        match fetched {
            Ok(keys) => {
                let anew = Kept {
                    keys: Arc::new(keys),
                    fetched: Some(after),
                    tried: Some(after),
                };
                *self.kept() = anew.clone();
                Ok(anew)
            }
            Err(why) => {
                tracing::warn!(issuer = &*self.name, why, "keys cannot be fetched");
                self.kept().tried = Some(after);
                usable()
            }
        }
    }

    async fn fetched(&self) -> Result<Keys, String> {
        let keys_at = match &self.keys_at {
            Some(uri) => uri.clone(),
            None => self.discovered().await?,
        };
        Keys::parse(&self.get(keys_at).await?)
    }

    /// Where the issuer's discovery document says that its keys are.
    async fn discovered(&self) -> Result<Uri, String> {
        let base = self.name.trim_end_matches('/');
        let at = callable(&format!("{base}/.well-known/openid-configuration"))?;
        let text = self.get(at).await?;
        let document: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let said = |name: &str| document.get(name).and_then(serde_json::Value::as_str);
        if said("issuer") != Some(&*self.name) {
            return Err("its discovery document is of another issuer".into());
        }
        callable(said("jwks_uri").ok_or("its discovery document has no `jwks_uri`")?)
    }

    async fn get(&self, at: Uri) -> Result<Bytes, String> {
        let request = Request::get(at.clone()).body(Bytes::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.caller.send(request).await?;
        if !answer.status().is_success() {
            return Err(format!("{at}: {}", answer.status()));
        }
        Ok(answer.into_body())
    }
}
