//! A Tenant's end, in steps that each may be taken again: ingest refuses, the queue drains, keys
//! are revoked, then the data is kept or removed, and at last the finalizer goes. Before data is
//! removed, somebody has to confirm it; until then nothing is done at all.

use std::time::Duration;

use crds::condition::{Reason, types};
use crds::registry::TenantState;
use crds::tenant::{DeletionPolicy, OnMissing};
use crds::{CONFIRM_DELETE_ANNOTATION, FORCE_FINALIZE_ANNOTATION, PipelineName, Tenant, TenantName};
use kube::ResourceExt;
use runtime::audit::{self, Act, Action};

pub mod drain;
pub mod departed;

use super::lane;
use super::problem::Problem;
use crate::context::Context;
use crate::fail_points::{Point, reach};
use crate::kubernetes::{ACTOR, Note, publish};
use crate::provision::{self, Owner, Part, Retired, RowState, Stores, delete_tenant};
use drain::Pipelines;

/// How long ingest is given to hear that it is to refuse: it follows the registry within a second,
/// and finishes what it holds.
const GRACE: Duration = Duration::from_secs(5);
/// How long a queue may take to drain before somebody is told.
const DRAIN_PATIENCE: Duration = Duration::from_secs(600);
/// How long a Tenant that is let go by force waits for the stores to take its keys away.
const FORCE_PATIENCE: Duration = Duration::from_secs(5);

/// What became of the data of a tenant that was let go or retained.
const STAYS: &str = "its data stays";
/// Nothing was ever put in place for it.
const NONE: &str = "it had no data";

/// How far a deletion came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// Nothing is left to do: the finalizer may go. Says what became of the tenant's data.
    Done(&'static str),
    /// Going on by itself; look again soon.
    Waiting(Reason, String),
    /// Held up; the problem says by what.
    Blocked(Problem),
}

/// What a deletion has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How far it came.
    pub deletion: Deletion,
    /// Types of the conditions whose things are gone by now.
    pub gone: Vec<&'static str>,
}

/// Whether a deletion may begin, or what somebody has to say first.
pub fn confirmed(tenant: &Tenant) -> Result<(), Problem> {
    let name = tenant.name_any();
    let confirmed = tenant.annotations().get(CONFIRM_DELETE_ANNOTATION).is_some_and(|value| *value == name);
    if tenant.spec.deletion_policy == DeletionPolicy::Retain || confirmed {
        return Ok(());
    }
    let message = format!(
        "deletionPolicy is Delete, so all data of tenant `{name}` is to be removed from every store. That has to be \
         confirmed; until then it stays, and its keys work. Remove it: kubectl annotate tenant {name} \
         {CONFIRM_DELETE_ANNOTATION}={name}. Keep it: kubectl patch tenant {name} --type=merge \
         -p '{{\"spec\":{{\"deletionPolicy\":\"Retain\"}}}}'"
    );
    Err(Problem { reason: Reason::DeletionBlocked, message })
}

/// Whether an administrator lets the Tenant go at once.
pub fn is_forced(tenant: &Tenant) -> bool {
    tenant.annotations().get(FORCE_FINALIZE_ANNOTATION).is_some_and(|value| value == "true")
}

/// What is known once ingest has refused for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// How long ingest has been told to refuse.
    pub refused_for: Duration,
    /// Whether the queue holds no entry of the tenant.
    pub drained: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Wait: ingest may not have heard yet, or entries are left.
    Drain {
        /// Whether it takes so long that somebody is to be told.
        overdue: bool,
    },
    /// Revoke, and keep the data.
    Retain,
    /// Revoke, and remove the data.
    Delete,
}

/// Decides what comes next.
pub fn next(policy: DeletionPolicy, observed: Observed) -> Step {
    if observed.refused_for < GRACE || !observed.drained {
        return Step::Drain { overdue: observed.refused_for >= DRAIN_PATIENCE };
    }
    match policy {
        DeletionPolicy::Retain => Step::Retain,
        DeletionPolicy::Delete => Step::Delete,
    }
}

