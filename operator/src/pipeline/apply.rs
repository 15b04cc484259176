//! Brings a pipeline's objects to what was built of its spec.

use std::fmt::Debug;

use crds::{LogPipeline, PIPELINE_LABEL, PipelineName};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Error, failed};
use super::role::Role;
use super::{availability, build};
use crate::context::Context;
use crate::kubernetes;

/// The objects that a pipeline yields, as the API server has them.
pub(super) struct Applied {
    pub(super) processor: Deployment,
    pub(super) ingest: Option<Deployment>,
}

impl Applied {
    /// Processors that are ready.
    pub(super) fn ready(&self) -> i32 {
        self.processor.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
    }
}

/// Brings the pipeline's objects to what its spec asks for, and removes those that it asks for no more.
pub(super) async fn apply(ctx: &Context, pipeline: &LogPipeline, name: &PipelineName) -> Result<Applied, Error> {
    let settings = &ctx.settings;
    let processors = name.processor_deployment(&settings.release);
    let budget = |role| availability::budget(settings, pipeline, name, role);
    let budgets = settings.dataplane.pod_disruption_budget;
    let processor = build::processor(settings, pipeline, name);
    let processor =
        kubernetes::apply(&children(ctx), &processor).await.map_err(failed("apply the processors", pipeline))?;
    keep(ctx, &processors, budgets.then(|| budget(Role::Processor)))
        .await
        .map_err(failed("keep the processors' PodDisruptionBudget", pipeline))?;

    let canaries = name.canary_deployment(&settings.release);
    let canary = pipeline.spec.canary.as_ref();
    let service = canary.map(|_| build::canary_service(settings, pipeline, name));
    keep(ctx, &canaries, service).await.map_err(failed("keep the canary's Service", pipeline))?;
    let canary = canary.map(|canary| build::canary(settings, pipeline, name, canary));
    keep(ctx, &canaries, canary).await.map_err(failed("keep the canary's Deployment", pipeline))?;

    let ingests = name.ingest_deployment(&settings.release);
    let spec = pipeline.spec.ingest.as_ref();
    let service = spec.map(|spec| build::ingest_service(settings, pipeline, name, spec));
    keep(ctx, &ingests, service).await.map_err(failed("keep the ingest Service", pipeline))?;
    let autoscaling = spec.and_then(|spec| spec.autoscaling.as_ref());
    let autoscaler = autoscaling.map(|wanted| availability::autoscaler(settings, pipeline, name, wanted));
    // Before the Deployment: one that goes must not undo the replicas that are applied next.
    keep(ctx, &ingests, autoscaler).await.map_err(failed("keep the ingest HorizontalPodAutoscaler", pipeline))?;
    if autoscaling.is_some() {
        kubernetes::release_replicas(&children(ctx), &ingests)
            .await
            .map_err(failed("release the ingest's replicas", pipeline))?;
    }
    let ingest = spec.map(|spec| build::ingest(settings, pipeline, name, spec));
    let ingest = keep(ctx, &ingests, ingest).await.map_err(failed("keep the ingest Deployment", pipeline))?;
    keep(ctx, &ingests, (budgets && spec.is_some()).then(|| budget(Role::Ingest)))
        .await
        .map_err(failed("keep the ingest PodDisruptionBudget", pipeline))?;
    Ok(Applied { processor, ingest })
}

/// The objects of a kind that pipelines have.
pub(super) fn children<K>(ctx: &Context) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(ctx.client.clone(), &ctx.settings.namespace)
}

/// Applies the object that a pipeline is to have, or removes the one that it had.
async fn keep<K>(ctx: &Context, name: &str, wanted: Option<K>) -> kube::Result<Option<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    match wanted {
        Some(object) => kubernetes::apply(&children(ctx), &object).await.map(Some),
        None => remove::<K>(&children(ctx), name).await.map(|()| None),
    }
}

/// Removes an object that is a pipeline's, if it is there.
async fn remove<K>(api: &Api<K>, name: &str) -> kube::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let found = api.get_metadata_opt(name).await?;
    if !found.is_some_and(|found| found.labels().contains_key(PIPELINE_LABEL)) {
        return Ok(());
    }
    match api.delete(name, &DeleteParams::background()).await {
        Err(error) if kubernetes::is_not_found(&error) => Ok(()),
        result => result.map(drop),
    }
}
