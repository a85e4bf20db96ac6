//! Signing in with an issuer: `OpenID` Connect, the authorization code with PKCE (RFC 7636). What is
//! asked and answered; who calls whom is elsewhere.

use std::{fmt, net::IpAddr};

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use form_urlencoded::Serializer;
use http::Uri;
use serde_json::Value as Json;

use crate::domain::Timestamp;

use super::signed::{random, sha256};

/// Shortest and longest verifier, in characters (RFC 7636 §4.1).
const VERIFIER: std::ops::RangeInclusive<usize> = 43..=128;
/// Bytes of an HMAC-SHA256.
const TAG: usize = 32;

/// Where an issuer does what, by its discovery document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Where its keys are.
    pub keys: String,
    /// Where browsers are sent; nothing where nobody signs in.
    pub authorization: Option<String>,
    /// Where codes are given for tokens.
    pub token: Option<String>,
    /// Where more is said of who signed in than the token says.
    pub userinfo: Option<String>,
    /// Whether browsers come back with who sent them (RFC 9207).
    pub says_issuer: bool,
}

impl Discovered {
    /// Reads the discovery document of `issuer`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &[u8], issuer: &str) -> Result<Self, String> {
        let document: Json = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let said = |name: &str| {
            let text = document.get(name).and_then(Json::as_str);
            text.map(ToOwned::to_owned)
        };
        if said("issuer").as_deref() != Some(issuer) {
            return Err("its discovery document is of another issuer".into());
        }
        Ok(Self {
            keys: said("jwks_uri").ok_or("its discovery document has no `jwks_uri`")?,
            authorization: said("authorization_endpoint"),
            token: said("token_endpoint"),
            userinfo: said("userinfo_endpoint"),
            says_issuer: document.get("authorization_response_iss_parameter_supported")
                == Some(&Json::Bool(true)),
        })
    }
}

/// One attempt to sign in, as whoever began it knows it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// With whom, as it is called here.
    pub issuer: &'a str,
    /// Where the browser comes back to.
    pub redirect_uri: &'a str,
    /// S256 of what is shown with the code.
    pub challenge: &'a str,
}

/// What makes nonces that need not be remembered: they hold until when they are good, and for which
/// attempt alone.
#[derive(Clone)]
pub struct Seal(Key);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// One that nobody else has.
    ///
    /// # Errors
    ///
    /// A machine without randomness.
    pub fn new() -> Result<Self, String> {
        Ok(Self(Key::new(HMAC_SHA256, &random::<32>()?)))
    }

    /// The nonce of an attempt that is good until `until`.
    pub fn nonce(&self, attempt: Attempt<'_>, until: Timestamp) -> String {
        let mut nonce = until.micros().to_be_bytes().to_vec();
        let tag = sign(&self.0, &sealed(attempt, &nonce));
        nonce.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(nonce)
    }

    /// Whether a nonce is of an attempt, and still good.
    pub fn fits(&self, nonce: &str, attempt: Attempt<'_>, now: Timestamp) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else {
            return false;
        };
        let Some((until, tag)) = bytes.split_first_chunk::<8>() else {
            return false;
        };
        tag.len() == TAG
            && verify(&self.0, &sealed(attempt, until), tag).is_ok()
            && now.micros() < i64::from_be_bytes(*until)
    }
}

fn sealed(attempt: Attempt<'_>, until: &[u8]) -> Vec<u8> {
    let mut bytes = b"exeat sign-in".to_vec();
    let parts = [attempt.issuer, attempt.redirect_uri, attempt.challenge];
    for part in parts.iter().map(|part| part.as_bytes()).chain([until]) {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A verifier, or something else that is to be guessed by nobody.
///
/// # Errors
///
/// A machine without randomness.
pub fn unguessable() -> Result<String, String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// The challenge that a verifier answers (RFC 7636 §4.2, S256).
///
/// # Errors
///
/// What is no verifier.
pub fn challenge(verifier: &str) -> Result<String, &'static str> {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if !VERIFIER.contains(&verifier.len()) || !verifier.bytes().all(unreserved) {
        return Err("is no verifier: 43 to 128 letters, digits, `-`, `.`, `_` and `~`");
    }
    Ok(URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())))
}

