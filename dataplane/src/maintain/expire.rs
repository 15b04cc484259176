//! Partitions ahead of time, and the end of what is kept no longer.
//!
//! Rows go first, by whole partitions; what they refer to follows, in bounded steps; an object is
//! deleted last, when no row leads to it any more.
//!
//! What is deleted stays deleted, so no single clock decides it: nothing goes that is kept by
//! PostgreSQL's clock, whatever ours says.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Rooms};
use crate::event::{Micros, date_time};
use crate::stores::catalog::failed;
use crate::tenancy::Tenant;

/// Rows of a table deleted by one statement, so that none holds its locks for long.
const ROWS_AT_ONCE: i64 = 5_000;
/// Steps of one call; the next one goes on.
const STEPS: usize = 20;
/// Objects deleted by one call.
const OBJECTS_AT_ONCE: i64 = 100;
/// How long a client's key is remembered: the documented window.
pub(super) const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(72 * 3600);

/// What was removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Partitions of event rows.
    pub partitions: i32,
    /// Rows of batches, ledger, dead letters, spool and keys.
    pub rows: u64,
    /// Objects of the archive.
    pub objects: u64,
}

/// Makes the partitions of all that is kept at `now`, and some ahead. Gives back how many were made.
pub async fn partitions(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<i32, Error> {
    let made = sqlx::query_scalar("SELECT public.ensure_partitions($1, $2)")
        .bind(tenant.name().database_schema())
        .bind(date_time(now))
        .fetch_one(&rooms.catalog.pool())
        .await
        .map_err(failed("make partitions"))?;
    Ok(made)
}

/// Removes what is kept no longer at `now`, and by PostgreSQL's clock, as much as one call may.
pub async fn expire(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<Expired, Error> {
    let now = now.min(rooms.catalog.now().await?);
    let dropped = drop_partitions(rooms, tenant, now).await;
    let mut expired = Expired::default();
    let cutoff = cutoff(rooms, tenant, now).await?;
    let counted = counted(rooms, tenant).await?;
    let forgotten = date_time(now - IDEMPOTENCY_WINDOW.as_micros() as Micros);
    for (statement, before) in [
        (
            "DELETE FROM usage_ledger WHERE ledger_id IN
             (SELECT ledger_id FROM usage_ledger WHERE accepted_at < $1 AND ledger_id <= $3 ORDER BY ledger_id LIMIT $2)",
            cutoff,
        ),
        // A letter goes with its batch, which has its bytes: both by when they were accepted, which
        // is the time of the letter's id. One without a batch has its bytes itself.
        (
            "DELETE FROM dead_letters WHERE event_id IN
             (SELECT event_id FROM dead_letters
              WHERE CASE WHEN batch_id IS NULL THEN created_at < $1 ELSE event_id < public.uuid_floor($1) END
              AND $3 >= 0 LIMIT $2)",
            cutoff,
        ),
        (
            "DELETE FROM batches WHERE batch_id IN
             (SELECT batch_id FROM batches WHERE accepted_at < $1 AND $3 >= 0 ORDER BY accepted_at LIMIT $2)",
            cutoff,
        ),
        (
            "DELETE FROM idempotency WHERE batch_id IN
             (SELECT batch_id FROM idempotency WHERE created_at < $1 AND $3 >= 0 ORDER BY created_at LIMIT $2)",
            forgotten,
        ),
    ] {
        expired.rows += delete(rooms, tenant, statement, before, counted).await?;
    }
    expired.objects = delete_objects(rooms, tenant, cutoff).await?;
    // Somebody may have read the rows for too long, which is no reason to keep what was done with before.
    expired.partitions = dropped?;
    Ok(expired)
}

/// Drops the partitions of what is kept no longer at `now`.
async fn drop_partitions(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<i32, Error> {
    let dropped = sqlx::query_scalar("SELECT public.drop_expired_partitions($1, $2)")
        .bind(tenant.name().database_schema())
        .bind(date_time(now))
        .fetch_one(&rooms.catalog.pool())
        .await
        .map_err(failed("drop expired partitions"))?;
    Ok(dropped)
}

/// What was accepted before this is kept no longer: at least `totalDays` old, and its rows are gone.
async fn cutoff(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<OffsetDateTime, Error> {
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let cutoff =
        sqlx::query_scalar("SELECT least(min(begins), $1::timestamptz - make_interval(days => $2)) FROM partitions")
            .bind(date_time(now))
            .bind(tenant.registered().total_days)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed("find what is expired"))?;
    Ok(cutoff)
}

/// The last row of the ledger that the roll-up has counted: later ones must stay.
async fn counted(rooms: &Rooms, tenant: &Tenant) -> Result<i64, Error> {
    let watermark: Option<i64> = sqlx::query_scalar("SELECT ledger_id FROM public.usage_watermarks WHERE tenant = $1")
        .bind(tenant.name().as_str())
        .fetch_optional(&rooms.core.pool())
        .await
        .map_err(failed("read the watermark"))?;
    Ok(watermark.unwrap_or(0))
}

async fn delete(
    rooms: &Rooms,
    tenant: &Tenant,
    statement: &'static str,
    before: OffsetDateTime,
    counted: i64,
) -> Result<u64, Error> {
    let mut rows = 0;
    for _ in 0..STEPS {
        let mut transaction = rooms.catalog.begin(tenant).await?;
        let done = sqlx::query(statement)
            .bind(before)
            .bind(ROWS_AT_ONCE)
            .bind(counted)
            .execute(&mut *transaction)
            .await
            .map_err(failed("delete expired rows"))?;
        transaction.commit().await.map_err(failed("delete expired rows"))?;
        rows += done.rows_affected();
        if done.rows_affected() < ROWS_AT_ONCE as u64 {
            break;
        }
    }
    Ok(rows)
}

/// Deletes objects that no batch refers to any more: first the row, so that nobody is led to an
/// object that is gone. One whose row is deleted and that is then not deleted, because we die, goes
/// with the bucket's lifecycle two days later.
async fn delete_objects(rooms: &Rooms, tenant: &Tenant, cutoff: OffsetDateTime) -> Result<u64, Error> {
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let keys = unreferenced(&mut transaction, cutoff).await?;
    transaction.commit().await.map_err(failed("delete rows of expired objects"))?;
    for key in &keys {
        rooms.archive.delete(tenant, key).await?;
    }
    Ok(keys.len() as u64)
}

async fn unreferenced(connection: &mut PgConnection, cutoff: OffsetDateTime) -> Result<Vec<String>, Error> {
    let keys = sqlx::query_scalar(
        "DELETE FROM objects WHERE object_id IN
         (SELECT object_id FROM objects
          WHERE max_accepted < $1 AND NOT EXISTS (SELECT FROM batches WHERE batches.object_id = objects.object_id)
          ORDER BY object_id LIMIT $2)
         RETURNING key",
    )
    .bind(cutoff)
    .bind(OBJECTS_AT_ONCE)
    .fetch_all(connection)
    .await
    .map_err(failed("delete rows of expired objects"))?;
    Ok(keys)
}
