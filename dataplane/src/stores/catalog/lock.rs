//! One `maintain` per tenant and kind of work at a time, and none while the operator removes the tenant. Each step of two
//! at once is right without it; they would only do the same work twice.

use runtime::logging::chain;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

use super::{Catalog, Error, LIMIT, failed};
use crate::tenancy::Tenant;

/// What a tenant is locked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Archiving, expiry, usage; repair and rebuild keep all of these out.
    Passes,
    /// Late indexing, which may go on beside the others.
    LateIndex,
}

/// A tenant's advisory lock, held by a session.
pub struct TenantLock {
    /// Taken out only to be given back to the pool without the lock.
    session: Option<PoolConnection<Postgres>>,
    key: String,
    catalog: Catalog,
}

impl TenantLock {
    /// The lock; `None` if somebody else holds it.
    pub async fn try_take(catalog: &Catalog, tenant: &Tenant, work: Work) -> Result<Option<Self>, Error> {
        let key = match work {
            Work::Passes => tenant.name().maintain_lock(),
            Work::LateIndex => tenant.name().late_index_lock(),
        };
        let doing = "lock a tenant";
        let taken = catalog.within(LIMIT, doing, async {
            let mut session = catalog.pool().acquire().await.map_err(failed("connect to the catalog"))?;
            let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
                .bind(&key)
                .fetch_one(&mut *session)
                .await
                .map_err(failed(doing))?;
            Ok::<_, Error>(taken.then_some(session))
        });
        let session = taken.await?;
        if session.is_none() {
            // Nothing is wrong with that, unless it is so for long.
            tracing::debug!(tenant.name = %tenant.name(), "somebody else holds {key}");
        }
        let catalog = catalog.clone();
        Ok(session.map(|session| Self { session: Some(session), key, catalog }))
    }

    /// Gives the lock back.
    pub async fn release(mut self) {
        let Some(mut session) = self.session.take() else { return };
        let doing = "unlock a tenant";
        let unlocking =
            sqlx::query("SELECT pg_advisory_unlock(hashtextextended($1, 0))").bind(&self.key).execute(&mut *session);
        let released = self.catalog.within(LIMIT, doing, async { unlocking.await.map_err(failed(doing)) });
        if let Err(error) = released.await {
            tracing::warn!(error = chain(&error), "unlock {}", self.key);
            session.close_on_drop();
        }
    }
}

impl Drop for TenantLock {
    /// A pass that ended half way: its session must not go back to the pool with the lock.
    fn drop(&mut self) {
        if let Some(session) = &mut self.session {
            session.close_on_drop();
        }
    }
}
