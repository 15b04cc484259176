//! The installation's plans while the operator runs: read again when the settings file changes, and
//! brought to ingest before anything else is looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crds::Tenant;
use crds::quota::{InvalidQuotas, Quotas};
use crds::registry::{IngestQuotas, RegistryTenant, TenantState};
use futures::StreamExt;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::settings::Settings;

/// Time between two looks at the settings file: a read of some kilobytes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Tenants projected at once: each takes two short calls of Redis.
const AT_ONCE: usize = 16;
/// Tenants listed at once.
const PAGE: u32 = 500;

/// What a Tenant of this plan may do.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// How much it may send. What is absent is not limited.
    #[serde(default)]
    pub quotas: Quotas,
}

/// The installation's plans by name. Cheap to clone.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Plans(Arc<BTreeMap<String, Plan>>);

/// Why a Tenant has no quotas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQuotas {
    /// There is no such plan.
    #[error("spec.plan `{plan}` is not a plan of this installation: use one of {known}")]
    UnknownPlan {
        /// The plan that was named.
        plan: String,
        /// Those that there are.
        known: String,
    },
    /// The Tenant's own quotas can't be had.
    #[error("spec.quotas.{0}")]
    Invalid(#[source] InvalidQuotas),
}

impl Plans {
    /// Names of all plans.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Checks that there is a plan, and that each one's quotas can be had.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.0.is_empty(), "plans: name at least one");
        for (name, plan) in self.0.iter() {
            plan.quotas.limits().map_err(|error| anyhow::anyhow!("plans.{name}.quotas.{error}"))?;
        }
        Ok(())
    }

    /// The limits of a Tenant of `plan` that asks for `own`.
    pub fn quotas(&self, plan: &str, own: Option<&Quotas>) -> Result<IngestQuotas, NoQuotas> {
        let Some(of) = self.0.get(plan) else {
            return Err(NoQuotas::UnknownPlan { plan: plan.to_owned(), known: self.names().join(", ") });
        };
        Quotas::effective(&of.quotas, own).map_err(NoQuotas::Invalid)
    }
}

/// Publishes the plans of the settings file whenever they are others. A file that can't be read, as
/// while it is being replaced, changes nothing.
pub async fn follow(file: PathBuf, plans: watch::Sender<Plans>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        match Settings::read(&file) {
            Ok(settings) => {
                let changed = plans.send_if_modified(|known| {
                    let other = *known != settings.plans;
                    *known = settings.plans;
                    other
                });
                if changed {
                    tracing::info!("the plans have changed");
                }
            }
            Err(error) => tracing::debug!("look for changed plans: {error:#}"),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(yaml: &str) -> Plans {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn a_plan_gives_quotas_and_an_unknown_one_is_named_with_those_that_there_are() {
        let plans = plans("standard: {}\nsmall: {quotas: {ingestEventsPerSecond: 100}}\n");
        assert!(plans.quotas("standard", None).unwrap().is_unlimited());
        assert_eq!(
            plans.quotas("small", None).unwrap().events.map(|rate| (rate.per_second, rate.burst)),
            Some((100, 1000))
        );
        let unknown = plans.quotas("gold", None).unwrap_err().to_string();
        assert_eq!(unknown, "spec.plan `gold` is not a plan of this installation: use one of small, standard");
        let own = Quotas { ingest_burst_bytes: Some("1k".parse().unwrap()), ..Quotas::default() };
        let invalid = plans.quotas("small", Some(&own)).unwrap_err().to_string();
        assert_eq!(invalid, "spec.quotas.ingestBurstBytes needs ingestBytesPerSecond");
    }

    #[test]
    fn plans_that_cannot_be_are_refused_by_name() {
        assert!(plans("{}").check().is_err());
        assert!(plans("{standard: {}}").check().is_ok());
        let error = plans("{a: {quotas: {ingestBytesPerSecond: fast}}}").check().unwrap_err().to_string();
        assert!(error.starts_with("plans.a.quotas.ingestBytesPerSecond: `fast`"), "{error}");
    }
}
