//! The lane of a Tenant whose pipeline is not there: its events wait in it, or it is left to `default`
//! where every Tenant that names the pipeline has asked for that.

use crds::tenant::OnMissing;
use crds::{LogPipeline, PipelineName, Tenant, TenantName};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Resource, ResourceExt};
use redis::AsyncCommands;

use super::validate::ValidTenant;
use crate::context::Context;
use crate::provision::{Error, Registry};
use crate::scaler::backlog;

/// Names that a message tells.
const TOLD: usize = 5;

/// What there is of the pipeline that a Tenant names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    There,
    /// It is being deleted: its processors run until nothing needs them any more.
    Leaving,
    /// It is not there.
    Absent,
}

impl Presence {
    /// What can be told from the object, if there is one.
    pub fn of<K: Resource>(pipeline: Option<&K>) -> Self {
        match pipeline {
            None => Self::Absent,
            Some(pipeline) if pipeline.meta().deletion_timestamp.is_some() => Self::Leaving,
            Some(_) => Self::There,
        }
    }

    /// Whether it processes the Tenant's events. One that leaves stays for those that wait for it, and is
    /// left by those that have `default` instead.
    pub fn serves(self, tenant: &Tenant) -> bool {
        match self {
            Self::There => true,
            Self::Leaving => tenant.spec.pipeline_ref.on_missing == OnMissing::Hold,
            Self::Absent => false,
        }
    }
}

/// Whether a Tenant's events must go through this pipeline and no other.
fn needs(tenant: &Tenant, pipeline: &str) -> bool {
    tenant.spec.pipeline_ref.name == pipeline && tenant.spec.pipeline_ref.on_missing == OnMissing::Hold
}

/// The Tenants whose events must go through this pipeline and no other, those under deletion too: their
/// queue has still to be drained. One that can't be read might be one of them.
pub async fn dependents(ctx: &Context, pipeline: &str) -> kube::Result<Vec<String>> {
    let api = Api::<DeserializeGuard<Tenant>>::all(ctx.client.clone());
    let tenants = api.list(&ListParams::default().labels(&ctx.settings.watch.effective())).await?;
    let depends = |guard: &&DeserializeGuard<Tenant>| guard.0.as_ref().map_or(true, |tenant| needs(tenant, pipeline));
    Ok(tenants.iter().filter(depends).map(ResourceExt::name_any).collect())
}

/// Leaves a lane whose pipeline does not exist to `default`, unless there are Tenants that must not go
/// through that: it is said which.
pub async fn leave(ctx: &Context, pipeline: &PipelineName) -> Result<(), String> {
    if *pipeline == PipelineName::default_pipeline() {
        return Ok(());
    }
    needed_by_nobody(ctx, pipeline).await?;
    hand_over(ctx, pipeline).await
}

/// Hands a lane that no Tenant needs to `default`, or says who came meanwhile.
pub async fn hand_over(ctx: &Context, pipeline: &PipelineName) -> Result<(), String> {
    let (registry, chain) = (&ctx.stores.registry, |error: Error| runtime::logging::chain(&error));
    // The Tenants of another cluster need it, if that one has taken over. While nobody can say, the lane waits.
    ctx.stores.postgres.still_ours().await.map_err(chain)?;
    registry.orphan(pipeline).await.map_err(chain)?;
    // A Tenant that came between the look before and this has taken the lane already, and has just lost it.
    if let Err(said) = needed_by_nobody(ctx, pipeline).await {
        registry.hold(pipeline).await.map_err(chain)?;
        return Err(said);
    }
    Ok(())
}

async fn needed_by_nobody(ctx: &Context, pipeline: &PipelineName) -> Result<(), String> {
    let dependents = dependents(ctx, pipeline.as_str()).await;
    let dependents = dependents.map_err(|error| format!("list the Tenants: {}", crate::kubernetes::explain(&error)))?;
    if dependents.is_empty() {
        return Ok(());
    }
    Err(format!(
        "events wait for LogPipeline `{pipeline}` and no other, because Tenants name it: {}",
        listed(&dependents)
    ))
}

/// The first few of some names.
pub fn listed(names: &[String]) -> String {
    match names.get(TOLD..) {
        Some(more) if !more.is_empty() => format!("{} and {} more", names[..TOLD].join(", "), more.len()),
        _ => names.join(", "),
    }
}

/// Pipelines that do not exist and that events of the tenant wait for, though it names another by now.
/// What can't be looked at now is looked at the next time.
pub async fn left_behind(ctx: &Context, valid: &ValidTenant) -> Vec<PipelineName> {
    let registry = &ctx.stores.registry;
    let held = registry.held().await.unwrap_or_default();
    let held = held.iter().filter_map(|name| name.parse::<PipelineName>().ok());
    let mut left = Vec::new();
    for pipeline in held.filter(|pipeline| *pipeline != valid.desired.pipeline) {
        if waits(registry, valid.desired.name(), &pipeline).await.unwrap_or(false) {
            left.push(pipeline);
        }
    }
    left
}

async fn waits(registry: &Registry, tenant: &TenantName, pipeline: &PipelineName) -> Result<bool, Error> {
    let bytes = registry.connection().hget(pipeline.lane(tenant).tenant_bytes(), tenant.as_str()).await;
    let bytes: Option<i64> = bytes.map_err(|source| Error::Redis { doing: "look for events that wait", source })?;
    Ok(bytes.is_some_and(|bytes| bytes > 0))
}

/// Forgets pipelines that no event waits for and no Tenant names, here or in the registry.
pub async fn forget_unneeded(ctx: &Context) -> Result<(), Error> {
    let registry = &ctx.stores.registry;
    let mut unneeded = Vec::new();
    for pipeline in registry.held().await?.iter().filter_map(|name| name.parse::<PipelineName>().ok()) {
        let empty = backlog::entries(registry, &pipeline).await? == 0;
        if empty && dependents(ctx, pipeline.as_str()).await.is_ok_and(|dependents| dependents.is_empty()) {
            unneeded.push(pipeline);
        }
    }
    if unneeded.is_empty() {
        return Ok(());
    }
    let Some(named) = registry.named_pipelines().await? else { return Ok(()) };
    for pipeline in unneeded.iter().filter(|pipeline| !named.contains(pipeline)) {
        registry.let_go(pipeline).await?;
    }
    Ok(())
}

/// Whether a pipeline processes nothing because somebody says so. What can't be asked is not taken for it.
pub async fn is_suspended(ctx: &Context, pipeline: &PipelineName) -> bool {
    let api = Api::<LogPipeline>::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    api.get_opt(pipeline.as_str()).await.is_ok_and(|found| found.is_some_and(|found| found.spec.suspend))
}

/// Names of the LogPipelines that there are.
pub async fn pipelines(ctx: &Context) -> kube::Result<Vec<String>> {
    let api = Api::<LogPipeline>::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    Ok(api.list_metadata(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::acme;

    #[test]
    fn a_pipeline_that_leaves_stays_for_those_that_must_not_go_through_another() {
        let (mut holds, mut falls_back) = (acme(), acme());
        holds.spec.pipeline_ref.on_missing = OnMissing::Hold;
        falls_back.spec.pipeline_ref.on_missing = OnMissing::Default;
        for (seen, of_one, of_other) in
            [(Presence::There, true, true), (Presence::Leaving, true, false), (Presence::Absent, false, false)]
        {
            assert_eq!((seen.serves(&holds), seen.serves(&falls_back)), (of_one, of_other), "{seen:?}");
        }
        assert!(needs(&holds, "default") && !needs(&holds, "fast") && !needs(&falls_back, "default"));
    }
}
