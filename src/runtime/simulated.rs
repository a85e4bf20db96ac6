//! What a simulation puts in the place of the machine: its network, and the one thread it has. In
//! a build without tests there is nothing to put in its place.

use tokio::task::spawn_blocking;

#[cfg(any(test, feature = "testing"))]
pub use here::{Dial, Io, dial, simulate};

#[cfg(any(test, feature = "testing"))]
mod here {
    use std::{cell::RefCell, io, sync::Arc};

    use futures_util::future::BoxFuture;
    use tokio::io::{AsyncRead, AsyncWrite};

    /// A connection over a simulated network.
    pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

    impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

    /// Connects to a host and port of a simulated network.
    pub type Dial =
        Arc<dyn Fn(http::Uri) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

    thread_local! {
        static DIAL: RefCell<Option<Dial>> = const { RefCell::new(None) };
    }

    /// From now on this thread is a simulation, which connects so; or it is none.
    pub fn simulate(dial: Option<Dial>) {
        DIAL.set(dial);
    }

    /// How this thread connects, if it is a simulation.
    pub fn dial() -> Option<Dial> {
        DIAL.with_borrow(Clone::clone)
    }
}

/// Does work that may block beside the threads that answer; a simulation has one thread, and does
/// it right there, so that the same seed gives the same trace.
///
/// # Errors
///
/// Work that panicked.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    #[cfg(any(test, feature = "testing"))]
    if dial().is_some() {
        return Ok(work());
    }
    spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())
}
