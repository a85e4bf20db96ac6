//! Who callers are, and who may speak for others.

use std::path::PathBuf;

use crate::domain::SubjectId;

use super::load::{Settings, Wrong};

/// Who a caller is, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The sidecar stands next to this one subject.
    Bound(SubjectId),
    /// The operating system's word for who is at the other end of the Unix socket, by user id.
    Peers(Vec<(u32, SubjectId)>),
    /// The SPIFFE id of the client's certificate, within this trust domain.
    Spiffe(String),
    /// The token that comes with each call.
    Tokens(Box<Tokens>),
    /// Whatever the caller says.
    Asserted,
}

/// Whose tokens count; one of the two is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Those that an issuer has signed.
    pub issued: Option<Issued>,
    /// Those of a list: lines of `sha256:DIGEST SUBJECT`.
    pub listed: Option<PathBuf>,
}

/// Tokens that an issuer has signed (RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The file of its keys: a JSON Web Key Set.
    pub keys: PathBuf,
    /// What they say as `iss`.
    pub issuer: Box<str>,
    /// What they say as `aud`.
    pub audience: Box<str>,
    /// What stands before their subjects here.
    pub prefix: Box<str>,
}

/// The key under which a proxy leaves what a token says, and the prefix of its subjects here.
pub type TokenSource = (Box<str>, Box<str>);

/// `KEY=PREFIX`.
pub(super) fn token_source(text: &str) -> Result<TokenSource, String> {
    match text.trim().split_once('=') {
        Some((key, prefix)) if !key.is_empty() && !prefix.is_empty() => {
            Ok((key.into(), prefix.into()))
        }
        _ => Err(format!("`{text}` is not KEY=PREFIX")),
    }
}

/// Who may speak for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// A process of this user on the Unix socket.
    Uid(u32),
    /// Whoever has a client certificate with this id.
    Spiffe(Box<str>),
}

impl Proxy {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(uid) = text.strip_prefix("uid:") {
            let uid = uid
                .parse()
                .map_err(|_| format!("`{uid}` is not a user id"))?;
            return Ok(Self::Uid(uid));
        }
        if text.starts_with("spiffe://") {
            return Ok(Self::Spiffe(text.into()));
        }
        Err(format!("`{text}` is neither `uid:UID` nor a SPIFFE id"))
    }
}

pub(super) fn identity(
    settings: &Settings,
    certified: bool,
    wrong: &mut Wrong,
) -> Option<Identity> {
    let subject = settings.parse("subject", wrong, |text| {
        SubjectId::parse(text).map_err(|error| error.to_string())
    });
    let peers = settings.parse("peers", wrong, |text| {
        text.split(',')
            .map(|pair| {
                let (uid, subject) = pair
                    .split_once('=')
                    .ok_or_else(|| format!("`{pair}` is not UID=SUBJECT"))?;
                let uid = uid
                    .trim()
                    .parse::<u32>()
                    .map_err(|_| format!("`{uid}` is not a user id"))?;
                Ok((
                    uid,
                    SubjectId::parse(subject.trim()).map_err(|error| error.to_string())?,
                ))
            })
            .collect::<Result<Vec<_>, String>>()
    });
    let trust_domain = settings.parse("trust_domain", wrong, |text| Ok(text.to_owned()));
    let before = wrong.0.len();
    let tokens = tokens(settings, wrong);
    let half_said = wrong.0.len() > before;
    let asserted = settings.parse("insecure_asserted_identity", wrong, |text| {
        text.parse::<bool>()
            .map_err(|_| format!("`{text}` is neither true nor false"))
    });
    if trust_domain.is_some() && !certified {
        let what =
            "`trust_domain` needs tls_certificate, tls_key and tls_client_ca, or workload_api";
        wrong.0.push(what.into());
    }
    let ways: Vec<Identity> = [
        subject.map(Identity::Bound),
        peers.map(Identity::Peers),
        trust_domain.map(Identity::Spiffe),
        tokens.map(|tokens| Identity::Tokens(Box::new(tokens))),
        asserted
            .filter(|asserted| *asserted)
            .map(|_| Identity::Asserted),
    ]
    .into_iter()
    .flatten()
    .collect();
    let [way] = ways.as_slice() else {
        // Of what is said by half enough was told.
        if ways.is_empty() && half_said {
            return None;
        }
        let what = if ways.is_empty() {
            "nothing says who callers are"
        } else {
            "more than one thing says who callers are"
        };
        wrong.0.push(format!("{what}; set one of subject, peers, trust_domain, token_keys, agent_tokens or, to try things out, insecure_asserted_identity"));
        return None;
    };
    Some(way.clone())
}

fn tokens(settings: &Settings, wrong: &mut Wrong) -> Option<Tokens> {
    let keys = settings.parse("token_keys", wrong, |text| Ok(PathBuf::from(text)));
    let listed = settings.parse("agent_tokens", wrong, |text| Ok(PathBuf::from(text)));
    let mut text = |key| settings.parse(key, wrong, |text| Ok(Box::<str>::from(text)));
    let (by, audience, prefix) = (
        text("token_issuer"),
        text("token_audience"),
        text("token_prefix"),
    );
    let issued = match (keys, by, audience) {
        (Some(keys), Some(issuer), Some(audience)) => Some(Issued {
            keys,
            issuer,
            audience,
            prefix: prefix.unwrap_or_default(),
        }),
        (None, None, None) if prefix.is_none() => None,
        _ => {
            let what = "`token_keys`, `token_issuer` and `token_audience` go together, and `token_prefix` needs them";
            wrong.0.push(what.into());
            None
        }
    };
    (issued.is_some() || listed.is_some()).then_some(Tokens { issued, listed })
}
