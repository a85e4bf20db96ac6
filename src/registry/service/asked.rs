//! What every call begins with: who asks, and what they said.

use crate::{
    domain::Invalid,
    manifest::is_secret,
    registry::authn::Caller,
    wire::{Fault, Received},
};

/// Longest text that somebody says, in bytes.
const TEXT: usize = 4 << 10;

/// A text that is no longer than texts may be, and holds no secret.
pub(super) fn short(field: &str, text: String) -> Result<Box<str>, Fault> {
    if text.len() > TEXT {
        let invalid = Invalid::new(field, "is longer than 4 KiB", "say it shorter");
        return Err(Fault::Invalid(invalid));
    }
    if is_secret(&text) {
        let fix = "name where it is kept, and revoke it if it is one";
        let invalid = Invalid::new(field, "looks like a secret", fix);
        return Err(Fault::Invalid(invalid));
    }
    Ok(text.into())
}

/// Largest page.
const PAGE: u32 = 1_000;

/// A request with who sent it.
pub(super) fn opened<M>(request: tonic::Request<Received<M>>) -> Result<(Caller, M), Fault> {
    let (_, mut extensions, received) = request.into_parts();
    let caller = extensions
        .remove::<Caller>()
        .ok_or_else(|| Fault::Unauthenticated("nobody vouches for the caller".into()))?;
    Ok((caller, received.message?))
}

/// How many items a page has.
pub(super) fn page(size: u32) -> usize {
    let size = if size == 0 { 100 } else { size.min(PAGE) };
    usize::try_from(size).unwrap_or(100)
}
