//! One thing is dropped, the next provisioning puts it back.

use crds::names::{DATA_ROLE, MAINTAIN_ROLE, PROCESSOR_DATABASE, SEARCH_ROLE, index_name};
use opensearch::http::Method;
use operator::provision::Outcome;

use crate::stores::{key, stores, tenant};

#[tokio::test]
async fn settings_that_a_platform_role_gave_itself_are_taken_back() {
    let on = stores().await;
    for role in [DATA_ROLE, MAINTAIN_ROLE, SEARCH_ROLE] {
        // Operators of other tests alter the same roles, under this lock.
        on.processor(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('loggerhub:bootstrap', 0)); \
             ALTER ROLE {role} SET application_name = 'forged'; \
             ALTER ROLE {role} IN DATABASE {PROCESSOR_DATABASE} SET application_name = 'forged'; COMMIT"
        ))
        .await;
    }
    on.stores.postgres.bootstrap(&testkit::tenant::role_passwords().await.unwrap()).await.unwrap();
    let left = format!(
        "SELECT count(*) FROM pg_db_role_setting
         WHERE setrole IN ('{DATA_ROLE}'::regrole, '{MAINTAIN_ROLE}'::regrole, '{SEARCH_ROLE}'::regrole)"
    );
    assert_eq!(on.count(&left).await, 0);
}

#[tokio::test]
async fn whatever_is_dropped_in_postgres_comes_back() {
    let on = stores().await;
    let (desired, key) = (tenant(), key());
    let keys = std::slice::from_ref(&key);
    on.provision(&desired, keys).await;
    let (schema, role) = (desired.name().database_schema(), desired.name().database_role());
    let reader = desired.name().database_reader();
    let leaves = format!("SELECT count(*) FROM pg_inherits WHERE inhparent = '{schema}.logs'::regclass");
    let made = on.count(&leaves).await;
    // 30 days are kept, in widths of 4, and three more are ahead.
    assert!((11..=12).contains(&made), "{made}");
    for damage in [
        format!("DROP TABLE {schema}.dead_letters"),
        format!("DROP INDEX {schema}.logs_newest_first"),
        format!("DROP TABLE {schema}.partitions"),
        format!("DROP TABLE {schema}.logs"),
        format!("REVOKE USAGE ON SCHEMA {schema} FROM {role}"),
        format!("REVOKE INSERT ON {schema}.batches FROM {role}"),
        format!("GRANT INSERT ON {schema}.partitions TO {role}"),
        format!("GRANT UPDATE ON {schema}.usage_ledger TO {role}"),
        format!("GRANT DELETE ON {schema}.usage_ledger TO {role}"),
        format!("REVOKE {role} FROM lh_data"),
        format!("REVOKE USAGE ON SCHEMA {schema} FROM {reader}"),
        format!("REVOKE SELECT ON {schema}.objects FROM {reader}"),
        format!("REVOKE UPDATE (redrive_at, purged_at, raw) ON {schema}.dead_letters FROM {reader}"),
        format!("GRANT UPDATE (message) ON {schema}.logs TO {reader}"),
        format!("GRANT DELETE ON {schema}.usage_ledger TO {reader}"),
        format!("REVOKE {reader} FROM lh_search"),
        format!("DROP SCHEMA {schema} CASCADE; DROP ROLE {reader}"),
        format!("DELETE FROM public.tenant_schemas WHERE tenant = '{}'", desired.name()),
        format!("DROP SCHEMA {schema} CASCADE; DROP ROLE {role}"),
        format!("DROP SCHEMA {schema} CASCADE"),
    ] {
        on.processor(&damage).await;
        assert_ne!(on.provision(&desired, keys).await.database, Outcome::Unchanged, "{damage}");
        assert_eq!(on.provision(&desired, keys).await.database, Outcome::Unchanged, "{damage}");
        assert_eq!(on.count(&leaves).await, on.count(&format!("SELECT count(*) FROM {schema}.partitions")).await);
        assert_eq!(on.count(&leaves).await, made, "{damage}");
    }
}

