//! What time alone gives to tell: that an end, a revalidation, a deadline or a debt is near.

use std::{collections::HashSet, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Span, Timestamp},
    engine::{notices::reminders, reaches_into},
    registry::{
        beat::Beat,
        core::Registry,
        store::{StoreError, Told},
    },
};

use super::deliver::{Deliveries, id};

/// How long what was told is kept.
const KEPT: Span = Span::from_days(30);
/// How often what is older is forgotten.
const TIDY: Span = Span::from_hours(1);

/// What was told by time, and what is next.
#[derive(Debug, Default)]
struct Calendar {
    told: HashSet<Box<str>>,
    next: Option<Timestamp>,
    tidied: Option<Timestamp>,
}

impl Calendar {
    async fn look(&mut self, registry: &Registry, out: &Deliveries) -> Result<(), StoreError> {
        let (view, now) = (registry.view(), registry.clock.now().latest);
        if view.read_only.is_some() {
            self.next = None;
            return Ok(());
        }
        let log = view.beginning.era.log.to_string();
        let (mut told, mut keys, mut known) = (Vec::new(), Vec::new(), HashSet::new());
        self.next = None;
        for case in view.cases.values() {
            let tried = registry.uses.tried(case.id.as_str(), case.since);
            // A sidecar may be a little ahead.
            let tried = tried.map(|tried| tried.min(now));
            for reminder in reminders(case, tried) {
                if reminder.time > now {
                    let sooner = self.next.is_none_or(|next| reminder.time < next);
                    self.next = if sooner {
                        Some(reminder.time)
                    } else {
                        self.next
                    };
                } else if self.told.contains(&reminder.key) {
                    known.insert(reminder.key);
                } else if reminder.is_news(now) {
                    let domains = reaches_into(&case.request, &view.snapshot);
                    told.push(Told {
                        id: id(&log, &reminder.key),
                        notice: reminder.notice(case, now).of(domains),
                    });
                    keys.push(reminder.key);
                }
            }
        }
        if !told.is_empty() {
            out.outbox.tell(&told).await?;
            out.nudge();
        }
        known.extend(keys);
        self.told = known;
        Ok(())
    }

    async fn tidy(&mut self, registry: &Registry, out: &Deliveries) -> Result<(), StoreError> {
        let now = registry.clock.now().latest;
        if self.tidied.is_some_and(|last| now - last < TIDY) {
            return Ok(());
        }
        if let Some(before) = now.checked_sub(KEPT) {
            out.outbox.forget(before).await?;
        }
        self.tidied = Some(now);
        Ok(())
    }
}

/// Tells what time gives to tell, until stopped, and forgets what was told long ago.
pub(in crate::registry) async fn remind(
    registry: Arc<Registry>,
    out: Deliveries,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut beat = Beat::new(&registry, &stop);
    let mut calendar = Calendar::default();
    loop {
        let now = registry.clock.now().latest;
        if beat.looks(calendar.next.is_some_and(|next| next <= now))
            && let Err(error) = calendar.look(&registry, &out).await
        {
            tracing::error!(%error, "nobody can be reminded; it is tried again");
            beat.failed();
        }
        if let Err(error) = calendar.tidy(&registry, &out).await {
            tracing::error!(%error, "what was told long ago cannot be forgotten; it is tried again");
            beat.rests();
        }
        if !beat.next().await {
            return Ok(());
        }
    }
}
