//! Identifiers that parse from text and cannot be swapped for each other.

use std::{borrow::Borrow, fmt, hash::Hash, sync::Arc};

use super::Invalid;

/// Longest identifier accepted, in bytes.
const LONGEST: usize = 512;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the identifier; the error carries an empty path for the caller to fill.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                let check: fn(&str) -> Result<(), Invalid> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier!(
    /// A control's id, such as `EXG-OWN-01` (governance §6.1).
    ControlId,
    |text| {
        let mut parts = text.split('-');
        let head = parts.next().unwrap_or_default();
        let tail: Vec<&str> = parts.collect();
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        };
        let fits = text.len() <= 64
            && head.len() >= 2
            && head.starts_with(|c: char| c.is_ascii_uppercase())
            && word(head)
            && !tail.is_empty()
            && tail.iter().all(|part| word(part));
        if fits {
            return Ok(());
        }
        Err(Invalid::new(
            "",
            format!("`{text}` is not a control id"),
            "use capitals and digits in two or more parts joined by `-`, such as `ACME-PII-01`",
        ))
    }
);

identifier!(
    /// A governed subject's id; a SPIFFE id is preferred (governance §6.2).
    SubjectId,
    printable
);
identifier!(
    /// The class a subject instance inherits its metadata from.
    ClassId,
    printable
);
identifier!(
    /// An exception's id, such as `EX-0142`.
    ExceptionId,
    printable
);
identifier!(
    /// A domain's id: a team, region or product line with rules of its own.
    DomainId,
    printable
);
identifier!(
    /// A group's id: its issuer and its number there, or a name of ours.
    GroupId,
    printable
);
identifier!(
    /// An incident's id, as the system that it is dealt with in says it.
    IncidentId,
    printable
);
identifier!(
    /// A content digest with its algorithm in front, such as `sha256:9c1e…`.
    Digest,
    |text| {
        printable(text)?;
        match text.split_once(':') {
            Some((algorithm, value)) if !algorithm.is_empty() && !value.is_empty() => Ok(()),
            Some(_) | None => Err(Invalid::new(
                "",
                format!("`{text}` is not a digest"),
                "write the algorithm and the value, such as `sha256:9c1e…`",
            )),
        }
    }
);

/// Refuses what is empty, too long, or holds blanks or control characters.
fn printable(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new("", "is empty", "give an id"));
    }
    if text.len() > LONGEST {
        return Err(Invalid::new(
            "",
            format!("is {} bytes long", text.len()),
            "use at most 512 bytes",
        ));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Invalid::new(
            "",
            format!(
                "`{}` holds a blank or control character",
                text.escape_debug()
            ),
            "remove it",
        ));
    }
    Ok(())
}

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalKind {
    /// A person.
    Human,
    /// An AI agent acting under its own identity.
    AiAgent,
    /// Any other workload.
    Service,
}

/// Who owns, asks or approves: text of the form `kind:name`, such as `user:alice`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    name: Arc<str>,
    kind: PrincipalKind,
}

impl Digest {
    /// The digest with these bytes, as SHA-256 gave them.
    pub fn of_sha256(bytes: &[u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }
}

impl Principal {
    /// Parses `user:…`, `agent:…` or `service:…`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        printable(text)?;
        let kind = match text.split_once(':') {
            Some(("user", name)) if !name.is_empty() => PrincipalKind::Human,
            Some(("agent", name)) if !name.is_empty() => PrincipalKind::AiAgent,
            Some(("service", name)) if !name.is_empty() => PrincipalKind::Service,
            Some(_) | None => {
                return Err(Invalid::new(
                    "",
                    format!("`{text}` is not a principal"),
                    "write `user:NAME`, `agent:NAME` or `service:NAME`",
                ));
            }
        };
        Ok(Self {
            name: text.into(),
            kind,
        })
    }

    /// Parses a principal that must be a person.
    pub fn parse_human(text: &str) -> Result<Self, Invalid> {
        let principal = Self::parse(text)?;
        match principal.kind {
            PrincipalKind::Human => Ok(principal),
            PrincipalKind::AiAgent | PrincipalKind::Service => Err(Invalid::new(
                "",
                format!("`{text}` is not a person"),
                "name an accountable human, such as `user:alice`",
            )),
        }
    }

    /// The whole text, kind included.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn kind(&self) -> PrincipalKind {
        self.kind
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_id_is_capitals_in_parts() {
        for good in ["EXG-OWN-01", "AC-2", "ACME-PII-BULK-01"] {
            assert!(ControlId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "E-1",
            "exg-own-01",
            "EXG",
            "EXG-",
            "-EXG-01",
            "EXG--01",
            "EXG-*",
            "1A-B",
        ] {
            assert!(ControlId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_agent_is_no_person() {
        assert!(Principal::parse_human("user:alice").is_ok());
        assert!(Principal::parse_human("agent:triage").is_err());
        assert!(Principal::parse("alice").is_err());
    }
}
