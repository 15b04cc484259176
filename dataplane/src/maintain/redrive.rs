//! Trying dead letters again that their tenant wants tried again.
//!
//! The line is mapped as late indexing maps it, so what becomes an event here is one wherever the
//! batch is read again. Search only marks letters; this is the one place where they move, and there
//! is one of it a tenant.

use std::time::Duration;

use runtime::logging::chain;

use super::late_index::{Lines, PROCESSORS_TIME, unpacked};
use super::{Error, Rooms};
use crate::event::Micros;
use crate::stores::batch::Batch;
use crate::stores::catalog::{LetterBatch, Redriven, ToRedrive};
use crate::tenancy::Tenant;

/// Batches of one step; the next pass takes more. Each is read as a whole, up to 20 MiB.
const BATCHES_AT_ONCE: i64 = 50;

/// Times that a batch may be begun without an end: as often as an entry of the queue is delivered
/// before its processors' deaths are taken for its fault.
const MAX_STARTS: i32 = 3;

/// Tries again what is marked, where its batch was stored at least `age` ago. Gives back how many
/// letters became events, and how many failed again.
pub async fn redrive(rooms: &Rooms, tenant: &Tenant, age: Duration, now: Micros) -> Result<(u64, u64), Error> {
    let (mut events, mut failed, mut failure) = (0, 0, None);
    for waiting in rooms.catalog.to_redrive(tenant, age, BATCHES_AT_ONCE).await? {
        match redrive_batch(rooms, tenant, &waiting, now).await {
            Ok(redriven) => {
                events += redriven.events.len() as u64;
                failed += redriven.failed;
            }
            Err(error @ Error::Catalog(_)) => return Err(error),
            Err(error) => {
                // A batch whose bytes can't be read now holds up no other.
                tracing::warn!(tenant.name = %tenant.name(), error = chain(&error), "can't redrive batch {}", waiting.batch_id);
                rooms.catalog.postpone_letters(tenant, &waiting.letters).await?;
                failure = Some(error);
            }
        }
    }
    if events + failed > 0 {
        let name = tenant.name();
        tracing::info!(tenant.name = %name, failed, "redrove dead letters of {name}: {events} are events now");
    }
    failure.map_or(Ok((events, failed)), Err)
}

/// The age of a batch that processors no longer work on.
pub(super) const SETTLED: Duration = PROCESSORS_TIME;

async fn redrive_batch(rooms: &Rooms, tenant: &Tenant, waiting: &ToRedrive, now: Micros) -> Result<Redriven, Error> {
    let fail = async |code, error: &str| {
        rooms.catalog.fail_letters(tenant, &waiting.letters, code, error).await?;
        Ok(Redriven { events: Vec::new(), failed: waiting.letters.len() as u64 })
    };
    let Some(batch) = &waiting.batch else {
        return fail("expired", "events of its day are kept no longer").await;
    };
    if waiting.starts >= MAX_STARTS {
        return fail("deliveries", "whoever tried its batch again died of it, or was ended each time").await;
    }
    rooms.catalog.begin_redrive(tenant, &waiting.letters).await?;
    let Some(mut mapped) = mapped(rooms, tenant, batch).await? else {
        return fail("line_missing", "its batch's raw bytes are not there").await;
    };
    let redriven = rooms.catalog.redrive(tenant, &mut mapped, &waiting.letters).await?;
    mapped.events.retain(|event| redriven.events.contains(&event.id));
    index(rooms, tenant, waiting, batch, &mapped, now).await;
    Ok(redriven)
}

/// What the lines of a batch are now.
async fn mapped(rooms: &Rooms, tenant: &Tenant, batch: &LetterBatch) -> Result<Option<Batch>, Error> {
    let parts = Lines::new(rooms, tenant).read(&[(batch.batch_id, batch.whereabouts)]).await?;
    let wanted = (batch.batch_id, batch.accepted_at);
    // Megabytes of zstd and JSON stay off the threads that serve everything else.
    let mapped =
        tokio::task::spawn_blocking(move || unpacked(parts, |batch| (batch.batch_id, batch.accepted_at) == wanted));
    let mapped = mapped.await.map_err(|error| Error::Mapping(error.to_string()))?;
    Ok(mapped.into_iter().next())
}

/// Indexes what became events. The batch counts as not indexed since it has them, so where this
/// fails, or we die, late indexing does it.
async fn index(rooms: &Rooms, tenant: &Tenant, waiting: &ToRedrive, batch: &LetterBatch, events: &Batch, now: Micros) {
    let hot_after = tenant.hot_after(now);
    if events.events.is_empty() || !waiting.indexed || batch.accepted_at < hot_after {
        return;
    }
    let indexed = async {
        rooms.index.create(tenant, &[(events, batch.index_name.as_str())]).await?;
        rooms.catalog.mark_indexed(tenant, &[batch.batch_id]).await?;
        Ok::<_, Error>(())
    };
    if let Err(error) = indexed.await {
        tracing::warn!(tenant.name = %tenant.name(), error = chain(&error), "leave redriven events to late indexing");
    }
}
