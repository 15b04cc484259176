//! The registry of tenants in `loggerhub_core_db`: the source that ingest's registry is made from.

use sqlx::{Connection, PgConnection, Row};

use crds::TenantName;
use crds::names::{ArchiveLocation, hot_class, pool_series};
use crds::registry::TenantState;
use crds::tenant::Isolation;

use super::Postgres;
use crate::provision::error::PostgresContext;
use crate::provision::{Backstop, DesiredTenant, Error, Outcome, Owner};

/// What the registry row decides, once and for as long as the row lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Series of indices that the tenant's events are written to.
    pub index_series: String,
    /// Where its archive is: stays where it was first put, also when the installation's layout changes.
    pub archive: ArchiveLocation,
    /// Days that its events are kept: more than it asks for until fewer are confirmed.
    pub total_days: i32,
    /// Whether the data of a tenant that is gone is retained in the same bucket.
    pub beside_retained: bool,
    /// The most days that another tenant's events in the same bucket are kept; 0 in a bucket of its own.
    pub neighbours_days: i32,
}

impl TenantRow {
    /// When objects expire that `maintain` should have removed. A shared bucket has one rule for all of its tenants:
    /// it may be gone, and is then made again of what the longest of them needs.
    pub fn backstop(&self) -> Backstop {
        let days = self.total_days.max(self.neighbours_days);
        if self.beside_retained { Backstop::None } else { Backstop::Days(days) }
    }
}

/// A row as it is found.
struct Found {
    installation: String,
    uid: String,
    display_name: Option<String>,
    plan: String,
    state: String,
    pipeline: String,
    isolation: String,
    hot_days: i32,
    row: TenantRow,
}

impl Postgres {
    /// Ensures the tenant's row in the registry, and the series that it is assigned.
    pub async fn ensure_tenant(&self, desired: &DesiredTenant) -> Result<(TenantRow, Outcome), Error> {
        let mut connection = self.core.acquire().await.doing("connect to the core database")?;
        if let Some(found) = find(&mut connection, desired.name()).await? {
            is_free(desired, &found)?;
            if is_as_desired(desired, &found) {
                return Ok((found.row, Outcome::Unchanged));
            }
        }
        let mut transaction = connection.begin().await.doing("begin in the core database")?;
        lock_row(&mut transaction, desired.name()).await?;
        let (row, outcome) = match find(&mut transaction, desired.name()).await? {
            Some(found) => update(&mut transaction, desired, found, self.pool_tenants).await?,
            None => (insert(&mut transaction, desired, self.pool_tenants).await?, Outcome::Created),
        };
        transaction.commit().await.doing("commit the tenant's registry row")?;
        Ok((row, outcome))
    }

