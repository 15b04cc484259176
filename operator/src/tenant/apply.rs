//! Puts a valid Tenant in place in every store, all at once where they do not need each other. A
//! store that fails keeps nothing from the others.

use std::time::{Duration, SystemTime};

use crds::Tenant;
use crds::apikey::ApiKey;
use crds::condition::Reason;
use crds::names::ArchiveLocation;
use crds::tenant::ApiKeySpec;
use futures::future::join_all;

use super::plan::{KeyPlan, SecretSeen, plan_key};
use super::secrets;
use super::validate::{Problem, ValidTenant};
use crate::context::Context;
use crate::provision::{self, Failure, IssuedKey, IssuedKeyRow, Outcome, TenantRow, registry_entry, series_hot_days};

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
    /// The live keys, if PostgreSQL could say.
    pub keys: Option<Vec<IssuedKeyRow>>,
    /// Where the archive is, if it is known.
    pub archive: ArchiveLocation,
}

/// Provisions the Tenant.
pub async fn apply(ctx: &Context, tenant: &Tenant, valid: &ValidTenant) -> Applied {
    match ctx.stores.postgres.ensure_tenant(&valid.desired).await {
        Ok((row, registered)) => with_row(ctx, tenant, valid, row, registered).await,
        Err(error) if error.failure() == Failure::Conflict => {
            // Another installation's tenant: none of its things is looked at.
            let conflict = Err(problem(&error));
            Applied {
                database: conflict.clone(),
                object_store: conflict.clone(),
                search: conflict.clone(),
                credentials: conflict,
                keys: None,
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
        let held = stores.postgres.hold_series(&row.index_series).await?;
        let ensured = stores.search.ensure(desired, &row.index_series, Some(held.write_number)).await;
        held.release().await;
        ensured
    };
    let (schema, search, object_store, keys) = tokio::join!(
        stores.postgres.ensure_schema(desired, SystemTime::now()),
        search,
        stores.object_store.ensure(desired, &row.archive),
        ensure_keys(ctx, tenant, valid),
    );
    let database = schema.map(|outcome| outcome.and(registered)).map_err(|error| problem(&error));
    let (live, keys) = keys;
    // Ingest learns of a tenant last: what it accepts has somewhere to go.
    let credentials = match (&database, &live) {
        (Ok(_), Some(live)) => {
            let live: Vec<IssuedKey> = live.iter().map(|row| row.key.clone()).collect();
            let projected = stores.registry.upsert(&registry_entry(desired, &row, &live)).await;
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
        keys: live,
        archive: row.archive,
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

/// Issues, keeps and revokes keys. Gives back the live ones, and what went wrong first.
async fn ensure_keys(ctx: &Context, tenant: &Tenant, valid: &ValidTenant) -> (Option<Vec<IssuedKeyRow>>, StoreResult) {
    let peppers = ctx.peppers.borrow().clone();
    if peppers.is_empty() {
        let message = "the platform's peppers are not there yet".to_owned();
        return (None, Err(Problem { reason: Reason::Provisioning, message }));
    }
    let name = valid.desired.name();
    let seen = join_all(valid.keys.iter().map(|key| secrets::look(ctx, tenant, &key.secret_ref))).await;
    let id = |seen: &Result<SecretSeen, Problem>| match seen {
        Ok(SecretSeen::Ours { key: Some(key), .. }) => Some(key.id().to_owned()),
        _ => None,
    };
    let ids: Vec<String> = seen.iter().filter_map(id).collect();
    let rows = match ctx.stores.postgres.keys(name, &ids).await {
        Ok(rows) => rows,
        Err(error) => return (None, Err(problem(&error))),
    };
    let mut wanted = Vec::new();
    let mut first_problem = None;
    for (key, seen) in valid.keys.iter().zip(seen) {
        let settled = match seen {
            Ok(seen) => {
                let plan = plan_key(name.as_str(), key, &seen, &rows, &peppers, valid.desired.adopt);
                settle(ctx, tenant, key, &seen, plan).await
            }
            Err(problem) => Err(problem),
        };
        match settled {
            Ok(key) => wanted.push(key),
            Err(problem) => {
                // What clients use already goes on working.
                let live =
                    rows.iter().find(|row| !row.revoked && row.tenant == name.as_str() && row.key.name == key.name);
                wanted.extend(live.map(|row| row.key.clone()));
                first_problem.get_or_insert(problem);
            }
        }
    }
    match ctx.stores.postgres.ensure_keys(name, &wanted).await {
        Ok((live, outcome)) => (Some(live), first_problem.map_or(Ok(outcome), Err)),
        Err(error) => (None, Err(problem(&error))),
    }
}

/// Carries out what was planned for one key. The Secret is written first: a key that is nowhere to
/// be read must not be valid, and one that is not registered yet is registered the next time.
async fn settle(
    ctx: &Context,
    tenant: &Tenant,
    wanted: &ApiKeySpec,
    seen: &SecretSeen,
    plan: KeyPlan,
) -> Result<IssuedKey, Problem> {
    match (plan, seen) {
        (KeyPlan::Keep(key), _) => Ok(key),
        (KeyPlan::Rewrite(key), SecretSeen::Ours { key: Some(text), .. }) => {
            secrets::write(ctx, tenant, &wanted.secret_ref, text).await?;
            Ok(key)
        }
        (KeyPlan::Refuse, _) => {
            let at = &wanted.secret_ref;
            Err(Problem {
                reason: Reason::OwnershipConflict,
                message: format!(
                    "Secret `{}/{}` exists and is not the operator's: remove it, name another one in \
                     spec.apiKeys, or set the annotation loggerhub.io/adopt: \"true\"",
                    at.namespace, at.name
                ),
            })
        }
        (KeyPlan::Issue | KeyPlan::Rewrite(_), _) => {
            let key = ApiKey::generate();
            let pepper = ctx.peppers.borrow().first().cloned();
            let Some(pepper) = pepper else {
                let message = "the platform's peppers are not there yet".to_owned();
                return Err(Problem { reason: Reason::Provisioning, message });
            };
            secrets::write(ctx, tenant, &wanted.secret_ref, &key).await?;
            Ok(IssuedKey::of(&key, &pepper, &wanted.name, &wanted.scopes))
        }
    }
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
