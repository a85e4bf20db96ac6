//! Passwords of ours: kept as Argon2id, tried one at a time, and ever more slowly after mistakes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{domain::Span, wire::signed::random};

/// Fewest characters.
const LEAST: usize = 12;
/// Most bytes: what is hashed is not to be anybody's choice.
const MOST: usize = 1 << 10;
/// Mistakes that cost nothing.
const FREE: u32 = 5;
/// Longest wait after mistakes.
const WAIT: Span = Span::from_secs(900);
/// How many wait for their turn; each hash takes 19 MiB and tens of milliseconds.
const QUEUE: usize = 32;
/// Most names whose mistakes are remembered.
const NAMES: usize = 10_000;

/// A password as it is kept.
///
/// # Errors
///
/// One that will not do, or a machine without randomness.
pub(in crate::registry) fn hashed(password: &str) -> Result<Box<str>, String> {
    if password.chars().count() < LEAST {
        return Err(format!("is shorter than {LEAST} characters"));
    }
    if password.len() > MOST {
        return Err(format!("is longer than {MOST} bytes"));
    }
    let salt = random::<16>()?;
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    let hash = hash.map_err(|error| error.to_string())?;
    Ok(hash.to_string().into())
}

/// Whether a password is what was kept.
fn fits(password: &str, kept: &str) -> bool {
    PasswordHash::new(kept).is_ok_and(|kept| {
        let verified = Argon2::default().verify_password(password.as_bytes(), &kept);
        verified.is_ok()
    })
}

/// Tries passwords.
#[derive(Debug)]
pub(super) struct Tries {
    queue: Semaphore,
    turn: Semaphore,
    mistakes: Mutex<HashMap<Box<str>, (u32, Span)>>,
    /// What nobody's password is: a name that is not known takes as long as one that is.
    nobody: Box<str>,
}

/// Why a password was not tried, or is not right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is not, or there is nobody of that name.
    Password,
    /// After so many mistakes it is not tried before that long.
    Later(Span),
    /// Too many are tried.
    Busy,
}

impl Tries {
    /// Nobody has made a mistake yet.
    ///
    /// # Errors
    ///
    /// A machine without randomness.
    pub(super) fn new() -> Result<Self, String> {
        Ok(Self {
            queue: Semaphore::new(QUEUE),
            turn: Semaphore::new(1),
            mistakes: Mutex::default(),
            nobody: hashed(&crate::wire::oauth::unguessable()?)?,
        })
    }

    /// Whether `password` is what was kept of `identity`, if anything is; `now` is elapsed time.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(super) async fn check(
        &self,
        identity: &str,
        password: String,
        kept: Option<Box<str>>,
        now: Span,
    ) -> Result<(), Wrong> {
        if password.len() > MOST {
            return Err(Wrong::Password);
        }
        if let Some(wait) = self.wait(identity, now) {
            return Err(Wrong::Later(wait));
        }
        // Noted before it is known: tries at the same time are as many mistakes.
        self.mistake(identity, now);
        let _place = self.queue.try_acquire().map_err(|_| Wrong::Busy)?;
        let turn = self.turn.acquire().await.map_err(|_| Wrong::Busy)?;
        let known = kept.is_some();
        let kept = kept.unwrap_or_else(|| self.nobody.clone());
        let tried = spawn_blocking(move || fits(&password, &kept)).await;
        drop(turn);
        if !known || !tried.unwrap_or(false) {
            return Err(Wrong::Password);
        }
        let mut mistakes = self.mistakes.lock().unwrap_or_else(PoisonError::into_inner);
        mistakes.remove(identity);
        Ok(())
    }

    /// How long a name waits yet.
    fn wait(&self, identity: &str, now: Span) -> Option<Span> {
        let mistakes = self.mistakes.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, at) = mistakes.get(identity).copied()?;
        let power = count.checked_sub(FREE)?;
        let wait = 1_i64.checked_shl(power.min(20)).unwrap_or(i64::MAX);
        let wait = Span::from_secs(wait).min(WAIT);
        let passed = now.saturating_sub(at);
        (passed < wait).then(|| wait.saturating_sub(passed))
    }

    fn mistake(&self, identity: &str, now: Span) {
        let mut mistakes = self.mistakes.lock().unwrap_or_else(PoisonError::into_inner);
        if mistakes.len() >= NAMES {
            // Those that wait for nothing any more.
            mistakes.retain(|_, (_, at)| now.saturating_sub(*at) < WAIT);
        }
        if mistakes.len() >= NAMES {
            mistakes.clear();
        }
        let entry = mistakes.entry(identity.into()).or_insert((0, now));
        *entry = (entry.0.saturating_add(1), now);
    }
}
