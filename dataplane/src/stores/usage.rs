//! Usage of all tenants by the hour, in the core database, as bills are made from it.
//!
//! Each tenant has a watermark: the last row of its ledger that is counted here. It moves in the
//! transaction that adds, so nothing counts twice.

use std::future::Future;

use runtime::stores::Database;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::catalog::{Error, Hour, LIMIT, failed};
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

/// The usage of all tenants. Cheap to clone.
#[derive(Clone)]
pub struct Usage {
    core: Database,
}

/// One tenant's roll-up under way. Its watermark stays locked: two at once count one after the other.
pub struct RollUp<'a> {
    usage: &'a Usage,
    tenant: &'a Tenant,
    core: Transaction<'static, Postgres>,
    /// The last row of the ledger that is counted.
    pub watermark: i64,
}

impl Usage {
    /// In the core database.
    pub fn new(pool: PgPool) -> Self {
        Self { core: pool.into() }
    }

    /// Begins a tenant's roll-up.
    pub async fn begin<'a>(&'a self, tenant: &'a Tenant) -> Result<RollUp<'a>, Error> {
        let doing = "begin in the core database";
        self.bounded(doing, async {
            let mut core = self.core.pool().begin().await.map_err(failed(doing))?;
            let watermark = lock_watermark(&mut core, tenant).await?;
            Ok(RollUp { usage: self, tenant, core, watermark })
        })
        .await
    }

    /// The last row of the tenant's ledger that is counted: later ones must stay.
    pub async fn counted(&self, tenant: &Tenant) -> Result<i64, Error> {
        let watermark: Option<i64> =
            sqlx::query_scalar("SELECT ledger_id FROM public.usage_watermarks WHERE tenant = $1")
                .bind(tenant.name().as_str())
                .fetch_optional(&self.core.pool())
                .await
                .map_err(failed("read the watermark"))?;
        Ok(watermark.unwrap_or(0))
    }

    /// What is done in the core database, unless it does not answer in time.
    async fn bounded<T>(&self, doing: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.core.within(LIMIT, work).await.map_err(|late| failed(doing)(late.into()))?
    }
}

impl RollUp<'_> {
    /// Adds these hours; the ledger is counted up to `last_id`.
    pub async fn add(self, hours: &[Hour], last_id: i64) -> Result<(), Error> {
        self.write(hours, last_id, ("add usage", ADD)).await
    }

    /// Raises each of these hours to what the ledger has of it; the ledger is counted up to `last_id`. May be repeated.
    pub async fn raise(self, hours: &[Hour], last_id: i64) -> Result<(), Error> {
        self.write(hours, last_id, ("raise usage", RAISE)).await
    }

    async fn write(
        mut self,
        hours: &[Hour],
        last_id: i64,
        (doing, statement): (&'static str, &'static str),
    ) -> Result<(), Error> {
        let tenant = self.tenant.name().as_str();
        self.usage
            .bounded(doing, async {
                sqlx::query(statement)
                    .bind(tenant)
                    .bind(hours.iter().map(|hour| hour.hour).collect::<Vec<_>>())
                    .bind(hours.iter().map(|hour| hour.events).collect::<Vec<_>>())
                    .bind(hours.iter().map(|hour| hour.bytes).collect::<Vec<_>>())
                    .execute(&mut *self.core)
                    .await
                    .map_err(failed(doing))?;
                sqlx::query("UPDATE public.usage_watermarks SET ledger_id = $2 WHERE tenant = $1")
                    .bind(tenant)
                    .bind(last_id)
                    .execute(&mut *self.core)
                    .await
                    .map_err(failed("move the watermark"))?;
                self.core.commit().await.map_err(failed(doing))
            })
            .await
    }
}

/// How far the tenant is counted; a first row if there is none.
async fn lock_watermark(core: &mut PgConnection, tenant: &Tenant) -> Result<i64, Error> {
    let doing = "read the watermark";
    sqlx::query("INSERT INTO public.usage_watermarks (tenant, ledger_id) VALUES ($1, 0) ON CONFLICT DO NOTHING")
        .bind(tenant.name().as_str())
        .execute(&mut *core)
        .await
        .map_err(failed(doing))?;
    sqlx::query_scalar("SELECT ledger_id FROM public.usage_watermarks WHERE tenant = $1 FOR UPDATE")
        .bind(tenant.name().as_str())
        .fetch_one(core)
        .await
        .map_err(failed(doing))
}
