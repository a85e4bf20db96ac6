//! Messages to and from webhooks, signed as Standard Webhooks 1.0 says: HMAC-SHA256 over
//! `id.timestamp.body`.

use std::fmt;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::domain::{Span, Timestamp};

/// Fewest bytes of a secret.
const LEAST: usize = 24;
/// Most bytes of a secret.
const MOST: usize = 64;
/// How far a message's time may be from ours.
const TOLERANCE: Span = Span::from_secs(300);

/// The header with a message's id, the same at each attempt.
pub const ID: &str = "webhook-id";
/// The header with the time of the attempt, in seconds.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures.
pub const SIGNATURE: &str = "webhook-signature";

/// The secrets of an endpoint: signed with each, so that one can replace another.
#[derive(Clone)]
pub struct Secrets(Vec<Key>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads secrets, one a line: `whsec_` and base64 of 24 to 64 bytes.
    ///
    /// # Errors
    ///
    /// What is wrong, without the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<Key> = lines
            .enumerate()
            .map(|(at, line)| {
                let bytes = line
                    .strip_prefix("whsec_")
                    .and_then(|encoded| STANDARD.decode(encoded).ok())
                    .filter(|bytes| (LEAST..=MOST).contains(&bytes.len()));
                let bytes = bytes.ok_or_else(|| {
                    format!(
                        "line {}: is no secret; write `whsec_` and base64 of {LEAST} to {MOST} bytes",
                        at + 1
                    )
                })?;
                Ok(Key::new(HMAC_SHA256, &bytes))
            })
            .collect::<Result<_, String>>()?;
        if keys.is_empty() {
            return Err("holds no secret".into());
        }
        Ok(Self(keys))
    }

    /// The signatures of a message that is sent at `time`, in seconds.
    pub fn sign(&self, id: &str, time: i64, body: &[u8]) -> String {
        let signed = signed(id, &time.to_string(), body);
        let signatures: Vec<_> = self
            .0
            .iter()
            .map(|key| format!("v1,{}", STANDARD.encode(sign(key, &signed))))
            .collect();
        signatures.join(" ")
    }

    /// Whether somebody who has one of the secrets signed a message, and lately.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(
        &self,
        id: &str,
        time: &str,
        signatures: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), &'static str> {
        let sent: i64 = time
            .parse()
            .map_err(|_| "`webhook-timestamp` is no number of seconds")?;
        let sent = sent
            .checked_mul(1_000_000)
            .map(Timestamp::from_micros)
            .ok_or("`webhook-timestamp` is no time")?;
        let apart = if sent > now { sent - now } else { now - sent };
        if apart > TOLERANCE {
            return Err("`webhook-timestamp` is more than five minutes from now");
        }
        let signed = signed(id, time, body);
        let fits = signatures
            .split_whitespace()
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .any(|tag| self.0.iter().any(|key| verify(key, &signed, &tag).is_ok()));
        if fits {
            Ok(())
        } else {
            Err("`webhook-signature` does not fit")
        }
    }
}

fn signed(id: &str, time: &str, body: &[u8]) -> Vec<u8> {
    let mut signed = format!("{id}.{time}.").into_bytes();
    signed.extend_from_slice(body);
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(text: &str) -> Secrets {
        Secrets::parse(text).unwrap()
    }

    /// The example of the specification.
    #[test]
    fn a_signature_is_the_one_that_others_make() {
        let ours = secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = ours.sign(id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let then = Timestamp::from_micros(1_614_265_330_000_000);
        let check = |id: &str, time: &str, with: &str, body: &[u8], now| {
            ours.check(id, time, with, body, now).is_ok()
        };
        assert!(check(id, "1614265330", &signed, body, then));
        assert!(check(
            id,
            "1614265330",
            &format!("v1,AAAA v1a,x {signed}"),
            body,
            then
        ));
        assert!(!check("other", "1614265330", &signed, body, then));
        assert!(!check(id, "1614265331", &signed, body, then));
        assert!(!check(id, "1614265330", &signed, b"{}", then));
        assert!(!check(id, "1614265330", "", body, then));
        assert!(!check(id, "1614265330", "v1,", body, then));
        let late = then + Span::from_secs(301);
        assert!(!check(id, "1614265330", &signed, body, late));
        for time in ["", "x", "9223372036854775807", "1614265330.0"] {
            assert!(!check(id, time, &signed, body, then), "{time}");
        }
    }

    #[test]
    fn one_secret_replaces_another_while_both_are_known() {
        let old = secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let both = secrets(
            "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nwhsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
        );
        let signed = both.sign("m", 5, b"x");
        assert_eq!(signed.split(' ').count(), 2);
        let now = Timestamp::from_micros(5_000_000);
        assert!(old.check("m", "5", &signed, b"x", now).is_ok());
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_told() {
        for text in ["", "\n", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%%"] {
            let why = Secrets::parse(text).unwrap_err();
            let value = text.trim_start_matches("whsec_").trim();
            let told = ["secret", ""].contains(&value) || !why.contains(value);
            assert!(told, "{why}");
        }
        assert_eq!(
            format!("{:?}", secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
            "Secrets(1)"
        );
    }
}
