//! The ledger of what each tenant sent, which the roll-up of usage counts.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Catalog, Error, failed};
use crate::tenancy::Tenant;

/// What a tenant sent in one hour, as its ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Hour {
    /// When the hour begins.
    pub hour: OffsetDateTime,
    /// Events.
    pub events: i64,
    /// Bytes.
    pub bytes: i64,
    /// Number of the last row that was summed up.
    pub last_id: i64,
}

impl Catalog {
    /// The ledger's last number, and then the transactions that write to it: one that took a lower number has
    /// ended before, or is among them. `None` if there is no number after this one.
    pub async fn ledger_end(&self, tenant: &Tenant, after: i64) -> Result<Option<(i64, Vec<String>)>, Error> {
        let doing = "find the end of the ledger";
        let mut transaction = self.begin(tenant).await?;
        let last_id: Option<i64> = sqlx::query_scalar("SELECT max(ledger_id) FROM usage_ledger WHERE ledger_id > $1")
            .bind(after)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed(doing))?;
        let Some(last_id) = last_id else { return Ok(None) };
        let writers = writers(&mut transaction).await?;
        transaction.rollback().await.map_err(failed(doing))?;
        Ok(Some((last_id, writers)))
    }

    /// The transactions that write to the ledger now.
    pub async fn ledger_writers(&self, tenant: &Tenant) -> Result<Vec<String>, Error> {
        writers(&mut *self.begin(tenant).await?).await
    }

    /// What the ledger has after one number and up to another, by the hour.
    pub async fn ledger_hours(&self, tenant: &Tenant, after: i64, last: i64) -> Result<Vec<Hour>, Error> {
        let doing = "sum up the ledger";
        let mut transaction = self.begin(tenant).await?;
        let hours = sqlx::query_as(
            "SELECT date_trunc('hour', accepted_at, 'UTC') AS hour, sum(events)::bigint AS events,
                    sum(bytes)::bigint AS bytes, max(ledger_id) AS last_id
             FROM usage_ledger WHERE ledger_id > $1 AND ledger_id <= $2 GROUP BY 1 ORDER BY 1",
        )
        .bind(after)
        .bind(last)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed(doing))?;
        transaction.rollback().await.map_err(failed(doing))?;
        Ok(hours)
    }
}

/// Each holds its lock from before it takes a number until it has ended.
async fn writers(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    sqlx::query_scalar(
        "SELECT virtualtransaction FROM pg_locks
         WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND relation = 'usage_ledger'::regclass AND mode = 'RowExclusiveLock' AND granted",
    )
    .fetch_all(connection)
    .await
    .map_err(failed("look for writers of the ledger"))
}
