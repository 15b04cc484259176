//! The controller of LogPipelines: look → accept → build → apply → status. Deletion comes before
//! all of them. How many processors run is the scaler's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::condition::{Finding, Reason};
use crds::{CONFIRM_DELETE_ANNOTATION, LogPipeline, PIPELINE_FINALIZER, PIPELINE_LABEL, PipelineName};
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store as Reader, store};
use kube::runtime::{Predicate, predicates};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, ResourceExt};
use runtime::traces;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

mod error;
pub mod role;
mod accept;
mod last_accepted;
pub mod build;
mod pod;
pub mod availability;
mod apply;
pub mod status;

use crate::context::Context;
use crate::kubernetes::{
    FIELD_MANAGER, add_finalizer, apply_status, is_not_found, is_paused, now, publish, remove_finalizer, transitions,
};
use crate::metrics::{Controller as Which, Ending};
use crate::provision;
use crate::scaler::{Pipelines, backlog};
use crate::tenant::lane;
use accept::{accept, place};
pub use error::Error;
use error::failed;

/// Time between two looks at a pipeline that is to be deleted.
const LEAVING_INTERVAL: Duration = Duration::from_secs(5);
/// How long ingest is given to hear that a Tenant has left a pipeline.
const GRACE: Duration = Duration::from_secs(5);
/// Pipelines that are worked on at once.
const CONCURRENCY: u16 = 4;

/// Runs the controller until `shutdown`. Hands the pipelines that it sees to the scaler.
pub async fn run(
    ctx: Arc<Context>,
    pipelines: Pipelines,
    wake: impl Stream<Item = ()> + Send + 'static,
    shutdown: CancellationToken,
) {
    let api = Api::<DeserializeGuard<LogPipeline>>::all(ctx.client.clone());
    let selected = watcher::Config::default().labels(&ctx.settings.watch.effective());
    let (reader, writer) = store();
    let changes = reflector(writer, watcher(api, selected)).applied_objects().predicate_filter(
        predicates::generation.combine(predicates::finalizers).combine(predicates::annotations),
        Default::default(),
    );
    pipelines.watch(reader.clone());
    let namespace = ctx.settings.namespace.clone();
    let children = watcher::Config::default().labels(&format!(
        "{PIPELINE_LABEL},app.kubernetes.io/managed-by=loggerhub-operator,app.kubernetes.io/instance={}",
        ctx.settings.release
    ));
    let deployments = Api::<DeserializeGuard<Deployment>>::namespaced(ctx.client.clone(), &namespace);
    let services = Api::<DeserializeGuard<Service>>::namespaced(ctx.client.clone(), &namespace);
    let (of_deployment, of_service) = (owner(reader.clone()), owner(reader.clone()));
    Controller::for_stream(changes, reader)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .watches(deployments, children.clone(), move |child| of_deployment(child.labels(), child.namespace()))
        .watches(services, children, move |child| of_service(child.labels(), child.namespace()))
        .reconcile_all_on(wake)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, on_error, ctx)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!("pipeline controller: {error}");
            }
        })
        .await;
}

type Labels = std::collections::BTreeMap<String, String>;

/// The pipeline that a child belongs to, by its label, if this controller has it.
fn owner(
    pipelines: Reader<DeserializeGuard<LogPipeline>>,
) -> impl Fn(&Labels, Option<String>) -> Option<ObjectRef<DeserializeGuard<LogPipeline>>> {
    move |labels, namespace| {
        let owner = ObjectRef::new(labels.get(PIPELINE_LABEL)?).within(&namespace?);
        pipelines.get(&owner).map(|_| owner)
    }
}

async fn reconcile(guard: Arc<DeserializeGuard<LogPipeline>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let begun = Instant::now();
    let pipeline = match &guard.0 {
        Ok(pipeline) => pipeline,
        Err(invalid) => {
            tracing::warn!(pipeline.name = invalid.metadata.name, "a LogPipeline can't be read: {}", invalid.error);
            return Ok(Action::await_change());
        }
    };
    let span = tracing::info_span!(
        target: traces::TARGET,
        "reconcile",
        otel.name = "reconcile pipeline",
        otel.status_code = tracing::field::Empty,
        pipeline.name = pipeline.metadata.name,
        result = tracing::field::Empty,
    );
    let result = reconcile_pipeline(&ctx, pipeline).instrument(span.clone()).await;
    let ending = result.as_ref().map_or(Ending::error, |(_, ending)| *ending);
    span.record("result", tracing::field::debug(ending));
    if ending == Ending::error {
        span.record("otel.status_code", "ERROR");
    }
    ctx.metrics.reconciled(Which::pipeline, ending, begun.elapsed());
    result.map(|(action, _)| action)
}

