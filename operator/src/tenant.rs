//! The controller of Tenants: which are looked at, and when. What is done at each look stands in [`reconcile`], in steps
//! that are each a file: look → validate → plan → apply → status. Deletion comes before all of them.

use std::sync::Arc;
use std::time::Instant;

use crds::condition::{Reason, types};
use crds::{LogPipeline, Tenant};
use futures::{Stream, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store as Reader, store};
use kube::runtime::{Predicate, predicates};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Resource, ResourceExt};
use runtime::traces;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub mod reconcile;
pub mod look;
pub mod validate;
pub mod plan;
pub mod apply;
pub mod projection;
pub mod status;
pub mod requeue;
pub mod keys;
pub mod lane;
pub mod deletion;
pub mod problem;
mod census;
#[cfg(test)]
pub(crate) mod testing;

use crate::context::Context;
use crate::metrics::{Controller as Which, Ending};
use reconcile::Error;

/// Tenants that are worked on at once.
const CONCURRENCY: u16 = 10;

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
    let result = reconcile::reconcile(ctx, &looking.pipelines, tenant).instrument(span.clone()).await;
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
