//! What the canary measures. The label is one of four stages.

use std::sync::atomic::AtomicU64;

use crds::canary::{Stage, StageReport, failure};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::metrics::Metrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

/// All of them.
pub(super) struct CanaryMetrics {
    seconds: Family<StageLabel, Histogram>,
    failures: Family<StageLabel, Counter>,
    round_trips: Counter,
    last_success: Gauge<f64, AtomicU64>,
}

impl CanaryMetrics {
    /// Registers them, each stage from the start: a series that begins with a failure has no increase.
    /// `now` is in seconds since 1970: a canary that has just begun is given time.
    pub(super) fn register(metrics: &Metrics, now: f64) -> Self {
        // From 5 ms to 164 s.
        let histogram = || Histogram::new(exponential_buckets(0.005, 2.0, 16));
        let all = Self {
            seconds: Family::new_with_constructor(histogram),
            failures: Family::default(),
            round_trips: Counter::default(),
            last_success: Gauge::default(),
        };
        for stage in Stage::ALL {
            drop(all.seconds.get_or_create(&label(stage)));
            drop(all.failures.get_or_create(&label(stage)));
        }
        all.last_success.set(now);
        let mut registry = metrics.registry();
        registry.register(
            "loggerhub_canary_stage_seconds",
            "From sending an event until it is accepted, in the catalog, in the index, in the live tail",
            all.seconds.clone(),
        );
        registry.register("loggerhub_canary_failures", "Events that did not come there in time", all.failures.clone());
        registry.register("loggerhub_canary_round_trips", "Events sent", all.round_trips.clone());
        registry.register(
            "loggerhub_canary_last_success_timestamp_seconds",
            "When an event last went the whole way, or when the canary began",
            all.last_success.clone(),
        );
        drop(registry);
        all
    }

    /// One round trip that ended `now`, in seconds since 1970.
    pub(super) fn record(&self, stages: &[StageReport], now: f64) {
        self.round_trips.inc();
        for one in stages {
            match (one.milliseconds, &one.error) {
                (Some(took), None) => {
                    self.seconds.get_or_create(&label(one.stage)).observe(took as f64 / 1000.0);
                }
                _ => {
                    self.failures.get_or_create(&label(one.stage)).inc();
                }
            }
        }
        if failure(stages).is_none() {
            self.last_success.set(now);
        }
    }
}

fn label(stage: Stage) -> StageLabel {
    StageLabel { stage: stage.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(stage: Stage, outcome: Result<u64, &str>) -> StageReport {
        StageReport { stage, milliseconds: outcome.ok(), error: outcome.err().map(str::to_owned) }
    }

    #[test]
    fn only_a_whole_way_is_a_success_and_each_stage_counts_for_itself() {
        let metrics = Metrics::default();
        let canary = CanaryMetrics::register(&metrics, 100.0);
        let shown = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
            text
        };
        assert!(shown().contains("loggerhub_canary_failures_total{stage=\"live\"} 0\n"), "{}", shown());
        canary.record(&[report(Stage::Accept, Ok(7)), report(Stage::Live, Err("no"))], 160.0);
        let text = shown();
        for line in [
            "loggerhub_canary_failures_total{stage=\"live\"} 1\n",
            "loggerhub_canary_failures_total{stage=\"accept\"} 0\n",
            "loggerhub_canary_stage_seconds_count{stage=\"accept\"} 1\n",
            "loggerhub_canary_stage_seconds_count{stage=\"live\"} 0\n",
            "loggerhub_canary_last_success_timestamp_seconds 100.0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        canary.record(&[report(Stage::Accept, Ok(7)), report(Stage::Live, Ok(9))], 220.0);
        assert!(shown().contains("loggerhub_canary_last_success_timestamp_seconds 220.0\n"), "{}", shown());
    }
}
