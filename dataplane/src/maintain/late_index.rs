//! Indexing what was acknowledged without: OpenSearch was away, or a processor died in between.
//!
//! ```text
//!  batches without `indexed_at` ─► chunks ─► raw lines ─► mapped ─► _bulk ─► `indexed_at`
//! ```
//! Some chunks are on their way at once: while one waits for OpenSearch, another is read and mapped.
//! Processors may be at the same batches. Both ask for the same documents in the same index, and
//! whoever comes second finds them there.

mod chunks;
mod lines;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use runtime::logging::chain;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Error, Rooms};
use crate::event::Micros;
use crate::fail_points::{Point, reach};
use crate::stores::batch::Batch;
use crate::stores::catalog::{Catalog, Unindexed};
use crate::stores::index;
use crate::tenancy::Tenant;
use chunks::{Chunk, chunks};
pub(super) use lines::{Lines, unpacked};

/// Age below which a processor is still expected to index a batch itself: it gives up some seconds
/// after an outage begins, and its last request may take ten more.
pub(super) const PROCESSORS_TIME: Duration = Duration::from_secs(15);
/// Batches planned at once: some hundred bytes each.
const PAGE: i64 = 5_000;
/// Chunks of one tenant on their way at once: one is read and mapped while OpenSearch works on two.
const CHUNKS_AT_ONCE: usize = 3;
/// Raw bytes on their way at once, of all tenants. Mapped, a line takes some five times its length,
/// so this is a third of a pod's 512 MiB; one queue entry of the largest size, 20 MiB, still fits.
const MEMORY_BYTES: usize = 32 * 1024 * 1024;
/// What one permit of memory stands for.
const MEMORY_UNIT: usize = 1024;

/// Indexes late, within bounds of memory that all tenants share. Cheap to clone.
#[derive(Clone)]
pub struct LateIndexer {
    rooms: Rooms,
    memory: Arc<Semaphore>,
}

/// What one turn of a tenant did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Batches that the index has now, or that it need not have any more.
    pub batches: u64,
    /// Events among them that were sent to the index.
    pub events: u64,
    /// Whether another turn at once is of use.
    pub more: bool,
}

/// What became of a chunk.
enum Outcome {
    /// The index has it.
    Indexed { batches: u64, events: u64 },
    /// The index that it names is gone: it names another now.
    Renamed,
}

/// Indexes all that processors of a tenant left behind. Gives back how many batches.
pub async fn late_index(rooms: &Rooms, tenant: &Arc<Tenant>, now: Micros) -> Result<u64, Error> {
    let indexer = LateIndexer::new(rooms.clone());
    let mut batches = 0;
    loop {
        let turn = indexer.turn(tenant, now, None).await?;
        batches += turn.batches;
        if !turn.more {
            return Ok(batches);
        }
    }
}

impl LateIndexer {
    /// With bounds of its own.
    pub fn new(rooms: Rooms) -> Self {
        let rooms = Rooms { index: rooms.index.patient(), ..rooms };
        Self { rooms, memory: Arc::new(Semaphore::new(MEMORY_BYTES / MEMORY_UNIT)) }
    }

    /// The catalog that it reads.
    pub(super) fn catalog(&self) -> &Catalog {
        &self.rooms.catalog
    }

    /// Indexes what processors of a tenant left behind, oldest first. After `until` no more is begun.
    pub async fn turn(&self, tenant: &Arc<Tenant>, now: Micros, until: Option<Instant>) -> Result<Turn, Error> {
        let mut turn = Turn::default();
        self.work(tenant, now, until, &mut turn).await?;
        Ok(turn)
    }