#[tokio::test]
async fn a_dropped_partition_comes_back() {
    let on = stores().await;
    let desired = tenant();
    on.provision(&desired, &[]).await;
    let schema = desired.name().database_schema();
    let leaf_at = async |moment: &str| -> String {
        let leaf = format!(
            "SELECT name FROM {schema}.partitions WHERE begins <= now() + {moment} AND ends > now() + {moment}"
        );
        sqlx::query_scalar(&leaf).fetch_one(on.stores.postgres.processor()).await.unwrap()
    };
    // To make one ahead of time is no repair.
    for (moment, outcome) in [("interval '0'", Outcome::Updated), ("interval '4 days'", Outcome::Unchanged)] {
        let leaf = leaf_at(moment).await;
        on.processor(&format!("DROP TABLE {schema}.{leaf}")).await;
        assert_eq!(on.provision(&desired, &[]).await.database, outcome);
        assert_eq!(on.count(&format!("SELECT count(*) FROM {schema}.{leaf}")).await, 0);
    }
    // Those before and far ahead are left to maintain.
    let (oldest, newest) = (leaf_at("interval '-30 days'").await, leaf_at("interval '12 days'").await);
    on.processor(&format!("DROP TABLE {schema}.{oldest}, {schema}.{newest}")).await;
    assert_eq!(on.count(&format!("SELECT public.ensure_partitions('{schema}', now())::bigint")).await, 2);
    for leaf in [oldest, newest] {
        assert_eq!(on.count(&format!("SELECT count(*) FROM {schema}.{leaf}")).await, 0);
    }
}

#[tokio::test]
async fn a_dropped_registry_row_comes_back_with_its_keys() {
    let on = stores().await;
    let (desired, key) = (tenant(), key());
    let keys = std::slice::from_ref(&key);
    on.provision(&desired, keys).await;
    sqlx::query("DELETE FROM public.tenants WHERE name = $1")
        .bind(desired.name().as_str())
        .execute(on.stores.postgres.core())
        .await
        .unwrap();
    assert_eq!(on.provision(&desired, keys).await.database, Outcome::Created);
    assert_eq!(on.stores.postgres.keys(desired.name(), &[]).await.unwrap()[0].key, key);
}

#[tokio::test]
async fn a_dropped_bucket_and_a_dropped_lifecycle_come_back() {
    let on = stores().await;
    let desired = tenant();
    on.provision(&desired, &[]).await;
    let bucket = &desired.archive.bucket;
    on.s3.delete_bucket_lifecycle().bucket(bucket).send().await.unwrap();
    assert_eq!(on.provision(&desired, &[]).await.object_store, Outcome::Updated);
    on.s3.delete_bucket().bucket(bucket).send().await.unwrap();
    assert_eq!(on.provision(&desired, &[]).await.object_store, Outcome::Created);
    let rules = on.s3.get_bucket_lifecycle_configuration().bucket(bucket).send().await.unwrap();
    assert_eq!(rules.rules()[0].expiration().unwrap().days(), Some(desired.retention.total_days + 2));
}

#[tokio::test]
async fn a_dropped_alias_and_a_dropped_index_come_back() {
    let on = stores().await;
    let mut desired = tenant();
    desired.isolation = crds::tenant::Isolation::Dedicated;
    on.provision(&desired, &[]).await;
    let index = index_name(&desired.name().dedicated_series(), 1);
    let alias = desired.name().index_alias();
    on.search(Method::Delete, &format!("/{index}/_alias/{alias}"), None).await;
    assert_eq!(on.provision(&desired, &[]).await.search, Outcome::Created);
    on.search(Method::Delete, &format!("/{index}"), None).await;
    assert_eq!(on.provision(&desired, &[]).await.search, Outcome::Created);
    assert_eq!(on.search(Method::Get, &format!("/{alias}/_count"), None).await.0, 200);
}

#[tokio::test]
async fn a_lost_registry_entry_is_written_again_and_the_epoch_grows() {
    let on = stores().await;
    let desired = tenant();
    on.provision(&desired, &[]).await;
    let mut redis = on.stores.registry.connection();
    let epoch = async |redis: &mut runtime::stores::Connection| -> i64 {
        redis::cmd("GET").arg(crds::names::REGISTRY_EPOCH).query_async(redis).await.unwrap()
    };
    let before = epoch(&mut redis).await;
    let () = redis::cmd("HDEL")
        .arg(crds::names::REGISTRY_TENANTS)
        .arg(desired.name().as_str())
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(on.provision(&desired, &[]).await.registry, Outcome::Created);
    assert!(epoch(&mut redis).await > before);
}

#[tokio::test]
async fn a_write_makes_no_index_of_ours() {
    let on = stores().await;
    on.provision(&tenant(), &[]).await;
    let index = index_name(&tenant().name().dedicated_series(), 7);
    let document = || Some(serde_json::json!({"message": "a"}));
    let (status, answer) = on.search(Method::Post, &format!("/{index}/_doc"), document()).await;
    assert_eq!(answer["error"]["type"], "index_not_found_exception", "{answer}");
    assert_eq!(status, 404);
    // Others' indices are made as before.
    let other = format!("other-{}", tenant().name());
    let (status, answer) = on.search(Method::Post, &format!("/{other}/_doc"), document()).await;
    assert_eq!(status, 201, "{answer}");
    on.search(Method::Delete, &format!("/{other}"), None).await;
}
