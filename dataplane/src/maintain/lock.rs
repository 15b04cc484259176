//! One `maintain` per tenant at a time. Every step is right without it; two at once would only do
//! the same work twice.

use runtime::logging::chain;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

use crate::stores::catalog::{Error, failed};
use crate::tenancy::Tenant;

/// A tenant's advisory lock, held by a session.
pub(super) struct TenantLock {
    /// Taken out only to be given back to the pool without the lock.
    session: Option<PoolConnection<Postgres>>,
    key: String,
}

impl TenantLock {
    /// The lock; `None` if somebody else holds it.
    pub(super) async fn try_take(pool: &PgPool, tenant: &Tenant) -> Result<Option<Self>, Error> {
        let mut session = pool.acquire().await.map_err(failed("connect to the catalog"))?;
        let key = format!("maintain:{}", tenant.name());
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
            .bind(&key)
            .fetch_one(&mut *session)
            .await
            .map_err(failed("lock a tenant"))?;
        Ok(taken.then_some(Self { session: Some(session), key }))
    }

    /// Gives the lock back.
    pub(super) async fn release(mut self) {
        let Some(mut session) = self.session.take() else { return };
        let released = sqlx::query("SELECT pg_advisory_unlock(hashtextextended($1, 0))")
            .bind(&self.key)
            .execute(&mut *session)
            .await;
        if let Err(error) = released {
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