/// Whether something is a challenge: a SHA-256 in base64url.
pub fn is_challenge(text: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(text)
        .is_ok_and(|bytes| bytes.len() == TAG)
}

/// Whether a browser may be sent back there: to a program on its own machine (RFC 8252 §7.3), by
/// address, since a name may be somebody else's; and by one path.
pub fn comes_back_here(redirect_uri: &str, path: &str) -> bool {
    let Ok(uri) = redirect_uri.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let local = bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let plain = uri
        .authority()
        .is_some_and(|all| !all.as_str().contains('@'));
    let path = uri.path() == path && uri.query().is_none();
    uri.scheme_str() == Some("http") && local && plain && path && !redirect_uri.contains('#')
}

/// What is asked of an issuer.
#[derive(Clone, Copy, Debug)]
pub struct Asks<'a> {
    /// Who asks, as the issuer knows it.
    pub client: &'a str,
    /// What for, such as `openid profile`.
    pub scope: &'a str,
    /// Comes back with the code.
    pub state: &'a str,
    /// Comes back in the token.
    pub nonce: &'a str,
    /// For a step-up: which `acr` would do, best first, or none to name. It is done anew.
    pub step_up: Option<&'a str>,
}

/// The address that a browser is sent to.
pub fn authorization_url(endpoint: &str, attempt: Attempt<'_>, asks: Asks<'_>) -> String {
    let mut query = Serializer::new(String::new());
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", asks.client)
        .append_pair("redirect_uri", attempt.redirect_uri)
        .append_pair("scope", asks.scope)
        .append_pair("state", asks.state)
        .append_pair("nonce", asks.nonce)
        .append_pair("code_challenge", attempt.challenge)
        .append_pair("code_challenge_method", "S256");
    if let Some(acr) = asks.step_up {
        // Asking how old it may be makes the issuer say how old it is.
        query
            .append_pair("prompt", "login")
            .append_pair("max_age", "0");
        if !acr.is_empty() {
            query.append_pair("acr_values", acr);
        }
    }
    let joined = if endpoint.contains('?') { '&' } else { '?' };
    format!("{endpoint}{joined}{}", query.finish())
}

/// What somebody waits for whose browser is at an issuer's.
#[derive(Clone, Copy, Debug)]
pub struct Waits<'a> {
    /// The path that it comes back to.
    pub path: &'a str,
    /// What it comes back with.
    pub state: &'a str,
    /// Who sends it back.
    pub issuer: &'a str,
    /// Whether the issuer says so itself.
    pub says_issuer: bool,
}

/// The code that a browser came back with, if that is what `target` says and it is what is waited
/// for; or why nobody is let in.
pub fn came_back(target: &str, waits: Waits<'_>) -> Option<Result<String, String>> {
    let (path, query) = target.split_once('?')?;
    let said = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let found = pairs.find(|(known, _)| known == name);
        found.map(|(_, value)| value.into_owned())
    };
    if path != waits.path || said("state").as_deref() != Some(waits.state) {
        return None;
    }
    // A code of another issuer is brought to nobody (RFC 9207 §2.4).
    match said("iss") {
        Some(issuer) if issuer != waits.issuer => {
            return Some(Err(format!(
                "{issuer} sent the browser back, and not {}",
                waits.issuer
            )));
        }
        None if waits.says_issuer => {
            return Some(Err("it is not said who sent the browser back".into()));
        }
        Some(_) | None => {}
    }
    match (said("code"), said("error")) {
        (Some(code), None) => Some(Ok(code)),
        (_, Some(error)) => Some(Err(match said("error_description") {
            Some(more) => format!("{error}: {more}"),
            None => error,
        })),
        (None, None) => None,
    }
}

