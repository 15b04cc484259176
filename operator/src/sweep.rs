//! Tenants that the registries hold and the cluster does not: a deletion that was lost, a finalizer that was
//! removed by force; or a cluster that is not filled yet, a CRD that was taken away, a list that was cut short.
//!
//! Which of these it is can't be told, so nothing is concluded in haste. What is missing is noted and said. Its keys
//! are revoked when it has been missing for a day, and never while most are missing, or many at once: then somebody
//! has to name those that are gone. A Tenant that is applied again before that goes on with its keys. Data stays.
//!
//! What a tenant that is gone has in the queue is processed before the registry forgets it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::registry::RegistryTenant;
use crds::{PipelineName, Tenant, TenantName};
use kube::api::ListParams;
use kube::runtime::events::{Event, EventType};
use kube::{Api, ResourceExt};
use runtime::audit::{self, Act, Action};
use tokio_util::sync::CancellationToken;

use crate::backoff::jittered;
use crate::context::Context;
use crate::kubernetes::{ACTOR, explain, operator_itself};
use crate::provision::{self, Missing, Owner};
use crate::tenant::deletion::departed::{self, Next};
use crate::tenant::deletion::{drain, retain_data};
use crate::tenant::lane;

/// Tenants of one page of the list.
const PAGE: u32 = 500;
/// First look after the start: when the controllers have had their time.
const FIRST: Duration = Duration::from_secs(15);
/// Longest time between two looks at the lanes of tenants that are gone.
const DRAINING: Duration = Duration::from_secs(60);
/// Most Tenants that go by themselves at once. More than that lost their Tenants by one and the same cause.
const AT_ONCE: usize = 10;
/// One of so many that may be missing without anybody's word.
const SHARE: usize = 4;
/// Names that a message tells.
const TOLD: usize = 20;

