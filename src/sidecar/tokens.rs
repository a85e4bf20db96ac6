//! Tokens that callers bring, and whose they are: by their issuer's signature, or by a list.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    domain::{SubjectId, Timestamp},
    runtime::{
        clock::Clock,
        files::{Stamp, read_small},
        publish::Published,
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
            tokens.take(file)?;
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

    /// Takes a file as it is now.
    fn take(&self, file: File) -> Result<(), String> {
        let Some(path) = self.path(file) else {
            return Ok(());
        };
        let at = |why: &str| format!("{}: {why}", path.display());
        let wrong = match file {
            File::Keys => {
                let text = read_small(path, KEYS).map_err(|why| at(&why))?;
                let keys = Keys::parse(&text).map_err(|why| at(&why))?;
                if keys.is_empty() {
                    return Err(at("holds no key that is understood"));
                }
                let seen = Mutex::default();
                self.signed.publish(Arc::new(Signed { keys, seen }));
                Vec::new()
            }
            File::List => {
                let (listed, wrong) = Listed::read(path).map_err(|why| at(&why))?;
                self.listed.publish(Arc::new(listed));
                wrong
            }
        };
        let line = |why: &String| format!("{}:{why}", path.display());
        let [keys, list] = &mut *self.doubts();
        *file.of(keys, list) = wrong.iter().map(line).collect();
        Ok(())
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
        let mut known = self.stamps;
        let mut broken = [0_u8; 2];
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep(LOOK) => {}
            }
            let [keys, list] = &mut known;
            let [no_keys, no_list] = &mut broken;
            for file in File::BOTH {
                self.look(file, file.of(keys, list), file.of(no_keys, no_list));
            }
        }
    }

    /// Looks at a file that was `known`, and could not be used at `broken` looks.
    fn look(&self, file: File, known: &mut Option<Stamp>, broken: &mut u8) {
        let Some(path) = self.path(file) else { return };
        let stamp = Stamp::of(path);
        if *broken == 0 && stamp == *known {
            return;
        }
        *known = stamp;
        match self.take(file) {
            Ok(()) => {
                *broken = 0;
                for why in self.problems() {
                    tracing::error!(why, "of tokens: it lists nothing");
                }
                tracing::info!(file = %path.display(), "new tokens count");
            }
            Err(why) => {
                *broken = broken.saturating_add(1);
                if *broken == 1 {
                    tracing::error!(
                        why,
                        "of tokens: it cannot be used, and the old ones count until the next look"
                    );
                }
                if *broken == 2 {
                    self.forget(file);
                    tracing::error!(why, "of tokens: it cannot be used, and none of it counts");
                }
                let [keys, list] = &mut *self.doubts();
                *file.of(keys, list) = vec![why];
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
