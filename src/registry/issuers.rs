//! Who issues tokens: where they do what, and the keys they sign with.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Uri, header, request::Builder};

use crate::{
    runtime::{
        clock::Clock,
        http::{Caller, callable},
    },
    wire::{
        jwt::{Claims, Doubt, Keys, Use},
        oauth::{Discovered, Tokens, tokens},
    },
};

use super::fetched::Fetched;

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// No key that is known signed it.
    UnknownKey,
    /// It is wrong.
    Wrong(String),
    /// The issuer cannot be asked now; why is in the log.
    Unavailable,
}

/// Somebody whose tokens count.
#[derive(Debug)]
pub(super) struct Issuer {
    name: Box<str>,
    audience: Box<str>,
    keys_at: Option<Uri>,
    caller: Caller,
    keys: Fetched<Keys>,
    discovered: Fetched<Discovered>,
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
            keys: Fetched::default(),
            discovered: Fetched::default(),
        }
    }

    /// Its URL.
    pub(super) fn name(&self) -> &str {
        &self.name
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
        let kept = self
            .keys
            .fresh(clock, &self.name, self.fetched(clock))
            .await;
        let kept = kept.ok_or(NotTaken::Unavailable)?;
        let read = match kept.claims(token, used) {
            Err(Doubt::UnknownKey) => {
                let anew = self.keys.anew(clock, &self.name, self.fetched(clock)).await;
                anew.unwrap_or(kept).claims(token, used)
            }
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

    async fn fetched(&self, clock: &Clock) -> Result<Keys, String> {
        let keys_at = if let Some(uri) = &self.keys_at {
            uri.clone()
        } else {
            let discovered = self.discovered(clock).await;
            callable(
                &discovered
                    .ok_or("its discovery document cannot be had")?
                    .keys,
            )?
        };
        Keys::parse(&self.get(keys_at).await?)
    }

    /// Where it does what, by its discovery document; nothing where that cannot be had, with the
    /// reason in the log.
    pub(super) async fn discovered(&self, clock: &Clock) -> Option<Arc<Discovered>> {
        let fetch = async {
            let base = self.name.trim_end_matches('/');
            let at = callable(&format!("{base}/.well-known/openid-configuration"))?;
            Discovered::parse(&self.get(at).await?, &self.name)
        };
        self.discovered.fresh(clock, &self.name, fetch).await
    }

    /// The tokens for what is asked with `form` at `endpoint`.
    ///
    /// # Errors
    ///
    /// What the issuer said instead, or why it said nothing.
    pub(super) async fn tokens(
        &self,
        endpoint: &str,
        form: String,
        authorization: Option<&str>,
    ) -> Result<Tokens, NotTaken> {
        // What is within is nobody's business outside: the reason is for the log.
        let away = |why: String| {
            tracing::warn!(issuer = &*self.name, why, "cannot be asked");
            NotTaken::Unavailable
        };
        let mut request = Request::post(callable(endpoint).map_err(away)?)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(form.into());
        let request = request.map_err(|error| away(error.to_string()))?;
        let answer = Box::pin(self.caller.send(request)).await.map_err(away)?;
        if answer.status().is_server_error() {
            return Err(away(answer.status().to_string()));
        }
        tokens(answer.body()).map_err(NotTaken::Wrong)
    }

    async fn get(&self, at: Uri) -> Result<Bytes, String> {
        self.answered(Request::get(at)).await
    }

    /// What the issuer says at `endpoint` of whoever a token is of.
    ///
    /// # Errors
    ///
    /// Why it says nothing.
    pub(super) async fn told_of(&self, endpoint: &str, access: &str) -> Result<Bytes, String> {
        let bearer = format!("Bearer {access}");
        let request = Request::get(callable(endpoint)?).header(header::AUTHORIZATION, bearer);
        self.answered(request).await
    }

    async fn answered(&self, request: Builder) -> Result<Bytes, String> {
        let request = request.body(Bytes::new());
        let request = request.map_err(|error| error.to_string())?;
        let at = request.uri().clone();
        let answer = Box::pin(self.caller.send(request)).await?;
        if !answer.status().is_success() {
            return Err(format!("{at}: {}", answer.status()));
        }
        Ok(answer.into_body())
    }
}