fn on_error(guard: Arc<DeserializeGuard<LogPipeline>>, error: &Error, ctx: Arc<Context>) -> Action {
    let name = guard.name_any();
    tracing::warn!(pipeline.name = %name, "reconcile pipeline {name}: {}", runtime::logging::chain(error));
    Action::requeue(ctx.pipeline_backoff.failed(&name))
}

async fn reconcile_pipeline(ctx: &Context, pipeline: &LogPipeline) -> Result<(Action, Ending), Error> {
    let namespace = pipeline.namespace().unwrap_or_default();
    let api = Api::<LogPipeline>::namespaced(ctx.client.clone(), &namespace);
    let stays = if pipeline.metadata.deletion_timestamp.is_some() {
        match conclude(ctx, &api, pipeline).await? {
            Some(stays) => Some(stays),
            None => return Ok((Action::await_change(), Ending::success)),
        }
    } else {
        None
    };
    if is_paused(pipeline) && stays.is_none() {
        return Ok((Action::await_change(), Ending::success));
    }
    let name = match place(pipeline, &ctx.settings.namespace) {
        Ok(name) => name,
        Err((reason, message)) => {
            report(ctx, &api, pipeline, status::refused(reason, &message), None).await?;
            return Ok((Action::await_change(), Ending::success));
        }
    };
    if let Err((reason, message)) = accept(&pipeline.spec, unix_micros()) {
        let ready = keep_last_accepted(ctx, pipeline, &name).await?;
        let wait = stays.as_ref().map_or_else(|| ctx.resync(), |_| LEAVING_INTERVAL);
        let findings = status::refused(reason, &message).into_iter().chain(stays.into_iter().flatten());
        report(ctx, &api, pipeline, findings.collect(), ready).await?;
        return Ok((Action::requeue(wait), Ending::success));
    }
    let finalized;
    let pipeline = if is_held(pipeline, &name) {
        pipeline
    } else {
        let added = add_finalizer(&api, pipeline, PIPELINE_FINALIZER).await;
        finalized = added.map_err(failed("add the finalizer", pipeline))?;
        &finalized
    };
    let applied = apply::apply(ctx, pipeline, &name).await?;
    let mut findings = status::findings(pipeline, &applied.processor, applied.ingest.as_ref());
    let mut wait = ctx.resync();
    let mut ending = Ending::success;
    // A pipeline of that name may have left its streams to `default` before.
    match adopt(ctx, &name).await {
        Ok(_) => ctx.pipeline_backoff.succeeded(name.as_str()),
        Err(error) => {
            findings.retain(|finding| finding.type_ == crds::condition::types::ACCEPTED);
            findings.extend(unavailable(&error));
            (wait, ending) = (ctx.pipeline_backoff.failed(name.as_str()), Ending::requeue);
        }
    }
    if let Some(stays) = stays {
        findings.retain(|finding| finding.type_ == crds::condition::types::ACCEPTED);
        findings.extend(stays);
        wait = wait.min(LEAVING_INTERVAL);
    }
    report(ctx, &api, pipeline, findings, Some(applied.ready())).await?;
    Ok((Action::requeue(wait), ending))
}

/// Whether all is done that has to be before a pipeline may be deleted: its finalizer is there, or it
/// is `default`, whose streams go to nobody else.
fn is_held(pipeline: &LogPipeline, name: &PipelineName) -> bool {
    *name == PipelineName::default_pipeline() || pipeline.finalizers().iter().any(|one| one == PIPELINE_FINALIZER)
}

