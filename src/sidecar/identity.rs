//! Who is asking. A subject's id is believed only from where it cannot be made up.

use std::sync::Arc;

use tonic::{
    Extensions,
    transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo},
};

use crate::{
    config::{Identity, Proxy},
    domain::{Invalid, SubjectId},
    wire::{
        Fault,
        identity::spiffe_id,
        json::proto,
        principal::{Acts, Principal},
        v1,
    },
};

use super::tokens::Borne;

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) subject: SubjectId,
    /// Whether somebody other than the caller says so.
    pub(super) verified: bool,
    /// Who acts with it, or for whom.
    pub(super) acts: Option<Arc<Acts>>,
}

impl Caller {
    /// What is asked, with what a token says of whoever acts: a caller's own word for it does not
    /// stand beside it.
    pub(super) fn says(&self, mut request: v1::CheckRequest) -> v1::CheckRequest {
        let Some(acts) = &self.acts else {
            return request;
        };
        let context = &mut request.context.get_or_insert_default().fields;
        for name in ["actor", "on_behalf_of"] {
            context.remove(name);
        }
        let mut say = |name: &str, said: &str| {
            context.insert(name.to_owned(), proto(said.into()));
        };
        match &**acts {
            Acts::For(whom) => {
                say("actor_kind", "AI_AGENT");
                say("on_behalf_of", whom);
            }
            Acts::Through(who, kind) => {
                say("actor_kind", kind);
                say("actor", who);
            }
        }
        request
    }
}

/// The caller of a request on a connection; `claimed` is who it says it is, or empty.
pub(super) fn caller(
    identity: &Identity,
    connection: &Extensions,
    claimed: &str,
) -> Result<Caller, Fault> {
    let mut acts = None;
    let subject = match identity {
        Identity::Bound(subject) => subject.clone(),
        Identity::Peers(peers) => {
            let uid = connection
                .get::<UdsConnectInfo>()
                .and_then(|info| info.peer_cred)
                .map(|peer| peer.uid());
            let Some(uid) = uid else {
                return Err(Fault::Unauthenticated(
                    "callers are known by their user id; use the Unix socket".into(),
                ));
            };
            let known = peers.iter().find(|(known, _)| *known == uid);
            known
                .map(|(_, subject)| subject.clone())
                .ok_or_else(|| Fault::Unauthenticated(format!("user id {uid} is no known peer")))?
        }
        Identity::Spiffe(domain) => {
            let id = connection
                .get::<TlsConnectInfo<TcpConnectInfo>>()
                .and_then(TlsConnectInfo::peer_certs)
                .and_then(|certificates| spiffe_id(certificates.first()?.as_ref()))
                .ok_or_else(|| {
                    Fault::Unauthenticated("present a client certificate with one SPIFFE id".into())
                })?;
            let inside = id
                .strip_prefix("spiffe://")
                .and_then(|rest| rest.split_once('/'))
                .is_some_and(|(found, _)| found == domain);
            if !inside {
                return Err(Fault::Unauthenticated(format!(
                    "`{id}` is not of trust domain `{domain}`"
                )));
            }
            SubjectId::parse(&id).map_err(|error| Fault::Unauthenticated(error.to_string()))?
        }
        Identity::Tokens(_) => {
            let bearer = match connection.get::<Borne>() {
                Some(Borne(Ok(bearer))) => bearer,
                Some(Borne(Err(why))) => return Err(Fault::Unauthenticated(why.to_string())),
                None => return Err(Fault::Unauthenticated("bring a token".into())),
            };
            acts.clone_from(&bearer.acts);
            bearer.subject.clone()
        }
        Identity::Asserted => {
            let subject = SubjectId::parse(claimed)
                .map_err(|error| Fault::Invalid(error.under("subject")))?;
            return Ok(Caller {
                subject,
                verified: false,
                acts: None,
            });
        }
    };
    if claimed.is_empty() || claimed == subject.as_str() {
        return Ok(Caller {
            subject,
            verified: true,
            acts,
        });
    }
    Err(Fault::Forbidden(format!(
        "this caller is `{subject}` and may not ask for `{}`",
        shown(claimed)
    )))
}

/// Whether whoever is at the other end may speak for others.
fn is_proxy(proxies: &[Proxy], connection: &Extensions) -> bool {
    let uid = connection
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred)
        .map(|peer| peer.uid());
    let id = || {
        let certificates = connection
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .and_then(TlsConnectInfo::peer_certs)?;
        spiffe_id(certificates.first()?.as_ref())
    };
    proxies.iter().any(|proxy| match proxy {
        Proxy::Uid(known) => uid == Some(*known),
        Proxy::Spiffe(known) => id().is_some_and(|id| id == **known),
    })
}

