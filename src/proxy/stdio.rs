//! A server that is spoken to over its standard input and output.

use std::{ffi::OsString, io, process::Stdio, time::Duration};

use serde_json::Value as Json;
use tokio::{
    io::{
        AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader, stdin, stdout,
    },
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex, oneshot},
    time::timeout,
};

use crate::wire::{
    carried::{Heard, heard, noted, sifted, withheld},
    mcp::List,
    relay::{Asking, Said, Verdict},
};

use super::{
    Error,
    asker::{Asker, Lists, Settings},
    sides::{Sides, Waits},
};

/// Largest message.
const LARGEST: u64 = 16 << 20;
/// How long the server may take to end once nobody speaks to it any more.
const ENDING: Duration = Duration::from_secs(5);

/// A client, a server, and what goes between.
struct Between<'a, C, S> {
    asker: &'a Asker,
    sides: Sides,
    /// The client's, which both directions write to.
    client: Mutex<C>,
    /// The server's.
    server: Mutex<Option<S>>,
}

/// A line that is one message; nothing at the end.
pub(super) async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    from.take(LARGEST).read_until(b'\n', &mut text).await?;
    if text.is_empty() {
        return Ok(None);
    }
    if text.last() != Some(&b'\n') && text.len() as u64 >= LARGEST {
        return Err(io::Error::other("a message is larger than 16 MiB"));
    }
    while text.last().is_some_and(u8::is_ascii_whitespace) {
        text.pop();
    }
    Ok(Some(text))
}

async fn put(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    to.write_all(message).await?;
    to.write_all(b"\n").await?;
    to.flush().await
}

impl<C: AsyncWrite + Unpin + Send, S: AsyncWrite + Unpin + Send> Between<'_, C, S> {
    async fn to_client(&self, message: &[u8]) -> io::Result<()> {
        put(&mut *self.client.lock().await, message).await
    }

    async fn to_server(&self, message: &[u8]) -> io::Result<()> {
        match &mut *self.server.lock().await {
            Some(server) => put(server, message).await,
            None => Err(io::Error::other("the server hears nobody any more")),
        }
    }

    /// What the client says, until it says nothing more.
    async fn client_says(&self, mut client: impl AsyncBufRead + Unpin) -> io::Result<()> {
        while let Some(message) = line(&mut client).await? {
            if !message.is_empty() {
                self.said(&message).await?;
            }
        }
        // The server is told that nobody speaks to it any more.
        *self.server.lock().await = None;
        Ok(())
    }

    async fn said(&self, message: &[u8]) -> io::Result<()> {
        match self.asker.relay.said(message) {
            Said::On(key) => self.goes_on(message, key, Waits::Plain).await,
            Said::Lists(key, list, begins) => {
                self.goes_on(message, Some(key), Waits::List(list, begins))
                    .await
            }
            Said::Cancels(key) => {
                self.sides.waited(&key);
                self.to_server(message).await
            }
            Said::Asks(asking) => self.asks(*asking, message).await,
            Said::Refused(answer) => self.to_client(answer.to_string().as_bytes()).await,
            Said::Dropped(why) => {
                tracing::warn!(why, "a message goes no further");
                Ok(())
            }
        }
    }

    async fn goes_on(&self, message: &[u8], key: Option<String>, what: Waits) -> io::Result<()> {
        if key.is_some_and(|key| !self.sides.waits(key, what)) {
            return Err(io::Error::other("the server owes too many answers"));
        }
        self.to_server(message).await
    }

    async fn asks(&self, asking: Asking, message: &[u8]) -> io::Result<()> {
        let key = asking.key();
        let verdict = match self.asker.decided(&self.sides, &asking, self).await {
            Ok(decision) => self.asker.relay.verdict(asking, &decision),
            Err(undecided) => asking.undecided(&undecided.why, undecided.asker),
        };
        match verdict {
            Verdict::On(instead, told) => {
                let what = told.map_or(Waits::Plain, |(_, note)| Waits::Note(note));
                let message = instead.as_deref().unwrap_or(message);
                self.goes_on(message, Some(key), what).await
            }
            Verdict::Answered(answer) => self.to_client(answer.to_string().as_bytes()).await,
        }
    }

    /// What the server says, until it says nothing more.
    async fn server_says(&self, mut server: impl AsyncBufRead + Unpin) -> io::Result<()> {
        while let Some(message) = line(&mut server).await? {
            if !message.is_empty() {
                self.heard(&message).await?;
            }
        }
        Ok(())
    }

    async fn heard(&self, message: &[u8]) -> io::Result<()> {
        let (key, said) = match heard(message) {
            Heard::On => return self.to_client(message).await,
            Heard::Answer(key, said) => (key, said),
            Heard::Dropped(why) => {
                tracing::warn!(why, "a line of the server goes no further");
                return Ok(());
            }
        };
        match self.sides.waited(&key) {
            None => {
                tracing::warn!("the server answers what nobody waits for; that goes no further");
                Ok(())
            }
            Some(Waits::Plain) => self.to_client(message).await,
            Some(Waits::Us(tell)) => {
                // Whoever waited may have gone.
                drop(tell.send(said));
                Ok(())
            }
            Some(Waits::Note(told)) => {
                let noted = noted(message, &told);
                self.to_client(noted.as_deref().unwrap_or(message)).await
            }
            Some(Waits::List(list, begins)) => {
                let answer = self.list(list, begins, message, &said).await;
                self.to_client(&answer).await
            }
        }
    }

    async fn list(&self, list: &List, begins: bool, message: &[u8], said: &Json) -> Vec<u8> {
        let Some(result) = said.get("result") else {
            return message.to_vec();
        };
        if list.of == "tools" {
            self.sides.saw(self.asker.definitions(result), begins);
        }
        let id = said.get("id").unwrap_or(&Json::Null);
        let why = match self.asker.sift(&self.sides, list, result).await {
            Ok(may) => match sifted(message, list, &may) {
                Some(shown) => return shown,
                None => "it cannot be read".to_owned(),
            },
            Err(undecided) => undecided.why,
        };
        withheld(id, &why).to_string().into_bytes()
    }
}

