//! `exeat.v1.FleetService`: the sidecars, who is let in, and how things stand.

use std::{collections::BTreeMap, sync::Arc};

use tonic::{Request, Response, Status};

use crate::{
    domain::{Act, Head, Invalid, Span, Timestamp},
    engine::{
        attendance::longest_lease,
        bound,
        rounds::{covering, is_about_a_control},
    },
    registry::{
        attendants::Attendants,
        authn::Guests,
        core::{Error, Registry},
        ledger::SHUT_OUT,
        role::{EXPELLED, Role},
        scope::Scope,
        store::Access,
        view::View,
    },
    wire::{
        Fault, Received,
        signed::{hex, random, sha256},
        sync::{era_message, head_message, stamp},
        v1,
    },
};

use super::{opened, short};

/// The controls that fail for somebody uncovered, those for most first.
fn failing(view: &View, now: Timestamp) -> Vec<v1::FailingControl> {
    let mut controls: BTreeMap<&str, (u64, Timestamp)> = BTreeMap::new();
    let open = view.findings.values().filter(|finding| {
        let fails = finding.satisfied.is_none() && !is_about_a_control(&finding.control);
        fails && covering(&finding.control, &finding.subject, &view.snapshot, now).is_none()
    });
    for finding in open {
        let first = (0, finding.first_seen);
        let known = controls.entry(finding.control.as_str()).or_insert(first);
        known.0 = known.0.saturating_add(1);
        known.1 = known.1.min(finding.first_seen);
    }
    let mut controls: Vec<_> = controls.into_iter().collect();
    controls.sort_by_key(|(control, (count, _))| (std::cmp::Reverse(*count), *control));
    let each = controls.into_iter();
    each.map(|(control, (count, since))| v1::FailingControl {
        control_id: control.to_owned(),
        count,
        since: Some(stamp(since)),
    })
    .collect()
}

/// Answers for the fleet.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(in crate::registry) registry: Arc<Registry>,
    pub(in crate::registry) attendants: Arc<Attendants>,
    pub(in crate::registry) guests: Arc<Guests>,
}

fn role(of: v1::Role) -> Result<Role, Fault> {
    Ok(match of {
        v1::Role::Admin => Role::Admin,
        v1::Role::Author => Role::Author,
        v1::Role::Approver => Role::Approver,
        v1::Role::Viewer => Role::Viewer,
        v1::Role::Integration => Role::Integration,
        v1::Role::Sidecar => Role::Sidecar,
        v1::Role::Unspecified => {
            let invalid = Invalid::new("role", "is missing", "name one");
            return Err(Fault::Invalid(invalid));
        }
    })
}

fn role_message(role: Role) -> v1::Role {
    match role {
        Role::Admin => v1::Role::Admin,
        Role::Author => v1::Role::Author,
        Role::Approver => v1::Role::Approver,
        Role::Viewer => v1::Role::Viewer,
        Role::Integration => v1::Role::Integration,
        Role::Sidecar => v1::Role::Sidecar,
    }
}

/// A new token and what is kept of it.
///
/// # Errors
///
/// A system without random numbers.
pub(in crate::registry) fn token() -> Result<(String, [u8; 32]), Error> {
    let token = format!("exeat_{}", hex(&random::<32>().map_err(Error::Unfit)?));
    let digest = sha256(token.as_bytes());
    Ok((token, digest))
}

impl Fleet {
    fn sidecars(&self) -> Vec<v1::Sidecar> {
        let view = self.registry.view();
        let known = self.attendants.known().clone();
        let attendance = self.registry.attendance().clone();
        let now = self.registry.clock.now().latest;
        let longest = bound(view.longest_lease(now));
        // Who has yet to hear of something, and has not been heard since the start.
        let owing = self.owing().into_iter();
        let unheard = owing.filter(|(name, _)| !known.contains_key(name));
        let unheard = unheard.map(|(name, until)| v1::Sidecar {
            scope: self
                .guests
                .scope_of(&name)
                .map_or_else(String::new, |scope| scope.to_string()),
            acknowledged: Some(head_message(Head {
                revision: 0,
                sequence: attendance.of(&name).map_or(0, |(_, drained)| drained),
            })),
            behind: view.head.revision,
            lease_until: (until != Span::MAX).then(|| stamp(self.registry.at(until))),
            name: name.into(),
            ..v1::Sidecar::default()
        });
        let heard = known.iter().map(|(name, attendant)| {
            let answered = attendance.of(name).map(|(answered, _)| answered);
            let until =
                answered.map(|at| Span::from_micros(at.micros().saturating_add(longest.micros())));
            let head = view.head.revision;
            v1::Sidecar {
                name: name.to_string(),
                connected: !attendant.connection.is_cancelled(),
                scope: attendant.scope.clone(),
                acknowledged: Some(head_message(attendant.acknowledged)),
                behind: head.saturating_sub(attendant.acknowledged.revision),
                last_answered: answered.map(|at| stamp(self.registry.at(at))),
                lease_until: until.map(|at| stamp(self.registry.at(at))),
                version: attendant.version.clone(),
                nacks: attendant.nacks.clone(),
            }
        });
        heard.chain(unheard).collect()
    }

