//! One look at a Tenant: from its object to its status.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use crds::condition::Finding;
use crds::{LogPipeline, TENANT_FINALIZER, Tenant, TenantName, TenantStatus};
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store as Reader;
use kube::{Api, ResourceExt};
use runtime::audit::{self, Act};

use super::apply::{Applied, apply};
use super::deletion::{self, Deletion};
use super::lane::{self, Presence};
use super::look;
use super::plan::plan;
use super::problem::Problem;
use super::requeue::{self, CLUSTER_PATIENCE, Next};
use super::status;
use super::validate::{ValidTenant, salvage, validate};
use crate::backoff::jittered;
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::kubernetes::{
    ACTOR, FIELD_MANAGER, Note, add_finalizer, apply_status, explain, is_paused, now, publish, remove_finalizer,
    transitions,
};
use crate::metrics::Ending;
use crate::provision;

/// Time between two looks at a Tenant that drains.
const DRAIN_INTERVAL: Duration = Duration::from_secs(2);
/// Time until the next look at a Tenant that another operator works on.
const BUSY_INTERVAL: Duration = Duration::from_secs(2);

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

/// Brings a Tenant to what its spec asks for:
///
/// 1. begin: its finalizer, and a first status
/// 2. look: at its pipeline
/// 3. validate: turn the spec into checked values
/// 4. provision, under the tenant's lock: look → plan → apply → status
/// 5. leave the lane of a pipeline that is not there, if that is asked for
pub(super) async fn reconcile(
    ctx: &Context,
    pipelines: &Reader<DeserializeGuard<LogPipeline>>,
    tenant: &Tenant,
) -> Result<(Action, Ending), Error> {
    let api = Api::<Tenant>::all(ctx.client.clone());
    if tenant.metadata.deletion_timestamp.is_some() {
        return alone(ctx, tenant, |away| retire(ctx, &api, tenant, away)).await;
    }
    if is_paused(tenant) {
        report(ctx, &api, tenant, status::findings_of_pause(), None, Vec::new()).await?;
        return Ok((Action::await_change(), Ending::success));
    }
    let tenant = &*begin(ctx, &api, tenant).await?;
    let pipeline = look::pipeline(ctx, pipelines, tenant).await.map_err(failed("look for the pipeline", tenant))?;
    let valid = match valid(ctx, tenant, pipeline).await {
        Ok(valid) => valid,
        Err(problem) => {
            report(ctx, &api, tenant, status::findings_of_problem(&problem), None, Vec::new()).await?;
            return Ok((Action::requeue(ctx.resync()), Ending::success));
        }
    };
    let provisioned = alone(ctx, tenant, |away| provision(ctx, &api, tenant, &valid, away)).await;
    leave_lane(ctx, &valid, pipeline).await;
    provisioned
}

/// Puts a Tenant in place:
///
/// 1. place: the registry of record assigns it one (client required)
/// 2. look: at its keys there, and in their Secrets (client required)
/// 3. plan: what becomes of each store and each key (no client required)
/// 4. apply: all stores at once, and ingest last (client required)
/// 5. status: what is said of it, and when it is looked at again
async fn provision(
    ctx: &Context,
    api: &Api<Tenant>,
    tenant: &Tenant,
    valid: &ValidTenant,
    away: Option<provision::Error>,
) -> Result<(Action, Ending), Error> {
    let place = look::place(ctx, valid, away).await;
    let found = look::look(ctx, tenant, valid, place).await;
    let plan = plan(tenant, valid, found, SystemTime::now());
    let applied = apply(ctx, tenant, valid, plan).await;
    say(ctx, api, tenant, valid, &applied).await
}

