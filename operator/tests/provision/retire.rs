//! Removal: all of the tenant's things and nothing else, twice, and from half of it.

use std::time::Duration;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use crds::TenantName;
use crds::names::{BucketLayout, index_name};
use crds::registry::{IngestQuotas, Rate, RegistryTenant};
use crds::tenant::Isolation;
use opensearch::http::Method;
use operator::provision::{DesiredTenant, Error, ObjectStore, Outcome, Retired, RowState, SeenEntry, delete_tenant};
use operator::tenant::deletion::retain_data;
use serde_json::json;

use testkit::s3_policy::shipped;

use crate::stores::{Fixture, chain, key, stores, tenant};

async fn delete(on: &Fixture, desired: &DesiredTenant) {
    let done = delete_tenant(&on.stores, &desired.owner, &desired.archive, |_| {}).await;
    assert_eq!(done.unwrap_or_else(|error| panic!("{}", chain(&error))), Retired::Done);
}

async fn left_in_postgres(on: &Fixture, desired: &DesiredTenant) -> i64 {
    let name = desired.name();
    on.count(&format!(
        "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = '{}') + (SELECT count(*) FROM pg_roles WHERE rolname IN ('{}', '{}')) \
         + (SELECT count(*) FROM public.tenant_schemas WHERE tenant = '{name}')",
        name.database_schema(),
        name.database_role(),
        name.database_reader()
    ))
    .await
}

async fn put(on: &Fixture, desired: &DesiredTenant, key: &str) {
    let key = format!("{}{key}", desired.archive.prefix);
    on.s3.put_object().bucket(&desired.archive.bucket).key(key).body(b"x".to_vec().into()).send().await.unwrap();
}

#[tokio::test]
async fn a_shared_tenant_is_removed_and_its_neighbour_is_not() {
    let on = stores().await;
    let (mut gone, mut stays) = (tenant(), tenant());
    for desired in [&mut gone, &mut stays] {
        desired.archive = desired.name().archive(BucketLayout::Shared, "provision-tests-shared-");
        on.provision(desired, &[key()]).await;
        put(&on, desired, "logs/1").await;
        let series = on.stores.registry.get(desired.name()).await.unwrap().unwrap().index_series;
        let index = index_name(&series, 1);
        let path = format!("/{index}/_doc/{0}?routing={0}&refresh=true", desired.name());
        on.search(Method::Put, &path, Some(json!({"tenant": desired.name()}))).await;
    }
    let (all, _) = on.search(Method::Get, &format!("/{}/_count", gone.name().index_alias()), None).await;
    assert_eq!(all, 200);
    delete(&on, &gone).await;
    assert_eq!(left_in_postgres(&on, &gone).await, 0);
    assert_eq!(on.search(Method::Get, &format!("/{}/_count", gone.name().index_alias()), None).await.0, 404);
    assert!(on.stores.registry.get(gone.name()).await.unwrap().is_none());
    let (_, neighbour) = on.search(Method::Get, &format!("/{}/_count", stays.name().index_alias()), None).await;
    assert_eq!(neighbour["count"], 1);
    for (desired, objects) in [(&gone, 0), (&stays, 1)] {
        let list = on.s3.list_objects_v2().bucket(&desired.archive.bucket).prefix(&desired.archive.prefix);
        assert_eq!(list.send().await.unwrap().contents().len(), objects);
    }
    delete(&on, &gone).await;
    assert_eq!(on.provision(&gone, &[]).await.database, Outcome::Created);
}

#[tokio::test]
async fn a_dedicated_tenant_with_a_bucket_is_removed_also_when_half_of_it_is_gone() {
    let on = stores().await;
    for half in 0..4 {
        let mut desired = tenant();
        desired.isolation = Isolation::Dedicated;
        on.provision(&desired, &[key()]).await;
        put(&on, &desired, "logs/1").await;
        let index = index_name(&desired.name().dedicated_series(), 1);
        match half {
            0 => {}
            1 => on.processor(&format!("DROP SCHEMA {} CASCADE", desired.name().database_schema())).await,
            2 => drop(on.search(Method::Delete, &format!("/{index}"), None).await),
            _ => {
                on.s3.delete_object().bucket(&desired.archive.bucket).key("logs/1").send().await.unwrap();
                on.s3.delete_bucket().bucket(&desired.archive.bucket).send().await.unwrap();
            }
        }
        delete(&on, &desired).await;
        delete(&on, &desired).await;
        assert_eq!(left_in_postgres(&on, &desired).await, 0, "{half}");
        assert_eq!(on.search(Method::Get, &format!("/{index}"), None).await.0, 404);
        assert!(on.s3.head_bucket().bucket(&desired.archive.bucket).send().await.is_err());
    }
}