/// Whether whoever is at the other end may ask anything here at all.
pub(super) fn admitted(
    identity: &Identity,
    proxies: &[Proxy],
    connection: &Extensions,
) -> Result<(), Fault> {
    match identity {
        Identity::Bound(_) | Identity::Asserted => Ok(()),
        Identity::Peers(_) | Identity::Spiffe(_) | Identity::Tokens(_)
            if is_proxy(proxies, connection) =>
        {
            Ok(())
        }
        Identity::Peers(_) | Identity::Spiffe(_) | Identity::Tokens(_) => {
            caller(identity, connection, "").map(drop)
        }
    }
}

/// Whether whoever is at the other end is believed when it speaks for others.
pub(super) fn speaks_for_others(
    identity: &Identity,
    proxies: &[Proxy],
    connection: &Extensions,
) -> bool {
    match identity {
        Identity::Bound(_) => false,
        Identity::Asserted => true,
        Identity::Peers(_) | Identity::Spiffe(_) | Identity::Tokens(_) => {
            is_proxy(proxies, connection)
        }
    }
}

/// Who is behind a call that a proxy asks about, which says that it verified `principal`.
///
/// A sidecar that stands next to one subject answers for that alone. Else the proxy has to be one
/// that is believed, and whoever is not asks for itself.
pub(super) fn behind(
    identity: &Identity,
    proxies: &[Proxy],
    connection: &Extensions,
    principal: Option<Principal>,
) -> Result<Caller, Fault> {
    let shown_by_certificate = matches!(principal, Some(Principal::Certificate(_)));
    let (principal, acts) = match principal {
        None => (None, None),
        Some(Principal::Named(id) | Principal::Certificate(id)) => (Some(id), None),
        Some(Principal::Claimed(subject, acts)) => (Some(subject.as_str().to_owned()), acts),
        Some(Principal::Unclear(why)) => return Err(Fault::Unauthenticated(why)),
    };
    if !speaks_for_others(identity, proxies, connection) {
        let claimed = principal.as_deref().unwrap_or_default();
        let who = caller(identity, connection, claimed)?;
        // Who acts beside it is the caller's own word, where its token does not say.
        return Ok(Caller {
            acts: who.acts.or(acts),
            ..who
        });
    }
    let principal = principal.ok_or_else(|| {
        Fault::Unauthenticated(
            "the proxy names nobody: it needs a client certificate or a verified token".into(),
        )
    })?;
    // Of certificates those that name a workload, and where there is a trust domain those inside it.
    let inside = match identity {
        Identity::Spiffe(domain) => principal
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(found, _)| found == domain),
        Identity::Peers(_) | Identity::Tokens(_) => principal.starts_with("spiffe://"),
        Identity::Bound(_) | Identity::Asserted => true,
    };
    if shown_by_certificate && !inside {
        return Err(Fault::Unauthenticated(format!(
            "`{}` is no SPIFFE id that is believed here",
            shown(&principal)
        )));
    }
    let subject = SubjectId::parse(&principal)
        .map_err(|error| Fault::Unauthenticated(format!("of who is behind it: {error}")))?;
    Ok(Caller {
        subject,
        verified: *identity != Identity::Asserted,
        acts,
    })
}

fn shown(text: &str) -> String {
    text.chars().take(200).filter(|c| !c.is_control()).collect()
}

/// An asserted subject is still a well-formed one.
impl From<Invalid> for Fault {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_sidecar_answers_for_its_subject_alone() {
        let subject = SubjectId::parse("agent-a").unwrap();
        let bound = Identity::Bound(subject.clone());
        let none = Extensions::new();
        assert_eq!(
            caller(&bound, &none, ""),
            Ok(Caller {
                subject: subject.clone(),
                verified: true,
                acts: None
            })
        );
        assert_eq!(
            caller(&bound, &none, "agent-a"),
            Ok(Caller {
                subject,
                verified: true,
                acts: None
            })
        );
        assert!(matches!(
            caller(&bound, &none, "agent-b"),
            Err(Fault::Forbidden(_))
        ));
        assert!(matches!(
            caller(&Identity::Peers(vec![]), &none, "agent-a"),
            Err(Fault::Unauthenticated(_))
        ));
        assert!(matches!(
            caller(&Identity::Spiffe("acme".into()), &none, "agent-a"),
            Err(Fault::Unauthenticated(_))
        ));
        assert!(
            !caller(&Identity::Asserted, &none, "agent-b")
                .unwrap()
                .verified
        );
        assert!(caller(&Identity::Asserted, &none, "").is_err());
    }
}
