//! Ensuring twice is ensuring once, and what was made works.

use std::collections::HashSet;

use crds::names::{BucketLayout, index_name};
use crds::registry::TenantState;
use crds::tenant::{Isolation, Scope, SecretRef};
use operator::provision::{IssuedKey, Outcome, Provisioned};
use serde_json::json;

use crate::stores::{key, stores, tenant};

const UNCHANGED: Provisioned = Provisioned {
    database: Outcome::Unchanged,
    object_store: Outcome::Unchanged,
    search: Outcome::Unchanged,
    registry: Outcome::Unchanged,
};

#[tokio::test]
async fn provisioning_twice_changes_nothing_the_second_time() {
    let on = stores().await;
    let (desired, key) = (tenant(), key());
    let first = on.provision(&desired, std::slice::from_ref(&key)).await;
    assert_eq!(
        (first.database, first.object_store, first.registry),
        (Outcome::Created, Outcome::Created, Outcome::Created)
    );
    assert_ne!(first.search, Outcome::Unchanged);
    assert_eq!(on.provision(&desired, std::slice::from_ref(&key)).await, UNCHANGED);
    assert_eq!(on.stores.registry.get(desired.name()).await.unwrap().unwrap().keys[0].digest, key.digest);
}

#[tokio::test]
async fn looking_at_what_is_as_it_should_be_writes_and_locks_no_row() {
    let on = stores().await;
    let (mut desired, key) = (tenant(), key());
    desired.isolation = Isolation::Dedicated;
    on.provision(&desired, std::slice::from_ref(&key)).await;
    // A row that is written gets another xmin, one that is locked another xmax.
    let versions = async || {
        let (core, processor) = (on.stores.postgres.core(), on.stores.postgres.processor());
        let (name, series) = (desired.name().as_str(), desired.name().dedicated_series());
        let row: String = sqlx::query_scalar("SELECT xmin || ',' || xmax FROM public.tenants WHERE name = $1")
            .bind(name)
            .fetch_one(core)
            .await
            .unwrap();
        let keys: String = sqlx::query_scalar("SELECT xmin || ',' || xmax FROM public.api_keys WHERE tenant = $1")
            .bind(name)
            .fetch_one(core)
            .await
            .unwrap();
        let series: String =
            sqlx::query_scalar("SELECT xmin || ',' || xmax FROM public.index_series WHERE series = $1")
                .bind(series)
                .fetch_one(processor)
                .await
                .unwrap();
        [row, keys, series]
    };
    on.provision(&desired, std::slice::from_ref(&key)).await;
    let before = versions().await;
    on.provision(&desired, std::slice::from_ref(&key)).await;
    assert_eq!(versions().await, before);
}

#[tokio::test]
async fn a_prefix_of_a_shared_bucket_works_like_a_bucket() {
    let on = stores().await;
    let mut desired = tenant();
    desired.archive = desired.name().archive(BucketLayout::Shared, "provision-tests-shared-");
    let first = on.provision(&desired, &[]).await;
    assert_ne!(first.object_store, Outcome::Unchanged);
    assert_eq!(on.provision(&desired, &[]).await, UNCHANGED);
}

#[tokio::test]
async fn a_dedicated_tenant_has_indices_of_its_own() {
    let on = stores().await;
    let mut desired = tenant();
    desired.isolation = Isolation::Dedicated;
    on.provision(&desired, &[]).await;
    assert_eq!(on.provision(&desired, &[]).await, UNCHANGED);
    let index = index_name(&desired.name().dedicated_series(), 1);
    let (status, found) = on.search(opensearch::http::Method::Get, &format!("/{index}/_mapping"), None).await;
    assert_eq!(status, 200);
    assert_eq!(found[&index]["mappings"]["properties"]["leaves"]["type"], "keyword", "{found}");
}

#[tokio::test]
async fn the_alias_shows_the_tenants_documents_only() {
    let on = stores().await;
    let (one, other) = (tenant(), tenant());
    on.provision(&one, &[]).await;
    on.provision(&other, &[]).await;
    let series = on.stores.registry.get(one.name()).await.unwrap().unwrap().index_series;
    let index = index_name(&series, 1);
    for of in [&one, &other] {
        let path = format!("/{index}/_doc/{0}?routing={0}&refresh=true", of.name());
        let document = json!({"tenant": of.name(), "message": "hello", "@timestamp": "2026-01-01T00:00:00.123456Z"});
        assert_eq!(on.search(opensearch::http::Method::Put, &path, Some(document)).await.0, 201);
    }
    let path = format!("/{}/_search", one.name().index_alias());
    let (_, found) = on.search(opensearch::http::Method::Get, &path, None).await;
    assert_eq!(found["hits"]["total"]["value"], 1, "{found}");
    assert_eq!(found["hits"]["hits"][0]["_source"]["tenant"], json!(one.name()));
}

