//! Puts a valid Tenant in place in every store, all at once where they do not need each other. A
//! store that fails keeps nothing from the others.

use std::time::{Duration, SystemTime};

use crds::condition::Reason;
use crds::names::ArchiveLocation;
use crds::registry::{RegistryKey, RegistryTenant, TenantState};
use crds::{PipelineName, Tenant};
use runtime::audit::{self, Act, Action};
use runtime::logging::chain;

use super::keys::{AppliedKeys, ensure_keys};
use super::lane;
use super::validate::{Problem, ValidTenant};
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::kubernetes::ACTOR;
use crate::provision::{
    self, Backstop, DesiredTenant, Failure, IssuedKey, Outcome, Stores, TenantRow, registry_entry, series_hot_days,
};

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
                forged: Vec::new(),
                unsettled: None,
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
    let stores = &ctx.stores;
    let desired = &valid.desired.kept_for(row.total_days);
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
        stores.object_store.ensure(desired, &row.archive, row.backstop()),
        ensure_keys(ctx, tenant, valid),
    );
    let database = schema.map(|outcome| outcome.and(registered)).map_err(|error| problem(&error));
    let (known, keys) = keys;
    // Ingest learns of a tenant last: what it accepts has somewhere to go.
    let mut forged = Vec::new();
    let credentials = match (&database, &known) {
        (Ok(_), Some(known)) => {
            let live: Vec<IssuedKey> = known.live.iter().map(|row| row.key.clone()).collect();
            let projected = project(stores, valid, &registry_entry(desired, &row, &live)).await;
            reach(Point::Projected);
            if let Ok((_, Some(before))) = &projected {
                tell_suspension(desired, before.state);
                forged = never_issued(stores, before, &live).await;
            }
            projected
                .map(|(outcome, _)| outcome)
                .map_err(|error| problem(&error))
                .and_then(|outcome| keys.map(|keys| keys.and(outcome)))
        }
        (Err(problem), Some(known)) => {
            let lives = |key: &RegistryKey| known.live.iter().any(|row| row.key.id == key.id);
            let narrowed = narrow(stores, desired, lives).await;
            let message = format!("ingest is not told of the tenant before its database is ready: {}", problem.message);
            Err(narrowed.err().unwrap_or(Problem { reason: Reason::Provisioning, message }))
        }
        (_, None) => keys,
    };
    Applied {
        database,
        object_store: object_store.map_err(|error| problem(&error)),
        search: search.map_err(|error| problem(&error)),
        credentials,
        keys: known,
        forged,
        unsettled: Some(Unsettled {
            kept_days: (row.total_days > valid.desired.retention.total_days).then_some(row.total_days),
            left_behind: lane::left_behind(ctx, valid).await,
        }),
        archive: row.archive,
    }
}

/// Tells ingest of the tenant, once nobody reads the lane that takes its events but whoever is to.
/// Gives back the entry as it was, too.
async fn project(
    stores: &Stores,
    valid: &ValidTenant,
    entry: &RegistryTenant,
) -> Result<(Outcome, Option<RegistryTenant>), provision::Error> {
    let pipeline = &valid.desired.pipeline;
    let still_read = if *pipeline == PipelineName::default_pipeline() {
        Duration::ZERO
    } else if valid.is_held() {
        stores.registry.hold(pipeline).await?
    } else if valid.problem.is_none() {
        stores.registry.adopt(pipeline).await?
    } else {
        // It stays in the lane where it was.
        Duration::ZERO
    };
    tokio::time::sleep(still_read).await;
    if valid.is_held() {
        // Whoever forgets pipelines that nothing names may have forgotten this one meanwhile: no entry named it yet.
        stores.registry.hold(pipeline).await?;
    }
    stores.registry.put(entry).await
}

/// Keys of the entry as it was that nobody issued: somebody else wrote it. They are told of in the audit log.
async fn never_issued(stores: &Stores, before: &RegistryTenant, live: &[IssuedKey]) -> Vec<String> {
    let lives = |id: &str| live.iter().any(|key| key.id == id);
    let ids: Vec<String> = before.keys.iter().map(|key| key.id.clone()).filter(|id| !lives(id)).collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let tenant = before.tenant.as_str();
    let forged = stores.postgres.never_issued(&before.tenant, &ids).await.unwrap_or_else(|error| {
        tracing::warn!(tenant.name = tenant, error = chain(&error), "can't tell whether keys {ids:?} were ever issued");
        Vec::new()
    });
    for id in &forged {
        tracing::error!(tenant.name = tenant, "key {id} of {tenant} stood in the registry though nobody issued it");
        let outcome = "nobody issued it: taken out of the registry";
        audit::tell(&Act { actor: ACTOR, action: Action::KeyForged, tenant, object: id, outcome });
    }
    forged
}

