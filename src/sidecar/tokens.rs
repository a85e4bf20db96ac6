//! Tokens that callers bring, and whose they are: by their issuer's signature, or by a list.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::HeaderMap;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    domain::{SubjectId, Timestamp},
    runtime::{
        clock::Clock,
        files::{Stamp, read_small},
        publish::Published,
        simulated::aside,
    },
    wire::{
        jwt::{Claims, Doubt, Keys, Use},
        principal::{Acts, claimed},
        signed::sha256,
    },
};

use super::listed::Listed;

/// How often it is looked whether keys or the list have changed.
const LOOK: Duration = Duration::from_secs(2);
/// Longest file of keys, in bytes.
const KEYS: u64 = 1 << 20;
/// Most tokens that are known by heart.
const KNOWN: usize = 1_024;

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    /// Who asks.
    pub(super) subject: SubjectId,
    /// Who acts with it, or for whom, if that is somebody else (RFC 8693 §4.1).
    pub(super) acts: Option<Arc<Acts>>,
    ends: Option<Timestamp>,
}

/// What came of the token of a call; it goes with the call.
#[derive(Clone, Debug)]
pub(super) struct Borne(pub(super) Result<Arc<Bearer>, Arc<str>>);

/// The keys of an issuer, and whose tokens they were found to have signed.
#[derive(Debug, Default)]
struct Signed {
    keys: Keys,
    seen: Mutex<HashMap<[u8; 32], Arc<Bearer>>>,
}

/// One of the two files.
#[derive(Clone, Copy, Debug)]
enum File {
    Keys,
    List,
}

/// Tells whose tokens are.
#[derive(Debug)]
pub(super) struct Tokens {
    settings: config::Tokens,
    clock: Clock,
    signed: Published<Signed>,
    listed: Published<Listed>,
    /// What cannot be used of the keys, and of the list.
    problems: Mutex<[Vec<String>; 2]>,
    /// The files as they were at the start.
    stamps: [Option<Stamp>; 2],
}

impl Tokens {
    /// With the keys and the list as they are now.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or used, with its name, and the line.
    pub(super) fn read(settings: config::Tokens, clock: Clock) -> Result<Self, String> {
        let mut tokens = Self {
            settings,
            clock,
            signed: Published::default(),
            listed: Published::default(),
            problems: Mutex::default(),
            stamps: [None, None],
        };
        // Before they are read: what is written meanwhile is read again.
        tokens.stamps = File::BOTH.map(|file| Stamp::of(tokens.path(file)?));
        for file in File::BOTH {
            tokens.take(tokens.content(file)?);
        }
        match tokens.problems().first() {
            Some(why) => Err(why.clone()),
            None => Ok(tokens),
        }
    }

    /// What of the two files cannot be used.
    pub(super) fn problems(&self) -> Vec<String> {
        self.doubts().concat()
    }

    fn doubts(&self) -> MutexGuard<'_, [Vec<String>; 2]> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, file: File) -> Option<&Path> {
        match file {
            File::Keys => self.settings.issued.as_ref().map(|issued| &*issued.keys),
            File::List => self.settings.listed.as_deref(),
        }
    }

    /// Reads a file as it is now: it may block.
    fn content(&self, file: File) -> Result<Content, String> {
        let Some(path) = self.path(file) else {
            return Ok(Content::None);
        };
        let at = |why: &str| format!("{}: {why}", path.display());
        match file {
            File::Keys => {
                let text = read_small(path, KEYS).map_err(|why| at(&why))?;
                let keys = Keys::parse(&text).map_err(|why| at(&why))?;
                if keys.is_empty() {
                    return Err(at("holds no key that is understood"));
                }
                Ok(Content::Keys(keys))
            }
            File::List => {
                let (listed, wrong) = Listed::read(path).map_err(|why| at(&why))?;
                let line = |why: String| format!("{}:{why}", path.display());
                Ok(Content::List(listed, wrong.into_iter().map(line).collect()))
            }
        }
    }

    /// What was read counts from now on.
    fn take(&self, content: Content) {
        match content {
            Content::None => {}
            Content::Keys(keys) => {
                let seen = Mutex::default();
                self.signed.publish(Arc::new(Signed { keys, seen }));
                self.doubt(File::Keys, Vec::new());
            }
            Content::List(listed, wrong) => {
                for why in &wrong {
                    tracing::error!(why, "a line of tokens lists nothing");
                }
                self.listed.publish(Arc::new(listed));
                self.doubt(File::List, wrong);
            }
        }
    }

    fn doubt(&self, file: File, problems: Vec<String>) {
        let [keys, list] = &mut *self.doubts();
        *file.of(keys, list) = problems;
    }

    /// Nothing of a file counts any more.
    fn forget(&self, file: File) {
        match file {
            File::Keys => self.signed.publish(Arc::default()),
            File::List => self.listed.publish(Arc::default()),
        }
    }

    /// What comes of the token in `headers`.
    pub(super) fn borne(&self, headers: &HeaderMap) -> Borne {
        Borne(self.bearer(headers).map_err(Into::into))
    }

    fn bearer(&self, headers: &HeaderMap) -> Result<Arc<Bearer>, String> {
        let mut given = headers.get_all(http::header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return Err("bring one token: `authorization: Bearer …`".into());
        };
        let token = given.to_str().ok().and_then(|given| {
            let (scheme, token) = given.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or("the token is no bearer token")?;
        let now = self.clock.now().latest;
        let digest = sha256(token.as_bytes());
        let listed = self.listed.get();
        if let Some(subject) = listed.as_ref().and_then(|listed| listed.subject(&digest)) {
            return Ok(Arc::new(Bearer {
                subject: subject.clone(),
                acts: None,
                ends: None,
            }));
        }
        let (Some(issued), Some(signed)) = (&self.settings.issued, self.signed.get()) else {
            return Err("the token is on no list here".into());
        };
        let holds = |bearer: &Arc<Bearer>| bearer.ends.is_some_and(|ends| now < ends);
        if let Some(seen) = signed.seen().get(&digest).filter(|bearer| holds(bearer)) {
            return Ok(Arc::clone(seen));
        }
        let claims = signed.keys.claims(token, Use::Access);
        let claims = claims.map_err(|doubt| match doubt {
            Doubt::UnknownKey => "the token is signed with a key that is not known".to_owned(),
            Doubt::Wrong(why) => format!("the token {why}"),
        })?;
        let checked = claims.check(&issued.issuer, &issued.audience, Use::Access, now);
        checked.map_err(|why| format!("the token {why}"))?;
        let bearer = Arc::new(of(&claims, &issued.prefix)?);
        let mut seen = signed.seen();
        // Whoever needs more than that pays for the signature again.
        if seen.len() >= KNOWN {
            seen.clear();
        }
        seen.insert(digest, Arc::clone(&bearer));
        Ok(bearer)
    }

    /// Takes new keys and another list, until stopped. Each stands for itself: what cannot be used at two
    /// looks in a row counts no more, so that whoever is taken off a file that then breaks is refused.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        let mut watched =
            File::BOTH.map(|file| Watched::new(file, file.of(self.stamps[0], self.stamps[1])));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep(LOOK) => {}
            }
            for file in &mut watched {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = file.look(&self) => {}
                }
            }
        }
    }
}

