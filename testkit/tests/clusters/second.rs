//! Two clusters with the same values and the same Tenants beside the same stores, of which one is there by mistake. It
//! says so and touches nothing; the other goes on.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_s3::error::ProvideErrorMetadata;
use crds::names::{BucketLayout, CORE_DATABASE, PROCESSOR_DATABASE};
use crds::{LogPipeline, Tenant};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use serde_json::{Value, json};
use testkit::{OperatorProcess, Stores, eventually, holds};

use crate::site::{DATA_LOGIN, Home, MAINTAIN_LOGIN, PEPPERS, SEARCH_LOGIN, SOON, Sender, Site};

/// For how long the second one is watched: it asks again whose the stores are after 15 s.
const WATCHED: Duration = Duration::from_secs(20);
/// For how long one that knows is watched.
const AGAIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_second_cluster_with_the_same_values_says_so_and_touches_nothing() -> anyhow::Result<()> {
    let site = Site::open("second").await?;
    let names = [site.tenant("a"), site.tenant("b")];
    let first = site.cluster().await?;
    let operator = site.install(&first, &[]).await?;
    site.apply_git(&first, &names).await?;
    let (ingest, door) = site.ingest(&first).await?;
    let storing = site.storing(&first).await?;
    let mut senders = Vec::new();
    for name in &names {
        first.cluster.tenant_ready(name, SOON).await?;
        senders.push(Sender::start(&door, &first.key(name).await?));
    }
    // In the second one's Git, and not in the first's.
    let newer = site.tenant("c");
    let all = [&names[0], &names[1], &newer];
    let before = settled(&site, &all).await?;

    let second = site.cluster().await?;
    let mistaken = site.install(&second, &[]).await?;
    site.apply_git(&second, &names).await?;
    site.apply_tenant(&second, &newer, "default").await?;
    says_so(&mistaken, &first, &second).await?;
    holds("nothing is touched", WATCHED, || async { same(&before, &everything(&site, &all).await?) }).await?;
    makes_nothing(&second).await?;
    says_so(&mistaken, &first, &second).await?;

    // The first one works as before: also on what is new.
    operator.standing("leads", SOON).await?;
    first.cluster.reconcile_tenant(&names[0], SOON).await?;
    let added = site.tenant("d");
    site.apply_tenant(&first, &added, "default").await?;
    first.cluster.tenant_ready(&added, SOON).await?;
    let names = [names[0].clone(), names[1].clone(), added.clone()];
    senders.push(Sender::start(&door, &first.key(&added).await?));
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (name, sender) in names.iter().zip(senders) {
        site.everything_once(&first, name, &sender.stop().await?).await?;
    }
    // Taken away again, as the runbook says, it leaves all of it alone.
    mistaken.stop().await?;
    drop(second);
    for name in &names {
        ensure!(site.registered(name).await?.is_some(), "{name} is gone");
    }
    first.delete_tenants(&names).await?;
    for child in storing.into_iter().chain([ingest]) {
        child.end().await?;
    }
    operator.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_place_another_took_touches_nothing_any_more() -> anyhow::Result<()> {
    let site = Site::open("taken").await?;
    let names = [site.tenant("a"), site.tenant("b")];
    let old = site.cluster().await?;
    // It looks whose the stores are at each resync: for the length of the story it does not know.
    let unaware = ["operator.resyncSeconds=86400"];
    let operator = site.install(&old, &unaware).await?;
    site.apply_git(&old, &names).await?;
    let (ingest, door) = site.ingest(&old).await?;
    let storing = site.storing(&old).await?;
    let (mut senders, mut backup) = (Vec::new(), Vec::new());
    for name in &names {
        old.cluster.tenant_ready(name, SOON).await?;
        senders.push(Sender::start(&door, &old.key(name).await?));
        backup.push(old.backup(name).await?);
    }
    for secret in [PEPPERS, DATA_LOGIN, MAINTAIN_LOGIN, SEARCH_LOGIN] {
        backup.push(old.backup(secret).await?);
    }
    let new = site.cluster().await?;
    new.restore(&backup).await?;
    let successor = site.install(&new, &[&old.take_over()]).await?;
    site.apply_git(&new, &names).await?;
    for name in &names {
        new.cluster.tenant_ready(name, SOON).await?;
    }
    let all = [&names[0], &names[1]];
    let before = settled(&site, &all).await?;

    // Somebody clears the old cluster away while its operator runs: a Tenant and its data, and the other's pipeline.
    old.cluster.confirm_delete(&names[0]).await?;
    let (tenants, pipelines) = (old.cluster.tenants(), old.cluster.pipelines());
    tenants.delete(&names[0], &DeleteParams::default()).await?;
    tenants.patch(&names[1], &PatchParams::default(), &without_finalizers()).await?;
    tenants.delete(&names[1], &DeleteParams::default()).await?;
    pipelines.delete(site.pipeline()?.as_str(), &DeleteParams::default()).await?;
    let untouched = async || {
        same(&before, &everything(&site, &all).await?)?;
        ensure!(!site.is_left_to_default().await?, "a lane is left to default");
        Ok(())
    };
    holds("nothing is touched", WATCHED, &untouched).await?;
    ensure!(tenants.get_opt(&names[0]).await?.is_some(), "its deletion was carried out");
    operator.stop().await?;
    let again = site.install(&old, &unaware).await?;
    says_so(&again, &new, &old).await?;
    holds("nothing is touched", AGAIN, &untouched).await?;

    for (name, sender) in names.iter().zip(senders) {
        site.everything_once(&new, name, &sender.stop().await?).await?;
    }
    again.stop().await?;
    new.delete_tenants(&names).await?;
    for child in storing.into_iter().chain([ingest]) {
        child.end().await?;
    }
    successor.stop().await
}

fn without_finalizers() -> Patch<Value> {
    Patch::Merge(json!({"metadata": {"finalizers": null}}))
}

/// What docs/gitops.md says: not ready, a metric, the log, and an Event of the operator's Deployment.
async fn says_so(mistaken: &OperatorProcess, other: &Home, its_own: &Home) -> anyhow::Result<()> {
    eventually("it is not ready, and says why", SOON, || async {
        let ready = mistaken.get("/ready").await.err().context("it is ready")?.to_string();
        ensure!(ready.contains("503") && ready.contains("stands aside"), "{ready}");
        let metrics = mistaken.get("/metrics").await?;
        ensure!(metrics.lines().any(|line| line == "loggerhub_operator_stands_aside 1"), "{metrics}");
        Ok(())
    })
    .await?;
    let clusters = [&other.api.uid, &its_own.api.uid];
    let logged = mistaken.logged()?;
    ensure!(logged.lines().any(|line| clusters.iter().all(|uid| line.contains(*uid))), "{logged}");
    eventually("an Event names both clusters", SOON, || async {
        let events = its_own.cluster.ours::<Event>().list(&Default::default()).await?;
        let event = events.iter().find(|event| event.reason.as_deref() == Some("StandsAside"));
        let event = event.context("no such Event")?;
        let (note, about) = (event.note.clone().unwrap_or_default(), event.regarding.clone().unwrap_or_default());
        ensure!(clusters.iter().all(|uid| note.contains(*uid)), "{note}");
        ensure!(about.kind.as_deref() == Some("Deployment"), "{about:?}");
        ensure!(about.name.as_deref() == Some("loggerhub-operator"), "{about:?}");
        Ok(())
    })
    .await
}

/// Nor does it make anything in its own cluster.
async fn makes_nothing(second: &Home) -> anyhow::Result<()> {
    let cluster = &second.cluster;
    let secrets: Vec<String> =
        cluster.ours::<Secret>().list(&Default::default()).await?.iter().map(ResourceExt::name_any).collect();
    ensure!(secrets.is_empty(), "Secrets {secrets:?}");
    let deployments = cluster.ours::<Deployment>().list(&Default::default()).await?.items.len();
    ensure!(deployments == 0, "{deployments} Deployments");
    let tenants: Vec<Tenant> = cluster.tenants().list(&Default::default()).await?.items;
    let pipelines: Vec<LogPipeline> = cluster.pipelines().list(&Default::default()).await?.items;
    ensure!((tenants.len(), pipelines.len()) == (3, 1), "{tenants:?} {pipelines:?}");
    ensure!(tenants.iter().all(|tenant| tenant.status.is_none() && tenant.finalizers().is_empty()), "{tenants:?}");
    ensure!(pipelines.iter().all(|one| one.status.is_none() && one.finalizers().is_empty()), "{pipelines:?}");
    Ok(())
}

/// What is in the stores once nothing of it changes.
async fn settled(site: &Site, tenants: &[&String]) -> anyhow::Result<BTreeMap<String, String>> {
    eventually("all is in place", SOON, || async {
        let before = everything(site, tenants).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        same(&before, &everything(site, tenants).await?)?;
        Ok(before)
    })
    .await
}

/// All that the operator keeps in the stores, as text, by what it is.
async fn everything(site: &Site, tenants: &[&String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut stores = site.stores.clone();
    stores.postgres = site.postgres.superuser(&stores)?;
    in_postgres(&stores, &mut all).await?;
    in_redis(&stores, &mut all).await?;
    for tenant in tenants {
        of_tenant(&stores, tenant, &mut all).await?;
    }
    Ok(all)
}

fn same(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let nothing = String::new();
    for what in before.keys().chain(now.keys()) {
        let [before, now] = [before, now].map(|all| all.get(what).unwrap_or(&nothing));
        ensure!(before == now, "{what} is\n{now}\n, not\n{before}");
    }
    Ok(())
}

async fn in_postgres(stores: &Stores, all: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    let core = stores.postgres(CORE_DATABASE)?;
    for table in [
        "pg_catalog.pg_authid",
        "pg_catalog.pg_db_role_setting",
        "public.installations",
        "public.role_logins",
        "public.plans",
        "public.tenants",
        "public.api_keys",
        "public.missing_tenants",
    ] {
        all.insert(table.to_owned(), rows(&core, table).await?);
    }
    let databases = "(SELECT datname, datacl, datconnlimit FROM pg_catalog.pg_database)";
    all.insert("databases".to_owned(), rows(&core, databases).await?);
    let processor = stores.postgres(PROCESSOR_DATABASE)?;
    let schemas = "(SELECT nspname, nspacl FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_')";
    all.insert("schemas".to_owned(), rows(&processor, schemas).await?);
    Ok(())
}

async fn rows(pool: &sqlx::PgPool, table: &str) -> anyhow::Result<String> {
    let sql = format!("SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM {table} AS t");
    sqlx::query_scalar(&sql).fetch_one(pool).await.with_context(|| format!("read {table}"))
}

async fn in_redis(stores: &Stores, all: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    let mut redis = stores.queue()?.connection()?;
    let keys: Vec<String> = redis::cmd("KEYS").arg("lh:registry:*").query_async(&mut redis).await?;
    for key in keys {
        let held: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await?;
        all.insert(key, format!("{held:?}"));
    }
    Ok(())
}

/// A tenant's bucket and its series, whether they are there or not.
async fn of_tenant(stores: &Stores, name: &str, all: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    let tenant: crds::TenantName = name.parse()?;
    let bucket = tenant.archive(BucketLayout::PerTenant, "lh-").bucket;
    let s3 = stores.s3()?;
    let tags = s3.get_bucket_tagging().bucket(&bucket).send().await;
    let rules = s3.get_bucket_lifecycle_configuration().bucket(&bucket).send().await;
    let tags = tags.map(|tags| sorted(&tags.tag_set)).unwrap_or_else(|error| without_bucket(&error));
    let rules = rules.map(|rules| sorted(rules.rules())).unwrap_or_else(|error| without_bucket(&error));
    all.insert(format!("tags of bucket {bucket}"), tags);
    all.insert(format!("lifecycle of bucket {bucket}"), rules);
    let search = stores.opensearch()?;
    for path in [format!("/*{name}*"), format!("/_index_template/*{name}*")] {
        let headers = HeaderMap::new();
        let found = search.send(Method::Get, &path, headers, None::<&()>, None::<&str>, None).await?;
        all.insert(path, format!("{} {}", found.status_code(), found.text().await?));
    }
    Ok(())
}

/// The server lists them in any order.
fn sorted<T: Debug>(items: &[T]) -> String {
    let mut items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    items.sort();
    items.join("\n")
}

fn without_bucket<E: ProvideErrorMetadata>(error: &E) -> String {
    error.code().unwrap_or("no answer").to_owned()
}
