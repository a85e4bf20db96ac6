//! Who calls: a certificate or a token, known to the registry, with a role.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either, Ready, ready};
use http::{Extensions, HeaderMap, Request, Response};
use tonic::{
    Status,
    body::Body,
    server::NamedService,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::Service;

use crate::{
    domain::{Assurance, Kind, Name, Principal, Target, Timestamp},
    engine::attendance::Start,
    wire::{Fault, identity::spiffe_id, signed::sha256, sync::start_of},
};

use super::{
    core::Registry,
    role::{EXPELLED, Role, may_call},
    scope::Scope,
    sign_in::Sessions,
    store::{Access, StoreError},
};

/// Who calls, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// A SPIFFE id, or the name of who has the token.
    pub identity: Box<str>,
    /// What they may do.
    pub role: Role,
    /// Of a sidecar: what it may hold.
    pub scope: Arc<Scope>,
    /// Of a sidecar: which of its starts, if it says so.
    pub start: Option<Start>,
    /// Of somebody who signed in: how.
    pub signed_in: Option<Arc<SignedIn>>,
}

/// How somebody signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignedIn {
    /// What their issuer said of it, or how else.
    pub said: Box<str>,
    /// Until when that counts as a step-up.
    pub strong_until: Option<Timestamp>,
    /// Their session, by the digest of what they show.
    pub session: [u8; 32],
}

impl Caller {
    /// How they had signed in, if they had.
    pub(super) fn assurance(&self, now: Timestamp) -> Option<Assurance> {
        let signed_in = self.signed_in.as_ref()?;
        Some(Assurance {
            said: signed_in.said.clone(),
            stepped_up: signed_in.strong_until.is_some_and(|until| now < until),
        })
    }
}

/// Everybody who is let in.
#[derive(Debug)]
pub(super) struct Guests {
    registry: Arc<Registry>,
    known: RwLock<Known>,
    /// One change of who is let in at a time, from what is kept to what is in force.
    pub changing: tokio::sync::Mutex<()>,
    /// Those who signed in.
    pub sessions: Sessions,
}

#[derive(Debug, Default)]
struct Known {
    identities: HashMap<Box<str>, Caller>,
    tokens: HashMap<[u8; 32], Caller>,
    /// Both, by identity.
    names: HashMap<Box<str>, Caller>,
    /// How many of them are sidecars: every stream asks.
    sidecars: usize,
    /// Those who are shut out.
    expelled: HashSet<Box<str>>,
}