#[tokio::test]
async fn a_tenant_in_a_versioned_bucket_is_removed_with_every_version() {
    let on = stores().await;
    let servers = testkit::Stores::from_environment().unwrap();
    let shared = testkit::unique("versioned");
    for (layout, prefix, policy) in [
        (BucketLayout::PerTenant, "lh-", shipped::OPERATOR),
        (BucketLayout::Shared, shared.as_str(), shipped::OPERATOR_SHARED),
    ] {
        let object_store = ObjectStore::new(servers.s3_by(policy, prefix).await.unwrap());
        let (mut gone, mut stays) = (tenant(), tenant());
        for desired in [&mut gone, &mut stays] {
            desired.archive = desired.name().archive(layout, prefix);
            on.provision(desired, &[]).await;
            let on_now = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
            let bucket = &desired.archive.bucket;
            on.s3.put_bucket_versioning().bucket(bucket).versioning_configuration(on_now).send().await.unwrap();
            put(&on, desired, "logs/1").await;
            put(&on, desired, "logs/1").await;
            put(&on, desired, "logs/2").await;
            let key = format!("{}logs/2", desired.archive.prefix);
            on.s3.delete_object().bucket(bucket).key(key).send().await.unwrap();
        }
        for _ in 0..2 {
            let retired = object_store.retire(&gone.owner, &gone.archive).await;
            assert_eq!(retired.unwrap_or_else(|error| panic!("{}", chain(&error))), Retired::Done);
        }
        let left = async |desired: &DesiredTenant| {
            let found = on.s3.list_object_versions().bucket(&desired.archive.bucket).send().await.unwrap();
            let keys = found.versions().iter().filter_map(|one| one.key());
            let keys = keys.chain(found.delete_markers().iter().filter_map(|one| one.key()));
            let marker = format!(".loggerhub/{}", desired.archive.prefix.trim_end_matches('/'));
            let own = |key: &&str| key.starts_with(&desired.archive.prefix) || *key == marker;
            keys.filter(own).count()
        };
        match layout {
            BucketLayout::PerTenant => {
                assert!(on.s3.head_bucket().bucket(&gone.archive.bucket).send().await.is_err());
                assert_eq!(left(&stays).await, 4);
            }
            BucketLayout::Shared => assert_eq!((left(&gone).await, left(&stays).await), (0, 5)),
        }
    }
}

/// Events and bytes that are billed to a tenant.
async fn billed(on: &Fixture, desired: &DesiredTenant) -> (i64, i64) {
    let sums = "SELECT coalesce(sum(events), 0)::bigint, coalesce(sum(bytes), 0)::bigint FROM public.usage_hourly \
                WHERE tenant = $1";
    sqlx::query_as(sums).bind(desired.name().as_str()).fetch_one(on.stores.postgres.core()).await.unwrap()
}

/// A row of the tenant's ledger.
fn counted(desired: &DesiredTenant, events: i32) -> String {
    format!(
        "INSERT INTO {}.usage_ledger (batch_id, accepted_at, key_id, events, bytes) \
         VALUES (gen_random_uuid(), now(), 'k', {events}, {events} * 100)",
        desired.name().database_schema()
    )
}

#[tokio::test]
async fn what_is_used_last_is_billed_once_before_the_ledger_goes() {
    let on = stores().await;
    let desired = tenant();
    on.provision(&desired, &[key()]).await;
    for _ in 0..3 {
        on.processor(&counted(&desired, 1)).await;
    }
    // maintain has rolled up the first two, and a processor has numbered its batch and not committed it yet.
    let watermark = "INSERT INTO public.usage_watermarks (tenant, ledger_id) VALUES ($1, 2)";
    sqlx::query(watermark).bind(desired.name().as_str()).execute(on.stores.postgres.core()).await.unwrap();
    let mut writes = on.stores.postgres.processor().begin().await.unwrap();
    sqlx::raw_sql(&counted(&desired, 40)).execute(&mut *writes).await.unwrap();
    on.processor(&counted(&desired, 200)).await;
    let deletion = async {
        delete(&on, &desired).await;
    };
    let writer = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        writes.commit().await.unwrap();
    };
    tokio::join!(deletion, writer);
    assert_eq!(left_in_postgres(&on, &desired).await, 0);
    assert_eq!(billed(&on, &desired).await, (241, 24_100));
    delete(&on, &desired).await;
    assert_eq!(billed(&on, &desired).await, (241, 24_100));

    // One of the same name begins to count anew.
    on.provision(&desired, &[key()]).await;
    on.processor(&counted(&desired, 1)).await;
    for _ in 0..2 {
        on.stores.postgres.settle_usage(desired.name()).await.unwrap();
        assert_eq!(billed(&on, &desired).await, (242, 24_200));
    }
    delete(&on, &desired).await;
    assert_eq!(billed(&on, &desired).await, (242, 24_200));
}

