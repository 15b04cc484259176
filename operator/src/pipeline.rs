//! The controller of LogPipelines: look → accept → build → apply → status. Deletion comes before
//! all of them. How many processors run is the scaler's.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::condition::{Finding, Reason};
use crds::{CONFIRM_DELETE_ANNOTATION, LogPipeline, LogPipelineSpec, PIPELINE_FINALIZER, PIPELINE_LABEL, PipelineName};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store as Reader, store};
use kube::runtime::{Predicate, predicates};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Resource, ResourceExt};
use runtime::traces;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

mod acceptance;
mod accepted;
pub mod build;
mod pod;
pub mod availability;
pub mod status;

use crate::context::Context;
use crate::kubernetes::{
    FIELD_MANAGER, add_finalizer, apply, apply_status, is_not_found, is_paused, now, publish, release_replicas,
    remove_finalizer, transitions,
};
use crate::metrics::{Controller as Which, Ending};
use crate::provision;
use crate::scaler::{Pipelines, backlog};
use crate::tenant::lane;
use build::Role;

/// Time between two looks at a pipeline that is to be deleted.
const LEAVING_INTERVAL: Duration = Duration::from_secs(5);
/// How long ingest is given to hear that a Tenant has left a pipeline.
const GRACE: Duration = Duration::from_secs(5);
/// Pipelines that are worked on at once.
const CONCURRENCY: u16 = 4;

/// Why a reconciliation ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API failed.
    #[error("{doing} of LogPipeline `{name}`")]
    Api {
        /// What we were doing.
        doing: &'static str,
        /// The pipeline.
        name: String,
        /// The cause.
        source: Box<kube::Error>,
    },
}

/// The objects that a pipeline yields, as the API server has them.
struct Applied {
    processor: Deployment,
    ingest: Option<Deployment>,
}

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
    let applied = apply_children(ctx, pipeline, &name).await?;
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
    report(ctx, &api, pipeline, findings, Some(ready(&applied.processor))).await?;
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
    let processors = children::<Deployment>(ctx).get_opt(&name.processor_deployment(&ctx.settings.release)).await;
    let processors = processors.map_err(failed("look for the processors", pipeline))?;
    match processors.and_then(|processors| accepted::last(pipeline, &processors)) {
        Some(last) => Ok(Some(ready(&apply_children(ctx, &last, name).await?.processor))),
        None => Ok(None),
    }
}

fn ready(processor: &Deployment) -> i32 {
    processor.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

fn unix_micros() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// The name of a pipeline that is where we run any.
fn place(pipeline: &LogPipeline, release_namespace: &str) -> Result<PipelineName, (Reason, String)> {
    let namespace = pipeline.namespace().unwrap_or_default();
    if namespace != release_namespace {
        let message = format!(
            "pipelines run in namespace `{release_namespace}` only, because their pods hold the platform's \
             credentials: move it there"
        );
        return Err((Reason::NamespaceNotAllowed, message));
    }
    pipeline.name_any().parse().map_err(|error| (Reason::InvalidSpec, format!("metadata.name: {error}")))
}

/// Whether a spec is one that is run. Its tests are run as if their lines came `now`, in microseconds
/// since 1970.
fn accept(spec: &LogPipelineSpec, now: i64) -> Result<(), (Reason, String)> {
    check_replicas(spec).map_err(|message| (Reason::InvalidSpec, message))?;
    acceptance::check(spec, now)
}

/// What the API server's rules say, too; objects that were stored before a rule was made can break it.
fn check_replicas(spec: &LogPipelineSpec) -> Result<(), String> {
    let scaling = &spec.processor.scaling;
    if scaling.min_replicas > scaling.max_replicas {
        return Err("spec.processor.scaling: minReplicas must not exceed maxReplicas".to_owned());
    }
    let ingest = spec.ingest.as_ref();
    let Some((ingest, autoscaling)) = ingest.and_then(|ingest| Some((ingest, ingest.autoscaling.as_ref()?))) else {
        return Ok(());
    };
    if autoscaling.min_replicas > autoscaling.max_replicas {
        return Err("spec.ingest.autoscaling: minReplicas must not exceed maxReplicas".to_owned());
    }
    if !ingest.resources.requests.contains_key("cpu") {
        return Err("spec.ingest.autoscaling needs spec.ingest.resources.requests.cpu".to_owned());
    }
    Ok(())
}

/// Brings the pipeline's objects to what its spec asks for, and removes those that it asks for no more.
async fn apply_children(ctx: &Context, pipeline: &LogPipeline, name: &PipelineName) -> Result<Applied, Error> {
    let settings = &ctx.settings;
    let processors = name.processor_deployment(&settings.release);
    let budget = |role| availability::budget(settings, pipeline, name, role);
    let budgets = settings.dataplane.pod_disruption_budget;
    let processor = build::processor(settings, pipeline, name);
    let processor = apply(&children(ctx), &processor).await.map_err(failed("apply the processors", pipeline))?;
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
        release_replicas(&children(ctx), &ingests).await.map_err(failed("release the ingest's replicas", pipeline))?;
    }
    let ingest = spec.map(|spec| build::ingest(settings, pipeline, name, spec));
    let ingest = keep(ctx, &ingests, ingest).await.map_err(failed("keep the ingest Deployment", pipeline))?;
    keep(ctx, &ingests, (budgets && spec.is_some()).then(|| budget(Role::Ingest)))
        .await
        .map_err(failed("keep the ingest PodDisruptionBudget", pipeline))?;
    Ok(Applied { processor, ingest })
}

/// The objects of a kind that pipelines have.
fn children<K>(ctx: &Context) -> Api<K>
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
        Some(object) => apply(&children(ctx), &object).await.map(Some),
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
        Err(error) if is_not_found(&error) => Ok(()),
        result => result.map(drop),
    }
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

fn failed<'a>(doing: &'static str, pipeline: &'a LogPipeline) -> impl FnOnce(kube::Error) -> Error + 'a {
    move |source| Error::Api { doing, name: pipeline.name_any(), source: Box::new(source) }
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
    fn a_pipeline_runs_in_the_release_namespace_only() {
        assert_eq!(place(&pipeline("logs"), "logs").unwrap().as_str(), "fast");
        assert_eq!(place(&pipeline("acme"), "logs").unwrap_err().0, Reason::NamespaceNotAllowed);
    }

    #[test]
    fn a_spec_that_contradicts_itself_is_refused() {
        let cpu = serde_json::json!({"requests": {"cpu": "100m"}});
        for (spec, said) in [
            (serde_json::json!({}), None),
            (serde_json::json!({"processor": {"scaling": {"minReplicas": 11}}}), Some("scaling: minReplicas must not")),
            (serde_json::json!({"ingest": {"autoscaling": {}, "resources": cpu}}), None),
            (serde_json::json!({"ingest": {"autoscaling": {}}}), Some("needs spec.ingest.resources.requests.cpu")),
            (
                serde_json::json!({"ingest": {"autoscaling": {"minReplicas": 11}, "resources": cpu}}),
                Some("autoscaling: minReplicas must not"),
            ),
        ] {
            let refused = accept(&serde_json::from_value(spec.clone()).unwrap(), 0).err();
            let refused = refused.map(|(reason, message)| (reason == Reason::InvalidSpec, message));
            let as_expected = match (&refused, said) {
                (Some((true, message)), Some(said)) => message.contains(said),
                (refused, said) => refused.is_none() && said.is_none(),
            };
            assert!(as_expected, "{spec}: {refused:?}");
        }
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
