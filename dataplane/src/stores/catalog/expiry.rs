//! Partitions ahead of time, and rows that are kept no longer, in bounded steps.

use time::OffsetDateTime;

use super::{Catalog, Error, UNDEFINED_COLUMN, UNDEFINED_FUNCTION, failed, has_code};
use crate::event::{Micros, date_time};
use crate::tenancy::Tenant;

/// One kind of rows that expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiring {
    /// Rows of the ledger up to this number, which the roll-up has counted.
    Usage {
        /// The last of them.
        counted: i64,
    },
    /// Dead letters that came in a batch. They expire with it, which has their bytes: both by when they were accepted,
    /// which is the time of the letter's id.
    Letters,
    /// Dead letters without a batch: they have their bytes themselves.
    LettersWithoutBatch,
    /// Batches.
    Batches,
    /// Spool rows that could not be read, and so are in no object.
    UnreadableSpoolRows,
    /// Clients' `Idempotency-Key`s.
    IdempotencyKeys,
}

impl Expiring {
    /// Deletes at most `$2` rows from before `$1`. Each goes along an index from its oldest end, and meets next to
    /// nothing that it leaves. `None`: the tenant's role may not delete them.
    fn statement(self) -> Option<&'static str> {
        match self {
            Self::Usage { .. } => None,
            Self::Letters => Some(
                "DELETE FROM dead_letters WHERE event_id IN
                 (SELECT event_id FROM dead_letters WHERE event_id < public.uuid_floor($1) AND batch_id IS NOT NULL
                  ORDER BY event_id LIMIT $2)",
            ),
            Self::LettersWithoutBatch => Some(
                "DELETE FROM dead_letters WHERE event_id IN
                 (SELECT event_id FROM dead_letters WHERE created_at < $1 AND batch_id IS NULL
                  ORDER BY created_at LIMIT $2)",
            ),
            Self::Batches => Some(
                "DELETE FROM batches WHERE batch_id IN
                 (SELECT batch_id FROM batches WHERE accepted_at < $1 ORDER BY accepted_at LIMIT $2)",
            ),
            Self::UnreadableSpoolRows => Some(
                "DELETE FROM spool WHERE spool_id IN
                 (SELECT spool_id FROM spool WHERE unreadable_at IS NOT NULL AND created_at < $1
                  ORDER BY spool_id LIMIT $2)",
            ),
            Self::IdempotencyKeys => Some(
                "DELETE FROM idempotency WHERE batch_id IN
                 (SELECT batch_id FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
            ),
        }
    }
}

impl Catalog {
    /// Makes the partitions of all that is kept at `now`, and some ahead. Returns how many were made.
    pub async fn ensure_partitions(&self, tenant: &Tenant, now: Micros) -> Result<i32, Error> {
        sqlx::query_scalar("SELECT public.ensure_partitions($1, $2)")
            .bind(tenant.name().database_schema())
            .bind(date_time(now))
            .fetch_one(&self.pool())
            .await
            .map_err(failed("make partitions"))
    }

    /// Drops the partitions of what is kept no longer at `now`. Returns how many.
    pub async fn drop_expired_partitions(&self, tenant: &Tenant, now: Micros) -> Result<i32, Error> {
        sqlx::query_scalar("SELECT public.drop_expired_partitions($1, $2)")
            .bind(tenant.name().database_schema())
            .bind(date_time(now))
            .fetch_one(&self.pool())
            .await
            .map_err(failed("drop expired partitions"))
    }

    /// What was accepted before this is kept no longer: at least `totalDays` old, and its rows are gone.
    pub async fn cutoff(&self, tenant: &Tenant, now: Micros) -> Result<OffsetDateTime, Error> {
        let mut transaction = self.begin(tenant).await?;
        sqlx::query_scalar("SELECT least(min(begins), $1::timestamptz - make_interval(days => $2)) FROM partitions")
            .bind(date_time(now))
            .bind(tenant.registered().total_days)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("find what is expired"))
    }

    /// Deletes at most `limit` rows of this kind from before then. Returns how many are gone.
    pub async fn delete_expired(
        &self,
        tenant: &Tenant,
        expiring: Expiring,
        before: OffsetDateTime,
        limit: u64,
    ) -> Result<u64, Error> {
        match (expiring, expiring.statement()) {
            (Expiring::Usage { counted }, _) => self.delete_usage(tenant, counted, before, limit).await,
            (_, Some(statement)) => self.delete_rows(tenant, statement, before, limit).await,
            (_, None) => Ok(0),
        }
    }

    /// Has rows of the ledger deleted, which the tenant's role may not do.
    async fn delete_usage(
        &self,
        tenant: &Tenant,
        counted: i64,
        before: OffsetDateTime,
        limit: u64,
    ) -> Result<u64, Error> {
        let deleted: Result<i64, _> = sqlx::query_scalar("SELECT public.delete_counted_usage($1, $2, $3, $4)")
            .bind(tenant.name().database_schema())
            .bind(before)
            .bind(counted)
            .bind(limit as i64)
            .fetch_one(&self.pool())
            .await;
        match deleted {
            Ok(deleted) => Ok(deleted.unsigned_abs()),
            // The operator is of the version before: they go once it is upgraded.
            Err(error) if has_code(&error, UNDEFINED_FUNCTION) => Ok(0),
            Err(error) => Err(failed("delete expired usage")(error)),
        }
    }

    async fn delete_rows(
        &self,
        tenant: &Tenant,
        statement: &'static str,
        before: OffsetDateTime,
        limit: u64,
    ) -> Result<u64, Error> {
        let doing = "delete expired rows";
        let mut transaction = self.begin(tenant).await?;
        let done = sqlx::query(statement).bind(before).bind(limit as i64).execute(&mut *transaction).await;
        let done = match done {
            // The operator has not brought the schema to this version yet, so there is none of these.
            Err(error) if has_code(&error, UNDEFINED_COLUMN) => return Ok(0),
            done => done.map_err(failed(doing))?,
        };
        transaction.commit().await.map_err(failed(doing))?;
        Ok(done.rows_affected())
    }
}
