//! Tokens that callers bring, and whose they are: by their issuer's signature, or by a list.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    domain::{SubjectId, Timestamp},
    runtime::{clock::Clock, publish::Published},
    wire::{
        jwt::{Claims, Doubt, Keys, Use},
        signed::{sha256, unhex},
    },
};

/// How often it is looked whether keys or the list have changed.
const LOOK: Duration = Duration::from_secs(2);
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

/// Somebody beside the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acts {
    /// The subject acts on behalf of this one.
    For(Box<str>),
    /// This one acts through the subject's identity: of a kind such as `HUMAN`.
    Through(Box<str>, Box<str>),
}

/// What came of the token of a call; it goes with the call.
#[derive(Clone, Debug)]
pub(super) struct Borne(pub(super) Result<Arc<Bearer>, Arc<str>>);

/// By what tokens are known now.
#[derive(Debug)]
struct Known {
    keys: Keys,
    listed: HashMap<[u8; 32], SubjectId>,
    stamps: [Option<SystemTime>; 2],
    /// Those that were checked before.
    seen: Mutex<HashMap<[u8; 32], Arc<Bearer>>>,
}

/// Tells whose tokens are.
#[derive(Debug)]
pub(super) struct Tokens {
    settings: config::Tokens,
    clock: Clock,
    known: Published<Known>,
}

impl Tokens {
    /// With the keys and the list as they are now.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or used, with its name.
    pub(super) fn read(settings: config::Tokens, clock: Clock) -> Result<Self, String> {
        let known = Known::read(&settings)?;
        let tokens = Self {
            settings,
            clock,
            known: Published::default(),
        };
        tokens.known.publish(Arc::new(known));
        Ok(tokens)
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
        let known = self.known.get().ok_or("no tokens are known yet")?;
        let now = self.clock.now().latest;
        let digest = sha256(token.as_bytes());
        if let Some(subject) = known.listed.get(&digest) {
            return Ok(Arc::new(Bearer {
                subject: subject.clone(),
                acts: None,
                ends: None,
            }));
        }
        let holds = |bearer: &Arc<Bearer>| bearer.ends.is_some_and(|ends| now < ends);
        if let Some(seen) = known.seen().get(&digest).filter(|bearer| holds(bearer)) {
            return Ok(Arc::clone(seen));
        }
        let Some(issued) = &self.settings.issued else {
            return Err("the token is on no list here".into());
        };
        let claims = known.keys.claims(token, Use::Access);
        let claims = claims.map_err(|doubt| match doubt {
            Doubt::UnknownKey => "the token is signed with a key that is not known".to_owned(),
            Doubt::Wrong(why) => format!("the token {why}"),
        })?;
        let checked = claims.check(&issued.issuer, &issued.audience, Use::Access, now);
        checked.map_err(|why| format!("the token {why}"))?;
        let bearer = Arc::new(of(&claims, &issued.prefix)?);
        let mut seen = known.seen();
        // Whoever needs more than that pays for the signature again.
        if seen.len() >= KNOWN {
            seen.clear();
        }
        seen.insert(digest, Arc::clone(&bearer));
        Ok(bearer)
    }

    /// Takes new keys and another list, until stopped; what cannot be used changes nothing.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) -> Result<(), String> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep(LOOK) => {}
            }
            let stamps = stamps(&self.settings);
            let known = self.known.get();
            if known.is_some_and(|known| known.stamps == stamps) {
                continue;
            }
            match Known::read(&self.settings) {
                Ok(known) => {
                    self.known.publish(Arc::new(known));
                    tracing::info!("new tokens count");
                }
                Err(why) => {
                    tracing::error!(why, "the new tokens cannot be used; the old ones go on");
                }
            }
        }
    }
}

impl Known {
    fn read(settings: &config::Tokens) -> Result<Self, String> {
        // Before they are read: what is written meanwhile is read again.
        let stamps = stamps(settings);
        let at = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let mut keys = Keys::default();
        if let Some(issued) = &settings.issued {
            let text = std::fs::read(&issued.keys).map_err(|error| at(&issued.keys, &error))?;
            keys = Keys::parse(&text).map_err(|why| at(&issued.keys, &why))?;
            if keys.is_empty() {
                return Err(at(&issued.keys, &"holds no key that is understood"));
            }
        }
        let mut listed = HashMap::new();
        if let Some(list) = &settings.listed {
            let text = std::fs::read_to_string(list).map_err(|error| at(list, &error))?;
            for (number, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let number = number.saturating_add(1);
                let wrong =
                    |why: &dyn std::fmt::Display| format!("{}:{number}: {why}", list.display());
                let (digest, subject) = line
                    .strip_prefix("sha256:")
                    .and_then(|line| line.split_once(char::is_whitespace))
                    .and_then(|(digest, subject)| Some((unhex(digest)?, subject.trim())))
                    .ok_or_else(|| wrong(&"is no `sha256:DIGEST SUBJECT`"))?;
                let subject = SubjectId::parse(subject).map_err(|error| wrong(&error))?;
                if listed.insert(digest, subject).is_some() {
                    return Err(wrong(&"the token is listed twice"));
                }
            }
        }
        Ok(Self {
            keys,
            listed,
            stamps,
            seen: Mutex::default(),
        })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Bearer>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(settings: &config::Tokens) -> [Option<SystemTime>; 2] {
    let keys = settings.issued.as_ref().map(|issued| &issued.keys);
    [keys, settings.listed.as_ref()].map(|path| {
        let file = std::fs::metadata(path?).ok()?;
        file.modified().ok()
    })
}

/// Of whom a token says it is. One that has no end is none.
fn of(claims: &Claims, prefix: &str) -> Result<Bearer, String> {
    let ends = claims.time("exp")?.ok_or("the token has no end (`exp`)")?;
    let named = |name: &str, of: &str| {
        SubjectId::parse(&format!("{prefix}{name}"))
            .map_err(|error| format!("the token's `{of}`: {error}"))
    };
    let sub = claims.text("sub").ok_or("the token names nobody (`sub`)")?;
    let sub = named(sub, "sub")?;
    let text = |act: &serde_json::Value, name: &str| {
        let said = act.get(name).and_then(serde_json::Value::as_str);
        said.map(ToOwned::to_owned)
    };
    let (subject, acts) = match claims.get("act") {
        None => (sub, None),
        Some(act) => {
            // A name means something with its issuer alone (RFC 8693 §4.1).
            if act
                .get("iss")
                .is_some_and(|by| by.as_str() != claims.text("iss"))
            {
                return Err("the token's `act` is of another issuer".into());
            }
            let actor = text(act, "sub").ok_or("the token's `act` names nobody (`sub`)")?;
            let actor = named(&actor, "act.sub")?;
            // Whoever does not say in so many words that it is no person is taken for one.
            match text(act, "sub_profile").as_deref() {
                Some("ai_agent") => (actor, Some(Acts::For(sub.as_str().into()))),
                other => {
                    let kind = if other == Some("service") {
                        "SERVICE"
                    } else {
                        "HUMAN"
                    };
                    let acts = Acts::Through(actor.as_str().into(), kind.into());
                    (sub, Some(acts))
                }
            }
        }
    };
    Ok(Bearer {
        subject,
        acts: acts.map(Arc::new),
        ends: Some(ends),
    })
}
