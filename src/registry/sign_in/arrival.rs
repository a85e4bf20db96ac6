//! What happens at the door: who shows what is let in, and for how long.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex as Turn, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Principal, Span, Timestamp},
    registry::{
        authn::Guests,
        core::{Error, Registry},
        issuers::NotTaken,
        role::Role,
        service::token,
        store::{Account, People, Session, StoreError},
    },
    runtime::http::callable,
    wire::{
        jwt::Use,
        oauth::{
            Asks, Attempt, Seal, authorization_url, basic, challenge, comes_back_here,
            is_challenge, token_request,
        },
    },
};

use super::{
    passwords::{Tries, Wrong, hashed},
    providers::{Provider, Providers},
};

/// How often sessions that are over are forgotten.
const SWEEP: Duration = Duration::from_mins(1);
/// Most codes that are taken at once.
const ASKING: usize = 16;
/// How long somebody may take at the issuer's.
const WITHIN: Span = Span::from_secs(600);
/// Longest code, state and the like, in bytes.
const LONGEST: usize = 4 << 10;

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) enum NotIn {
    /// What was asked is no such thing; the field, and what is wrong with it.
    Invalid(&'static str, String),
    /// Who they say they are is not shown, or nobody who is let in.
    Unproven(String),
    /// Somebody else stands in the way.
    Precondition(String),
    /// It cannot be told now.
    Unavailable(String),
    /// The store failed.
    Failed(Error),
}

impl fmt::Display for NotIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(field, why) => write!(f, "{field} {why}"),
            Self::Unproven(why) | Self::Precondition(why) | Self::Unavailable(why) => {
                f.write_str(why)
            }
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

impl From<StoreError> for NotIn {
    fn from(error: StoreError) -> Self {
        Self::Failed(Error::Store(error))
    }
}

/// Who begins to sign in, and how.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Begins {
    /// With whom; with the only one, if empty.
    pub issuer: String,
    /// Where the browser comes back to.
    pub redirect_uri: String,
    /// What the verifier answers.
    pub challenge: String,
    /// Comes back with the code.
    pub state: String,
    /// Whether as a step-up.
    pub step_up: bool,
}

/// An attempt that has begun.
#[derive(Debug)]
pub(in crate::registry) struct Begun<'a> {
    /// Where the browser is sent.
    pub url: String,
    /// What is to be brought back with the code.
    pub nonce: String,
    /// With whom.
    pub provider: &'a Provider,
    /// Whether the browser comes back with who sent it.
    pub says_issuer: bool,
}

/// What the browser came back with.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Finishes {
    /// With whom.
    pub issuer: String,
    /// Where the browser came back to.
    pub redirect_uri: String,
    /// The code.
    pub code: String,
    /// What answers the challenge.
    pub verifier: String,
    /// What the beginning was answered with.
    pub nonce: String,
}

/// Somebody who is let in.
#[derive(Clone, Debug)]
pub(in crate::registry) struct SignedInAs {
    /// What they show from now on.
    pub token: String,
    /// Their session.
    pub session: Session,
}

/// Where people come in.
#[derive(Debug)]
pub(in crate::registry) struct Doors {
    pub(in crate::registry) registry: Arc<Registry>,
    pub(in crate::registry) guests: Arc<Guests>,
    pub(in crate::registry) people: People,
    pub(in crate::registry) providers: Providers,
    seal: Seal,
    tries: Tries,
    /// How many codes are taken at once: anybody may bring one.
    asking: Semaphore,
    /// Nobody is let in while who may is changed.
    turn: Turn<()>,
}

impl Doors {
    /// Opens them, and takes in who is signed in still.
    ///
    /// # Errors
    ///
    /// A store that fails, or a machine without randomness.
    pub(in crate::registry) async fn open(
        registry: &Arc<Registry>,
        guests: &Arc<Guests>,
        people: People,
        providers: Providers,
    ) -> Result<Self, Error> {
        // As long as the settings would let them in today.
        for mut session in people.sessions().await.map_err(Error::Store)? {
            session.until = session.until.min(session.since + providers.session_lasts);
            if providers.lets_in(&session.issuer) {
                guests.sessions.take_in(session);
            }
        }
        Ok(Self {
            registry: Arc::clone(registry),
            guests: Arc::clone(guests),
            people,
            providers,
            seal: Seal::new().map_err(Error::Unfit)?,
            tries: Tries::new().map_err(Error::Unfit)?,
            asking: Semaphore::new(ASKING),
            turn: Turn::default(),
        })
    }