/// What is in a file.
#[derive(Debug)]
enum Content {
    /// It is not followed.
    None,
    Keys(Keys),
    /// And which lines list nothing.
    List(Listed, Vec<String>),
}

/// A file as it is by now; nothing where it is what it was.
type Found = Result<(Option<Stamp>, Option<Result<Content, String>>), String>;

/// A file that is followed.
struct Watched {
    file: File,
    known: Option<Stamp>,
    /// At how many looks in a row it could not be used.
    broken: u8,
    /// What goes on reading, on a disk that hangs: no second one waits beside it.
    reading: Option<BoxFuture<'static, Found>>,
}

impl Watched {
    fn new(file: File, known: Option<Stamp>) -> Self {
        Self {
            file,
            known,
            broken: 0,
            reading: None,
        }
    }

    async fn look(&mut self, tokens: &Arc<Tokens>) {
        let Some(path) = tokens.path(self.file) else {
            return;
        };
        let (file, known, again) = (self.file, self.known, self.broken > 0);
        let reading = self.reading.take();
        let mut reading = reading.unwrap_or_else(|| {
            let tokens = Arc::clone(tokens);
            aside(move || {
                let stamp = tokens.path(file).and_then(Stamp::of);
                let other = again || stamp != known;
                (stamp, other.then(|| tokens.content(file)))
            })
            .boxed()
        });
        let found = timeout(LOOK, &mut reading).await;
        let found = found.unwrap_or_else(|_| {
            self.reading = Some(reading);
            Err(format!("{}: cannot be read in time", path.display()))
        });
        let content = match found {
            Ok((_, None)) => return,
            Ok((stamp, Some(content))) => {
                self.known = stamp;
                content
            }
            Err(why) => Err(why),
        };
        match content {
            Ok(content) => {
                self.broken = 0;
                tokens.take(content);
                tracing::info!(?file, "new tokens count");
            }
            Err(why) => {
                self.broken = self.broken.saturating_add(1);
                if self.broken == 1 {
                    tracing::error!(
                        why,
                        "tokens cannot be used; the old ones count until the next look"
                    );
                }
                if self.broken == 2 {
                    tokens.forget(file);
                    tracing::error!(why, "tokens cannot be used, and none of the file counts");
                }
                tokens.doubt(file, vec![why]);
            }
        }
    }
}

impl File {
    const BOTH: [Self; 2] = [Self::Keys, Self::List];

    fn of<T>(self, keys: T, list: T) -> T {
        match self {
            Self::Keys => keys,
            Self::List => list,
        }
    }
}

impl Signed {
    fn seen(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Bearer>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of whom a token says it is. One that has no end is none.
fn of(claims: &Claims, prefix: &str) -> Result<Bearer, String> {
    let ends = claims.time("exp")?.ok_or("the token has no end (`exp`)")?;
    let sub = claims.text("sub").ok_or("the token names nobody (`sub`)")?;
    let (subject, acts) = claimed(sub, claims.get("act"), claims.text("iss"), prefix)?;
    Ok(Bearer {
        subject,
        acts,
        ends: Some(ends),
    })
}
