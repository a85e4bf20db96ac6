//! An HTTP server that takes down what it is sent, and answers as it is told to.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Got {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Got {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// What it is about, in the format of Standard Webhooks.
    pub fn news(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

#[derive(Debug, Default)]
struct Held {
    got: Vec<Got>,
    answers: VecDeque<String>,
    always: String,
    pages: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct Receiver {
    pub address: SocketAddr,
    held: Arc<Mutex<Held>>,
}

impl Receiver {
    /// One that answers every request with 204.
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = Arc::new(Mutex::new(Held {
            always: "204 No Content\r\n".into(),
            ..Held::default()
        }));
        let receiver = Self {
            address,
            held: Arc::clone(&held),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let held = Arc::clone(&held);
                tokio::spawn(async move { serve(stream, &held).await });
            }
        });
        receiver
    }

    /// Answers the next requests so, with a status line and headers.
    pub fn answer(&self, answers: &[&str]) {
        let mut held = self.held.lock().unwrap();
        held.answers
            .extend(answers.iter().map(|answer| format!("{answer}\r\n")));
    }

    /// Answers so from now on.
    pub fn always(&self, answer: &str) {
        self.held.lock().unwrap().always = format!("{answer}\r\n");
    }

    /// Answers a path with a page.
    pub fn page(&self, path: &str, body: &str) {
        let mut held = self.held.lock().unwrap();
        held.pages.insert(path.into(), body.into());
    }

    pub fn got(&self) -> Vec<Got> {
        self.held.lock().unwrap().got.clone()
    }

    /// Waits for so many requests; the time it may take is no part of any claim.
    pub async fn wait_for(&self, count: usize) -> Vec<Got> {
        for _ in 0..2_000 {
            let got = self.got();
            if got.len() >= count {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "{} requests, not {count}: {:#?}",
            self.got().len(),
            self.got()
        );
    }
}

async fn serve(stream: TcpStream, held: &Mutex<Held>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length");
    let length = length.map_or(Some(0), |length| length.parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let (answer, page) = {
        let mut held = held.lock().unwrap();
        let page = held.pages.get(&path).cloned();
        held.got.push(Got {
            path,
            headers,
            body,
        });
        if page.is_some() {
            ("200 OK\r\n".to_owned(), page)
        } else {
            let always = held.always.clone();
            (held.answers.pop_front().unwrap_or(always), None)
        }
    };
    let page = page.unwrap_or_default();
    let length = page.len();
    let text =
        format!("HTTP/1.1 {answer}content-length: {length}\r\nconnection: close\r\n\r\n{page}");
    stream.get_mut().write_all(text.as_bytes()).await.ok()
}
