//! Who issues tokens, and the keys they sign with: fetched, kept for a while, and fetched again when
//! a token names one that is not known.

use bytes::Bytes;
use http::{Request, Uri};
use tokio::sync::Mutex;

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
    /// The issuer's keys cannot be had now.
    Unavailable(String),
}

/// Somebody whose tokens count.
#[derive(Debug)]
pub(super) struct Issuer {
    name: Box<str>,
    audience: Box<str>,
    keys_at: Option<Uri>,
    caller: Caller,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Keys,
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
        }
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
        let mut kept = self.kept.lock().await;
        let now = clock.elapsed();
        let age = |since: Option<Span>| since.map(|since| now.saturating_sub(since));
        if age(kept.fetched).is_none_or(|age| age >= FRESH) {
            self.fetch(&mut kept, now).await?;
        }
        let read = match kept.keys.claims(token, used) {
            Err(Doubt::UnknownKey) if age(kept.tried).is_none_or(|age| age >= PAUSE) => {
                self.fetch(&mut kept, now).await?;
                kept.keys.claims(token, used)
            }
            read => read,
        };
        drop(kept);
        let claims = read.map_err(|doubt| match doubt {
            Doubt::UnknownKey => NotTaken::UnknownKey,
            Doubt::Wrong(why) => NotTaken::Wrong(why),
        })?;
        claims
            .check(&self.name, &self.audience, clock.now().latest)
            .map_err(NotTaken::Wrong)?;
        Ok(claims)
    }

    /// Fetches the keys anew. Those that are not too old stay where there are no others.
    async fn fetch(&self, kept: &mut Kept, now: Span) -> Result<(), NotTaken> {
        let age = |since: Option<Span>| since.map(|since| now.saturating_sub(since));
        let paused = age(kept.tried).is_some_and(|age| age < PAUSE);
        let why = if paused {
            "its keys could not be had a moment ago".to_owned()
        } else {
            kept.tried = Some(now);
            match self.fetched().await {
                Ok(keys) => {
                    kept.keys = keys;
                    kept.fetched = Some(now);
                    return Ok(());
                }
                Err(why) => why,
            }
        };
        if age(kept.fetched).is_some_and(|age| age < KEPT) {
            tracing::warn!(
                issuer = &*self.name,
                why,
                "keys cannot be fetched; those from before go on"
            );
            return Ok(());
        }
        kept.keys = Keys::default();
        Err(NotTaken::Unavailable(why))
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
