//! Passwords of ours: kept as Argon2id, tried one at a time, and ever more slowly after mistakes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
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
    queue: Arc<Semaphore>,
    turn: Arc<Semaphore>,
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
            queue: Arc::new(Semaphore::new(QUEUE)),
            turn: Arc::new(Semaphore::new(1)),
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
        let place = Arc::clone(&self.queue)
            .try_acquire_owned()
            .map_err(|_| Wrong::Busy)?;
        // Noted before it is known: tries at the same time are as many mistakes.
        self.note(identity, now).map_err(Wrong::Later)?;
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let turn = turn.map_err(|_| Wrong::Busy)?;
        let known = kept.is_some();
        let kept = kept.unwrap_or_else(|| self.nobody.clone());
        // Whoever asked may go away; the place is taken until it is done.
        let tried = spawn_blocking(move || {
            let _both = (place, turn);
            fits(&password, &kept)
        });
        if !tried.await.unwrap_or(false) || !known {
            return Err(Wrong::Password);
        }
        let mut mistakes = self.mistakes.lock().unwrap_or_else(PoisonError::into_inner);
        mistakes.remove(identity);
        Ok(())
    }

    /// Notes a try as a mistake, unless the name has to wait yet: then it tells how long.
    fn note(&self, identity: &str, now: Span) -> Result<(), Span> {
        let mut mistakes = self.mistakes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = mistakes.get(identity).copied();
        if let Some((count, at)) = known
            && let Some(power) = count.checked_sub(FREE)
        {
            let wait = 1_i64.checked_shl(power.min(20)).unwrap_or(i64::MAX);
            let wait = Span::from_secs(wait).min(WAIT);
            let passed = now.saturating_sub(at);
            if passed < wait {
                return Err(wait.saturating_sub(passed));
            }
        }
        if known.is_none() && mistakes.len() >= NAMES {
            // Whoever waits for nothing goes first, and then whoever has waited longest: names that
            // nobody has do not wash away the mistakes of one that somebody has.
            mistakes.retain(|_, (count, at)| *count >= FREE && now.saturating_sub(*at) < WAIT);
            let oldest = mistakes.iter().min_by_key(|(_, (_, at))| *at);
            let oldest = oldest.map(|(name, _)| name.clone());
            if let Some(oldest) = oldest.filter(|_| mistakes.len() >= NAMES) {
                mistakes.remove(&oldest);
            }
        }
        let count = known.map_or(0, |(count, _)| count).saturating_add(1);
        mistakes.insert(identity.into(), (count, now));
        Ok(())
    }

    /// Whether a password is longer than any that is kept.
    pub(super) fn is_too_long(password: &str) -> bool {
        password.len() > MOST
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use argon2::{Algorithm, Params, Version};

    use super::*;

    #[test]
    fn a_password_is_what_was_kept_and_not_too_short() {
        let kept = hashed("correct horse battery").unwrap();
        assert!(
            kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{kept}"
        );
        assert!(fits("correct horse battery", &kept) && !fits("correct horse", &kept));
        assert_ne!(
            kept,
            hashed("correct horse battery").unwrap(),
            "its own salt"
        );
        assert!(!fits("", "") && !fits("x", "$argon2id$"));
        assert!(hashed("elevenchars").is_err() && hashed(&"x".repeat(MOST + 1)).is_err());
    }

    #[tokio::test]
    async fn whoever_goes_away_leaves_their_place_taken_until_it_is_done() {
        let tries = Tries::new().unwrap();
        // So slow that nothing below is faster.
        let slow = Params::new(19_456, 64, 1, None).unwrap();
        let slow = Argon2::new(Algorithm::Argon2id, Version::V0x13, slow);
        let slow = slow.hash_password_with_salt(b"x", &[7; 16]).unwrap();
        let kept = Some(slow.to_string().into());
        let mut gone = Box::pin(tries.check("user:a", "y".into(), kept, Span::ZERO));
        let waits = poll_fn(|context| Poll::Ready(gone.as_mut().poll(context).is_pending()));
        assert!(waits.await);
        drop(gone);
        assert_eq!(tries.turn.available_permits(), 0);
        assert_eq!(tries.queue.available_permits(), QUEUE - 1);
        let next = tries.check("user:b", "y".into(), None, Span::ZERO).await;
        assert_eq!(next, Err(Wrong::Password));
        assert_eq!(tries.queue.available_permits(), QUEUE);
    }

    #[test]
    fn names_that_nobody_has_wash_away_no_mistakes() {
        let tries = Tries::new().unwrap();
        for _ in 0..FREE {
            tries.note("user:dana", Span::ZERO).unwrap();
        }
        for number in 0..NAMES + 10 {
            tries.note(&format!("user:{number}"), Span::ZERO).unwrap();
        }
        assert_eq!(tries.note("user:dana", Span::ZERO), Err(Span::from_secs(1)));
        assert!(tries.mistakes.lock().unwrap().len() <= NAMES);
        assert_eq!(tries.note("user:dana", Span::from_secs(1)), Ok(()));
        assert_eq!(
            tries.note("user:dana", Span::from_secs(1)),
            Err(Span::from_secs(2))
        );
    }
}
