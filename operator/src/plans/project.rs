//! Changed plans, brought to ingest before anything else is looked at.

use std::sync::Arc;

use crds::Tenant;
use crds::registry::{RegistryTenant, TenantState};
use futures::StreamExt;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Plans;
use crate::context::Context;

/// Tenants projected at once: each takes two short calls of Redis.
const AT_ONCE: usize = 16;
/// Tenants listed at once.
const PAGE: u32 = 500;

/// Brings each change of the plans to ingest at once: a thousand Tenants take seconds here, and
/// perhaps a minute by the way of their reconciliation, which follows and writes their status.
pub async fn run(ctx: Arc<Context>, mut plans: watch::Receiver<Plans>, shutdown: CancellationToken) {
    loop {
        plans.borrow_and_update();
        let again = async {
            if let Err(displaced) = ctx.stores.postgres.not_displaced().await {
                tracing::warn!("bring no plans to ingest: {displaced}");
            } else if let Err(error) = project(&ctx).await {
                tracing::warn!("bring the plans to ingest: {}", runtime::logging::chain(&error));
            }
            plans.changed().await
        };
        tokio::select! {
            // Nobody looks for others: what was projected holds.
            changed = again => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Puts the effective quotas of every Tenant into the registry entry that it has.
async fn project(ctx: &Context) -> Result<(), kube::Error> {
    let api = Api::<DeserializeGuard<Tenant>>::all(ctx.client.clone());
    let mut page = ListParams::default().labels(&ctx.settings.watch.effective()).limit(PAGE);
    loop {
        let listed = api.list(&page).await?;
        let next = listed.metadata.continue_.clone().filter(|token| !token.is_empty());
        let tenants = listed.items.into_iter().filter_map(|guard| guard.0.ok());
        futures::stream::iter(tenants)
            .for_each_concurrent(AT_ONCE, async |tenant| project_one(ctx, &tenant).await)
            .await;
        match next {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// Whatever fails here is done by the Tenant's reconciliation, which also says what is wrong. An entry
/// that somebody else changes meanwhile is theirs: what they wrote, such as that a key is revoked, stays.
async fn project_one(ctx: &Context, tenant: &Tenant) {
    let plans = ctx.plans.borrow().clone();
    let (Ok(name), Ok(quotas)) =
        (tenant.name_any().parse(), plans.quotas(&tenant.spec.plan, tenant.spec.quotas.as_ref()))
    else {
        return;
    };
    let registry = &ctx.stores.registry;
    let Ok(Some(seen)) = registry.see(&name).await else { return };
    if seen.entry.quotas == quotas || seen.entry.state == TenantState::Deleting {
        return;
    }
    match registry.replace(&seen, &RegistryTenant { quotas, ..seen.entry.clone() }).await {
        Ok(Some(_)) => {}
        Ok(None) => tracing::debug!(tenant.name = %name, "somebody else changed the registry entry of {name}"),
        Err(error) => tracing::debug!(tenant.name = %name, "project quotas: {}", runtime::logging::chain(&error)),
    }
}
