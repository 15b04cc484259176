//! What ingest counts. No label holds a tenant: their number is not bounded.

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

/// The role's own metrics.
#[derive(Clone, Default)]
pub(super) struct IngestMetrics {
    pub(super) requests: Family<Outcome, Counter>,
    pub(super) events: Counter,
    pub(super) rejected_events: Counter,
    pub(super) raw_bytes: Counter,
    pub(super) seconds: Latency,
    pub(super) in_flight_bytes: Gauge,
    pub(super) registry_age_seconds: Gauge,
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
    }
}
