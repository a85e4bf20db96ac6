//! Tokens that are signed: what they claim, once their issuer's key says so.
//!
//! Time is an argument here: the library checks the signature, and everything else is checked
//! against our own clock.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::{Map, Value as Json, json};

use crate::domain::{Span, Timestamp};

use super::signed::{Pin, Signer};

/// Longest token, in bytes.
const LONGEST: usize = 16 << 10;
/// How far an issuer's clock may be from ours.
const SKEW: Span = Span::from_secs(60);
/// Signatures with a public key; nothing that the issuer and we would share.
const SIGNED_WITH: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Jwk>);

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It says who signed in.
    Identity,
    /// It says who calls (RFC 9068).
    Access,
    /// It says what happened (RFC 8417).
    Event,
    /// Ours: it says what was denied.
    Denial,
    /// Ours: it says what was approved.
    Approval,
}

/// What a token of ours is called for its use.
const DENIAL: &str = "exeat-denial+jwt";
const APPROVAL: &str = "exeat-approval+jwt";

/// Why a token says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is signed with a key that is not known; a newer set may have it.
    UnknownKey,
    /// It is wrong.
    Wrong(String),
}

/// What a token claims.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Map<String, Json>);

/// A token with a key's word for what it claims: of a denial or an approval. What is signed begins
/// with `eyJ`, as no statement of a purpose does (S11).
pub(super) fn token(signer: &Signer, used: Use, claims: &Json) -> String {
    let kind = match used {
        Use::Denial => DENIAL,
        Use::Approval => APPROVAL,
        Use::Identity | Use::Access | Use::Event => "jwt",
    };
    let header = json!({"alg": "EdDSA", "kid": signer.pin().id(), "typ": kind});
    let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let said = format!("{}.{}", part(&header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(signer.raw(said.as_bytes()));
    format!("{said}.{signature}")
}

/// The name of the key that a token says it is signed with.
pub fn key_of(token: &str) -> Option<String> {
    let fits = token.len() <= LONGEST;
    decode_header(fits.then_some(token)?).ok()?.kid
}

/// A public key of ours as others read it (RFC 8037).
pub fn key(pin: &Pin) -> Json {
    let x = URL_SAFE_NO_PAD.encode(pin.bytes());
    json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": pin.id(), "x": x})
}

impl Keys {
    /// Keys of ours.
    pub fn of(pins: &[Pin]) -> Self {
        let keys = pins.iter();
        Self(
            keys.filter_map(|pin| serde_json::from_value(key(pin)).ok())
                .collect(),
        )
    }

    /// Reads a JSON Web Key Set; keys that are not understood are left out.
    ///
    /// # Errors
    ///
    /// What is no key set.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set: Json = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let keys = set.get("keys").and_then(Json::as_array);
        let keys = keys.ok_or("holds no `keys`")?;
        let known = keys
            .iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
        Ok(Self(known.collect()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a token claims, if one of the keys signed it for this use.
    ///
    /// # Errors
    ///
    /// Why it says nothing.
    pub fn claims(&self, token: &str, used: Use) -> Result<Claims, Doubt> {
        let wrong = |what: &str| Doubt::Wrong(what.to_owned());
        if token.len() > LONGEST {
            return Err(wrong("is longer than 16 KiB"));
        }
        let header = decode_header(token).map_err(|_| wrong("is no signed token"))?;
        if !SIGNED_WITH.contains(&header.alg) {
            return Err(wrong("is not signed with a public key"));
        }
        // A token for one use is none for the other (RFC 8417 §4).
        let said = header.typ.as_deref().map(str::to_ascii_lowercase);
        let said = said
            .as_deref()
            .map(|typ| typ.trim_start_matches("application/"));
        let fits = match used {
            Use::Identity => matches!(said, None | Some("jwt")),
            Use::Access => matches!(said, None | Some("jwt" | "at+jwt")),
            Use::Event => said == Some("secevent+jwt"),
            Use::Denial => said == Some(DENIAL),
            Use::Approval => said == Some(APPROVAL),
        };
        if !fits {
            return Err(wrong("is a token for something else"));
        }
        let fitting = self
            .0
            .iter()
            .filter(|key| header.kid.is_none() || key.common.key_id == header.kid);
        let fitting: Vec<_> = fitting.filter(|key| signs(key, header.alg)).collect();
        // Without an id there is nothing to choose by.
        let [key] = fitting.as_slice() else {
            return Err(Doubt::UnknownKey);
        };
        let key = DecodingKey::from_jwk(key).map_err(|error| Doubt::Wrong(error.to_string()))?;
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        decode::<Map<String, Json>>(token, &key, &validation)
            .map(|data| Claims(data.claims))
            .map_err(|_| wrong("has a signature that does not fit"))
    }
}

/// Whether a key is for signatures, and with this algorithm.
fn signs(key: &Jwk, algorithm: Algorithm) -> bool {
    let common = &key.common;
    let used = common.public_key_use.as_ref();
    let operations = common.key_operations.as_ref();
    let named = common.key_algorithm.map(|named| named.to_string());
    used.is_none_or(|used| *used == PublicKeyUse::Signature)
        && operations.is_none_or(|allowed| allowed.contains(&KeyOperations::Verify))
        && named.is_none_or(|named| named == format!("{algorithm:?}"))
        && DecodingKey::from_jwk(key).is_ok_and(|key| key.family() == algorithm.family())
}

impl Claims {
    /// Adds some claims that are missing, from what the issuer says elsewhere of the same subject
    /// (OIDC Core §5.3.2).
    ///
    /// # Errors
    ///
    /// What says nothing, or is of somebody else.
    pub fn fill(&mut self, names: &[&str], said: &[u8]) -> Result<(), String> {
        let said: Map<String, Json> =
            serde_json::from_slice(said).map_err(|error| error.to_string())?;
        if said.get("sub").is_none() || said.get("sub") != self.0.get("sub") {
            return Err("is of somebody else".into());
        }
        for (name, value) in said {
            if names.contains(&&*name) {
                self.0.entry(name).or_insert(value);
            }
        }
        Ok(())
    }

    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim as it is.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name)
    }

    /// A claim that is a text or several.
    pub fn texts(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// A claim that is a time, in seconds.
    ///
    /// # Errors
    ///
    /// A claim that is something else: that is not the same as none.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, String> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        value
            .as_i64()
            .and_then(|seconds| seconds.checked_mul(1_000_000))
            .map(|micros| Some(Timestamp::from_micros(micros)))
            .ok_or_else(|| format!("`{name}` is no time"))
    }

    /// Checks that `issuer` issued it for `audience`, and that it holds now.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(
        &self,
        issuer: &str,
        audience: &str,
        used: Use,
        now: Timestamp,
    ) -> Result<(), String> {
        if self.text("iss") != Some(issuer) {
            return Err(format!("was not issued by {issuer}"));
        }
        let audiences = self.texts("aud");
        if !audiences.contains(&audience) {
            return Err(format!("is not for `{audience}`"));
        }
        // OIDC Core §3.1.3.7: with several audiences it says for whom it was made.
        let party = self.text("azp");
        let unsaid = audiences.len() > 1 && party.is_none();
        if used == Use::Identity && (unsaid || party.is_some_and(|party| party != audience)) {
            return Err(format!("was made for another party than `{audience}`"));
        }
        if self.time("exp")?.is_some_and(|end| end + SKEW <= now) {
            return Err("is over".into());
        }
        for begins in ["nbf", "iat"] {
            if self.time(begins)?.is_some_and(|begins| begins > now + SKEW) {
                return Err(format!("is of the future by its `{begins}`"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    struct Issuer(Ed25519KeyPair);

    impl Issuer {
        fn new() -> Self {
            Self(Ed25519KeyPair::generate().unwrap())
        }

        fn key(&self, id: &str) -> Json {
            let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
            json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x})
        }

        fn token(&self, header: &Json, claims: &Json) -> String {
            let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()));
            format!("{signed}.{signature}")
        }
    }

    fn keys(keys: &[Json]) -> Keys {
        Keys::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
    }

    fn wrong(what: &str) -> Result<Claims, Doubt> {
        Err(Doubt::Wrong(what.into()))
    }

    #[test]
    fn a_token_counts_if_its_issuer_signed_it_for_this_use() {
        let (ours, other) = (Issuer::new(), Issuer::new());
        let known = keys(&[
            ours.key("a"),
            other.key("b"),
            json!({"kty": "new"}),
            json!(5),
        ]);
        assert_eq!(known.len(), 3);
        let header = json!({"alg": "EdDSA", "kid": "a"});
        let claims = json!({"sub": "dana"});
        let token = ours.token(&header, &claims);
        let read = known.claims(&token, Use::Identity).unwrap();
        assert_eq!(read.text("sub"), Some("dana"));
        let does_not_fit = wrong("has a signature that does not fit");
        assert_eq!(
            known.claims(&other.token(&header, &claims), Use::Identity),
            does_not_fit
        );
        let changed = token.replacen('.', ".eyJzdWIiOiJldmUifQ.x", 1);
        assert!(known.claims(&changed, Use::Identity).is_err());
        let unknown = ours.token(&json!({"alg": "EdDSA", "kid": "c"}), &claims);
        assert_eq!(
            known.claims(&unknown, Use::Identity),
            Err(Doubt::UnknownKey)
        );
        // Two keys, and nothing to choose by.
        let nameless = ours.token(&json!({"alg": "EdDSA"}), &claims);
        assert_eq!(
            known.claims(&nameless, Use::Identity),
            Err(Doubt::UnknownKey)
        );
        assert!(
            keys(&[ours.key("a")])
                .claims(&nameless, Use::Identity)
                .is_ok()
        );
        // Neither nobody's signature, nor one with the public key as a secret.
        for algorithm in ["none", "HS256", "RS256"] {
            let token = ours.token(&json!({"alg": algorithm, "kid": "a"}), &claims);
            assert!(known.claims(&token, Use::Identity).is_err(), "{algorithm}");
        }
        let event = ours.token(
            &json!({"alg": "EdDSA", "kid": "a", "typ": "secevent+jwt"}),
            &claims,
        );
        assert!(known.claims(&event, Use::Event).is_ok());
        assert_eq!(
            known.claims(&event, Use::Identity),
            wrong("is a token for something else")
        );
        assert_eq!(
            known.claims(&token, Use::Event),
            wrong("is a token for something else")
        );
        assert_eq!(
            known.claims(&"x".repeat(20_000), Use::Event),
            wrong("is longer than 16 KiB")
        );
        for garbage in ["", ".", "..", "a.b.c", "\u{1f600}.x.y"] {
            assert!(known.claims(garbage, Use::Identity).is_err());
        }
    }

    #[test]
    fn a_key_that_is_not_for_signatures_signs_nothing() {
        let ours = Issuer::new();
        let mut key = ours.key("a");
        let token = ours.token(&json!({"alg": "EdDSA", "kid": "a"}), &json!({}));
        key["use"] = "enc".into();
        let doubt = keys(&[key.clone()]).claims(&token, Use::Identity);
        assert_eq!(doubt, Err(Doubt::UnknownKey));
        key["use"] = "sig".into();
        key["alg"] = "ES256".into();
        let doubt = keys(&[key]).claims(&token, Use::Identity);
        assert_eq!(doubt, Err(Doubt::UnknownKey));
        assert!(Keys::parse(b"{}").is_err() && Keys::parse(b"x").is_err());
    }

    #[test]
    fn what_is_said_elsewhere_is_of_the_same_subject_and_replaces_nothing() {
        let of = |json: Json| Claims(json.as_object().unwrap().clone());
        let mut claims = of(json!({"sub": "1", "name": "dana"}));
        let more = br#"{"sub": "1", "name": "eve", "groups": ["a"], "acr": "gold"}"#;
        claims.fill(&["name", "groups"], more).unwrap();
        let all = json!({"sub": "1", "name": "dana", "groups": ["a"]});
        assert_eq!(claims, of(all));
        for wrong in [&br#"{"sub": "2", "groups": []}"#[..], b"{}", b"x"] {
            assert!(claims.fill(&["groups"], wrong).is_err());
        }
        assert!(of(json!({})).fill(&["groups"], b"{}").is_err());
    }

    #[test]
    fn a_token_holds_for_whom_and_while_it_says() {
        let seconds = now().micros() / 1_000_000;
        let base =
            json!({"iss": "https://idp", "aud": "exeat", "exp": seconds + 60, "iat": seconds});
        let with = |name: &str, value: Json| {
            let mut claims = base.as_object().unwrap().clone();
            claims.insert(name.to_owned(), value);
            Claims(claims).check("https://idp", "exeat", Use::Identity, now())
        };
        assert_eq!(with("x", json!(1)), Ok(()));
        assert_eq!(with("exp", json!(seconds - 59)), Ok(()));
        assert_eq!(with("aud", json!(["exeat"])), Ok(()));
        for (name, value) in [
            ("iss", json!("https://idp/")),
            ("iss", json!(["https://idp"])),
            ("aud", json!("other")),
            ("aud", json!(["exeat", "other"])),
            ("azp", json!("other")),
            ("exp", json!(seconds - 60)),
            ("exp", json!("4102444800")),
            ("exp", json!(i64::MAX)),
            ("nbf", json!(seconds + 61)),
            ("nbf", json!("0")),
            ("iat", json!(seconds + 61)),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} {value}");
        }
        let mut both = base.as_object().unwrap().clone();
        both.insert("aud".into(), json!(["exeat", "other"]));
        both.insert("azp".into(), json!("exeat"));
        assert_eq!(
            Claims(both).check("https://idp", "exeat", Use::Identity, now()),
            Ok(())
        );
    }
}