/// Why a sweep ended early. The next one tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("list the Tenants")]
    List(#[source] Box<kube::Error>),
    #[error("sweep the registries")]
    Store(#[from] provision::Error),
    #[error("look at the lanes of a tenant that is gone")]
    Lanes(#[from] drain::Error),
}

/// Sweeps at every resync until `shutdown`.
pub async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let mut wait = FIRST;
    if let Err(error) = ctx.stores.registry.begin().await {
        tracing::warn!("{}", runtime::logging::chain(&error));
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
        wait = ctx.resync();
        match sweep(&ctx).await {
            Ok(0) => {}
            Ok(_) => wait = wait.min(jittered(DRAINING)),
            Err(error) => tracing::warn!("{}", runtime::logging::chain(&error)),
        }
    }
}

/// Answers how many tenants that are gone have still to be drained.
async fn sweep(ctx: &Context) -> Result<usize, Error> {
    let (stores, settings) = (&ctx.stores, &ctx.settings);
    let installation = &settings.installation;
    stores.postgres.still_ours().await?;
    stores.registry.begin().await?;
    // The registries first: a Tenant that appears meanwhile is in the list, and is spared.
    let projected = stores.registry.tenants().await?;
    let rows = stores.postgres.live_tenants(installation).await?;
    lane::forget_unneeded(ctx).await?;
    let foreign = stores.postgres.tenants_of_others(installation, &projected).await?;
    let live = live_tenants(ctx).await.map_err(|error| Error::List(Box::new(error)))?;
    let known = known(&projected, &foreign, &rows);
    let absent: Vec<String> = known.difference(&live).cloned().collect();
    let departed = departed_ones(ctx, &absent, &rows).await?;
    let (gone, missing): (Vec<Missing>, Vec<Missing>) = stores
        .postgres
        .note_missing(installation, &absent)
        .await?
        .into_iter()
        .partition(|one| departed.contains_key(&one.tenant));
    let grace = Duration::from_secs(settings.missing_grace_seconds);
    let verdict = judge(known.len().saturating_sub(gone.len()), &missing, &settings.confirm_gone, grace);
    ctx.metrics.tenants_missing(missing.len(), verdict.unconfirmed.len());
    say(ctx, &missing, &verdict).await;
    let mut draining = 0;
    for name in verdict.gone.iter().filter_map(|name| name.parse::<TenantName>().ok()) {
        let row = rows.iter().find(|row| row.tenant == name);
        if unless_applied(ctx, &name, retain(ctx, &name, row)).await?.is_some() {
            draining += 1;
        }
    }
    for (one, entry) in gone.iter().filter_map(|one| Some((one, departed.get(&one.tenant)?))) {
        match unless_applied(ctx, &entry.tenant, see_off(ctx, entry, one.missing_for)).await? {
            Some(Next::Stays) => draining += 1,
            Some(Next::Goes | Next::GivesUp) | None => {}
        }
    }
    Ok(draining)
}

/// Does `work` on a tenant as the only operator, unless somebody else works on it, and sees to it, or its Tenant was
/// applied since the list.
async fn unless_applied<T>(
    ctx: &Context,
    name: &TenantName,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<Option<T>, Error> {
    let Some(held) = ctx.stores.postgres.hold_tenant(name).await? else { return Ok(None) };
    let work = async {
        let applied = Api::<Tenant>::all(ctx.client.clone()).get_metadata_opt(name.as_str()).await;
        if applied.map_err(|error| Error::List(Box::new(error)))?.is_some() {
            return Ok(None);
        }
        work.await.map(Some)
    };
    held.during(work).await?
}

/// Takes the keys of a tenant away. `row` is what PostgreSQL has of it, if anything.
async fn retain(ctx: &Context, name: &TenantName, row: Option<&Owner>) -> Result<(), Error> {
    let stores = &ctx.stores;
    if let Some(owner) = row {
        stores.postgres.revoke_keys(&owner.installation, name).await?;
    }
    departed::depart(&stores.registry, name).await?;
    // From here on it counts how long its lanes take.
    stores.postgres.forget_missing(&ctx.settings.installation, name).await?;
    let Some(owner) = row else {
        tracing::warn!(tenant.name = %name, "took the keys of {name} from ingest's registry: there is no such Tenant");
        return Ok(());
    };
    retain_data(stores, owner).await?;
    tracing::warn!(tenant.name = %name, "revoked the keys of {name}: there is no such Tenant; its data stays");
    let (action, outcome) = (Action::TenantDeleted, "there is no such Tenant; its data stays");
    audit::tell(&Act { actor: ACTOR, action, tenant: name.as_str(), object: name.as_str(), outcome });
    Ok(())
}

/// Entries of those absent tenants that departed: the registry of record knows nothing of them any more but their data.
async fn departed_ones(
    ctx: &Context,
    absent: &[String],
    rows: &[Owner],
) -> Result<BTreeMap<String, RegistryTenant>, Error> {
    let names = absent.iter().filter_map(|name| name.parse::<TenantName>().ok());
    let names: Vec<TenantName> = names.filter(|name| !rows.iter().any(|row| row.tenant == *name)).collect();
    let entries = ctx.stores.registry.entries(&names).await?.into_iter().filter(departed::has_departed);
    Ok(entries.map(|entry| (entry.tenant.to_string(), entry)).collect())
}

/// Has ingest's registry forget a tenant that departed so long ago, once its lanes are drained or nobody drains them.
async fn see_off(ctx: &Context, entry: &RegistryTenant, departed_for: Duration) -> Result<Next, Error> {
    let (stores, name) = (&ctx.stores, &entry.tenant);
    let pipeline = departed::waits_for(ctx, entry).await?;
    let next = departed::next(departed_for, pipeline.is_some());
    if next == Next::Stays {
        let lane = pipeline.as_ref().map_or("none that is known", PipelineName::as_str);
        tracing::info!(tenant.name = %name, "{name} is gone; events of it may wait for a pipeline: {lane}");
        return Ok(next);
    }
    stores.postgres.settle_usage(name).await?;
    stores.registry.remove(name).await?;
    match pipeline {
        None => tracing::info!(tenant.name = %name, "ingest's registry has forgotten {name}: its lanes are drained"),
        Some(pipeline) => {
            let message = format!(
                "tenant {name} no longer exists, and its events have waited for LogPipeline `{pipeline}` for {} days without \
                 being processed. They now go to the queue's quarantine. To store them, apply the Tenant again and run \
                 `loggerhub requeue`",
                departed_for.as_secs() / (24 * 3600)
            );
            warn(ctx, "EventsLeft", message).await;
        }
    }
    Ok(next)
}

/// Says what is new about missing Tenants, once in the log and in an Event, and each time for as long as somebody has
/// to say something.
async fn say(ctx: &Context, missing: &[Missing], verdict: &Verdict) {
    let fresh: Vec<&str> = missing.iter().filter(|one| one.is_new).map(|one| one.tenant.as_str()).collect();
    let (reason, message) = if !verdict.unconfirmed.is_empty() {
        let message = format!(
            "{} of the Tenants that the registry holds are not in this cluster: {}. So many do not go by themselves: \
             their keys go on working. Apply them again; or, if they are gone, name them in the chart's value \
             confirmGone",
            missing.len(),
            listed(&verdict.unconfirmed)
        );
        ("TenantsMissing", message)
    } else if !fresh.is_empty() {
        let hours = ctx.settings.missing_grace_seconds / 3600;
        let message = format!(
            "there is no Tenant for {}: the keys are revoked after {hours} hours, unless it is applied again; the data \
             stays",
            listed(&fresh)
        );
        ("TenantMissing", message)
    } else {
        return;
    };
    warn(ctx, reason, message).await;
}

/// Says something in the log and in an Event of the operator's Deployment.
async fn warn(ctx: &Context, reason: &str, message: String) {
    tracing::warn!("{message}");
    let note = Some(message.chars().take(1000).collect());
    let (type_, action) = (EventType::Warning, "Sweep".to_owned());
    let event = Event { type_, reason: reason.to_owned(), note, action, secondary: None };
    if let Err(error) = ctx.recorder.publish(&event, &operator_itself(&ctx.settings)).await {
        tracing::warn!("publish an Event: {}", explain(&error));
    }
}

fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let told: Vec<&str> = names.iter().take(TOLD).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(TOLD);
    if more == 0 { told.join(", ") } else { format!("{} and {more} more", told.join(", ")) }
}

/// What a sweep concludes.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// Tenants whose keys are revoked now.
    gone: Vec<String>,
    /// Tenants that are missing together with too many others.
    unconfirmed: Vec<String>,
}

