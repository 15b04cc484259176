//! Waiting for a tenant that `maintain` is at.

use std::time::{Duration, Instant};

use super::Error;
use crate::stores::catalog::{Catalog, TenantLock, Work};
use crate::tenancy::Tenant;

/// Longest wait: a large backlog to be archived takes minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// The tenant's lock, once its holder has released it: a pass over one tenant ends within seconds.
pub(super) async fn wait_for(catalog: &Catalog, tenant: &Tenant, work: Work) -> Result<TenantLock, Error> {
    let begun = Instant::now();
    loop {
        if let Some(lock) = TenantLock::try_take(catalog, tenant, work).await? {
            return Ok(lock);
        }
        if begun.elapsed() >= LONGEST_WAIT {
            return Err(Error::Busy);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
