//! Carries a plan out in every store, all at once where they do not need each other. A store that fails keeps nothing
//! from the others.

use std::time::SystemTime;

use crds::names::ArchiveLocation;
use crds::{PipelineName, Tenant};

use super::keys::plan::KeysPlan;
use super::keys::register::{AppliedKeys, register};
use super::lane;
use super::plan::{Keep, Plan, Provision};
use super::problem::{Problem, StoreResult};
use super::projection::{project, replace};
use super::validate::ValidTenant;
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::provision::{self, Backstop, DesiredTenant, Outcome, Stores, series_hot_days};

/// What came of it.
#[derive(Debug, Clone)]
pub struct Applied {
    /// PostgreSQL: registry row, schema, role, tables, partitions.
    pub database: StoreResult,
    /// The object store.
    pub object_store: StoreResult,
    /// OpenSearch.
    pub search: StoreResult,
    /// Keys in the registry and in their Secrets, and the registry that ingest reads.
    pub credentials: StoreResult,
    /// What is known of the keys, if PostgreSQL could say.
    pub keys: Option<AppliedKeys>,
    /// Ids of keys that stood in the registry though nobody issued them, and were taken out.
    pub forged: Vec<String>,
    /// What differs from the spec until somebody says something, if PostgreSQL could say.
    pub unsettled: Option<Unsettled>,
    /// Where the archive is, if it is known.
    pub archive: ArchiveLocation,
}

/// What differs from what a Tenant's spec says until somebody says something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// Days that events are kept instead of those that the spec says, until these are confirmed.
    pub kept_days: Option<i32>,
    /// Pipelines that do not exist and that events of the tenant wait for, though it names another.
    pub left_behind: Vec<PipelineName>,
}

/// Carries it out.
pub async fn apply(ctx: &Context, tenant: &Tenant, valid: &ValidTenant, plan: Plan) -> Applied {
    match plan {
        Plan::Provision(plan) => provision(ctx, tenant, valid, *plan).await,
        Plan::Keep(plan) => keep(ctx, valid, *plan).await,
        Plan::Nothing(problem, archive) => nothing(problem, archive),
    }
}

/// Puts everything in place. Ingest learns of the tenant last: what it accepts has somewhere to go.
async fn provision(ctx: &Context, tenant: &Tenant, valid: &ValidTenant, plan: Provision) -> Applied {
    let Provision { desired, row, registered, keys, kept_days, lane } = plan;
    let stores = &ctx.stores;
    let (schema, search, object_store, (known, keys)) = tokio::join!(
        stores.postgres.ensure_schema(&desired, SystemTime::now()),
        ensure_search(stores, &desired, &row.index_series),
        stores.object_store.ensure(&desired, &row.archive, row.backstop()),
        ensure_keys(ctx, tenant, valid, keys),
    );
    let database = schema.map(|outcome| outcome.and(registered)).map_err(Problem::from);
    let (credentials, forged) = match &known {
        Some(known) => {
            let told = project(stores, &desired, &row, lane, &database, known).await;
            // What ingest could not be told comes before what is wrong with a key.
            (told.result.and_then(|told| keys.map(|keys| keys.and(told))), told.forged)
        }
        None => (keys, Vec::new()),
    };
    let left_behind = lane::left_behind(ctx, valid).await;
    Applied {
        database,
        object_store: object_store.map_err(Problem::from),
        search: search.map_err(Problem::from),
        credentials,
        keys: known,
        forged,
        unsettled: Some(Unsettled { kept_days, left_behind }),
        archive: row.archive,
    }
}

async fn ensure_search(stores: &Stores, desired: &DesiredTenant, series: &str) -> Result<Outcome, provision::Error> {
    // maintain rolls a series over under the same lock: its next index is made before our look at the
    // series, and gets the alias from us, or after, and copies it from the one before.
    stores.postgres.ensure_series(series, series_hot_days(desired)).await?;
    reach(Point::SeriesRegistered);
    let held = stores.postgres.hold_series(series).await?;
    let ensured = stores.search.ensure(desired, series, Some(held.write_number)).await;
    held.release().await;
    ensured
}

async fn ensure_keys(
    ctx: &Context,
    tenant: &Tenant,
    valid: &ValidTenant,
    keys: Result<KeysPlan, Problem>,
) -> (Option<AppliedKeys>, StoreResult) {
    match keys {
        Ok(keys) => register(ctx, tenant, valid, keys).await,
        Err(problem) => (None, Err(problem)),
    }
}

/// Keeps in order what is known from before.
async fn keep(ctx: &Context, valid: &ValidTenant, plan: Keep) -> Applied {
    let (stores, desired) = (&ctx.stores, &valid.desired);
    let search = async {
        match &plan.series {
            Some(series) => stores.search.ensure(desired, series, None).await.map_err(Problem::from),
            None => Err(Keep::of_index()),
        }
    };
    // Only PostgreSQL says for how long events are kept.
    let object_store = stores.object_store.ensure(desired, &plan.archive, Backstop::AsItIs);
    let (search, object_store) = tokio::join!(search, object_store);
    if let Some((seen, narrower)) = &plan.narrower
        && let Err(problem) = replace(stores, desired, seen, narrower).await
    {
        tracing::warn!(tenant.name = %desired.name(), "{}", problem.message);
    }
    Applied {
        database: Err(plan.why.clone()),
        object_store: object_store.map_err(Problem::from),
        search,
        credentials: Err(plan.of_keys()),
        keys: None,
        forged: Vec::new(),
        unsettled: None,
        archive: plan.archive,
    }
}

fn nothing(problem: Problem, archive: ArchiveLocation) -> Applied {
    let conflict = Err(problem);
    Applied {
        database: conflict.clone(),
        object_store: conflict.clone(),
        search: conflict.clone(),
        credentials: conflict,
        keys: None,
        forged: Vec::new(),
        unsettled: None,
        archive,
    }
}