impl<C: AsyncWrite + Unpin + Send, S: AsyncWrite + Unpin + Send> Lists for Between<'_, C, S> {
    async fn listed(&self, id: &str, asks: Json) -> Result<Json, String> {
        let (tell, told) = oneshot::channel();
        let (key, asks) = (Json::from(id).to_string(), asks.to_string());
        let goes = self.goes_on(asks.as_bytes(), Some(key), Waits::Us(tell));
        goes.await.map_err(|error| error.to_string())?;
        told.await.map_err(|_| "it has ended".to_owned())
    }
}

/// A server's process, what it reads and what it writes; it ends at the latest when it is dropped.
pub(super) fn started(command: &[OsString]) -> Result<(Child, ChildStdin, ChildStdout), Error> {
    let Some((program, rest)) = command.split_first() else {
        return Err(Error::Usage("name the server's command after `--`".into()));
    };
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let program = program.to_string_lossy();
            Error::Usage(format!("`{program}` cannot be started: {error}"))
        })?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(to), Some(from)) => Ok((child, to, from)),
        _ => Err(Error::Failed("the server has no pipes".into())),
    }
}

/// Starts a server and stands between it and whoever speaks on standard input, until either says no
/// more or it is asked to stop.
///
/// # Errors
///
/// A server that cannot be started or that ends badly, and pipes that break.
pub async fn wrap(
    settings: Settings,
    command: &[OsString],
    stopping: impl Future<Output = ()>,
) -> Result<(), Error> {
    let asker = Asker::new(settings)?;
    let (mut child, to, from) = started(command)?;
    let between = Between {
        asker: &asker,
        sides: Sides::default(),
        client: Mutex::new(stdout()),
        server: Mutex::new(Some(to)),
    };
    let mut client = Box::pin(between.client_says(BufReader::new(stdin())));
    let mut server = Box::pin(between.server_says(BufReader::new(from)));
    let ended = tokio::select! {
        ended = &mut server => ended,
        ended = &mut client => {
            ended?;
            // What it still has to say is heard.
            timeout(ENDING, &mut server).await.unwrap_or(Ok(()))
        }
        () = stopping => return Ok(()),
    };
    ended?;
    match timeout(ENDING, child.wait()).await {
        Ok(status) => match status? {
            status if status.success() => Ok(()),
            status => Err(Error::Failed(format!("the server ended: {status}"))),
        },
        // It is killed as it is dropped.
        Err(_) => Ok(()),
    }
}
