//! What ingest counts. A label holds a tenant's name only for the first [`NAMED_TENANTS`] that send: the
//! number of series stays bounded, and all others share one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crds::TenantName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::metrics::Metrics;

/// A request's outcome: `accepted`, or the code of the refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Outcome {
    pub(super) code: &'static str,
}

/// Tenants that are told apart in metrics: with seven outcomes each, 1,400 series a replica.
const NAMED_TENANTS: usize = 200;
/// All other tenants. No tenant is named so: `_` is in no name.
const OTHER_TENANTS: &str = "_other";

/// A tenant's outcome: `accepted`, why it was refused for pressure or quota, or `invalid`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TenantOutcome {
    tenant: String,
    outcome: &'static str,
}

/// Requests by tenant.
#[derive(Clone, Default)]
pub(super) struct ByTenant {
    requests: Family<TenantOutcome, Counter>,
    named: Arc<Mutex<HashSet<TenantName>>>,
}

impl ByTenant {
    /// Counts one request.
    pub(super) fn count(&self, tenant: &TenantName, outcome: &'static str) {
        let tenant = self.label(tenant).to_owned();
        self.requests.get_or_create(&TenantOutcome { tenant, outcome }).inc();
    }

    fn label<'a>(&self, tenant: &'a TenantName) -> &'a str {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.contains(tenant) || (named.len() < NAMED_TENANTS && named.insert(tenant.clone())) {
            tenant.as_str()
        } else {
            OTHER_TENANTS
        }
    }
}

/// The role's own metrics.
#[derive(Clone, Default)]
pub(super) struct IngestMetrics {
    pub(super) requests: Family<Outcome, Counter>,
    pub(super) by_tenant: ByTenant,
    pub(super) events: Counter,
    pub(super) rejected_events: Counter,
    pub(super) raw_bytes: Counter,
    pub(super) seconds: Latency,
    pub(super) in_flight_bytes: Gauge,
    pub(super) registry_age_seconds: Gauge,
    pub(super) clock_ahead_seconds: Gauge,
}

/// Time from a request's header to its answer.
#[derive(Clone)]
pub(super) struct Latency(pub(super) Histogram);

impl Default for Latency {
    fn default() -> Self {
        // 0.5 ms to 16 s: one write to disk up to a body that arrives slowly.
        Self(Histogram::new(exponential_buckets(0.0005, 2.0, 16)))
    }
}

impl IngestMetrics {
    pub(super) fn register(&self, metrics: &Metrics) {
        let mut registry = metrics.registry();
        let registry = registry.sub_registry_with_prefix("loggerhub_ingest");
        registry.register("requests", "Requests by outcome", self.requests.clone());
        registry.register(
            "tenant_requests",
            "Requests by tenant and outcome; the first tenants by name, the others as one",
            self.by_tenant.requests.clone(),
        );
        registry.register("events", "Events accepted", self.events.clone());
        registry.register("rejected_events", "Lines kept for the dead letters only", self.rejected_events.clone());
        registry.register("raw_bytes", "Bytes of the events accepted, as sent", self.raw_bytes.clone());
        registry.register("request_seconds", "Time from header to answer", self.seconds.0.clone());
        registry.register("in_flight_bytes", "Budget taken by unanswered requests", self.in_flight_bytes.clone());
        registry.register(
            "registry_age_seconds",
            "Time since Redis last confirmed the tenant registry",
            self.registry_age_seconds.clone(),
        );
        registry.register(
            "clock_ahead_seconds",
            "Seconds by which our clock is ahead of Redis's; beyond 12 hours nothing is accepted",
            self.clock_ahead_seconds.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_tenants_have_a_series_of_their_own() {
        let by_tenant = ByTenant::default();
        let name = |n: usize| format!("t{n}").parse::<TenantName>().unwrap();
        for n in 0..NAMED_TENANTS {
            assert_eq!(by_tenant.label(&name(n)), format!("t{n}"));
        }
        assert_eq!(by_tenant.label(&name(NAMED_TENANTS)), OTHER_TENANTS);
        assert_eq!(by_tenant.label(&name(0)), "t0");
    }
}
