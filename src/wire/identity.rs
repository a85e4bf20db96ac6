//! Who a certificate names.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The one SPIFFE id of a certificate; more than one is none (SPIFFE X509-SVID §2).
pub fn spiffe_id(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) if uri.starts_with("spiffe://") => Some(uri.to_owned()),
        _ => None,
    }
}
