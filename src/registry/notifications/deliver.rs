//! Messages on their way: each is tried until it is taken, or its time is over.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{News, Notice, Observed, Span, Timestamp},
    registry::{
        beat::Beat,
        core::Registry,
        store::{Delivery, DeliveryState, Outbox, StoreError, Told},
        view::View,
    },
    wire::{
        message::Message,
        signed::sha256,
        webhook::{ID, SIGNATURE, TIMESTAMP},
    },
};

use super::endpoints::Endpoint;

/// Most messages tried in one go.
const MOST: u32 = 32;
/// How long until a message is tried again, by how often it was: over three days, then no more.
const AGAIN: [Span; 9] = [
    Span::from_secs(5),
    Span::from_secs(300),
    Span::from_secs(1_800),
    Span::from_hours(2),
    Span::from_hours(5),
    Span::from_hours(10),
    Span::from_hours(14),
    Span::from_hours(20),
    Span::from_hours(24),
];
/// Longest wait that a receiver may ask for.
const ASKED: Span = Span::from_hours(24);
/// Most that is told of one subject a day of what callers saw.
const SEEN: usize = 16;
/// A day, in microseconds.
const DAY: i64 = 86_400_000_000;
/// Most of an answer that is kept, in characters.
const KEPT: usize = 200;

/// What sends messages, whoever they are for.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Deliveries {
    registry: Arc<Registry>,
    pub(super) outbox: Outbox,
    site: Option<Arc<str>>,
    /// Goes up where there is something to send that no change of the registry tells of.
    nudges: Arc<AtomicU64>,
    /// What callers saw today, by subject.
    seen: Arc<Mutex<Seen>>,
}

/// A day, and what was told of each subject on it.
type Seen = (i64, HashMap<Box<str>, HashSet<Box<str>>>);

/// The id of something that no place in the log has, by what tells it apart.
pub(super) fn id(log: &str, key: &str) -> Box<str> {
    let digest = sha256(key.as_bytes());
    let mark = digest
        .first_chunk()
        .map_or(0, |half| u128::from_be_bytes(*half));
    format!("msg_{}_{mark:032x}", log.get(..8).unwrap_or(log)).into()
}

/// How a try went.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tried {
    /// The receiver took it.
    Taken(String),
    /// The receiver takes nothing any more.
    Gone(String),
    /// It did not, and may have said when it will.
    Failed(String, Option<Span>),
    /// Nobody answered.
    Silent(String),
}

impl Tried {
    /// What came of it, as metrics have it.
    fn name(&self) -> &'static str {
        match self {
            Self::Taken(_) => "taken",
            Self::Gone(_) => "gone",
            Self::Failed(..) => "failed",
            Self::Silent(_) => "silent",
        }
    }
}

