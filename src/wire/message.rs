//! A notice as its receivers read it.

use serde_json::{Map, Value as Json, json};

use crate::domain::{DomainId, News, Notice};

/// Most of one fact, in characters: a message is thin.
const FACT: usize = 800;

/// How a receiver reads messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Standard Webhooks 1.0.
    Standard,
    /// `CloudEvents` 1.0, structured.
    CloudEvents,
    /// An incoming webhook of Slack.
    Slack,
    /// A workflow of Teams.
    Teams,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Standard, Self::CloudEvents, Self::Slack, Self::Teams];

    /// The name as written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::CloudEvents => "cloudevents",
            Self::Slack => "slack",
            Self::Teams => "teams",
        }
    }

    /// The format called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The media type of its messages.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => "application/cloudevents+json",
            Self::Standard | Self::Slack | Self::Teams => "application/json",
        }
    }
}

/// A notice with its id, and where it is told from.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The same whoever receives it, however often.
    pub id: &'a str,
    /// What happened.
    pub notice: &'a Notice,
    /// Which registry tells it.
    pub log: &'a str,
    /// Where people look at it, if there is such a place.
    pub site: Option<&'a str>,
}

impl Message<'_> {
    /// The body in a format.
    pub fn body(&self, format: Format) -> Vec<u8> {
        let body = match format {
            Format::Standard => self.standard(),
            Format::CloudEvents => self.event(),
            Format::Slack => self.slack(),
            Format::Teams => self.teams(),
        };
        body.to_string().into_bytes()
    }

    fn link(&self) -> Option<String> {
        let (site, about) = (self.site?, &self.notice.about);
        let kind = match self.notice.news.subject() {
            "exception" => "exceptions",
            "agent" => "agents",
            "incident" => "incidents",
            "proposal" => "proposals",
            "finding" => "findings",
            _ => return None,
        };
        let site = site.trim_end_matches('/');
        Some(format!("{site}/ui/{kind}/{}", in_a_path(about)))
    }

    fn data(&self) -> Json {
        let mut data = Map::new();
        let id = format!("{}_id", self.notice.news.subject());
        data.insert(id, (*self.notice.about).into());
        let domains: Vec<_> = self.notice.domains.iter().map(DomainId::as_str).collect();
        if let [first, rest @ ..] = domains.as_slice() {
            data.insert("domain".into(), (*first).into());
            if !rest.is_empty() {
                data.insert("domains".into(), domains.into());
            }
        }
        for (name, value) in &self.notice.facts {
            data.insert(name.to_string(), cut(value).into());
        }
        if let Some(link) = self.link() {
            data.insert("url".into(), link.into());
        }
        data.into()
    }

    fn standard(&self) -> Json {
        json!({
            "type": self.notice.news.name(),
            "timestamp": self.notice.time.to_string(),
            "data": self.data(),
        })
    }

    fn event(&self) -> Json {
        json!({
            "specversion": "1.0",
            "id": self.id,
            "source": format!("/exeat/{}", self.log),
            "type": format!("dev.exeat.{}.v1", self.notice.news.name()),
            "subject": &*self.notice.about,
            "time": self.notice.time.to_string(),
            "datacontenttype": "application/json",
            "data": self.data(),
        })
    }

    /// In a sentence.
    fn title(&self) -> String {
        let about = cut(&self.notice.about);
        let fact = |name: &str| {
            let known = self.notice.facts.iter().find(|(known, _)| &**known == name);
            known.map_or_else(String::new, |(_, value)| cut(value))
        };
        match self.notice.news {
            News::ExceptionRequested => format!(
                "{about} ({}) was requested by {}, and waits for {}",
                fact("tier"),
                fact("requester"),
                fact("waits_for")
            ),
            News::ExceptionApproved if !fact("skipped").is_empty() => format!(
                "{about} overrides {} during {}; {} look at it by {}",
                fact("controls"),
                fact("incident"),
                fact("skipped"),
                fact("look_by")
            ),
            News::ExceptionApproved => format!("{about} is granted until {}", fact("expire_time")),
            News::ExceptionDenied => format!("{about} is denied"),
            News::ExceptionLapsed => format!("{about} is decided on no more"),
            News::ExceptionActivated => format!("{about} begins to hold"),
            News::ExceptionExpiring => format!("{about} ends at {}", fact("due_time")),
            News::ExceptionExpired => format!("{about} has ended"),
            News::ExceptionRevoked => format!("{about} was revoked"),
            News::ExceptionClosed => format!("{about} is closed"),
            News::ExceptionInvalidated => {
                format!("{about} is suspended until people look at it again")
            }
            News::ExceptionRevalidated => format!("{about} holds again"),
            News::ExceptionRevalidationDue => {
                format!("{about} has to be looked at again by {}", fact("due_time"))
            }
            News::ExceptionUndecided => {
                format!("{about} is undecided, and lapses at {}", fact("due_time"))
            }
            News::ExceptionDebtDue => {
                format!("what {about} owes is due at {}", fact("due_time"))
            }
            News::ExceptionOutOfScope => format!(
                "{about} was needed where it does not hold, at {}",
                fact("tried_time")
            ),
            News::ControlFailed => format!(
                "{} fails for {} ({})",
                fact("control"),
                fact("subject"),
                fact("severity")
            ),
            News::ControlRecovered => {
                format!("{} passes again for {}", fact("control"), fact("subject"))
            }
            News::ControlProposed => format!(
                "{about}: {} is to deny less, and waits for {}",
                fact("control"),
                fact("waits_for")
            ),
            News::ControlDecided => {
                format!("{about}: {} is {}", fact("control"), fact("state"))
            }
            News::AgentContextChanged => format!(
                "{about} was seen with another {} than is governed",
                fact("facet")
            ),
            News::AgentFrozen => format!("{about} is frozen"),
            News::AgentThawed => format!("{about} is thawed"),
            News::Revoked => format!("{} {about} was revoked", fact("kind")),
            News::IncidentOpened => format!("incident {about}: {}", fact("title")),
            News::IncidentResolved => format!("incident {about} is resolved"),
            News::Test => format!("{about} receives messages"),
        }
    }

    fn slack(&self) -> Json {
        let mut text = plain_for_slack(&self.title());
        if let Some(link) = self.link() {
            let link = plain_for_slack(&link).replace('|', "%7C");
            let about = plain_for_slack(&self.notice.about);
            text = format!("{text} <{link}|Look at {about}>");
        }
        json!({"text": text})
    }

    fn teams(&self) -> Json {
        let facts: Vec<Json> = self
            .notice
            .facts
            .iter()
            .map(|(name, value)| json!({"title": &**name, "value": plain_for_teams(&cut(value))}))
            .collect();
        let mut card = json!({
            "type": "AdaptiveCard",
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "version": "1.4",
            "body": [
                {"type": "TextBlock", "text": plain_for_teams(&self.title()), "wrap": true, "weight": "Bolder"},
                {"type": "FactSet", "facts": facts},
            ],
        });
        if let (Some(link), Some(card)) = (self.link(), card.as_object_mut()) {
            // Opens a page; deciding needs somebody who is signed in there.
            let open = json!([{"type": "Action.OpenUrl", "title": "Look at it", "url": link}]);
            card.insert("actions".into(), open);
        }
        json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "content": card,
            }],
        })
    }
}

