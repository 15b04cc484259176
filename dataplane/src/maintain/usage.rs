//! Rolls each tenant's ledger up into the core database, by the hour.
//!
//! Ledger and roll-up are in two databases, so the watermark moves in the transaction that adds:
//! nothing counts twice. And it must never pass a row that a transaction has numbered but not yet
//! committed. So once the last number is read, whoever writes to the ledger then is waited for: when
//! they have ended, no lower number can still appear. Nobody waits for us.

use std::future::Future;
use std::time::{Duration, Instant};

use sqlx::{PgConnection, Postgres, Transaction};
use time::OffsetDateTime;

use super::{Error, Rooms};
use crate::stores::catalog::{LIMIT, failed};
use crate::tenancy::Tenant;

/// Adds hours to what is counted already.
const ADD: &str = "INSERT INTO public.usage_hourly AS usage (tenant, hour, events, bytes)
     SELECT $1, hour, events, bytes FROM unnest($2::timestamptz[], $3::bigint[], $4::bigint[]) AS new (hour, events, bytes)
     ON CONFLICT (tenant, hour) DO UPDATE SET events = usage.events + excluded.events, bytes = usage.bytes + excluded.bytes";
/// Raises hours to at least these.
const RAISE: &str = "INSERT INTO public.usage_hourly AS usage (tenant, hour, events, bytes)
     SELECT $1, hour, events, bytes FROM unnest($2::timestamptz[], $3::bigint[], $4::bigint[]) AS new (hour, events, bytes)
     ON CONFLICT (tenant, hour) DO UPDATE SET events = greatest(usage.events, excluded.events),
                                              bytes = greatest(usage.bytes, excluded.bytes)";

/// Longest wait for who writes to the ledger: a flush takes well under a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks whether they have ended.
const PAUSE: Duration = Duration::from_millis(50);

/// Usage of one hour.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Hour {
    hour: OffsetDateTime,
    events: i64,
    bytes: i64,
    last_id: i64,
}

/// Adds what is new in the tenant's ledger. Gives back how many events that are.
pub async fn roll_up(rooms: &Rooms, tenant: &Tenant) -> Result<i64, Error> {
    let (mut core, watermark) = begin(rooms, tenant).await?;
    let hours = hours_after(rooms, tenant, watermark).await?;
    let Some(last_id) = hours.iter().map(|hour| hour.last_id).max() else { return Ok(0) };
    let doing = "commit the roll-up";
    bounded(rooms, doing, async {
        write(&mut core, tenant, &hours, ("add usage", ADD)).await?;
        set_watermark(&mut core, tenant, last_id).await?;
        Ok(core.commit().await.map_err(failed(doing))?)
    })
    .await?;
    Ok(hours.iter().map(|hour| hour.events).sum())
}

/// Brings the roll-up of a tenant whose ledger was restored level with it, without counting anything
/// twice: each hour has at least what the ledger has of it, and what was counted before stays. What
/// the ledger has now counts as rolled up. May be repeated.
pub(super) async fn settle(rooms: &Rooms, tenant: &Tenant) -> Result<(), Error> {
    let (mut core, _) = begin(rooms, tenant).await?;
    let hours = hours_after(rooms, tenant, i64::MIN).await?;
    let last_id = hours.iter().map(|hour| hour.last_id).max().unwrap_or(0).max(0);
    let doing = "commit the settled usage";
    bounded(rooms, doing, async {
        write(&mut core, tenant, &hours, ("settle usage", RAISE)).await?;
        set_watermark(&mut core, tenant, last_id).await?;
        Ok(core.commit().await.map_err(failed(doing))?)
    })
    .await
}

/// A transaction of the core database, and how far the tenant is rolled up.
async fn begin(rooms: &Rooms, tenant: &Tenant) -> Result<(Transaction<'static, Postgres>, i64), Error> {
    let doing = "begin in the core database";
    bounded(rooms, doing, async {
        let mut core = rooms.core.pool().begin().await.map_err(failed(doing))?;
        let watermark = watermark(&mut core, tenant).await?;
        Ok((core, watermark))
    })
    .await
}

