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
    }
    let failed = |source| Error::Redis { doing: "read the backlog", source };
    let counters: Vec<Option<i64>> = pipe.query_async(&mut registry.connection()).await.map_err(failed)?;
    let busy = lanes.iter().zip(&counters).filter(|(_, events)| events.unwrap_or(0) > 0).map(|(lane, _)| lane);
    let mut oldest = None;
    for lane in busy {
        let first = first_id(registry, lane).await?;
        oldest = [oldest, first].into_iter().flatten().min();
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest_age = oldest.map_or(Duration::ZERO, |at| now.saturating_sub(Duration::from_millis(at)));
    Ok(Backlog { events: counters.iter().flatten().map(|events| (*events).max(0)).sum(), oldest_age })
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
