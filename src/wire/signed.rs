//! Statements that are signed, and keys to sign and check them with.
//!
//! What is signed begins with its purpose, so that no statement passes for one of another kind
//! (S11, reliability §4.6).

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use prost::Message;

use super::v1;

/// What a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// How an epoch began.
    Epoch,
    /// Everything in a scope at a revision.
    Snapshot,
    /// What changed from one revision to another.
    Delta,
    /// What was asked for by name.
    Entities,
    /// The head, in answer to a nonce.
    Heartbeat,
    /// What was taken back.
    Removals,
    /// A key that replaces the one it is signed with.
    Key,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 7] = [
        Self::Epoch,
        Self::Snapshot,
        Self::Delta,
        Self::Entities,
        Self::Heartbeat,
        Self::Removals,
        Self::Key,
    ];

    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Epoch => b"exeat/v1/epoch\0",
            Self::Snapshot => b"exeat/v1/snapshot\0",
            Self::Delta => b"exeat/v1/delta\0",
            Self::Entities => b"exeat/v1/entities\0",
            Self::Heartbeat => b"exeat/v1/heartbeat\0",
            Self::Removals => b"exeat/v1/removals\0",
            Self::Key => b"exeat/v1/key\0",
        }
    }

    fn bytes(self, statement: &[u8]) -> Vec<u8> {
        [self.prefix(), statement].concat()
    }
}

/// Why a statement is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// No statement was sent.
    Missing,
    /// It is signed with a key that is not trusted.
    UnknownKey(String),
    /// The signature does not fit the statement, the purpose and the key.
    BadSignature,
    /// It is signed, and cannot be read.
    Unreadable(String),
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("a signed statement is missing"),
            Self::UnknownKey(id) => write!(
                f,
                "a statement is signed with key `{id}`, which is not trusted"
            ),
            Self::BadSignature => f.write_str("a statement's signature does not fit"),
            Self::Unreadable(why) => write!(f, "a signed statement cannot be read: {why}"),
        }
    }
}

impl std::error::Error for Untrusted {}

/// A public key, as sidecars pin it: `ed25519:` and 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Reads thirty-two bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Parses the text form.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a registry's key; use `ed25519:` and 64 hex digits, as `exeat registry` prints it at its start"
            )
        };
        let hex = text.strip_prefix("ed25519:").ok_or_else(wrong)?;
        unhex(hex).map(Self).ok_or_else(wrong)
    }

    /// The key's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the key's private half signed `bytes` as they are.
    pub(super) fn vouches(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(bytes, signature)
            .is_ok()
    }

    /// What statements name it by.
    pub fn id(&self) -> String {
        hex(digest(&SHA256, &self.0)
            .as_ref()
            .get(..8)
            .unwrap_or_default())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", hex(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads as many bytes as there are to be from hex; nothing if it is no hex, or of another length.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut bytes = [0; N];
    let digits = text.as_bytes();
    if digits.len() != N.checked_mul(2)? {
        return None;
    }
    for (byte, two) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = two else { return None };
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Bytes nobody can guess.
///
/// # Errors
///
/// A system without a source of them.
pub fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    #[cfg(any(test, feature = "testing"))]
    if drawn(&mut bytes) {
        return Ok(bytes);
    }
    rand::fill(&mut bytes).map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(bytes)
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static SEED: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread's random bytes are drawn from a seed, for simulations; or they are not.
#[cfg(any(test, feature = "testing"))]
pub fn seed_random(seed: Option<u64>) {
    SEED.set(seed.map(|seed| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
}

#[cfg(any(test, feature = "testing"))]
fn drawn(bytes: &mut [u8]) -> bool {
    let Some(mut seed) = SEED.get() else {
        return false;
    };
    for byte in bytes {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        *byte = seed.to_be_bytes()[0];
    }
    SEED.set(Some(seed));
    true
}

/// A private key.
pub struct Signer {
    pair: Ed25519KeyPair,
    pin: Pin,
    id: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.pin).finish()
    }
}

impl Signer {
    /// A new key, and what to keep of it: PKCS #8.
    ///
    /// # Errors
    ///
    /// A system without random numbers.
    pub fn generate() -> Result<(Self, Vec<u8>), String> {
        let document = Ed25519KeyPair::generate_pkcs8(&rand::SystemRandom::new())
            .map_err(|_| "no key could be made".to_owned())?;
        let bytes = document.as_ref().to_vec();
        Ok((Self::read(&bytes)?, bytes))
    }

    /// Reads a key from PKCS #8.
    ///
    /// # Errors
    ///
    /// Bytes that are none.
    pub fn read(pkcs8: &[u8]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8)
            .map_err(|error| format!("is no Ed25519 key in PKCS #8: {error}"))?;
        Self::of(pair)
    }

    /// The key of a seed, for simulations that are to be repeated.
    ///
    /// # Errors
    ///
    /// A seed that is none.
    pub fn of_seed(seed: &[u8; 32]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|error| error.to_string())?;
        Self::of(pair)
    }

    fn of(pair: Ed25519KeyPair) -> Result<Self, String> {
        let pin = Pin::from_slice(pair.public_key().as_ref())
            .ok_or_else(|| "has a public key of another length".to_owned())?;
        let id = pin.id();
        Ok(Self { pair, pin, id })
    }

    /// The public key.
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Signs a statement for a purpose.
    pub fn seal(&self, purpose: Purpose, statement: &impl Message) -> v1::Signed {
        let statement = statement.encode_to_vec();
        let signature = self.pair.sign(&purpose.bytes(&statement));
        v1::Signed {
            signature: signature.as_ref().to_vec().into(),
            key_id: self.id.clone(),
            statement: statement.into(),
        }
    }

    /// Signs bytes as they are. They are to begin as no statement of a purpose does.
    pub(super) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).as_ref().to_vec()
    }
}

