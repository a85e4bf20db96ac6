//! A wire between two processes that can be cut, frozen in either direction, and slowed to a drip.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

/// What passes in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Everything, at once.
    Open,
    /// Nothing, and no end of the connection either.
    Frozen,
    /// So many bytes every twenty milliseconds.
    Drip(usize),
}

#[derive(Clone, Copy, Debug)]
struct State {
    whole: bool,
    up: Passage,
    down: Passage,
}

/// A wire to a server.
#[derive(Debug)]
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Passes on what comes, as `passage` says.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    passage: impl Fn(&State) -> Passage,
) -> Option<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await.ok()?;
        let mut rest = bytes.get(..read).filter(|read| !read.is_empty())?;
        while !rest.is_empty() {
            let now = passage(&state.borrow_and_update());
            let part = match now {
                Passage::Open => rest.len(),
                Passage::Frozen => {
                    state.changed().await.ok()?;
                    continue;
                }
                Passage::Drip(bytes) => {
                    sleep(Duration::from_millis(20)).await;
                    bytes.min(rest.len())
                }
            };
            let (now, later) = rest.split_at(part);
            to.write_all(now).await.ok()?;
            rest = later;
        }
    }
}

impl Wire {
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, _) = watch::channel(State {
            whole: true,
            up: Passage::Open,
            down: Passage::Open,
        });
        let state = Arc::new(state);
        let states = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let mut state = states.subscribe();
                if !state.borrow_and_update().whole {
                    continue;
                }
                let to = server.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else {
                        return;
                    };
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    let (up, down) = (state.clone(), state.clone());
                    tokio::select! {
                        _ = pump(near_in, far_out, up, |state| state.up) => {}
                        _ = pump(far_in, near_out, down, |state| state.down) => {}
                        _ = state.wait_for(|state| !state.whole) => {}
                    }
                });
            }
        });
        Self {
            address,
            state,
            accepting,
        }
    }

    /// Ends every connection; those that come are ended too.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.whole = false);
    }

    /// As it was at first.
    pub fn mend(&self) {
        self.state.send_modify(|state| {
            *state = State {
                whole: true,
                up: Passage::Open,
                down: Passage::Open,
            }
        });
    }

    /// What passes to the server.
    pub fn up(&self, passage: Passage) {
        self.state.send_modify(|state| state.up = passage);
    }

    /// What passes from the server.
    pub fn down(&self, passage: Passage) {
        self.state.send_modify(|state| state.down = passage);
    }
}
