//! A sidecar without sockets, for simulations: it follows, and is asked directly.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    config,
    domain::{Decision, Question},
    engine::decide,
    runtime::{clock::Clock, publish::Published},
    telemetry::Metrics,
    wire::signed::{Pin, Trust},
};

use super::{
    decider::Loaded,
    follow::{Disk, Following, Keeper},
};

/// A sidecar that follows a registry.
#[derive(Debug)]
pub struct Simulated {
    published: Arc<Published<Loaded>>,
    clock: Clock,
}

impl Simulated {
    /// Reads back what is on disk, and what follows from there.
    ///
    /// # Errors
    ///
    /// A folder that cannot be used.
    pub fn start(
        registry: config::Registry,
        clock: Clock,
    ) -> Result<(Self, impl Future<Output = Result<(), String>>), String> {
        let published: Arc<Published<Loaded>> = Arc::default();
        let keeper = Arc::new(Keeper::new(
            Disk::hold(&registry.data)?,
            Trust::new(Pin::parse(&registry.key)?),
            Arc::clone(&published),
            clock.clone(),
            Metrics::new(),
        ));
        let (following, wanted) = Following::new(registry, keeper, None)?;
        let (following, stop) = (Arc::new(following), CancellationToken::new());
        let running = async move {
            tokio::try_join!(
                Arc::clone(&following).attend(stop.clone()),
                Arc::clone(&following).report(stop.clone()),
                Arc::clone(&following).fetch(wanted, stop.clone()),
                following.watch(stop),
            )
            .map(drop)
        };
        Ok((Self { published, clock }, running))
    }

    /// The decision about a question, once anything is in force.
    pub fn ask(&self, question: &Question) -> Option<Decision> {
        let loaded = self.published.get()?;
        let at = loaded.at(self.clock.look());
        Some(decide(question, &loaded.snapshot, at.now))
    }
}
