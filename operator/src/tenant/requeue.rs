//! When a Tenant is looked at again, from what came of it.

use std::time::Duration;

use crds::condition::Reason;
use crds::{TenantStatus, condition::types};

use super::apply::Applied;
use super::validate::ValidTenant;

/// Longest wait where the cluster itself has to change, such as a namespace to be made.
pub const CLUSTER_PATIENCE: Duration = Duration::from_secs(15);
/// Reasons that end when the cluster changes.
const CLUSTER_REASONS: [Reason; 4] =
    [Reason::NamespaceNotFound, Reason::SecretAccessDenied, Reason::SecretMissing, Reason::KeyRejected];

/// When it is looked at again, and how that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At the next resync: it is as it should be.
    Settled,
    /// At the next resync: what it waits for is watched, or it is the Tenant itself.
    Watched,
    /// As any failure is tried again, but not later than this.
    Retried {
        /// Longest wait.
        within: Option<Duration>,
    },
}

/// Decides.
pub fn next(valid: &ValidTenant, applied: &Applied, status: &TenantStatus) -> Next {
    let Some(reason) = not_ready(status) else { return Next::Settled };
    let of_spec = valid.problem.as_ref().map_or(Reason::RetentionUnconfirmed, |problem| problem.reason);
    if [Reason::PipelineNotFound, of_spec].map(Reason::as_str).contains(&reason) {
        return Next::Watched;
    }
    let of_cluster = matches!(&applied.credentials, Err(problem) if CLUSTER_REASONS.contains(&problem.reason));
    Next::Retried { within: of_cluster.then_some(CLUSTER_PATIENCE) }
}

/// Whether a status says that the Tenant is ready.
pub fn is_ready(status: &TenantStatus) -> bool {
    not_ready(status).is_none()
}

/// Why it is not; empty if nothing is said.
fn not_ready(status: &TenantStatus) -> Option<&str> {
    match status.conditions.iter().find(|condition| condition.type_ == types::READY) {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(&ready.reason),
        None => Some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::now;
    use crate::provision::Outcome;
    use crate::settings::tests::settings;
    use crate::tenant::apply::Unsettled;
    use crate::tenant::problem::{Problem, StoreResult};
    use crate::tenant::testing::acme;
    use crate::tenant::validate::validate;
    use crate::tenant::{status, validate};

    fn problem(reason: Reason) -> Problem {
        Problem { reason, message: "m".into() }
    }

    #[test]
    fn what_somebody_has_to_change_is_watched_and_the_rest_is_tried_again() {
        let good = validate(&acme(), &settings(), &settings().plans, true).unwrap();
        let held = validate(&acme(), &settings(), &settings().plans, false).unwrap();
        let wrong = |reason| validate::ValidTenant { problem: Some(problem(reason)), ..good.clone() };
        let soon = Next::Retried { within: None };
        let cluster = Next::Retried { within: Some(CLUSTER_PATIENCE) };
        let ok: StoreResult = Ok(Outcome::Unchanged);
        for (valid, database, credentials, kept_days, expected) in [
            (good.clone(), ok.clone(), ok.clone(), None, Next::Settled),
            (held, ok.clone(), ok.clone(), None, Next::Watched),
            (wrong(Reason::UnknownPlan), ok.clone(), ok.clone(), None, Next::Watched),
            (good.clone(), ok.clone(), ok.clone(), Some(90), Next::Watched),
            (good.clone(), Err(problem(Reason::BackendUnavailable)), ok.clone(), None, soon),
            (good.clone(), ok.clone(), Err(problem(Reason::NamespaceNotFound)), None, cluster),
            (good.clone(), ok.clone(), Err(problem(Reason::Provisioning)), None, soon),
        ] {
            let applied = Applied {
                database,
                object_store: ok.clone(),
                search: ok.clone(),
                credentials,
                keys: None,
                forged: Vec::new(),
                unsettled: Some(Unsettled { kept_days, left_behind: Vec::new() }),
                archive: valid.desired.archive.clone(),
            };
            let findings = status::findings(&valid, &applied);
            let status = status::status(&acme(), findings, Some((&valid, &applied)), now());
            assert_eq!(next(&valid, &applied, &status), expected, "{:?}", status.conditions);
        }
    }
}