/// Takes from an entry that ingest has what it is to have no more, where nothing else can be done for the tenant:
/// keys that do not live, and the right to send.
async fn narrow(stores: &Stores, desired: &DesiredTenant, lives: impl Fn(&RegistryKey) -> bool) -> Result<(), Problem> {
    let seen = stores.registry.see(desired.name()).await.map_err(|error| problem(&error))?;
    let Some(seen) = seen else { return Ok(()) };
    let Some(narrowed) = narrowed(&seen.entry, desired.state, lives) else { return Ok(()) };
    // What somebody else writes meanwhile is looked at the next time.
    if stores.registry.replace(&seen, &narrowed).await.map_err(|error| problem(&error))?.is_some() {
        tell_suspension(desired, seen.entry.state);
    }
    Ok(())
}

/// The entry with nothing but less in it, or `None` if it is so already.
fn narrowed(
    entry: &RegistryTenant,
    state: TenantState,
    lives: impl Fn(&RegistryKey) -> bool,
) -> Option<RegistryTenant> {
    let state = match (entry.state, state) {
        (TenantState::Active, TenantState::Suspended) => TenantState::Suspended,
        (as_it_is, _) => as_it_is,
    };
    let keys = entry.keys.iter().filter(|key| lives(key)).cloned().collect();
    let narrowed = RegistryTenant { state, keys, ..entry.clone() };
    (narrowed != *entry).then_some(narrowed)
}

/// Writes into the audit log that a tenant was suspended or resumed by what ingest was just told.
fn tell_suspension(desired: &DesiredTenant, before: TenantState) {
    if let Some((action, outcome)) = suspension(before, desired.state) {
        let name = desired.name().as_str();
        audit::tell(&Act { actor: ACTOR, action, tenant: name, object: name, outcome });
    }
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
    // Only PostgreSQL says for how long events are kept.
    let object_store = stores.object_store.ensure(desired, &archive, Backstop::AsItIs);
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
    let (search, object_store) = tokio::join!(search, object_store);
    // What the spec takes away is taken away: in the entry of a tenant that was ours when PostgreSQL said so last.
    if tenant.status.as_ref().is_some_and(|status| status.backends.is_some()) {
        let named = |key: &RegistryKey| tenant.spec.api_keys.iter().any(|wanted| wanted.name == key.name);
        if let Err(problem) = narrow(stores, desired, named).await {
            tracing::warn!(tenant.name = %desired.name(), "{}", problem.message);
        }
    }
    let credentials = Problem { message: format!("keys are kept in PostgreSQL: {}", down.message), ..down.clone() };
    Applied {
        database: Err(down),
        object_store: object_store.map_err(|error| problem(&error)),
        search,
        credentials: Err(credentials),
        keys: None,
        forged: Vec::new(),
        unsettled: None,
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

    #[test]
    fn an_entry_is_only_ever_narrowed() {
        use TenantState::{Active, Deleting, Suspended};
        let key = |id: &str| RegistryKey {
            id: id.into(),
            name: "main".into(),
            scopes: Vec::new(),
            digest: [0; 32],
            pepper_id: "p1".into(),
            expires_at: None,
        };
        let valid = crate::tenant::validate::validate(
            &crate::tenant::testing::acme(),
            &crate::settings::tests::settings(),
            &crate::settings::tests::settings().plans,
            true,
        );
        let desired = valid.unwrap().desired;
        let row = TenantRow {
            index_series: "s".into(),
            archive: desired.archive.clone(),
            total_days: 30,
            beside_retained: false,
            neighbours_days: 0,
        };
        let entry = |state, keys: &[&str]| {
            let keys = keys.iter().map(|id| key(id)).collect();
            RegistryTenant { state, keys, ..registry_entry(&desired, &row, &[]) }
        };
        let both = |state| entry(state, &["a", "b"]);
        let a = |key: &RegistryKey| key.id == "a";
        assert_eq!(narrowed(&both(Active), Active, a), Some(entry(Active, &["a"])));
        assert_eq!(narrowed(&both(Active), Suspended, |_| true), Some(both(Suspended)));
        assert_eq!(narrowed(&both(Suspended), Active, |_| true), None, "a tenant is not resumed by that");
        assert_eq!(narrowed(&both(Deleting), Suspended, |_| true), None);
    }
}
