//! `exeat.v1.SignInService` and `exeat.v1.SessionService`.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use crate::{
    domain::Invalid,
    registry::{
        core::Error,
        sign_in::{Begins, Doors, Finishes, NotIn, SignedInAs, local, role_of_person},
        store::{Account, Session},
    },
    wire::{Fault, Received, sync::stamp, v1},
};

use super::{opened, short};

/// Answers people who are not known yet.
#[derive(Clone, Debug)]
pub(in crate::registry) struct SignInCalls(pub(in crate::registry) Arc<Doors>);

/// Answers for who is signed in, and who may.
#[derive(Clone, Debug)]
pub(in crate::registry) struct SessionCalls(pub(in crate::registry) Arc<Doors>);

impl From<NotIn> for Fault {
    fn from(why: NotIn) -> Self {
        match why {
            NotIn::Invalid(field, why) => Self::Invalid(Invalid::new(field, why, "")),
            NotIn::Unproven(why) => Self::Unauthenticated(why),
            NotIn::Precondition(why) => Self::Precondition(why),
            NotIn::Unavailable(why) => Self::Unavailable(why),
            NotIn::Failed(error) => error.into(),
        }
    }
}

fn session_message(session: &Session) -> v1::Session {
    v1::Session {
        identity: session.identity.to_string(),
        role: session.role.to_string(),
        issuer: session.issuer.to_string(),
        assurance: session.assurance.to_string(),
        stepped_up_until: session.strong_until.map(stamp),
        signed_in_time: Some(stamp(session.since)),
        expire_time: Some(stamp(session.until)),
    }
}

fn account_message(account: &Account) -> v1::Account {
    v1::Account {
        identity: account.identity.to_string(),
        role: account
            .local
            .as_ref()
            .map_or(String::new(), |(role, _)| role.to_string()),
        issuer: account.issuer.to_string(),
        subject: account.subject.to_string(),
        create_time: Some(stamp(account.created)),
    }
}

fn signed_in(as_whom: SignedInAs) -> v1::SignedIn {
    v1::SignedIn {
        token: as_whom.token,
        session: Some(session_message(&as_whom.session)),
    }
}

#[tonic::async_trait]
impl v1::sign_in_service_server::SignInService for SignInCalls {
    async fn list_ways(
        &self,
        request: Request<Received<v1::ListWaysRequest>>,
    ) -> Result<Response<v1::ListWaysResponse>, Status> {
        request.into_inner().message.map_err(Fault::from)?;
        let providers = &self.0.providers;
        let passwords = self.0.people.with_passwords().await.map_err(NotIn::from);
        let passwords = passwords.map_err(Fault::from)?;
        let issuers = providers.all.iter().map(|provider| v1::SignInIssuer {
            name: provider.name.to_string(),
            issuer: provider.issuer.name().to_owned(),
            redirect_path: provider.redirect_path.to_string(),
        });
        Ok(Response::new(v1::ListWaysResponse {
            issuers: issuers.collect(),
            passwords: providers.passwords && passwords,
        }))
    }

    async fn begin_sign_in(
        &self,
        request: Request<Received<v1::BeginSignInRequest>>,
    ) -> Result<Response<v1::BeginSignInResponse>, Status> {
        let v1::BeginSignInRequest {
            issuer,
            redirect_uri,
            code_challenge,
            state,
            step_up,
        } = request.into_inner().message.map_err(Fault::from)?;
        let begins = Begins {
            issuer,
            redirect_uri,
            challenge: code_challenge,
            state,
            step_up,
        };
        let begun = self.0.begin(begins).await.map_err(Fault::from)?;
        Ok(Response::new(v1::BeginSignInResponse {
            authorization_url: begun.url,
            nonce: begun.nonce,
            issuer: begun.provider.name.to_string(),
            issuer_url: begun.provider.issuer.name().to_owned(),
            says_issuer: begun.says_issuer,
        }))
    }

    async fn finish_sign_in(
        &self,
        request: Request<Received<v1::FinishSignInRequest>>,
    ) -> Result<Response<v1::FinishSignInResponse>, Status> {
        let v1::FinishSignInRequest {
            issuer,
            redirect_uri,
            code,
            code_verifier,
            nonce,
        } = request.into_inner().message.map_err(Fault::from)?;
        let finishes = Finishes {
            issuer,
            redirect_uri,
            code,
            verifier: code_verifier,
            nonce,
        };
        let as_whom = self.0.finish(finishes).await.map_err(Fault::from)?;
        Ok(Response::new(v1::FinishSignInResponse {
            signed_in: Some(signed_in(as_whom)),
        }))
    }

    async fn sign_in_with_password(
        &self,
        request: Request<Received<v1::SignInWithPasswordRequest>>,
    ) -> Result<Response<v1::SignInWithPasswordResponse>, Status> {
        let v1::SignInWithPasswordRequest { identity, password } =
            request.into_inner().message.map_err(Fault::from)?;
        let as_whom = self.0.password(&identity, password).await;
        Ok(Response::new(v1::SignInWithPasswordResponse {
            signed_in: Some(signed_in(as_whom.map_err(Fault::from)?)),
        }))
    }
}