/// Gives a Tenant its finalizer and a first status, if it has none. What people ask for by an annotation is looked at anew.
async fn begin<'a>(ctx: &Context, api: &Api<Tenant>, tenant: &'a Tenant) -> Result<Cow<'a, Tenant>, Error> {
    let mut tenant = Cow::Borrowed(tenant);
    if !tenant.finalizers().iter().any(|one| one == TENANT_FINALIZER) {
        let added = add_finalizer(api, &*tenant, TENANT_FINALIZER).await;
        tenant = Cow::Owned(added.map_err(failed("add the finalizer", &tenant))?);
        reach(Point::Finalized);
    }
    if tenant.status.as_ref().is_none_or(|status| status.conditions.is_empty()) {
        let status = report(ctx, api, &tenant, status::first_findings(), None, Vec::new()).await?;
        tenant.to_mut().status = Some(status);
    }
    if status::is_asked_for(&tenant) {
        ctx.stores.search.look_anew().await;
    }
    Ok(tenant)
}

/// The Tenant as checked values. Of one whose spec can't be had, what ingest was told last goes on to hold.
async fn valid(ctx: &Context, tenant: &Tenant, pipeline: Presence) -> Result<ValidTenant, Problem> {
    let (settings, plans, exists) = (&ctx.settings, ctx.plans.borrow().clone(), pipeline.serves(tenant));
    let problem = match validate(tenant, settings, &plans, exists) {
        Ok(valid) => return Ok(valid),
        Err(problem) => problem,
    };
    let last = look::last_entry(ctx, tenant).await;
    last.and_then(|last| salvage(tenant, settings, &plans, exists, &last, problem.clone())).ok_or(problem)
}

/// What was sent before it was asked to go through `default` goes there, too.
async fn leave_lane(ctx: &Context, valid: &ValidTenant, pipeline: Presence) {
    let missing = valid.missing_pipeline.as_ref().filter(|_| pipeline == Presence::Absent && !valid.is_held());
    if let Some(missing) = missing
        && let Err(error) = lane::leave(ctx, missing).await
    {
        tracing::warn!(pipeline.name = %missing, "leave the lanes of pipeline {missing} to `default`: {error}");
    }
}

/// Writes the status of a Tenant that was applied, publishes what is news, and says when it is looked at again.
async fn say(
    ctx: &Context,
    api: &Api<Tenant>,
    tenant: &Tenant,
    valid: &ValidTenant,
    applied: &Applied,
) -> Result<(Action, Ending), Error> {
    let findings = status::findings(valid, applied);
    let drift = status::drift(tenant, applied);
    let notes = status::notes(&drift, applied);
    for (store, _) in &drift {
        ctx.metrics.drift_corrected(*store);
    }
    ctx.metrics.keys_forged(applied.forged.len());
    let was_ready = tenant.status.as_ref().is_some_and(requeue::is_ready);
    let reported = report(ctx, api, tenant, findings, Some((valid, applied)), notes).await?;
    let name = tenant.name_any();
    if requeue::is_ready(&reported) && !was_ready {
        tracing::info!(tenant.name = %name, "tenant {name} is ready");
        if let Some(age) = age(tenant.metadata.creation_timestamp.as_ref()) {
            ctx.metrics.became_ready(age);
        }
    }
    let (wait, ending) = match requeue::next(valid, applied, &reported) {
        next @ (Next::Settled | Next::Watched) => {
            ctx.tenant_backoff.succeeded(&name);
            (ctx.resync(), if next == Next::Settled { Ending::success } else { Ending::requeue })
        }
        Next::Retried { within } => {
            let wait = ctx.tenant_backoff.failed(&name);
            (within.map_or(wait, |within| wait.min(within)), Ending::requeue)
        }
    };
    // A key that is to be replaced, or one that ends, is not left until the next resync.
    let due = applied.keys.as_ref().and_then(|keys| keys.next_due);
    Ok((Action::requeue(due.map_or(wait, |due| due.min(wait))), ending))
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

/// The deletion branch.
async fn retire(
    ctx: &Context,
    api: &Api<Tenant>,
    tenant: &Tenant,
    away: Option<provision::Error>,
) -> Result<(Action, Ending), Error> {
    if !tenant.finalizers().iter().any(|one| one == TENANT_FINALIZER) {
        return Ok((Action::await_change(), Ending::success));
    }
    let name = tenant.name_any();
    let deletion::Progress { deletion, gone } = deletion::delete(ctx, tenant, away).await;
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
    applied: Option<(&ValidTenant, &Applied)>,
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
