//! A page on this machine that a browser comes back to, once.

use std::{io, net::Ipv4Addr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// How long a browser may take to say what it wants.
const ASKS: Duration = Duration::from_secs(5);
/// Most bytes of what it says.
const MOST: usize = 16 << 10;

/// The page, on a port of its own.
#[derive(Debug)]
pub(super) struct Loopback {
    listener: TcpListener,
    port: u16,
}

impl Loopback {
    /// Listens on this machine alone.
    ///
    /// # Errors
    ///
    /// No port that is free.
    pub(super) async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where browsers come back to.
    pub(super) fn address(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Waits until a browser asks for something that `take` takes. A browser also opens connections
    /// that it says nothing on, and asks for an icon: nobody waits for those.
    ///
    /// # Errors
    ///
    /// A listener that fails.
    pub(super) async fn wait<T>(self, take: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        let mut asking = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted?;
                    asking.push(timeout(ASKS, asked(stream)));
                }
                Some(asked) = asking.next(), if !asking.is_empty() => {
                    let Ok(Ok((target, stream))) = asked else { continue };
                    let taken = take(&target);
                    // Whether the browser hears of it changes nothing.
                    let _ = timeout(ASKS, answer(stream, taken.is_some())).await;
                    if let Some(taken) = taken {
                        return Ok(taken);
                    }
                }
            }
        }
    }
}

/// What a browser asks for.
async fn asked(mut stream: TcpStream) -> io::Result<(String, TcpStream)> {
    let mut said = Vec::new();
    while !said.windows(4).any(|end| end == b"\r\n\r\n") {
        if said.len() > MOST || stream.read_buf(&mut said).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let line = said.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let target = line
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next());
    let target = target.ok_or(io::ErrorKind::InvalidData)?.to_owned();
    Ok((target, stream))
}

async fn answer(mut stream: TcpStream, taken: bool) -> io::Result<()> {
    let (status, text) = if taken {
        (
            "200 OK",
            "exeat has what it waited for. Go back to the terminal; this page can be closed.",
        )
    } else {
        ("404 Not Found", "There is nothing here.")
    };
    let page = format!(
        "<!doctype html><meta charset=utf-8><title>exeat</title><p style=\"font:1rem system-ui;margin:4rem\">{text}"
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