#[tokio::test]
async fn what_maintain_is_at_is_removed_once_it_is_through() {
    let on = stores().await;
    for lock in [TenantName::maintain_lock, TenantName::late_index_lock] {
        let mut desired = tenant();
        desired.archive = desired.name().archive(BucketLayout::Shared, "provision-tests-shared-");
        on.provision(&desired, &[key()]).await;
        put(&on, &desired, "logs/1").await;
        let mut maintain = on.stores.postgres.processor().acquire().await.unwrap();
        let (take, give) = ("SELECT pg_advisory_lock(hashtextextended($1, 0))", "SELECT pg_advisory_unlock_all()");
        sqlx::query(take).bind(lock(desired.name())).execute(&mut *maintain).await.unwrap();
        let deletion = async {
            delete(&on, &desired).await;
        };
        let maintenance = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_ne!(left_in_postgres(&on, &desired).await, 0, "its schema is dropped while maintain is at it");
            put(&on, &desired, "logs/2").await;
            sqlx::query(give).execute(&mut *maintain).await.unwrap();
        };
        tokio::join!(deletion, maintenance);
        let list = on.s3.list_objects_v2().bucket(&desired.archive.bucket).prefix(&desired.archive.prefix);
        assert_eq!(list.send().await.unwrap().contents().len(), 0);
        assert_eq!(left_in_postgres(&on, &desired).await, 0);
    }
}

#[tokio::test]
async fn what_is_retained_does_not_expire_until_its_tenant_is_back() {
    let on = stores().await;
    let shared = testkit::unique("retained");
    let days = async |desired: &DesiredTenant| {
        let rules = on.s3.get_bucket_lifecycle_configuration().bucket(&desired.archive.bucket).send().await;
        rules.ok().and_then(|rules| rules.rules().iter().find_map(|rule| rule.expiration()?.days()))
    };
    for layout in [BucketLayout::PerTenant, BucketLayout::Shared] {
        let prefix = if layout == BucketLayout::Shared { shared.as_str() } else { "lh-" };
        let (mut goes, mut neighbour) = (tenant(), tenant());
        for desired in [&mut goes, &mut neighbour] {
            desired.archive = desired.name().archive(layout, prefix);
            on.provision(desired, &[]).await;
            assert_eq!(days(desired).await, Some(32));
        }
        on.stores.object_store.keep(&goes.owner, &goes.archive).await.unwrap();
        assert!(on.stores.postgres.set_state(&goes.owner, RowState::Retained).await.unwrap());
        assert_eq!(days(&goes).await, None);
        on.provision(&neighbour, &[]).await;
        assert_eq!(days(&goes).await, None, "{layout:?}: its neighbour's rule reaches it");
        assert_eq!(on.provision(&neighbour, &[]).await.object_store, Outcome::Unchanged);
        let mut other = neighbour.clone();
        other.owner.installation = "provision-tests-other".into();
        on.stores.object_store.keep(&other.owner, &other.archive).await.unwrap();
        on.provision(&goes, &[]).await;
        assert_eq!(days(&goes).await, Some(32), "{layout:?}");
        assert_eq!(days(&neighbour).await, Some(32), "{layout:?}");
    }
}