/// Decides about the missing ones of so many tenants. Those that somebody has named are gone. The others are gone
/// after the grace, unless they are more than a quarter or more than ten, or nobody is left.
fn judge(known: usize, missing: &[Missing], confirmed: &[String], grace: Duration) -> Verdict {
    let (named, others): (Vec<&Missing>, Vec<&Missing>) =
        missing.iter().partition(|one| confirmed.contains(&one.tenant));
    let left = known.saturating_sub(missing.len());
    let few = left > 0 && others.len() <= (known / SHARE).clamp(1, AT_ONCE);
    let names = |of: Vec<&Missing>| of.into_iter().map(|one| one.tenant.clone()).collect::<Vec<_>>();
    let mut gone = names(named);
    if !few {
        return Verdict { gone, unconfirmed: names(others) };
    }
    gone.extend(names(others.into_iter().filter(|one| one.missing_for >= grace).collect()));
    Verdict { gone, unconfirmed: Vec::new() }
}

/// Tenants that are this installation's to judge: its rows, and entries of ingest's registry that no other owns.
fn known(projected: &[String], foreign: &[String], rows: &[Owner]) -> BTreeSet<String> {
    let ours = projected.iter().filter(|name| !foreign.contains(name)).cloned();
    ours.chain(rows.iter().map(|row| row.tenant.to_string())).collect()
}

/// All Tenants, whatever this operator's selector is.
async fn live_tenants(ctx: &Context) -> kube::Result<BTreeSet<String>> {
    let api = Api::<Tenant>::all(ctx.client.clone());
    let mut names = BTreeSet::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list_metadata(&page).await?;
        names.extend(list.iter().map(ResourceExt::name_any));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(24 * 3600);

    fn missing(names: &[&str], hours: u64) -> Vec<Missing> {
        let one = |name: &&str| Missing {
            tenant: (*name).to_owned(),
            missing_for: Duration::from_secs(hours * 3600),
            is_new: hours == 0,
        };
        names.iter().map(one).collect()
    }

    #[test]
    fn what_is_missing_goes_after_a_day_and_never_many_at_once() {
        let many: Vec<String> = (0..11).map(|number| format!("t{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let none: &[&str] = &[];
        for (known, absent, hours, confirmed, gone, unconfirmed) in [
            (8, &["a"][..], 0, none, none, none),
            (8, &["a"], 23, none, none, none),
            (8, &["a"], 24, none, &["a"][..], none),
            (8, &["a", "b"], 24, none, &["a", "b"], none),
            (8, &["a", "b", "c"], 24, none, none, &["a", "b", "c"][..]),
            (8, &["a", "b", "c"], 0, &["a", "b"], &["a", "b"], none),
            (8, &["a", "b", "c"], 24, &["a"], &["a", "b", "c"], none),
            (2, &["a"], 24, none, &["a"], none),
            // Nobody is left: a cluster that is not filled yet looks just so.
            (1, &["a"], 999, none, none, &["a"]),
            (2, &["a", "b"], 999, none, none, &["a", "b"]),
            (2, &["a", "b"], 0, &["a", "b"], &["a", "b"], none),
            (1000, &many, 999, none, none, &many),
            (1000, &many[1..], 24, none, &many[1..], none),
        ] {
            let confirmed: Vec<String> = confirmed.iter().map(|name| (*name).to_owned()).collect();
            let verdict = judge(known, &missing(absent, hours), &confirmed, GRACE);
            assert_eq!(verdict.gone, gone, "gone of {absent:?} after {hours} h");
            assert_eq!(verdict.unconfirmed, unconfirmed, "unconfirmed of {absent:?} after {hours} h");
        }
    }

    #[test]
    fn only_what_nobody_else_owns_is_judged() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let row = Owner { installation: "prod".into(), tenant: "initech".parse().unwrap(), uid: "1".into() };
        let known = known(&names(&["acme", "globex", "theirs"]), &names(&["theirs"]), &[row]);
        assert_eq!(known, BTreeSet::from(["acme".to_owned(), "globex".to_owned(), "initech".to_owned()]));
    }
}