    /// Sets the state of a tenant that is being deleted or is gone. Only of our own; false if there is none.
    pub async fn set_state(&self, owner: &Owner, state: RowState) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE public.tenants SET state = $3, updated_at = now() \
             WHERE name = $1 AND installation = $2 AND state <> $3",
        )
        .bind(owner.tenant.as_str())
        .bind(&owner.installation)
        .bind(state.as_str())
        .execute(&self.core)
        .await
        .doing("set the state of a tenant")?;
        Ok(done.rows_affected() > 0)
    }

    /// Where a tenant of ours has its archive, if it has a row.
    pub async fn archive_of(&self, owner: &Owner) -> Result<Option<ArchiveLocation>, Error> {
        let row = sqlx::query("SELECT bucket, prefix FROM public.tenants WHERE name = $1 AND installation = $2")
            .bind(owner.tenant.as_str())
            .bind(&owner.installation)
            .fetch_optional(&self.core)
            .await
            .doing("read where a tenant's archive is")?;
        Ok(row.map(|row| ArchiveLocation { bucket: row.get("bucket"), prefix: row.get("prefix") }))
    }

    /// Tenants of this installation that the registry holds as Active, Suspended or Deleting.
    pub async fn live_tenants(&self, installation: &str) -> Result<Vec<Owner>, Error> {
        let rows = sqlx::query(
            "SELECT name, uid FROM public.tenants WHERE installation = $1 AND state <> 'Retained' ORDER BY name",
        )
        .bind(installation)
        .fetch_all(&self.core)
        .await
        .doing("list the tenants")?;
        let owner = |row: &sqlx::postgres::PgRow| {
            let tenant = row.get::<String, _>("name").parse().ok()?;
            Some(Owner { installation: installation.to_owned(), tenant, uid: row.get("uid") })
        };
        Ok(rows.iter().filter_map(owner).collect())
    }

    /// Which of these tenants have a live row of another installation: those are not ours to judge.
    pub async fn foreign_tenants(&self, installation: &str, names: &[String]) -> Result<Vec<String>, Error> {
        sqlx::query_scalar(
            "SELECT name FROM public.tenants WHERE installation <> $1 AND state <> 'Retained' AND name = ANY($2)",
        )
        .bind(installation)
        .bind(names)
        .fetch_all(&self.core)
        .await
        .doing("list the tenants of other installations")
    }

    /// Which of these tenants another installation has a row of, also one that it retains: it sees to the end of those.
    pub async fn tenants_of_others(&self, installation: &str, names: &[String]) -> Result<Vec<String>, Error> {
        sqlx::query_scalar("SELECT name FROM public.tenants WHERE installation <> $1 AND name = ANY($2)")
            .bind(installation)
            .bind(names)
            .fetch_all(&self.core)
            .await
            .doing("list the tenants of other installations")
    }

    /// Makes the plans known that tenants may name.
    pub async fn ensure_plans(&self, plans: &[String]) -> Result<(), Error> {
        sqlx::query("INSERT INTO public.plans (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING")
            .bind(plans)
            .execute(&self.core)
            .await
            .doing("register the plans")?;
        Ok(())
    }
}

/// A state that the row takes when its Tenant goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// The queue is drained, nothing is accepted.
    Deleting,
    /// The Tenant is gone, the data stays.
    Retained,
}

impl RowState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Deleting => "Deleting",
            Self::Retained => "Retained",
        }
    }
}

fn state_text(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "Active",
        TenantState::Suspended => "Suspended",
        TenantState::Deleting => "Deleting",
    }
}

fn isolation_text(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Shared => "Shared",
        Isolation::Dedicated => "Dedicated",
    }
}

async fn find(core: &mut PgConnection, tenant: &TenantName) -> Result<Option<Found>, Error> {
    let row = sqlx::query(
        "SELECT installation, uid, display_name, plan, state, pipeline, isolation, index_series, hot_days, total_days, \
         bucket, prefix, beside.retained, beside.days FROM public.tenants CROSS JOIN LATERAL \
         (SELECT coalesce(bool_or(other.state = 'Retained'), false) AS retained, \
         coalesce(max(other.total_days), 0) AS days FROM public.tenants AS other WHERE tenants.prefix <> '' \
         AND other.bucket = tenants.bucket AND other.name <> tenants.name) AS beside WHERE name = $1",
    )
    .bind(tenant.as_str())
    .fetch_optional(core)
    .await
    .doing("read the tenant's registry row")?;
    Ok(row.map(|row| Found {
        installation: row.get("installation"),
        uid: row.get("uid"),
        display_name: row.get("display_name"),
        plan: row.get("plan"),
        state: row.get("state"),
        pipeline: row.get("pipeline"),
        isolation: row.get("isolation"),
        hot_days: row.get("hot_days"),
        row: TenantRow {
            index_series: row.get("index_series"),
            archive: ArchiveLocation { bucket: row.get("bucket"), prefix: row.get("prefix") },
            total_days: row.get("total_days"),
            beside_retained: row.get("retained"),
            neighbours_days: row.get("days"),
        },
    }))
}