/// What is done in the core database, unless it does not answer in time.
async fn bounded<T>(
    rooms: &Rooms,
    doing: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    rooms.core.within(LIMIT, work).await.map_err(|late| failed(doing)(late.into()))?
}

/// Writes these hours by [`ADD`] or [`RAISE`]; `doing` names it where it fails.
async fn write(
    core: &mut PgConnection,
    tenant: &Tenant,
    hours: &[Hour],
    (doing, statement): (&'static str, &'static str),
) -> Result<(), Error> {
    sqlx::query(statement)
        .bind(tenant.name().as_str())
        .bind(hours.iter().map(|hour| hour.hour).collect::<Vec<_>>())
        .bind(hours.iter().map(|hour| hour.events).collect::<Vec<_>>())
        .bind(hours.iter().map(|hour| hour.bytes).collect::<Vec<_>>())
        .execute(core)
        .await
        .map_err(failed(doing))?;
    Ok(())
}

async fn set_watermark(core: &mut PgConnection, tenant: &Tenant, last_id: i64) -> Result<(), Error> {
    sqlx::query("UPDATE public.usage_watermarks SET ledger_id = $2 WHERE tenant = $1")
        .bind(tenant.name().as_str())
        .bind(last_id)
        .execute(core)
        .await
        .map_err(failed("move the watermark"))?;
    Ok(())
}

/// How far the tenant is rolled up. The row stays locked: two at once add one after the other.
async fn watermark(core: &mut PgConnection, tenant: &Tenant) -> Result<i64, Error> {
    let doing = "read the watermark";
    sqlx::query("INSERT INTO public.usage_watermarks (tenant, ledger_id) VALUES ($1, 0) ON CONFLICT DO NOTHING")
        .bind(tenant.name().as_str())
        .execute(&mut *core)
        .await
        .map_err(failed(doing))?;
    let watermark = sqlx::query_scalar("SELECT ledger_id FROM public.usage_watermarks WHERE tenant = $1 FOR UPDATE")
        .bind(tenant.name().as_str())
        .fetch_one(core)
        .await
        .map_err(failed(doing))?;
    Ok(watermark)
}

async fn hours_after(rooms: &Rooms, tenant: &Tenant, watermark: i64) -> Result<Vec<Hour>, Error> {
    let doing = "sum up the ledger";
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let last_id: Option<i64> = sqlx::query_scalar("SELECT max(ledger_id) FROM usage_ledger WHERE ledger_id > $1")
        .bind(watermark)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed(doing))?;
    let Some(last_id) = last_id else { return Ok(Vec::new()) };
    // In this order: who took a lower number has not ended before we look, or what it wrote is seen below.
    let mut left = writers(&mut transaction).await?;
    let begun = Instant::now();
    while !left.is_empty() {
        if begun.elapsed() >= PATIENCE {
            return Err(Error::Writers);
        }
        tokio::time::sleep(PAUSE).await;
        let now = writers(&mut transaction).await?;
        left.retain(|writer| now.contains(writer));
    }
    transaction.rollback().await.map_err(failed(doing))?;
    let mut transaction = rooms.catalog.begin(tenant).await?;
    let hours = sqlx::query_as(
        "SELECT date_trunc('hour', accepted_at, 'UTC') AS hour, sum(events)::bigint AS events, sum(bytes)::bigint AS bytes,
                max(ledger_id) AS last_id
         FROM usage_ledger WHERE ledger_id > $1 AND ledger_id <= $2 GROUP BY 1 ORDER BY 1",
    )
    .bind(watermark)
    .bind(last_id)
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed(doing))?;
    transaction.rollback().await.map_err(failed(doing))?;
    Ok(hours)
}

/// The transactions that write to the ledger now: each holds its lock from before it takes a number until it has ended.
async fn writers(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    let writers = sqlx::query_scalar(
        "SELECT virtualtransaction FROM pg_locks
         WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND relation = 'usage_ledger'::regclass AND mode = 'RowExclusiveLock' AND granted",
    )
    .fetch_all(connection)
    .await
    .map_err(failed("look for writers of the ledger"))?;
    Ok(writers)
}
