//! `exeat.v1.NotificationService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    domain::{Invalid, News, Notice},
    registry::{
        core::{Error, Registry},
        notifications::{Deliveries, Endpoint},
        store::{Delivery, DeliveryState, StoreError, Told},
    },
    wire::{Fault, Received, signed::random, sync::stamp, v1},
};

use super::{opened, page};

/// Most messages of an endpoint that are counted.
const COUNTED: u32 = 1_000;

/// Answers for who is told.
#[derive(Clone, Debug)]
pub(crate) struct NotificationCalls {
    pub(in crate::registry) registry: Arc<Registry>,
    pub(in crate::registry) deliveries: Deliveries,
    pub(in crate::registry) endpoints: Arc<[Endpoint]>,
}

fn failed(error: StoreError) -> Fault {
    Error::Store(error).into()
}

fn message(delivery: Delivery) -> v1::Delivery {
    let Delivery {
        endpoint,
        number: _,
        told,
        state,
        attempts,
        next,
        why,
    } = delivery;
    v1::Delivery {
        endpoint: endpoint.into(),
        id: told.id.into(),
        r#type: told.notice.news.name().into(),
        about: told.notice.about.into(),
        time: Some(stamp(told.notice.time)),
        state: state.name().into(),
        attempts,
        next: Some(stamp(next)),
        why: why.into(),
    }
}

impl NotificationCalls {
    fn known(&self, name: &str) -> Result<&Endpoint, Fault> {
        let known = self.endpoints.iter().find(|known| &*known.name == name);
        known.ok_or_else(|| {
            Fault::NotFound(format!(
                "there is no endpoint `{name}`; see `exeat notification endpoints`"
            ))
        })
    }

    async fn endpoints(&self) -> Result<v1::ListEndpointsResponse, Fault> {
        let outbox = self.deliveries.outbox();
        let mut endpoints = Vec::new();
        for endpoint in self.endpoints.iter() {
            let name = &*endpoint.name;
            let count = async |state| {
                let found = outbox.list(Some(name), Some(state), None, COUNTED).await;
                let found = found.map_err(failed)?;
                Ok::<_, Fault>(u32::try_from(found.len()).unwrap_or(u32::MAX))
            };
            endpoints.push(v1::Endpoint {
                name: name.into(),
                place: endpoint.place(),
                format: endpoint.format.name().into(),
                waiting: count(DeliveryState::Waiting).await?,
                dead: count(DeliveryState::Dead).await?,
                gone: outbox.is_gone(name).await.map_err(failed)?,
            });
        }
        Ok(v1::ListEndpointsResponse { endpoints })
    }

    async fn deliveries(
        &self,
        request: Request<Received<v1::ListDeliveriesRequest>>,
    ) -> Result<v1::ListDeliveriesResponse, Fault> {
        let (_, message_) = opened(request)?;
        let v1::ListDeliveriesRequest {
            endpoint,
            state,
            page_size,
            page_token,
        } = message_;
        let wrong =
            |field: &str, what: String, fix: &str| Fault::Invalid(Invalid::new(field, what, fix));
        let state = match state.as_str() {
            "" => None,
            text => Some(DeliveryState::parse(text).ok_or_else(|| {
                let fix = "use WAITING, DELIVERED or DEAD";
                wrong("state", format!("`{text}` is no state"), fix)
            })?),
        };
        let after = match page_token.as_str() {
            "" => None,
            text => {
                let place = text.split_once('/');
                let place = place.and_then(|(number, name)| Some((number.parse().ok()?, name)));
                Some(place.ok_or_else(|| {
                    let fix = "send what the page before came with";
                    wrong("page_token", format!("`{text}` is none"), fix)
                })?)
            }
        };
        let endpoint = (!endpoint.is_empty()).then_some(endpoint.as_str());
        let size = u32::try_from(page(page_size)).unwrap_or(u32::MAX);
        let outbox = self.deliveries.outbox();
        let found = outbox.list(endpoint, state, after, size).await;
        let found = found.map_err(failed)?;
        let more = u32::try_from(found.len()).unwrap_or(u32::MAX) >= size;
        let last = found.last().filter(|_| more);
        let next = last.map(|last| format!("{}/{}", last.number, last.endpoint));
        Ok(v1::ListDeliveriesResponse {
            deliveries: found.into_iter().map(message).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    async fn again(
        &self,
        request: Request<Received<v1::RedeliverRequest>>,
    ) -> Result<v1::RedeliverResponse, Fault> {
        let (_, v1::RedeliverRequest { endpoint, id }) = opened(request)?;
        let known = self.known(&endpoint)?;
        let one = (!id.is_empty()).then_some(id.as_str());
        let now = self.registry.clock.now().latest;
        let outbox = self.deliveries.outbox();
        let count = outbox.again(&known.name, one, now).await.map_err(failed)?;
        if let (0, Some(id)) = (count, one) {
            return Err(Fault::NotFound(format!(
                "`{endpoint}` was not told `{id}`; see `exeat notification list`"
            )));
        }
        self.deliveries.nudge();
        Ok(v1::RedeliverResponse { count })
    }

    async fn test(
        &self,
        request: Request<Received<v1::TestEndpointRequest>>,
    ) -> Result<v1::TestEndpointResponse, Fault> {
        let (caller, v1::TestEndpointRequest { endpoint }) = opened(request)?;
        let known = self.known(&endpoint)?;
        let mark: [u8; 8] = random().map_err(|why| failed(StoreError::Failed(why)))?;
        let id = format!("msg_test_{:016x}", u64::from_be_bytes(mark));
        let now = self.registry.clock.now().latest;
        let notice = Notice::new(News::Test, &known.name, now).with("by", &caller.identity);
        let told = Told {
            id: id.as_str().into(),
            notice,
        };
        let outbox = self.deliveries.outbox();
        outbox.tell_only(&known.name, &told).await.map_err(failed)?;
        self.deliveries.nudge();
        Ok(v1::TestEndpointResponse { id })
    }
}

#[tonic::async_trait]
impl v1::notification_service_server::NotificationService for NotificationCalls {
    async fn list_endpoints(
        &self,
        request: Request<Received<v1::ListEndpointsRequest>>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        opened(request)?;
        Ok(Response::new(self.endpoints().await?))
    }

    async fn list_deliveries(
        &self,
        request: Request<Received<v1::ListDeliveriesRequest>>,
    ) -> Result<Response<v1::ListDeliveriesResponse>, Status> {
        Ok(Response::new(self.deliveries(request).await?))
    }

    async fn redeliver(
        &self,
        request: Request<Received<v1::RedeliverRequest>>,
    ) -> Result<Response<v1::RedeliverResponse>, Status> {
        Ok(Response::new(self.again(request).await?))
    }

    async fn test_endpoint(
        &self,
        request: Request<Received<v1::TestEndpointRequest>>,
    ) -> Result<Response<v1::TestEndpointResponse>, Status> {
        Ok(Response::new(self.test(request).await?))
    }
}
