//! Who may tell us, as the settings say.

use std::collections::BTreeSet;

use crate::{
    config::{EventSource, Source},
    registry::{
        inbox::{self, May, Proof},
        issuers::Issuer,
    },
    runtime::http::{Caller, callable},
    wire::webhook::Secrets,
};

use super::endpoints::{allowed, named};

/// The sources, checked.
///
/// # Errors
///
/// Everything that is wrong with them, with its place.
pub(super) fn checked(
    source: &Source,
    sources: &[EventSource],
) -> Result<Vec<inbox::Source>, Vec<String>> {
    let (mut wrong, mut known) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for (at, one) in sources.iter().enumerate() {
        let field = |name: &str| format!("sources[{at}].{name}");
        if !names.insert(&one.name) {
            wrong.push(source.wrong(&field("name"), "is another source's already"));
        }
        match proven(source, one) {
            Ok(one) => known.push(one),
            Err((name, why)) => wrong.push(source.wrong(&field(name), &why)),
        }
    }
    if wrong.is_empty() {
        Ok(known)
    } else {
        Err(wrong)
    }
}

/// A source, or the first field that is wrong.
fn proven(source: &Source, one: &EventSource) -> Result<inbox::Source, (&'static str, String)> {
    let EventSource {
        name,
        secret_file,
        issuer,
        audience,
        jwks_uri,
        allow,
        ca,
        may,
    } = one;
    let name = named(name).map_err(|why| ("name", why))?;
    let may = may
        .iter()
        .map(|text| May::ALL.into_iter().find(|may| may.name() == text));
    let may: Option<Vec<May>> = may.collect();
    let may = may.filter(|may| !may.is_empty()).ok_or_else(|| {
        let names = May::ALL.map(May::name).join(", ");
        (
            "may",
            format!("is to say what it may speak of: one or more of {names}"),
        )
    })?;
    let proof = match (secret_file, issuer) {
        (Some(file), None) => {
            let of_tokens = [audience, jwks_uri, ca].into_iter().any(Option::is_some);
            if of_tokens || !allow.is_empty() {
                let why = "is given, and `audience`, `jwks_uri`, `allow` and `ca` go with `issuer`";
                return Err(("secret_file", why.into()));
            }
            let secrets = source.text(file).and_then(|text| Secrets::parse(&text));
            Proof::Shared(secrets.map_err(|why| ("secret_file", why))?)
        }
        (None, Some(issuer)) => {
            callable(issuer).map_err(|why| ("issuer", why))?;
            let audience = audience.as_ref().filter(|audience| !audience.is_empty());
            let audience =
                audience.ok_or(("audience", "is missing: whom its tokens are for".into()))?;
            let keys_at = jwks_uri.as_deref().map(callable).transpose();
            let keys_at = keys_at.map_err(|why| ("jwks_uri", why))?;
            let allow = allowed(allow).map_err(|why| ("allow", why))?;
            let ca = ca.as_deref().map(|ca| source.beside(ca));
            let caller = Caller::new(allow, ca.as_deref(), None).map_err(|why| ("ca", why))?;
            Proof::Tokens(Box::new(Issuer::new(issuer, audience, keys_at, caller)))
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(("name", "say either `secret_file` or `issuer`".into()));
        }
    };
    Ok(inbox::Source { name, proof, may })
}