/// An id as a part of a path: everything else than letters, digits and a few marks is encoded.
fn in_a_path(id: &str) -> String {
    let mut path = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path = format!("{path}%{byte:02X}");
        }
    }
    path
}

fn cut(text: &str) -> String {
    if text.chars().count() <= FACT {
        return text.to_owned();
    }
    text.chars().take(FACT).chain("…".chars()).collect()
}

/// What somebody wrote hides no link under another name, and calls nobody.
fn plain_for_slack(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// What somebody wrote hides no link under another name.
fn plain_for_teams(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(
            c,
            '\\' | '[' | ']' | '(' | ')' | '*' | '_' | '`' | '#' | '<' | '>'
        ) {
            plain.push('\\');
        }
        plain.push(c);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn told(format: Format, notice: &Notice, site: Option<&str>) -> Json {
        let message = Message {
            id: "msg_1",
            notice,
            log: "ab12",
            site,
        };
        serde_json::from_slice(&message.body(format)).unwrap()
    }

    fn requested(title: &str) -> Notice {
        let time = Timestamp::parse("2026-11-22T13:41:10Z").unwrap();
        Notice::new(News::ExceptionRequested, "EX-151", time)
            .of(Some(DomainId::parse("payments").unwrap()))
            .with("tier", "HIGH")
            .with("requester", title)
            .with("waits_for", "control_owner")
    }

    #[test]
    fn each_receiver_reads_it_as_it_is_used_to() {
        let notice = requested("user:dana");
        let site = Some("https://exeat.example.com/");
        assert_eq!(
            told(Format::Standard, &notice, site),
            json!({
                "type": "exception.requested",
                "timestamp": "2026-11-22T13:41:10Z",
                "data": {
                    "exception_id": "EX-151", "domain": "payments", "tier": "HIGH",
                    "requester": "user:dana", "waits_for": "control_owner",
                    "url": "https://exeat.example.com/ui/exceptions/EX-151"
                }
            })
        );
        let event = told(Format::CloudEvents, &notice, None);
        assert_eq!(event["type"], "dev.exeat.exception.requested.v1");
        assert_eq!(event["source"], "/exeat/ab12");
        assert_eq!(
            (&event["id"], &event["specversion"]),
            (&json!("msg_1"), &json!("1.0"))
        );
        assert_eq!(event["data"].get("url"), None);
        assert_eq!(
            told(Format::Slack, &notice, site)["text"],
            "EX-151 (HIGH) was requested by user:dana, and waits for control_owner <https://exeat.example.com/ui/exceptions/EX-151|Look at EX-151>"
        );
        let card = &told(Format::Teams, &notice, site)["attachments"][0]["content"];
        assert_eq!(card["actions"][0]["type"], "Action.OpenUrl");
    }

    #[test]
    fn what_somebody_wrote_links_to_nothing() {
        let notice = requested("<!channel> <https://evil|here> [here](https://evil)");
        let slack = told(Format::Slack, &notice, None);
        assert!(!slack["text"].as_str().unwrap().contains('<'), "{slack}");
        let teams = told(Format::Teams, &notice, None).to_string();
        assert!(!teams.contains("[here](https"), "{teams}");
    }

    #[test]
    fn a_message_is_thin() {
        let mut notice = requested("x");
        for at in 0..10 {
            notice = notice.with(&format!("f{at}"), &"é".repeat(10_000));
        }
        for format in Format::ALL {
            let size = told(format, &notice, None).to_string().len();
            assert!(size < 20_000, "{format:?}: {size}");
        }
    }
}
