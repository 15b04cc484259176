//! How many Tenants are not Ready, and why: counted for metrics, from what the controller sees.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::Tenant;
use crds::condition::{Reason, types};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store as Reader;
use tokio_util::sync::CancellationToken;

use crate::metrics::OperatorMetrics;

/// Time between two counts: less than between two scrapes.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts until `shutdown`.
pub(super) async fn run(
    tenants: Reader<DeserializeGuard<Tenant>>,
    metrics: OperatorMetrics,
    shutdown: CancellationToken,
) {
    let mut counts = BTreeMap::new();
    loop {
        // A reason that was there once stays, as zero: its series does not end.
        counts.values_mut().for_each(|count| *count = 0);
        for reason in tenants.state().iter().filter_map(|tenant| why_not_ready(tenant)) {
            *counts.entry(reason).or_default() += 1;
        }
        for (reason, count) in &counts {
            metrics.tenants_not_ready(reason, *count);
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Why a Tenant is not Ready, if it is not.
fn why_not_ready(tenant: &DeserializeGuard<Tenant>) -> Option<String> {
    let Ok(tenant) = &tenant.0 else { return Some(Reason::InvalidSpec.as_str().to_owned()) };
    let ready = tenant.status.iter().flat_map(|status| &status.conditions).find(|one| one.type_ == types::READY);
    match ready {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.reason.clone()),
        None => Some(Reason::Provisioning.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn why(conditions: Value) -> Option<String> {
        let tenant = json!({
            "apiVersion": "loggerhub.io/v1alpha1",
            "kind": "Tenant",
            "metadata": {"name": "acme"},
            "spec": {"namespaces": ["acme"]},
            "status": {"conditions": conditions},
        });
        why_not_ready(&serde_json::from_value(tenant).unwrap())
    }

    #[test]
    fn a_tenant_counts_by_the_reason_for_which_it_is_not_ready() {
        let condition = |type_: &str, status: &str, reason: &str| json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        assert_eq!(why(json!([])).as_deref(), Some("Provisioning"));
        assert_eq!(why(json!([condition("Ready", "True", "Provisioned")])), None);
        let searchless = json!([condition("SearchReady", "False", "BackendUnavailable")]);
        assert_eq!(why(searchless).as_deref(), Some("Provisioning"));
        for status in ["False", "Unknown"] {
            assert_eq!(why(json!([condition("Ready", status, "UnknownPlan")])).as_deref(), Some("UnknownPlan"));
        }
        let unreadable = json!({"apiVersion": "loggerhub.io/v1alpha1", "kind": "Tenant", "metadata": {}, "spec": {}});
        assert_eq!(why_not_ready(&serde_json::from_value(unreadable).unwrap()).as_deref(), Some("InvalidSpec"));
    }
}
