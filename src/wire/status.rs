//! Faults of a call, from a closed set, to gRPC statuses. The only mapping.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::domain::Invalid;

/// Bytes of faults told in one status.
const TOLD: usize = 6_000;

/// The reason of [`Fault::Fenced`].
const FENCED: &str = "FENCED";

/// Whether a call was refused because another process has taken the caller's place.
pub fn is_fenced(status: &Status) -> bool {
    let details = status.get_error_details();
    let info = details.error_info();
    info.is_some_and(|info| info.reason == FENCED && info.domain == DOMAIN)
}

/// Whose reasons they are.
const DOMAIN: &str = "exeat";

/// Why a call has no decision. A denial is not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is malformed.
    Invalid(Invalid),
    /// There is no snapshot to decide from yet.
    NotReady,
    /// Who asks is not known.
    Unauthenticated(String),
    /// Who asks may not ask this.
    Forbidden(String),
    /// What was asked for is not there.
    NotFound(String),
    /// The caller's deadline passed first.
    DeadlineExceeded,
    /// Files that cannot be taken: each fault with its place.
    Faulty(Vec<String>),
    /// Something changed since the caller looked.
    Conflict(String),
    /// Another process has taken the caller's place.
    Fenced(String),
    /// Not in the state the system is in.
    Precondition(String),
    /// It cannot be done now, through no fault of the caller; details are in the log.
    Unavailable(String),
}

impl Fault {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::Faulty(_) => Code::InvalidArgument,
            Self::NotReady | Self::Unavailable(_) => Code::Unavailable,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Forbidden(_) => Code::PermissionDenied,
            Self::NotFound(_) => Code::NotFound,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Conflict(_) | Self::Fenced(_) => Code::Aborted,
            Self::Precondition(_) => Code::FailedPrecondition,
        }
    }

    /// The gRPC code, as the standard writes it.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::Faulty(_) => "INVALID_ARGUMENT",
            Self::NotReady | Self::Unavailable(_) => "UNAVAILABLE",
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::Forbidden(_) => "PERMISSION_DENIED",
            Self::NotFound(_) => "NOT_FOUND",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Conflict(_) | Self::Fenced(_) => "ABORTED",
            Self::Precondition(_) => "FAILED_PRECONDITION",
        }
    }

    /// The same as HTTP says it, to whom AuthZEN is spoken.
    pub fn http(&self) -> u16 {
        match self {
            Self::Invalid(_)
            | Self::Faulty(_)
            | Self::Conflict(_)
            | Self::Fenced(_)
            | Self::Precondition(_) => 400,
            Self::Unauthenticated(_) => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound(_) => 404,
            Self::NotReady | Self::Unavailable(_) => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// A stable reason for machines and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::NotReady => "NOT_READY",
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::Forbidden(_) => "FORBIDDEN",
            Self::NotFound(_) => "NOT_FOUND",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Faulty(_) => "INVALID_MANIFESTS",
            Self::Conflict(_) => "CONFLICT",
            Self::Fenced(_) => FENCED,
            Self::Precondition(_) => "FAILED_PRECONDITION",
            Self::Unavailable(_) => "UNAVAILABLE",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::NotReady => f.write_str("nothing to decide by is here yet, neither of a folder nor of a registry; see /readyz"),
            Self::Unauthenticated(why)
            | Self::Forbidden(why)
            | Self::NotFound(why)
            | Self::Conflict(why)
            | Self::Fenced(why)
            | Self::Precondition(why)
            | Self::Unavailable(why) => f.write_str(why),
            Self::Faulty(faults) => {
                // Statuses travel as headers, which have a limit.
                let mut left = TOLD;
                for (at, fault) in faults.iter().enumerate() {
                    left = left.saturating_sub(fault.len());
                    if left == 0 && at > 0 {
                        return write!(f, "… and {} more", faults.len().saturating_sub(at));
                    }
                    writeln!(f, "{fault}")?;
                }
                write!(f, "nothing was changed")
            }
            Self::DeadlineExceeded => f.write_str("the deadline passed before the answer"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let mut details = ErrorDetails::with_error_info(fault.reason(), DOMAIN, []);
        if let Fault::Invalid(invalid) = &fault {
            details.add_bad_request_violation(
                invalid.path(),
                format!("{}; {}", invalid.what(), invalid.fix()),
            );
        }
        Self::with_error_details(fault.code(), fault.to_string(), details)
    }
}
