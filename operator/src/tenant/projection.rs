//! What ingest is told of a Tenant: its entry in the registry, which comes last, so that what ingest accepts has
//! somewhere to go.

use std::time::Duration;

use crds::condition::Reason;
use crds::registry::{RegistryKey, RegistryTenant, TenantState};
use runtime::audit::{self, Act, Action};
use runtime::logging::chain;

use super::keys::register::AppliedKeys;
use super::plan::{Lane, narrowed};
use super::problem::{Problem, StoreResult};
use crate::fail_points::{Point, reach};
use crate::kubernetes::ACTOR;
use crate::provision::{
    self, DesiredTenant, IssuedKey, Outcome, Registry, SeenEntry, Stores, TenantRow, registry_entry,
};

/// What came of it.
pub struct Projected {
    /// Of the entry.
    pub result: StoreResult,
    /// Ids of keys that stood in it though nobody issued them, and were taken out.
    pub forged: Vec<String>,
}

/// Tells ingest of a tenant whose `database` is ready. Of one whose is not, what is to be no more is taken away.
pub async fn project(
    stores: &Stores,
    desired: &DesiredTenant,
    row: &TenantRow,
    lane: Lane,
    database: &StoreResult,
    keys: &AppliedKeys,
) -> Projected {
    if let Err(problem) = database {
        let lives = |key: &RegistryKey| keys.live.iter().any(|row| row.key.id == key.id);
        let narrowed = narrow(stores, desired, lives).await;
        let message = format!("ingest is not told of the tenant before its database is ready: {}", problem.message);
        let result = Err(narrowed.err().unwrap_or(Problem { reason: Reason::Provisioning, message }));
        return Projected { result, forged: Vec::new() };
    }
    let live: Vec<IssuedKey> = keys.live.iter().map(|row| row.key.clone()).collect();
    let put = put(&stores.registry, lane, &registry_entry(desired, row, &live)).await;
    reach(Point::Projected);
    match put {
        Ok((outcome, before)) => {
            let mut forged = Vec::new();
            if let Some(before) = before {
                tell_suspension(desired, before.state);
                forged = never_issued(stores, &before, &live).await;
            }
            Projected { result: Ok(outcome), forged }
        }
        Err(error) => Projected { result: Err(error.into()), forged: Vec::new() },
    }
}

/// Writes the entry, once nobody but its own pipeline reads the lane that takes the tenant's events. Returns the entry as it
/// was, too.
async fn put(
    registry: &Registry,
    lane: Lane,
    entry: &RegistryTenant,
) -> Result<(Outcome, Option<RegistryTenant>), provision::Error> {
    let pipeline = &entry.pipeline;
    let still_read = match lane {
        Lane::AsItIs => Duration::ZERO,
        Lane::Adopt => registry.adopt(pipeline).await?,
        Lane::Hold => registry.hold(pipeline).await?,
    };
    tokio::time::sleep(still_read).await;
    if lane == Lane::Hold {
        // The sweep of pipelines that nothing names may have forgotten this one meanwhile: no entry named it yet.
        registry.hold(pipeline).await?;
    }
    registry.put(entry).await
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
        tracing::error!(
            tenant.name = tenant,
            "key {id} of {tenant} was in the registry, but LoggerHub did not issue it"
        );
        let outcome = "not issued by LoggerHub: removed from the registry";
        audit::tell(&Act { actor: ACTOR, action: Action::KeyForged, tenant, object: id, outcome });
    }
    forged
}

/// Takes from an entry that ingest has what it is to have no more, where nothing else can be done for the tenant:
/// keys that do not live, and the right to send.
async fn narrow(stores: &Stores, desired: &DesiredTenant, lives: impl Fn(&RegistryKey) -> bool) -> Result<(), Problem> {
    let Some(seen) = stores.registry.see(desired.name()).await? else { return Ok(()) };
    let Some(narrowed) = narrowed(&seen.entry, desired.state, lives) else { return Ok(()) };
    replace(stores, desired, &seen, &narrowed).await
}

/// Puts a narrower entry in the place of the one that was seen. What somebody else writes meanwhile is looked at the
/// next time.
pub async fn replace(
    stores: &Stores,
    desired: &DesiredTenant,
    seen: &SeenEntry,
    narrowed: &RegistryTenant,
) -> Result<(), Problem> {
    if stores.registry.replace(seen, narrowed).await?.is_some() {
        tell_suspension(desired, seen.entry.state);
    }
    Ok(())
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
