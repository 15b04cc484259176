//! What is wrong with a Tenant, as its conditions say it.

use crds::condition::Reason;

use crate::provision::{self, Failure, Outcome};

/// Why something of a Tenant is not as its spec says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: Reason,
    /// What to change.
    pub message: String,
}

/// What came of one store.
pub type StoreResult = Result<Outcome, Problem>;

impl From<provision::Error> for Problem {
    fn from(error: provision::Error) -> Self {
        let reason = match error.failure() {
            Failure::Unavailable => Reason::BackendUnavailable,
            Failure::Rejected => Reason::BackendRejected,
            Failure::Conflict => Reason::OwnershipConflict,
        };
        Self { reason, message: runtime::logging::chain(&error) }
    }
}
