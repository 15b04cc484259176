//! What a processor counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::metrics::Metrics;

/// The processor's metrics. Cheap to clone.
#[derive(Clone)]
pub(super) struct Measures {
    pub(super) stored: Counter,
    pub(super) dead_letters: Counter,
    pub(super) repeated_batches: Counter,
    pub(super) indexed: Counter,
    pub(super) left_to_maintain: Counter,
    pub(super) retries: Counter,
    pub(super) index_away: Gauge,
    pub(super) flush_seconds: Histogram,
}

impl Measures {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let measures = Self {
            stored: Counter::default(),
            dead_letters: Counter::default(),
            repeated_batches: Counter::default(),
            indexed: Counter::default(),
            left_to_maintain: Counter::default(),
            retries: Counter::default(),
            index_away: Gauge::default(),
            // From 1 ms to 16 s.
            flush_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
        };
        let mut registry = metrics.registry();
        for (name, help, counter) in [
            ("stored_events", "Events stored in the catalog", &measures.stored),
            ("dead_letters", "Lines kept as dead letters", &measures.dead_letters),
            ("repeated_batches", "Batches met again and not stored again", &measures.repeated_batches),
            ("indexed_events", "Events indexed before they were acknowledged", &measures.indexed),
            ("left_to_maintain_batches", "Batches acknowledged without being indexed", &measures.left_to_maintain),
            ("retries", "Steps that failed and were tried again", &measures.retries),
        ] {
            registry.register(format!("loggerhub_process_{name}"), help, counter.clone());
        }
        registry.register(
            "loggerhub_process_index_away",
            "1 while the index does not answer",
            measures.index_away.clone(),
        );
        registry.register(
            "loggerhub_process_flush_seconds",
            "Time from the start of a flush to its acknowledgement",
            measures.flush_seconds.clone(),
        );
        drop(registry);
        measures
    }
}