impl Guests {
    /// Nobody yet.
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self {
            registry: Arc::clone(registry),
            known: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
            sessions: Sessions::default(),
        }
    }

    /// Reads them anew.
    ///
    /// # Errors
    ///
    /// A role or scope that is none.
    pub(super) fn read(&self, access: &[Access]) -> Result<(), StoreError> {
        let mut known = Known::default();
        for Access {
            identity,
            role,
            scope,
            token,
        } in access
        {
            if &**role == EXPELLED {
                known.expelled.insert(identity.clone());
                continue;
            }
            let wrong = || StoreError::Failed(format!("`{identity}` has an unknown role or scope"));
            let caller = Caller {
                identity: identity.clone(),
                role: Role::parse(role).ok_or_else(wrong)?,
                scope: Arc::new(Scope::parse(scope.split_whitespace()).map_err(|_| wrong())?),
                start: None,
                signed_in: None,
            };
            known.names.insert(identity.clone(), caller.clone());
            match token {
                Some(token) => drop(known.tokens.insert(*token, caller)),
                None => drop(known.identities.insert(identity.clone(), caller)),
            }
        }
        let callers = known.names.values();
        known.sidecars = callers
            .filter(|caller| caller.role == Role::Sidecar)
            .count();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        self.registry.turns_over();
        Ok(())
    }

    /// How many sidecars are let in.
    pub(super) fn sidecars(&self) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.sidecars
    }

    /// What a sidecar may hold now; nothing if it is not let in.
    pub(super) fn scope_of(&self, identity: &str) -> Option<Arc<Scope>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let caller = known.names.get(identity)?;
        (caller.role == Role::Sidecar).then(|| Arc::clone(&caller.scope))
    }

    /// What sidecars may hold.
    pub(super) fn scopes(&self) -> BTreeSet<Scope> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let sidecars = known.names.values().filter(|it| it.role == Role::Sidecar);
        sidecars.map(|it| (*it.scope).clone()).collect()
    }

    /// Whether somebody is known by a token or a certificate.
    pub(super) fn is_granted(&self, identity: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.names.contains_key(identity)
    }

    /// Whether whoever is called so may come in at all: whoever was shut out or revoked may not, nor
    /// who is with us no more.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(super) fn welcome(&self, identity: &str) -> Result<(), String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.expelled.contains(identity) {
            return Err(format!("`{identity}` is shut out"));
        }
        // Sidecars are nobody's principal.
        let Ok(who) = Principal::parse(identity) else {
            return Ok(());
        };
        let view = self.registry.view();
        let snapshot = &view.snapshot;
        // Also who was taken out of the directory; who never was in it has not left.
        let gone = view
            .objects
            .get(&Name::new(Kind::Person, identity))
            .is_some_and(|person| person.manifest.is_none());
        if gone || snapshot.directory().has_left(&who) {
            return Err(format!("`{identity}` is no active person of the directory"));
        }
        if snapshot.removed().revokes(&Target::Principal(who)) {
            return Err(format!("`{identity}` was revoked"));
        }
        Ok(())
    }

    /// Who makes a request, and may at all.
    fn caller(&self, headers: &HeaderMap, connection: &Extensions) -> Result<Caller, Fault> {
        let mut caller = self.shown(headers, connection)?;
        self.welcome(&caller.identity)
            .map_err(Fault::Unauthenticated)?;
        caller.start = start_of(headers).map_err(Fault::Invalid)?;
        Ok(caller)
    }

    /// Who a request shows to have made it. Tokens are looked up by their digest: nothing can be learnt from how
    /// long that takes.
    fn shown(&self, headers: &HeaderMap, connection: &Extensions) -> Result<Caller, Fault> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let token = headers
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if let Some(token) = token {
            let digest = sha256(token.as_bytes());
            let granted = known.tokens.get(&digest).cloned();
            let now = self.registry.clock.now().latest;
            let caller = granted.or_else(|| self.sessions.caller(&digest, now));
            let unknown =
                || Fault::Unauthenticated("the token is not known, or its session is over".into());
            return caller.ok_or_else(unknown);
        }
        let id = connection
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .and_then(TlsConnectInfo::peer_certs)
            .and_then(|certificates| spiffe_id(certificates.first()?.as_ref()));
        let Some(id) = id else {
            return Err(Fault::Unauthenticated(
                "present a client certificate with a SPIFFE id, or a token as `authorization: Bearer …`"
                    .into(),
            ));
        };
        known
            .identities
            .get(id.as_str())
            .cloned()
            .ok_or_else(|| Fault::Unauthenticated(format!("`{id}` is not known here")))
    }
}

/// Lets a call through to its service if its caller may make it; nothing gets past.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    guests: Arc<Guests>,
}

impl<S> Guarded<S> {
    /// Guards a service.
    pub(super) fn new(inner: S, guests: &Arc<Guests>) -> Self {
        Self {
            inner,
            guests: Arc::clone(guests),
        }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<'static, Result<Response<Body>, Infallible>>,
        >,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        match may(&self.guests, request.headers(), request.extensions(), path) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(fault) => Either::Right(ready(Ok(Status::from(fault).into_http()))),
        }
    }
}

/// Who makes a call, if they may.
pub(super) fn may(
    guests: &Guests,
    headers: &HeaderMap,
    connection: &Extensions,
    path: &str,
) -> Result<Caller, Fault> {
    let caller = guests.caller(headers, connection)?;
    let roles = may_call(path);
    if roles.contains(&caller.role) {
        return Ok(caller);
    }
    let call = path.rsplit('/').next().unwrap_or(path);
    let named: Vec<_> = roles.iter().map(|role| role.name()).collect();
    Err(Fault::Forbidden(format!(
        "{call} needs role {}, and `{}` has role {}",
        if named.is_empty() {
            "nobody has".to_owned()
        } else {
            named.join(" or ")
        },
        caller.identity,
        caller.role
    )))
}
