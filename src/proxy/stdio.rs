//! A server that is spoken to over its standard input and output.

use std::{ffi::OsString, io, process::Stdio, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncBufRead, AsyncWrite, AsyncWriteExt as _, BufReader, stdin, stdout},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use crate::wire::{
    carried::{Heard, heard, noted, one_line, refused, sifted, withheld},
    mcp::List,
    relay::{Asking, Said, Verdict},
};

use super::{
    Error,
    asker::{Asker, Lists, Settings},
    lines::{Line, Lines},
    sides::{Sides, Waiting, Waits},
};

/// How long the server may take to end once nobody speaks to it any more.
const ENDING: Duration = Duration::from_secs(5);
/// Most requests that are decided at a time.
const DECIDING: usize = 64;

/// A client, a server, and what goes between.
struct Between<'a, C, S> {
    asker: &'a Asker,
    sides: Sides,
    /// The client's, which both directions write to.
    client: Mutex<C>,
    /// The server's.
    server: Mutex<Option<S>>,
}

async fn put(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    to.write_all(&one_line(message)).await?;
    to.write_all(b"\n").await?;
    to.flush().await
}

impl<C: AsyncWrite + Unpin + Send, S: AsyncWrite + Unpin + Send> Between<'_, C, S> {
    async fn to_client(&self, message: &[u8]) -> io::Result<()> {
        put(&mut *self.client.lock().await, message).await
    }

    async fn tell(&self, answer: &Json) -> io::Result<()> {
        self.to_client(answer.to_string().as_bytes()).await
    }

    async fn to_server(&self, message: &[u8]) -> io::Result<()> {
        match &mut *self.server.lock().await {
            Some(server) => put(server, message).await,
            None => Err(io::Error::other("the server hears nobody any more")),
        }
    }

    /// What the client says, until it says nothing more. While something is decided, all that needs
    /// no decision goes on: the server may wait for it.
    async fn client_says(&self, from: impl AsyncBufRead + Unpin) -> io::Result<()> {
        let (tell, told) = mpsc::channel(DECIDING);
        // Both are always under way: neither holds what the other waits for while nobody goes on
        // with it.
        tokio::try_join!(self.reads(from, tell), self.decides(told))?;
        // The server is told that nobody speaks to it any more.
        *self.server.lock().await = None;
        Ok(())
    }

    async fn reads(
        &self,
        from: impl AsyncBufRead + Unpin,
        tell: mpsc::Sender<(Asking, Vec<u8>)>,
    ) -> io::Result<()> {
        let mut lines = Lines::of(from);
        while let Some(line) = lines.next().await? {
            match line {
                Line::Message(message) if message.is_empty() => {}
                Line::Message(message) => {
                    if let Some(asked) = self.said(message).await? {
                        // Whoever decides ends only with an error, which ends us as well.
                        drop(tell.send(asked).await);
                    }
                }
                Line::TooLarge => {
                    let why = "the message is larger than 16 MiB";
                    self.tell(&refused(&Json::Null, false, why)).await?;
                }
            }
        }
        Ok(())
    }

    async fn decides(&self, mut told: mpsc::Receiver<(Asking, Vec<u8>)>) -> io::Result<()> {
        let mut deciding = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(decided) = deciding.next(), if !deciding.is_empty() => decided?,
                Some((asking, message)) = told.recv(), if deciding.len() < DECIDING => {
                    deciding.push(self.asks(asking, message));
                }
                else => return Ok(()),
            }
        }
    }

    /// What has to be decided before it goes on.
    async fn said(&self, message: Vec<u8>) -> io::Result<Option<(Asking, Vec<u8>)>> {
        match self.asker.relay.said(&message) {
            Said::On(None) => self.to_server(&message).await?,
            Said::On(Some(id)) => match self.sides.waits(&id.to_string(), Waits::Plain) {
                Ok(()) => self.to_server(&message).await?,
                Err(why) => self.tell(&refused(&id, false, why)).await?,
            },
            Said::Cancels(key) => {
                self.sides.waited(&key);
                self.to_server(&message).await?;
            }
            // From now on it may be cancelled.
            Said::Asks(asking) => match self.sides.waits(&asking.key(), Waits::Decision) {
                Ok(()) => return Ok(Some((*asking, message))),
                Err(why) => self.tell(&refused(asking.id(), false, why)).await?,
            },
            Said::Refused(answer) => self.tell(&answer).await?,
            Said::Dropped(why) => tracing::warn!(why, "a message goes no further"),
        }
        Ok(None)
    }

    async fn asks(&self, asking: Asking, message: Vec<u8>) -> io::Result<()> {
        let (key, list) = (asking.key(), asking.list);
        if let Some((list, true)) = list
            && list.of == "tools"
        {
            self.sides.looks();
        }
        let verdict = match self.asker.decided(&self.sides, &asking, self).await {
            Ok(decision) => self.asker.relay.verdict(asking, &decision),
            Err(undecided) => asking.undecided(&undecided.why, undecided.asker),
        };
        match verdict {
            Verdict::On(instead, note) => {
                let what = match (list, note) {
                    (Some((list, _)), _) => Waits::List(list),
                    (None, Some(note)) => Waits::Note(note),
                    (None, None) => Waits::Plain,
                };
                if !self.sides.goes_on(&key, what) {
                    // It was cancelled meanwhile, and the server has heard so.
                    return Ok(());
                }
                self.to_server(instead.as_deref().unwrap_or(&message)).await
            }
            Verdict::Answered(answer) => match self.sides.waited(&key) {
                Some(_) => self.tell(&answer).await,
                None => Ok(()),
            },
        }
    }

    /// What the server says, until it says nothing more.
    async fn server_says(&self, from: impl AsyncBufRead + Unpin) -> io::Result<()> {
        let mut lines = Lines::of(from);
        while let Some(line) = lines.next().await? {
            match line {
                Line::Message(message) if message.is_empty() => {}
                Line::Message(message) => self.heard(&message).await?,
                Line::TooLarge => {
                    tracing::warn!(
                        "a line of the server goes no further: it is larger than 16 MiB"
                    );
                }
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
            // Nor does the server know yet of what is being decided.
            None | Some(Waits::Decision) => {
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
            Some(Waits::List(list)) => {
                let answer = self.list(list, message, &said).await;
                self.to_client(&answer).await
            }
        }
    }

    async fn list(&self, list: &List, message: &[u8], said: &Json) -> Vec<u8> {
        let Some(result) = said.get("result") else {
            return message.to_vec();
        };
        if list.of == "tools" {
            self.sides.saw(self.asker.definitions(result));
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
        let key = Json::from(id).to_string();
        self.sides.waits(&key, Waits::Us(tell))?;
        let _waiting = Waiting(&self.sides, key);
        let goes = self.to_server(asks.to_string().as_bytes()).await;
        goes.map_err(|error| error.to_string())?;
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
        sides: Sides::new(true),
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use crate::wire::relay::Relay;

    use crate::runtime::channel::Place;

    use super::{super::asker::Shows, *};

    /// What is refused at once and what is decided first are told through one pipe that is full most
    /// of the time: each is told, and none waits for another that nobody goes on with.
    #[tokio::test]
    async fn nobody_waits_for_what_nobody_goes_on_with() {
        let settings = Settings {
            relay: Relay {
                server: "mcp://crm".into(),
                agent: String::new(),
                purpose: None,
                omit_large: false,
                approval: None,
            },
            shows: Shows::Permitted,
            socket: Place::named("/nonexistent/exeat.sock".into()),
            token_file: None,
        };
        let asker = Asker::new(settings).unwrap();
        let (to_client, mut client) = duplex(8);
        let (to_server, mut server) = duplex(8);
        let between = Between {
            asker: &asker,
            sides: Sides::new(true),
            client: Mutex::new(to_client),
            server: Mutex::new(Some(to_server)),
        };
        let count = 20;
        let said: String = (0..count)
            .map(|id| {
                let asks = r#""method":"resources/read","params":{"uri":"file:///a"}"#;
                format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{asks}}}\n{{\n[]\n")
            })
            .collect();
        let says = async {
            between.client_says(said.as_bytes()).await.unwrap();
            // Whoever listens hears that it is over.
            drop(between);
        };
        let (mut heard, mut at_the_server) = (String::new(), String::new());
        let all = async {
            tokio::join!(
                says,
                client.read_to_string(&mut heard),
                server.read_to_string(&mut at_the_server)
            )
        };
        let ((), told, passed) = timeout(Duration::from_mins(1), all).await.unwrap();
        assert!(told.is_ok() && passed.is_ok());
        assert_eq!(heard.lines().count(), 3 * count, "{heard}");
        assert_eq!(at_the_server, "");
    }
}