/// A pipeline that is refused goes on as it was accepted last, of the image that the release has now.
/// Says how many of its processors are ready, if it has any.
async fn keep_last_accepted(ctx: &Context, pipeline: &LogPipeline, name: &PipelineName) -> Result<Option<i32>, Error> {
    let processors =
        apply::children::<Deployment>(ctx).get_opt(&name.processor_deployment(&ctx.settings.release)).await;
    let processors = processors.map_err(failed("look for the processors", pipeline))?;
    match processors.and_then(|processors| last_accepted::last(pipeline, &processors)) {
        Some(last) => Ok(Some(apply::apply(ctx, &last, name).await?.ready())),
        None => Ok(None),
    }
}

fn unix_micros() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// What a pipeline's deletion comes to.
#[derive(Debug, PartialEq, Eq)]
enum Leaving {
    /// It stays, with its processors, for as long as the reason holds.
    Stays(Reason, String),
    /// It goes, and its lanes are left to `default`.
    HandsOver,
    /// It goes, and its lanes wait for another of its name.
    IsWaitedFor,
}

/// Decides about a pipeline that is to be deleted: events that were sent to its stages go through no others,
/// unless somebody confirms that. `dependents` are the Tenants that have no other, `waiting` the entries of its lanes;
/// `unneeded_for` is how long the registry has sent nothing there.
fn leaving(pipeline: &LogPipeline, dependents: &[String], waiting: i64, unneeded_for: Duration) -> Leaving {
    let name = pipeline.name_any();
    let annotated = pipeline.annotations().get(CONFIRM_DELETE_ANNOTATION);
    let confirmed = annotated.is_some_and(|value| *value == name);
    let confirm = format!("kubectl annotate logpipeline {name} {CONFIRM_DELETE_ANNOTATION}={name}");
    match (dependents, confirmed) {
        ([], true) => Leaving::HandsOver,
        (_, true) => Leaving::IsWaitedFor,
        ([], false) if waiting > 0 => {
            let message = format!(
                "to be deleted: {waiting} entries of its lanes wait for its processors, which go on until there are none \
                 (not while spec.suspend is set). To have them go through `default`, without these stages: {confirm}"
            );
            Leaving::Stays(Reason::Draining, message)
        }
        ([], false) if unneeded_for < GRACE => {
            let message = format!(
                "to be deleted: ingest hears of its Tenants' moves first, which wait as long as such a Tenant is paused. \
                 To have its lanes go through `default` at once: {confirm}"
            );
            Leaving::Stays(Reason::Draining, message)
        }
        ([], false) => Leaving::HandsOver,
        (_, false) => {
            let message = format!(
                "to be deleted, and goes on, because Tenants use it: {}. Have them name another pipeline, or \
                 onMissing: Default. To have their events wait, unprocessed, until it is applied again: {confirm}",
                lane::listed(dependents)
            );
            Leaving::Stays(Reason::DeletionBlocked, message)
        }
    }
}

/// The deletion branch. Nothing is left to do of a pipeline that goes; its objects follow by their owner references.
/// Else, what is said of one that stays.
async fn conclude(
    ctx: &Context,
    api: &Api<LogPipeline>,
    pipeline: &LogPipeline,
) -> Result<Option<Vec<Finding>>, Error> {
    if !pipeline.finalizers().iter().any(|one| one == PIPELINE_FINALIZER) {
        return Ok(None);
    }
    let name = pipeline.name_any();
    let lane = name.parse::<PipelineName>().ok().filter(|lane| *lane != PipelineName::default_pipeline());
    let left = match lane {
        Some(lane) => let_go(ctx, pipeline, &lane).await?,
        None => Ok(()),
    };
    if let Err((reason, message)) = left {
        return Ok(Some(status::blocked(reason, &message)));
    }
    remove_finalizer(api, pipeline, PIPELINE_FINALIZER).await.map_err(failed("remove the finalizer", pipeline))?;
    ctx.forget_pipeline(&name);
    tracing::info!(pipeline.name = %name, "pipeline {name} is gone");
    Ok(None)
}