/// What is sent to have a code taken for a token.
pub fn token_request(client: &str, code: &str, redirect_uri: &str, verifier: &str) -> String {
    Serializer::new(String::new())
        .append_pair("grant_type", "authorization_code")
        .append_pair("client_id", client)
        .append_pair("code", code)
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("code_verifier", verifier)
        .finish()
}

/// How a client that has a secret says so (RFC 6749 §2.3.1).
pub fn basic(client: &str, secret: &str) -> String {
    use base64::engine::general_purpose::STANDARD;
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client), encoded(secret));
    format!("Basic {}", STANDARD.encode(pair))
}

/// What a code was taken for.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Says who signed in.
    pub identity: String,
    /// Good for asking more.
    pub access: Option<String>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

/// The tokens in an answer to a code.
///
/// # Errors
///
/// What the issuer said instead.
pub fn tokens(answer: &[u8]) -> Result<Tokens, String> {
    let answer: Json =
        serde_json::from_slice(answer).map_err(|_| "its answer is no JSON".to_owned())?;
    let said = |name: &str| answer.get(name).and_then(Json::as_str);
    if let Some(token) = said("id_token") {
        return Ok(Tokens {
            identity: token.to_owned(),
            access: said("access_token").map(ToOwned::to_owned),
        });
    }
    Err(match (said("error"), said("error_description")) {
        (Some(error), Some(more)) => format!("{error}: {more}"),
        (Some(error), None) => error.to_owned(),
        (None, _) => "its answer has no `id_token`; ask for the scope `openid`".into(),
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::Span;

    use super::*;

    fn noon() -> Timestamp {
        Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
    }

    #[test]
    fn a_verifier_answers_its_challenge() {
        // RFC 7636, appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap(),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
        for wrong in ["short", &"x".repeat(129), &format!("{} ", "x".repeat(50))] {
            assert!(challenge(wrong).is_err(), "{wrong}");
        }
        assert!(is_challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));
        assert!(!is_challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw") && !is_challenge(""));
        assert!(challenge(&unguessable().unwrap()).is_ok());
    }

    #[test]
    fn a_nonce_is_of_one_attempt_and_for_a_while() {
        let seal = Seal::new().unwrap();
        let attempt = Attempt {
            issuer: "corp",
            redirect_uri: "http://127.0.0.1:9/",
            challenge: "c",
        };
        let until = noon() + Span::from_secs(600);
        let nonce = seal.nonce(attempt, until);
        assert!(seal.fits(&nonce, attempt, noon()));
        assert!(!seal.fits(&nonce, attempt, until), "it is over");
        for other in [
            Attempt {
                issuer: "corph",
                ..attempt
            },
            Attempt {
                redirect_uri: "http://127.0.0.1:8/",
                ..attempt
            },
            Attempt {
                challenge: "d",
                ..attempt
            },
            // The same bytes, cut elsewhere.
            Attempt {
                issuer: "corphttp:",
                redirect_uri: "//127.0.0.1:9/",
                ..attempt
            },
        ] {
            assert!(!seal.fits(&nonce, other, noon()), "{other:?}");
        }
        assert!(!Seal::new().unwrap().fits(&nonce, attempt, noon()));
        for at in 0..nonce.len() {
            let mut changed = nonce.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character holds bits that are not used, and must be zero.
            assert!(!seal.fits(&changed, attempt, noon()), "{at}");
        }
        for wrong in ["", "AAAA", "\u{1f600}"] {
            assert!(!seal.fits(wrong, attempt, noon()), "{wrong}");
        }
    }

    #[test]
    fn browsers_come_back_to_this_machine_alone() {
        for right in [
            "http://127.0.0.1:4711/callback",
            "http://[::1]:80/callback",
            "http://127.0.0.1/callback",
        ] {
            assert!(comes_back_here(right, "/callback"), "{right}");
        }
        for wrong in [
            "https://127.0.0.1/callback",
            "http://localhost:80/callback",
            "http://example.com/callback",
            "http://127.0.0.1.example.com/callback",
            "http://127.0.0.1@example.com/callback",
            "http://example.com@127.0.0.1/callback",
            "http://127.0.0.1/callback#x",
            "http://127.0.0.1/callback?x=1",
            "http://127.0.0.1/",
            "http://127.0.0.1/callback/other",
            "/callback",
            "",
            "x y",
        ] {
            assert!(!comes_back_here(wrong, "/callback"), "{wrong}");
        }
    }

    #[test]
    fn what_is_asked_and_answered() {
        let attempt = Attempt {
            issuer: "corp",
            redirect_uri: "http://127.0.0.1:9/c",
            challenge: "ch",
        };
        let asks = Asks {
            client: "exeat & co",
            scope: "openid profile",
            state: "s",
            nonce: "n",
            step_up: None,
        };
        let plain = "https://idp/auth?response_type=code&client_id=exeat+%26+co&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fc&scope=openid+profile&state=s&nonce=n&code_challenge=ch&code_challenge_method=S256";
        assert_eq!(authorization_url("https://idp/auth", attempt, asks), plain);
        let strong = Asks {
            step_up: Some("gold silver"),
            ..asks
        };
        let asked = authorization_url("https://idp/auth?x=1", attempt, strong);
        assert!(
            asked.starts_with("https://idp/auth?x=1&response_type=code&"),
            "{asked}"
        );
        assert!(
            asked.ends_with("&prompt=login&max_age=0&acr_values=gold+silver"),
            "{asked}"
        );
        let body = token_request("exeat", "c/1", "http://127.0.0.1:9/", "v");
        assert_eq!(
            body,
            "grant_type=authorization_code&client_id=exeat&code=c%2F1&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2F&code_verifier=v"
        );
        assert_eq!(basic("a:b", "c d"), "Basic YSUzQWI6Yytk");
        let waits = Waits {
            path: "/callback",
            state: "s",
            issuer: "https://idp",
            says_issuer: false,
        };
        let back = |target: &str| came_back(target, waits);
        assert_eq!(back("/callback?code=a%2Fb&state=s"), Some(Ok("a/b".into())));
        let refused = "/callback?error=access_denied&error_description=not+today&state=s";
        assert_eq!(back(refused), Some(Err("access_denied: not today".into())));
        for other in [
            "/callback?code=a&state=t",
            "/callback?code=a",
            "/favicon.ico",
            "/?code=a&state=s",
            "/callback?state=s",
        ] {
            assert_eq!(back(other), None, "{other}");
        }
        // A code that another issuer was made to send here.
        let mixed = "/callback?code=a&state=s&iss=https%3A%2F%2Felse";
        assert!(back(mixed).unwrap().is_err());
        let right = "/callback?code=a&state=s&iss=https%3A%2F%2Fidp";
        assert_eq!(back(right), Some(Ok("a".into())));
        let says = Waits {
            says_issuer: true,
            ..waits
        };
        assert!(
            came_back("/callback?code=a&state=s", says)
                .unwrap()
                .is_err()
        );
        assert_eq!(came_back(right, says), Some(Ok("a".into())));
        let taken = tokens(br#"{"id_token": "x.y.z", "access_token": "a"}"#).unwrap();
        assert_eq!(
            (&*taken.identity, taken.access.as_deref()),
            ("x.y.z", Some("a"))
        );
        let refused = tokens(br#"{"error": "invalid_grant", "error_description": "used"}"#);
        assert_eq!(refused.unwrap_err(), "invalid_grant: used");
        assert!(tokens(b"{}").unwrap_err().contains("openid"));
        assert!(tokens(b"<html>").is_err());
        let document = br#"{"issuer": "https://idp", "jwks_uri": "https://idp/k", "token_endpoint": "https://idp/t"}"#;
        let discovered = Discovered::parse(document, "https://idp").unwrap();
        assert_eq!(
            (&*discovered.keys, discovered.authorization),
            ("https://idp/k", None)
        );
        assert!(Discovered::parse(document, "https://idp/").is_err());
        assert!(Discovered::parse(b"{}", "").is_err() && Discovered::parse(b"x", "").is_err());
    }
}
