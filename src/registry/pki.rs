//! A local certificate authority, so that one command gives mutual TLS.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::runtime::secret::write_secret;

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its SPIFFE id.
    pub identity: String,
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// A certificate authority in a folder.
#[derive(Debug)]
pub(super) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    trust_domain: String,
    year: i32,
}

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";

impl Authority {
    /// The authority of a folder; made where there is none. `year` is the present one: the
    /// authority is good for ten years and what it issues for one, each to the end of the year.
    ///
    /// # Errors
    ///
    /// Files that cannot be read or written.
    pub(super) fn of(folder: &Path, trust_domain: &str, year: i32) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
        let name = trust_domain;
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
        {
            return Err(format!(
                "`{name}` is no trust domain, such as `acme.example`"
            ));
        }
        std::fs::create_dir_all(folder).map_err(|error| wrong(&error))?;
        let (certificate, key) = (folder.join(CA), folder.join(CA_KEY));
        if !certificate.try_exists().map_err(|error| wrong(&error))? {
            let pair = KeyPair::generate().map_err(|error| wrong(&error))?;
            let mut params = CertificateParams::default();
            params
                .distinguished_name
                .push(DnType::CommonName, format!("exeat registry of {name}"));
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.subject_alt_names = vec![uri(&format!("spiffe://{name}"))?];
            params.not_before = date_time_ymd(year.saturating_sub(1), 1, 1);
            params.not_after = date_time_ymd(year.saturating_add(10), 12, 31);
            let made = params.self_signed(&pair).map_err(|error| wrong(&error))?;
            write_secret(&key, pair.serialize_pem().as_bytes()).map_err(|error| wrong(&error))?;
            write_secret(&certificate, made.pem().as_bytes()).map_err(|error| wrong(&error))?;
        }
        let text = |path: &Path| std::fs::read_to_string(path).map_err(|error| wrong(&error));
        let pair = KeyPair::from_pem(&text(&key)?).map_err(|error| wrong(&error))?;
        let issuer =
            Issuer::from_ca_cert_pem(&text(&certificate)?, pair).map_err(|error| wrong(&error))?;
        Ok(Self {
            folder: folder.to_owned(),
            issuer,
            trust_domain: name.to_owned(),
            year,
        })
    }

    /// Where the authority's certificate is.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join(CA)
    }

    /// Issues a certificate for `spiffe://TRUST-DOMAIN/PATH`, good for `hosts` as a server.
    ///
    /// # Errors
    ///
    /// A name that cannot stand in a certificate, or a file that cannot be written.
    pub(super) fn issue(
        &self,
        path: &str,
        name: &str,
        hosts: &[String],
        into: &Path,
    ) -> Result<Issued, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let identity = format!("spiffe://{}/{path}", self.trust_domain);
        let pair = KeyPair::generate().map_err(|error| wrong(&error))?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, name.to_owned());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let mut names = vec![uri(&identity)?];
        for host in hosts {
            names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    host.as_str()
                        .try_into()
                        .map_err(|_| format!("`{host}` is no host name"))?,
                ),
            });
        }
        params.subject_alt_names = names;
        params.not_before = date_time_ymd(self.year.saturating_sub(1), 1, 1);
        params.not_after = date_time_ymd(self.year.saturating_add(1), 12, 31);
        let made = params
            .signed_by(&pair, &self.issuer)
            .map_err(|error| wrong(&error))?;
        std::fs::create_dir_all(into).map_err(|error| wrong(&error))?;
        let issued = Issued {
            identity,
            certificate: into.join(format!("{name}.pem")),
            key: into.join(format!("{name}-key.pem")),
        };
        write_secret(&issued.key, pair.serialize_pem().as_bytes())
            .map_err(|error| wrong(&error))?;
        write_secret(&issued.certificate, made.pem().as_bytes()).map_err(|error| wrong(&error))?;
        Ok(issued)
    }
}

fn uri(text: &str) -> Result<SanType, String> {
    let text = text
        .try_into()
        .map_err(|_| format!("`{text}` cannot stand in a certificate"))?;
    Ok(SanType::URI(text))
}