/// Sees to the lanes of a pipeline that is to go, or says why it stays.
async fn let_go(
    ctx: &Context,
    pipeline: &LogPipeline,
    name: &PipelineName,
) -> Result<Result<(), (Reason, String)>, Error> {
    let registry = &ctx.stores.registry;
    let dependents = lane::dependents(ctx, name.as_str()).await.map_err(failed("list the Tenants", pipeline))?;
    let unreachable = |error: provision::Error| (Reason::DeletionBlocked, runtime::logging::chain(&error));
    // What ingest goes by is the registry, which a Tenant's spec is ahead of.
    let (waiting, named) = match tokio::try_join!(backlog::entries(registry, name), registry.named_pipelines()) {
        Ok((entries, named)) => (entries, named.is_none_or(|named| named.contains(name))),
        Err(error) => return Ok(Err(unreachable(error))),
    };
    if named || !dependents.is_empty() {
        ctx.unneeded_since.end(name.as_str());
    }
    let unneeded_for = ctx.unneeded_since.elapsed(name.as_str());
    Ok(match leaving(pipeline, &dependents, waiting, unneeded_for) {
        Leaving::Stays(reason, message) => Err((reason, message)),
        Leaving::HandsOver => lane::hand_over(ctx, name).await.map_err(|message| (Reason::DeletionBlocked, message)),
        Leaving::IsWaitedFor => hold(ctx, name).await.map(drop).map_err(unreachable),
    })
}

/// Takes a pipeline's lanes back. Those of another cluster that has taken over stay as they are, here and below.
async fn adopt(ctx: &Context, name: &PipelineName) -> Result<Duration, provision::Error> {
    ctx.stores.postgres.not_displaced().await?;
    ctx.stores.registry.adopt(name).await
}

/// Has a pipeline's lanes wait for it.
async fn hold(ctx: &Context, name: &PipelineName) -> Result<Duration, provision::Error> {
    ctx.stores.postgres.not_displaced().await?;
    ctx.stores.registry.hold(name).await
}

fn unavailable(error: &provision::Error) -> Vec<Finding> {
    status::blocked(Reason::BackendUnavailable, &runtime::logging::chain(error))
}

async fn report(
    ctx: &Context,
    api: &Api<LogPipeline>,
    pipeline: &LogPipeline,
    findings: Vec<Finding>,
    ready: Option<i32>,
) -> Result<(), Error> {
    let before = status::before(pipeline);
    let notes = transitions(before.as_ref().map_or(&[], |before| &before.conditions), &findings);
    let status = status::status(pipeline, findings, ready, now());
    if before.as_ref() != Some(&status) {
        match apply_status(api, &pipeline.name_any(), FIELD_MANAGER, &status).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            result => result.map_err(failed("write the status", pipeline))?,
        }
    }
    publish(&ctx.recorder, pipeline, notes).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(namespace: &str) -> LogPipeline {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "loggerhub.io/v1alpha1", "kind": "LogPipeline",
            "metadata": {"name": "fast", "namespace": namespace}, "spec": {},
        }))
        .unwrap()
    }

    #[test]
    fn a_pipeline_that_is_needed_or_not_drained_goes_only_once_that_is_confirmed() {
        let (long, acme) = (Duration::from_secs(60), ["acme".to_owned()]);
        let mut fast = pipeline("logs");
        let stays = |leaving: Leaving, expected: Reason, said: &str| match leaving {
            Leaving::Stays(reason, message) => assert!(reason == expected && message.contains(said), "{message}"),
            other => panic!("{other:?}"),
        };
        stays(leaving(&fast, &acme, 0, long), Reason::DeletionBlocked, "Tenants use it: acme.");
        stays(leaving(&fast, &[], 7, long), Reason::Draining, "7 entries of its lanes wait");
        stays(leaving(&fast, &[], 0, Duration::ZERO), Reason::Draining, "ingest hears");
        assert_eq!(leaving(&fast, &[], 0, long), Leaving::HandsOver);
        fast.annotations_mut().insert(CONFIRM_DELETE_ANNOTATION.to_owned(), "true".to_owned());
        stays(leaving(&fast, &acme, 0, long), Reason::DeletionBlocked, "confirm-delete=fast");
        fast.annotations_mut().insert(CONFIRM_DELETE_ANNOTATION.to_owned(), "fast".to_owned());
        assert_eq!(leaving(&fast, &acme, 7, long), Leaving::IsWaitedFor);
        assert_eq!(leaving(&fast, &[], 7, long), Leaving::HandsOver);
    }

    #[test]
    fn only_a_pipeline_whose_streams_go_to_another_is_held() {
        assert!(!is_held(&pipeline("logs"), &"fast".parse().unwrap()));
        assert!(is_held(&pipeline("logs"), &PipelineName::default_pipeline()));
    }
}