/// The tenant's row is the lock of what the registry has of it. Fine if there is none yet.
pub(super) async fn lock_row(core: &mut PgConnection, tenant: &TenantName) -> Result<(), Error> {
    sqlx::query("SELECT FROM public.tenants WHERE name = $1 FOR UPDATE")
        .bind(tenant.as_str())
        .execute(core)
        .await
        .doing("lock the tenant's registry row")?;
    Ok(())
}

/// An error if the row is another installation's and not to be adopted.
fn is_free(desired: &DesiredTenant, found: &Found) -> Result<(), Error> {
    if found.installation == desired.owner.installation || desired.adopt {
        return Ok(());
    }
    Err(Error::OwnershipConflict {
        thing: format!("registry row of tenant `{}`", desired.name()),
        says: format!("it belongs to installation `{}`", found.installation),
    })
}

fn is_as_desired(desired: &DesiredTenant, found: &Found) -> bool {
    found.installation == desired.owner.installation
        && found.uid == desired.owner.uid
        && found.display_name == desired.display_name
        && found.plan == desired.plan
        && found.state == state_text(desired.state)
        && found.pipeline == desired.pipeline.as_str()
        && found.isolation == isolation_text(desired.isolation)
        && found.hot_days == desired.retention.hot_days
        && found.row.total_days == desired.kept_days(found.row.total_days)
        && series_fits(desired, &found.row.index_series)
}

async fn update(
    core: &mut PgConnection,
    desired: &DesiredTenant,
    found: Found,
    pool_tenants: u32,
) -> Result<(TenantRow, Outcome), Error> {
    is_free(desired, &found)?;
    if is_as_desired(desired, &found) {
        return Ok((found.row, Outcome::Unchanged));
    }
    let index_series = if series_fits(desired, &found.row.index_series) {
        found.row.index_series.clone()
    } else {
        assign_series(core, desired, pool_tenants).await?
    };
    let total_days = desired.kept_days(found.row.total_days);
    let row = TenantRow { index_series, total_days, ..found.row };
    sqlx::query(
        "UPDATE public.tenants SET installation = $2, uid = $3, display_name = $4, plan = $5, state = $6, pipeline = $7, \
         isolation = $8, hot_days = $9, total_days = $10, index_series = $11, updated_at = now() WHERE name = $1",
    )
    .bind(desired.name().as_str())
    .bind(&desired.owner.installation)
    .bind(&desired.owner.uid)
    .bind(&desired.display_name)
    .bind(&desired.plan)
    .bind(state_text(desired.state))
    .bind(desired.pipeline.as_str())
    .bind(isolation_text(desired.isolation))
    .bind(desired.retention.hot_days)
    .bind(row.total_days)
    .bind(&row.index_series)
    .execute(core)
    .await
    .doing("update the tenant's registry row")?;
    Ok((row, Outcome::Updated))
}

