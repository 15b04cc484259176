//! Puts a valid Tenant in place in every store, all at once where they do not need each other. A
//! store that fails keeps nothing from the others.

use std::time::{Duration, SystemTime};

use crds::condition::Reason;
use crds::names::ArchiveLocation;
use crds::registry::{RegistryTenant, TenantState};
use crds::{PipelineName, Tenant};
use runtime::audit::{self, Act, Action};

use super::keys::{AppliedKeys, ensure_keys};
use super::lane;
use super::validate::{Problem, ValidTenant};
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::kubernetes::ACTOR;
use crate::provision::{self, Failure, IssuedKey, Outcome, Stores, TenantRow, registry_entry, series_hot_days};

/// Longest wait for the reason of a failure.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What came of one store.
pub type StoreResult = Result<Outcome, Problem>;

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
    /// Pipelines that do not exist and that events of the tenant wait for, though it names another.
    pub left_behind: Vec<PipelineName>,
    /// Where the archive is, if it is known.
    pub archive: ArchiveLocation,
}

/// Provisions the Tenant. `away` says why PostgreSQL could not even give us the tenant's lock.
pub async fn apply(ctx: &Context, tenant: &Tenant, valid: &ValidTenant, away: Option<provision::Error>) -> Applied {
    let registered = match away {
        Some(away) => Err(away),
        None => ctx.stores.postgres.ensure_tenant(&valid.desired).await,
    };
    match registered {
        Ok((row, registered)) => {
            if registered == Outcome::Created {
                let name = valid.desired.name().as_str();
                let action = Action::TenantCreated;
                audit::tell(&Act { actor: ACTOR, action, tenant: name, object: name, outcome: "registered" });
            }
            with_row(ctx, tenant, valid, row, registered).await
        }
        Err(error) if error.failure() == Failure::Conflict => {
            // Another installation's tenant: none of its things is looked at.
            let conflict = Err(problem(&error));
            Applied {
                database: conflict.clone(),
                object_store: conflict.clone(),
                search: conflict.clone(),
                credentials: conflict,
                keys: None,
                left_behind: Vec::new(),
                archive: known_archive(tenant, valid),
            }
        }
        Err(error) => {
            let cause = why_down(ctx).await.unwrap_or(error);
            without_row(ctx, tenant, valid, problem(&cause)).await
        }
    }
}

/// Why PostgreSQL does not answer: a pool only says that it waited for too long.
async fn why_down(ctx: &Context) -> Option<provision::Error> {
    tokio::time::timeout(ASK_AGAIN, ctx.stores.postgres.ping()).await.ok()?.err()
}

async fn with_row(ctx: &Context, tenant: &Tenant, valid: &ValidTenant, row: TenantRow, registered: Outcome) -> Applied {
    let (stores, desired) = (&ctx.stores, &valid.desired);
    let search = async {
        // maintain rolls a series over under the same lock: its next index is made before our look at the
        // series, and gets the alias from us, or after, and copies it from the one before.
        stores.postgres.ensure_series(&row.index_series, series_hot_days(desired)).await?;
        reach(Point::SeriesRegistered);
        let held = stores.postgres.hold_series(&row.index_series).await?;
        let ensured = stores.search.ensure(desired, &row.index_series, Some(held.write_number)).await;
        held.release().await;
        ensured
    };
    reach(Point::Registered);
    let (schema, search, object_store, keys) = tokio::join!(
        stores.postgres.ensure_schema(desired, SystemTime::now()),
        search,
        stores.object_store.ensure(desired, &row.archive),
        ensure_keys(ctx, tenant, valid),
    );
    let database = schema.map(|outcome| outcome.and(registered)).map_err(|error| problem(&error));
    let (known, keys) = keys;
    // Ingest learns of a tenant last: what it accepts has somewhere to go.
    let credentials = match (&database, &known) {
        (Ok(_), Some(known)) => {
            let live: Vec<IssuedKey> = known.live.iter().map(|row| row.key.clone()).collect();
            let before = stores.registry.get(desired.name()).await.ok().flatten();
            let projected = project(stores, valid, &registry_entry(desired, &row, &live)).await;
            reach(Point::Projected);
            let suspension = before.and_then(|before| suspension(before.state, desired.state));
            if let (Ok(_), Some((action, outcome))) = (&projected, suspension) {
                let name = desired.name().as_str();
                audit::tell(&Act { actor: ACTOR, action, tenant: name, object: name, outcome });
            }
            projected.map_err(|error| problem(&error)).and_then(|outcome| keys.map(|keys| keys.and(outcome)))
        }
        (Err(problem), Some(_)) => Err(Problem {
            reason: Reason::Provisioning,
            message: format!("ingest is not told of the tenant before its database is ready: {}", problem.message),
        }),
        (_, None) => keys,
    };
    Applied {
        database,
        object_store: object_store.map_err(|error| problem(&error)),
        search: search.map_err(|error| problem(&error)),
        credentials,
        keys: known,
        left_behind: lane::left_behind(ctx, valid).await,
        archive: row.archive,
    }
}

