//! Each tenant's share of the queue: whoever has as many bytes waiting as it may is refused, so that
//! one tenant's backlog never fills Redis for the others.
//!
//! The share is counted in the step that adds or deletes an entry. A replica sees a tenant's count with
//! each entry that it adds, and looks at the counts of those that it refuses once a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::TenantName;
use crds::names::Lane;
use redis::RedisResult;
use runtime::stores::Connection;

/// A tenant's share where Redis has no limit of its own: half an hour of 1 MiB/s, compressed.
const WITHOUT_LIMIT: u64 = 512 * 1024 * 1024;

/// The tenants whose share is used up, as last seen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlogs {
    full: Arc<Mutex<HashMap<TenantName, Lane>>>,
}

/// Bytes that one tenant may have waiting in a lane.
pub(super) fn share(max_memory: u64, percent: u8) -> u64 {
    if max_memory == 0 { WITHOUT_LIMIT } else { max_memory / 100 * u64::from(percent.clamp(1, 100)) }
}

impl Backlogs {
    /// Whether nothing more of this tenant may be added to this lane.
    pub(super) fn is_full(&self, tenant: &TenantName, lane: &Lane) -> bool {
        self.lock().get(tenant).is_some_and(|full| full == lane)
    }

    /// Notes what a tenant has waiting.
    pub(super) fn seen(&self, tenant: &TenantName, lane: &Lane, bytes: u64, share: u64) {
        let mut full = self.lock();
        let news = if bytes >= share {
            full.insert(tenant.clone(), lane.clone()).is_none()
        } else {
            full.remove(tenant);
            false
        };
        drop(full);
        if news {
            tracing::warn!(tenant.name = %tenant, bytes, share, "tenant {tenant} has used up its share of the queue");
        }
    }

    /// Looks at the tenants that are refused.
    pub(super) async fn look(&self, connection: &Connection, share: u64) -> RedisResult<()> {
        let refused: Vec<(TenantName, Lane)> =
            self.lock().iter().map(|(tenant, lane)| (tenant.clone(), lane.clone())).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for (tenant, lane) in &refused {
            pipe.hget(lane.tenant_bytes(), tenant.as_str());
        }
        let waiting: Vec<Option<u64>> = pipe.query_async(&mut connection.clone()).await?;
        for ((tenant, lane), bytes) in refused.iter().zip(waiting) {
            self.seen(tenant, lane, bytes.unwrap_or(0), share);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantName, Lane>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_what_redis_may_use() {
        for (max_memory, percent, expected) in
            [(1000, 25, 250), (1000, 100, 1000), (1000, 0, 10), (1000, 200, 1000), (0, 25, WITHOUT_LIMIT)]
        {
            assert_eq!(share(max_memory, percent), expected, "{max_memory} {percent}");
        }
    }

    #[test]
    fn a_tenant_is_full_in_its_lane_until_it_is_seen_with_less() {
        let backlogs = Backlogs::default();
        let tenant: TenantName = "acme".parse().unwrap();
        let lane = crds::PipelineName::default_pipeline().lane(&tenant);
        let elsewhere = "fast".parse::<crds::PipelineName>().unwrap().lane(&tenant);
        assert!(!backlogs.is_full(&tenant, &lane));
        backlogs.seen(&tenant, &lane, 10, 10);
        assert!(backlogs.is_full(&tenant, &lane) && !backlogs.is_full(&tenant, &elsewhere));
        backlogs.seen(&tenant, &lane, 9, 10);
        assert!(!backlogs.is_full(&tenant, &lane));
    }
}
