//! Sockets, bound before anything starts.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::Stream;

/// A TCP listener whose connections answer without delay and are limited in number.
#[derive(Debug)]
pub struct Tcp {
    listener: TcpListener,
    address: SocketAddr,
}

impl Tcp {
    /// Binds `address`; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| at(&error, &address.to_string()))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bare listener.
    pub fn into_inner(self) -> TcpListener {
        self.listener
    }

    /// Accepts the next connection. `TCP_NODELAY` is set: without it small answers wait for
    /// acknowledgements, up to 40 ms.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A Unix socket that is removed when it is no longer listened on.
#[derive(Debug)]
pub struct Unix {
    listener: UnixListener,
    path: PathBuf,
}

impl Unix {
    /// Binds `path`, in place of a socket nobody listens on any more; readable by its owner's group.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        let shown = path.display().to_string();
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            // What we make is ours alone.
            let mut made = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
            made.recursive(true)
                .create(folder)
                .map_err(|error| at(&error, &shown))?;
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("{shown}: another process listens here"),
            ));
        }
        match std::fs::symlink_metadata(path) {
            Ok(known) if std::os::unix::fs::FileTypeExt::is_socket(&known.file_type()) => {
                std::fs::remove_file(path).map_err(|error| at(&error, &shown))?;
            }
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{shown}: is there and is no socket"),
                ));
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(|error| at(&error, &shown))?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts the next connection.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // Nothing can be done about a socket that is already gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn at(error: &io::Error, place: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{place}: {error}"))
}

/// Lets this process open as many files as it may, and says so if `listeners` of `most` connections
/// each do not fit: many systems begin with 1,024.
pub fn make_room(listeners: usize, most: usize) {
    let may = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: may.maximum,
        maximum: may.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => may.maximum,
        Err(_) => may.current,
    };
    let wanted = u64::try_from(listeners.saturating_mul(most)).unwrap_or(u64::MAX);
    if let Some(now) = now.filter(|now| *now < wanted) {
        tracing::warn!(
            open_files = now,
            connections = wanted,
            "fewer files may be open than connections are permitted; raise the limit (ulimit -n), or lower max_connections"
        );
    }
}

/// A bound on connections at once; each connection holds a permit to its end.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Where they come in.
    at: Arc<str>,
    places: Arc<Semaphore>,
    most: usize,
    /// Whether it was told that there is no place.
    told: Arc<AtomicBool>,
}

impl Limit {
    /// At most `most` at once, at `at`.
    pub fn new(most: usize, at: &str) -> Self {
        Self {
            at: at.into(),
            places: Arc::new(Semaphore::new(most)),
            most,
            told: Arc::default(),
        }
    }

    /// Waits for a place. That others wait is told once, until half of them are free again.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let places = Arc::clone(&self.places);
        if places.available_permits() > self.most / 2 {
            self.told.store(false, Ordering::Relaxed);
        }
        if places.available_permits() == 0 && !self.told.swap(true, Ordering::Relaxed) {
            let most = self.most;
            tracing::warn!(
                at = &*self.at,
                most,
                "every connection is taken, and whoever comes waits until one ends; of decisions, max_connections says how many there are"
            );
        }
        places.acquire_owned().await.ok()
    }
}

/// A connection with its place under the limit.
#[derive(Debug)]
pub struct Placed<S> {
    /// The connection.
    pub stream: S,
    _place: OwnedSemaphorePermit,
}

impl<S> Placed<S> {
    /// A connection that holds `place`.
    pub fn new(stream: S, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            _place: place,
        }
    }
}

impl<S: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Placed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for Placed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    // Not vectored: what is small is then copied together, and goes out with one plain `send`.
}

impl<S: tonic::transport::server::Connected> tonic::transport::server::Connected for Placed<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

/// Connections accepted one after the other; a failed accept does not end the stream.
pub fn connections<S, A, F>(
    limit: Limit,
    accept: A,
) -> impl Stream<Item = io::Result<Placed<S>>> + Send
where
    S: Send,
    A: Fn() -> F + Send,
    F: Future<Output = io::Result<S>> + Send,
{
    futures_util::stream::unfold((limit, accept), |(limit, accept)| async move {
        let place = limit.place().await?;
        let next = accept().await.map(|stream| Placed::new(stream, place));
        if let Err(error) = &next {
            // Out of file descriptors, mostly: give others time to close theirs.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some((next, (limit, accept)))
    })
}
