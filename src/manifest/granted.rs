//! The manifest of the exception that a case grants.

use serde_json::{Map, Value as Json};

use crate::domain::{Case, Granted, Timestamp};

use super::{
    case::{bound_of, request_of},
    fingerprint::canonical,
};

/// The manifest of the exception that a case grants, or would grant if it were approved at `now`;
/// nothing while it has no terms.
pub fn exception_of(case: &Case, now: Timestamp) -> Option<String> {
    let terms = case.terms.as_ref()?;
    let Json::Object(request) = request_of(&case.request) else {
        return None;
    };
    let kept = [
        "apiVersion",
        "control_ids",
        "deviation_type",
        "justification",
        "scope",
        "compensating_conditions",
        "usage_limits",
        "owner",
        "domain",
        "evidence",
        "incident_ref",
        "defect_ref",
    ];
    let mut manifest: Map<String, Json> = request
        .into_iter()
        .filter(|(field, value)| kept.contains(&field.as_str()) && !value.is_null())
        .collect();
    let granted = case.granted.unwrap_or_else(|| {
        let (effective, expire) = case.request.window.ends(now);
        let next = terms.revalidation.map(|interval| effective + interval);
        Granted {
            effective,
            expire,
            next_revalidation: next.filter(|next| *next < expire),
            revalidated: None,
            approval: None,
        }
    });
    let mut put = |field: &str, value: Json| drop(manifest.insert(field.to_owned(), value));
    put("kind", "Exception".into());
    put("id", case.id.as_str().into());
    put("requester", case.requester.as_str().into());
    put("tier", terms.tier.name().into());
    put("bound_fingerprints", bound_of(&terms.bound));
    put("effective_time", granted.effective.to_string().into());
    put("expire_time", granted.expire.to_string().into());
    if let Some(next) = granted.next_revalidation {
        put("next_revalidation_time", next.to_string().into());
    }
    if let Some(at) = granted.revalidated {
        put("revalidated_time", at.to_string().into());
    }
    put("renewal_count", terms.renewal_count.into());
    if let Some(trace) = granted.approval {
        put("approval_trace", trace.to_string().into());
    }
    put("state", case.state.name().into());
    let mut text = String::new();
    canonical(&Json::Object(manifest), &mut text);
    Some(text)
}