/// Takes the deletion as far as it goes now. `away` says why PostgreSQL could not even give us the
/// tenant's lock: without it ingest is told to refuse, and nothing else is done.
pub async fn delete(ctx: &Context, tenant: &Tenant, away: Option<provision::Error>) -> Progress {
    let mut gone = Vec::new();
    if is_forced(tenant) {
        abandon(ctx, tenant).await;
        return Progress { deletion: Deletion::Done(STAYS), gone };
    }
    let deletion = match confirmed(tenant) {
        Ok(()) => {
            advance(ctx, tenant, away, &mut gone).await.unwrap_or_else(|error| blocked(runtime::logging::chain(&error)))
        }
        Err(problem) => Deletion::Blocked(problem),
    };
    Progress { deletion, gone }
}

/// Takes the keys away as far as the stores answer, and says what is left to others: data stays, what is queued is
/// processed, and the sweep revokes what was missed, a day later.
async fn abandon(ctx: &Context, tenant: &Tenant) {
    let revoked = async {
        let name = tenant.name_any().parse::<TenantName>().ok()?;
        if tenant.status.as_ref().is_some_and(|status| status.backends.is_some()) {
            departed::depart(&ctx.stores.registry, &name).await.ok()?;
        }
        let owner = owner(ctx, tenant, name);
        ctx.stores.postgres.revoke_keys(&owner.installation, &owner.tenant).await.ok()?;
        Some(retain_data(&ctx.stores, &owner).await.is_ok())
    };
    let keys = match tokio::time::timeout(FORCE_PATIENCE, revoked).await {
        Ok(Some(true)) => "its keys are revoked",
        Ok(Some(false)) => "its keys are revoked, and what is old in its archive expires a while after its retention",
        _ => "its keys are revoked a day after the stores answer again",
    };
    let message = format!(
        "let go by {FORCE_FINALIZE_ANNOTATION}: {keys}; its data stays in every store, and what is queued is processed"
    );
    tracing::warn!(tenant.name = tenant.name_any(), "{message}");
    let name = tenant.name_any();
    let action = Action::TenantForceFinalized;
    audit::tell(&Act { actor: ACTOR, action, tenant: &name, object: &name, outcome: keys });
    publish(&ctx.recorder, tenant, vec![Note { warning: true, reason: "ForceFinalized", message }]).await;
}

/// Takes a deletion as far as it goes:
///
/// 1. refuse: ingest takes nothing of it any more
/// 2. look: at what waits in the queue
/// 3. drain, as long as something does
/// 4. retain or remove what the stores have of it
async fn advance(
    ctx: &Context,
    tenant: &Tenant,
    away: Option<provision::Error>,
    gone: &mut Vec<&'static str>,
) -> Result<Deletion, drain::Error> {
    let Ok(name) = tenant.name_any().parse::<TenantName>() else {
        // Such a name was never provisioned.
        return Ok(Deletion::Done(NONE));
    };
    let owner = owner(ctx, tenant, name);
    let Some(used) = refuse_for_good(ctx, tenant, &owner, away).await? else { return Ok(Deletion::Done(NONE)) };
    let refused_for = ctx.refused_since.elapsed(owner.tenant.as_str());
    let pipelines = Pipelines::look(ctx).await?;
    let waiting = pipelines.waited_for(&ctx.stores.registry, &owner.tenant, &used).await?;
    if let Some(pipeline) = &waiting {
        if !pipelines.is_read(pipeline) {
            return Ok(without_pipeline(ctx, tenant, pipeline).await);
        }
        if lane::is_suspended(ctx, pipeline).await {
            return Ok(blocked(format!(
                "events wait for LogPipeline `{pipeline}`, whose spec.suspend is set: set it to false until they are \
                 processed"
            )));
        }
    }
    match next(tenant.spec.deletion_policy, Observed { refused_for, drained: waiting.is_none() }) {
        Step::Drain { overdue } => Ok(draining(refused_for, overdue)),
        Step::Retain => Ok(retain(ctx, &owner).await?),
        Step::Delete => Ok(remove(ctx, &owner, gone).await?),
    }
}

