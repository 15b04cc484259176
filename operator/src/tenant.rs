//! The controller of Tenants, in steps that are each a file: look → validate → plan → apply →
//! status. Deletion comes before all of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::condition::{Finding, Reason, types};
use crds::{LogPipeline, TENANT_FINALIZER, Tenant, TenantName, TenantStatus};
use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store as Reader, store};
use kube::runtime::{Predicate, predicates};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Resource, ResourceExt};
use runtime::audit::{self, Act};
use runtime::traces;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub mod validate;
pub mod rotation;
pub mod plan;
pub mod existing;
pub mod lane;
pub mod secrets;
pub mod keys;
pub mod changes;
pub mod apply;
pub mod drain;
pub mod delete;
pub mod departed;
pub mod status;
mod census;
#[cfg(test)]
pub(crate) mod testing;

use crate::backoff::jittered;
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::kubernetes::{
    ACTOR, FIELD_MANAGER, Note, add_finalizer, apply_status, explain, is_paused, now, publish, remove_finalizer,
    transitions,
};
use crate::metrics::{Controller as Which, Ending};
use crate::plans::Plans;
use crate::provision;
use delete::Deletion;
use lane::Seen;
use validate::{Problem, ValidTenant, salvage, validate};

/// Tenants that are worked on at once.
const CONCURRENCY: u16 = 10;
/// Time between two looks at a Tenant that drains.
const DRAIN_INTERVAL: Duration = Duration::from_secs(2);
/// Time until the next look at a Tenant that another operator works on.
const BUSY_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait where the cluster itself has to change, such as a namespace to be made.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(15);
/// Reasons that end when the cluster changes.
const CLUSTER_REASONS: [Reason; 4] =
    [Reason::NamespaceNotFound, Reason::SecretAccessDenied, Reason::SecretMissing, Reason::KeyRejected];

/// Why a reconciliation could not even say how it went.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API failed.
    #[error("{doing} of Tenant `{name}`")]
    Api {
        /// What we were doing.
        doing: &'static str,
        /// The Tenant.
        name: String,
        /// The cause.
        source: Box<kube::Error>,
    },
}

/// What a reconciliation of a Tenant works with.
struct Looking {
    ctx: Arc<Context>,
    pipelines: Reader<DeserializeGuard<LogPipeline>>,
}

/// Runs the controller until `shutdown`. `wake` asks for a look at every Tenant.
pub async fn run(ctx: Arc<Context>, wake: impl Stream<Item = ()> + Send + 'static, shutdown: CancellationToken) {
    let api = Api::<DeserializeGuard<Tenant>>::all(ctx.client.clone());
    let selected = watcher::Config::default().labels(&ctx.settings.watch.effective());
    let (reader, writer) = store();
    let changes = reflector(writer, watcher(api, selected.clone())).applied_objects().predicate_filter(
        // The status is ours: what we write there must not bring us back.
        predicates::generation.combine(predicates::finalizers).combine(predicates::annotations),
        Default::default(),
    );
    let pipelines = Api::<DeserializeGuard<LogPipeline>>::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let (watched, pipelines_writer) = store();
    let pipelines = reflector(pipelines_writer, watcher(pipelines, selected)).touched_objects();
    let tenants = reader.clone();
    let census = census::run(reader.clone(), ctx.metrics.clone(), shutdown.clone());
    let controller = Controller::for_stream(changes, reader)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .watches_stream(pipelines, move |pipeline| users(&tenants, &pipeline))
        .reconcile_all_on(wake)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, on_error, Arc::new(Looking { ctx, pipelines: watched }))
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!("tenant controller: {error}");
            }
        });
    tokio::join!(controller, census);
}

/// The Tenants that a pipeline's coming or going changes something for: those that wait for it, or
/// those that have it and lose it.
fn users(
    tenants: &Reader<DeserializeGuard<Tenant>>,
    pipeline: &DeserializeGuard<LogPipeline>,
) -> Vec<ObjectRef<DeserializeGuard<Tenant>>> {
    let goes = pipeline.meta().deletion_timestamp.is_some();
    let name = pipeline.name_any();
    let concerned = |tenant: &Tenant| {
        let mut conditions = tenant.status.iter().flat_map(|status| &status.conditions);
        let pipeline = conditions.find(|one| one.type_ == types::PIPELINE_READY);
        let has_it = pipeline.is_some_and(|one| one.reason != Reason::PipelineNotFound.as_str());
        let waits_for_it = pipeline.is_some_and(|one| one.reason == Reason::EventsHeld.as_str());
        waits_for_it || tenant.spec.pipeline_ref.name == name && has_it == goes
    };
    let state = tenants.state();
    let named = state.iter().filter(|guard| guard.0.as_ref().is_ok_and(concerned));
    named.map(|guard| ObjectRef::from_obj(guard.as_ref())).collect()
}

