//! An issuer of tokens, and its pages.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData, SigningKey};
use serde_json::{Value as Json, json};

use super::receiver::Receiver;

pub struct Issuer {
    key: KeyPair,
    pub pages: Receiver,
}

impl Issuer {
    pub async fn start() -> Self {
        let issuer = Self {
            key: KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            pages: Receiver::start().await,
        };
        let document = json!({
            "issuer": issuer.name(), "jwks_uri": issuer.at("/keys"),
            "authorization_endpoint": issuer.at("/auth"), "token_endpoint": issuer.at("/token"),
        });
        let page = "/.well-known/openid-configuration";
        issuer.pages.page(page, &document.to_string());
        issuer.publish("a");
        issuer
    }

    pub fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.pages.address)
    }

    pub fn name(&self) -> String {
        self.at("")
    }

    pub fn publish(&self, id: &str) {
        self.pages.page("/keys", &self.keys(id));
    }

    /// Its key as a set of keys.
    pub fn keys(&self, id: &str) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.der_bytes());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x});
        json!({"keys": [key]}).to_string()
    }

    pub fn token(&self, key: &str, typ: &str, claims: &Json) -> String {
        let header = json!({"alg": "EdDSA", "kid": key, "typ": typ});
        let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
