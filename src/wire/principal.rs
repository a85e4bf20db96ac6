//! Who is behind a call, as whoever verified it says: by a name, a certificate or a token's claims.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::domain::SubjectId;

/// Somebody beside the subject (RFC 8693 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acts {
    /// The subject acts on behalf of this one.
    For(Box<str>),
    /// This one acts through the subject's identity: of a kind such as `HUMAN`.
    Through(Box<str>, Box<str>),
}

/// Who is behind a call, as a proxy verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Of the certificate that was shown.
    Certificate(String),
    /// As whoever asks names them: by their id.
    Named(String),
    /// Of a token of an issuer that the settings name; with whoever acts beside them.
    Claimed(SubjectId, Option<Arc<Acts>>),
    /// Of such a token of which it cannot be told whose it is, and why: that is nobody, and never
    /// whoever else it might be.
    Unclear(String),
}

/// Who asks by a token's claims, and who acts beside them. Names stand below `prefix`; `issuer` is whose
/// token it is, where that is known.
///
/// # Errors
///
/// A name that is none, or an actor that is none or of another issuer.
pub fn claimed(
    sub: &str,
    act: Option<&Json>,
    issuer: Option<&str>,
    prefix: &str,
) -> Result<(SubjectId, Option<Arc<Acts>>), String> {
    let named = |name: &str, of: &str| {
        SubjectId::parse(&format!("{prefix}{name}"))
            .map_err(|error| format!("the token's `{of}`: {error}"))
    };
    let sub = named(sub, "sub")?;
    let Some(act) = act else {
        return Ok((sub, None));
    };
    // A name means something with its issuer alone (RFC 8693 §4.1).
    if act.get("iss").is_some_and(|by| by.as_str() != issuer) {
        return Err("the token's `act` is of another issuer".into());
    }
    let text = |name: &str| act.get(name).and_then(Json::as_str);
    let actor = text("sub").ok_or("the token's `act` names nobody (`sub`)")?;
    let actor = named(actor, "act.sub")?;
    // Whoever does not say in so many words that it is no person is taken for one.
    let (subject, acts) = match text("sub_profile") {
        Some("ai_agent") => (actor, Acts::For(sub.as_str().into())),
        Some("service") => {
            let acts = Acts::Through(actor.as_str().into(), "SERVICE".into());
            (sub, acts)
        }
        _ => {
            let acts = Acts::Through(actor.as_str().into(), "HUMAN".into());
            (sub, acts)
        }
    };
    Ok((subject, Some(Arc::new(acts))))
}