impl SessionCalls {
    async fn put(
        &self,
        request: Request<Received<v1::PutAccountRequest>>,
    ) -> Result<v1::Account, Fault> {
        let (caller, message) = opened(request)?;
        let v1::PutAccountRequest {
            identity,
            role,
            password,
        } = message;
        let identity = short("identity", identity)?.into_string();
        let registry = &self.0.registry;
        let role =
            role_of_person(&role).map_err(|why| Fault::Invalid(Invalid::new("role", why, "")))?;
        let now = registry.clock.now().latest;
        // Hashing takes a while, and nobody else's calls wait for it.
        let made = spawn_blocking(move || local(&identity, role, &password, now)).await;
        let account =
            made.map_err(|_| Fault::Unavailable("the password cannot be kept".into()))??;
        self.0.may_put(&account.identity).await?;
        let action = format!("account {} {role}", account.identity);
        registry.note(&caller.identity, &action).await?;
        self.0.put(&account).await?;
        tracing::info!(
            identity = &*account.identity,
            role = role.name(),
            by = &*caller.identity,
            "an account was made or changed"
        );
        Ok(account_message(&account))
    }

    async fn removed(
        &self,
        request: Request<Received<v1::RemoveAccountRequest>>,
    ) -> Result<v1::RemoveAccountResponse, Fault> {
        let (caller, v1::RemoveAccountRequest { identity }) = opened(request)?;
        if *identity == *caller.identity {
            return Err(Fault::Precondition("nobody forgets themselves".into()));
        }
        let known = self.0.people.account(&identity).await;
        let known = known.map_err(NotIn::from)?.is_some();
        let granted = identity.starts_with("user:") && self.0.guests.is_granted(&identity);
        if !known && !granted {
            return Err(Fault::NotFound(format!("there is no account `{identity}`")));
        }
        let _turn = self.0.guests.changing.lock().await;
        let action = format!("account {identity} removed");
        self.0.registry.note(&caller.identity, &action).await?;
        self.0.remove(&identity).await?;
        let access = self.0.registry.store.access().await.map_err(Error::Store)?;
        self.0.guests.read(&access).map_err(Error::Store)?;
        tracing::info!(identity, by = &*caller.identity, "an account was removed");
        Ok(v1::RemoveAccountResponse {})
    }
}

#[tonic::async_trait]
impl v1::session_service_server::SessionService for SessionCalls {
    async fn get_session(
        &self,
        request: Request<Received<v1::GetSessionRequest>>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let (caller, v1::GetSessionRequest {}) = opened(request)?;
        let known = caller.signed_in.as_ref();
        let session = known.and_then(|known| self.0.guests.sessions.get(&known.session));
        let session = session.map_or_else(
            || v1::Session {
                identity: caller.identity.to_string(),
                role: caller.role.to_string(),
                ..v1::Session::default()
            },
            |session| session_message(&session),
        );
        Ok(Response::new(v1::GetSessionResponse {
            session: Some(session),
        }))
    }

    async fn end_session(
        &self,
        request: Request<Received<v1::EndSessionRequest>>,
    ) -> Result<Response<v1::EndSessionResponse>, Status> {
        let (caller, v1::EndSessionRequest {}) = opened(request)?;
        let Some(known) = &caller.signed_in else {
            let why = format!(
                "`{}` did not sign in, and shows a certificate or a token that was granted; `exeat access expel` shuts them out",
                caller.identity
            );
            return Err(Fault::Precondition(why).into());
        };
        self.0.end(&known.session).await.map_err(Fault::from)?;
        Ok(Response::new(v1::EndSessionResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<Received<v1::ListSessionsRequest>>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let (_, v1::ListSessionsRequest {}) = opened(request)?;
        let now = self.0.registry.clock.now().latest;
        let sessions = self.0.guests.sessions.all(now);
        Ok(Response::new(v1::ListSessionsResponse {
            sessions: sessions.iter().map(session_message).collect(),
        }))
    }

    async fn put_account(
        &self,
        request: Request<Received<v1::PutAccountRequest>>,
    ) -> Result<Response<v1::PutAccountResponse>, Status> {
        Ok(Response::new(v1::PutAccountResponse {
            account: Some(self.put(request).await?),
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<Received<v1::ListAccountsRequest>>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        let (_, v1::ListAccountsRequest {}) = opened(request)?;
        let accounts = self.0.people.accounts().await.map_err(NotIn::from);
        let accounts = accounts.map_err(Fault::from)?;
        Ok(Response::new(v1::ListAccountsResponse {
            accounts: accounts.iter().map(account_message).collect(),
        }))
    }

    async fn remove_account(
        &self,
        request: Request<Received<v1::RemoveAccountRequest>>,
    ) -> Result<Response<v1::RemoveAccountResponse>, Status> {
        Ok(Response::new(self.removed(request).await?))
    }
}