async fn insert(core: &mut PgConnection, desired: &DesiredTenant, pool_tenants: u32) -> Result<TenantRow, Error> {
    let (beside_retained, neighbours_days) = neighbours(core, &desired.archive).await?;
    let row = TenantRow {
        index_series: assign_series(core, desired, pool_tenants).await?,
        archive: desired.archive.clone(),
        total_days: desired.retention.total_days,
        beside_retained,
        neighbours_days,
    };
    sqlx::query(
        "INSERT INTO public.tenants (name, uid, installation, display_name, plan, state, pipeline, isolation, \
         index_series, hot_days, total_days, database_schema, bucket, prefix) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(desired.name().as_str())
    .bind(&desired.owner.uid)
    .bind(&desired.owner.installation)
    .bind(&desired.display_name)
    .bind(&desired.plan)
    .bind(state_text(desired.state))
    .bind(desired.pipeline.as_str())
    .bind(isolation_text(desired.isolation))
    .bind(&row.index_series)
    .bind(desired.retention.hot_days)
    .bind(desired.retention.total_days)
    .bind(desired.name().database_schema())
    .bind(&row.archive.bucket)
    .bind(&row.archive.prefix)
    .execute(core)
    .await
    .doing("insert the tenant's registry row")?;
    Ok(row)
}

/// Whether the bucket that a new tenant's archive goes to holds the data of one that is gone, and the most days that
/// those are kept who have it already.
async fn neighbours(core: &mut PgConnection, archive: &ArchiveLocation) -> Result<(bool, i32), Error> {
    if archive.prefix.is_empty() {
        return Ok((false, 0));
    }
    sqlx::query_as(
        "SELECT coalesce(bool_or(state = 'Retained'), false), coalesce(max(total_days), 0) \
         FROM public.tenants WHERE bucket = $1",
    )
    .bind(&archive.bucket)
    .fetch_one(core)
    .await
    .doing("look for the tenants of a bucket")
}

/// Whether a series that a tenant has may stay: its own, or a pool of its hot class.
fn series_fits(desired: &DesiredTenant, series: &str) -> bool {
    match desired.isolation {
        Isolation::Dedicated => series == desired.name().dedicated_series(),
        Isolation::Shared => series.starts_with(&pool_series_stem(desired.retention.hot_days)),
    }
}

/// What the names of all pools of a hot class begin with.
fn pool_series_stem(hot_days: i32) -> String {
    pool_series(hot_class(hot_days), 0).trim_end_matches('0').to_owned()
}

/// The tenant's own series, or the emptiest pool of its hot class that has room for one of at most `pool_tenants`.
async fn assign_series(core: &mut PgConnection, desired: &DesiredTenant, pool_tenants: u32) -> Result<String, Error> {
    if desired.isolation == Isolation::Dedicated {
        return Ok(desired.name().dedicated_series());
    }
    // Two new tenants at once must not both take the last place of a pool.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('loggerhub:pools', 0))")
        .execute(&mut *core)
        .await
        .doing("wait for the pool lock")?;
    let sizes: Vec<(String, i64)> = sqlx::query_as(
        "SELECT index_series, count(*) FROM public.tenants WHERE starts_with(index_series, $1) GROUP BY index_series",
    )
    .bind(pool_series_stem(desired.retention.hot_days))
    .fetch_all(core)
    .await
    .doing("count the tenants of each pool")?;
    Ok(pool_with_room(hot_class(desired.retention.hot_days), &sizes, pool_tenants.into()))
}

/// The pool with the fewest tenants, so that those that there are share the load; a new one where each has `most`.
fn pool_with_room(class: i32, sizes: &[(String, i64)], most: i64) -> String {
    let with_room = sizes.iter().filter(|(_, tenants)| *tenants < most);
    // Of equal ones the first by number.
    let emptiest = with_room.min_by_key(|(series, tenants)| (*tenants, series.len(), series.clone()));
    let is_free = |series: &String| sizes.iter().all(|(name, _)| name != series);
    match emptiest {
        Some((series, _)) => series.clone(),
        // Among as many pools as there are, and one more, one has nobody.
        None => (1..).map(|pool| pool_series(class, pool)).find(is_free).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_joins_the_emptiest_pool_and_a_new_one_where_all_are_full() {
        for (sizes, expected) in [
            (&[][..], 1),
            (&[(1, 19)], 1),
            (&[(1, 20)], 2),
            (&[(1, 20), (2, 3), (3, 20)], 2),
            (&[(1, 19), (2, 3), (3, 2)], 3),
            (&[(10, 3), (2, 3)], 2),
            (&[(1, 20), (3, 25)], 2),
        ] {
            let sizes: Vec<_> = sizes.iter().map(|(pool, tenants)| (pool_series(7, *pool), *tenants)).collect();
            assert_eq!(pool_with_room(7, &sizes, 20), pool_series(7, expected), "{sizes:?}");
        }
    }

    #[test]
    fn a_pool_of_another_class_does_not_fit() {
        assert!(pool_series(7, 12).starts_with(&pool_series_stem(5)));
        assert!(!pool_series(30, 1).starts_with(&pool_series_stem(3)));
        assert!(!pool_series(14, 1).starts_with(&pool_series_stem(1)));
    }
}
