//! What people and systems elsewhere are told: that something happened, and where to look.

use super::{DomainId, Timestamp};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum News {
    /// Somebody asks for an exception, and people have to decide.
    ExceptionRequested,
    /// It was granted.
    ExceptionApproved,
    /// It was denied.
    ExceptionDenied,
    /// Nobody decides any more: it was withdrawn, or its deadline passed.
    ExceptionLapsed,
    /// It begins to hold, some time after it was granted.
    ExceptionActivated,
    /// It ends soon.
    ExceptionExpiring,
    /// It ended when it was to.
    ExceptionExpired,
    /// It was taken back.
    ExceptionRevoked,
    /// It is no longer needed.
    ExceptionClosed,
    /// It holds no more until people look at it again.
    ExceptionInvalidated,
    /// People looked again, and it holds.
    ExceptionRevalidated,
    /// It holds no more unless people look at it soon.
    ExceptionRevalidationDue,
    /// Nobody has decided, and the deadline is near.
    ExceptionUndecided,
    /// What is owed after an override is due soon.
    ExceptionDebtDue,
    /// It was needed where it does not hold, for the first time since it holds.
    ExceptionOutOfScope,
    /// A control fails for a subject, or its exception covers that no more.
    ControlFailed,
    /// It passes again.
    ControlRecovered,
    /// Somebody proposes a control that denies less.
    ControlProposed,
    /// What was proposed was decided.
    ControlDecided,
    /// A caller saw a facet to differ from what is governed.
    AgentContextChanged,
    /// Every question of it is denied.
    AgentFrozen,
    /// It is answered again.
    AgentThawed,
    /// A control, domain, credential, subject or person was taken back.
    Revoked,
    /// An incident began.
    IncidentOpened,
    /// It is over.
    IncidentResolved,
    /// Somebody tries whether they are told.
    Test,
}

impl News {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::ExceptionRequested,
        Self::ExceptionApproved,
        Self::ExceptionDenied,
        Self::ExceptionLapsed,
        Self::ExceptionActivated,
        Self::ExceptionExpiring,
        Self::ExceptionExpired,
        Self::ExceptionRevoked,
        Self::ExceptionClosed,
        Self::ExceptionInvalidated,
        Self::ExceptionRevalidated,
        Self::ExceptionRevalidationDue,
        Self::ExceptionUndecided,
        Self::ExceptionDebtDue,
        Self::ExceptionOutOfScope,
        Self::ControlFailed,
        Self::ControlRecovered,
        Self::ControlProposed,
        Self::ControlDecided,
        Self::AgentContextChanged,
        Self::AgentFrozen,
        Self::AgentThawed,
        Self::Revoked,
        Self::IncidentOpened,
        Self::IncidentResolved,
        Self::Test,
    ];

    /// The name as told, a family and what happened in it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExceptionRequested => "exception.requested",
            Self::ExceptionApproved => "exception.approved",
            Self::ExceptionDenied => "exception.denied",
            Self::ExceptionLapsed => "exception.lapsed",
            Self::ExceptionActivated => "exception.activated",
            Self::ExceptionExpiring => "exception.expiring",
            Self::ExceptionExpired => "exception.expired",
            Self::ExceptionRevoked => "exception.revoked",
            Self::ExceptionClosed => "exception.closed",
            Self::ExceptionInvalidated => "exception.invalidated",
            Self::ExceptionRevalidated => "exception.revalidated",
            Self::ExceptionRevalidationDue => "exception.revalidation_due",
            Self::ExceptionUndecided => "exception.undecided",
            Self::ExceptionDebtDue => "exception.debt_due",
            Self::ExceptionOutOfScope => "exception.out_of_scope",
            Self::ControlFailed => "control.failed",
            Self::ControlRecovered => "control.recovered",
            Self::ControlProposed => "control.proposed",
            Self::ControlDecided => "control.decided",
            Self::AgentContextChanged => "agent.context_changed",
            Self::AgentFrozen => "agent.frozen",
            Self::AgentThawed => "agent.thawed",
            Self::Revoked => "revocation.issued",
            Self::IncidentOpened => "incident.opened",
            Self::IncidentResolved => "incident.resolved",
            Self::Test => "test",
        }
    }

    /// What is called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|news| news.name() == name)
    }

    /// What it is about, as manifests call it.
    pub fn subject(self) -> &'static str {
        match self {
            Self::ExceptionRequested
            | Self::ExceptionApproved
            | Self::ExceptionDenied
            | Self::ExceptionLapsed
            | Self::ExceptionActivated
            | Self::ExceptionExpiring
            | Self::ExceptionExpired
            | Self::ExceptionRevoked
            | Self::ExceptionClosed
            | Self::ExceptionInvalidated
            | Self::ExceptionRevalidated
            | Self::ExceptionRevalidationDue
            | Self::ExceptionUndecided
            | Self::ExceptionDebtDue
            | Self::ExceptionOutOfScope => "exception",
            Self::ControlFailed | Self::ControlRecovered => "finding",
            Self::ControlProposed | Self::ControlDecided => "proposal",
            Self::AgentContextChanged | Self::AgentFrozen | Self::AgentThawed => "agent",
            Self::Revoked => "revocation",
            Self::IncidentOpened | Self::IncidentResolved => "incident",
            Self::Test => "endpoint",
        }
    }
}

/// One thing that happened. It is thin: what there is to decide is read where it is kept, by
/// whoever may, and nothing is done by following it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub news: News,
    /// The id of what it is about.
    pub about: Box<str>,
    /// In which domains: of an exception all that it reaches into.
    pub domains: Vec<DomainId>,
    /// When.
    pub time: Timestamp,
    /// A few facts, by name.
    pub facts: Vec<(Box<str>, Box<str>)>,
}

impl Notice {
    /// One without facts.
    pub fn new(news: News, about: &str, time: Timestamp) -> Self {
        Self {
            news,
            about: about.into(),
            domains: Vec::new(),
            time,
            facts: Vec::new(),
        }
    }

    /// It with one fact more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// It in a domain.
    #[must_use]
    pub fn of(mut self, domain: impl IntoIterator<Item = DomainId>) -> Self {
        self.domains = domain.into_iter().collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_piece_of_news_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<_> = News::ALL.into_iter().map(News::name).collect();
        assert_eq!(names.len(), News::ALL.len());
        for news in News::ALL {
            assert_eq!(News::parse(news.name()), Some(news));
        }
        assert_eq!(News::parse("exception"), None);
    }
}