/// Has ingest refuse, and notes that the tenant goes. Returns the pipelines that it may have used; none if nothing was
/// put in place for it. `away` says why PostgreSQL can't be asked.
async fn refuse_for_good(
    ctx: &Context,
    tenant: &Tenant,
    owner: &Owner,
    away: Option<provision::Error>,
) -> Result<Option<Vec<String>>, provision::Error> {
    let (postgres, name) = (&ctx.stores.postgres, &owner.tenant);
    let mut used = vec![tenant.spec.pipeline_ref.name.clone()];
    if tenant.status.as_ref().is_some_and(|status| status.backends.is_some()) {
        // It is ours for sure: ingest refuses at once, also while PostgreSQL is down.
        used.extend(refuse(ctx, name).await?);
    }
    away.map_or(Ok(()), Err)?;
    if !postgres.foreign_tenants(&owner.installation, &[name.to_string()]).await?.is_empty() {
        // The registry's entry is another installation's, and we have put nothing in place.
        return Ok(None);
    }
    used.extend(refuse(ctx, name).await?);
    reach(Point::Refused);
    postgres.set_state(owner, RowState::Deleting).await?;
    reach(Point::Deleting);
    Ok(Some(used))
}

/// What is said while entries wait.
fn draining(refused_for: Duration, overdue: bool) -> Deletion {
    if overdue {
        let minutes = refused_for.as_secs() / 60;
        return blocked(format!(
            "the queue has held the tenant's entries for {minutes} minutes: do its pipeline's processors run?"
        ));
    }
    let message = "ingest refuses the tenant's events; what is queued is being drained".to_owned();
    Deletion::Waiting(Reason::Draining, message)
}

fn blocked(message: String) -> Deletion {
    Deletion::Blocked(Problem { reason: Reason::DeletionBlocked, message })
}

/// Takes the keys away, and leaves the data.
async fn retain(ctx: &Context, owner: &Owner) -> Result<Deletion, provision::Error> {
    revoke(ctx, owner).await?;
    ctx.stores.postgres.settle_usage(&owner.tenant).await?;
    retain_data(&ctx.stores, owner).await?;
    Ok(Deletion::Done(STAYS))
}

/// Takes the keys away, and removes the data. Tells `gone` what is.
async fn remove(ctx: &Context, owner: &Owner, gone: &mut Vec<&'static str>) -> Result<Deletion, provision::Error> {
    revoke(ctx, owner).await?;
    gone.push(types::CREDENTIALS_READY);
    let known = ctx.stores.postgres.archive_of(owner).await?;
    let archive = known.unwrap_or_else(|| {
        let settings = &ctx.settings.archive;
        owner.tenant.archive(settings.layout, &settings.bucket_prefix)
    });
    let part = |part| match part {
        Part::Search => types::SEARCH_READY,
        Part::Archive => types::OBJECT_STORE_READY,
    };
    Ok(match delete_tenant(&ctx.stores, owner, &archive, |done| gone.push(part(done))).await? {
        Retired::Done => Deletion::Done("its data is removed"),
        Retired::More => {
            let at = if gone.contains(&types::SEARCH_READY) { "the object store" } else { "OpenSearch" };
            let message = format!("the tenant's data is being removed from {at}; much is left");
            Deletion::Waiting(Reason::Retiring, message)
        }
    })
}

fn owner(ctx: &Context, tenant: &Tenant, name: TenantName) -> Owner {
    Owner { installation: ctx.settings.installation.clone(), tenant: name, uid: tenant.uid().unwrap_or_default() }
}

/// Tells ingest to refuse. Gives back the pipeline whose lanes took the tenant's entries.
async fn refuse(ctx: &Context, name: &TenantName) -> Result<Option<String>, provision::Error> {
    let Some(mut entry) = ctx.stores.registry.get(name).await? else {
        // If there is one that somebody else wrote, nobody is to go by it.
        ctx.stores.registry.remove(name).await?;
        return Ok(None);
    };
    entry.state = TenantState::Deleting;
    ctx.stores.registry.upsert(&entry).await?;
    Ok(Some(entry.pipeline.to_string()))
}

/// Notes that a Tenant is gone and its data stays: also in its archive, for as long as nobody removes it.
pub async fn retain_data(stores: &Stores, owner: &Owner) -> Result<(), provision::Error> {
    // First, so that it is tried again where it fails: nobody comes back to what is retained.
    keep_archive(stores, owner).await?;
    stores.postgres.set_state(owner, RowState::Retained).await?;
    // Again: until that is noted, a neighbour in a shared bucket puts its rule back.
    keep_archive(stores, owner).await
}