async fn reconcile(guard: Arc<DeserializeGuard<Tenant>>, looking: Arc<Looking>) -> Result<Action, Error> {
    let ctx = &looking.ctx;
    let begun = Instant::now();
    let tenant = match &guard.0 {
        Ok(tenant) => tenant,
        Err(invalid) => {
            // The schema in the cluster is another than ours: only an edit or an upgrade helps.
            tracing::warn!(tenant.name = invalid.metadata.name, "a Tenant can't be read: {}", invalid.error);
            return Ok(Action::await_change());
        }
    };
    let span = tracing::info_span!(
        target: traces::TARGET,
        "reconcile",
        otel.name = "reconcile tenant",
        otel.status_code = tracing::field::Empty,
        tenant.name = tenant.metadata.name,
        result = tracing::field::Empty,
    );
    let result = reconcile_tenant(ctx, &looking.pipelines, tenant).instrument(span.clone()).await;
    let ending = match &result {
        Ok(ending) => ending.1,
        Err(_) => Ending::error,
    };
    span.record("result", tracing::field::debug(ending));
    if ending == Ending::error {
        span.record("otel.status_code", "ERROR");
    }
    ctx.metrics.reconciled(Which::tenant, ending, begun.elapsed());
    result.map(|(action, _)| action)
}

fn on_error(guard: Arc<DeserializeGuard<Tenant>>, error: &Error, looking: Arc<Looking>) -> Action {
    let name = guard.name_any();
    tracing::warn!(tenant.name = %name, "reconcile tenant {name}: {}", runtime::logging::chain(error));
    Action::requeue(looking.ctx.tenant_backoff.failed(&name))
}

async fn reconcile_tenant(
    ctx: &Context,
    pipelines: &Reader<DeserializeGuard<LogPipeline>>,
    tenant: &Tenant,
) -> Result<(Action, Ending), Error> {
    let api = Api::<Tenant>::all(ctx.client.clone());
    if tenant.metadata.deletion_timestamp.is_some() {
        return alone(ctx, tenant, |away| conclude(ctx, &api, tenant, away)).await;
    }
    if is_paused(tenant) {
        report(ctx, &api, tenant, status::findings_of_pause(), None, Vec::new()).await?;
        return Ok((Action::await_change(), Ending::success));
    }
    let finalized;
    let tenant = if tenant.finalizers().iter().any(|one| one == TENANT_FINALIZER) {
        tenant
    } else {
        let added = add_finalizer(&api, tenant, TENANT_FINALIZER).await;
        finalized = added.map_err(failed("add the finalizer", tenant))?;
        reach(Point::Finalized);
        &finalized
    };
    let begun;
    let tenant = if tenant.status.as_ref().is_some_and(|status| !status.conditions.is_empty()) {
        tenant
    } else {
        let status = report(ctx, &api, tenant, status::first_findings(), None, Vec::new()).await?;
        begun = Tenant { status: Some(status), ..tenant.clone() };
        &begun
    };
    if status::is_asked_for(tenant) {
        ctx.stores.search.look_anew().await;
    }
    let seen = see_pipeline(ctx, pipelines, tenant).await?;
    let plans = ctx.plans.borrow().clone();
    match validate(tenant, &ctx.settings, &plans, seen.serves(tenant)) {
        Ok(valid) => {
            let result = alone(ctx, tenant, |away| provision(ctx, &api, tenant, &valid, away)).await;
            // What was sent before it was asked to go through `default` goes there, too.
            if let Some(missing) = valid.missing_pipeline.as_ref().filter(|_| seen == Seen::Absent && !valid.is_held())
                && let Err(error) = lane::leave(ctx, missing).await
            {
                tracing::warn!(pipeline.name = %missing, "leave the lanes of pipeline {missing} to `default`: {error}");
            }
            result
        }
        Err(problem) => match last_valid(ctx, tenant, &plans, seen.serves(tenant), &problem).await {
            Some(valid) => alone(ctx, tenant, |away| provision(ctx, &api, tenant, &valid, away)).await,
            None => {
                report(ctx, &api, tenant, status::findings_of_problem(&problem), None, Vec::new()).await?;
                Ok((Action::requeue(ctx.resync()), Ending::success))
            }
        },
    }
}