    /// Who may go on with something that was taken back, and until when. Who is shut out is waited for
    /// as long as any lease.
    fn owing(&self) -> BTreeMap<Box<str>, Span> {
        let elapsed = self.registry.clock.elapsed();
        let mut owing = self.registry.owing();
        let may = |name: &str| {
            let answered = self.registry.attendance().of(name).map(|(at, _)| at);
            let since = elapsed.saturating_sub(answered.unwrap_or(Span::ZERO));
            since < bound(longest_lease())
        };
        owing.retain(|name, _| self.guests.scope_of(name).is_some() || may(name));
        owing
    }

    fn status(&self) -> v1::GetStatusResponse {
        let view = self.registry.view();
        let sidecars = self.sidecars();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut objects: BTreeMap<String, u64> = BTreeMap::new();
        for stored in view.objects.values() {
            let many = objects
                .entry(stored.name.kind.name().to_owned())
                .or_default();
            *many = many.saturating_add(u64::from(stored.manifest.is_some()));
        }
        let mut frozen: Vec<_> = view
            .removals
            .iter()
            .filter(|removal| removal.act == Act::Freeze)
            .map(|removal| &removal.target)
            .filter(|target| {
                let id = crate::domain::SubjectId::parse(target.id());
                id.is_ok_and(|id| view.snapshot.removed().freezes(&id))
            })
            .collect();
        frozen.sort();
        frozen.dedup();
        v1::GetStatusResponse {
            era: Some(era_message(view.beginning.era)),
            head: Some(head_message(view.head)),
            key_pin: self.registry.pin().to_string(),
            sidecars_connected: count(sidecars.iter().filter(|s| s.connected).count()),
            sidecars_outstanding: count(self.owing().len()),
            read_only: self.registry.closed().unwrap_or_default().into_string(),
            objects,
            frozen_subjects: u64::from(count(frozen.len())),
            time: Some(stamp(self.registry.clock.now().latest)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            failing: failing(&view, self.registry.clock.now().latest),
            ledger_size: view.ledger.size(),
            ledger_root: view.ledger.root().to_vec(),
        }
    }

    async fn granted(
        &self,
        request: Request<Received<v1::GrantRequest>>,
    ) -> Result<v1::GrantResponse, Fault> {
        let (caller, message) = opened(request)?;
        let wanted = message.role();
        let v1::GrantRequest {
            identity, scope, ..
        } = message;
        let printable = !identity.is_empty()
            && identity.len() <= 512
            && !identity
                .chars()
                .any(|c| c.is_whitespace() || c.is_control());
        if !printable {
            let fix = "name a SPIFFE id, or who is to have a token, such as user:dana";
            return Err(Fault::Invalid(Invalid::new("identity", "is no name", fix)));
        }
        let identity = short("identity", identity)?.into_string();
        let role = role(wanted)?;
        let parsed = Scope::parse(&scope).map_err(Fault::Invalid)?;
        if (role == Role::Sidecar) == parsed.is_empty() {
            let fix = "give sidecars `*`, `subject:ID` or `domain:ID`, also after `demand:`, and nobody else";
            return Err(Fault::Invalid(Invalid::new(
                "scope",
                "does not fit the role",
                fix,
            )));
        }
        let (token, digest) = if identity.starts_with("spiffe://") {
            (String::new(), None)
        } else {
            let (token, digest) = token()?;
            (token, Some(digest))
        };
        let access = Access {
            identity: identity.as_str().into(),
            role: role.name().into(),
            scope: parsed.to_string().into(),
            token: digest,
        };
        let _turn = self.guests.changing.lock().await;
        let store = &self.registry.store;
        let known = store.access().await.map_err(Error::Store)?;
        let followed = known.iter().any(|known| known.bars(&access));
        let barred = || {
            Fault::Precondition(format!(
                "`{identity}` is or was a sidecar, which may still rest on what it was answered; let in {role} under another name"
            ))
        };
        if followed {
            return Err(barred());
        }
        self.registry
            .note(
                &caller.identity,
                format!("let in {identity} as {role} {parsed}").trim_end(),
            )
            .await?;
        if !store.grant(&access).await.map_err(Error::Store)? {
            return Err(barred());
        }
        self.reread().await?;
        // Who is new has no stream.
        if known.iter().any(|known| known.identity == access.identity) {
            self.registry.look_again(&self.guests.scopes()).await;
        }
        tracing::info!(by = %caller.identity, identity, %role, scope = %parsed, "let in");
        Ok(v1::GrantResponse { token })
    }

    async fn expelled(
        &self,
        request: Request<Received<v1::ExpelRequest>>,
    ) -> Result<v1::ExpelResponse, Fault> {
        let (caller, v1::ExpelRequest { identity }) = opened(request)?;
        if *identity == *caller.identity {
            return Err(Fault::Precondition("nobody shuts themselves out".into()));
        }
        let _turn = self.guests.changing.lock().await;
        self.registry
            .note(&caller.identity, &format!("{SHUT_OUT}{identity}"))
            .await?;
        let store = &self.registry.store;
        if !store.expel(&identity).await.map_err(Error::Store)? {
            return Err(Fault::NotFound(format!("`{identity}` is not let in")));
        }
        let sessions = &self.guests.sessions;
        sessions.keep(|session| *session.identity != *identity);
        self.reread().await?;
        // What it is connected by ends as well.
        self.registry.look_again(&self.guests.scopes()).await;
        tracing::info!(by = %caller.identity, identity, "shut out");
        Ok(v1::ExpelResponse {})
    }

    async fn reread(&self) -> Result<(), Fault> {
        let access = self.registry.store.access().await.map_err(Error::Store)?;
        self.guests
            .read(&access)
            .map_err(|error| Error::Store(error).into())
    }

    async fn grants(&self) -> Result<v1::ListGrantsResponse, Fault> {
        let access = self.registry.store.access().await.map_err(Error::Store)?;
        let access = access.iter().filter(|access| &*access.role != EXPELLED);
        let grants = access.map(|access| v1::AccessGrant {
            identity: access.identity.to_string(),
            role: Role::parse(&access.role)
                .map_or(v1::Role::Unspecified, role_message)
                .into(),
            scope: access.scope.split_whitespace().map(Into::into).collect(),
        });
        Ok(v1::ListGrantsResponse {
            grants: grants.collect(),
        })
    }
}

#[tonic::async_trait]
impl v1::fleet_service_server::FleetService for Fleet {
    async fn list_sidecars(
        &self,
        _: Request<Received<v1::ListSidecarsRequest>>,
    ) -> Result<Response<v1::ListSidecarsResponse>, Status> {
        let sidecars = self.sidecars();
        Ok(Response::new(v1::ListSidecarsResponse { sidecars }))
    }

    async fn get_status(
        &self,
        _: Request<Received<v1::GetStatusRequest>>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(self.status()))
    }

    async fn grant(
        &self,
        request: Request<Received<v1::GrantRequest>>,
    ) -> Result<Response<v1::GrantResponse>, Status> {
        Ok(Response::new(self.granted(request).await?))
    }

    async fn expel(
        &self,
        request: Request<Received<v1::ExpelRequest>>,
    ) -> Result<Response<v1::ExpelResponse>, Status> {
        Ok(Response::new(self.expelled(request).await?))
    }

    async fn list_instances(
        &self,
        _: Request<Received<v1::ListInstancesRequest>>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let now = self.registry.clock.now().latest;
        let live = self.registry.instances.live(now).into_iter();
        let instances = live.map(|(id, instance)| v1::Instance {
            id: id.to_string(),
            class: instance.class.to_string(),
            sidecar: instance.sidecar.into(),
            lease_expire_time: Some(stamp(instance.expire)),
        });
        Ok(Response::new(v1::ListInstancesResponse {
            instances: instances.collect(),
        }))
    }

    async fn list_grants(
        &self,
        _: Request<Received<v1::ListGrantsRequest>>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        Ok(Response::new(self.grants().await?))
    }
}
