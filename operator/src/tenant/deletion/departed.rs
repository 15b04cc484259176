//! Tenants that are gone while events of theirs may still wait in the queue: let go by force, or missing for too long.
//! Ingest refuses and no key works, but their entry stays in the registry until processors have drained their lanes:
//! what ingest has answered with 202 is stored, and not put into quarantine as nobody's.

use std::time::Duration;

use crds::registry::{RegistryTenant, TenantState};
use crds::{PipelineName, TenantName};

use super::drain::{self, Pipelines};
use crate::context::Context;
use crate::provision::{self, Registry};

/// How long ingest is given to hear that it is to refuse, as for any Tenant that is deleted.
const GRACE: Duration = Duration::from_secs(5);
/// How long a lane may take to drain: a pipeline that is suspended or missing over a long weekend is put right in that
/// time. The queue holds what waits, so it is not for ever.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What becomes of a departed tenant's entry in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It stays: ingest may not have heard yet, or events wait.
    Stays,
    /// It goes: nothing waits.
    Goes,
    /// It goes although events wait: nobody has processed them for too long.
    GivesUp,
}

/// Decides about the entry of a tenant that departed so long ago.
pub fn next(departed_for: Duration, waits: bool) -> Next {
    match (departed_for < GRACE, waits) {
        (false, false) => Next::Goes,
        (false, true) if departed_for >= PATIENCE => Next::GivesUp,
        _ => Next::Stays,
    }
}

/// Has ingest refuse a tenant that is gone, and takes its keys away. What somebody else wrote of it is removed.
pub async fn depart(registry: &Registry, name: &TenantName) -> Result<(), provision::Error> {
    match registry.get(name).await? {
        Some(entry) => registry.upsert(&departed(entry)).await?,
        None => registry.remove(name).await?,
    };
    Ok(())
}

fn departed(entry: RegistryTenant) -> RegistryTenant {
    RegistryTenant { state: TenantState::Deleting, keys: Vec::new(), ..entry }
}

/// Whether an entry is one of a tenant that departed, if its Tenant is not there.
pub fn has_departed(entry: &RegistryTenant) -> bool {
    entry.state == TenantState::Deleting && entry.keys.is_empty()
}

/// A pipeline in whose lane events of a departed tenant wait, if there is one.
pub async fn waits_for(ctx: &Context, entry: &RegistryTenant) -> Result<Option<PipelineName>, drain::Error> {
    let used = [entry.pipeline.to_string()];
    Pipelines::look(ctx).await?.waited_for(&ctx.stores.registry, &entry.tenant, &used).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_when_nothing_waits_or_nobody_has_seen_to_it_for_a_week() {
        let (week, just) = (PATIENCE, PATIENCE - Duration::from_secs(1));
        for (departed_for, waits, expected) in [
            (Duration::ZERO, false, Next::Stays),
            (Duration::ZERO, true, Next::Stays),
            (GRACE, false, Next::Goes),
            (GRACE, true, Next::Stays),
            (just, true, Next::Stays),
            (week, true, Next::GivesUp),
            (week, false, Next::Goes),
        ] {
            assert_eq!(next(departed_for, waits), expected, "{departed_for:?} waits: {waits}");
        }
    }
}
