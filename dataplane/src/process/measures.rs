//! What a processor counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::metrics::Metrics;

/// The processor's metrics. Cheap to clone.
#[derive(Clone)]
pub(super) struct Measures {
    pub(super) stored: Counter,
    pub(super) dead_letters: Counter,
    pub(super) dropped: Counter,
    pub(super) repeated_batches: Counter,
    pub(super) indexed: Counter,
    pub(super) left_to_maintain: Counter,
    pub(super) retries: Counter,
    pub(super) index_away: Gauge,
    pub(super) unusable_indices: Gauge,
    pub(super) spool_bytes: Gauge,
    pub(super) spool_full: Gauge,
    pub(super) spool_full_tenants: Gauge,
    pub(super) set_aside: Gauge,
    pub(super) flush_seconds: Histogram,
    pub(super) oldest_step_seconds: Gauge<f64, AtomicU64>,
}

impl Measures {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let measures = Self {
            stored: Counter::default(),
            dead_letters: Counter::default(),
            dropped: Counter::default(),
            repeated_batches: Counter::default(),
            indexed: Counter::default(),
            left_to_maintain: Counter::default(),
            retries: Counter::default(),
            index_away: Gauge::default(),
            unusable_indices: Gauge::default(),
            spool_bytes: Gauge::default(),
            spool_full: Gauge::default(),
            spool_full_tenants: Gauge::default(),
            set_aside: Gauge::default(),
            oldest_step_seconds: Gauge::default(),
            // From 1 ms to 16 s.
            flush_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
        };
        let mut registry = metrics.registry();
        for (name, help, counter) in [
            ("stored_events", "Events stored in the catalog", &measures.stored),
            ("dead_letters", "Lines kept as dead letters", &measures.dead_letters),
            ("dropped_events", "Events that the pipeline's stages dropped", &measures.dropped),
            ("repeated_batches", "Batches met again and not stored again", &measures.repeated_batches),
            ("indexed_events", "Events indexed before they were acknowledged", &measures.indexed),
            ("left_to_maintain_batches", "Batches acknowledged without being indexed", &measures.left_to_maintain),
            ("retries", "Steps that failed and were tried again", &measures.retries),
        ] {
            registry.register(format!("loggerhub_process_{name}"), help, counter.clone());
        }
        for (name, help, gauge) in [
            ("index_away", "1 while the index does not answer", &measures.index_away),
            ("unusable_indices", "Indices that refused all events a moment ago", &measures.unusable_indices),
            ("spool_bytes", "Compressed bytes that wait in PostgreSQL for the archive", &measures.spool_bytes),
            ("spool_full", "1 while nothing is stored because the spool is full", &measures.spool_full),
            ("spool_full_tenants", "Tenants whose share of the spool is used up", &measures.spool_full_tenants),
            ("set_aside_entries", "Entries that wait in the queue for their tenant's room", &measures.set_aside),
        ] {
            registry.register(format!("loggerhub_process_{name}"), help, gauge.clone());
        }
        registry.register(
            "loggerhub_process_flush_seconds",
            "Time from the start of a flush to its acknowledgement",
            measures.flush_seconds.clone(),
        );
        registry.register(
            "loggerhub_process_oldest_step_seconds",
            "How long the step of a flush that was begun first has taken so far",
            measures.oldest_step_seconds.clone(),
        );
        drop(registry);
        measures
    }
}
