//! Late indexing of all tenants, in turns.
//!
//! Whoever has work gets one turn after the other until it is level with what comes in; a look at
//! every tenant comes in between, so that a large backlog of one does not hide the others'.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::due::look;
use super::late_index::{LateIndexer, Turn, is_away};
use super::pass::{Measures, STEP, look_every, now};
use crate::stores::catalog::{TenantLock, Work};
use crate::tenancy::{Registry, Tenant};

/// Tenants that are indexed at once: each has a lock's connection and its chunks'.
const TENANTS_AT_ONCE: usize = 2;
/// Time in which everybody who waits should have had a turn.
const ROUND: Duration = Duration::from_secs(10);
/// Bounds of a turn: below the first, beginning it costs more than what it does; the second is for
/// a tenant that waits alone.
const TURN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// What runs the turns.
pub(super) struct CatchUp {
    pub(super) indexer: LateIndexer,
    pub(super) registry: Registry,
    pub(super) measures: Measures,
}

/// What is known after a tenant's turn.
enum After {
    /// It has no more work for now.
    Level,
    /// It waits for its next turn.
    More,
    /// OpenSearch does not work: nobody's turn is of any use.
    Away,
}

impl CatchUp {
    /// Turn after turn until `stop`; a turn that has begun is finished.
    pub(super) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = self.registry.loaded() => {}
            () = stop.cancelled() => return,
        }
        while !stop.is_cancelled() {
            let looked = Instant::now();
            let tenants = self.registry.tenants();
            let every = look_every(tenants.len());
            let mut waiting = self.waiting(tenants).await;
            while !waiting.is_empty() && !stop.is_cancelled() {
                let Some(more) = self.round(&waiting, &stop).await else { break };
                waiting = more;
                if looked.elapsed() >= every {
                    break;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(every.saturating_sub(looked.elapsed())) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Who has something that the index lacks.
    async fn waiting(&self, mut tenants: Vec<Arc<Tenant>>) -> Vec<Arc<Tenant>> {
        let looked = look(self.indexer.catalog(), &tenants).await.map_err(Error::from);
        let Some(looks) = self.measures.note("look at the tenants", looked) else { return Vec::new() };
        tenants.retain(|tenant| looks.get(&tenant.name().database_schema()).is_none_or(|look| look.unindexed));
        tenants
    }

    /// One turn for each of these. Gives back those who have more; `None` if OpenSearch is away.
    async fn round(&self, waiting: &[Arc<Tenant>], stop: &CancellationToken) -> Option<Vec<Arc<Tenant>>> {
        let length = turn_length(waiting.len());
        let mut turns = pin!(
            futures::stream::iter(waiting)
                .take_until(stop.cancelled())
                .map(async |tenant| (tenant, self.turn(tenant, length).await))
                .buffer_unordered(TENANTS_AT_ONCE)
        );
        let mut more = Vec::new();
        while let Some((tenant, after)) = turns.next().await {
            match after {
                After::Level => {}
                After::More => more.push(Arc::clone(tenant)),
                After::Away => return None,
            }
        }
        Some(more)
    }

    async fn turn(&self, tenant: &Arc<Tenant>, length: Duration) -> After {
        let catalog = self.indexer.catalog();
        let lock = match TenantLock::try_take(catalog, tenant, Work::LateIndex).await {
            Ok(Some(lock)) => lock,
            Ok(None) => return After::Level,
            Err(error) => {
                self.measures.note::<()>("lock a tenant", Err(error.into()));
                return After::Level;
            }
        };
        let mut turn = Turn::default();
        let work = async {
            // A clock that is ahead would take what is hot for cold.
            let now = now().min(catalog.now().await?);
            self.indexer.work(tenant, now, Some(Instant::now() + length), &mut turn).await
        };
        let worked = catalog.within(STEP, "index late", work).await;
        let away = worked.as_ref().is_err_and(is_away);
        self.measures.note("index late", worked);
        self.measures.count(&turn);
        lock.release().await;
        match (away, turn.more) {
            (true, _) => After::Away,
            (false, true) => After::More,
            (false, false) => After::Level,
        }
    }
}

/// How long a turn is when this many wait.
fn turn_length(waiting: usize) -> Duration {
    let share = ROUND * u32::try_from(TENANTS_AT_ONCE).unwrap_or(1) / u32::try_from(waiting.max(1)).unwrap_or(u32::MAX);
    share.clamp(TURN.0, TURN.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_shorter_when_many_wait() {
        let millis = [0, 1, 4, 8, 20, 1000].map(|waiting| turn_length(waiting).as_millis());
        assert_eq!(millis, [5000, 5000, 5000, 2500, 1000, 500]);
    }
}