/// The keys a registry's statements are believed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    keys: Vec<(String, Pin)>,
}

impl Trust {
    /// Trusts one key.
    pub fn new(pin: Pin) -> Self {
        Self {
            keys: vec![(pin.id(), pin)],
        }
    }

    /// The key that was trusted last.
    pub fn newest(&self) -> Option<&Pin> {
        self.keys.last().map(|(_, pin)| pin)
    }

    /// Every key that was trusted.
    pub fn pins(&self) -> Vec<Pin> {
        self.keys.iter().map(|(_, pin)| pin.clone()).collect()
    }

    /// Trusts nothing but the key that was trusted last: who speaks now speaks with that.
    #[must_use]
    pub fn live(&self) -> Self {
        Self {
            keys: self.keys.last().cloned().into_iter().collect(),
        }
    }

    /// Reads a statement that is signed for `purpose` with a trusted key.
    ///
    /// # Errors
    ///
    /// Why it is not believed.
    pub fn open<M: Message + Default>(
        &self,
        purpose: Purpose,
        signed: Option<&v1::Signed>,
    ) -> Result<M, Untrusted> {
        let v1::Signed {
            statement,
            key_id,
            signature,
        } = signed.ok_or(Untrusted::Missing)?;
        let (_, pin) = self
            .keys
            .iter()
            .find(|(id, _)| id == key_id)
            .ok_or_else(|| Untrusted::UnknownKey(key_id.chars().take(64).collect()))?;
        UnparsedPublicKey::new(&ED25519, &pin.0)
            .verify(&purpose.bytes(statement), signature)
            .map_err(|_| Untrusted::BadSignature)?;
        M::decode(&**statement).map_err(|error| Untrusted::Unreadable(error.to_string()))
    }

    /// Follows a key's statement about its successor; the successor is trusted from then on.
    /// Statements about keys known already change nothing.
    ///
    /// # Errors
    ///
    /// A statement that is not believed.
    pub fn rotate(&mut self, signed: &v1::Signed) -> Result<bool, Untrusted> {
        let statement: v1::KeyStatement = self.open(Purpose::Key, Some(signed))?;
        let pin = Pin::from_slice(&statement.public_key)
            .ok_or_else(|| Untrusted::Unreadable("the key has another length".into()))?;
        if self.keys.iter().any(|(_, known)| *known == pin) {
            return Ok(false);
        }
        // A key that was replaced names no second successor.
        self.live()
            .open::<v1::KeyStatement>(Purpose::Key, Some(signed))?;
        self.keys.push((pin.id(), pin));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s11_a_signature_for_one_purpose_is_none_for_another() {
        let signer = Signer::of_seed(&[7; 32]).unwrap();
        let trust = Trust::new(Pin::parse(&signer.pin().to_string()).unwrap());
        let statement = v1::Era {
            log_id: vec![1; 16],
            epoch: 3,
        };
        for made in Purpose::ALL {
            let sealed = signer.seal(made, &statement);
            for read in Purpose::ALL {
                let opened = trust.open::<v1::Era>(read, Some(&sealed));
                if made == read {
                    assert_eq!(opened.as_ref(), Ok(&statement));
                } else {
                    assert_eq!(opened, Err(Untrusted::BadSignature), "{made:?} as {read:?}");
                }
            }
        }
        let mut changed = signer.seal(Purpose::Epoch, &statement);
        let mut bytes = changed.statement.to_vec();
        bytes[3] ^= 1;
        changed.statement = bytes.into();
        let opened = trust.open::<v1::Era>(Purpose::Epoch, Some(&changed));
        assert_eq!(opened, Err(Untrusted::BadSignature));
    }

    #[test]
    fn a_new_key_is_trusted_on_the_old_ones_word_alone() {
        let old = Signer::of_seed(&[1; 32]).unwrap();
        let new = Signer::of_seed(&[2; 32]).unwrap();
        let mut trust = Trust::new(old.pin().clone());
        let statement = v1::KeyStatement {
            log_id: vec![],
            public_key: new.pin().bytes().to_vec(),
            time: None,
            previous_key: old.pin().bytes().to_vec(),
        };
        let own = new.seal(Purpose::Key, &statement);
        assert!(matches!(trust.rotate(&own), Err(Untrusted::UnknownKey(_))));
        assert_eq!(trust.rotate(&old.seal(Purpose::Key, &statement)), Ok(true));
        assert_eq!(trust.newest(), Some(new.pin()));
        let later = new.seal(Purpose::Epoch, &v1::Era::default());
        assert!(trust.open::<v1::Era>(Purpose::Epoch, Some(&later)).is_ok());
    }

    #[test]
    fn a_pin_is_read_as_it_is_written() {
        for wrong in ["", "ed25519:", "ed25519:zz", "ed25519:00", "rsa:00"] {
            assert!(Pin::parse(wrong).is_err(), "{wrong}");
        }
    }
}
