//! What waits in a pipeline's lanes, read from Redis in one round trip.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::streams::StreamRangeReply;

use crds::PipelineName;
use crds::names::Lane;

use super::scale::Backlog;
use crate::provision::{Error, Registry};

/// Reads the backlog of a pipeline; of `default` together with that of the pipelines that are gone
/// and that its processors drain.
pub async fn read(registry: &Registry, pipeline: &PipelineName, now: SystemTime) -> Result<Backlog, Error> {
    let mut lanes: Vec<Lane> = pipeline.lanes().collect();
    if *pipeline == PipelineName::default_pipeline() {
        let orphaned = registry.orphaned().await?;
        let orphaned: Vec<PipelineName> = orphaned.iter().filter_map(|name| name.parse().ok()).collect();
        lanes.extend(orphaned.iter().flat_map(PipelineName::lanes));
    }
    let mut pipe = redis::pipe();
    for lane in &lanes {
        pipe.cmd("GET").arg(lane.events_counter());
        pipe.cmd("XLEN").arg(lane.stream());
    }
    let failed = |source| Error::Redis { doing: "read the backlog", source };
    let answers: Vec<Option<i64>> = pipe.query_async(&mut registry.connection()).await.map_err(failed)?;
    let events: Vec<i64> = answers.chunks(2).map(|answers| waiting(answers[0], answers[1])).collect();
    let mut oldest = None;
    for (lane, _) in lanes.iter().zip(&events).filter(|(_, events)| **events > 0) {
        let first = first_id(registry, lane).await?;
        oldest = [oldest, first].into_iter().flatten().min();
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest_age = oldest.map_or(Duration::ZERO, |at| now.saturating_sub(Duration::from_millis(at)));
    Ok(Backlog { events: events.iter().sum(), oldest_age })
}

/// Entries of a pipeline's lanes, whatever their counters say.
pub async fn entries(registry: &Registry, pipeline: &PipelineName) -> Result<i64, Error> {
    let mut pipe = redis::pipe();
    for lane in pipeline.lanes() {
        pipe.cmd("XLEN").arg(lane.stream());
    }
    let failed = |source| Error::Redis { doing: "count the entries of a pipeline's lanes", source };
    let entries: Vec<i64> = pipe.query_async(&mut registry.connection()).await.map_err(failed)?;
    Ok(entries.iter().sum())
}

/// Events of a lane that wait. Each of its entries holds one at least, so that a counter that was lost, or is wrong,
/// leaves none of them waiting for ever.
fn waiting(counter: Option<i64>, entries: Option<i64>) -> i64 {
    counter.unwrap_or(0).max(entries.unwrap_or(0))
}

/// Milliseconds of the first entry's id. The entry comes along: with a payload of some hundred
/// kilobytes, and only for lanes that are not empty.
async fn first_id(registry: &Registry, lane: &Lane) -> Result<Option<u64>, Error> {
    let found: StreamRangeReply = redis::cmd("XRANGE")
        .arg(lane.stream())
        .arg("-")
        .arg("+")
        .arg("COUNT")
        .arg(1)
        .query_async(&mut registry.connection())
        .await
        .map_err(|source| Error::Redis { doing: "read a lane's first entry", source })?;
    Ok(found.ids.first().and_then(|entry| entry.id.split('-').next()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_wait_whatever_their_counter_says() {
        let cases = [
            (None, None, 0),
            (Some(900), Some(2), 900),
            (None, Some(2), 2),
            (Some(-7), Some(2), 2),
            (Some(3), None, 3),
        ];
        for (counter, entries, expected) in cases {
            assert_eq!(waiting(counter, entries), expected, "{counter:?}, {entries:?}");
        }
    }
}