#[tokio::test]
async fn the_tenants_role_reads_its_own_leaves_and_nothing_of_another() {
    let on = stores().await;
    let (mine, theirs) = (tenant(), tenant());
    on.provision(&mine, &[]).await;
    on.provision(&theirs, &[]).await;
    let mut data = on.stores.postgres.processor().begin().await.unwrap();
    let enter = format!("GRANT \"{0}\" TO CURRENT_USER; SET LOCAL ROLE \"{0}\"", mine.name().database_role());
    sqlx::raw_sql(&enter).execute(&mut *data).await.unwrap();
    let leaf: String = sqlx::query_scalar(&format!(
        "SELECT name FROM {}.partitions ORDER BY begins LIMIT 1",
        mine.name().database_schema()
    ))
    .fetch_one(&mut *data)
    .await
    .unwrap();
    let select = |schema: String, table: &str| format!("SELECT count(*) FROM {schema}.{table}");
    let own = select(mine.name().database_schema(), &leaf);
    sqlx::query(&own).execute(&mut *data).await.unwrap();
    let foreign = select(theirs.name().database_schema(), "logs");
    let refused = sqlx::query(&foreign).execute(&mut *data).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
}

#[tokio::test]
async fn a_key_that_is_left_out_is_revoked_and_a_scope_that_changes_is_changed() {
    let on = stores().await;
    let desired = tenant();
    let (old, mut new) = (key(), key());
    on.provision(&desired, std::slice::from_ref(&old)).await;
    on.provision(&desired, std::slice::from_ref(&new)).await;
    let rows = on.stores.postgres.keys(desired.name(), &[old.id.clone(), new.id.clone()]).await.unwrap();
    let state: HashSet<(String, bool)> = rows.into_iter().map(|row| (row.key.id, row.revoked)).collect();
    assert_eq!(state, HashSet::from([(old.id.clone(), true), (new.id.clone(), false)]));
    new.scopes = vec![Scope::Query];
    assert_eq!(on.provision(&desired, std::slice::from_ref(&new)).await.database, Outcome::Updated);
    let entry = on.stores.registry.get(desired.name()).await.unwrap().unwrap();
    assert_eq!((entry.keys.len(), entry.keys[0].scopes.clone()), (1, vec![Scope::Query]));
}

#[tokio::test]
async fn a_key_that_was_replaced_lives_beside_its_successor_and_may_take_its_place_back() {
    let on = stores().await;
    let desired = tenant();
    let secret = SecretRef { name: "s".into(), namespace: "n".into() };
    let (mut old, mut new) = (key(), key());
    on.provision(&desired, std::slice::from_ref(&old)).await;
    // Noting where its Secret is changes nothing that anybody would call drift.
    old.secret = Some(secret.clone());
    assert_eq!(on.provision(&desired, std::slice::from_ref(&old)).await.database, Outcome::Unchanged);
    assert_eq!(on.stores.postgres.written_secrets(desired.name()).await.unwrap(), std::slice::from_ref(&secret));
    let end = std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    (old.secret, old.expires_at, new.secret, new.request) = (None, Some(end), Some(secret.clone()), Some("1".into()));
    for _ in 0..2 {
        // Whichever order they come in: there is one current key of a name at any time.
        on.provision(&desired, &[new.clone(), old.clone()]).await;
        let rows = on.stores.postgres.keys(desired.name(), &[]).await.unwrap();
        let found: HashSet<_> = rows.iter().map(|row| row.key.id.as_str()).collect();
        assert_eq!(found, HashSet::from([old.id.as_str(), new.id.as_str()]));
        assert!(rows.iter().all(|row| row.key == old || row.key == new), "{rows:?}");
        let entry = on.stores.registry.get(desired.name()).await.unwrap().unwrap();
        let ends = |key: &IssuedKey| entry.keys.iter().find(|known| known.id == key.id).unwrap().expires_at;
        assert_eq!(
            (ends(&old), ends(&new)),
            (old.expires_at.map(|_| 4_000_000_000), new.expires_at.map(|_| 4_000_000_000))
        );
        std::mem::swap(&mut old.expires_at, &mut new.expires_at);
    }
    // Its Secret is known until somebody has removed it, whatever becomes of the key.
    on.provision(&desired, &[]).await;
    assert_eq!(on.stores.postgres.written_secrets(desired.name()).await.unwrap(), std::slice::from_ref(&secret));
    on.stores.postgres.forget_secret(desired.name(), &secret).await.unwrap();
    assert!(on.stores.postgres.written_secrets(desired.name()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_change_of_state_and_of_retention_is_carried_through() {
    let on = stores().await;
    let mut desired = tenant();
    on.provision(&desired, &[]).await;
    desired.state = TenantState::Suspended;
    desired.retention.hot_days = 30;
    desired.retention.total_days = 90;
    let changed = on.provision(&desired, &[]).await;
    let updated = Outcome::Updated;
    assert_eq!((changed.database, changed.object_store, changed.registry), (updated, updated, updated));
    let entry = on.stores.registry.get(desired.name()).await.unwrap().unwrap();
    assert_eq!(entry.state, TenantState::Suspended);
    assert!(entry.index_series.starts_with("lh-hot30-"), "{}", entry.index_series);
    assert_eq!(on.provision(&desired, &[]).await, UNCHANGED);
}