impl Deliveries {
    pub(in crate::registry) fn new(
        registry: &Arc<Registry>,
        outbox: Outbox,
        site: Option<String>,
    ) -> Self {
        Self {
            registry: Arc::clone(registry),
            outbox,
            site: site.map(Arc::from),
            nudges: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// What was told, and what came of it.
    pub(in crate::registry) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Says that there is something to send.
    pub(in crate::registry) fn nudge(&self) {
        self.nudges.fetch_add(1, Ordering::Release);
    }

    /// Tells of facets that callers saw to differ from what is governed; of each once a day.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub(in crate::registry) async fn saw(
        &self,
        view: &View,
        observed: &[Observed],
    ) -> Result<(), StoreError> {
        let told: Vec<Told> = observed
            .iter()
            .filter_map(|observed| self.drift(view, observed))
            .collect();
        if !told.is_empty() && view.read_only.is_none() {
            self.outbox.tell(&told).await?;
            self.nudge();
        }
        Ok(())
    }

    /// What there is to tell of a facet that a caller saw, the first time today.
    fn drift(&self, view: &View, observed: &Observed) -> Option<Told> {
        let subject = view.snapshot.subject(observed.subject.as_str())?;
        let governed = subject.fingerprint.get(observed.facet);
        if governed == Some(&observed.digest) {
            return None;
        }
        let now = self.registry.clock.now().latest;
        let day = now.micros().div_euclid(DAY);
        let (facet, digest) = (observed.facet.name(), observed.digest.as_str());
        let key = format!("{}/{facet}/{digest}/{day}", subject.id);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != day {
            *seen = (day, HashMap::new());
        }
        // Callers choose what they say they saw: a few a day are news.
        let known = seen.1.entry(subject.id.as_str().into()).or_default();
        if known.len() >= SEEN || !known.insert(key.as_str().into()) {
            return None;
        }
        let notice = Notice::new(News::AgentContextChanged, subject.id.as_str(), now)
            .of(subject.domain.clone())
            .with("facet", facet)
            .with("observed", digest)
            .with("governed", governed.map_or("", |digest| digest.as_str()));
        let log = view.beginning.era.log.to_string();
        Some(Told {
            id: id(&log, &key),
            notice,
        })
    }

    /// Sends one message.
    async fn attempt(&self, endpoint: &Endpoint, delivery: &Delivery, now: Timestamp) -> Tried {
        let log = self.registry.view().beginning.era.log.to_string();
        let message = Message {
            id: &delivery.told.id,
            notice: &delivery.told.notice,
            log: &log,
            site: self.site.as_deref(),
        };
        let body = message.body(endpoint.format);
        let seconds = now.micros().div_euclid(1_000_000);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(endpoint.url.clone())
            .header(header::CONTENT_TYPE, endpoint.format.content_type())
            .header(header::CONTENT_LENGTH, body.len())
            .header(ID, &*delivery.told.id)
            .header(TIMESTAMP, seconds);
        if let Some(secrets) = &endpoint.secrets {
            request = request.header(SIGNATURE, secrets.sign(&delivery.told.id, seconds, &body));
        }
        let request = match request.body(Bytes::from(body)) {
            Ok(request) => request,
            Err(error) => return Tried::Silent(error.to_string()),
        };
        match endpoint.caller.send(request).await {
            Ok(answer) => judged(&answer),
            Err(why) => Tried::Silent(why),
        }
    }

    /// Sends what is due to an endpoint; tells when to go on, and whether it answers.
    async fn round(&self, endpoint: &Endpoint) -> Result<(Option<Timestamp>, bool), StoreError> {
        let name = &*endpoint.name;
        let now = || self.registry.clock.now().latest;
        // A copy tells nobody what the registry it is of has told, or will.
        if self.registry.view().read_only.is_some() {
            return Ok((None, true));
        }
        loop {
            let view = self.registry.view();
            let wants = |notice: &_| endpoint.wants(notice, &view);
            if !self.outbox.spread(name, now(), wants).await? {
                break;
            }
        }
        let gone = self.outbox.is_gone(name).await?;
        if gone {
            self.outbox
                .give_up(name, "receives nothing any more")
                .await?;
            return Ok((None, true));
        }
        for mut delivery in self.outbox.due(name, now(), MOST).await? {
            let time = now();
            let tried = self.attempt(endpoint, &delivery, time).await;
            let before = delivery.clone();
            delivery.attempts = delivery.attempts.saturating_add(1);
            let silent = matches!(tried, Tried::Silent(_));
            self.registry.witness.metrics.delivered(name, tried.name());
            let (id, news) = (&*delivery.told.id, delivery.told.notice.news.name());
            match tried {
                Tried::Taken(said) => {
                    tracing::debug!(endpoint = name, id, news, said, "told");
                    delivery.state = DeliveryState::Delivered;
                    delivery.next = time;
                    delivery.why = said.into();
                }
                Tried::Gone(said) => {
                    tracing::warn!(
                        endpoint = name,
                        said,
                        "receives nothing any more; see `exeat notification retry`"
                    );
                    self.outbox.give_up(name, &said).await?;
                    return Ok((None, true));
                }
                Tried::Failed(why, asked) => put_off(&mut delivery, why, asked, time),
                Tried::Silent(why) => put_off(&mut delivery, why, None, time),
            }
            self.outbox.settle(&before, &delivery).await?;
            if silent {
                // The others would find nobody either.
                return Ok((self.outbox.next(name).await?, false));
            }
        }
        Ok((self.outbox.next(name).await?, true))
    }
}

/// What an answer says.
fn judged(answer: &Response<Bytes>) -> Tried {
    let status = answer.status();
    let text: String = String::from_utf8_lossy(answer.body())
        .chars()
        .filter(|c| !c.is_control())
        .take(KEPT)
        .collect();
    let said = format!("{} {text}", status.as_u16()).trim_end().to_owned();
    if status.is_success() {
        return Tried::Taken(status.as_u16().to_string());
    }
    if status == StatusCode::GONE {
        return Tried::Gone(said);
    }
    if status.is_redirection() {
        return Tried::Failed(
            format!("{} and redirects are not followed", status.as_u16()),
            None,
        );
    }
    let asked = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok())
        .map(|seconds| Span::from_secs(seconds.into()).min(ASKED));
    Tried::Failed(said, asked)
}