/// Tells ingest of the tenant, once nobody reads the lane that takes its events but whoever is to.
async fn project(stores: &Stores, valid: &ValidTenant, entry: &RegistryTenant) -> Result<Outcome, provision::Error> {
    let pipeline = &valid.desired.pipeline;
    let still_read = match (valid.is_held(), *pipeline == PipelineName::default_pipeline()) {
        (_, true) => Duration::ZERO,
        (true, false) => stores.registry.hold(pipeline).await?,
        (false, false) => stores.registry.adopt(pipeline).await?,
    };
    tokio::time::sleep(still_read).await;
    stores.registry.upsert(entry).await
}

/// What is done to a tenant whose entry ingest follows, if it is suspended by that or resumed.
fn suspension(before: TenantState, now: TenantState) -> Option<(Action, &'static str)> {
    match (before, now) {
        (TenantState::Active, TenantState::Suspended) => Some((Action::TenantSuspended, "ingest refuses its events")),
        (TenantState::Suspended, TenantState::Active) => Some((Action::TenantResumed, "ingest takes its events")),
        _ => None,
    }
}

/// PostgreSQL can't say what the tenant is assigned: what is known from before is kept in order.
async fn without_row(ctx: &Context, tenant: &Tenant, valid: &ValidTenant, down: Problem) -> Applied {
    let (stores, desired) = (&ctx.stores, &valid.desired);
    let archive = known_archive(tenant, valid);
    let search = async {
        match stores.registry.get(desired.name()).await.ok().flatten() {
            Some(known) => {
                stores.search.ensure(desired, &known.index_series, None).await.map_err(|error| problem(&error))
            }
            None => Err(Problem {
                reason: Reason::Provisioning,
                message: "waits for PostgreSQL, which assigns the tenant its indices".to_owned(),
            }),
        }
    };
    let (search, object_store) = tokio::join!(search, stores.object_store.ensure(desired, &archive));
    let credentials = Problem { message: format!("keys are kept in PostgreSQL: {}", down.message), ..down.clone() };
    Applied {
        database: Err(down),
        object_store: object_store.map_err(|error| problem(&error)),
        search,
        credentials: Err(credentials),
        keys: None,
        left_behind: Vec::new(),
        archive,
    }
}

/// Where the archive was put before, or where a new tenant's goes.
fn known_archive(tenant: &Tenant, valid: &ValidTenant) -> ArchiveLocation {
    let backends = tenant.status.as_ref().and_then(|status| status.backends.as_ref());
    backends.map_or_else(
        || valid.desired.archive.clone(),
        |known| ArchiveLocation { bucket: known.bucket.clone(), prefix: known.prefix.clone() },
    )
}

/// A store's error as a condition's reason and message.
pub fn problem(error: &provision::Error) -> Problem {
    let reason = match error.failure() {
        Failure::Unavailable => Reason::BackendUnavailable,
        Failure::Rejected => Reason::BackendRejected,
        Failure::Conflict => Reason::OwnershipConflict,
    };
    Problem { reason, message: runtime::logging::chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_change_itself_is_a_suspension_or_its_end() {
        use TenantState::{Active, Deleting, Suspended};
        for (before, now, expected) in [
            (Active, Suspended, Some(Action::TenantSuspended)),
            (Suspended, Active, Some(Action::TenantResumed)),
            (Suspended, Suspended, None),
            (Active, Active, None),
            (Deleting, Suspended, None),
        ] {
            assert_eq!(suspension(before, now).map(|(action, _)| action), expected, "{before:?} to {now:?}");
        }
    }
}
