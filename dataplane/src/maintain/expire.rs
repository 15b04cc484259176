//! Partitions ahead of time, and the end of what is kept no longer.
//!
//! Rows go first, by whole partitions; what they refer to follows, in bounded steps; an object is
//! deleted last, when no row leads to it any more.
//!
//! What is deleted stays deleted, so no single clock decides it: nothing goes that is kept by
//! PostgreSQL's clock, whatever ours says.

use std::time::{Duration, Instant};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Rooms};
use crate::event::{Micros, date_time};
use crate::stores::archive::DELETED_AT_ONCE;
use crate::stores::catalog::{UNDEFINED_COLUMN, UNDEFINED_FUNCTION, failed, has_code};
use crate::tenancy::Tenant;

/// Rows of a table deleted by one statement, so that none holds its locks for long.
const ROWS_AT_ONCE: u64 = 5_000;
/// Longest time that one call goes on with what there still is to delete, so that the other tenants have their turn. Some
/// 25,000 rows go in a second: more than ten times what the busiest tenant of a server can add.
const TURN: Duration = Duration::from_secs(10);
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
    /// There is more, and the turn is over.
    pub more: bool,
}

/// One way in which rows of a table are kept no longer.
enum Old {
    /// Rows of the ledger that are counted up to this number, and from before then.
    Usage(i64, OffsetDateTime),
    /// What this statement deletes: at most `$2` rows from before `$1`, which is then.
    Rows(&'static str, OffsetDateTime),
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

/// Removes what is kept no longer at `now`, and by PostgreSQL's clock, for a turn of each kind.
pub async fn expire(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<Expired, Error> {
    let rows = expire_rows(rooms, tenant, now).await?;
    let objects = expire_objects(rooms, tenant, now).await?;
    Ok(Expired { objects: objects.objects, more: rows.more || objects.more, ..rows })
}

/// Removes partitions and rows that are kept no longer, which takes PostgreSQL alone.
pub(super) async fn expire_rows(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<Expired, Error> {
    let begun = Instant::now();
    let now = now.min(rooms.catalog.now().await?);
    let dropped = drop_partitions(rooms, tenant, now).await;
    let cutoff = cutoff(rooms, tenant, now).await?;
    let counted = counted(rooms, tenant).await?;
    let mut expired = Expired::default();
    let mut left: Vec<Old> = old(cutoff, date_time(now - IDEMPOTENCY_WINDOW.as_micros() as Micros), counted).into();
    // Each in its turn: the first must not use up the time of the others.
    while !left.is_empty() && !expired.more {
        let mut more = Vec::new();
        for old in left {
            let rows = delete(rooms, tenant, &old).await?;
            expired.rows += rows;
            if rows == ROWS_AT_ONCE {
                more.push(old);
            }
        }
        left = more;
        expired.more = !left.is_empty() && begun.elapsed() >= TURN;
    }
    // Somebody may have read the rows for too long, which is no reason to keep what was done with before.
    expired.partitions = dropped?;
    Ok(expired)
}

/// Removes objects whose rows are gone.
pub(super) async fn expire_objects(rooms: &Rooms, tenant: &Tenant, now: Micros) -> Result<Expired, Error> {
    let begun = Instant::now();
    let now = now.min(rooms.catalog.now().await?);
    let cutoff = cutoff(rooms, tenant, now).await?;
    let mut expired = Expired::default();
    let mut full = true;
    while full && !expired.more {
        let objects = delete_objects(rooms, tenant, cutoff).await?;
        expired.objects += objects;
        full = objects == DELETED_AT_ONCE as u64;
        expired.more = full && begun.elapsed() >= TURN;
    }
    Ok(expired)
}

/// Which rows are kept no longer: those from before `cutoff`, and keys from before `forgotten`. Each statement goes along an
/// index from its oldest end, and meets next to nothing that it leaves.
fn old(cutoff: OffsetDateTime, forgotten: OffsetDateTime, counted: i64) -> [Old; 6] {
    [
        Old::Usage(counted, cutoff),
        // A letter goes with its batch, which has its bytes: both by when they were accepted, which
        // is the time of the letter's id.
        Old::Rows(
            "DELETE FROM dead_letters WHERE event_id IN
             (SELECT event_id FROM dead_letters WHERE event_id < public.uuid_floor($1) AND batch_id IS NOT NULL
              ORDER BY event_id LIMIT $2)",
            cutoff,
        ),
        // One without a batch has its bytes itself.
        Old::Rows(
            "DELETE FROM dead_letters WHERE event_id IN
             (SELECT event_id FROM dead_letters WHERE created_at < $1 AND batch_id IS NULL ORDER BY created_at LIMIT $2)",
            cutoff,
        ),
        Old::Rows(
            "DELETE FROM batches WHERE batch_id IN
             (SELECT batch_id FROM batches WHERE accepted_at < $1 ORDER BY accepted_at LIMIT $2)",
            cutoff,
        ),
        // Nobody has archived what nobody can read: until here, somebody can still look into it.
        Old::Rows(
            "DELETE FROM spool WHERE spool_id IN
             (SELECT spool_id FROM spool WHERE unreadable_at IS NOT NULL AND created_at < $1 ORDER BY spool_id LIMIT $2)",
            cutoff,
        ),
        Old::Rows(
            "DELETE FROM idempotency WHERE batch_id IN
             (SELECT batch_id FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
            forgotten,
        ),
    ]
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

/// Takes one step. Gives back how many rows are gone.
async fn delete(rooms: &Rooms, tenant: &Tenant, old: &Old) -> Result<u64, Error> {
    match *old {
        Old::Usage(counted, before) => delete_usage(rooms, tenant, counted, before).await,
        Old::Rows(statement, before) => delete_rows(rooms, tenant, statement, before).await,
    }
}

/// Has rows of the ledger deleted, which the tenant's role may not do.
async fn delete_usage(rooms: &Rooms, tenant: &Tenant, counted: i64, before: OffsetDateTime) -> Result<u64, Error> {
    let deleted: Result<i64, _> = sqlx::query_scalar("SELECT public.delete_counted_usage($1, $2, $3, $4)")
        .bind(tenant.name().database_schema())
        .bind(before)
        .bind(counted)
        .bind(ROWS_AT_ONCE as i64)
        .fetch_one(&rooms.catalog.pool())
        .await;
    match deleted {
        Ok(deleted) => Ok(deleted.unsigned_abs()),
        // The operator is of the version before: they go once it is upgraded.
        Err(error) if has_code(&error, UNDEFINED_FUNCTION) => Ok(0),
        Err(error) => Err(failed("delete expired usage")(error).into()),
    }
}

async fn delete_rows(
    rooms: &Rooms,
    tenant: &Tenant,
    statement: &'static str,
    before: OffsetDateTime,
) -> Result<u64, Error> {
    let doing = "delete expired rows";
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let done = sqlx::query(statement).bind(before).bind(ROWS_AT_ONCE as i64).execute(&mut *transaction).await;
    let done = match done {
        // The operator has not brought the schema to this version yet, so there is none of these.
        Err(error) if has_code(&error, UNDEFINED_COLUMN) => return Ok(0),
        done => done.map_err(failed(doing))?,
    };
    transaction.commit().await.map_err(failed(doing))?;
    Ok(done.rows_affected())
}

/// Deletes objects that no batch refers to any more: then their rows, which lead nobody there, so that an object that could
/// not be deleted now is tried again.
async fn delete_objects(rooms: &Rooms, tenant: &Tenant, cutoff: OffsetDateTime) -> Result<u64, Error> {
    let doing = "delete rows of expired objects";
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let keys = unreferenced(&mut transaction, cutoff).await?;
    transaction.rollback().await.map_err(failed(doing))?;
    if keys.is_empty() {
        return Ok(0);
    }
    let (gone, failure) = rooms.archive.delete_all(tenant, &keys).await;
    let mut transaction = rooms.catalog.begin(tenant).await?;
    sqlx::query("DELETE FROM objects WHERE key = ANY($1)")
        .bind(&gone)
        .execute(&mut *transaction)
        .await
        .map_err(failed(doing))?;
    transaction.commit().await.map_err(failed(doing))?;
    failure.map_or(Ok(gone.len() as u64), |error| Err(error.into()))
}

/// Objects all of whose batches are gone: no batch is left that is as old as the newest of them.
async fn unreferenced(connection: &mut PgConnection, cutoff: OffsetDateTime) -> Result<Vec<String>, Error> {
    let keys = sqlx::query_scalar(
        "SELECT key FROM objects WHERE max_accepted < least($1, (SELECT min(accepted_at) FROM batches))
         ORDER BY object_id LIMIT $2",
    )
    .bind(cutoff)
    .bind(DELETED_AT_ONCE as i64)
    .fetch_all(connection)
    .await
    .map_err(failed("find expired objects"))?;
    Ok(keys)
}
