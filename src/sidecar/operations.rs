//! Health, metrics and recent decisions, on a port of their own.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::domain::Span;

use super::{
    bundle::Loader,
    decider::Decider,
    follow::{Following, Keeper},
    lines::Lines,
    tokens::Tokens,
};

/// Where what is governed comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A folder.
    Folder(Arc<Loader>),
    /// A registry.
    Registry(Arc<Keeper>, Arc<Following>),
}

impl Source {
    /// What is wrong with it now, in words.
    fn problems(&self) -> Vec<String> {
        match self {
            Self::Folder(loader) => {
                let mut problems = loader.problems();
                problems.truncate(SHOWN);
                if !problems.is_empty() {
                    problems.insert(0, "the folder's present content is refused:".into());
                }
                problems
            }
            Self::Registry(keeper, _) => match keeper.age() {
                _ if keeper.distrusted() => {
                    vec!["DISTRUST: the registry told two histories; exceptions are off".into()]
                }
                None => vec!["the registry has not been heard; exceptions are off".into()],
                Some(age) => vec![format!(
                    "the registry was heard {:.1} s ago",
                    age.as_secs_f64()
                )],
            },
        }
    }
}

/// What the operations port can see.
#[derive(Clone, Debug)]
pub(super) struct Operations {
    pub(super) decider: Arc<Decider>,
    pub(super) source: Source,
    pub(super) stopping: CancellationToken,
    /// Whose tokens count, where callers are known by that.
    pub(super) tokens: Option<Arc<Tokens>>,
    /// Decisions are shown to this machine alone.
    pub(super) local: bool,
    /// What of questions is shown with them.
    pub(super) values: Arc<[Box<str>]>,
}

/// The routes of the operations port.
pub(super) fn routes(operations: Operations) -> Router {
    let mut router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    if operations.local {
        router = router.route("/decisions", get(decisions));
    }
    router.with_state(operations)
}

/// Problems told by readiness.
const SHOWN: usize = 10;

/// Ready with a snapshot in force; a refused bundle is told and does not unready the last good one, and
/// so are tokens that cannot be used.
async fn ready(State(operations): State<Operations>) -> Response {
    let problems = operations.source.problems();
    let loaded = operations.decider.snapshot.get();
    let (status, mut text) = match &loaded {
        _ if operations.stopping.is_cancelled() => {
            (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned())
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            match operations.source {
                Source::Folder(_) => "no bundle in force\n",
                Source::Registry(..) => "no snapshot in force\n",
            }
            .to_owned(),
        ),
        Some(loaded) => (
            StatusCode::OK,
            format!(
                "ok: revision {} {}\n",
                loaded.snapshot.revision(),
                loaded.snapshot.digest()
            ),
        ),
    };
    let tokens = operations
        .tokens
        .iter()
        .flat_map(|tokens| tokens.problems());
    for problem in problems.into_iter().chain(tokens.take(SHOWN)) {
        text.push_str(&problem);
        text.push('\n');
    }
    (status, text).into_response()
}

async fn metrics(State(operations): State<Operations>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], page(&operations)).into_response()
}

/// Every metric as of now.
pub(super) fn page(operations: &Operations) -> String {
    let decider = &operations.decider;
    let loaded = decider.snapshot.get();
    let age = loaded.as_ref().map_or(Span::ZERO, |loaded| {
        Span::from_micros(
            decider
                .clock
                .elapsed()
                .micros()
                .saturating_sub(loaded.confirmed.micros()),
        )
    });
    if let Source::Registry(keeper, _) = &operations.source {
        keeper.tell();
    }
    let exceptions: Vec<_> = loaded
        .iter()
        .flat_map(|loaded| {
            let snapshot = &loaded.snapshot;
            let held = snapshot.exceptions();
            held.filter(|exception| !snapshot.takes_back(exception.id.as_str()))
        })
        .map(AsRef::as_ref)
        .collect();
    let revision = loaded
        .as_ref()
        .map_or(0, |loaded| loaded.snapshot.revision());
    if let Some(exporter) = &decider.exporter {
        exporter.measure();
    }
    let now = decider.clock.now();
    decider.metrics.text(&exceptions, revision, age, now)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Whether to go on as decisions are made.
    #[serde(default)]
    follow: bool,
    /// How many of the last to begin with.
    #[serde(default = "hundred")]
    last: u64,
}

fn hundred() -> u64 {
    100
}

/// Recent decisions as lines of JSON; a follower that is too slow misses some, and is told how many.
async fn decisions(State(operations): State<Operations>, Query(wanted): Query<Wanted>) -> Response {
    let decider = Arc::clone(&operations.decider);
    let values = Arc::clone(&operations.values);
    let lines = Lines::of(decider, wanted.last, values);
    let lines = futures_util::stream::unfold(lines, move |mut lines| {
        let stopping = operations.stopping.clone();
        async move {
            loop {
                let (chunk, _) = lines.ready();
                if !chunk.is_empty() {
                    return Some((Ok::<_, Infallible>(Bytes::from(chunk)), lines));
                }
                if !wanted.follow {
                    return None;
                }
                tokio::select! {
                    () = lines.wait() => {}
                    () = stopping.cancelled() => return None,
                }
            }
        }
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}
