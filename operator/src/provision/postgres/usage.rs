//! What a tenant that goes has used since `maintain` rolled its ledger up last: nobody else would bill it.
//!
//! Ledger and roll-up are in two databases, so the watermark moves in the transaction that adds, as it does in
//! `maintain`. It is committed before the ledger goes: after a crash in between, nothing is left to add.

use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool};
use time::OffsetDateTime;

use crds::TenantName;

use super::Postgres;
use crate::fail_points::{Point, reach};
use crate::provision::Error;
use crate::provision::error::PostgresContext;

/// Adds hours to what is counted already.
const ADD: &str = "INSERT INTO public.usage_hourly AS usage (tenant, hour, events, bytes) \
     SELECT $1, hour, events, bytes FROM unnest($2::timestamptz[], $3::bigint[], $4::bigint[]) AS new (hour, events, bytes) \
     ON CONFLICT (tenant, hour) DO UPDATE SET events = usage.events + excluded.events, bytes = usage.bytes + excluded.bytes";
/// Longest wait for who counts or writes now: within the silence that PostgreSQL bears of the other transaction.
const PATIENCE: Duration = Duration::from_secs(5);

/// Usage of one hour.
#[derive(sqlx::FromRow)]
struct Hour {
    hour: OffsetDateTime,
    events: i64,
    bytes: i64,
    last_id: i64,
}

impl Postgres {
    /// Adds what is new in the ledger of a tenant that is let go; nothing if it has none.
    pub async fn settle_usage(&self, tenant: &TenantName) -> Result<(), Error> {
        let mut processor = self.processor.acquire().await.doing("connect to the processor database")?;
        let mut transaction = processor.begin().await.doing("begin in the processor database")?;
        settle(&self.core, &mut transaction, tenant).await?;
        transaction.rollback().await.doing("let go of the ledger")
    }
}

/// Adds what is new in a tenant's ledger. Nobody writes to it from then on, until `processor`'s transaction ends.
pub(super) async fn settle(core: &PgPool, processor: &mut PgConnection, tenant: &TenantName) -> Result<(), Error> {
    let ledger = format!("\"{}\".usage_ledger", tenant.database_schema());
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(&ledger)
        .fetch_one(&mut *processor)
        .await
        .doing("look for the tenant's ledger")?;
    if !exists {
        return Ok(());
    }
    let patience = format!("SET LOCAL lock_timeout = {}", PATIENCE.as_millis());
    let mut core = core.begin().await.doing("begin in the core database")?;
    sqlx::query(&patience).execute(&mut *core).await.doing("wait for the tenant's usage")?;
    // The watermark first and the ledger then, as `maintain` takes them.
    let watermark = watermark(&mut core, tenant).await?;
    sqlx::query(&patience).execute(&mut *processor).await.doing("wait for the tenant's ledger")?;
    // Waits for who has a number and has not ended: none that is lower can appear later.
    sqlx::query(&format!("LOCK TABLE {ledger} IN SHARE ROW EXCLUSIVE MODE"))
        .execute(&mut *processor)
        .await
        .doing("wait for the tenant's ledger")?;
    let hours: Vec<Hour> = sqlx::query_as(&format!(
        "SELECT date_trunc('hour', accepted_at, 'UTC') AS hour, sum(events)::bigint AS events, \
         sum(bytes)::bigint AS bytes, max(ledger_id) AS last_id FROM {ledger} WHERE ledger_id > $1 GROUP BY 1 ORDER BY 1"
    ))
    .bind(watermark)
    .fetch_all(processor)
    .await
    .doing("sum up the tenant's ledger")?;
    let Some(last_id) = hours.iter().map(|hour| hour.last_id).max() else { return Ok(()) };
    sqlx::query(ADD)
        .bind(tenant.as_str())
        .bind(hours.iter().map(|hour| hour.hour).collect::<Vec<_>>())
        .bind(hours.iter().map(|hour| hour.events).collect::<Vec<_>>())
        .bind(hours.iter().map(|hour| hour.bytes).collect::<Vec<_>>())
        .execute(&mut *core)
        .await
        .doing("add the tenant's usage")?;
    sqlx::query("UPDATE public.usage_watermarks SET ledger_id = $2 WHERE tenant = $1")
        .bind(tenant.as_str())
        .bind(last_id)
        .execute(&mut *core)
        .await
        .doing("move the tenant's usage watermark")?;
    core.commit().await.doing("commit the tenant's usage")?;
    reach(Point::UsageSettled);
    Ok(())
}

/// How far the tenant is rolled up. The row stays locked: two at once add one after the other.
async fn watermark(core: &mut PgConnection, tenant: &TenantName) -> Result<i64, Error> {
    sqlx::query("INSERT INTO public.usage_watermarks (tenant, ledger_id) VALUES ($1, 0) ON CONFLICT DO NOTHING")
        .bind(tenant.as_str())
        .execute(&mut *core)
        .await
        .doing("begin the tenant's usage watermark")?;
    sqlx::query_scalar("SELECT ledger_id FROM public.usage_watermarks WHERE tenant = $1 FOR UPDATE")
        .bind(tenant.as_str())
        .fetch_one(core)
        .await
        .doing("read the tenant's usage watermark")
}
