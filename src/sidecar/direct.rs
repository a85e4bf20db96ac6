//! The way to the handlers of decisions: past the router, which costs a twelfth of a call.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::{body::Body, codegen::BoxFuture, server::NamedService, service::Routes};
use tower::Service;

use super::{ext_authz_http::lead, tokens::Tokens};

/// One service that is called often, and the router to all others.
#[derive(Clone, Debug)]
pub(super) struct Direct<S> {
    pub(super) often: S,
    pub(super) others: Routes,
    /// Who tells whose the token of a call is, where callers are known by that.
    pub(super) tokens: Option<Arc<Tokens>>,
}

impl<S: NamedService> Direct<S> {
    /// Whether `path` is of the service that is called often: `/SERVICE/METHOD`.
    fn leads(path: &str) -> bool {
        path.strip_prefix('/')
            .and_then(|path| path.strip_prefix(S::NAME))
            .is_some_and(|method| method.starts_with('/'))
    }
}

impl<S> Service<Request<Body>> for Direct<S>
where
    S: NamedService
        + Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        >,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, <Routes as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.often.poll_ready(context) {
            Poll::Ready(Ok(())) => Service::<Request<Body>>::poll_ready(&mut self.others, context),
            waiting => waiting,
        }
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(tokens) = &self.tokens {
            let borne = tokens.borne(request.headers());
            request.extensions_mut().insert(borne);
        }
        if Self::leads(request.uri().path()) {
            Either::Left(self.often.call(request))
        } else {
            lead(&mut request);
            Either::Right(self.others.call(request))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Often;

    impl NamedService for Often {
        const NAME: &'static str = "exeat.v1.CheckService";
    }

    #[test]
    fn only_paths_of_the_service_lead_there() {
        for (path, leads) in [
            ("/exeat.v1.CheckService/Check", true),
            ("/exeat.v1.CheckService/Nothing", true),
            ("/exeat.v1.CheckService", false),
            ("/exeat.v1.CheckServices/Check", false),
            ("/exeat.v1.Check", false),
            ("/grpc.health.v1.Health/Check", false),
            ("", false),
        ] {
            assert_eq!(Direct::<Often>::leads(path), leads, "{path}");
        }
    }
}