    /// Like [`Self::turn`]; what was done until an error stands in `turn` too. Batches that can't be
    /// indexed keep no others waiting; the first reason is the error, if nothing could be.
    pub(super) async fn work(
        &self,
        tenant: &Arc<Tenant>,
        now: Micros,
        until: Option<Instant>,
        turn: &mut Turn,
    ) -> Result<(), Error> {
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        let mut failure = None;
        let mut last: Option<Unindexed> = None;
        // Reading and mapping what one of these indices lacks is of no use in this turn.
        let unusable = Mutex::new(HashSet::new());
        loop {
            let page = self.rooms.catalog.unindexed(tenant, PROCESSORS_TIME, last.as_ref(), PAGE).await?;
            let Some(newest) = page.last() else { break };
            last = Some(newest.clone());
            let is_full = page.len() as i64 == PAGE;
            let (hot, cold) = self.hot(tenant, page, now);
            turn.batches += self.rooms.catalog.mark_indexed(tenant, &cold).await?;
            let lines = Lines::new(&self.rooms, tenant);
            let mut outcomes = std::pin::pin!(
                futures::stream::iter(chunks(hot))
                    .take_while(|_| std::future::ready(!is_over()))
                    .filter_map(|chunk| std::future::ready(chunk.without(&lock(&unusable))))
                    .map(|chunk| self.index(tenant, &lines, chunk))
                    .buffer_unordered(CHUNKS_AT_ONCE)
            );
            while let Some(outcome) = outcomes.next().await {
                match outcome {
                    Ok(Outcome::Indexed { batches, events }) => {
                        turn.batches += batches;
                        turn.events += events;
                    }
                    Ok(Outcome::Renamed) => turn.more = true,
                    Err(error) if is_away(&error) => return Err(error),
                    Err(error) => {
                        if let Error::Index(index::Error::Unusable { index, .. }) = &error {
                            lock(&unusable).insert(index.clone());
                        }
                        failure.get_or_insert(error);
                    }
                }
            }
            if is_over() {
                // Not if nothing can be done about what is left: the next pass is soon enough.
                turn.more |= turn.batches > 0;
                break;
            }
            if !is_full {
                break;
            }
        }
        if turn.batches > 0 {
            let Turn { batches, events, .. } = *turn;
            tracing::info!(tenant.name = %tenant.name(), batches, events, "indexed {events} events of {} late", tenant.name());
        }
        match failure {
            Some(error) if turn.batches == 0 => Err(error),
            Some(error) => {
                tracing::warn!(tenant.name = %tenant.name(), error = chain(&error), "can't index some batches of {}", tenant.name());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Batches that the index should still have, and the ids of those that it would drop at once.
    fn hot(&self, tenant: &Tenant, page: Vec<Unindexed>, now: Micros) -> (Vec<Unindexed>, Vec<Uuid>) {
        let hot_after = tenant.hot_after(now);
        let (hot, cold): (Vec<_>, Vec<_>) = page.into_iter().partition(|batch| batch.accepted_at >= hot_after);
        (hot, cold.into_iter().map(|batch| batch.batch_id).collect())
    }

    /// Indexes one chunk.
    async fn index(&self, tenant: &Arc<Tenant>, lines: &Lines<'_>, chunk: Chunk) -> Result<Outcome, Error> {
        let _memory = self.memory_for(chunk.unpacked_bytes).await;
        let names: HashMap<Uuid, String> =
            chunk.batches.iter().map(|batch| (batch.batch_id, batch.index_name.clone())).collect();
        let ids: Vec<Uuid> = names.keys().copied().collect();
        let dead: HashSet<Uuid> = self.rooms.catalog.dead_letters_of(tenant, &ids).await?.into_iter().collect();
        let places: Vec<_> = chunk.batches.iter().map(|batch| (batch.batch_id, batch.whereabouts)).collect();
        let parts = lines.read(&places).await?;
        reach(Point::LateRead);
        let (rooms, tenant_there, names_there) = (self.rooms.clone(), Arc::clone(tenant), names.clone());
        let accepted: HashSet<(Uuid, Micros)> =
            chunk.batches.iter().map(|batch| (batch.batch_id, batch.accepted_at)).collect();
        let runtime = Handle::current();
        // Unpacking, mapping and writing documents take a thread for some hundred milliseconds: not
        // one of those that serve everything else.
        let sent = tokio::task::spawn_blocking(move || {
            let mut batches = unpacked(parts, |batch| accepted.contains(&(batch.batch_id, batch.accepted_at)));
            for batch in &mut batches {
                batch.events.retain(|event| !dead.contains(&event.id));
            }
            let named: Vec<(&Batch, &str)> =
                batches.iter().filter_map(|batch| Some((batch, names_there.get(&batch.batch_id)?.as_str()))).collect();
            let events = batches.iter().map(|batch| batch.events.len() as u64).sum::<u64>();
            let created = runtime.block_on(rooms.index.create(&tenant_there, &named));
            created.map(|_| (batches.iter().map(|batch| batch.batch_id).collect::<Vec<_>>(), events))
        });
        match sent.await.map_err(|error| Error::Mapping(error.to_string()))? {
            Ok((indexed, events)) => {
                reach(Point::LateIndexed);
                let batches = self.rooms.catalog.mark_indexed(tenant, &indexed).await?;
                Ok(Outcome::Indexed { batches, events })
            }
            Err(error) if error.concerns_one_index() && self.leave_gone_indices(tenant, &names).await? => {
                Ok(Outcome::Renamed)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Batches whose index is gone go to the one that is written to now. Whether there were any.
    async fn leave_gone_indices(&self, tenant: &Tenant, names: &HashMap<Uuid, String>) -> Result<bool, Error> {
        let mut renamed = 0;
        let ids: Vec<Uuid> = names.keys().copied().collect();
        for name in names.values().collect::<BTreeSet<_>>() {
            if self.rooms.index.exists(name).await? {
                continue;
            }
            let moved = self.rooms.catalog.name_write_index(tenant, &ids, name).await?;
            tracing::warn!(tenant.name = %tenant.name(), "index {name} is gone: {moved} batches go to another");
            renamed += moved;
        }
        Ok(renamed > 0)
    }

    async fn memory_for(&self, bytes: u64) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let units = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(MEMORY_UNIT).min(MEMORY_BYTES / MEMORY_UNIT);
        // Nobody closes it.
        self.memory.acquire_many(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
    }
}

fn lock(indices: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    indices.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether OpenSearch as a whole can't be worked with now, so that trying others is of no use.
pub(super) fn is_away(error: &Error) -> bool {
    match error {
        Error::Index(index::Error::Unreachable { .. }) => true,
        Error::Index(error) => !error.concerns_one_index(),
        _ => false,
    }
}
