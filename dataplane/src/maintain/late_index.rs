//! Indexing what was acknowledged without: OpenSearch was away, or a processor died in between.
//!
//! Processors may be at the same batches. Both ask for the same documents in the same index, and
//! whoever comes second finds them there.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use uuid::Uuid;

use super::archive::spooled;
use super::{Error, Rooms};
use crate::event::Micros;
use crate::fail_points::{Point, reach};
use crate::queue::entry::{BatchHeader, Header};
use crate::stores::archive::{FooterBatch, Frames};
use crate::stores::batch::{Batch, Treatment, map};
use crate::stores::catalog::{Unindexed, Whereabouts, failed};
use crate::tenancy::Tenant;

/// Age below which a processor is still expected to index a batch itself: it gives up after 10 s.
pub(super) const PROCESSORS_TIME: Duration = Duration::from_secs(15);
/// Batches of one step; the next pass takes more.
const BATCHES_AT_ONCE: i64 = 500;
pub(super) const MICROS_PER_DAY: i64 = 24 * 3600 * 1_000_000;

/// Indexes batches that processors left behind. Gives back how many.
pub async fn late_index(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<u64, Error> {
    let unindexed = rooms.catalog.unindexed(tenant, PROCESSORS_TIME, BATCHES_AT_ONCE).await?;
    if unindexed.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = unindexed.iter().map(|batch| batch.batch_id).collect();
    let dead: HashSet<Uuid> = rooms.catalog.dead_letters_of(tenant, &ids).await?.into_iter().collect();
    let hot_after = now - i64::from(tenant.registered().hot_days) * MICROS_PER_DAY;
    let (wanted, cold): (Vec<_>, Vec<_>) = unindexed.into_iter().partition(|batch| batch.accepted_at >= hot_after);
    // The index would drop them at once.
    let cold: Vec<Uuid> = cold.into_iter().map(|batch| batch.batch_id).collect();
    let mut marked = rooms.catalog.mark_indexed(tenant, &cold).await?;

    let mut places: BTreeMap<Whereabouts, Vec<Unindexed>> = BTreeMap::new();
    for batch in wanted {
        places.entry(batch.whereabouts).or_default().push(batch);
    }
    for (place, wanted) in places {
        let mut batches = match place {
            Whereabouts::Spool(spool_id) => from_spool(rooms, tenant, spool_id, &wanted).await?,
            Whereabouts::Object(object_id) => from_object(rooms, tenant, object_id, &wanted).await?,
        };
        for batch in &mut batches {
            batch.events.retain(|event| !dead.contains(&event.id));
        }
        let named: Vec<(&Batch, &str)> = batches
            .iter()
            .filter_map(|batch| {
                let unindexed = wanted.iter().find(|unindexed| unindexed.batch_id == batch.batch_id)?;
                Some((batch, unindexed.index_name.as_str()))
            })
            .collect();
        reach(Point::LateRead);
        rooms.index.create(tenant, &named).await?;
        reach(Point::LateIndexed);
        let ids: Vec<Uuid> = named.iter().map(|(batch, _)| batch.batch_id).collect();
        marked += rooms.catalog.mark_indexed(tenant, &ids).await?;
    }
    tracing::info!(tenant.name = %tenant.name(), "indexed {marked} batches of {} late", tenant.name());
    Ok(marked)
}

pub(super) async fn from_spool(
    rooms: &Rooms,
    tenant: &Tenant,
    spool_id: i64,
    wanted: &[Unindexed],
) -> Result<Vec<Batch>, Error> {
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let spooled = spooled(&mut transaction, spool_id).await?;
    transaction.rollback().await.map_err(failed("read the spool"))?;
    let (header, raw) = spooled.parts();
    let mut batches = map(header, raw, Treatment::Process);
    batches.retain(|batch| wanted.iter().any(|unindexed| unindexed.batch_id == batch.batch_id));
    Ok(batches)
}

pub(super) async fn from_object(
    rooms: &Rooms,
    tenant: &Tenant,
    object_id: i64,
    wanted: &[Unindexed],
) -> Result<Vec<Batch>, Error> {
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let (key, size, raw_starts, starts): (String, i64, Vec<i64>, Vec<i64>) =
        sqlx::query_as("SELECT key, bytes, raw_starts, starts FROM objects WHERE object_id = $1")
            .bind(object_id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("look up an object"))?;
    transaction.rollback().await.map_err(failed("look up an object"))?;
    let frames = Frames { raw_starts, starts };
    let footer = rooms.archive.footer(tenant, &key, size.unsigned_abs()).await?;
    let mut batches = Vec::new();
    for archived in footer.batches {
        if !wanted.iter().any(|unindexed| unindexed.batch_id == archived.batch_id) {
            continue;
        }
        let start = archived.raw_start;
        let header = Header { batches: vec![queued(archived)] };
        let length = header.batches[0].raw_bytes() as u64;
        let raw = rooms.archive.read(tenant, &key, &frames, start, length).await?;
        batches.extend(map(&header, &raw, Treatment::Process));
    }
    Ok(batches)
}

/// A batch as it came through the queue.
fn queued(archived: FooterBatch) -> BatchHeader {
    let FooterBatch { batch_id, accepted_at, key_id, body_hash, raw_start: _, events } = archived;
    BatchHeader { batch_id, accepted_at, key_id, body_hash, events }
}
