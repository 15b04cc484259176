//! A cluster is destroyed, and LoggerHub installed again from Git in a new one beside the stores that live on: no key
//! is refused meanwhile, and no event is lost.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use crds::apikey::ApiKey;
use crds::registry::RegistryTenant;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use testkit::{OperatorProcess, eventually, holds};

use crate::site::{DATA_LOGIN, Home, MAINTAIN_LOGIN, PEPPERS, SEARCH_LOGIN, SOON, Sender, Site};

/// For how long the chart is there without its Tenants: the operator looks for them after 15 s, and each 10 s after.
const WITHOUT_TENANTS: Duration = Duration::from_secs(35);
/// For how long Tenants are there without the chart.
const WITHOUT_CHART: Duration = Duration::from_secs(5);
/// For how long all is there but the Secrets of the backup.
const WITHOUT_SECRETS: Duration = Duration::from_secs(20);
/// For how long senders go on once all is in place again.
const AFTER: Duration = Duration::from_secs(3);
/// Least time that a key works on whose Secret is lost: 30 days, less what a story takes.
const WORKS_ON: Duration = Duration::from_secs(30 * 24 * 3600 - 600);

/// In which order the new cluster is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The backup's Secrets, the chart, the Tenants.
    ChartFirst,
    /// The Tenants, the backup's Secrets, the chart.
    TenantsFirst,
    /// The Tenants, the chart, the backup's Secrets.
    SecretsLast,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_with_the_chart_before_the_tenants_refuses_no_key_and_loses_no_event() -> anyhow::Result<()> {
    // The roles' passwords are lost, too: the operator makes others.
    rebuilt(Order::ChartFirst, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_with_the_tenants_before_the_chart_refuses_no_key_and_loses_no_event() -> anyhow::Result<()> {
    rebuilt(Order::TenantsFirst, &[DATA_LOGIN, MAINTAIN_LOGIN, SEARCH_LOGIN]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_whose_secrets_are_restored_last_refuses_no_key_and_loses_no_event() -> anyhow::Result<()> {
    rebuilt(Order::SecretsLast, &[DATA_LOGIN, MAINTAIN_LOGIN, SEARCH_LOGIN]).await
}

/// The story. Of one tenant the key's Secret is lost with the cluster, of the other it is restored.
async fn rebuilt(order: Order, kept: &[&str]) -> anyhow::Result<()> {
    let site = Site::open("rebuilt").await?;
    let names = [site.tenant("lost"), site.tenant("kept")];
    let [lost, kept_tenant] = &names;
    let old = site.cluster().await?;
    let operator = site.install(&old, &[]).await?;
    site.apply_git(&old, &names).await?;
    let (ingest, door) = site.ingest(&old).await?;
    let storing = site.storing(&old).await?;
    let mut senders = Vec::new();
    let mut before = Vec::new();
    for name in &names {
        old.cluster.tenant_ready(name, SOON).await?;
        let key = old.key(name).await?;
        senders.push(Sender::start(&door, &key));
        before.push(key);
    }
    let mut backup = Vec::new();
    for secret in [PEPPERS, kept_tenant].iter().chain(kept) {
        backup.push(old.backup(secret).await?);
    }
    stored(&site, lost).await?;

    // The end of the cluster, with whatever runs on its nodes but the ingest.
    let gone = old.take_over();
    operator.kill().await?;
    for child in storing {
        child.end().await?;
    }
    drop(old);

    let new = site.cluster().await?;
    let operator = match order {
        Order::ChartFirst => chart_first(&site, &new, &gone, &names, &backup).await?,
        Order::TenantsFirst => tenants_first(&site, &new, &gone, &names, &backup).await?,
        Order::SecretsLast => secrets_last(&site, &new, &gone, &names, &backup).await?,
    };
    for name in &names {
        new.cluster.tenant_ready(name, SOON).await?;
    }
    let storing = site.storing(&new).await?;
    let after = new.key(lost).await?;
    ensure!(after != before[0], "its Secret was lost, so it has a new key");
    works_on(&site.registered(lost).await?.context("it is registered")?, &before[0], &after)?;
    ensure!(new.key(kept_tenant).await? == before[1], "its Secret was restored");
    let registered = site.registered(kept_tenant).await?.context("it is registered")?.keys;
    ensure!(registered.len() == 1 && registered[0].expires_at.is_none(), "{registered:?}");

    let also = Sender::start(&door, &after);
    tokio::time::sleep(AFTER).await;
    let mut sent = Vec::new();
    for sender in senders {
        sent.push(sender.stop().await?);
    }
    sent[0].join(also.stop().await?);
    for (name, sent) in names.iter().zip(&sent) {
        site.everything_once(&new, name, sent).await?;
    }
    new.delete_tenants(&names).await?;
    for child in storing.into_iter().chain([ingest]) {
        child.end().await?;
    }
    operator.stop().await
}

/// The chart, and for a while nothing else. It finds that all Tenants are missing, says so, and takes nothing away.
async fn chart_first(
    site: &Site,
    new: &Home,
    gone: &str,
    names: &[String; 2],
    backup: &[Secret],
) -> anyhow::Result<OperatorProcess> {
    new.restore(backup).await?;
    let operator = site.install(new, &[gone]).await?;
    operator.leads().await?;
    nothing_is_taken_away(site, names, WITHOUT_TENANTS).await?;
    let metrics = operator.get("/metrics").await?;
    for line in ["loggerhub_tenants_missing 2", "loggerhub_tenants_missing_unconfirmed 2"] {
        ensure!(metrics.lines().any(|one| one == line), "no {line}: {metrics}");
    }
    eventually("an Event says that all Tenants are missing", SOON, || async {
        let events = new.cluster.ours::<Event>().list(&Default::default()).await?;
        let of_it = |event: &&Event| event.reason.as_deref() == Some("TenantsMissing");
        let note = events.iter().find(of_it).and_then(|event| event.note.clone()).context("no such Event")?;
        ensure!(names.iter().all(|name| note.contains(name)), "{note}");
        Ok(())
    })
    .await?;
    site.apply_git(new, names).await?;
    Ok(operator)
}

/// CRDs, Tenants and Secrets, and nobody who looks at them; then the chart.
async fn tenants_first(
    site: &Site,
    new: &Home,
    gone: &str,
    names: &[String; 2],
    backup: &[Secret],
) -> anyhow::Result<OperatorProcess> {
    site.install_crds(new).await?;
    site.apply_git(new, names).await?;
    new.restore(backup).await?;
    tokio::time::sleep(WITHOUT_CHART).await;
    site.install(new, &[gone]).await
}

/// All but the Secrets, and for a while an operator that lacks the peppers.
async fn secrets_last(
    site: &Site,
    new: &Home,
    gone: &str,
    names: &[String; 2],
    backup: &[Secret],
) -> anyhow::Result<OperatorProcess> {
    site.install_crds(new).await?;
    site.apply_git(new, names).await?;
    let operator = site.install(new, &[gone]).await?;
    operator.leads().await?;
    nothing_is_taken_away(site, names, WITHOUT_SECRETS).await?;
    ensure!(operator.logged()?.contains("restore it from your backup"), "it does not say what it lacks");
    new.restore(backup).await?;
    Ok(operator)
}

/// What ingest knows of the tenants stays as it is.
async fn nothing_is_taken_away(site: &Site, names: &[String; 2], during: Duration) -> anyhow::Result<()> {
    let before = [site.registered(&names[0]).await?, site.registered(&names[1]).await?];
    holds("nothing of the tenants is taken away", during, || async {
        let now = [site.registered(&names[0]).await?, site.registered(&names[1]).await?];
        ensure!(now == before, "{now:?}, not {before:?}");
        ensure!(!site.is_left_to_default().await?, "a lane is left to default");
        Ok(())
    })
    .await
}

/// Waits until something of the tenant is stored: the old cluster's roles work.
async fn stored(site: &Site, name: &str) -> anyhow::Result<()> {
    let pool = site.stores.postgres(crds::names::PROCESSOR_DATABASE)?;
    let schema = name.parse::<crds::TenantName>()?.database_schema();
    eventually("something is stored", SOON, || async {
        let count = format!("SELECT count(*) FROM \"{schema}\".logs");
        let events: i64 = sqlx::query_scalar(&count).fetch_one(&pool).await?;
        ensure!(events > 0, "nothing yet");
        Ok(())
    })
    .await
}

/// The key of before works on for 30 days beside the new one.
fn works_on(registered: &RegistryTenant, before: &str, after: &str) -> anyhow::Result<()> {
    let keys = &registered.keys;
    let key = |text: &str| {
        let id = ApiKey::parse(text).map(|key| key.id().to_owned()).ok()?;
        keys.iter().find(|key| key.id == id)
    };
    let (before, after) = (key(before).context("the key of before")?, key(after).context("the new key")?);
    ensure!(keys.len() == 2 && after.expires_at.is_none(), "{keys:?}");
    ensure!(before.expires_at.is_some(), "the key of before has no end");
    ensure!(!before.is_expired(SystemTime::now() + WORKS_ON), "it ends too soon: {before:?}");
    Ok(())
}