/// What goes on of a Tenant whose spec can't be had, if ingest was told of it before.
async fn last_valid(
    ctx: &Context,
    tenant: &Tenant,
    plans: &Plans,
    pipeline_exists: bool,
    problem: &Problem,
) -> Option<ValidTenant> {
    let last = match ctx.stores.registry.get(&tenant.name_any().parse().ok()?).await {
        // What a tenant of that name had that is gone is not this one's.
        Ok(last) => last.filter(|last| !departed::has_departed(last))?,
        Err(error) => {
            tracing::warn!(tenant.name = tenant.name_any(), "{}", runtime::logging::chain(&error));
            return None;
        }
    };
    salvage(tenant, &ctx.settings, plans, pipeline_exists, &last, problem.clone())
}

/// Does `work` as the only operator that works on this tenant. Where PostgreSQL is away nobody can
/// say who that is: `work` is told, and does then only what two may do at once.
async fn alone<W>(
    ctx: &Context,
    tenant: &Tenant,
    work: impl FnOnce(Option<provision::Error>) -> W,
) -> Result<(Action, Ending), Error>
where
    W: Future<Output = Result<(Action, Ending), Error>>,
{
    let later = Ok((Action::requeue(jittered(BUSY_INTERVAL)), Ending::requeue));
    let Ok(name) = tenant.name_any().parse::<TenantName>() else { return work(None).await };
    match ctx.stores.postgres.hold_tenant(&name).await {
        Ok(Some(held)) => held.during(work(None)).await.unwrap_or_else(|lost| {
            tracing::warn!(tenant.name = %name, "stopped at tenant {name}: {}", runtime::logging::chain(&lost));
            later
        }),
        Ok(None) => {
            tracing::info!(tenant.name = %name, "another operator works on tenant {name}");
            later
        }
        Err(displaced @ provision::Error::OtherCluster { .. }) => {
            tracing::warn!(tenant.name = %name, "stopped at tenant {name}: {displaced}");
            Ok((Action::requeue(CLUSTER_PATIENCE), Ending::requeue))
        }
        Err(away) => work(Some(away)).await,
    }
}

async fn provision(
    ctx: &Context,
    api: &Api<Tenant>,
    tenant: &Tenant,
    valid: &ValidTenant,
    away: Option<provision::Error>,
) -> Result<(Action, Ending), Error> {
    let applied = apply::apply(ctx, tenant, valid, away).await;
    let findings = status::findings(valid, &applied);
    let drift = status::drift(tenant, &applied);
    for (store, _) in &drift {
        ctx.metrics.drift_corrected(*store);
    }
    let drifted: Vec<&str> = drift.iter().map(|(_, name)| *name).collect();
    let mut notes: Vec<Note> = status::drift_note(&drifted).into_iter().collect();
    notes.extend(status::forged_note(&applied.forged));
    ctx.metrics.keys_forged(applied.forged.len());
    notes.extend(applied.keys.iter().flat_map(|keys| changes::notes(&keys.changes)));
    // A key that is to be replaced, or one that ends, is not left until the next resync.
    let due = applied.keys.as_ref().and_then(|keys| keys.next_due);
    let within = |wait: Duration| due.map_or(wait, |due| due.min(wait));
    let was_ready = tenant.status.as_ref().is_some_and(is_ready);
    let reported = report(ctx, api, tenant, findings, Some((valid, &applied)), notes).await?;
    let name = tenant.name_any();
    if is_ready(&reported) {
        if !was_ready {
            tracing::info!(tenant.name = %name, "tenant {name} is ready");
            if let Some(age) = age(tenant.metadata.creation_timestamp.as_ref()) {
                ctx.metrics.became_ready(age);
            }
        }
        ctx.tenant_backoff.succeeded(&name);
        return Ok((Action::requeue(within(ctx.resync())), Ending::success));
    }
    let ready = reported.conditions.iter().find(|condition| condition.type_ == "Ready");
    let of_spec = valid.problem.as_ref().map_or(Reason::RetentionUnconfirmed, |problem| problem.reason);
    let watched = [Reason::PipelineNotFound, of_spec].map(Reason::as_str);
    if ready.is_some_and(|ready| watched.contains(&ready.reason.as_str())) {
        // The pipeline's coming is watched, and so is the Tenant.
        ctx.tenant_backoff.succeeded(&name);
        return Ok((Action::requeue(within(ctx.resync())), Ending::requeue));
    }
    let wait = ctx.tenant_backoff.failed(&name);
    let of_cluster = matches!(&applied.credentials, Err(problem) if
        CLUSTER_REASONS.contains(&problem.reason));
    let wait = if of_cluster { wait.min(CLUSTER_PATIENCE) } else { wait };
    Ok((Action::requeue(within(wait)), Ending::requeue))
}

