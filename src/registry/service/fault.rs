//! What the registry refuses, as an answer.

use crate::{
    registry::{core::Error, store::StoreError, workflow::Refused},
    wire::Fault,
};

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failed(error) => error.into(),
            Refused::Problems(problems) => {
                Self::Faulty(problems.iter().map(ToString::to_string).collect())
            }
            Refused::Invalid(invalid) => Self::Invalid(invalid),
            Refused::Forbidden(why) => Self::Forbidden(why),
            Refused::NotFound(why) => Self::NotFound(why),
            Refused::Conflict(why) => Self::Conflict(why),
            Refused::Precondition(why) => Self::Precondition(why),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::ReadOnly(_) => Self::Precondition(error.to_string()),
            Error::Store(StoreError::Full(_)) => {
                tracing::error!(%error, "the registry failed");
                Self::Unavailable(
                    "the registry's disk is full, and only what takes something back is written; make room there".into(),
                )
            }
            Error::Store(_) | Error::Unfit(_) => {
                tracing::error!(%error, "the registry failed");
                Self::Unavailable("the registry cannot do this now; see its log".into())
            }
        }
    }
}