#[tokio::test]
async fn the_rule_of_a_shared_bucket_comes_back_with_the_days_of_whom_is_kept_longest() {
    let on = stores().await;
    let prefix = testkit::unique("longest");
    let kept_for = |days: i32| {
        let mut desired = tenant();
        desired.archive = desired.name().archive(BucketLayout::Shared, &prefix);
        desired.retention.total_days = days;
        desired
    };
    let (longest, neighbour, goes) = (kept_for(365), kept_for(7), kept_for(7));
    let days = async || {
        let rules = on.s3.get_bucket_lifecycle_configuration().bucket(&goes.archive.bucket).send().await;
        rules.ok().and_then(|rules| rules.rules().iter().find_map(|rule| rule.expiration()?.days()))
    };
    for desired in [&longest, &neighbour, &goes] {
        on.provision(desired, &[]).await;
    }
    assert_eq!(days().await, Some(367));
    retain_data(&on.stores, &goes.owner).await.unwrap();
    assert_eq!(days().await, None);
    on.provision(&neighbour, &[]).await;
    assert_eq!(days().await, None, "a neighbour's rule reaches what is retained");
    on.provision(&goes, &[]).await;
    assert_eq!(days().await, Some(367), "back, it puts a rule in place that reaches what another keeps");

    // One that is new in the bucket finds the rule gone, too.
    on.s3.delete_bucket_lifecycle().bucket(&goes.archive.bucket).send().await.unwrap();
    on.provision(&kept_for(7), &[]).await;
    assert_eq!(days().await, Some(367));
}

#[tokio::test]
async fn what_is_not_ours_is_not_removed() {
    let on = stores().await;
    let desired = tenant();
    on.provision(&desired, &[]).await;
    put(&on, &desired, "logs/1").await;
    let mut other = desired.clone();
    other.owner.installation = "provision-tests-other".into();
    let refused = on.stores.object_store.retire(&other.owner, &other.archive).await;
    assert!(matches!(refused, Err(Error::OwnershipConflict { .. })), "{refused:?}");
    let refused = on.stores.postgres.delete(&other.owner).await;
    assert!(matches!(refused, Err(Error::OwnershipConflict { .. })), "{refused:?}");
    assert_eq!(on.provision(&desired, &[]).await.object_store, Outcome::Unchanged);
}

#[tokio::test]
async fn a_retained_tenant_takes_its_data_back() {
    let on = stores().await;
    let mut desired = tenant();
    on.provision(&desired, &[key()]).await;
    put(&on, &desired, "logs/1").await;
    on.stores.registry.remove(desired.name()).await.unwrap();
    on.stores.postgres.revoke_keys(&desired.owner.installation, desired.name()).await.unwrap();
    assert!(on.stores.postgres.set_state(&desired.owner, RowState::Retained).await.unwrap());
    desired.owner.uid = "2".into();
    let again = on.provision(&desired, &[key()]).await;
    assert_eq!((again.database, again.object_store), (Outcome::Created, Outcome::Updated));
    assert_eq!(on.provision(&desired, &[]).await.object_store, Outcome::Unchanged);
    let list = on.s3.list_objects_v2().bucket(&desired.archive.bucket).send().await.unwrap();
    assert_eq!(list.contents().len(), 1);
}

#[tokio::test]
async fn who_read_an_entry_before_a_revocation_does_not_bring_the_key_back() {
    let on = stores().await;
    let (desired, registry) = (tenant(), &on.stores.registry);
    on.provision(&desired, &[key()]).await;
    let quotas = IngestQuotas { bytes: None, events: Some(Rate { per_second: 7, burst: 70 }) };
    let limited = |seen: &SeenEntry| RegistryTenant { quotas, ..seen.entry.clone() };
    let read = async || registry.see(desired.name()).await.unwrap().unwrap();

    let seen = read().await;
    assert_eq!(seen.entry.keys.len(), 1);
    registry.upsert(&RegistryTenant { keys: vec![], ..seen.entry.clone() }).await.unwrap();
    assert_eq!(registry.replace(&seen, &limited(&seen)).await.unwrap(), None);
    let seen = read().await;
    assert!(seen.entry.keys.is_empty() && seen.entry.quotas.is_unlimited(), "{seen:?}");

    assert_eq!(registry.replace(&seen, &limited(&seen)).await.unwrap(), Some(Outcome::Updated));
    let seen = read().await;
    assert!(seen.entry.keys.is_empty() && seen.entry.quotas == quotas, "{seen:?}");

    registry.remove(desired.name()).await.unwrap();
    assert_eq!(registry.replace(&seen, &limited(&seen)).await.unwrap(), None);
    assert!(registry.get(desired.name()).await.unwrap().is_none(), "a tenant that is gone comes back");
}