    /// Forgets sessions that are over, now and then.
    ///
    /// # Errors
    ///
    /// None: what cannot be forgotten now is later, and lets nobody in.
    pub(in crate::registry) async fn sweep(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        loop {
            let now = self.now();
            self.guests.sessions.keep(|session| now < session.until);
            if let Err(error) = self.people.forget(now).await {
                tracing::warn!(%error, "sessions that are over cannot be forgotten");
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(SWEEP) => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.registry.clock.now().latest
    }

    fn provider(&self, name: &str) -> Result<&Provider, NotIn> {
        self.providers.find(name).ok_or_else(|| {
            let names = self.providers.all.iter().map(|provider| &*provider.name);
            let names: Vec<_> = names.collect();
            NotIn::Invalid(
                "issuer",
                match names.as_slice() {
                    [] => "nobody signs in with an issuer here; see the setting `sign_in`".into(),
                    names => format!("is not known; use one of {}", names.join(", ")),
                },
            )
        })
    }

    /// Where somebody's browser is sent, and what they bring back with the code.
    ///
    /// # Errors
    ///
    /// What is wrong with what they ask.
    pub(in crate::registry) async fn begin(&self, begins: Begins) -> Result<Begun<'_>, NotIn> {
        let provider = self.provider(&begins.issuer)?;
        let Begins {
            redirect_uri,
            challenge,
            state,
            step_up,
            ..
        } = &begins;
        let path = &provider.redirect_path;
        if !comes_back_here(redirect_uri, path) || redirect_uri.len() > LONGEST {
            return Err(NotIn::Invalid(
                "redirect_uri",
                format!("is not `http` on a loopback address, such as http://127.0.0.1:4711{path}"),
            ));
        }
        if !is_challenge(challenge) {
            let why = "is no SHA-256 of a verifier in base64url";
            return Err(NotIn::Invalid("code_challenge", why.into()));
        }
        if state.len() < 16 || state.len() > LONGEST {
            let why = "is to be 16 characters or more that nobody guesses";
            return Err(NotIn::Invalid("state", why.into()));
        }
        let attempt = Attempt {
            issuer: &provider.name,
            redirect_uri,
            challenge,
        };
        let discovered = provider.issuer.discovered(&self.registry.clock).await;
        let away = || NotIn::Unavailable(format!("{} cannot be asked now", provider.name));
        let discovered = discovered.ok_or_else(away)?;
        let Some(endpoint) = &discovered.authorization else {
            let why = format!("{} says not where people sign in", provider.name);
            return Err(NotIn::Precondition(why));
        };
        // Or a code of one issuer could be brought to another (RFC 9700 §4.4).
        if !discovered.says_issuer && self.providers.share_a_path(provider) {
            return Err(NotIn::Precondition(format!(
                "{} does not say who it is when it sends a browser back, and so needs a `redirect_path` of its own",
                provider.name
            )));
        }
        callable(endpoint).map_err(|why| {
            NotIn::Precondition(format!("{}: where people sign in {why}", provider.name))
        })?;
        let nonce = self.seal.nonce(attempt, self.now() + WITHIN);
        let asks = Asks {
            client: &provider.client,
            scope: &provider.scope,
            state,
            nonce: &nonce,
            step_up: step_up.then_some(&provider.acr),
        };
        let url = authorization_url(endpoint, attempt, asks);
        Ok(Begun {
            url,
            nonce,
            provider,
            says_issuer: discovered.says_issuer,
        })
    }

    /// Lets somebody in whom an issuer vouches for.
    ///
    /// # Errors
    ///
    /// Why they are not let in.
    pub(in crate::registry) async fn finish(
        &self,
        finishes: Finishes,
    ) -> Result<SignedInAs, NotIn> {
        let provider = self.provider(&finishes.issuer)?;
        let Finishes {
            redirect_uri,
            code,
            verifier,
            nonce,
            ..
        } = &finishes;
        let challenge =
            challenge(verifier).map_err(|why| NotIn::Invalid("code_verifier", why.to_owned()))?;
        if code.is_empty() || code.len() > LONGEST {
            return Err(NotIn::Invalid("code", "is empty or too long".into()));
        }
        let attempt = Attempt {
            issuer: &provider.name,
            redirect_uri,
            challenge: &challenge,
        };
        // Whoever did not begin here is no reason to ask the issuer anything.
        if !self.seal.fits(nonce, attempt, self.now()) {
            return Err(NotIn::Unproven(
                "this was not begun here, or too long ago: sign in anew".into(),
            ));
        }
        let clock = &self.registry.clock;
        let away = || NotIn::Unavailable(format!("{} cannot be asked now", provider.name));
        let discovered = provider.issuer.discovered(clock).await.ok_or_else(away)?;
        let endpoint = discovered.token.as_ref().ok_or_else(away)?;
        let busy = || NotIn::Unavailable("too many sign in at once; try again".into());
        let _place = self.asking.try_acquire().map_err(|_| busy())?;
        let form = token_request(&provider.client, code, redirect_uri, verifier);
        let secret = provider.secret.as_deref();
        let authorization = secret.map(|secret| basic(&provider.client, secret));
        let tokens = provider
            .issuer
            .tokens(endpoint, form, authorization.as_deref());
        let tokens = tokens.await.map_err(|why| match why {
            NotTaken::Unavailable | NotTaken::UnknownKey => away(),
            NotTaken::Wrong(why) => {
                NotIn::Unproven(format!("{} does not take the code: {why}", provider.name))
            }
        })?;
        let claims = provider
            .issuer
            .claims(&tokens.identity, Use::Identity, clock);
        let mut claims = claims.await.map_err(|why| match why {
            NotTaken::Unavailable => away(),
            NotTaken::UnknownKey => NotIn::Unproven("no known key signed the token".into()),
            NotTaken::Wrong(why) => NotIn::Unproven(format!("the token {why}")),
        })?;
        // The token is of this attempt, and holds for a while.
        if claims.text("nonce") != Some(nonce) {
            return Err(NotIn::Unproven("the token is of another attempt".into()));
        }
        if claims.time("exp").ok().flatten().is_none() {
            return Err(NotIn::Unproven("the token has no end".into()));
        }
        // Many issuers keep their tokens small, and say the rest when asked.
        let wanted = provider.wanted();
        let missing = wanted.iter().any(|name| claims.get(name).is_none());
        if let (true, Some(endpoint), Some(access)) =
            (missing, &discovered.userinfo, &tokens.access)
        {
            let said = provider.issuer.told_of(endpoint, access).await;
            // Without their groups nobody can say what they may do.
            let filled = said.and_then(|said| claims.fill(&wanted, &said));
            filled.map_err(|why| {
                tracing::warn!(
                    issuer = &*provider.name,
                    why,
                    "more is not told of somebody"
                );
                away()
            })?;
        }
        let arrival = provider.arrival(&claims).map_err(|why| {
            tracing::warn!(issuer = &*provider.name, why, "somebody is not let in");
            NotIn::Unproven(why)
        })?;
        let now = self.now();
        let met = Account {
            identity: arrival.identity.clone(),
            issuer: provider.issuer.name().into(),
            subject: arrival.subject,
            local: None,
            created: now,
        };
        let account = self.met(met).await?;
        let lasts = self.providers.step_up_lasts;
        let strong = arrival.stepped_up.map(|at| at.min(now) + lasts);
        self.let_in(
            &account,
            arrival.role,
            arrival.assurance,
            strong.filter(|until| now < *until),
        )
        .await
    }

    /// The account of somebody whom an issuer vouches for: whoever they were at first, whatever they
    /// are called since; and nobody else's.
    async fn met(&self, met: Account) -> Result<Account, NotIn> {
        let taken = |identity: &str| {
            NotIn::Precondition(format!(
                "`{identity}` is somebody else here; an administrator may forget them with `exeat account remove {identity}`"
            ))
        };
        // Who has a token here is not whoever an issuer calls so.
        let granted = self.guests.is_granted(&met.identity);
        let known = if granted {
            self.people.accounts_of(&met).await?
        } else {
            self.people.meet(&met).await?
        };
        let own =
            |account: &&Account| account.issuer == met.issuer && account.subject == met.subject;
        let account = known.iter().find(own).cloned();
        account.ok_or_else(|| taken(&met.identity))
    }

    /// Lets somebody in who knows their password.
    ///
    /// # Errors
    ///
    /// Why they are not let in.
    pub(in crate::registry) async fn password(
        &self,
        identity: &str,
        password: String,
    ) -> Result<SignedInAs, NotIn> {
        if !self.providers.passwords {
            let why = "nobody signs in with a password here: `exeat login`";
            return Err(NotIn::Precondition(why.into()));
        }
        let who = Principal::parse_human(identity)
            .map_err(|error| NotIn::Invalid("identity", error.to_string()))?;
        if Tries::is_too_long(&password) {
            return Err(NotIn::Invalid("password", "is longer than any".into()));
        }
        let identity = who.as_str();
        let account = self.people.account(identity).await?;
        let local = account.as_ref().and_then(|account| account.local.clone());
        let (role, kept) = local.unzip();
        let elapsed = self.registry.clock.elapsed();
        let tried = self.tries.check(identity, password, kept, elapsed);
        tried.await.map_err(|wrong| match wrong {
            Wrong::Password => {
                // Anybody may have it said as often as they like.
                tracing::debug!(identity, "a wrong password");
                NotIn::Unproven("the name or the password is wrong".into())
            }
            Wrong::Later(wait) => {
                // Rounded up: whoever waits that long has waited.
                let seconds = wait.micros().saturating_add(999_999) / 1_000_000;
                NotIn::Unproven(format!(
                    "too many wrong passwords; try again in {seconds} s"
                ))
            }
            Wrong::Busy => NotIn::Unavailable("too many sign in at once; try again".into()),
        })?;
        let role = role.and_then(|role| Role::parse(&role));
        let (Some(account), Some(role)) = (account, role) else {
            return Err(NotIn::Unproven("the name or the password is wrong".into()));
        };
        self.let_in(&account, role, "password".into(), None).await
    }

    async fn let_in(
        &self,
        account: &Account,
        role: Role,
        assurance: Box<str>,
        strong_until: Option<Timestamp>,
    ) -> Result<SignedInAs, NotIn> {
        self.guests
            .welcome(&account.identity)
            .map_err(NotIn::Unproven)?;
        let (token, digest) = token().map_err(NotIn::Failed)?;
        let now = self.now();
        let session = Session {
            token: digest,
            identity: account.identity.clone(),
            issuer: account.issuer.clone(),
            role: role.name().into(),
            assurance,
            strong_until,
            since: now,
            until: now + self.providers.session_lasts,
        };
        let _turn = self.turn.lock().await;
        if !self.people.begin(account, &session).await? {
            let why = "the account was changed in the meantime: sign in anew";
            return Err(NotIn::Precondition(why.into()));
        }
        self.guests.sessions.take_in(session.clone());
        tracing::info!(identity = &*session.identity, role = &*session.role, issuer = &*session.issuer, how = &*session.assurance, until = %session.until, "signed in");
        Ok(SignedInAs { token, session })
    }

    /// Ends a session: for whoever shows it at once, whatever becomes of the store.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(in crate::registry) async fn end(&self, token: &[u8; 32]) -> Result<(), NotIn> {
        let _turn = self.turn.lock().await;
        self.guests.sessions.keep(|session| session.token != *token);
        Ok(self.people.end(token).await?)
    }

