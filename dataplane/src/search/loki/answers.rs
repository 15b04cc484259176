//! From lines and series to what a client reads.

use std::time::Instant;

use api::loki::{Answer, CATEGORIZED, Sample, Stats, Summary};
use axum::Json;
use axum::response::{IntoResponse, Response};
use query::logql::Windows;
use serde::Serialize;

use super::lines::{Cost, Found};
use crate::loki::by_stream;

/// Lines as streams.
pub(super) fn streams(found: Found, categorized: bool, begun: Instant) -> Response {
    let mut answer = Answer::new("streams", by_stream(found.rows, categorized));
    if categorized {
        answer.data.encoding_flags.push(CATEGORIZED.to_owned());
    }
    with_cost(answer, found.warnings, found.cost, begun)
}

/// The values that there are, each with its moment.
pub(super) fn samples(windows: Windows, values: &[Option<f64>]) -> Vec<Sample> {
    let moments = windows.times().map(|nanos| nanos.div_euclid(1_000_000));
    let both = moments.zip(values).filter_map(|(millis, value)| Some(Sample { millis, value: (*value)? }));
    both.collect()
}

/// With what may be missing, and what it cost.
pub(super) fn with_cost<R: Serialize>(
    mut answer: Answer<R>,
    warnings: Vec<String>,
    cost: Cost,
    begun: Instant,
) -> Response {
    let seconds = begun.elapsed().as_secs_f64();
    let each_second = |sum: u64| (sum as f64 / seconds.max(1e-6)) as u64;
    answer.warnings = warnings;
    answer.data.stats = Stats {
        summary: Summary {
            bytes_processed_per_second: each_second(cost.bytes),
            lines_processed_per_second: each_second(cost.lines),
            total_bytes_processed: cost.bytes,
            total_lines_processed: cost.lines,
            exec_time: seconds,
        },
    };
    Json(answer).into_response()
}