/// The deletion branch.
async fn conclude(
    ctx: &Context,
    api: &Api<Tenant>,
    tenant: &Tenant,
    away: Option<provision::Error>,
) -> Result<(Action, Ending), Error> {
    if !tenant.finalizers().iter().any(|one| one == TENANT_FINALIZER) {
        return Ok((Action::await_change(), Ending::success));
    }
    let name = tenant.name_any();
    let delete::Progress { deletion, gone } = delete::delete(ctx, tenant, away).await;
    match deletion {
        Deletion::Done(outcome) => {
            reach(Point::Concluded);
            remove_finalizer(api, tenant, TENANT_FINALIZER).await.map_err(failed("remove the finalizer", tenant))?;
            tracing::info!(tenant.name = %name, "tenant {name} is gone");
            let action = audit::Action::TenantDeleted;
            audit::tell(&Act { actor: ACTOR, action, tenant: &name, object: &name, outcome });
            ctx.forget_tenant(&name);
            if let Some(age) = age(tenant.metadata.deletion_timestamp.as_ref()) {
                ctx.metrics.deleted(age);
            }
            Ok((Action::await_change(), Ending::success))
        }
        Deletion::Waiting(reason, message) => {
            ctx.tenant_backoff.succeeded(&name);
            report(ctx, api, tenant, status::findings_of_deletion(reason, &message, &gone), None, Vec::new()).await?;
            Ok((Action::requeue(DRAIN_INTERVAL), Ending::requeue))
        }
        Deletion::Blocked(Problem { reason, message }) => {
            report(ctx, api, tenant, status::findings_of_deletion(reason, &message, &gone), None, Vec::new()).await?;
            Ok((Action::requeue(ctx.tenant_backoff.failed(&name)), Ending::requeue))
        }
    }
}

/// Writes the status if it is another than before, and publishes what is news.
async fn report(
    ctx: &Context,
    api: &Api<Tenant>,
    tenant: &Tenant,
    findings: Vec<Finding>,
    applied: Option<(&ValidTenant, &apply::Applied)>,
    mut notes: Vec<Note>,
) -> Result<TenantStatus, Error> {
    let before = tenant.status.as_ref();
    notes.extend(transitions(before.map_or(&[], |status| &status.conditions), &findings));
    let status = status::status(tenant, findings, applied, now());
    if before != Some(&status) {
        match apply_status(api, &tenant.name_any(), FIELD_MANAGER, &status).await {
            // Gone meanwhile: there is nobody to tell.
            Err(error) if crate::kubernetes::is_not_found(&error) => return Ok(status),
            result => result.map_err(failed("write the status", tenant))?,
        }
    }
    publish(&ctx.recorder, tenant, notes).await;
    Ok(status)
}

/// What there is of the pipeline that the Tenant names.
async fn see_pipeline(
    ctx: &Context,
    watched: &Reader<DeserializeGuard<LogPipeline>>,
    tenant: &Tenant,
) -> Result<Seen, Error> {
    let (name, namespace) = (&tenant.spec.pipeline_ref.name, &ctx.settings.namespace);
    let seen = Seen::of(watched.get(&ObjectRef::new(name).within(namespace)).as_deref());
    if seen != Seen::Absent {
        return Ok(seen);
    }
    // One that was applied just before its Tenant may not have been seen yet.
    let api = Api::<LogPipeline>::namespaced(ctx.client.clone(), namespace);
    let found = api.get_metadata_opt(name).await;
    Ok(Seen::of(found.map_err(failed("look for the pipeline", tenant))?.as_ref()))
}

fn is_ready(status: &TenantStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn age(since: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Option<Duration> {
    let age = Timestamp::now().as_millisecond().checked_sub(since?.0.as_millisecond())?;
    u64::try_from(age).ok().map(Duration::from_millis)
}

fn failed<'a>(doing: &'static str, tenant: &'a Tenant) -> impl FnOnce(kube::Error) -> Error + 'a {
    move |source| {
        tracing::debug!("{doing}: {}", explain(&source));
        Error::Api { doing, name: tenant.name_any(), source: Box::new(source) }
    }
}