    /// Whether somebody may be given a password.
    ///
    /// # Errors
    ///
    /// Somebody whom an issuer vouches for, or a store that fails.
    pub(in crate::registry) async fn may_put(&self, identity: &str) -> Result<(), NotIn> {
        let known = self.people.account(identity).await?;
        if known.is_some_and(|known| !known.issuer.is_empty()) {
            return Err(with_an_issuer(identity));
        }
        Ok(())
    }

    /// Makes somebody who signs in with a password, or changes them; ends their sessions.
    ///
    /// # Errors
    ///
    /// Somebody whom an issuer vouches for, or a store that fails.
    pub(in crate::registry) async fn put(&self, account: &Account) -> Result<(), NotIn> {
        let _turn = self.turn.lock().await;
        self.may_put(&account.identity).await?;
        // At once, whatever becomes of the store.
        let sessions = &self.guests.sessions;
        sessions.keep(|session| session.identity != account.identity);
        if self.people.put(account).await? {
            Ok(())
        } else {
            Err(with_an_issuer(&account.identity))
        }
    }

    /// Forgets somebody, and ends their sessions: at once, whatever becomes of the store.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(in crate::registry) async fn remove(&self, identity: &str) -> Result<(), NotIn> {
        let _turn = self.turn.lock().await;
        let sessions = &self.guests.sessions;
        sessions.keep(|session| &*session.identity != identity);
        Ok(self.people.remove(identity).await?)
    }
}

fn with_an_issuer(identity: &str) -> NotIn {
    NotIn::Precondition(format!(
        "`{identity}` signs in with an issuer; `exeat account remove {identity}` comes first"
    ))
}

/// Somebody who signs in with a password.
///
/// # Errors
///
/// What is wrong with them.
pub(in crate::registry) fn local(
    identity: &str,
    role: Role,
    password: &str,
    now: Timestamp,
) -> Result<Account, NotIn> {
    let who = Principal::parse_human(identity)
        .map_err(|error| NotIn::Invalid("identity", error.to_string()))?;
    let hash = hashed(password).map_err(|why| NotIn::Invalid("password", why))?;
    Ok(Account {
        identity: who.as_str().into(),
        issuer: "".into(),
        subject: who.as_str().into(),
        local: Some((role.name().into(), hash)),
        created: now,
    })
}
