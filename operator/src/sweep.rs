//! What is left in the registries of a Tenant that is no more: a deletion that was lost, a
//! finalizer that was removed by force. Its keys are revoked; its data stays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::{Tenant, TenantName};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use runtime::audit::{self, Act, Action};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::kubernetes::ACTOR;
use crate::provision::{self, Owner, RowState};

/// Tenants of one page of the list.
const PAGE: u32 = 500;
/// First look after the start: when the controllers have had their time.
const FIRST: Duration = Duration::from_secs(15);

/// Why a sweep ended early. The next one tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("list the Tenants")]
    List(#[source] Box<kube::Error>),
    #[error("sweep the registries")]
    Store(#[from] provision::Error),
}

/// Sweeps at every resync until `shutdown`.
pub async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let mut wait = FIRST;
    if let Err(error) = ctx.stores.registry.begin().await {
        tracing::warn!("{}", runtime::logging::chain(&error));
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = sweep(&ctx).await {
            tracing::warn!("{}", runtime::logging::chain(&error));
        }
        wait = ctx.resync();
    }
}

async fn sweep(ctx: &Context) -> Result<(), Error> {
    let stores = &ctx.stores;
    let installation = &ctx.settings.installation;
    stores.registry.begin().await?;
    // The registries first: a Tenant that appears meanwhile is in the list, and is spared.
    let projected = stores.registry.tenants().await?;
    let rows = stores.postgres.live_tenants(installation).await?;
    let foreign = stores.postgres.foreign_tenants(installation, &projected).await?;
    let live = live_tenants(ctx).await.map_err(|error| Error::List(Box::new(error)))?;
    for name in left_over(&projected, &foreign, &live) {
        tracing::warn!(tenant.name = %name, "removed {name} from ingest's registry: there is no such Tenant");
        stores.registry.remove(&name).await?;
    }
    for owner in rows.into_iter().filter(|row| !live.contains(row.tenant.as_str())) {
        // Whoever else works on it sees to it.
        if let Some(held) = stores.postgres.hold_tenant(&owner.tenant).await? {
            held.during(retain(ctx, &owner)).await??;
        }
    }
    Ok(())
}

async fn retain(ctx: &Context, owner: &Owner) -> Result<(), Error> {
    let stores = &ctx.stores;
    stores.postgres.revoke_keys(&owner.installation, &owner.tenant).await?;
    stores.registry.remove(&owner.tenant).await?;
    stores.postgres.set_state(owner, RowState::Retained).await?;
    let name = &owner.tenant;
    tracing::warn!(tenant.name = %name, "revoked the keys of {name}: there is no such Tenant; its data stays");
    let (action, outcome) = (Action::TenantDeleted, "there is no such Tenant; its data stays");
    audit::tell(&Act { actor: ACTOR, action, tenant: name.as_str(), object: name.as_str(), outcome });
    Ok(())
}

/// Entries of ingest's registry that no Tenant stands behind and no other installation owns.
fn left_over(projected: &[String], foreign: &[String], live: &BTreeSet<String>) -> Vec<TenantName> {
    let left = projected.iter().filter(|name| !live.contains(*name) && !foreign.contains(name));
    left.filter_map(|name| name.parse().ok()).collect()
}

/// All Tenants, whatever this operator's selector is.
async fn live_tenants(ctx: &Context) -> kube::Result<BTreeSet<String>> {
    let api = Api::<Tenant>::all(ctx.client.clone());
    let mut names = BTreeSet::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list_metadata(&page).await?;
        names.extend(list.iter().map(ResourceExt::name_any));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_owns_is_left_over() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let live = BTreeSet::from(["acme".to_owned()]);
        let left = left_over(&names(&["acme", "globex", "theirs"]), &names(&["theirs"]), &live);
        assert_eq!(left, ["globex".parse().unwrap()]);
    }
}