async fn keep_archive(stores: &Stores, owner: &Owner) -> Result<(), provision::Error> {
    match stores.postgres.archive_of(owner).await? {
        Some(archive) => stores.object_store.keep(owner, &archive).await,
        None => Ok(()),
    }
}

/// Revokes in both authorities: the registry of record, and the one that ingest reads.
async fn revoke(ctx: &Context, owner: &Owner) -> Result<(), provision::Error> {
    ctx.stores.postgres.revoke_keys(&owner.installation, &owner.tenant).await?;
    reach(Point::KeysRevoked);
    ctx.stores.registry.remove(&owner.tenant).await?;
    reach(Point::Forgotten);
    Ok(())
}

/// Entries wait for a pipeline that does not exist: they go through `default` if the Tenant says so, and
/// else somebody has to say what becomes of them.
async fn without_pipeline(ctx: &Context, tenant: &Tenant, pipeline: &PipelineName) -> Deletion {
    let named = &tenant.spec.pipeline_ref;
    if named.name == pipeline.as_str() && named.on_missing == OnMissing::Default {
        return match lane::leave(ctx, pipeline).await {
            Ok(()) => Deletion::Waiting(Reason::Draining, format!("`default` drains what waits for `{pipeline}`")),
            Err(message) => blocked(message),
        };
    }
    let name = tenant.name_any();
    let message = format!(
        "events wait for LogPipeline `{pipeline}`, which does not exist: apply it until they are processed. Or have \
         them go through `default`, without its stages: kubectl patch tenant {name} --type=merge -p \
         '{{\"spec\":{{\"pipelineRef\":{{\"name\":\"{pipeline}\",\"onMissing\":\"Default\"}}}}}}'"
    );
    blocked(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::testing::acme;

    #[test]
    fn data_is_removed_only_once_that_is_confirmed_by_name() {
        for (policy, annotation, allowed) in [
            (DeletionPolicy::Retain, None, true),
            (DeletionPolicy::Delete, None, false),
            (DeletionPolicy::Delete, Some("true"), false),
            (DeletionPolicy::Delete, Some("globex"), false),
            (DeletionPolicy::Delete, Some("acme"), true),
        ] {
            let mut tenant = acme();
            tenant.spec.deletion_policy = policy;
            let value = annotation.map(|value| (CONFIRM_DELETE_ANNOTATION.to_owned(), value.to_owned()));
            tenant.annotations_mut().extend(value);
            match confirmed(&tenant) {
                Ok(()) => assert!(allowed, "{policy:?} {annotation:?}"),
                Err(Problem { reason, message }) => {
                    assert!(!allowed, "{policy:?} {annotation:?}");
                    assert_eq!(reason, Reason::DeletionBlocked);
                    assert!(
                        message.contains("kubectl annotate tenant acme loggerhub.io/confirm-delete=acme"),
                        "{message}"
                    );
                    assert!(message.contains(r#"-p '{"spec":{"deletionPolicy":"Retain"}}'"#), "{message}");
                    assert!(message.len() <= crds::condition::MAX_MESSAGE_LENGTH);
                }
            }
        }
    }

    #[test]
    fn only_true_lets_a_tenant_go_by_force() {
        let mut tenant = acme();
        assert!(!is_forced(&tenant));
        for (value, forced) in [("false", false), ("", false), ("true", true)] {
            tenant.annotations_mut().insert(FORCE_FINALIZE_ANNOTATION.to_owned(), value.to_owned());
            assert_eq!(is_forced(&tenant), forced, "{value}");
        }
    }

    #[test]
    fn a_tenant_is_drained_before_it_is_retired() {
        let observed = |seconds, drained| Observed { refused_for: Duration::from_secs(seconds), drained };
        for (policy, seen, step) in [
            (DeletionPolicy::Delete, observed(0, true), Step::Drain { overdue: false }),
            (DeletionPolicy::Delete, observed(60, false), Step::Drain { overdue: false }),
            (DeletionPolicy::Retain, observed(600, false), Step::Drain { overdue: true }),
            (DeletionPolicy::Retain, observed(5, true), Step::Retain),
            (DeletionPolicy::Delete, observed(5, true), Step::Delete),
            (DeletionPolicy::Delete, observed(6000, true), Step::Delete),
        ] {
            assert_eq!(next(policy, seen), step, "{policy:?} {seen:?}");
        }
    }
}
