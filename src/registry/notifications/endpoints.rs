//! Who is told, as the settings say.

use std::{collections::BTreeSet, path::Path};

use super::sources;
use crate::{
    config::{Source, WebhookEndpoint, Webhooks},
    domain::{DomainId, News, Notice},
    registry::{inbox::Source as EventSource, view::View},
    runtime::{
        http::{Caller, callable},
        reachable::Net,
    },
    wire::{message::Format, webhook::Secrets},
};

/// Somebody who is told.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Endpoint {
    /// What it is called here.
    pub name: Box<str>,
    /// Where.
    pub url: http::Uri,
    /// How it reads messages.
    pub format: Format,
    /// What messages are signed with; Slack and Teams look at no signature.
    pub secrets: Option<Secrets>,
    events: Option<BTreeSet<News>>,
    domains: Vec<DomainId>,
    /// What sends to it.
    pub caller: Caller,
}

impl Endpoint {
    /// Whether it is told of something, as domains stand.
    pub(in crate::registry) fn wants(&self, notice: &Notice, view: &View) -> bool {
        // A test is for whoever it was sent to.
        if notice.news == News::Test {
            return false;
        }
        if self
            .events
            .as_ref()
            .is_some_and(|events| !events.contains(&notice.news))
        {
            return false;
        }
        if self.domains.is_empty() {
            return true;
        }
        notice.domains.iter().any(|domain| {
            let mut above = view.snapshot.domains_above(domain);
            self.domains.contains(domain) || above.any(|above| self.domains.contains(&above.id))
        })
    }

    /// Where it is, without what may be a secret of it.
    pub(in crate::registry) fn place(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let host = self.url.authority().map_or("", |host| host.as_str());
        format!("{scheme}://{host}")
    }
}

/// Who is told, and where people look at it.
#[derive(Debug, Default)]
pub(in crate::registry) struct Outside {
    /// Who is told.
    pub endpoints: Vec<Endpoint>,
    /// Where people look.
    pub site: Option<String>,
    /// Who may tell us.
    pub sources: Vec<EventSource>,
}

impl Outside {
    /// Reads the file that says so.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, a line each, with its place.
    pub(in crate::registry) fn read(path: &Path) -> Result<Self, String> {
        let (source, file) = Source::read::<Webhooks>(path)?;
        let mut wrong = Vec::new();
        let mut outside = Self::default();
        if let Some(site) = &file.public_url {
            match callable(site) {
                Ok(_) => outside.site = Some(site.clone()),
                Err(why) => wrong.push(source.wrong("public_url", &why)),
            }
        }
        let mut names = BTreeSet::new();
        for (at, endpoint) in file.endpoints.iter().enumerate() {
            let field = |name: &str| format!("endpoints[{at}].{name}");
            if !names.insert(&endpoint.name) {
                wrong.push(source.wrong(&field("name"), "is another endpoint's already"));
            }
            match checked(&source, &field, endpoint) {
                Ok(endpoint) => outside.endpoints.push(endpoint),
                Err(more) => wrong.extend(more),
            }
        }
        match sources::checked(&source, &file.sources) {
            Ok(sources) => outside.sources = sources,
            Err(more) => wrong.extend(more),
        }
        if wrong.is_empty() {
            Ok(outside)
        } else {
            Err(wrong.join("\n"))
        }
    }
}

/// A name that is good in a path, a metric and a table.
pub(in crate::registry) fn named(text: &str) -> Result<Box<str>, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
        return Err("is no name; use up to 64 letters, digits, `-`, `.` and `_`".into());
    }
    Ok(text.into())
}

/// Addresses that are meant although they are within.
pub(in crate::registry) fn allowed(texts: &[String]) -> Result<Vec<Net>, String> {
    texts.iter().map(|text| Net::parse(text)).collect()
}

fn checked(
    source: &Source,
    field: &impl Fn(&str) -> String,
    endpoint: &WebhookEndpoint,
) -> Result<Endpoint, Vec<String>> {
    let WebhookEndpoint {
        name,
        url,
        url_file,
        secret_file,
        format,
        events,
        domains,
        allow,
        ca,
    } = endpoint;
    let mut wrong = Vec::new();
    let mut take = |name: &str, why: String| wrong.push(source.wrong(&field(name), &why));
    let name = named(name).map_err(|why| take("name", why)).ok();
    let format = Format::parse(format)
        .ok_or_else(|| {
            let names: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
            take(
                "format",
                format!("`{format}` is not known; use one of {}", names.join(", ")),
            );
        })
        .ok();
    let url = match (url, url_file) {
        (Some(url), None) => callable(url).map_err(|why| take("url", why)).ok(),
        (None, Some(file)) => source
            .text(file)
            // What the file holds is not told.
            .and_then(|text| callable(text.trim()).map_err(|_| "holds no address".to_owned()))
            .map_err(|why| take("url_file", why))
            .ok(),
        (Some(_), Some(_)) | (None, None) => {
            take("url", "say either `url` or `url_file`".into());
            None
        }
    };
    let signs = matches!(format, Some(Format::Standard | Format::CloudEvents));
    if secret_file.is_none() && signs {
        take("secret_file", "is missing: messages are signed; write a file with `whsec_` and base64 of 24 bytes or more, such as from `openssl rand -base64 32`".into());
    }
    let secrets = secret_file.as_ref().and_then(|file| {
        source
            .text(file)
            .and_then(|text| Secrets::parse(&text))
            .map_err(|why| take("secret_file", why))
            .ok()
    });
    let events = chosen(events).map_err(|why| take("events", why)).ok();
    let domains: Vec<DomainId> = domains
        .iter()
        .filter_map(|id| {
            DomainId::parse(id)
                .map_err(|error| take("domains", error.to_string()))
                .ok()
        })
        .collect();
    let ca = ca.as_deref().map(|ca| source.beside(ca));
    let caller = allowed(allow)
        .map_err(|why| take("allow", why))
        .ok()
        .and_then(|allow| {
            Caller::new(allow, ca.as_deref(), None)
                .map_err(|why| take("ca", why))
                .ok()
        });
    match (name, url, format, events, caller) {
        (Some(name), Some(url), Some(format), Some(events), Some(caller)) if wrong.is_empty() => {
            Ok(Endpoint {
                name,
                url,
                format,
                secrets,
                events,
                domains,
                caller,
            })
        }
        _ => Err(wrong),
    }
}

/// What is told, by names that may end in `*`; everything where none is named.
fn chosen(names: &[String]) -> Result<Option<BTreeSet<News>>, String> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut chosen = BTreeSet::new();
    for name in names {
        let meant = |news: &News| match name.strip_suffix('*') {
            Some(begins) => news.name().starts_with(begins),
            None => news.name() == name,
        };
        let meant: Vec<News> = News::ALL.into_iter().filter(meant).collect();
        chosen.extend(&meant);
        if meant.is_empty() {
            let all: Vec<_> = News::ALL.iter().map(|news| news.name()).collect();
            return Err(format!(
                "`{name}` is nothing that is told; use of {}, or the beginning of some and `*`",
                all.join(", ")
            ));
        }
    }
    Ok(Some(chosen))
}
