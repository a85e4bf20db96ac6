//! Something that is fetched from elsewhere, kept for a while, and fetched again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Turn;

use crate::{domain::Span, runtime::clock::Clock};

/// How long it is used before it is fetched again.
const FRESH: Span = Span::from_hours(1);
/// How long it is used where it cannot be fetched again.
const KEPT: Span = Span::from_hours(24);
/// How often it is fetched at most, whoever asks.
const PAUSE: Span = Span::from_secs(10);

/// Something fetched.
#[derive(Debug)]
pub(super) struct Fetched<T> {
    kept: Mutex<Kept<T>>,
    /// Held by whoever fetches: the others wait for what it brings only where they have nothing.
    turn: Turn<()>,
}

#[derive(Debug)]
struct Kept<T> {
    value: Option<(Arc<T>, Span)>,
    tried: Option<Span>,
}

impl<T> Default for Fetched<T> {
    fn default() -> Self {
        Self {
            kept: Mutex::new(Kept {
                value: None,
                tried: None,
            }),
            turn: Turn::default(),
        }
    }
}

impl<T> Fetched<T> {
    fn kept(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept, if it is younger than `most`.
    fn within(&self, most: Span, now: Span) -> Option<Arc<T>> {
        let kept = self.kept();
        let (value, at) = kept.value.as_ref()?;
        (now.saturating_sub(*at) < most).then(|| Arc::clone(value))
    }

    /// What is kept, or what `fetch` brings where that is not fresh; nothing where it brings
    /// nothing and what is kept is too old, with the reason in the log.
    pub(super) async fn fresh(
        &self,
        clock: &Clock,
        whose: &str,
        fetch: impl Future<Output = Result<T, String>> + Send,
    ) -> Option<Arc<T>> {
        match self.within(FRESH, clock.elapsed()) {
            Some(value) => Some(value),
            None => self.anew(clock, whose, fetch).await,
        }
    }

    /// What `fetch` brings, unless it was asked a moment ago. What is not too old stays where it
    /// brings nothing.
    pub(super) async fn anew(
        &self,
        clock: &Clock,
        whose: &str,
        fetch: impl Future<Output = Result<T, String>> + Send,
    ) -> Option<Arc<T>> {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            // Somebody is about it: what is kept does until they are done.
            Err(_) => match self.within(KEPT, clock.elapsed()) {
                Some(value) => return Some(value),
                None => self.turn.lock().await,
            },
        };
        let now = clock.elapsed();
        let tried = self.kept().tried;
        if tried.is_some_and(|at| now.saturating_sub(at) < PAUSE) {
            return self.within(KEPT, now);
        }
        let brought = fetch.await;
        let after = clock.elapsed();
        self.kept().tried = Some(after);
        match brought {
            Ok(value) => {
                let value = Arc::new(value);
                self.kept().value = Some((Arc::clone(&value), after));
                Some(value)
            }
            Err(why) => {
                tracing::warn!(issuer = whose, why, "cannot be fetched");
                self.within(KEPT, after)
            }
        }
    }
}