/// Has a message tried later, or never again.
fn put_off(delivery: &mut Delivery, why: String, asked: Option<Span>, now: Timestamp) {
    let tried = usize::try_from(delivery.attempts).unwrap_or(usize::MAX);
    let (endpoint, id) = (&*delivery.endpoint, &*delivery.told.id);
    delivery.why = why.into();
    if let Some(wait) = AGAIN.get(tried.saturating_sub(1)) {
        let wait = spread_out(*wait, id).max(asked.unwrap_or(Span::ZERO));
        delivery.next = now + wait;
        tracing::info!(endpoint, id, attempts = tried, why = &*delivery.why, next = %delivery.next, "not told yet");
    } else {
        delivery.state = DeliveryState::Dead;
        delivery.next = now;
        tracing::error!(
            endpoint,
            id,
            attempts = tried,
            why = &*delivery.why,
            "given up; see `exeat notification list --state DEAD`"
        );
    }
}

/// Up to a tenth more: messages that failed together do not come back together.
fn spread_out(wait: Span, id: &str) -> Span {
    let [first, second, ..] = sha256(id.as_bytes());
    let part = i64::from(u16::from_be_bytes([first, second]));
    Span::from_micros(
        wait.micros()
            .saturating_add(wait.micros() / 10 * part / 65_536),
    )
}

/// Tells an endpoint what happens, until stopped.
pub(in crate::registry) async fn deliver(
    endpoint: Endpoint,
    deliveries: Deliveries,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut beat = Beat::new(&deliveries.registry, &stop);
    let (mut next, mut seen): (Option<Timestamp>, _) = (None, 0);
    let mut known = false;
    loop {
        let nudges = deliveries.nudges.load(Ordering::Acquire);
        let now = deliveries.registry.clock.now().latest;
        let due = nudges != seen || next.is_some_and(|next| next <= now);
        seen = nudges;
        if beat.looks(due) {
            let went = async {
                if !known {
                    deliveries.outbox.enrol(&endpoint.name).await?;
                    known = true;
                }
                deliveries.round(&endpoint).await
            };
            let went = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                went = went => went,
            };
            match went {
                Ok((later, answers)) => {
                    next = later;
                    if !answers {
                        beat.rests();
                    }
                }
                Err(error) => {
                    tracing::error!(endpoint = &*endpoint.name, %error, "what is to be told cannot be read; it is told later");
                    beat.failed();
                }
            }
        }
        if !beat.next().await {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry: Option<&str>) -> Response<Bytes> {
        let mut answer = Response::builder().status(status);
        if let Some(retry) = retry {
            answer = answer.header("retry-after", retry);
        }
        answer.body(Bytes::from_static(b"a\x1b[31mb\n")).unwrap()
    }

    #[test]
    fn an_answer_is_taken_for_what_it_says() {
        assert_eq!(judged(&answer(204, None)), Tried::Taken("204".into()));
        assert_eq!(judged(&answer(410, None)), Tried::Gone("410 a[31mb".into()));
        assert!(matches!(judged(&answer(302, None)), Tried::Failed(..)));
        let minute = Some(Span::from_secs(60));
        assert_eq!(
            judged(&answer(503, Some("60"))),
            Tried::Failed("503 a[31mb".into(), minute)
        );
        let long = judged(&answer(429, Some("4000000000")));
        assert_eq!(long, Tried::Failed("429 a[31mb".into(), Some(ASKED)));
    }

    #[test]
    fn a_wait_is_longer_by_at_most_a_tenth() {
        for at in 0..1_000 {
            let wait = spread_out(Span::from_secs(100), &format!("msg_{at}"));
            assert!((100..110).contains(&(wait.micros() / 1_000_000)), "{wait}");
        }
    }
}
